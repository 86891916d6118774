//! The channel over real sockets, against tonic's own server: a service that restarts and dies under load.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::{ResolveRequest, ResolveResponse};
use mesh_client::{Address, ConnectivityState, Mesh, MeshChannel, WaitForReady};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// Answers every method of the registry with an empty message: what is called does not matter here, only whether the caller
/// knows that it may be repeated.
#[derive(Clone)]
struct Answering;

impl NamedService for Answering {
    const NAME: &'static str = "mesh.registry.v1.RegistryService";
}

impl Service<Request<Body>> for Answering {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let answer = service_fn(async |_: tonic::Request<ResolveRequest>| {
                // Some calls are in flight when their server goes.
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok::<_, Status>(tonic::Response::new(ResolveResponse::default()))
            });
            Ok(tonic::server::Grpc::new(ProstCodec::default()).unary(answer, request).await)
        })
    }
}

/// A server on a runtime of its own: ending that ends every connection at once, as a killed process does.
struct Process {
    address: Address,
    runtime: Option<Runtime>,
    leave: Option<oneshot::Sender<()>>,
    gone: oneshot::Receiver<()>,
}

impl Process {
    /// Starts one on a TCP address, or on a path where no socket is left.
    fn start(address: impl Into<Address>) -> Self {
        Self::with_streams(address, None)
    }

    fn with_streams(address: impl Into<Address>, streams_max: Option<u32>) -> Self {
        let (leave, leaving) = oneshot::channel::<()>();
        let (going, gone) = oneshot::channel();
        let leaving = async { drop(leaving.await) };
        let server = tonic::transport::Server::builder().max_concurrent_streams(streams_max).add_service(Answering);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = match address.into() {
            Address::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address).unwrap();
                listener.set_nonblocking(true).unwrap();
                let address = listener.local_addr().unwrap();
                runtime.spawn(async move {
                    let connections = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
                    let _ = server.serve_with_incoming_shutdown(connections, leaving).await;
                    let _ = going.send(());
                });
                address.into()
            }
            Address::Unix(path) => {
                let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
                listener.set_nonblocking(true).unwrap();
                runtime.spawn(async move {
                    let connections = UnixListenerStream::new(UnixListener::from_std(listener).unwrap());
                    let _ = server.serve_with_incoming_shutdown(connections, leaving).await;
                    let _ = going.send(());
                });
                Address::Unix(path)
            }
        };
        Self { address, runtime: Some(runtime), leave: Some(leave), gone }
    }

    /// Ends it as a well-behaved server does: GOAWAY, finish, leave.
    async fn stop(mut self) -> Address {
        drop(self.leave.take());
        (&mut self.gone).await.unwrap();
        self.address.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if let Address::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Whether the caller knows that the method may be repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Repeatable,
    Nothing,
}

fn service_of_three(known: Known) -> (Vec<Process>, MeshChannel) {
    let processes: Vec<Process> = (0..3).map(|_| Process::start(ANYWHERE)).collect();
    let mut mesh = Mesh::builder().static_service("user-svc", processes.iter().map(|process| process.address.clone()));
    if known == Known::Repeatable {
        mesh = mesh.descriptors(mesh_api::FILE_DESCRIPTOR_SET);
    }
    (processes, mesh.build().unwrap().channel("user-svc"))
}

async fn state_of(channel: &MeshChannel, address: &Address, wanted: ConnectivityState) {
    let there = |endpoint: &mesh_client::EndpointHandle| endpoint.address() == address && endpoint.state() == wanted;
    until(|| channel.endpoints().iter().any(there)).await;
}

/// Looks every few milliseconds whether `fact` holds.
async fn until(fact: impl Fn() -> bool) {
    while !fact() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Calls in eight loops until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    loops: JoinSet<Vec<Status>>,
}

impl Load {
    fn start(channel: &MeshChannel) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut loops = JoinSet::new();
        for _ in 0..8 {
            let mut stub = RegistryServiceClient::new(channel.clone());
            let (stop, answered) = (stop.clone(), answered.clone());
            loops.spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match stub.resolve(ResolveRequest::default()).await {
                        Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(status) => failed.push(status),
                    }
                }
                failed
            });
        }
        Self { stop, answered, loops }
    }

    /// Lets some more calls be made.
    async fn go_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        until(|| self.answered.load(Ordering::Relaxed) > before + 200).await;
    }

    /// Ends it and returns every failure.
    async fn finish(mut self) -> Vec<Status> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        while let Some(part) = self.loops.join_next().await {
            failed.extend(part.unwrap());
        }
        failed
    }
}

/// Replaces one process after the other under load.
async fn nobody_notices_restarts(restarts: usize, mut processes: Vec<Process>, channel: &MeshChannel) {
    let load = Load::start(channel);
    for _ in 0..restarts {
        load.go_on().await;
        let address = processes.remove(0).stop().await;
        processes.push(Process::start(address.clone()));
        state_of(channel, &address, ConnectivityState::Ready).await;
    }
    let failed = load.finish().await;
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_fails_no_call() {
    let (processes, channel) = service_of_three(Known::Nothing);
    nobody_notices_restarts(9, processes, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_server_under_load_fails_no_repeatable_call() {
    let (mut processes, channel) = service_of_three(Known::Repeatable);
    let load = Load::start(&channel);
    for _ in 0..5 {
        let victim = processes.remove(0);
        let address = victim.address.clone();
        state_of(&channel, &address, ConnectivityState::Ready).await;
        load.go_on().await;
        drop(victim);
        state_of(&channel, &address, ConnectivityState::TransientFailure).await;
        processes.push(Process::start(address));
    }
    let failed = load.finish().await;
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed.first());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_server_fails_no_more_unrepeatable_calls_than_were_in_flight_on_it() {
    let (mut processes, channel) = service_of_three(Known::Nothing);
    let victim = processes.remove(0);
    for process in processes.iter().chain([&victim]) {
        state_of(&channel, &process.address, ConnectivityState::Ready).await;
    }
    let load = Load::start(&channel);
    let address = victim.address.clone();
    let picked = |endpoint: &mesh_client::EndpointHandle| *endpoint.address() == address && endpoint.picks() > 20;
    until(|| channel.endpoints().iter().any(picked)).await;
    drop(victim);
    state_of(&channel, &address, ConnectivityState::TransientFailure).await;
    let failed = load.finish().await;
    assert!(failed.len() <= 8, "{} failed", failed.len());
    assert!(failed.iter().all(|status| status.code() == Code::Unavailable), "{:?}", failed.first());
}

/// Every freed place must wake somebody: these calls wait without a limit, so one lost wake-up ends the test here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_on_a_full_connection_are_handed_on_for_ever() {
    let server = Process::with_streams(ANYWHERE, Some(2));
    let mesh = Mesh::builder().static_service("user-svc", [server.address.clone()]).build().unwrap();
    let channel = mesh.channel("user-svc");
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        let mut stub = RegistryServiceClient::new(channel.clone());
        calls.spawn(async move {
            for _ in 0..25 {
                let mut request = tonic::Request::new(ResolveRequest::default());
                request.extensions_mut().insert(WaitForReady);
                stub.resolve(request).await.unwrap();
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(60), calls.join_all()).await.unwrap();
}

/// A Unix socket carries calls like any other; its server says goodbye, comes back on the same path, and no call is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_carries_calls_and_its_goodbye() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["one.sock", "two.sock"].map(|name| Address::from(folder.path().join(name)));
    let processes: Vec<Process> = paths.iter().cloned().map(Process::start).collect();
    let mesh = Mesh::builder().static_service("user-svc", paths.clone()).build().unwrap();
    let channel = mesh.channel("user-svc");
    nobody_notices_restarts(4, processes, &channel).await;
    assert!(channel.endpoints().iter().all(|endpoint| endpoint.picks() > 0));
}

/// Nobody has made the socket yet, and somebody has left a file there that nobody listens on.
#[tokio::test]
async fn a_unix_socket_that_is_not_there_is_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, left) = (folder.path().join("missing.sock"), folder.path().join("left.sock"));
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    for (path, why) in [(missing, "No such file"), (left, "refused")] {
        let mesh = Mesh::builder().static_service("user-svc", [path.clone().into()]).build().unwrap();
        let mut stub = RegistryServiceClient::new(mesh.channel("user-svc"));
        let status = stub.resolve(ResolveRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(path.to_str().unwrap()), "{}", status.message());
        assert!(status.message().contains(why), "{}", status.message());
    }
}
