//! A wire to etcd that loses what it is told to lose, in one direction or the other, and keeps the connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A proxy in front of one address. Ends when it is dropped.
pub(crate) struct Proxy {
    url: String,
    lost: Arc<Lost>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Lost {
    requests: AtomicBool,
    answers: AtomicBool,
}

impl Proxy {
    pub(crate) async fn start(url: &str) -> Self {
        let to = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let lost = Arc::new(Lost::default());
        let task = tokio::spawn(accept(listener, to, lost.clone()));
        Self { url, lost, task }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// Whether answers get lost.
    pub(crate) fn mute(&self, lost: bool) {
        self.lost.answers.store(lost, Ordering::SeqCst);
    }

    /// Whether requests get lost.
    pub(crate) fn deafen(&self, lost: bool) {
        self.lost.requests.store(lost, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, to: String, lost: Arc<Lost>) {
    let mut pipes = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(&to).await else { continue };
        let lost = lost.clone();
        pipes.spawn(async move {
            let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            tokio::select! {
                () = carry(from_client, to_server, &lost.requests) => {}
                () = carry(from_server, to_client, &lost.answers) => {}
            }
        });
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, lost: &AtomicBool) {
    let mut bytes = vec![0; 16 * 1024];
    // A stream that lost a piece is of no use afterwards: whatever it carries would be misread.
    let mut torn = false;
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        torn |= lost.load(Ordering::SeqCst);
        if !torn && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
