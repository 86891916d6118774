//! What is secret stays where it belongs (T52): passwords, tokens and private keys go through every flow, good and bad, and are
//! then looked for in everything that the mesh says and keeps.

mod harness;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use harness::{LONG, Story, folder, http_get, operator_token, plan};
use mesh_api::shop::order::v1::order_service_client::OrderServiceClient;
use mesh_api::shop::order::v1::{CreateOrderRequest, GetOrderRequest, ListOrdersRequest, Money, OrderItem};
use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use mesh_api::shop::user::v1::{
    ChangePasswordRequest, CreateUserRequest, GetUserRequest, ListUsersRequest, LoginRequest, LogoutRequest,
    RefreshRequest, UpdateUserRequest,
};
use mesh_client::MeshChannel;
use mesh_runtime::entropy;
use meshctl::{Bearer, Listen, LocalMeshPlan, Member, Program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

/// Something that nobody may read, and what it is.
struct Canary {
    name: String,
    forms: Vec<String>,
}

/// All of them.
#[derive(Default)]
struct Canaries(Vec<Canary>);

impl Canaries {
    /// Looks for these bytes as they are, and as they are written where bytes become text: in base64 at each of its three
    /// alignments, in hexadecimal digits, and as a list of numbers.
    fn add(&mut self, name: &str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        assert!(secret.len() >= 12, "{name} is long enough to be found by nothing but itself");
        let mut forms = vec![text_of(secret)];
        for from in 0..3 {
            let whole = (secret.len() - from) / 3 * 3;
            let part = &secret[from..from + whole];
            forms.extend([BASE64_STANDARD.encode(part), BASE64_URL_SAFE_NO_PAD.encode(part)]);
        }
        let joined =
            |format: fn(&u8) -> String, between: &str| secret.iter().map(format).collect::<Vec<_>>().join(between);
        forms.push(joined(|byte| format!("{byte:02x}"), ""));
        forms.push(joined(|byte| format!("{byte:02X}"), ""));
        forms.push(joined(u8::to_string, ", "));
        self.0.push(Canary { name: name.to_owned(), forms });
    }

    /// An access token: whoever has all but the signature has nothing.
    fn add_token(&mut self, name: &str, token: &str) {
        self.add(name, token.rsplit('.').next().expect("a token has parts"));
    }

    /// The seed of a private key: the last 32 bytes of the Ed25519 document.
    fn add_key(&mut self, file: &Path) {
        let pem = fs::read_to_string(file).expect("a key can be read");
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let document = BASE64_STANDARD.decode(body).expect("PEM is base64");
        let at = document.windows(4).position(|tag| tag == [0x04, 0x22, 0x04, 0x20]).expect("it holds a seed") + 4;
        self.add(&format!("the private key {}", file.display()), &document[at..at + 32]);
    }

    /// Those that are in a text.
    fn found_in(&self, text: &[u8]) -> Vec<&str> {
        let text = text_of(text);
        let found = self.0.iter().filter(|canary| canary.forms.iter().any(|form| text.contains(form)));
        found.map(|canary| canary.name.as_str()).collect()
    }
}

/// Any bytes as text, a character for each: text is what can be searched fast.
fn text_of(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// What was said or kept, and where.
#[derive(Default)]
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    fn add(&mut self, place: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((place.into(), text.into()));
    }

    /// A refusal: everything that a caller can make of it.
    fn refused<T>(&mut self, flow: &str, code: Code, answer: Result<Response<T>, Status>) {
        let status = answer.map(|_| ()).expect_err(flow);
        assert_eq!(status.code(), code, "{flow}: {status:?}");
        self.add(flow, format!("{status} {status:?} {:?}", status.get_error_details()));
        self.add(flow, status.details());
    }

    /// What an answer's text is, for whoever logs it.
    fn shown(&mut self, flow: &str, message: &impl std::fmt::Debug) {
        self.add(format!("Debug of {flow}"), format!("{message:?}"));
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it can be listed").map(|entry| entry.expect("it can be listed").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A request of whoever has this token.
fn by<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    Bearer::new(token).expect("it can be sent").attach(&mut request);
    request
}

/// A request whose header is as given, and nobody says that it is secret.
fn with_header<M>(value: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", value.parse().expect("it can be sent"));
    request
}

fn an_id() -> String {
    entropy::uuid_v4().to_string()
}

/// Everything that can be done with an account, and much that cannot.
struct Flows<'a> {
    users: UserServiceClient<MeshChannel>,
    orders: OrderServiceClient<MeshChannel>,
    canaries: &'a mut Canaries,
    said: &'a mut Said,
}

const PASSWORD: &str = "canary first staple 58e1";
const NEXT_PASSWORD: &str = "canary second staple 91c7";
const WRONG_PASSWORD: &str = "canary wrong staple 20b4";
const EMAIL: &str = "ada@secrets.test";

impl Flows<'_> {
    async fn all(&mut self) {
        let user_id = self.register().await;
        let (access, refresh) = self.log_in().await;
        self.call(&user_id, &access).await;
        let refresh = self.refresh(&refresh).await;
        self.change_password(&user_id, &access, &refresh).await;
        self.log_out(&access, &refresh).await;
    }

    async fn register(&mut self) -> String {
        self.canaries.add("a password", PASSWORD);
        self.canaries.add("the next password", NEXT_PASSWORD);
        self.canaries.add("a wrong password", WRONG_PASSWORD);
        let create = CreateUserRequest {
            request_id: an_id(),
            email: EMAIL.to_owned(),
            display_name: "Ada".to_owned(),
            password: PASSWORD.to_owned(),
        };
        self.said.shown("CreateUserRequest", &create);
        let created = self.users.create_user(create.clone()).await.expect("she is created").into_inner();
        self.said.shown("CreateUserResponse", &created);
        let reused = CreateUserRequest { password: WRONG_PASSWORD.to_owned(), ..create.clone() };
        let answer = self.users.create_user(reused).await;
        self.said.refused("CreateUser, its id used again", Code::AlreadyExists, answer);
        let taken = CreateUserRequest { request_id: an_id(), ..create.clone() };
        let answer = self.users.create_user(taken).await;
        self.said.refused("CreateUser, its address taken", Code::AlreadyExists, answer);
        let long = CreateUserRequest { request_id: an_id(), password: PASSWORD.repeat(8), ..create };
        let answer = self.users.create_user(long).await;
        self.said.refused("CreateUser, too long a password", Code::InvalidArgument, answer);
        created.user.expect("the answer holds her").user_id
    }

    async fn log_in(&mut self) -> (String, String) {
        let right = LoginRequest { email: EMAIL.to_owned(), password: PASSWORD.to_owned() };
        for (flow, code, wrong) in [
            (
                "Login, a wrong password",
                Code::Unauthenticated,
                LoginRequest { password: WRONG_PASSWORD.to_owned(), ..right.clone() },
            ),
            (
                "Login, an unknown address",
                Code::Unauthenticated,
                LoginRequest { email: "eve@secrets.test".to_owned(), ..right.clone() },
            ),
            (
                "Login, too long a password",
                Code::InvalidArgument,
                LoginRequest { password: PASSWORD.repeat(8), ..right.clone() },
            ),
        ] {
            self.said.shown("LoginRequest", &wrong);
            let answer = self.users.login(wrong).await;
            self.said.refused(flow, code, answer);
        }
        let pair = self.users.login(right).await.expect("she logs in").into_inner();
        self.said.shown("LoginResponse", &pair);
        self.canaries.add_token("an access token", &pair.access_token);
        self.canaries.add("a refresh token", &pair.refresh_token);
        (pair.access_token, pair.refresh_token)
    }

    /// With tokens that are good, for this or not for this, and with some that are not.
    async fn call(&mut self, user_id: &str, access: &str) {
        let get = GetUserRequest { user_id: user_id.to_owned() };
        let request = by(access, get.clone());
        self.said.shown("a request with a token", &request);
        let user = self.users.get_user(request).await.expect("it is her account").into_inner().user;
        let etag = user.expect("the answer holds her").etag;
        let change = UpdateUserRequest {
            user_id: user_id.to_owned(),
            display_name: Some("Countess".to_owned()),
            etag,
            ..Default::default()
        };
        self.users.update_user(by(access, change.clone())).await.expect("it is her name");
        let stale = UpdateUserRequest { etag: "older".to_owned(), ..change };
        let answer = self.users.update_user(by(access, stale)).await;
        self.said.refused("UpdateUser, a stale etag", Code::Aborted, answer);
        let answer = self.users.list_users(by(access, ListUsersRequest::default())).await;
        self.said.refused("ListUsers, by a user", Code::PermissionDenied, answer);
        let nobody = GetUserRequest { user_id: an_id() };
        let answer = self.users.get_user(by(access, nobody)).await;
        self.said.refused("GetUser of somebody else", Code::NotFound, answer);
        let basic = BASE64_STANDARD.encode(format!("{EMAIL}:{PASSWORD}"));
        let halved = &access[..access.len() - 10];
        for (flow, header) in [
            ("a token and more", format!("Bearer {access}x")),
            ("two tokens", format!("Bearer {access} {access}")),
            ("a token without its end", format!("Bearer {halved}")),
            ("a token without its scheme", access.to_owned()),
            ("a password for a token", format!("Bearer {}", PASSWORD.replace(' ', "-"))),
            ("another scheme", format!("Basic {basic}")),
        ] {
            let answer = self.users.get_user(with_header(&header, get.clone())).await;
            self.said.refused(&format!("GetUser, {flow}"), Code::Unauthenticated, answer);
            let list = ListOrdersRequest { user_id: user_id.to_owned(), ..Default::default() };
            let answer = self.orders.list_orders(with_header(&header, list)).await;
            self.said.refused(&format!("ListOrders, {flow}"), Code::Unauthenticated, answer);
        }
        let unit_price = Some(Money { currency_code: "EUR".to_owned(), units: 4, nanos: 0 });
        let items = vec![OrderItem { sku: "tea".to_owned(), quantity: 1, unit_price }];
        let create = CreateOrderRequest { request_id: an_id(), user_id: user_id.to_owned(), items };
        self.orders.create_order(by(access, create.clone())).await.expect("she orders");
        let for_another = CreateOrderRequest { request_id: an_id(), user_id: an_id(), ..create };
        let answer = self.orders.create_order(by(access, for_another)).await;
        self.said.refused("CreateOrder for somebody else", Code::NotFound, answer);
        let answer = self.orders.get_order(by(access, GetOrderRequest { order_id: an_id() })).await;
        self.said.refused("GetOrder of nobody", Code::NotFound, answer);
    }

    async fn refresh(&mut self, refresh: &str) -> String {
        let request = RefreshRequest { refresh_token: refresh.to_owned() };
        self.said.shown("RefreshRequest", &request);
        let mut last = String::new();
        // Twice, as by a caller that has not heard the first answer.
        for _ in 0..2 {
            let pair = self.users.refresh(request.clone()).await.expect("it is good for the next pair").into_inner();
            self.said.shown("RefreshResponse", &pair);
            self.canaries.add_token("a later access token", &pair.access_token);
            self.canaries.add("a later refresh token", &pair.refresh_token);
            last = pair.refresh_token;
        }
        let nonsense = "canary-refresh-that-never-was-77d0";
        self.canaries.add("a refresh token that never was", nonsense);
        let answer = self.users.refresh(RefreshRequest { refresh_token: nonsense.to_owned() }).await;
        self.said.refused("Refresh, nonsense", Code::Unauthenticated, answer);
        last
    }

    async fn change_password(&mut self, user_id: &str, access: &str, refresh: &str) {
        let right = ChangePasswordRequest {
            user_id: user_id.to_owned(),
            current_password: PASSWORD.to_owned(),
            new_password: NEXT_PASSWORD.to_owned(),
            refresh_token: refresh.to_owned(),
        };
        self.said.shown("ChangePasswordRequest", &right);
        let wrong = ChangePasswordRequest { current_password: WRONG_PASSWORD.to_owned(), ..right.clone() };
        let answer = self.users.change_password(by(access, wrong)).await;
        self.said.refused("ChangePassword, a wrong password", Code::Unauthenticated, answer);
        let short = ChangePasswordRequest { new_password: "canary".to_owned(), ..right.clone() };
        let answer = self.users.change_password(by(access, short)).await;
        self.said.refused("ChangePassword, too short a password", Code::InvalidArgument, answer);
        self.users.change_password(by(access, right)).await.expect("it is her password");
    }

    async fn log_out(&mut self, access: &str, refresh: &str) {
        let request = LogoutRequest { refresh_token: refresh.to_owned() };
        self.said.shown("LogoutRequest", &request);
        self.users.logout(by(access, request)).await.expect("she logs out");
        let answer = self.users.refresh(RefreshRequest { refresh_token: refresh.to_owned() }).await;
        self.said.refused("Refresh after Logout", Code::Unauthenticated, answer);
    }
}

/// A request over HTTP, and all of its answer.
async fn http(at: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(at).await.expect("it accepts connections");
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    );
    connection.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("it answers");
    answer
}

/// The same secrets in the forms in which they come through the gateway; also where they do not belong.
async fn through_the_gateway(at: SocketAddr, canaries: &mut Canaries, said: &mut Said) {
    while !http(at, "GET", "/v1/jwks", "", "").await.starts_with("HTTP/1.1 200") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let user = |request_id: &str, password: &str| {
        format!(
            r#"{{"requestId":"{request_id}","email":"bob@secrets.test","displayName":"Bob","password":"{password}"}}"#
        )
    };
    let login = |password: &str| format!(r#"{{"email":"bob@secrets.test","password":"{password}"}}"#);
    let id = an_id();
    let answer = http(at, "POST", "/v1/users", "", &user(&id, PASSWORD)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    said.add("the gateway's answer to CreateUser", answer);
    let answer = http(at, "POST", "/v1/users:login", "", &login(PASSWORD)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body = answer.split_once("\r\n\r\n").expect("it has a body").1;
    let pair: serde_json::Value = serde_json::from_str(body).expect("it is JSON");
    let of = |name: &str| pair[name].as_str().expect("it is text").to_owned();
    let (access, refresh, user_id) =
        (of("accessToken"), of("refreshToken"), pair["user"]["userId"].as_str().expect("an id"));
    canaries.add_token("an access token through the gateway", &access);
    canaries.add("a refresh token through the gateway", &refresh);

    let bearer = format!("Authorization: Bearer {access}\r\n");
    let broken = format!("Authorization: Bearer {access}x\r\n");
    let elsewhere = format!("Cookie: token={access}\r\nX-Api-Key: {refresh}\r\n");
    let (get, query) = (format!("/v1/users/{user_id}"), format!("/v1/users/{user_id}?accessToken={access}"));
    let in_the_path = format!("/v1/users/{access}");
    let refresh_body = format!(r#"{{"refreshToken":"{refresh}"}}"#);
    let flows = [
        ("GET", get.as_str(), bearer.as_str(), String::new(), "200"),
        ("GET", &get, &broken, String::new(), "401"),
        ("GET", &get, &elsewhere, String::new(), "401"),
        ("GET", &query, &bearer, String::new(), "400"),
        ("GET", &in_the_path, &bearer, String::new(), "400"),
        ("POST", "/v1/users:login", "", login(WRONG_PASSWORD), "401"),
        ("POST", "/v1/users:login", "", login(PASSWORD) + "}", "400"),
        ("POST", "/v1/users:login", "", format!(r#"{{"email":7,"password":"{PASSWORD}"}}"#), "400"),
        ("POST", "/v1/users:login", "", format!(r#"{{"passwort":"{PASSWORD}"}}"#), "400"),
        ("POST", "/v1/users", "", user("short", PASSWORD), "400"),
        ("POST", "/v1/users", "", user(&id, WRONG_PASSWORD), "409"),
        ("PATCH", &get, &bearer, format!(r#"{{"password":"{PASSWORD}"}}"#), "400"),
        ("POST", "/v1/users:logout", &broken, refresh_body.clone(), "401"),
        ("POST", "/v1/users:logout", &bearer, refresh_body.clone(), "200"),
        ("POST", "/v1/users:refresh", "", refresh_body, "401"),
    ];
    for (method, target, headers, body, status) in flows {
        let answer = http(at, method, target, headers, &body).await;
        let flow = format!("the gateway's {status} to {method} {target:.20}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{flow}: {answer}");
        said.add(flow, answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_scan_logs() {
    let folder = folder();
    let plan = LocalMeshPlan { log_filter: Some("debug".to_owned()), ..plan(folder.path()) };
    let mut story = Story::begin_from(2, 1, plan, folder).await;
    let (mut canaries, mut said) = (Canaries::default(), Said::default());

    let (users, orders) = (story.user_channel.clone(), story.order_channel.clone());
    let (users, orders) = (UserServiceClient::new(users), OrderServiceClient::new(orders));
    Flows { users, orders, canaries: &mut canaries, said: &mut said }.all().await;

    let gateway = story.mesh.join(Program::Gateway, Listen::Free).await.expect("it starts");
    let through = through_the_gateway(gateway.process.rest(), &mut canaries, &mut said);
    tokio::time::timeout(LONG, through).await.expect("the gateway shows the services");

    // The command line, as the operator.
    let token = operator_token(&story.mesh).await;
    canaries.add_token("a token of the operator", &token);
    said.shown("Operator", &story.operator);
    let password = format!(r#"{{"email":"{EMAIL}","password":"{NEXT_PASSWORD}"}}"#);
    let ran = story.run(["call", "user-svc", "Login", &password]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    said.add("what meshctl says beside its answer", ran.stderr);
    let wrong = password.replace(NEXT_PASSWORD, WRONG_PASSWORD);
    let bad = [["ListUsers", "{"], ["ListUsers", "{}"], ["Login", &wrong], ["GetUser", r#"{"userId":"x"}"#]];
    for [method, request] in bad {
        let ran = story.run(["call", "user-svc", method, request]).await;
        said.add(format!("meshctl call {method} {request:.3}"), ran.stdout + &ran.stderr);
    }
    for place in ["/metrics", "/readyz?verbose"] {
        for member in story.users.iter().chain(&story.orders).chain([&gateway]) {
            let (_, text) = http_get(member.process.http(), place).await.expect("it answers");
            said.add(format!("{place} of {}", member.process.name()), text);
        }
        let registry = story.mesh.registry().expect("it runs").http();
        said.add(format!("{place} of the registry"), http_get(registry, place).await.expect("it answers").1);
    }

    // Their last words too.
    story.orders.push(gateway);
    for member in story.users.iter_mut().chain(&mut story.orders) {
        let Member { process, .. } = member;
        process.drain().await.expect("it drains and ends with 0");
    }
    story.mesh.drain_registry().await.expect("it drains and ends with 0");
    let kept = files(story.folder.path());
    let (keys, others): (Vec<_>, Vec<_>) =
        kept.into_iter().partition(|file| file.extension().is_some_and(|is| is == "pem"));
    assert!(keys.len() >= 5, "of the operator, of two programs and of two instances: {keys:?}");
    keys.iter().for_each(|file| canaries.add_key(file));
    for file in others {
        let text = fs::read(&file).expect("it can be read");
        let name = file.strip_prefix(story.folder.path()).expect("it is below").display().to_string();
        if name.starts_with("logs/") {
            let debugs = String::from_utf8_lossy(&text).lines().filter(|line| line.contains(" DEBUG ")).count();
            assert!(debugs >= 10, "{name} has {debugs} lines for debugging only: it is not all that could be said");
            assert!(!String::from_utf8_lossy(&text).contains("$argon2"), "{name} holds the hash of a password");
        }
        said.add(name, text);
    }

    let bytes: usize = said.0.iter().map(|(_, text)| text.len()).sum();
    let mut hits = Vec::new();
    for (place, text) in &said.0 {
        hits.extend(canaries.found_in(text).iter().map(|name| format!("{name} in {place}")));
    }
    println!("T52: {} secrets in {} places, {bytes} bytes: {} hits", canaries.0.len(), said.0.len(), hits.len());
    assert_eq!(hits, [""; 0]);
}

#[test]
fn a_canary_is_found_in_every_form_that_it_may_take() {
    let mut canaries = Canaries::default();
    let secret = b"\x00\xfe canary \x7f\xff 123";
    canaries.add("it", secret);
    for before in ["", "a", "ab", "abc"] {
        let text = [before.as_bytes(), secret, b"behind"].concat();
        let hexadecimal: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
        let texts =
            [text.clone(), BASE64_STANDARD.encode(&text).into(), hexadecimal.into(), format!("{text:?}").into_bytes()];
        for text in texts {
            assert_eq!(canaries.found_in(&text).len(), 1, "{:?}", String::from_utf8_lossy(&text));
        }
    }
    assert_eq!(canaries.found_in(b"canary").len(), 0);
}
