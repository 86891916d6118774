//! A registry that a test plays by hand: every call arrives as a value, with the means to answer it. No connection and no
//! socket are involved, so that paused time decides everything.

use mesh_api::registry::v1 as wire;
use mesh_api::registry::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::grpc::{RegistryClient, registry_client};

/// Calls that wait to be played; more are not made in one test.
const CALLS_MAX: usize = 64;

/// One call that the registry got.
pub(crate) enum Call {
    Register(wire::RegisterRequest, oneshot::Sender<Result<wire::RegisterResponse, Status>>),
    Deregister(wire::DeregisterRequest, oneshot::Sender<Result<wire::DeregisterResponse, Status>>),
    ListServices(wire::ListServicesRequest, oneshot::Sender<Result<wire::ListServicesResponse, Status>>),
    KeepAlive(Stream<wire::KeepAliveRequest, wire::KeepAliveResponse>),
    Watch(Stream<wire::WatchRequest, wire::WatchResponse>),
}

/// The registry's end of a stream; dropping it ends the stream.
pub(crate) struct Stream<Q, A> {
    requests: Streaming<Q>,
    answers: mpsc::Sender<Result<A, Status>>,
}

impl<Q, A> Stream<Q, A> {
    /// The next request; panics where the caller has gone.
    pub(crate) async fn request(&mut self) -> Q {
        self.requests.message().await.unwrap().unwrap()
    }

    /// Whether the caller has ended the stream.
    pub(crate) async fn is_over(&mut self) -> bool {
        !matches!(self.requests.message().await, Ok(Some(_)))
    }

    /// Says something; whether the caller still listens is its own affair.
    pub(crate) async fn say(&self, answer: A) {
        let _ = self.answers.send(Ok(answer)).await;
    }

    /// Breaks the stream.
    pub(crate) async fn fail(self, status: Status) {
        let _ = self.answers.send(Err(status)).await;
    }
}

/// The calls of one client.
pub(crate) struct Calls(mpsc::Receiver<Call>);

impl Calls {
    /// The next call, whatever it is.
    pub(crate) async fn next(&mut self) -> Call {
        self.0.recv().await.unwrap()
    }

    /// Nothing has been called up to now.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.0.try_recv().is_err()
    }

    pub(crate) async fn register(
        &mut self,
    ) -> (wire::RegisterRequest, oneshot::Sender<Result<wire::RegisterResponse, Status>>) {
        match self.next().await {
            Call::Register(request, answer) => (request, answer),
            other => panic!("expected Register, got {}", other.name()),
        }
    }

    pub(crate) async fn deregister(
        &mut self,
    ) -> (wire::DeregisterRequest, oneshot::Sender<Result<wire::DeregisterResponse, Status>>) {
        match self.next().await {
            Call::Deregister(request, answer) => (request, answer),
            other => panic!("expected Deregister, got {}", other.name()),
        }
    }

    pub(crate) async fn list_services(
        &mut self,
    ) -> (wire::ListServicesRequest, oneshot::Sender<Result<wire::ListServicesResponse, Status>>) {
        match self.next().await {
            Call::ListServices(request, answer) => (request, answer),
            other => panic!("expected ListServices, got {}", other.name()),
        }
    }

    pub(crate) async fn keep_alive(&mut self) -> Stream<wire::KeepAliveRequest, wire::KeepAliveResponse> {
        match self.next().await {
            Call::KeepAlive(stream) => stream,
            other => panic!("expected KeepAlive, got {}", other.name()),
        }
    }

    pub(crate) async fn watch(&mut self) -> Stream<wire::WatchRequest, wire::WatchResponse> {
        match self.next().await {
            Call::Watch(stream) => stream,
            other => panic!("expected Watch, got {}", other.name()),
        }
    }
}

impl Call {
    fn name(&self) -> &'static str {
        match self {
            Self::Register(..) => "Register",
            Self::Deregister(..) => "Deregister",
            Self::ListServices(..) => "ListServices",
            Self::KeepAlive(_) => "KeepAlive",
            Self::Watch(_) => "Watch",
        }
    }
}

/// A client and the registry that it talks to.
pub(crate) fn registry() -> (RegistryClient, Calls) {
    let (service, calls) = service();
    (registry_client(service), calls)
}

/// The registry as a service, to be put behind a port.
pub(crate) fn service() -> (RegistryServiceServer<Fake>, Calls) {
    let (calls, received) = mpsc::channel(CALLS_MAX);
    (RegistryServiceServer::new(Fake { calls }), Calls(received))
}

pub(crate) struct Fake {
    calls: mpsc::Sender<Call>,
}

impl Fake {
    async fn hand_over(&self, call: Call) -> Result<(), Status> {
        self.calls.send(call).await.map_err(|_| Status::unavailable("the test is over"))
    }

    async fn answered<T>(answer: oneshot::Receiver<Result<T, Status>>) -> Result<Response<T>, Status> {
        answer.await.unwrap_or_else(|_| Err(Status::unavailable("not answered"))).map(Response::new)
    }
}

#[tonic::async_trait]
impl RegistryService for Fake {
    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let (answer, answered) = oneshot::channel();
        self.hand_over(Call::Register(request.into_inner(), answer)).await?;
        Self::answered(answered).await
    }

    async fn deregister(
        &self,
        request: Request<wire::DeregisterRequest>,
    ) -> Result<Response<wire::DeregisterResponse>, Status> {
        let (answer, answered) = oneshot::channel();
        self.hand_over(Call::Deregister(request.into_inner(), answer)).await?;
        Self::answered(answered).await
    }

    type KeepAliveStream = ReceiverStream<Result<wire::KeepAliveResponse, Status>>;

    async fn keep_alive(
        &self,
        request: Request<Streaming<wire::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let (answers, stream) = mpsc::channel(CALLS_MAX);
        self.hand_over(Call::KeepAlive(Stream { requests: request.into_inner(), answers })).await?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type WatchStream = ReceiverStream<Result<wire::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, stream) = mpsc::channel(CALLS_MAX);
        self.hand_over(Call::Watch(Stream { requests: request.into_inner(), answers })).await?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type ListEventsStream = ReceiverStream<Result<wire::ListEventsResponse, Status>>;

    async fn list_events(
        &self,
        _: Request<wire::ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        Err(Status::unimplemented("nobody here calls it"))
    }

    async fn heartbeat(&self, _: Request<wire::HeartbeatRequest>) -> Result<Response<wire::HeartbeatResponse>, Status> {
        Err(Status::unimplemented("nobody here calls it"))
    }

    async fn set_admin_state(
        &self,
        _: Request<wire::SetAdminStateRequest>,
    ) -> Result<Response<wire::SetAdminStateResponse>, Status> {
        Err(Status::unimplemented("nobody here calls it"))
    }

    async fn delete_service(
        &self,
        _: Request<wire::DeleteServiceRequest>,
    ) -> Result<Response<wire::DeleteServiceResponse>, Status> {
        Err(Status::unimplemented("nobody here calls it"))
    }

    async fn resolve(&self, _: Request<wire::ResolveRequest>) -> Result<Response<wire::ResolveResponse>, Status> {
        Err(Status::unimplemented("nobody here calls it"))
    }

    async fn list_services(
        &self,
        request: Request<wire::ListServicesRequest>,
    ) -> Result<Response<wire::ListServicesResponse>, Status> {
        let (answer, answered) = oneshot::channel();
        self.hand_over(Call::ListServices(request.into_inner(), answer)).await?;
        Self::answered(answered).await
    }
}
