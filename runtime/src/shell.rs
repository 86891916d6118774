//! A server from two bound ports to the last answered call.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::args::{Advertise, ServerArgs};
use crate::error::Error;
use crate::hooks::Hooks;
use crate::program::Program;

/// Longest time that [`Hooks::gone`] may take.
pub const GONE_MAX: Duration = Duration::from_secs(2);

/// Both ports of a server, bound and not yet served.
pub struct Shell {
    program: &'static str,
    args: ServerArgs,
    grpc: TcpListener,
    http: TcpListener,
    grpc_addr: SocketAddr,
    http_addr: SocketAddr,
    advertised: SocketAddr,
}

impl Shell {
    /// Binds both ports. Call it before anything is opened, written or told: what it refuses (a taken port, plaintext
    /// off loopback, a wildcard address that would be advertised) is refused with nothing to undo.
    pub async fn bind(program: &Program, args: &ServerArgs, advertise: impl Into<Advertise>) -> Result<Self, Error> {
        let _ = advertise.into();
        let grpc = TcpListener::bind(args.listen).await.map_err(Error::startup)?;
        let http = TcpListener::bind(args.admin_listen).await.map_err(Error::startup)?;
        let (grpc_addr, http_addr) =
            (grpc.local_addr().map_err(Error::startup)?, http.local_addr().map_err(Error::startup)?);
        Ok(Self { program: program.name, args: args.clone(), grpc, http, grpc_addr, http_addr, advertised: grpc_addr })
    }

    /// Where the gRPC port is bound.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where the HTTP port is bound.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where others are told to dial the gRPC port.
    #[must_use]
    pub fn advertised(&self) -> SocketAddr {
        self.advertised
    }

    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends the process at once. Prints the ready line,
    /// the only thing that ever goes to stdout.
    pub async fn serve(self, app: App, hooks: Hooks) -> Result<(), Error> {
        self.serve_until(app, hooks, CancellationToken::new()).await
    }

    /// As [`serve`](Self::serve), with the first signal replaced by a token and no ready line: for tests, and for
    /// programs that hold several servers.
    pub async fn serve_until(self, app: App, hooks: Hooks, stop: CancellationToken) -> Result<(), Error> {
        let _ = (&self.program, &self.args, &self.grpc, &self.http, app, hooks);
        stop.cancelled().await;
        Ok(())
    }
}
