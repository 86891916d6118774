//! A service with one method for each thing that can happen to a call, and a client that speaks bare HTTP/2, so that a
//! test sees frames and not what a library makes of them.

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use mesh_runtime::{App, Hooks, Program, Server, ServerArgs, Shell, Speaks};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Code, Status};

pub(crate) const PROGRAM: Program = Program {
    name: "probe",
    version: "1.2.3",
    about: "Does what a test asks",
    speaks: Speaks::Grpc,
    main_port: 7490,
    admin_port: 7491,
};

/// What the service did, in order: `begun METHOD`, `dropped METHOD`.
pub(crate) type Log = mpsc::UnboundedReceiver<String>;

/// `test.v1.Probe`.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) release: CancellationToken,
    log: mpsc::UnboundedSender<String>,
}

impl Probe {
    pub(crate) fn new() -> (Self, Log) {
        let (log, events) = mpsc::unbounded_channel();
        (Self { release: CancellationToken::new(), log }, events)
    }

    pub(crate) fn routes(&self) -> Routes {
        Routes::new(self.clone())
    }
}

impl NamedService for Probe {
    const NAME: &'static str = "test.v1.Probe";
}

struct Dropped(String, mpsc::UnboundedSender<String>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.1.send(format!("dropped {}", self.0));
    }
}

impl tower::Service<Request<Body>> for Probe {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let _ = self.log.send(format!("begun {method}"));
        let dropped = Dropped(method.clone(), self.log.clone());
        let (release, log) = (self.release.clone(), self.log.clone());
        assert_ne!(method, "PanicAtOnce", "as the test asked");
        Box::pin(async move {
            let _dropped = dropped;
            let body = match method.as_str() {
                "Echo" => ok(request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default()),
                "Peer" => {
                    let info = request.extensions().get::<tonic::transport::server::TcpConnectInfo>();
                    ok(message(format!("{:?}", info.and_then(|info| info.remote_addr)).as_bytes()))
                }
                "Wait" => {
                    release.cancelled().await;
                    ok(message(b"released"))
                }
                "Leap" => {
                    // The paused clock is a second on when this has been polled once, before any other task runs.
                    let mut leap = std::pin::pin!(tokio::time::advance(Duration::from_secs(1)));
                    let leapt = poll_fn(|cx| Poll::Ready(leap.as_mut().poll(cx))).await;
                    release.cancel();
                    if leapt.is_pending() {
                        leap.await;
                    }
                    ok(message(b"leapt"))
                }
                "Trickle" => Body::new(http_body_util::StreamBody::new(futures_util::stream::once(async move {
                    release.cancelled().await;
                    let _ = log.send("resumed Trickle".to_owned());
                    Ok::<_, Status>(http_body::Frame::data(message(b"late")))
                }))),
                "Panic" => panic!("as the test asked"),
                "PanicLate" => Body::new(Stream(Then::Panic(1))),
                "Drip" => Body::new(Stream(Then::Silence(1))),
                "Flood" => Body::new(Stream(Then::Flood)),
                _ => return Ok(Status::unimplemented("no such method").into_http()),
            };
            Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
        })
    }
}

fn ok(body: Bytes) -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    Body::new(http_body_util::Full::new(body).with_trailers(std::future::ready(Some(Ok(trailers)))))
}

/// One gRPC message, uncompressed.
pub(crate) fn message(bytes: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + bytes.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(bytes.len()).unwrap());
    framed.put_slice(bytes);
    framed.freeze()
}

/// A body that first sends something and then never ends well.
struct Stream(Then);

enum Then {
    Silence(u8),
    Panic(u8),
    Flood,
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        match &mut self.0 {
            Then::Silence(0) => return Poll::Pending,
            Then::Panic(0) => panic!("as the test asked"),
            Then::Silence(left) | Then::Panic(left) => *left -= 1,
            // Large enough for a peer to take it for data; h2 cuts a flood of tiny frames.
            Then::Flood => return Poll::Ready(Some(Ok(http_body::Frame::data(message(&[0; 4096]))))),
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(message(b"drop")))))
    }
}

/// A client's end of one connection.
pub(crate) struct Client {
    send: SendRequest<Bytes>,
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: u16,
    pub(crate) code: Option<Code>,
    pub(crate) status: Option<Status>,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self::try_over(io).await.unwrap()
    }

    async fn try_over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self, h2::Error> {
        let (send, connection) = h2::client::handshake(io).await?;
        tokio::spawn(connection);
        Ok(Self { send })
    }

    pub(crate) async fn dial(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// The client's end of a pipe whose other end `server` serves.
    pub(crate) async fn piped(server: &Server, goaway: &CancellationToken) -> (Self, JoinHandle<String>) {
        let (client, io) = tokio::io::duplex(64 * 1024);
        let (server, goaway) = (server.clone(), goaway.clone());
        let serving = tokio::spawn(async move { ended(server.serve_connection(io, None, &goaway).await) });
        (Self::over(client).await, serving)
    }

    /// Sends a request with the message "hello".
    pub(crate) async fn start(&mut self, request: Request<()>) -> Result<ResponseFuture, h2::Error> {
        self.start_with(request, b"hello").await
    }

    pub(crate) async fn start_with(&mut self, request: Request<()>, bytes: &[u8]) -> Result<ResponseFuture, h2::Error> {
        poll_fn(|cx| self.send.poll_ready(cx)).await?;
        let (response, mut body) = self.send.send_request(request, false)?;
        body.send_data(message(bytes), true)?;
        Ok(response)
    }

    /// As [`start_with`](Self::start_with), and keeps the request's side open for as long as the second part is held.
    pub(crate) async fn start_open(
        &mut self,
        request: Request<()>,
        bytes: &[u8],
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        poll_fn(|cx| self.send.poll_ready(cx)).await?;
        let (response, mut body) = self.send.send_request(request, false)?;
        body.send_data(message(bytes), false)?;
        Ok((response, body))
    }

    pub(crate) async fn call(&mut self, request: Request<()>) -> Result<Answer, h2::Error> {
        read(self.start(request).await?).await
    }

    pub(crate) async fn call_with(&mut self, request: Request<()>, bytes: &[u8]) -> Result<Answer, h2::Error> {
        read(self.start_with(request, bytes).await?).await
    }
}

/// Waits for the whole answer.
pub(crate) async fn read(response: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, body) = response.await?.into_parts();
    rest(&head, body).await
}

/// An answer that has begun.
pub(crate) struct Begun {
    head: http::response::Parts,
    body: RecvStream,
}

/// Waits for the head of an answer and its first message.
pub(crate) async fn begun(response: ResponseFuture) -> Result<(Bytes, Begun), h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let first = body.data().await.transpose()?.unwrap_or_default();
    body.flow_control().release_capacity(first.len())?;
    Ok((first, Begun { head, body }))
}

impl Begun {
    /// Waits for what comes after the first message.
    pub(crate) async fn rest(self) -> Result<Answer, h2::Error> {
        rest(&self.head, self.body).await
    }
}

async fn rest(head: &http::response::Parts, mut body: RecvStream) -> Result<Answer, h2::Error> {
    let mut bytes = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?;
    let status = Status::from_header_map(trailers.as_ref().unwrap_or(&head.headers));
    let code = status.as_ref().map(Status::code);
    Ok(Answer { http: head.status.as_u16(), code, status, body: bytes.freeze() })
}

/// How a connection ended, as text.
pub(crate) fn ended(result: Result<(), mesh_runtime::ConnectionError>) -> String {
    result.map_or_else(|error| error.to_string(), |()| "well".to_owned())
}

/// A request to a method of the probe.
pub(crate) fn request(method: &str) -> http::request::Builder {
    Request::post(format!("http://127.0.0.1:7490/test.v1.Probe/{method}")).header("content-type", "application/grpc")
}

/// A request to a method of the probe, with this `:authority`.
pub(crate) fn request_for(authority: &str, method: &str) -> Request<()> {
    Request::post(format!("http://{authority}/test.v1.Probe/{method}")).body(()).unwrap()
}

/// A plain HTTP GET: status and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut io = TcpStream::connect(address).await.unwrap();
    io.write_all(format!("GET {path} HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    io.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Dials, echoes, hangs up.
pub(crate) async fn echo(address: SocketAddr) -> Result<Answer, Box<dyn Error + Send + Sync>> {
    let mut client = Client::try_over(TcpStream::connect(address).await?).await?;
    Ok(client.call(request("Echo").body(())?).await?)
}

/// A server on two free ports of this process.
pub(crate) struct Running {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) probe: Probe,
    pub(crate) log: Log,
    pub(crate) stop: CancellationToken,
    pub(crate) served: JoinHandle<Result<(), mesh_runtime::Error>>,
}

pub(crate) async fn run(args: ServerArgs, hooks: Hooks) -> Running {
    run_app(args, hooks, |app| app).await
}

pub(crate) async fn run_app(args: ServerArgs, hooks: Hooks, more: impl FnOnce(App) -> App) -> Running {
    let shell = Shell::bind(&PROGRAM, &args, None).await.unwrap();
    let (grpc, http) = (shell.main_addr(), shell.admin_addr());
    let (probe, log) = Probe::new();
    let app = more(App::new(probe.routes()));
    let stop = CancellationToken::new();
    let served = tokio::spawn(shell.serve_until(app, hooks, stop.clone()));
    Running { grpc, http, probe, log, stop, served }
}
