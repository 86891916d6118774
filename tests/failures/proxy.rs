//! A way to a server on which bytes can get lost while both ends keep their connections.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::harness::nobody_there;

/// Bytes that are passed on at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// Passes on, or swallows. Dropping it ends it; its connections end with either of their ends.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    swallows: watch::Sender<bool>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// One that passes on to the server at this address, and what it answers.
    pub(crate) async fn before(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(nobody_there()).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let (swallows, swallowing) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let _ = (caller.set_nodelay(true), server.set_nodelay(true));
                let ((from_caller, to_caller), (from_server, to_server)) = (caller.into_split(), server.into_split());
                tokio::spawn(pass(from_caller, to_server, swallowing.clone()));
                tokio::spawn(pass(from_server, to_caller, swallowing.clone()));
            }
        });
        Proxy { address, swallows, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Where callers find it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes whatever comes from now on, either way, and passes nothing on any more.
    pub(crate) fn swallow(&self) {
        self.swallows.send_replace(true);
    }
}

/// One direction of one connection.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, swallowing: watch::Receiver<bool>) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let swallows = *swallowing.borrow();
        if !swallows && to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}
