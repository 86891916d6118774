//! Public keys as user-svc tells them: `shop.user.v1.UserService/GetJwks`.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use mesh_api::shop::user::v1::{self as wire, GetJwksRequest};
use tonic::client::GrpcService;
use tonic::{Request, Status};

use super::jwk::Jwk;
use super::verifier::KeySource;

/// Longest time that user-svc may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl From<wire::Jwk> for Jwk {
    fn from(key: wire::Jwk) -> Self {
        let wire::Jwk { kty, crv, alg, r#use, kid, x } = key;
        Self { kty, crv, alg: Some(alg), usage: Some(r#use), kid, x }
    }
}

impl From<Jwk> for wire::Jwk {
    fn from(key: Jwk) -> Self {
        let Jwk { kty, crv, alg, usage, kid, x } = key;
        Self { kty, crv, alg: alg.unwrap_or_default(), r#use: usage.unwrap_or_default(), kid, x }
    }
}

impl KeySource {
    /// user-svc, asked over any transport, such as a channel of the mesh.
    pub fn user_service<T>(transport: T) -> Self
    where
        T: GrpcService<
                tonic::body::Body,
                ResponseBody: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
        T::Error: Into<BoxError>,
    {
        let client = UserServiceClient::new(transport);
        Self::new(move || {
            let mut client = client.clone();
            async move {
                let mut request = Request::new(GetJwksRequest {});
                request.set_timeout(ANSWER_MAX);
                let said = |status: Status| format!("{:?}: {}", status.code(), status.message());
                let answer = client.get_jwks(request).await.map_err(said)?.into_inner();
                Ok::<_, String>(answer.keys.into_iter().map(Into::into).collect())
            }
        })
    }
}
