//! A service on loopback that does what it is asked to, and what a gateway needs to know of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream;
use gateway::Published;
use gateway::transcode::{RouteTable, ServiceRoutes};
use http::{Request, Response};
use mesh_client::Mesh;
use prost_reflect::DescriptorPool;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Service, service_fn};

pub(crate) const SERVICE: &str = "things";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GetThingRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchThingsRequest {
    #[prost(int32, tag = "1")]
    pub(crate) count: i32,
    #[prost(string, tag = "2")]
    pub(crate) then: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Thing {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(map = "string, string", tag = "2")]
    pub(crate) seen: HashMap<String, String>,
    #[prost(string, tag = "3")]
    pub(crate) text: String,
}

/// What happened at the service.
#[derive(Default)]
pub(crate) struct Happened {
    /// Calls that began.
    pub(crate) begun: AtomicUsize,
    /// Calls that nobody waits for any more, though they were not answered.
    pub(crate) given_up: AtomicUsize,
    /// Things of streams that were taken off.
    pub(crate) streamed: AtomicUsize,
}

impl Happened {
    /// Waits for a fact.
    pub(crate) async fn until(&self, fact: impl Fn(&Self) -> bool) {
        while !fact(self) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Counts when it is dropped before it is done.
struct Waited(Arc<Happened>);

impl Drop for Waited {
    fn drop(&mut self) {
        self.0.given_up.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Things(Arc<Happened>);

impl NamedService for Things {
    const NAME: &'static str = "test.front.v1.Things";
}

impl Service<Request<Body>> for Things {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let happened = Arc::clone(&self.0);
        happened.begun.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            Ok(match method.as_str() {
                "GetThing" => {
                    let get = service_fn(move |request| get(Arc::clone(&happened), request));
                    Grpc::new(ProstCodec::default()).unary(get, request).await
                }
                "CreateThing" => {
                    let create = service_fn(async |request: tonic::Request<Thing>| {
                        let seen = seen(&request);
                        Ok::<_, Status>(tonic::Response::new(Thing { seen, ..request.into_inner() }))
                    });
                    Grpc::new(ProstCodec::default()).unary(create, request).await
                }
                _ => {
                    let watch = service_fn(move |request| watch(Arc::clone(&happened), request));
                    Grpc::new(ProstCodec::default()).server_streaming(watch, request).await
                }
            })
        })
    }
}

fn seen<T>(request: &tonic::Request<T>) -> HashMap<String, String> {
    let metadata = request.metadata().clone().into_headers();
    metadata.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

async fn get(
    happened: Arc<Happened>,
    request: tonic::Request<GetThingRequest>,
) -> Result<tonic::Response<Thing>, Status> {
    let seen = seen(&request);
    let id = request.into_inner().id;
    let text = match id.split_once('-') {
        Some(("status", code)) => return Err(refused(code.parse().unwrap())),
        Some(("large", bytes)) => "x".repeat(bytes.parse().unwrap()),
        Some(("wait", _)) => {
            let _waited = Waited(happened);
            std::future::pending::<()>().await;
            String::new()
        }
        _ => String::new(),
    };
    Ok(tonic::Response::new(Thing { id, seen, text }))
}

fn refused(code: i32) -> Status {
    let mut details = ErrorDetails::with_error_info("SOME_REASON", "meshwork", HashMap::new());
    details.set_debug_info(vec!["at main.rs:1".to_owned()], "inside");
    if Code::from(code) == Code::ResourceExhausted {
        details.set_retry_info(Some(Duration::from_millis(2_300)));
    }
    Status::with_error_details(Code::from(code), "said at 10.9.8.7:1", details)
}

type Stream = Pin<Box<dyn futures_util::Stream<Item = Result<Thing, Status>> + Send>>;

async fn watch(
    happened: Arc<Happened>,
    request: tonic::Request<WatchThingsRequest>,
) -> Result<tonic::Response<Stream>, Status> {
    let WatchThingsRequest { count, then } = request.into_inner();
    let waited = Waited(Arc::clone(&happened));
    let things = stream::unfold((0, waited), move |(told, waited)| {
        let (happened, then) = (Arc::clone(&happened), then.clone());
        async move {
            if told < count {
                happened.streamed.fetch_add(1, Ordering::SeqCst);
                // A stream of many is one of large things.
                let text = "x".repeat(if count > 100 { 16 * 1024 } else { 0 });
                let thing = Thing { id: told.to_string(), text, ..Thing::default() };
                return Some((Ok(thing), (told + 1, waited)));
            }
            match then.as_str() {
                "wait" => std::future::pending().await,
                "fail" if told == count => Some((Err(refused(13)), (told + 1, waited))),
                _ => None,
            }
        }
    });
    Ok(tonic::Response::new(Box::pin(things)))
}

/// The descriptors of the service.
pub(crate) fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut compiler = protox::Compiler::new([root.join("tests/front"), root.join("../proto")]).unwrap();
        compiler.include_imports(true).include_source_info(true);
        compiler.open_file("things.proto").unwrap();
        DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
    })
}

/// The service, running until this goes.
pub(crate) struct Backend {
    pub(crate) happened: Arc<Happened>,
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let happened = Arc::<Happened>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = mesh_runtime::hardened_server(Routes::new(Things(Arc::clone(&happened))));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (io, peer) = listener.accept().await.unwrap();
                let server = server.clone();
                connections.spawn(async move {
                    let _ = server.serve_connection(io, Some(peer), &CancellationToken::new()).await;
                });
            }
        });
        Self { happened, address, _serving: serving }
    }

    /// The service as a gateway finds it.
    pub(crate) fn published(&self) -> Published {
        let descriptors = pool().encode_to_vec();
        let mesh = Mesh::builder()
            .static_service(SERVICE, [self.address.to_string().parse().unwrap()])
            .descriptors(&descriptors)
            .build()
            .unwrap();
        Published { channels: HashMap::from([(SERVICE.into(), mesh.channel(SERVICE))]), ..routes() }
    }
}

/// The service's routes, and nobody behind them.
pub(crate) fn routes() -> Published {
    let names = ["test.front.v1.Things".to_owned()];
    let routes = ServiceRoutes::compile(SERVICE, pool().clone(), &names).unwrap();
    assert_eq!(routes.refused(), []);
    let (table, refused) = RouteTable::build([Arc::new(routes)]);
    assert_eq!(refused, []);
    Published { table, heard: true, ..Published::default() }
}
