//! Who may call what, asked of the running services: every method that the descriptors have, by everybody there is, straight
//! and through the gateway.
//!
//! The rows come from [`Rpc::ALL`], which is generated from the descriptors. A new method therefore fails three times before
//! anybody can forget it: `proto/access.rs` does not compile until it says who may call it, [`case`] below does not until it
//! says what they hear, and this story fails where the services do otherwise.

mod harness;

use std::fmt;
use std::time::Duration;

use harness::{LONG, Story};
use mesh_api::access::{Access, Role, Rpc};
use mesh_api::shop::order::v1::order_service_client::OrderServiceClient;
use mesh_api::shop::order::v1::{
    CancelOrderRequest, CreateOrderRequest, DeleteOrderRequest, GetOrderRequest, ListOrdersRequest, Money, Order,
    OrderItem, OrderStatus, UpdateOrderRequest,
};
use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use mesh_api::shop::user::v1::{
    ChangePasswordRequest, CreateUserRequest, DeleteUserRequest, GetJwksRequest, GetUserRequest, ListUsersRequest,
    LoginRequest, LogoutRequest, RefreshRequest, UpdateUserRequest, User,
};
use mesh_client::MeshChannel;
use mesh_runtime::auth::{AUDIENCE_ALL, Claims, Secret, SigningKey, USER_ISSUER, mint};
use mesh_runtime::{clock, entropy};
use meshctl::{Listen, Member, Program};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

const PASSWORD: &str = "correct horse";
const LIFE: Duration = Duration::from_secs(5 * 60);
/// Whom a program of the mesh may call here, by name: a token of its own is never for everybody.
const AUDIENCES: [&str; 3] = ["user-svc", "order-svc", "gateway"];

/// Everybody who might call about a victim's things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    NoToken,
    /// With a token of the victim's that was good an hour ago.
    Expired,
    /// With a token of the victim's for somebody else's services.
    WrongAudience,
    /// With a token of the victim's in another issuer's name.
    WrongIssuer,
    /// With a token of the victim's, signed by themselves.
    UntrustedKey,
    /// With a token of the victim's that claims to be an admin's.
    WouldBeAdmin,
    /// Another user, logged in.
    OtherUser,
    Owner,
    Service,
    Admin,
}

use Who::{Admin, Expired, NoToken, OtherUser, Owner, Service, UntrustedKey, WouldBeAdmin, WrongAudience, WrongIssuer};

const EVERYBODY: [Who; 10] =
    [NoToken, Expired, WrongAudience, WrongIssuer, UntrustedKey, WouldBeAdmin, OtherUser, Owner, Service, Admin];

impl Who {
    /// In what capacity they call; without one, why they are not let in.
    fn role(self) -> Result<Role, &'static str> {
        match self {
            NoToken => Err("TOKEN_MISSING"),
            Expired => Err("TOKEN_EXPIRED"),
            WrongAudience | WrongIssuer | UntrustedKey | WouldBeAdmin => Err("TOKEN_INVALID"),
            OtherUser | Owner => Ok(Role::User),
            Service => Ok(Role::Service),
            Admin => Ok(Role::Admin),
        }
    }
}

/// How a call gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Straight,
    /// As gRPC, which the gateway passes on; its edge asks before the service does.
    Gateway,
}

/// What came of a call: OK, or a code and its reason.
#[derive(Clone, PartialEq, Eq)]
struct Outcome(Code, String);

impl Outcome {
    fn of(result: &Result<Vec<u8>, Status>) -> Self {
        match result {
            Ok(_) => Self(Code::Ok, String::new()),
            Err(status) => {
                let info = status.get_details_error_info().filter(|info| info.domain == "meshwork");
                let reason = info.map_or_else(|| format!("without a reason: {}", status.message()), |info| info.reason);
                Self(status.code(), reason)
            }
        }
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.0, self.1)
    }
}

/// What the table says of a call; what is not decided there is the method's own: what it says to somebody else.
fn expected(rpc: Rpc, who: Who, to_others: Outcome) -> Outcome {
    let refused = |code, reason: &str| Outcome(code, reason.to_owned());
    match (rpc.access(), who.role()) {
        (Access::Public, _) => refused(Code::Ok, ""),
        (Access::Allowed(_), Err(reason)) => refused(Code::Unauthenticated, reason),
        (Access::Allowed(roles), Ok(role)) if !roles.contains(&role) => {
            refused(Code::PermissionDenied, "ROLE_REQUIRED")
        }
        (Access::Allowed(_), Ok(_)) if who == OtherUser => to_others,
        (Access::Allowed(_), Ok(_)) => refused(Code::Ok, ""),
    }
}

/// A user with an order, whom a call is about.
struct Victim {
    user: User,
    order: Order,
    refresh_token: String,
}

/// The services, and the keys that one needs to be anybody.
struct World {
    story: Story,
    _gateway: Member,
    through_gateway: Channel,
    users: SigningKey,
    service: SigningKey,
}

impl World {
    async fn begin() -> Self {
        let mut story = Story::begin_with(1, 1, &[]).await;
        let gateway = story.mesh.join(Program::Gateway, Listen::Free).await.expect("the gateway starts");
        let at = format!("http://{}", gateway.process.grpc()).parse::<Endpoint>().expect("an address is a URL");
        let through_gateway = at.connect().await.expect("it listens");
        let open = |path: &str| SigningKey::open(&story.folder.path().join(path)).expect("the mesh has made it");
        let (users, service) = (open("user.db.keys/1.pem"), open("keys/order-svc.pem"));
        let world = Self { story, _gateway: gateway, through_gateway, users, service };
        world.gateway_knows_everybody().await;
        world
    }

    /// Waits until the gateway has read which methods the services have.
    async fn gateway_knows_everybody(&self) {
        let knows = async |rpc| match self.call(Way::Gateway, rpc, Vec::new(), None).await {
            Ok(_) => true,
            Err(status) => status.code() == Code::Unauthenticated,
        };
        let looking = async {
            while !(knows(Rpc::GetJwks).await && knows(Rpc::ListOrders).await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, looking).await.expect("the gateway hears of both services");
    }

    fn channel(&self, rpc: Rpc) -> MeshChannel {
        match rpc.path().starts_with("/shop.user.") {
            true => self.story.user_channel.clone(),
            false => self.story.order_channel.clone(),
        }
    }

    /// A user who has logged in and ordered.
    async fn victim(&self) -> Victim {
        let name = entropy::uuid_v4().simple().to_string();
        let email = format!("{name}@example.com");
        let mut users = UserServiceClient::new(self.story.user_channel.clone());
        let request = CreateUserRequest {
            request_id: name,
            email: email.clone(),
            display_name: "Ada".to_owned(),
            password: PASSWORD.to_owned(),
        };
        let user = users.create_user(request).await.expect("it is created").into_inner().user.expect("it is told");
        let login = LoginRequest { email, password: PASSWORD.to_owned() };
        let login = users.login(login).await.expect("it can log in").into_inner();
        let mut orders = OrderServiceClient::new(self.story.order_channel.clone());
        let mut request = Request::new(order_for(&user.user_id));
        request.metadata_mut().insert(
            "authorization",
            format!("Bearer {}", login.access_token).parse().expect("a token can stand in a header"),
        );
        let order = orders.create_order(request).await.expect("it can order").into_inner().order;
        Victim { user, order: order.expect("it is told"), refresh_token: login.refresh_token }
    }

    fn token(&self, who: Who, victim: &Victim) -> Option<Secret> {
        let now = clock::wall();
        let of = |subject: &str| Claims::new(USER_ISSUER, Role::User, subject, [AUDIENCE_ALL], now, LIFE);
        let theirs = of(&victim.user.user_id);
        let hour = 60 * 60;
        Some(match who {
            NoToken => return None,
            Expired => mint(
                &self.users,
                &Claims { iat: theirs.iat - hour, nbf: theirs.nbf - hour, exp: theirs.exp - hour, ..theirs },
            ),
            WrongAudience => mint(&self.users, &Claims { aud: vec!["elsewhere".to_owned()], ..theirs }),
            WrongIssuer => mint(&self.users, &Claims { iss: "elsewhere".to_owned(), ..theirs }),
            UntrustedKey => mint(&SigningKey::generate().expect("a key can be drawn"), &theirs),
            WouldBeAdmin => mint(&self.users, &Claims { role: Role::Admin, ..theirs }),
            OtherUser => mint(&self.users, &of(&entropy::uuid_v7().to_string())),
            Owner => mint(&self.users, &theirs),
            Service => {
                let claims = Claims::new("order-svc", Role::Service, "order-svc", AUDIENCES, now, LIFE);
                mint(&self.service, &claims)
            }
            Admin => {
                let key = SigningKey::open(&self.story.mesh.operator_key()).expect("the mesh has made it");
                mint(&key, &Claims::new("operator", Role::Admin, "operator", [AUDIENCE_ALL], now, LIFE))
            }
        })
    }

    async fn call(&self, way: Way, rpc: Rpc, message: Vec<u8>, token: Option<Secret>) -> Result<Vec<u8>, Status> {
        let mut request = Request::new(message);
        if let Some(token) = token {
            let header = format!("Bearer {}", token.expose()).parse().expect("a token can stand in a header");
            request.metadata_mut().insert("authorization", header);
        }
        let path = PathAndQuery::from_static(rpc.path());
        let answer = match way {
            Way::Straight => {
                let mut grpc = Grpc::new(self.channel(rpc));
                grpc.ready().await.expect("a channel of the mesh is always ready");
                grpc.unary(request, path, Raw).await
            }
            Way::Gateway => {
                let mut grpc = Grpc::new(self.through_gateway.clone());
                grpc.ready().await.expect("the gateway listens");
                grpc.unary(request, path, Raw).await
            }
        };
        answer.map(tonic::Response::into_inner)
    }

    /// The victim's account and order as they are now.
    async fn now(&self, victim: &Victim) -> [Result<Vec<u8>, Outcome>; 2] {
        let user = GetUserRequest { user_id: victim.user.user_id.clone() }.encode_to_vec();
        let order = GetOrderRequest { order_id: victim.order.order_id.clone() }.encode_to_vec();
        let mut found =
            [(Rpc::GetUser, user), (Rpc::GetOrder, order)].map(|row| (row, Err(Outcome(Code::Ok, String::new()))));
        for ((rpc, message), found) in &mut found {
            let answer = self.call(Way::Straight, *rpc, std::mem::take(message), self.token(Admin, victim)).await;
            *found = answer.map_err(|status| Outcome::of(&Err(status)));
        }
        found.map(|(_, found)| found)
    }
}

fn order_for(user_id: &str) -> CreateOrderRequest {
    let unit_price = Some(Money { currency_code: "EUR".to_owned(), units: 5, nanos: 0 });
    CreateOrderRequest {
        request_id: entropy::uuid_v4().to_string(),
        user_id: user_id.to_owned(),
        items: vec![OrderItem { sku: "tea".to_owned(), quantity: 1, unit_price }],
    }
}

/// A request about a victim that is granted to its owner, and what a user hears who is somebody else.
fn case(rpc: Rpc, victim: &Victim) -> (Vec<u8>, Outcome) {
    let (user_id, order_id) = (victim.user.user_id.clone(), victim.order.order_id.clone());
    let not_found = Outcome(Code::NotFound, "NOT_FOUND".to_owned());
    let message = match rpc {
        Rpc::CreateUser => {
            let name = entropy::uuid_v4().simple().to_string();
            let email = format!("{name}@example.com");
            let (display_name, password) = ("Grace".to_owned(), PASSWORD.to_owned());
            CreateUserRequest { request_id: name, email, display_name, password }.encode_to_vec()
        }
        Rpc::GetUser => GetUserRequest { user_id }.encode_to_vec(),
        Rpc::UpdateUser => {
            let (etag, display_name) = (victim.user.etag.clone(), Some("Grace".to_owned()));
            UpdateUserRequest { user_id, etag, display_name, ..UpdateUserRequest::default() }.encode_to_vec()
        }
        Rpc::DeleteUser => DeleteUserRequest { user_id }.encode_to_vec(),
        Rpc::ListUsers => ListUsersRequest::default().encode_to_vec(),
        Rpc::Login => LoginRequest { email: victim.user.email.clone(), password: PASSWORD.to_owned() }.encode_to_vec(),
        Rpc::Refresh => RefreshRequest { refresh_token: victim.refresh_token.clone() }.encode_to_vec(),
        Rpc::Logout => {
            // It tells nothing of the token, so it is granted to everybody, and does nothing for another.
            let request = LogoutRequest { refresh_token: victim.refresh_token.clone() };
            return (request.encode_to_vec(), Outcome(Code::Ok, String::new()));
        }
        Rpc::ChangePassword => {
            let (current_password, new_password) = (PASSWORD.to_owned(), "battery staple".to_owned());
            let request =
                ChangePasswordRequest { user_id, current_password, new_password, refresh_token: String::new() };
            request.encode_to_vec()
        }
        Rpc::GetJwks => GetJwksRequest {}.encode_to_vec(),
        Rpc::CreateOrder => order_for(&user_id).encode_to_vec(),
        Rpc::GetOrder => GetOrderRequest { order_id }.encode_to_vec(),
        Rpc::UpdateOrder => {
            let etag = victim.order.etag.clone();
            let items = order_for(&user_id).items;
            UpdateOrderRequest { order_id, etag, items, ..UpdateOrderRequest::default() }.encode_to_vec()
        }
        Rpc::CancelOrder => CancelOrderRequest { order_id }.encode_to_vec(),
        Rpc::DeleteOrder => DeleteOrderRequest { order_id }.encode_to_vec(),
        Rpc::ListOrders => ListOrdersRequest { user_id, ..ListOrdersRequest::default() }.encode_to_vec(),
    };
    (message, not_found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authz_matrix() {
    let world = World::begin().await;
    let (mut calls, mut faults) = (0, Vec::new());
    for &rpc in Rpc::ALL {
        // One to whom nothing was done may stand for the next.
        let mut spared = None;
        for (who, way) in EVERYBODY.into_iter().flat_map(|who| [(who, Way::Straight), (who, Way::Gateway)]) {
            let victim = match spared.take() {
                Some(victim) => victim,
                None => world.victim().await,
            };
            let before = world.now(&victim).await;
            let (message, to_others) = case(rpc, &victim);
            let answer = world.call(way, rpc, message, world.token(who, &victim)).await;
            let (outcome, expected) = (Outcome::of(&answer), expected(rpc, who, to_others));
            if outcome != expected {
                faults.push(format!("{rpc:?} by {who:?} ({way:?}): {outcome:?}, not {expected:?}"));
            }
            if expected.0 != Code::Ok {
                if world.now(&victim).await != before {
                    faults.push(format!("{rpc:?} by {who:?} ({way:?}) was refused, and changed something"));
                }
                spared = Some(victim);
            }
            calls += 1;
        }
    }
    assert_eq!(calls, 2 * Rpc::ALL.len() * EVERYBODY.len());
    assert!(faults.is_empty(), "{} of {calls} calls:\n{}", faults.len(), faults.join("\n"));
    println!("{calls} calls: {} methods by {} callers in 2 ways", Rpc::ALL.len(), EVERYBODY.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_moves_no_status_and_ends_no_other_login() {
    let world = World::begin().await;
    let victim = world.victim().await;
    let pay = UpdateOrderRequest {
        order_id: victim.order.order_id.clone(),
        etag: victim.order.etag.clone(),
        status: OrderStatus::Paid.into(),
        ..UpdateOrderRequest::default()
    };
    let pay = async |who| {
        Outcome::of(&world.call(Way::Straight, Rpc::UpdateOrder, pay.encode_to_vec(), world.token(who, &victim)).await)
    };
    let needs_admin = Outcome(Code::PermissionDenied, "ROLE_REQUIRED".to_owned());
    assert_eq!(pay(Owner).await, needs_admin);
    assert_eq!(pay(OtherUser).await, needs_admin, "whosever order it is");
    assert_eq!(pay(Admin).await, Outcome(Code::Ok, String::new()));

    let refresh_token = &victim.refresh_token;
    let logout = LogoutRequest { refresh_token: refresh_token.clone() }.encode_to_vec();
    let refresh = RefreshRequest { refresh_token: refresh_token.clone() }.encode_to_vec();
    assert!(world.call(Way::Straight, Rpc::Logout, logout.clone(), world.token(OtherUser, &victim)).await.is_ok());
    assert!(
        world.call(Way::Straight, Rpc::Refresh, refresh.clone(), None).await.is_ok(),
        "another's logout is nobody's"
    );
    assert!(world.call(Way::Straight, Rpc::Logout, logout, world.token(Owner, &victim)).await.is_ok());
    let ended = Outcome::of(&world.call(Way::Straight, Rpc::Refresh, refresh, None).await);
    assert_eq!(ended.0, Code::Unauthenticated, "{ended:?}");
}

/// Messages as the bytes they are.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; bytes::Buf::remaining(buffer)];
        bytes::Buf::copy_to_slice(buffer, &mut message);
        Ok(Some(message))
    }
}
