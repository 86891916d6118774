//! Connections: how one is opened, proved alive, watched, and used by calls.
//!
//! The rest of the crate sees the [`Conn`] trait and [`StreamError`], never HTTP/2 itself: what carries a call can be
//! exchanged. Each connection has one driver task; it ends when the connection does, and the connection ends when the
//! last handle and the last stream are gone.
//!
//! ```text
//! connector   where bytes come from: TCP, Unix sockets, whatever else is brought     traffic   counts them
//! dial        from an address to a connection that has answered a PING; what HTTP/2 is set to
//! h2          a connection's handle and its streams; what their errors mean          hygiene   what of a peer's words is handed on
//! driver      the task: moves bytes, sends PINGs, sees the end                       orders    what a handle has it do
//! silence     when a quiet connection is asked, and when it is given up              calm      what a server asked for about that
//! vitals      what calls, driver and manager know in common                          finished  a stream that is over
//! tests       what owning HTTP/2 obliges to, and the test that holds each of it
//! ```

mod calm;
mod connector;
mod dial;
mod driver;
mod finished;
mod h2;
mod hygiene;
mod orders;
mod silence;
#[cfg(test)]
mod tests;
mod traffic;
mod vitals;

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

pub(crate) use calm::Calm;
pub use connector::{Connecting, Connector, Io, SocketConnector};
pub(crate) use dial::{ConnectError, dial};
pub(crate) use h2::H2Conn;
pub(crate) use vitals::{Ending, Vitals};

/// The connections that calls are made on.
pub(crate) type Wire = H2Conn;

/// Whether more of the request follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// This was the last of it.
    Here,
    /// There may be more.
    NotYet,
}

/// One established connection that carries calls.
pub(crate) trait Conn: Send + Sync + 'static {
    /// Resolves to the head of the answer.
    type Answer: Future<Output = Result<http::Response<Self::Download>, StreamError>> + Send + Unpin + 'static;
    /// Takes the request's body.
    type Upload: Upload;
    /// Gives the answer's body.
    type Download: Download;

    /// Opens a stream. An error means that the request was not sent: [`StreamError::Unprocessed`], that the connection
    /// takes no more calls; [`StreamError::Protocol`], that no connection would take this request.
    fn open(&self, head: http::Request<()>) -> Result<(Self::Answer, Self::Upload), StreamError>;

    /// Has the peer pinged; whether it answers shows in [`Vitals::heard`].
    fn probe(&self);

    /// What is known about the connection.
    fn vitals(&self) -> &Vitals;
}

/// The sending half of a stream. Dropping it before the end was sent resets the stream once the other half is gone too; until
/// then [`Upload::cancel`] does.
pub(crate) trait Upload: Send + 'static {
    /// Ready when the peer takes more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>>;

    /// Queues one piece of the body.
    fn send(&mut self, data: Bytes, end: End) -> Result<(), StreamError>;

    /// Tells the peer that the rest will not come.
    fn cancel(&mut self);
}

/// The receiving half of a stream. Dropping it before the end was read resets the stream.
pub(crate) trait Download: Send + Unpin + 'static {
    /// The next piece of the body; `None` when trailers are next.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>>;

    /// The trailers; `None` when the stream ended without.
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, StreamError>>;

    /// Gives back a stream whose request was sent to its end, and whose answer was read to its own. It may be dropped as well,
    /// which costs more.
    fn finish(self);
}

/// Why a stream failed: a variant for each thing that a call does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    /// The peer cannot have processed it: not sent, or beyond the last stream of a GOAWAY.
    #[error("not processed: {0}")]
    Unprocessed(String),
    /// The peer says that it did not process it: REFUSED_STREAM. The connection is well, and takes the next one.
    #[error("not processed: {0}")]
    Refused(String),
    /// The connection is gone; what the peer did with the request nobody knows.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The peer ended this stream with an HTTP/2 error code.
    #[error("stream reset by the server, HTTP/2 error code {code}")]
    Reset {
        /// The code, RFC 9113 section 7.
        code: u32,
    },
    /// Somebody broke the protocol.
    #[error("protocol violated: {0}")]
    Protocol(String),
}

/// How connections are made and watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnSettings {
    /// Longest time from the first SYN to the first PONG.
    pub(crate) connect_timeout: Duration,
    /// With a call in flight and no byte for this long, the connection is asked with a PING.
    pub(crate) silence: Duration,
    /// Where that ends up while the peer answers PINGs and nothing else moves: between the PINGs of an idle stream. gRFC A8 has
    /// 10 s as the least.
    pub(crate) silence_max: Duration,
    /// No byte for this long after the PING: the connection is dead.
    pub(crate) pong_timeout: Duration,
}

impl Default for ConnSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            silence: Duration::from_millis(500),
            silence_max: Duration::from_secs(10),
            pong_timeout: Duration::from_secs(1),
        }
    }
}
