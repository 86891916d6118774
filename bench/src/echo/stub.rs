//! The client's side of the service: what tonic generates for a unary method, without a build script.
//!
//! One line of it is left out: the `GrpcMethod` that generated stubs put among the request's extensions, for interceptors.
//! It costs three allocations and some 1 000 instructions before anybody who is measured here is called, and budgets of a
//! channel are not about it.

use std::error::Error;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http_body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::StdError;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{EchoRequest, EchoResponse, PATH};

/// What generated stubs take, and what it takes to call from several tasks.
pub(crate) trait Channel:
    GrpcService<
        tonic::body::Body,
        Error: Into<StdError> + Send,
        ResponseBody: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>> + Send> + Send + 'static,
        Future: Send,
    > + Clone
    + Send
    + 'static
{
}

impl<C> Channel for C where
    C: GrpcService<
            tonic::body::Body,
            Error: Into<StdError> + Send,
            ResponseBody: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>> + Send> + Send + 'static,
            Future: Send,
        > + Clone
        + Send
        + 'static
{
}

/// The stub.
#[derive(Clone)]
pub(crate) struct EchoClient<C> {
    inner: Grpc<C>,
}

impl<C: Channel> EchoClient<C> {
    pub(crate) fn new(channel: C) -> Self {
        Self { inner: Grpc::new(channel) }
    }

    pub(crate) async fn echo(&mut self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        self.inner
            .ready()
            .await
            .map_err(|error| Status::unknown(format!("Service was not ready: {}", error.into())))?;
        let codec = ProstCodec::default();
        let path = PathAndQuery::from_static(PATH);
        self.inner.unary(request, path, codec).await
    }
}
