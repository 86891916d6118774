//! The client's side of the service: what tonic generates for a unary method, without a build script, but for one line.
//!
//! Generated stubs also put a `GrpcMethod` among the request's extensions, for interceptors. It costs three allocations and
//! several hundred instructions before anybody who is measured here is called, and budgets of a channel are not about it.
//! What calls cost with it is measured beside: [`Stub::Generated`].

use std::error::Error;

use bytes::Bytes;
use clap::ValueEnum;
use http::uri::PathAndQuery;
use http_body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::StdError;
use tonic::{GrpcMethod, Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{EchoRequest, EchoResponse, METHOD, PATH, SERVICE};

/// What the stub puts into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stub {
    /// What it was given.
    Bare,
    /// A `GrpcMethod` too, as a generated one does.
    Generated,
}

impl Stub {
    /// As flags call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Generated => "generated",
        }
    }
}

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
    stub: Stub,
}

impl<C: Channel> EchoClient<C> {
    pub(crate) fn new(channel: C) -> Self {
        Self::of(Stub::Bare, channel)
    }

    pub(crate) fn of(stub: Stub, channel: C) -> Self {
        Self { inner: Grpc::new(channel), stub }
    }

    pub(crate) async fn echo(&mut self, mut request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        self.inner
            .ready()
            .await
            .map_err(|error| Status::unknown(format!("Service was not ready: {}", error.into())))?;
        let codec = ProstCodec::default();
        let path = PathAndQuery::from_static(PATH);
        if self.stub == Stub::Generated {
            request.extensions_mut().insert(GrpcMethod::new(SERVICE, METHOD));
        }
        self.inner.unary(request, path, codec).await
    }
}
