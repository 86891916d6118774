//! A mesh in one thread: a registry, instances of one service, and a caller that never stops calling.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use mesh_api::shop::user::v1::user_service_server::{UserService, UserServiceServer};
use mesh_api::shop::user::v1::{
    ChangePasswordRequest, ChangePasswordResponse, CreateUserRequest, CreateUserResponse, DeleteUserRequest,
    DeleteUserResponse, GetJwksRequest, GetJwksResponse, GetUserRequest, GetUserResponse, ListUsersRequest,
    ListUsersResponse, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, RefreshRequest, RefreshResponse,
    UpdateUserRequest, UpdateUserResponse, User,
};
use mesh_client::{ConnectivityState, InstanceSpec, LoadReport, Mesh, MeshBuilder, MeshChannel, Registrar};
use mesh_runtime::hardened_server;
use registry::catalog::Ttl;
use registry::{Registry, Settings};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::net::Net;
use crate::trace::Trace;

/// TTL of every lease; the registry's default in the simulation.
pub(crate) const TTL: Duration = Duration::from_secs(3);
/// The service that is called.
pub(crate) const SERVICE: &str = "user-svc";

pub(crate) const REGISTRY: SocketAddr = address(1, 7400);
pub(crate) const CALLER: SocketAddr = address(2, 0);

const fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, host)), port)
}

/// Where the instance of this number listens.
pub(crate) const fn instance_address(number: u8) -> SocketAddr {
    address(100 + number, 7410)
}

/// One process of the service.
struct Process {
    registrar: Registrar,
    /// Its connections end with it.
    _mesh: Mesh,
}

pub(crate) struct World {
    net: Net,
    seed: u64,
    /// How many processes and registries were started: each has randomness of its own.
    starts: u64,
    registry: Option<Registry>,
    processes: BTreeMap<u8, Process>,
    /// What instances say of how busy they are, whenever they are asked; those that are not in it say nothing.
    loads: BTreeMap<u8, LoadReport>,
    caller: Mesh,
    channel: MeshChannel,
    pub(crate) trace: Trace,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_caller(seed, |caller| caller)
    }

    /// A world with a caller of one's own making.
    pub(crate) fn with_caller(seed: u64, made: impl FnOnce(MeshBuilder) -> MeshBuilder) -> Self {
        let net = Net::new(seed);
        let caller = made(mesh_at(&net, CALLER, seed)).build().expect("the caller's configuration is sound");
        let channel = caller.channel(SERVICE);
        let trace = Trace::new();
        Self {
            net,
            seed,
            starts: 0,
            registry: None,
            processes: BTreeMap::new(),
            loads: BTreeMap::new(),
            caller,
            channel,
            trace,
        }
    }

    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    pub(crate) fn channel(&self) -> MeshChannel {
        self.channel.clone()
    }

    fn next_seed(&mut self) -> u64 {
        self.starts += 1;
        self.seed.wrapping_mul(1_000_003).wrapping_add(self.starts)
    }

    /// Starts a registry that remembers nothing.
    pub(crate) async fn start_registry(&mut self) {
        let seed = self.next_seed();
        let mut settings = Settings::seeded(seed, std::time::UNIX_EPOCH);
        settings.engine.default_ttl = Ttl::new(TTL).expect("a TTL in range");
        let registry = Registry::start(settings).await.expect("a memory store starts");
        self.net.listen(REGISTRY, hardened_server(registry.routes()));
        self.registry = Some(registry);
        self.trace.note("registry up");
    }

    pub(crate) fn crash_registry(&mut self) {
        self.net.crash(REGISTRY);
        self.registry = None;
        self.trace.note("registry down");
    }

    /// From its next start on, an instance says this of how busy it is.
    pub(crate) fn set_load(&mut self, number: u8, load: LoadReport) {
        self.loads.insert(number, load);
    }

    /// Starts an instance: it serves at once, and registers when it can.
    pub(crate) fn start_instance(&mut self, number: u8) {
        let (at, seed) = (instance_address(number), self.next_seed());
        let mesh = mesh_at(&self.net, at, seed).build().expect("the registry's address is well formed");
        let registrar = mesh.registrar(InstanceSpec {
            // Given, because an id that the registrar makes itself holds the wall clock's time.
            instance_id: Some(uuid::Uuid::from_u64_pair(seed, self.starts)),
            descriptors: mesh_api::FILE_DESCRIPTOR_SET,
            grpc_services: vec!["shop.user.v1.UserService".to_owned()],
            ..InstanceSpec::new(SERVICE)
        });
        if let Some(&load) = self.loads.get(&number) {
            registrar.report_load(move || load);
        }
        self.net.listen(at, hardened_server(Routes::new(UserServiceServer::new(Users { number }))));
        let announcing = registrar.clone();
        tokio::spawn(async move { announcing.register(at, None).await });
        self.processes.insert(number, Process { registrar, _mesh: mesh });
        self.trace.note(format!("instance {number} up"));
    }

    /// The instance is gone between two instructions.
    pub(crate) fn crash_instance(&mut self, number: u8) {
        self.net.crash(instance_address(number));
        self.processes.remove(&number);
        self.trace.note(format!("instance {number} crashed"));
    }

    /// The instance leaves in DESIGN §4's order.
    pub(crate) async fn retire_instance(&mut self, number: u8) {
        let Some(process) = self.processes.remove(&number) else { return };
        self.trace.note(format!("instance {number} draining"));
        process.registrar.drain().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.net.retire(instance_address(number));
        process.registrar.leave().await;
        self.trace.note(format!("instance {number} gone"));
    }

    /// Addresses that should be called now, and are.
    pub(crate) fn live(&self) -> Vec<SocketAddr> {
        self.processes.keys().map(|number| instance_address(*number)).collect()
    }

    /// Addresses that the caller would pick from now.
    pub(crate) fn ready(&self) -> Vec<SocketAddr> {
        let ready = |handle: &mesh_client::EndpointHandle| handle.state() == ConnectivityState::Ready;
        let mut ready: Vec<_> = self
            .channel
            .endpoints()
            .iter()
            .filter(|handle| ready(handle))
            .filter_map(|handle| handle.address().tcp())
            .collect();
        ready.sort();
        ready
    }

    /// Addresses that the registry lists now.
    pub(crate) async fn listed(&self) -> Vec<SocketAddr> {
        let request = mesh_api::registry::v1::ResolveRequest { service: SERVICE.to_owned(), ..Default::default() };
        let Ok(answer) = self.caller.registry().resolve(request).await else { return Vec::new() };
        let mut listed: Vec<SocketAddr> = answer
            .into_inner()
            .instances
            .iter()
            .flat_map(|instance| &instance.endpoints)
            .map(|endpoint| {
                SocketAddr::new(endpoint.ip.parse().expect("an IP"), endpoint.port.try_into().expect("a port"))
            })
            .collect();
        listed.sort();
        listed
    }
}

fn mesh_at(net: &Net, at: SocketAddr, seed: u64) -> MeshBuilder {
    Mesh::builder().registry([REGISTRY.to_string()]).connector(net.from(at)).seed(seed)
}

/// One call with a deadline of a second; the number of the instance that answered.
pub(crate) async fn call(channel: MeshChannel) -> Result<String, Status> {
    let mut request = Request::new(GetUserRequest { user_id: "1".to_owned() });
    request.set_timeout(Duration::from_secs(1));
    let answer = UserServiceClient::new(channel).get_user(request).await?;
    Ok(answer.into_inner().user.unwrap_or_default().display_name)
}

/// A user service that knows one thing: its own number.
struct Users {
    number: u8,
}

#[tonic::async_trait]
impl UserService for Users {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let user_id = request.into_inner().user_id;
        let user = User { user_id, display_name: self.number.to_string(), ..User::default() };
        Ok(Response::new(GetUserResponse { user: Some(user) }))
    }

    async fn create_user(&self, _: Request<CreateUserRequest>) -> Result<Response<CreateUserResponse>, Status> {
        Err(Status::unimplemented("the simulation only reads"))
    }

    async fn update_user(&self, _: Request<UpdateUserRequest>) -> Result<Response<UpdateUserResponse>, Status> {
        Err(Status::unimplemented("the simulation only reads"))
    }

    async fn delete_user(&self, _: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        Err(Status::unimplemented("the simulation only reads"))
    }

    async fn list_users(&self, _: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        Err(Status::unimplemented("the simulation only reads"))
    }

    async fn login(&self, _: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        Err(Status::unimplemented("the simulation only reads"))
    }

    async fn refresh(&self, _: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        Err(Status::unimplemented("the simulation only reads"))
    }

    async fn logout(&self, _: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        Err(Status::unimplemented("the simulation only reads"))
    }

    async fn change_password(
        &self,
        _: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        Err(Status::unimplemented("the simulation only reads"))
    }

    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<GetJwksResponse>, Status> {
        Err(Status::unimplemented("the simulation only reads"))
    }
}
