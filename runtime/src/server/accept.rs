//! The accept loop. It ends when it is told to, and for no error: a full table of file descriptors neither stops it nor
//! makes it spin (S08; RUSTSEC-2024-0376 was an accept loop that ended).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::slots::{Slot, Slots};
use crate::metrics::Connections;

/// First pause after a failure that would come again at once, such as EMFILE; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest pause: a second after descriptors are free again, connections are accepted again.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Most connections that are taken off the queue of a listener that closes: as many as the system keeps in one by default.
const QUEUE_MAX: usize = 4_096;

/// Where connections come from.
pub(crate) trait Listen {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and who is at its other end.
    async fn accept(&self) -> io::Result<(Self::Io, SocketAddr)>;
}

impl Listen for TcpListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // A small frame must not wait for the acknowledgement of the one before it.
        stream.set_nodelay(true)?;
        Ok((stream, peer))
    }
}

/// Hands every connection that `slots` has a place for to `take`, until `stop`. The listener is closed when this ends:
/// from then on the port refuses. What stands in its queue by then is taken first: closed with it, those connections would
/// be reset under what their clients have sent.
pub(crate) async fn accept<L: Listen>(
    listener: L,
    slots: Slots,
    metrics: Connections,
    stop: CancellationToken,
    mut take: impl FnMut(L::Io, SocketAddr, Slot),
) {
    let mut taking = |io, peer: SocketAddr| match slots.take(peer.ip()) {
        Ok(slot) => take(io, peer, slot),
        Err(reason) => {
            metrics.refused(reason);
            tracing::debug!(%peer, ?reason, "connection refused");
        }
    };
    let mut pause = PAUSE_MIN;
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((io, peer)) => {
                pause = PAUSE_MIN;
                taking(io, peer);
            }
            Err(error) if is_the_peers(&error) => metrics.accept_failed(),
            Err(error) => {
                metrics.accept_failed();
                tracing::warn!(%error, pause_s = pause.as_secs_f64(), "cannot accept connections");
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
    for _ in 0..QUEUE_MAX {
        match listener.accept().now_or_never() {
            Some(Ok((io, peer))) => taking(io, peer),
            Some(Err(_)) => metrics.accept_failed(),
            None => break,
        }
    }
}

/// The connection was gone before it was taken up; the next one has nothing to do with it.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput, NotConnected};
    // macOS answers InvalidInput when an option is set on a socket that its peer has reset.
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput | NotConnected)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::DuplexStream;

    use super::*;
    use crate::clock;

    /// A listener that answers what it was told to, last first, then nothing more.
    struct Script(Mutex<Vec<io::Result<u8>>>);

    impl Listen for Script {
        type Io = DuplexStream;

        async fn accept(&self) -> io::Result<(DuplexStream, SocketAddr)> {
            let next = self.0.lock().unwrap().pop();
            match next {
                Some(Ok(host)) => Ok((tokio::io::duplex(1).0, SocketAddr::from(([10, 0, 0, host], 1)))),
                Some(Err(error)) => Err(error),
                None => std::future::pending().await,
            }
        }
    }

    async fn accepted(mut script: Vec<io::Result<u8>>, slots: Slots) -> Vec<SocketAddr> {
        script.reverse();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let last = 9;
        let looping =
            accept(Script(Mutex::new(script)), slots, Connections::default(), stop.clone(), |_, peer, slot| {
                std::mem::forget(slot);
                sender.send(peer).unwrap();
            });
        let collect = async {
            let mut peers = Vec::new();
            while let Some(peer) = receiver.recv().await {
                peers.push(peer);
                if peer.ip() == std::net::Ipv4Addr::new(10, 0, 0, last) {
                    stop.cancel();
                    break;
                }
            }
            peers
        };
        tokio::join!(looping, collect).1
    }

    fn emfile() -> io::Error {
        const EMFILE: i32 = 24;
        io::Error::from_raw_os_error(EMFILE)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_descriptor_table_slows_the_loop_and_does_not_end_it() {
        let begun = clock::now();
        let script = (0..20).map(|_| Err(emfile())).chain([Ok(9)]).collect();
        assert_eq!(accepted(script, Slots::new(10, 10)).await.len(), 1);
        let waited = clock::now() - begun;
        assert!(waited > Duration::from_secs(10) && waited < Duration::from_secs(20), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_left_early_delays_nobody() {
        let begun = clock::now();
        let script = (0..20).map(|_| Err(io::ErrorKind::ConnectionAborted.into())).chain([Ok(9)]).collect();
        assert_eq!(accepted(script, Slots::new(10, 10)).await.len(), 1);
        assert_eq!(clock::now(), begun);
    }

    #[tokio::test]
    async fn what_stands_in_the_queue_when_the_loop_is_told_to_end_is_still_taken() {
        let stop = CancellationToken::new();
        stop.cancel();
        let script = vec![Ok(3), Err(io::ErrorKind::ConnectionAborted.into()), Ok(2), Ok(1)];
        let mut taken = Vec::new();
        let slots = Slots::new(10, 10);
        accept(Script(Mutex::new(script)), slots, Connections::default(), stop, |_, peer, _| taken.push(peer)).await;
        assert_eq!(taken.len(), 3, "{taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_place_is_closed_and_the_next_is_taken() {
        let peers = accepted(vec![Ok(1), Ok(1), Ok(2), Ok(9)], Slots::new(10, 1)).await;
        assert_eq!(peers.len(), 3, "{peers:?}");
    }
}
