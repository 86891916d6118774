//! What the data path's tests share: a network in memory, scripted HTTP/2 servers on it, and calls.

mod peer;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
pub(crate) use peer::{Frame, Peer, field, wire};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::Service;
use uuid::Uuid;

use crate::Address;
use crate::conn::{Connecting, Connector, Io};
use crate::entropy::Entropy;
use crate::resolver::{
    Idempotency, MethodLevels, Resolution, ResolutionStatus, Resolutions, ResolvedEndpoint, Standing,
};
use crate::target::{Target, TargetConfig};
use crate::{ConnectivityState, EndpointHandle, MeshChannel};

/// A method that may be repeated, by the endpoints' own record.
pub(crate) const GET: &str = "/shop.Users/Get";
/// One that may not.
pub(crate) const CREATE: &str = "/shop.Users/Create";
/// A message as gRPC frames it: uncompressed, two bytes.
pub(crate) const MESSAGE: &[u8] = b"\0\0\0\0\x02hi";

/// A network in memory. What is not listened on refuses connections.
#[derive(Clone, Default)]
pub(crate) struct Net {
    hosts: Arc<Mutex<HashMap<Address, Host>>>,
    connects: Arc<AtomicUsize>,
}

enum Host {
    Listening(mpsc::UnboundedSender<DuplexStream>),
    /// Connections are accepted and nothing is ever said.
    Mute(Vec<DuplexStream>),
    /// Nothing comes back, not even a refusal.
    BlackHole,
}

impl Net {
    pub(crate) fn mute(&self, address: &Address) {
        self.hosts.lock().insert(address.clone(), Host::Mute(Vec::new()));
    }

    pub(crate) fn black_hole(&self, address: &Address) {
        self.hosts.lock().insert(address.clone(), Host::BlackHole);
    }

    pub(crate) fn listen(&self, address: &Address) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (accepted, accepting) = mpsc::unbounded_channel();
        self.hosts.lock().insert(address.clone(), Host::Listening(accepted));
        accepting
    }

    /// Attempts so far, refused ones included.
    pub(crate) fn connects(&self) -> usize {
        self.connects.load(Ordering::Relaxed)
    }
}

impl Connector for Net {
    fn connect(&self, address: &Address) -> Connecting {
        self.connects.fetch_add(1, Ordering::Relaxed);
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let refused = || Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        let outcome = match self.hosts.lock().get_mut(address) {
            None => refused(),
            Some(Host::BlackHole) => return Box::pin(std::future::pending()),
            Some(Host::Mute(accepted)) => {
                accepted.push(theirs);
                Ok(())
            }
            Some(Host::Listening(accepting)) => accepting.send(theirs).or_else(|_| refused()),
        };
        Box::pin(async move { outcome.map(|()| Box::new(ours) as Box<dyn Io>) })
    }
}

pub(crate) type Reply = SendResponse<Bytes>;
type Handling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a scripted server behaves as HTTP/2 server.
#[derive(Clone, Copy, Default)]
pub(crate) struct Manners {
    pub(crate) streams_max: Option<u32>,
}

/// A scripted HTTP/2 server. Dropping it kills it: its connections break.
pub(crate) struct Server {
    pub(crate) address: Address,
    net: Net,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    leave: watch::Sender<u32>,
    /// One clone for each open connection, and one here.
    open: Arc<()>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Server {
    /// Starts one; `handle` answers each request in a task of its own.
    pub(crate) fn start<F, Fut>(net: &Net, port: u16, handle: F) -> Self
    where
        F: Fn(Request<RecvStream>, Reply) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::with_manners(net, port, Manners::default(), handle)
    }

    pub(crate) fn with_manners<F, Fut>(net: &Net, port: u16, manners: Manners, handle: F) -> Self
    where
        F: Fn(Request<RecvStream>, Reply) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let address = address(port);
        let mut accepting = net.listen(&address);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (leave, leaving) = watch::channel(0);
        let tasks: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let handle = Arc::new(move |request, reply| Box::pin(handle(request, reply)) as Handling);
        let open = Arc::new(());
        let acceptor = tokio::spawn({
            let (seen, tasks, open) = (seen.clone(), tasks.clone(), Arc::downgrade(&open));
            async move {
                while let Some(io) = accepting.recv().await {
                    let serving = serve(io, manners, handle.clone(), seen.clone(), tasks.clone(), leaving.clone());
                    let open = open.upgrade();
                    tasks.lock().push(tokio::spawn(async move {
                        let _open = open;
                        serving.await;
                    }));
                }
            }
        });
        tasks.lock().push(acceptor);
        Self { address, net: net.clone(), seen, leave, open, tasks }
    }

    /// How many requests came.
    pub(crate) fn seen(&self) -> usize {
        self.seen.lock().len()
    }

    /// The heads of the requests that came.
    pub(crate) fn heads(&self) -> Vec<HeaderMap> {
        self.seen.lock().clone()
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// Says GOAWAY on every connection and goes on listening.
    pub(crate) fn go_away(&self) {
        self.leave.send_modify(|times| *times += 1);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.net.hosts.lock().remove(&self.address);
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

/// A server that answers pings until it is frozen: its connections then stay open, and nothing comes out of them.
pub(crate) struct Frozen {
    frozen: watch::Sender<bool>,
}

impl Frozen {
    pub(crate) fn start(net: &Net, port: u16) -> Self {
        let mut accepting = net.listen(&address(port));
        let (frozen, freezing) = watch::channel(false);
        tokio::spawn(async move {
            while let Some(io) = accepting.recv().await {
                let mut freezing = freezing.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(io).await.unwrap();
                    loop {
                        tokio::select! {
                            _ = freezing.changed() => std::future::pending::<()>().await,
                            accepted = connection.accept() => if accepted.is_none() { return },
                        }
                    }
                });
            }
        });
        Self { frozen }
    }

    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }
}

async fn serve<H>(
    io: DuplexStream,
    manners: Manners,
    handle: Arc<H>,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    tasks: Arc<Mutex<Vec<JoinHandle<()>>>>,
    mut leaving: watch::Receiver<u32>,
) where
    H: Fn(Request<RecvStream>, Reply) -> Handling + Send + Sync + 'static,
{
    let mut builder = h2::server::Builder::new();
    if let Some(max) = manners.streams_max {
        builder.max_concurrent_streams(max);
    }
    leaving.mark_unchanged();
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, reply))) => {
                    seen.lock().push(request.headers().clone());
                    tasks.lock().push(tokio::spawn(handle(request, reply)));
                }
                Some(Err(_)) | None => return,
            },
            Ok(()) = leaving.changed() => connection.graceful_shutdown(),
        }
    }
}

/// Answers with one message and OK.
pub(crate) async fn ok(_request: Request<RecvStream>, mut reply: Reply) {
    let Ok(mut stream) = reply.send_response(head(), false) else { return };
    let _ = stream.send_data(Bytes::from_static(MESSAGE), false);
    let _ = stream.send_trailers(trailers());
}

/// Refuses the stream: it was not processed.
pub(crate) async fn refuse(_request: Request<RecvStream>, mut reply: Reply) {
    reply.send_reset(Reason::REFUSED_STREAM);
}

/// Never answers.
pub(crate) async fn hang(request: Request<RecvStream>, reply: Reply) {
    let _held = (request, reply);
    std::future::pending::<()>().await;
}

/// Answers with a status and nothing else.
pub(crate) async fn fail(status: Status, mut reply: Reply) {
    let response = status.into_http::<()>().map(|_: ()| ());
    let _ = reply.send_response(response, true);
}

/// What a server says to a call that `asked` for another service.
pub(crate) fn wrong_service(asked: &str) -> Status {
    let metadata = HashMap::from([("authority".to_owned(), asked.to_owned())]);
    let details = ErrorDetails::with_error_info("WRONG_SERVICE", "meshwork", metadata);
    Status::with_error_details(Code::Unavailable, "not mine", details)
}

pub(crate) fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

pub(crate) fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))])
}

pub(crate) fn address(port: u16) -> Address {
    Address::Tcp(([10, 0, 0, 1], port).into())
}

pub(crate) fn endpoint(port: u16) -> ResolvedEndpoint {
    let mut methods = MethodLevels::default();
    methods.declare("shop.Users", "Get", Idempotency::NoSideEffects);
    ResolvedEndpoint {
        instance_id: Uuid::from_u128(u128::from(port)),
        incarnation: 1,
        address: address(port),
        zone: "".into(),
        weight: 100,
        standing: Standing::Alive,
        load: None,
        methods: Arc::new(methods),
        descriptor_digest: None,
    }
}

pub(crate) fn resolved(endpoints: impl IntoIterator<Item = ResolvedEndpoint>) -> Arc<Resolution> {
    Arc::new(Resolution { endpoints: endpoints.into_iter().collect(), status: ResolutionStatus::Resolved })
}

/// A channel to scripted endpoints.
pub(crate) struct Rig {
    pub(crate) channel: MeshChannel,
    pub(crate) resolver: watch::Sender<Arc<Resolution>>,
}

impl Rig {
    pub(crate) fn new(net: &Net, ports: impl IntoIterator<Item = u16>) -> Self {
        Self::with(net, ports, |_| {})
    }

    pub(crate) fn with(
        net: &Net,
        ports: impl IntoIterator<Item = u16>,
        configure: impl FnOnce(&mut TargetConfig),
    ) -> Self {
        let (resolver, resolutions): (_, Resolutions) = watch::channel(resolved(ports.into_iter().map(endpoint)));
        let mut config = TargetConfig::new("user-svc", "user-svc".parse().unwrap(), Entropy::seeded(1));
        config.connector = Arc::new(net.clone());
        configure(&mut config);
        Self { channel: MeshChannel::new(Target::spawn(config, resolutions)), resolver }
    }

    /// Has the resolver say something else.
    pub(crate) fn resolve(&self, endpoints: impl IntoIterator<Item = ResolvedEndpoint>) {
        self.resolver.send_replace(resolved(endpoints));
    }

    pub(crate) fn handles(&self) -> BTreeMap<u16, EndpointHandle> {
        self.channel
            .endpoints()
            .into_iter()
            .map(|endpoint| (endpoint.address().tcp().expect("rigs have no other").port(), endpoint))
            .collect()
    }

    /// Waits until every endpoint is in `state`.
    pub(crate) async fn all(&self, state: ConnectivityState) {
        eventually(|| {
            let endpoints = self.channel.endpoints();
            !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.state() == state)
        })
        .await;
    }
}

/// Lets everybody else run until `fact` holds: in a single-threaded test with paused time, every task and every timer moves
/// on while this waits.
pub(crate) async fn eventually(fact: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if fact() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came true");
}

pub(crate) fn request(path: &str) -> Request<tonic::body::Body> {
    Request::post(path)
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(Full::new(Bytes::from_static(MESSAGE))))
        .unwrap()
}

/// Makes one unary call and reads its answer to the end.
pub(crate) async fn call(channel: &MeshChannel, path: &str) -> Result<Bytes, Status> {
    finish(send(channel, request(path)).await?).await
}

/// Makes one call as far as the head of its answer.
pub(crate) async fn send(
    channel: &MeshChannel,
    request: Request<tonic::body::Body>,
) -> Result<Response<crate::ResponseBody>, Status> {
    channel.clone().call(request).await
}

/// Reads an answer to its end.
pub(crate) async fn finish(response: Response<crate::ResponseBody>) -> Result<Bytes, Status> {
    if let Some(status) = Status::from_header_map(response.headers()) {
        return if status.code() == Code::Ok { Ok(Bytes::new()) } else { Err(status) };
    }
    let collected = response.into_body().collect().await?;
    let status = collected.trailers().and_then(Status::from_header_map);
    match status.unwrap_or_else(|| Status::unknown("no trailers")) {
        ok if ok.code() == Code::Ok => Ok(collected.to_bytes()),
        status => Err(status),
    }
}
