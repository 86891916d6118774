//! A registry that says what it is told to. It takes no registration and knows one service.

use mesh_api::registry::v1 as wire;
use mesh_api::registry::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use mesh_api::registry::v1::watch_response::Event;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::load::SERVICE;
use crate::wire::{Push, Spoil};

/// News that wait for one watcher; more are not pushed in one row.
const NEWS_MAX: usize = 64;

/// Serves what is pushed: every watcher hears all of it, in order.
pub(super) async fn serve(listener: TcpListener, pushed: watch::Receiver<Vec<Push>>) {
    let service = RegistryServiceServer::new(Puppet { pushed });
    let serving = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    serving.await.expect("it serves until it is killed");
}

struct Puppet {
    pushed: watch::Receiver<Vec<Push>>,
}

fn snapshot(push: &Push) -> wire::WatchResponse {
    let instance = |address: std::net::SocketAddr| wire::Instance {
        namespace: "default".to_owned(),
        service: SERVICE.to_owned(),
        instance_id: Uuid::from_u128(address.port().into()).to_string(),
        incarnation: 1,
        endpoints: vec![wire::Endpoint {
            name: "grpc".to_owned(),
            protocol: wire::Protocol::Grpc.into(),
            ip: address.ip().to_string(),
            port: address.port().into(),
        }],
        weight: 100,
        revision: push.revision,
        ..Default::default()
    };
    let mut instances: Vec<_> = push.listed.iter().copied().map(instance).collect();
    match push.spoil {
        Spoil::Whole | Spoil::Null => {}
        Spoil::Blank => instances.fill(wire::Instance::default()),
        Spoil::Twice => {
            // Port 1 of loopback refuses.
            let elsewhere = wire::Endpoint { port: 1, ..instances[0].endpoints[0].clone() };
            let twin =
                |instance: &wire::Instance| wire::Instance { endpoints: vec![elsewhere.clone()], ..instance.clone() };
            let twins: Vec<_> = instances.iter().map(twin).collect();
            instances.extend(twins);
        }
        Spoil::Megabyte => {
            // Four of them would be more than a message may have.
            instances[0].metadata.insert("waste".to_owned(), "x".repeat(1 << 20));
        }
        Spoil::BadPorts => {
            for (instance, port) in instances.iter_mut().zip([0, 99_999].into_iter().cycle()) {
                instance.endpoints[0].port = port;
            }
        }
    }
    let chunk = wire::SnapshotChunk { instances, last: true, presence: push.presence.into(), ..Default::default() };
    let Push { store, generation, revision, .. } = push;
    wire::WatchResponse {
        namespace: "default".to_owned(),
        service: SERVICE.to_owned(),
        position: Some(wire::Position { store_id: store.clone(), generation: *generation, revision: *revision }),
        complete: true,
        event: (push.spoil != Spoil::Null).then_some(Event::Snapshot(chunk)),
    }
}

#[tonic::async_trait]
impl RegistryService for Puppet {
    type WatchStream = ReceiverStream<Result<wire::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (say, said) = mpsc::channel(NEWS_MAX);
        let mut pushed = self.pushed.clone();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            // Only one service is ever asked for.
            let _ = requests.message().await;
            let mut told = 0;
            loop {
                let news: Vec<Push> = pushed.borrow_and_update().iter().skip(told).cloned().collect();
                for push in &news {
                    if say.send(Ok(snapshot(push))).await.is_err() {
                        return;
                    }
                }
                told += news.len();
                if pushed.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(said)))
    }

    type KeepAliveStream = ReceiverStream<Result<wire::KeepAliveResponse, Status>>;

    async fn keep_alive(
        &self,
        _: Request<Streaming<wire::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        Err(nobody_calls_this())
    }

    type ListEventsStream = ReceiverStream<Result<wire::ListEventsResponse, Status>>;

    async fn list_events(
        &self,
        _: Request<wire::ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        Err(nobody_calls_this())
    }

    async fn register(&self, _: Request<wire::RegisterRequest>) -> Result<Response<wire::RegisterResponse>, Status> {
        Err(nobody_calls_this())
    }

    async fn deregister(
        &self,
        _: Request<wire::DeregisterRequest>,
    ) -> Result<Response<wire::DeregisterResponse>, Status> {
        Err(nobody_calls_this())
    }

    async fn heartbeat(&self, _: Request<wire::HeartbeatRequest>) -> Result<Response<wire::HeartbeatResponse>, Status> {
        Err(nobody_calls_this())
    }

    async fn set_admin_state(
        &self,
        _: Request<wire::SetAdminStateRequest>,
    ) -> Result<Response<wire::SetAdminStateResponse>, Status> {
        Err(nobody_calls_this())
    }

    async fn delete_service(
        &self,
        _: Request<wire::DeleteServiceRequest>,
    ) -> Result<Response<wire::DeleteServiceResponse>, Status> {
        Err(nobody_calls_this())
    }

    async fn resolve(&self, _: Request<wire::ResolveRequest>) -> Result<Response<wire::ResolveResponse>, Status> {
        Err(nobody_calls_this())
    }

    async fn list_services(
        &self,
        _: Request<wire::ListServicesRequest>,
    ) -> Result<Response<wire::ListServicesResponse>, Status> {
        Err(nobody_calls_this())
    }
}

fn nobody_calls_this() -> Status {
    Status::unimplemented("this registry only speaks")
}
