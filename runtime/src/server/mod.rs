//! The gRPC port: HTTP/2 on hyper directly, with every limit set; and in `web` a port for HTTP/1.1 and HTTP/2, with the same.
//!
//! tonic's own server leaves most limits open, hangs at its graceful shutdown on a connection that never speaks, and
//! says nothing of a connection's end; so the few hundred lines between a socket and tonic's routes are the mesh's own.

mod accept;
mod authority;
mod call;
mod calm;
mod connection;
mod deadline;
mod heads;
mod lane;
mod limits;
mod open_calls;
mod preface;
mod refusal;
mod slots;
mod stall;
mod straight;
mod timeout;
mod web;

use prometheus_client::registry::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;

pub(crate) use accept::accept;
pub use calm::Allowance;
pub use connection::ConnectionError;
pub use connection::Ends;
pub use limits::Limits;
pub use slots::{Slot, Slots, peer_network};
pub(crate) use stall::Unstuck;
pub use straight::Straight;
pub use web::{DoubtfulLength, serve_web};

use crate::metrics::{Calls, Methods};
use connection::Front;
use lane::Lane;

/// A gRPC server that is safe to show to a network: one per process, shared by all its connections.
#[derive(Clone)]
pub struct Server {
    front: Front,
    limits: Arc<Limits>,
}

/// A server of these routes with the default [`Limits`].
#[must_use]
pub fn hardened_server(routes: Routes) -> Server {
    let calls = Arc::new(Calls::register(Methods::none(), Arc::default(), &mut Registry::default()));
    let front = Front { routes: routes.prepare(), authorities: Arc::default(), calls, lane: Lane::default() };
    Server { front, limits: Arc::default() }
}

impl Server {
    /// Other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Arc::new(limits);
        self
    }

    /// Adds a mesh name that this server answers to; see [`App::authority`](crate::App::authority).
    #[must_use]
    pub fn authority(mut self, name: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.front.authorities).add(name.into());
        self
    }

    /// Lets calls of these paths wait for each other; see [`App::lane`](crate::App::lane).
    #[must_use]
    pub fn lane(mut self, paths: impl IntoIterator<Item = impl Into<String>>, at_once: usize) -> Self {
        self.front.lane = Lane::new(paths.into_iter().map(Into::into).collect(), at_once);
        self
    }

    /// Measures the calls here.
    #[must_use]
    pub(crate) fn calls(mut self, calls: Calls) -> Self {
        self.front.calls = Arc::new(calls);
        self
    }

    /// Serves one connection, of whatever kind: a socket, or a pipe in a test. Ends when the peer goes, when a limit is
    /// passed, or, after `goaway` is cancelled and a GOAWAY is sent, when the last open call is answered. Dropping the
    /// future cuts the connection.
    ///
    /// `peer` is what handlers see as `Request::remote_addr`. The connection's age is taken without jitter, so that the
    /// same test gives the same trace.
    pub async fn serve_connection<Io>(
        &self,
        io: Io,
        peer: Option<SocketAddr>,
        goaway: &CancellationToken,
    ) -> Result<(), ConnectionError>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = TcpConnectInfo { local_addr: None, remote_addr: peer };
        self.serve(io, peer, Ends { goaway, age: self.limits.connection_age }, || {}).await
    }

    /// As [`serve_connection`](Self::serve_connection); `told` is called once the GOAWAY is on the way.
    pub(crate) async fn serve<Io>(
        &self,
        io: Io,
        peer: TcpConnectInfo,
        ends: Ends<'_>,
        told: impl FnOnce(),
    ) -> Result<(), ConnectionError>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connection::serve(io, self.front.clone(), peer, &self.limits, ends, told).await
    }
}
