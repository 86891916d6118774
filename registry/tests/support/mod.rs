//! A registry served over in-memory pipes, and generated clients on them: no socket, so that paused time is the only time.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use mesh_api::registry::v1 as pb;
use mesh_runtime::{Server, hardened_server};
use pb::registry_service_client::RegistryServiceClient;
use registry::{Registry, Settings};
use tokio::io::duplex;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::service_fn;

pub(crate) type Client = RegistryServiceClient<Channel>;

/// A registry and its gRPC server, without a port.
pub(crate) struct Door {
    pub(crate) registry: Registry,
    server: Server,
    goaway: CancellationToken,
}

/// Settings with a fixed seed and time.
pub(crate) fn settings() -> Settings {
    Settings::seeded(7, SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000))
}

impl Door {
    pub(crate) async fn open() -> Self {
        Self::open_with(settings()).await
    }

    pub(crate) async fn open_with(settings: Settings) -> Self {
        let registry = Registry::start(settings).await.expect("a memory store loads");
        let server = hardened_server(registry.routes());
        Self { registry, server, goaway: CancellationToken::new() }
    }

    /// A client in this process.
    pub(crate) async fn client(&self) -> Client {
        self.client_from(None).await
    }

    /// A client whose connection comes from this address.
    pub(crate) async fn client_from(&self, peer: Option<SocketAddr>) -> Client {
        RegistryServiceClient::new(self.channel(peer, Endpoint::from_static("http://registry")).await)
    }

    /// A client that takes only so many bytes which it has not read.
    pub(crate) async fn narrow_client(&self, window_bytes: u32) -> Client {
        let endpoint = Endpoint::from_static("http://registry")
            .initial_stream_window_size(window_bytes)
            .initial_connection_window_size(window_bytes);
        RegistryServiceClient::new(self.channel(None, endpoint).await)
    }

    async fn channel(&self, peer: Option<SocketAddr>, endpoint: Endpoint) -> Channel {
        let (server, goaway) = (self.server.clone(), self.goaway.clone());
        let connector = service_fn(move |_| {
            let (near, far) = duplex(64 * 1024);
            let (server, goaway) = (server.clone(), goaway.clone());
            tokio::spawn(async move {
                // How it ends is the client's to see.
                let _ = server.serve_connection(far, peer, &goaway).await;
            });
            async move { Ok::<_, std::io::Error>(TokioIo::new(near)) }
        });
        endpoint.connect_with_connector(connector).await.expect("a pipe connects")
    }

    /// The metrics as text.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.metrics()).expect("a string takes all");
        text
    }
}

/// A registration of `user-svc` with everything it needs; `number` makes id, nonce and address.
pub(crate) fn registration(number: u8) -> pb::RegisterRequest {
    pb::RegisterRequest {
        service: "user-svc".to_owned(),
        instance_id: instance_id(number),
        start_nonce: vec![number; 16].into(),
        endpoints: vec![grpc_endpoint(&format!("10.0.0.{number}"), 7410)],
        ..pb::RegisterRequest::default()
    }
}

pub(crate) fn instance_id(number: u8) -> String {
    format!("00000000-0000-7000-8000-0000000000{number:02x}")
}

pub(crate) fn grpc_endpoint(ip: &str, port: u32) -> pb::Endpoint {
    pb::Endpoint { name: "grpc".to_owned(), protocol: pb::Protocol::Grpc.into(), ip: ip.to_owned(), port }
}

/// Registers and expects that to work.
pub(crate) async fn register(client: &mut Client, request: pb::RegisterRequest) -> pb::RegisterResponse {
    client.register(request).await.expect("registered").into_inner()
}

pub(crate) fn beat_of(lease: &pb::RegisterResponse) -> pb::Beat {
    pb::Beat { lease_id: lease.lease_id.clone(), incarnation: lease.incarnation, ..pb::Beat::default() }
}

pub(crate) fn lease_of(granted: &pb::RegisterResponse) -> pb::Lease {
    pb::Lease { lease_id: granted.lease_id.clone(), incarnation: granted.incarnation }
}

pub(crate) async fn resolve(client: &mut Client, service: &str) -> Result<pb::ResolveResponse, Status> {
    let request = pb::ResolveRequest { service: service.to_owned(), ..pb::ResolveRequest::default() };
    client.resolve(request).await.map(tonic::Response::into_inner)
}

/// Code, reason and, where there is one, the field of a refusal. Every refusal carries an `ErrorInfo` of the house.
pub(crate) fn refusal(status: &Status) -> (Code, String, Option<String>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "meshwork");
    assert!(!status.message().is_empty());
    let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
    (status.code(), info.reason.clone(), field)
}

/// Expects a refusal for this reason at this field.
pub(crate) fn expect_field<T: std::fmt::Debug>(answer: Result<T, Status>, reason: &str, field: &str) {
    let status = answer.expect_err("a refusal");
    assert_eq!(refusal(&status), (Code::InvalidArgument, reason.to_owned(), Some(field.to_owned())), "{status:?}");
}

/// Expects a refusal with this code for this reason.
pub(crate) fn expect_refusal<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, reason: &str) {
    let status = answer.expect_err("a refusal");
    let (got, why, _) = refusal(&status);
    assert_eq!((got, why.as_str()), (code, reason), "{status:?}");
}

/// What a watcher holds of one service, as the protocol tells it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) instances: BTreeMap<String, pb::Instance>,
    pub(crate) position: Option<pb::Position>,
    pub(crate) presence: i32,
    pub(crate) soft: Option<pb::SoftState>,
}

impl Held {
    /// Applies one message about the service; single-chunk snapshots only.
    pub(crate) fn apply(&mut self, response: pb::WatchResponse) {
        use pb::watch_response::Event;
        match response.event.expect("an event") {
            Event::Snapshot(chunk) => {
                assert!(chunk.last && chunk.index == 0, "a small service is one chunk");
                self.instances.clear();
                self.presence = chunk.presence;
                self.upsert(chunk.instances);
                self.position = response.position;
            }
            Event::Delta(delta) => {
                let held = self.position.as_ref().expect("a snapshot came first").revision;
                assert!(delta.base_revision <= held, "a delta builds on what was sent");
                self.presence = delta.presence;
                for removal in delta.removals {
                    self.instances.remove(&removal.instance_id);
                }
                self.upsert(delta.upserts);
                self.position = response.position;
            }
            Event::SoftState(soft) => self.soft = Some(soft),
            Event::Bookmark(_) => {}
            Event::Error(error) => panic!("refused: {error:?}"),
        }
    }

    fn upsert(&mut self, instances: Vec<pb::Instance>) {
        self.instances.extend(instances.into_iter().map(|instance| (instance.instance_id.clone(), instance)));
    }
}
