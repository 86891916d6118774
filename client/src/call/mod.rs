//! One call from its request to its trailers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;

use crate::target::Target;

/// Ask on a request (`request.extensions_mut().insert(WaitForReady)`) to wait for a READY endpoint until the call's own
/// deadline instead of the channel's failfast time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady;

/// A call under way. Dropping it cancels the call.
pub struct CallFuture {
    run: Pin<Box<dyn Future<Output = Result<http::Response<ResponseBody>, Status>> + Send>>,
}

impl CallFuture {
    pub(crate) fn start(target: Arc<Target>, _request: http::Request<tonic::body::Body>) -> Self {
        let run = Box::pin(async move { Err(Status::unavailable(format!("{} is not reachable", target.service()))) });
        Self { run }
    }
}

impl Future for CallFuture {
    type Output = Result<http::Response<ResponseBody>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.run.as_mut().poll(cx)
    }
}

/// The answer's messages and trailers.
#[derive(Debug)]
pub struct ResponseBody {}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(None)
    }
}
