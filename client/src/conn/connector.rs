//! Where bytes come from: a TCP or Unix socket in production, a pipe in memory in a simulation.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::Address;

/// A byte stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// What a [`Connector`] is busy with.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send>>;

/// Opens byte streams to addresses. The channel bounds the attempt in time and drops it when it takes too long.
pub trait Connector: Send + Sync + 'static {
    /// Starts one attempt.
    fn connect(&self, address: &Address) -> Connecting;
}

impl fmt::Debug for dyn Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// After how long an idle connection is probed by the kernel. Calls in flight are watched much closer (`conn::silence`);
/// this is for the peer that vanished while nobody was calling.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// Between two such probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long written bytes may stay unacknowledged before the kernel gives the connection up (Linux). Without it a peer
/// that vanished holds a writer for a quarter of an hour of retransmissions.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Connects to sockets of the operating system. Over TCP: no Nagle, kernel keepalive, a bound on unacknowledged bytes. A Unix
/// socket has nothing of that: its other end is in this kernel, and cannot vanish without a word.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketConnector;

impl Connector for SocketConnector {
    fn connect(&self, address: &Address) -> Connecting {
        let address = match address {
            Address::Tcp(address) => *address,
            Address::Unix(path) => {
                let path = path.clone();
                return Box::pin(async move { Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Io>) });
            }
        };
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            set_up(&stream)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn sockets_are_set_up_for_calls_and_for_peers_that_vanish() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        set_up(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
    }
}
