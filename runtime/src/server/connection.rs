//! One HTTP/2 connection from its preface to its end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;

use super::authority::Authorities;
use super::call::{Answer, Answering, Call};
use super::calm::Calm;
use super::deadline::Deadline;
use super::lane::{self, Lane};
use super::limits::Limits;
use super::open_calls::OpenCalls;
use super::preface;
use super::refusal::Refusal;
use super::stall::Unstuck;
use super::timeout as grpc_timeout;
use crate::metrics::Calls;

/// A connection that was asked to go and has no call open owes us nothing but its goodbye; it is closed without one
/// after this time. Long enough for what is still in the socket to reach a peer that reads at all.
const GOODBYE_MAX: Duration = Duration::from_secs(3);

/// Why a connection ended other than by both sides' agreement.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// No complete HTTP/2 preface came in time.
    #[error("no HTTP/2 preface within {0:?}")]
    Silent(Duration),
    /// The connection broke before it spoke, or it speaks another protocol.
    #[error("no HTTP/2 preface: {0}")]
    NotHttp2(#[from] io::Error),
    /// It was asked to go, had nothing open, and did not go.
    #[error("did not answer the goodbye within {GOODBYE_MAX:?}")]
    NoGoodbye,
    /// HTTP failed: the peer broke a rule or a limit, or the connection broke.
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// What every connection of a server is served by.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) routes: Routes,
    pub(super) authorities: Arc<Authorities>,
    pub(super) calls: Arc<Calls>,
    pub(super) lane: Lane,
}

/// [`Front`] for one connection.
struct Connected {
    front: Front,
    peer: TcpConnectInfo,
    open: OpenCalls,
}

impl hyper::service::Service<Request<Incoming>> for Connected {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        let call = Call::begin(&self.front.calls, request.uri().path(), self.open.begin());
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        if let Some(asked) = self.front.authorities.stranger(authority) {
            return call.refuse(Refusal::WrongService { asked });
        }
        let deadline = match grpc_timeout::of(request.headers()) {
            Ok(Some(Duration::ZERO)) => return call.refuse(Refusal::DeadlineExceeded),
            Ok(timeout) => timeout.and_then(|timeout| call.begun().checked_add(timeout)).map(Deadline::new),
            Err(grpc_timeout::Malformed) => return call.refuse(Refusal::MalformedTimeout),
        };
        let turn = match self.front.lane.enter(request.uri().path()) {
            Ok(turn) => turn,
            Err(lane::Full) => return call.refuse(Refusal::Overloaded),
        };
        request.extensions_mut().insert(self.peer.clone());
        call.handle(self.front.routes.clone(), request, turn, deadline)
    }
}

/// The two ways in which a connection's end comes from here.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// Say GOAWAY, finish what is open.
    pub goaway: &'a CancellationToken,
    /// The age at which the connection says GOAWAY by itself.
    pub age: Option<Duration>,
}

impl Ends<'_> {
    /// Resolves when the connection is to go: it is asked to, it is old, or nothing was `open` on it for so long.
    pub(super) async fn come(&self, open: &OpenCalls, idle_max: Option<Duration>) {
        let old = async {
            match self.age {
                Some(age) => sleep(age).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.goaway.cancelled() => {}
            () = old => {}
            () = idle(open, idle_max) => {}
        }
    }
}

/// Serves one connection until it ends. Dropping the future cuts it. `told` is called once its GOAWAY is on the way.
pub(super) async fn serve<Io>(
    io: Io,
    front: Front,
    peer: TcpConnectInfo,
    limits: &Limits,
    ends: Ends<'_>,
    told: impl FnOnce(),
) -> Result<(), ConnectionError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Before it has spoken it has no call, so that a GOAWAY has nothing to save.
    let spoken = ends.goaway.run_until_cancelled(timeout(limits.preface_timeout, preface::read(io)));
    let io = match spoken.await {
        None => return Ok(()),
        Some(Err(_elapsed)) => return Err(ConnectionError::Silent(limits.preface_timeout)),
        Some(Ok(read)) => Calm::new(Unstuck::new(read?, limits.write_timeout), limits.control_frames),
    };
    let open = OpenCalls::default();
    let service = Connected { front, peer, open: open.clone() };
    serve_http2(io, service, open, limits, ends, told).await
}

/// Serves HTTP/2 on a connection whose preface has come.
pub(super) async fn serve_http2<Io, S, B>(
    io: Calm<Io>,
    service: S,
    open: OpenCalls,
    limits: &Limits,
    ends: Ends<'_>,
    told: impl FnOnce(),
) -> Result<(), ConnectionError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = pin!(http2_of(limits).serve_connection(TokioIo::new(io), service));
    tokio::select! {
        ended = patiently(connection.as_mut()) => return Ok(ended?),
        () = ends.come(&open, limits.connection_idle) => {}
    }
    connection.as_mut().graceful_shutdown();
    // One poll writes the GOAWAY; only then may others end what this connection's calls wait for.
    let ended = poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => Poll::Ready(None),
    });
    let ended = ended.await;
    told();
    if let Some(ended) = ended {
        return Ok(ended?);
    }
    let overdue = async {
        loop {
            open.none_left().await;
            sleep(GOODBYE_MAX).await;
            if open.is_empty() {
                return;
            }
        }
    };
    tokio::select! {
        ended = connection.as_mut() => Ok(ended?),
        () = overdue => Err(ConnectionError::NoGoodbye),
    }
}

/// Lets what else is ready run before the connection does. Every stream that has something to send wakes the connection, and
/// the runtime would run it right after the first of them: a write for each, where one could carry what all of them have.
async fn patiently<C: Future>(mut connection: Pin<&mut C>) -> C::Output {
    let mut stood_back = false;
    poll_fn(|cx| {
        stood_back = !stood_back;
        if stood_back {
            // A task that wakes itself goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        connection.as_mut().poll(cx)
    })
    .await
}

/// Resolves when no call has been open for so long.
async fn idle(open: &OpenCalls, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        open.none_left().await;
        let begun = open.begun();
        sleep(limit).await;
        if open.is_empty() && open.begun() == begun {
            return;
        }
    }
}

/// hyper's HTTP/2 server with every limit set, none left to a default.
fn http2_of(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.concurrent_streams)
        .max_pending_accept_reset_streams(limits.pending_accept_reset_streams)
        .max_local_error_reset_streams(limits.local_error_reset_streams)
        .max_header_list_size(limits.header_list_bytes)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_send_buf_size(limits.send_buffer_bytes)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        // gRPC has no use for the date of an answer.
        .auto_date_header(false);
    http2
}
