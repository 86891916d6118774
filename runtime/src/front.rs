//! A main port that does not speak gRPC: the program serves its connections, everything around them stays the shell's
//! (places, ages, the drain's order, what is cut at its deadline).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub use crate::drain::Untold;
use crate::hooks::BoxFuture;
use crate::server::Limits;

/// What serves the connections of a main port in place of the shell's gRPC server.
pub trait Front: Send + Sync + 'static {
    /// Serves one connection until it ends. Dropping the future cuts it: that is what the drain does at its deadline, and
    /// the end of the process.
    fn serve(&self, connection: Connection) -> BoxFuture;
}

/// A connection that has a place among [`Limits::connections`], until the future that serves it ends.
pub struct Connection {
    /// The socket; small writes are not held back.
    pub io: TcpStream,
    /// Who is at the other end.
    pub peer: SocketAddr,
    /// What a peer may cost.
    pub limits: Arc<Limits>,
    /// The age at which the connection is to say goodbye by itself; `None` is never.
    pub age: Option<Duration>,
    /// Cancelled when the drain begins: everything is still answered for some two seconds, and answers that can say so
    /// tell the peer to come on another connection the next time (`connection: close`).
    pub leaving: CancellationToken,
    /// Cancelled when the peer has to go: GOAWAY, finish what is open, take nothing new, end.
    pub goaway: CancellationToken,
    /// To be dropped once the peer was told. The drain waits a second for it before streams that never end are ended.
    pub untold: Untold,
}
