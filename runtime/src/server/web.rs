//! One connection of a port for everybody: HTTP/1.1 or HTTP/2, whichever the client speaks.
//!
//! The limits are those of the gRPC port, and the end is the same: an HTTP/2 connection gets its GOAWAY, an HTTP/1 connection
//! closes as soon as it rests, and answers what it is at with `connection: close`.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::calm::Calm;
use super::connection::{ConnectionError, Ends, serve_http2};
use super::heads::{Doubted, Heads};
use super::limits::Limits;
use super::open_calls::{OpenCall, OpenCalls};
use super::preface::{self, Language};
use super::stall::Unstuck;

/// Longest time from the first byte of an HTTP/1 head to its last (S11).
const HEAD_MAX: Duration = Duration::from_secs(10);

/// How long a connection may be silent that was opened when the server was about to go.
const UNSPOKEN_MAX: Duration = Duration::from_millis(250);

/// An extension of requests whose length two readers may take for different ones: they have both a `Transfer-Encoding` and a
/// `Content-Length`, or a line that ends in a bare LF. To be refused, and the connection closed (RFC 9112 §6.3, §2.2).
#[derive(Debug, Clone, Copy)]
pub struct DoubtfulLength;

/// Serves one connection until it ends. Dropping the future cuts it. `told` is called once the client was told to go, or
/// need not be.
pub async fn serve_web<Io, S, B>(
    io: Io,
    service: S,
    limits: &Limits,
    ends: Ends<'_>,
    told: impl FnOnce(),
) -> Result<(), ConnectionError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + Unpin + 'static,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut hearing = pin!(timeout(limits.preface_timeout, preface::hear(io)));
    let heard = match ends.goaway.run_until_cancelled(hearing.as_mut()).await {
        Some(heard) => heard,
        // A request may be on its way on a connection that was opened a moment ago.
        None => match timeout(UNSPOKEN_MAX, hearing).await {
            Ok(heard) => heard,
            Err(_elapsed) => return Ok(()),
        },
    };
    let (language, io) = match heard {
        Err(_elapsed) => return Err(ConnectionError::Silent(limits.preface_timeout)),
        Ok(heard) => heard?,
    };
    let io = Unstuck::new(io, limits.write_timeout);
    let open = OpenCalls::default();
    match language {
        Language::Http2 => {
            let service =
                Counted { service, open: open.clone(), doubted: Doubted::default(), begun: AtomicU64::new(0) };
            serve_http2(Calm::new(io, limits.control_frames), service, open, limits, ends, told).await
        }
        Language::Other => {
            let io = Heads::new(io, HEAD_MAX);
            let service = Counted { service, open: open.clone(), doubted: io.doubted(), begun: AtomicU64::new(0) };
            serve_http1(io, service, open, limits, ends, told).await
        }
    }
}

async fn serve_http1<Io, S, B>(
    io: Heads<Io>,
    service: S,
    open: OpenCalls,
    limits: &Limits,
    ends: Ends<'_>,
    told: impl FnOnce(),
) -> Result<(), ConnectionError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Unpin,
    B: Body + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let head_bytes = usize::try_from(limits.header_list_bytes).unwrap_or(usize::MAX);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        // `Heads` has its own: this one would run for a connection at rest as well.
        .header_read_timeout(None)
        .max_header_size(head_bytes)
        // A head fits twice, so that one that is too large is answered and not cut.
        .max_buf_size(2 * head_bytes)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(served);
    tokio::select! {
        // First what has come already: a connection that rests is closed by what follows, whatever lies unread in it.
        biased;
        ended = connection.as_mut() => return Ok(ended?),
        () = ends.come(&open, limits.connection_idle) => {}
    }
    connection.as_mut().graceful_shutdown();
    told();
    Ok(connection.await?)
}

/// A service whose requests are counted while they are open, and marked where their length is in doubt.
struct Counted<S> {
    service: S,
    open: OpenCalls,
    doubted: Doubted,
    begun: AtomicU64,
}

impl<S, B> Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Held<B>>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        // HTTP/1 has one request at a time, in the order of the heads.
        if self.doubted.reaches(self.begun.fetch_add(1, Ordering::Relaxed)) {
            request.extensions_mut().insert(DoubtfulLength);
        }
        Answering { answer: self.service.call(request), open: Some(self.open.begin()) }
    }
}

struct Answering<F> {
    answer: F,
    open: Option<OpenCall>,
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, Infallible>> + Unpin,
{
    type Output = Result<Response<Held<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(Pin::new(&mut self.answer).poll(cx));
        let open = self.open.take();
        Poll::Ready(Ok(response.map(|body| Held { body, _open: open })))
    }
}

/// A body whose request is open until its last byte is sent, or nobody wants it any more.
struct Held<B> {
    body: B,
    _open: Option<OpenCall>,
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinHandle;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock;

    /// A connection to a service that says how it finds the length of each request.
    fn connected(goaway: &CancellationToken) -> (DuplexStream, JoinHandle<Result<(), ConnectionError>>) {
        let (client, io) = tokio::io::duplex(64 * 1024);
        let goaway = goaway.clone();
        let serving = tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let doubted = request.extensions().get::<DoubtfulLength>().is_some();
                let word = if doubted { "doubtful" } else { "plain" };
                std::future::ready(Ok(Response::new(Full::new(Bytes::from_static(word.as_bytes())))))
            });
            let ends = Ends { goaway: &goaway, age: None };
            serve_web(io, service, &Limits::default(), ends, || {}).await
        });
        (client, serving)
    }

    async fn answers(mut client: DuplexStream, said: &str) -> String {
        client.write_all(said.as_bytes()).await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_takes_ten_seconds_at_most_however_it_trickles() {
        let (mut client, serving) = connected(&CancellationToken::new());
        let at = clock::now();
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        for _ in 0..9 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.write_all(b"x: y\r\n").await.unwrap();
        }
        assert!(serving.await.unwrap().is_err());
        assert_eq!((clock::now() - at).as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_at_rest_stays_for_its_idle_time() {
        let (mut client, serving) = connected(&CancellationToken::new());
        let at = clock::now();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        serving.await.unwrap().unwrap();
        // Whether it rests is looked at once in that time.
        let (rested, idle) = (clock::now() - at, Limits::CONNECTION_IDLE);
        assert!((idle..=2 * idle).contains(&rested), "{rested:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_goes_after_the_time_for_its_preface() {
        let (_client, serving) = connected(&CancellationToken::new());
        let at = clock::now();
        assert!(matches!(serving.await.unwrap(), Err(ConnectionError::Silent(_))));
        assert_eq!(clock::now() - at, Limits::default().preface_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_in_doubt_is_marked_and_not_the_one_before_it() {
        let (client, _serving) = connected(&CancellationToken::new());
        let heard = answers(
            client,
            "GET / HTTP/1.1\r\nhost: x\r\n\r\n\
             POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n\
             GET / HTTP/1.1\r\nhost: smuggled\r\n\r\n",
        )
        .await;
        let words: Vec<&str> = heard.split("\r\n\r\n").skip(1).map(|rest| &rest[..5]).collect();
        assert_eq!(words, ["plain", "doubt"], "and the connection is closed: {heard}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_closes_a_connection_at_rest_at_once() {
        let goaway = CancellationToken::new();
        let (mut client, serving) = connected(&goaway);
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut heard = vec![0; 1024];
        assert!(client.read(&mut heard).await.unwrap() > 0);
        let at = clock::now();
        goaway.cancel();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        serving.await.unwrap().unwrap();
        assert_eq!(clock::now(), at);
    }
}
