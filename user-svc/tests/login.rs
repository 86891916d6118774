//! Login at two processes on one database, over their sockets and with every caller asked who it is: from the first pair of
//! tokens to the end of the account.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use mesh_api::shop::user::v1::{
    ChangePasswordRequest, CreateUserRequest, DeleteUserRequest, GetJwksRequest, GetUserRequest, ListUsersRequest,
    LoginRequest, LoginResponse, LogoutRequest, RefreshRequest, RefreshResponse, User,
};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

const PASSWORD: &str = "canary horse";

/// A user-svc of its own process; killed when dropped.
struct Instance {
    process: Child,
    client: UserServiceClient<Channel>,
}

impl Instance {
    async fn start(folder: &Path, log: &Path) -> Self {
        let log = File::create(log).unwrap();
        let mut process = command(folder).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let address = ready.split_once("grpc=").unwrap().1.split(' ').next().unwrap();
        let client = UserServiceClient::connect(format!("http://{address}")).await.unwrap();
        Self { process, client }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    async fn login(&mut self, email: &str, password: &str) -> Result<LoginResponse, Status> {
        let request = LoginRequest { email: email.into(), password: password.into() };
        self.client.login(request).await.map(tonic::Response::into_inner)
    }

    async fn refresh(&mut self, token: &str) -> Result<RefreshResponse, Status> {
        let request = RefreshRequest { refresh_token: token.into() };
        self.client.refresh(request).await.map(tonic::Response::into_inner)
    }

    async fn get(&mut self, token: Option<&str>, user: &User) -> Result<User, Status> {
        let request = GetUserRequest { user_id: user.user_id.clone() };
        let answer = self.client.get_user(with(token, request)).await;
        answer.map(|response| response.into_inner().user.unwrap())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_user-svc"));
    command
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--auth", "jwt"])
        // Nobody listens on the discard port: the registry is down.
        .args(["--registry", "127.0.0.1:9", "--database", &format!("sqlite:{}/user.db", folder.display())])
        .env("RUST_LOG", "debug");
    command
}

fn with<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// Code and reason, which every refusal has.
fn refused<T>(result: Result<T, Status>) -> (Code, String) {
    let status = result.err().unwrap();
    (status.code(), status.get_details_error_info().unwrap().reason)
}

fn because(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_logs_in_goes_on_at_another_instance_and_ends() {
    let folder = TempDir::new().unwrap();
    let logs = ["first.log", "second.log"].map(|name| folder.path().join(name));
    let mut first = Instance::start(folder.path(), &logs[0]).await;
    let mut second = Instance::start(folder.path(), &logs[1]).await;
    let mut users = Vec::new();
    for name in ["ada", "grace"] {
        let request = CreateUserRequest {
            request_id: format!("request-{name:0>16}"),
            email: format!("{name}@example.com"),
            display_name: name.into(),
            password: PASSWORD.into(),
        };
        users.push(first.client.create_user(request).await.unwrap().into_inner().user.unwrap());
    }
    let [ada, grace] = users.try_into().unwrap();

    // Each takes the other's tokens, from the first call on.
    let granted = first.login("Ada@Example.com", PASSWORD).await.unwrap();
    let token = granted.access_token.as_str();
    for instance in [&mut first, &mut second] {
        assert_eq!(instance.get(Some(token), &ada).await.unwrap(), ada);
        assert_eq!(refused(instance.get(Some(token), &grace).await), because(Code::NotFound, "NOT_FOUND"));
        assert_eq!(refused(instance.get(None, &ada).await), because(Code::Unauthenticated, "TOKEN_MISSING"));
        let broken = format!("{}x", &token[..token.len() - 1]);
        assert_eq!(refused(instance.get(Some(&broken), &ada).await), because(Code::Unauthenticated, "TOKEN_INVALID"));
        let list = instance.client.list_users(with(Some(token), ListUsersRequest::default())).await;
        assert_eq!(refused(list), because(Code::PermissionDenied, "ROLE_REQUIRED"));
        assert_eq!(instance.client.get_jwks(GetJwksRequest {}).await.unwrap().into_inner().keys.len(), 2);
    }
    for name in ["1.pem", "2.pem"] {
        let key = folder.path().join("user.db.keys").join(name);
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }

    // Asked again elsewhere, the answer is the same; killed, the instance leaves tokens that hold.
    let next = first.refresh(&granted.refresh_token).await.unwrap();
    first.kill();
    let again = second.refresh(&granted.refresh_token).await.unwrap();
    assert_eq!(again.refresh_token, next.refresh_token);
    assert_eq!(second.get(Some(&next.access_token), &ada).await.unwrap(), ada);
    let token = again.access_token.as_str();

    let change = ChangePasswordRequest {
        user_id: ada.user_id.clone(),
        current_password: PASSWORD.into(),
        new_password: "second canary".into(),
        refresh_token: next.refresh_token.clone(),
    };
    second.client.change_password(with(Some(token), change)).await.unwrap();
    let wrong = because(Code::Unauthenticated, "CREDENTIALS_INVALID");
    assert_eq!(refused(second.login("ada@example.com", PASSWORD).await), wrong);
    assert_eq!(refused(second.login("nobody@example.com", PASSWORD).await), wrong);
    let last = second.refresh(&next.refresh_token).await.unwrap();
    let logout = || LogoutRequest { refresh_token: last.refresh_token.clone() };
    assert_eq!(refused(second.client.logout(logout()).await), because(Code::Unauthenticated, "TOKEN_MISSING"));
    for _ in 0..2 {
        second.client.logout(with(Some(token), logout())).await.unwrap();
    }
    let ended = because(Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
    assert_eq!(refused(second.refresh(&last.refresh_token).await), ended);

    let fresh = second.login("ada@example.com", "second canary").await.unwrap();
    let delete = DeleteUserRequest { user_id: ada.user_id.clone() };
    second.client.delete_user(with(Some(token), delete)).await.unwrap();
    assert_eq!(refused(second.refresh(&fresh.refresh_token).await), ended);
    assert_eq!(refused(second.login("ada@example.com", "second canary").await), wrong);

    // What was logged on the way, with everything turned on, holds none of it.
    second.kill();
    let logged = logs.map(|log| std::fs::read_to_string(log).unwrap()).concat();
    assert!(logged.contains("UserService/Login") && logged.contains("UserService/Refresh"), "{logged}");
    let tokens = [&granted.refresh_token, &next.refresh_token, &last.refresh_token, &granted.access_token];
    for secret in tokens.into_iter().map(String::as_str).chain([PASSWORD, "second canary", "$argon2id$"]) {
        assert!(!logged.contains(secret), "{secret} in the log");
    }
}

#[test]
fn a_key_that_others_can_read_is_refused_before_the_ready_line() {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("instance.pem");
    std::fs::write(&key, "not even a key").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = command(folder.path()).arg("--signing-key").arg(&key).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{stderr}");
    assert!(stderr.contains("instance.pem") && stderr.contains("0644"), "{stderr}");
}
