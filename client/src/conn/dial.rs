//! From an address to a connection that has proved to be alive.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::Ping;
use h2::client::Builder;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::calm::Calm;
use super::driver::{Driver, Pings};
use super::h2::H2Conn;
use super::hygiene::in_words;
use super::orders::Orders;
use super::silence::Silence;
use super::traffic::Counted;
use super::{ConnSettings, Connector, Vitals};
use crate::Address;
use crate::clock;

/// Bytes of one answer that may be under way unread. HTTP/2's default of 64 KiB ends the growth of an answer's throughput at
/// half a Gbit/s on a path of 1 ms; this does so at 8.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of all answers on a connection that may be under way unread: what a thousand streams may. It is not to be the reason that
/// a call waits: h2 gives this window back only as answers are read, so with hyper's 5 MiB three callers who do not read theirs
/// stop every other call on the connection. What is bounded is each answer.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
/// Request bytes that h2 holds per stream before it stops taking more.
const SEND_BUFFER_BYTES_MAX: usize = 1 << 20;
/// What the frames of unread messages may cost beyond their bytes: h2 counts up to 256 bytes for each small one, and breaks the
/// connection when it is too much. By default that is half of the connection's window, and at hyper's was reached by 11 000 small
/// messages that nobody had read yet. Flow control is what stops such a sender: a stream's window holds 52 000 messages of 20
/// bytes, 12 MB by that count, and this is room for eighty such streams.
const SMALL_FRAMES_BYTES_MAX: usize = 1 << 30;
/// Streams that this side has reset and still knows, and for how long: frames that were under way are then passed over. Frames
/// for a stream that is forgotten are violations to h2, and a connection is broken off after so many of them in its life; calls
/// that are given up in numbers, by a deadline or by a hedge that won, must not get there. Late answers come within twice the time
/// for which a peer may stand still (1.5 s); 1 300 calls a second may be given up on one connection. A slot is some 400 bytes.
const RESETS_KNOWN_MAX: usize = 4_096;
const RESETS_KNOWN_FOR: Duration = Duration::from_secs(3);
const VIOLATIONS_MAX: usize = 65_536;
/// Largest answer head: 16 KiB, as gRPC stacks have it.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Streams that may be opened before the peer's SETTINGS are there. A connection is not READY before that, so this
/// only keeps a mistake small.
const STREAMS_BEFORE_SETTINGS: usize = 100;

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The byte stream was not opened.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The peer does not speak HTTP/2, or broke off.
    #[error("HTTP/2 handshake failed: {0}")]
    Handshake(String),
    /// The peer closed the connection before it answered.
    #[error("closed before it answered a ping")]
    Closed,
    /// It took too long.
    #[error("no answer to a ping within {0:?}")]
    TimedOut(Duration),
}

impl From<h2::Error> for ConnectError {
    fn from(error: h2::Error) -> Self {
        Self::Handshake(in_words(&error))
    }
}

/// Opens a connection. It returns when the peer has answered a PING: that it accepts and acknowledges bytes says only that
/// its kernel lives. A PONG also comes after the peer's SETTINGS, so the stream limit is known; how long it took is kept
/// ([`Vitals::rtt`]). `calm` is the endpoint's, the same for each of its connections.
pub(crate) async fn dial(
    connector: Arc<dyn Connector>,
    address: &Address,
    settings: ConnSettings,
    calm: Calm,
    bell: Arc<Notify>,
) -> Result<H2Conn, ConnectError> {
    let attempt = async {
        let (io, traffic) = Counted::new(connector.connect(address).await?);
        let (sender, mut connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
            .data_frame_budget(SMALL_FRAMES_BYTES_MAX)
            .max_concurrent_reset_streams(RESETS_KNOWN_MAX)
            .reset_stream_duration(RESETS_KNOWN_FOR)
            .max_local_error_reset_streams(Some(VIOLATIONS_MAX))
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
            .enable_push(false)
            .handshake::<_, Bytes>(io)
            .await?;

        let mut ping = connection.ping_pong().expect("nobody else has taken it");
        let asked = clock::now();
        ping.send_ping(Ping::opaque())?;
        poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Err(ended.err().map_or(ConnectError::Closed, Into::into)));
            }
            ping.poll_pong(cx).map(|pong| pong.map(drop).map_err(Into::into))
        })
        .await?;

        let born = clock::now();
        let vitals = Arc::new(Vitals::new(born, born - asked, bell));
        vitals.set_limit(connection.max_concurrent_send_streams());
        let orders = Arc::<Orders>::default();
        tokio::spawn(Driver::new(
            connection,
            Pings::after_first(ping),
            sender.clone(),
            orders.clone(),
            vitals.clone(),
            traffic.clone(),
            Silence::new(settings, calm),
        ));
        Ok(H2Conn::new(sender, vitals, orders, traffic))
    };
    timeout(settings.connect_timeout, attempt).await.unwrap_or(Err(ConnectError::TimedOut(settings.connect_timeout)))
}
