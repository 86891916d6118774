//! The channel of the resolver and the registrar with its type erased: a `MeshChannel` in a process, in a test the fake
//! registry's service itself with no connection between. A box per call is nothing where calls come every few seconds.

use bytes::Bytes;
use http_body::Body as HttpBody;
use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::StdError;
use tower::util::{BoxCloneSyncService, MapResponse};
use tower::{Service, ServiceExt};

/// A way to a registry.
pub(crate) type RegistryClient = RegistryServiceClient<RegistryChannel>;
/// What it goes over.
pub(crate) type RegistryChannel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// A client over any gRPC service.
pub(crate) fn registry_client<S, B>(service: S) -> RegistryClient
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<StdError> + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    let erased = MapResponse::new(service, |response: http::Response<B>| response.map(Body::new));
    RegistryServiceClient::new(BoxCloneSyncService::new(erased.map_err(|error| Status::from_error(error.into()))))
}
