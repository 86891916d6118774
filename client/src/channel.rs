//! The tower service that generated stubs take like a `tonic::transport::Channel`.

use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tower::Service;

use crate::call::{CallFuture, ResponseBody};
use crate::endpoint::{ConnectivityState, EndpointHandle};
use crate::explain::Explanation;
use crate::target::Target;

/// Calls to one service: found, balanced, retried where that is safe. Cheap to clone; clones share everything.
///
/// Connections are made as soon as the service is resolved, off the request path, and a call goes to one that is READY.
/// While none is, calls wait: until their deadline, but no longer than the channel's failfast time unless they carry
/// [`WaitForReady`](crate::WaitForReady).
///
/// Dropping the last clone ends the connections once their open streams are done.
#[derive(Clone, Debug)]
pub struct MeshChannel {
    target: Arc<Target>,
}

impl MeshChannel {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self { target }
    }

    #[cfg(test)]
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The service that is called.
    pub fn service(&self) -> &str {
        self.target.service()
    }

    /// Whether calls would be sent now: READY while any endpoint is, TRANSIENT_FAILURE once the endpoints failed and until
    /// one is READY again, CONNECTING before that.
    pub fn state(&self) -> ConnectivityState {
        self.target.state()
    }

    /// Every endpoint that is resolved now, READY or not.
    pub fn endpoints(&self) -> Vec<EndpointHandle> {
        self.target.endpoints()
    }

    /// Every endpoint with what the balancer sees of it, and why it is or is not picked.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mesh = mesh_client::Mesh::builder().static_service("user-svc", ["127.0.0.1:7410".parse()?]).build()?;
    /// let channel = mesh.channel("user-svc");
    /// for endpoint in channel.explain().endpoints {
    ///     println!("{}: {}", endpoint.address, endpoint.verdict); // 127.0.0.1:7410: picked
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn explain(&self) -> Explanation {
        self.target.explain()
    }
}

impl Service<http::Request<tonic::body::Body>> for MeshChannel {
    type Response = http::Response<ResponseBody>;
    type Error = Status;
    type Future = CallFuture;

    /// Always ready: a place is taken by the call itself, which waits for one where it must. Reserving here would leak the
    /// places of those who poll and never call.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        CallFuture::start(self.target.clone(), request)
    }
}
