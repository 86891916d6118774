//! Logins from their beginning to their end.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use mesh_api::access::Role;
use mesh_api::shop::user::v1::user_service_server::UserService as _;
use mesh_api::shop::user::v1::{
    ChangePasswordRequest, GetJwksRequest, LoginRequest, LoginResponse, LogoutRequest, RefreshRequest,
};
use mesh_runtime::auth::{
    AUDIENCE_ALL, Caller, Claims, KeySource, SigningKey, TokenError, TrustedKey, USER_ISSUER, Verifier, mint, trust,
};
use mesh_runtime::database::UnixMillis;
use tempfile::TempDir;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::{Instance, PASSWORD, ada, by, create, delete, fields, get, is_in_a_file, operator, refused};
use crate::clock::Clock;
use crate::keys::{Keys, TOKEN_LIFE};
use crate::limits;
use crate::refresh::RefreshToken;
use crate::store::{families, users};
use crate::user::Email;

const GRACE: Duration = families::EXCHANGED_KEPT;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn from(number: u32) -> SocketAddr {
    SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0000 + number), 4000))
}

pub(super) async fn login_from(
    instance: &Instance,
    address: SocketAddr,
    email: &str,
    password: &str,
) -> Result<LoginResponse, Status> {
    let mut request = Request::new(LoginRequest { email: email.into(), password: password.into() });
    let info = TcpConnectInfo { local_addr: None, remote_addr: Some(address) };
    request.extensions_mut().insert(info);
    instance.users.login(request).await.map(|response| response.into_inner())
}

async fn login(instance: &Instance, password: &str) -> Result<LoginResponse, Status> {
    login_from(instance, from(1), "ada@example.com", password).await
}

async fn refresh(instance: &Instance, refresh_token: &str) -> Result<String, Status> {
    let request = RefreshRequest { refresh_token: refresh_token.into() };
    instance.users.refresh(Request::new(request)).await.map(|response| response.into_inner().refresh_token)
}

async fn logout(instance: &Instance, caller: &Caller, refresh_token: &str) -> Result<(), Status> {
    let request = LogoutRequest { refresh_token: refresh_token.into() };
    instance.users.logout(by(caller, request)).await.map(drop)
}

fn password_change(user_id: &str, current: &str, new: &str, refresh_token: &str) -> ChangePasswordRequest {
    ChangePasswordRequest {
        user_id: user_id.into(),
        current_password: current.into(),
        new_password: new.into(),
        refresh_token: refresh_token.into(),
    }
}

async fn change_password(
    instance: &Instance,
    user_id: &str,
    passwords: [&str; 2],
    refresh_token: &str,
) -> Result<(), Status> {
    let [current, new] = passwords;
    let request = password_change(user_id, current, new, refresh_token);
    instance.users.change_password(operator(request)).await.map(drop)
}

/// Two instances with one clock on one database, and an account.
async fn two(folder: &TempDir) -> ([Instance; 2], String) {
    let clock = Clock::start();
    let instances = [Instance::start(folder, &clock).await, Instance::start(folder, &clock).await];
    let user = create(&instances[0].users, ada("1")).await.unwrap();
    (instances, user.user_id)
}

async fn rows(instance: &Instance, query: &'static str) -> i64 {
    let mut read = instance.database.read().await.unwrap();
    sqlx::query_scalar(query).fetch_one(read.connection()).await.unwrap()
}

fn invalid() -> (Code, String) {
    (Code::Unauthenticated, "REFRESH_TOKEN_INVALID".into())
}

fn reused() -> (Code, String) {
    (Code::Unauthenticated, "REFRESH_TOKEN_REUSED".into())
}

fn wrong() -> (Code, String) {
    (Code::Unauthenticated, "CREDENTIALS_INVALID".into())
}

#[tokio::test]
async fn a_login_gives_a_token_that_every_service_believes() {
    let folder = TempDir::new().unwrap();
    let ([first, second], user_id) = two(&folder).await;
    let granted = login_from(&first, from(1), "ADA@example.com", PASSWORD).await.unwrap();
    assert_eq!(granted.user, Some(get(&second.users, &user_id).await.unwrap()));
    assert_eq!((granted.token_type.as_str(), granted.expires_in.unwrap().seconds), ("Bearer", 900));
    let caller = second.verifier().verify(&granted.access_token).await.unwrap();
    assert_eq!((caller.role(), caller.subject(), caller.issuer()), (Role::User, user_id.as_str(), "user-svc"));
    assert_eq!(caller.owner(), Some(user_id.parse().unwrap()));
    assert_eq!(fields(login_from(&first, from(1), "ada", "x").await), ["email", "password"]);
}

#[tokio::test]
async fn nobody_learns_who_has_an_account() {
    let folder = TempDir::new().unwrap();
    let ([first, second], _) = two(&folder).await;
    let begun = |instance: &Instance| instance.passwords.counts.begun.load(Relaxed);
    let before = (begun(&first), begun(&second));
    let known = login(&first, "battery staple").await.unwrap_err();
    let unknown = login_from(&second, from(1), "grace@example.com", "battery staple").await.unwrap_err();
    assert_eq!(
        (known.code(), known.message(), known.details()),
        (unknown.code(), unknown.message(), unknown.details())
    );
    assert_eq!(refused::<()>(Err(known)), wrong());
    assert_eq!((begun(&first) - before.0, begun(&second) - before.1), (1, 1), "one hash each");
    // And a deleted account is one that never was.
    let users = &first.users;
    let user_id = login(&first, PASSWORD).await.unwrap().user.unwrap().user_id;
    delete(users, &user_id).await.unwrap();
    let before = begun(&first);
    assert_eq!(refused(login(&first, PASSWORD).await), wrong());
    assert_eq!(begun(&first) - before, 1);
}

#[tokio::test]
async fn an_exchanged_token_gives_the_same_next_one_for_30_seconds_and_then_ends_its_family() {
    let folder = TempDir::new().unwrap();
    let ([first, second], _) = two(&folder).await;
    let begun = login(&first, PASSWORD).await.unwrap().refresh_token;
    let next = refresh(&first, &begun).await.unwrap();
    assert_ne!(next, begun);
    for instance in [&first, &second] {
        assert_eq!(refresh(instance, &begun).await.unwrap(), next);
    }
    // Also when the next one has been exchanged meanwhile.
    let third = refresh(&second, &next).await.unwrap();
    assert_eq!(refresh(&first, &begun).await.unwrap(), next);
    assert_eq!(refresh(&first, &next).await.unwrap(), third);

    first.clock.advance(GRACE + Duration::from_secs(1));
    let other = login(&first, PASSWORD).await.unwrap().refresh_token;
    assert_eq!(refused(refresh(&second, &begun).await), reused());
    for ended in [&begun, &next, &third] {
        assert_eq!(refused(refresh(&first, ended).await), invalid());
    }
    refresh(&first, &other).await.expect("another login of the same account goes on");
}

#[tokio::test]
async fn the_last_token_goes_on_after_any_pause_and_one_before_it_never() {
    let folder = TempDir::new().unwrap();
    let ([first, second], _) = two(&folder).await;
    let mut token = login(&first, PASSWORD).await.unwrap().refresh_token;
    let mut used = Vec::new();
    for _ in 0..5 {
        first.clock.advance(DAY);
        let next = refresh(&second, &token).await.unwrap();
        used.push(std::mem::replace(&mut token, next));
    }
    // Long used, long forgotten, and known all the same for what it is.
    assert_eq!(refused(refresh(&first, &used[0]).await), reused());
    assert_eq!(refused(refresh(&first, &token).await), invalid());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_makes_the_next_token_and_all_get_it() {
    let folder = TempDir::new().unwrap();
    let (instances, _) = two(&folder).await;
    let mut token = login(&instances[0], PASSWORD).await.unwrap().refresh_token;
    for _ in 0..5 {
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let (instance, token) = (instances[racer % 2].clone(), token.clone());
                tokio::spawn(async move { refresh(&instance, &token).await.unwrap() })
            })
            .collect();
        let mut next = Vec::new();
        for racer in racers {
            next.push(racer.await.unwrap());
        }
        next.dedup();
        assert_eq!(next.len(), 1, "{} successors of one token", next.len());
        token = next.remove(0);
    }
}

#[tokio::test]
async fn a_family_is_exchanged_eight_times_in_30_seconds_and_lives_for_30_days() {
    let folder = TempDir::new().unwrap();
    let ([first, _], _) = two(&folder).await;
    let mut token = login(&first, PASSWORD).await.unwrap().refresh_token;
    for _ in 0..8 {
        token = refresh(&first, &token).await.unwrap();
    }
    let status = refresh(&first, &token).await.unwrap_err();
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(wait, GRACE);
    assert_eq!(refused::<()>(Err(status)), (Code::ResourceExhausted, "REFRESH_TOO_OFTEN".into()));
    first.clock.advance(wait);
    for _ in 0..29 {
        token = refresh(&first, &token).await.unwrap();
        first.clock.advance(DAY);
    }
    assert_eq!(rows(&first, "SELECT COUNT(*) FROM exchanged_tokens").await, 1, "what is over is forgotten");
    token = refresh(&first, &token).await.unwrap();
    first.clock.advance(DAY);
    assert_eq!(refused(refresh(&first, &token).await), invalid());
    login(&first, PASSWORD).await.unwrap();
    assert_eq!(rows(&first, "SELECT COUNT(*) FROM families").await, 1, "a login clears away what has ended");
}

#[tokio::test]
async fn an_account_keeps_the_logins_that_were_used_last() {
    let folder = TempDir::new().unwrap();
    let ([first, second], _) = two(&folder).await;
    let oldest = login(&first, PASSWORD).await.unwrap().refresh_token;
    first.clock.advance(Duration::from_secs(1));
    let unused = login(&first, PASSWORD).await.unwrap().refresh_token;
    first.clock.advance(Duration::from_secs(1));
    let oldest = refresh(&first, &oldest).await.unwrap();
    for _ in 0..families::OF_ONE_USER_MAX - 1 {
        first.clock.advance(Duration::from_secs(1));
        login(&second, PASSWORD).await.unwrap();
    }
    assert_eq!(rows(&first, "SELECT COUNT(*) FROM families").await, families::OF_ONE_USER_MAX);
    assert_eq!(refused(refresh(&first, &unused).await), invalid());
    refresh(&first, &oldest).await.unwrap();
}

#[tokio::test]
async fn a_logout_ends_one_family_and_tells_nothing() {
    let folder = TempDir::new().unwrap();
    let ([first, second], _) = two(&folder).await;
    let grace = super::CreateUserRequest { email: "grace@example.com".into(), ..ada("2") };
    create(&first.users, grace).await.unwrap();
    let grace = login_from(&first, from(2), "grace@example.com", PASSWORD).await.unwrap();
    let verifier = first.verifier();
    let grace = verifier.verify(&grace.access_token).await.unwrap();

    let [here, there] = [login(&first, PASSWORD).await.unwrap(), login(&first, PASSWORD).await.unwrap()];
    let ada = verifier.verify(&here.access_token).await.unwrap();
    logout(&second, &grace, &here.refresh_token).await.unwrap();
    let used = here.refresh_token;
    let here = refresh(&second, &used).await.expect("nobody ends another's login");
    for token in [&used, &here, "nonsense"] {
        logout(&second, &ada, token).await.unwrap();
        assert_eq!(
            refused(refresh(&first, &here).await),
            invalid(),
            "any token of the family ends it, once and for all"
        );
    }
    let there = refresh(&first, &there.refresh_token).await.unwrap();
    logout(&first, &Caller::operator(), &there).await.unwrap();
    assert_eq!(refused(refresh(&second, &there).await), invalid());
    assert_eq!(fields(logout(&first, &ada, "").await), ["refresh_token"]);
    assert_eq!(fields(refresh(&first, &"x".repeat(129)).await), ["refresh_token"]);
    assert_eq!(refused(refresh(&first, "nonsense").await), invalid());
}

#[tokio::test]
async fn a_changed_password_ends_every_other_login() {
    let folder = TempDir::new().unwrap();
    let ([first, second], user_id) = two(&folder).await;
    let [kept, other] = [login(&first, PASSWORD).await.unwrap(), login(&first, PASSWORD).await.unwrap()];
    let passwords = [PASSWORD, "battery staple"];
    assert_eq!(refused(change_password(&first, &user_id, ["wrong horse", "battery staple"], "").await), wrong());
    change_password(&first, &user_id, passwords, &kept.refresh_token).await.unwrap();
    assert_eq!(refused(refresh(&second, &other.refresh_token).await), invalid());
    let kept = refresh(&second, &kept.refresh_token).await.unwrap();
    assert_eq!(refused(login(&second, PASSWORD).await), wrong());
    let later = login(&second, "battery staple").await.unwrap().refresh_token;
    // A repeat that comes late changes nothing, and ends nothing that began since.
    change_password(&second, &user_id, passwords, "").await.unwrap();
    refresh(&first, &later).await.unwrap();
    // Without a family to keep, all end. So they do where the token is not the last of its family.
    let used = kept.clone();
    let kept = refresh(&first, &kept).await.unwrap();
    change_password(&first, &user_id, ["battery staple", PASSWORD], &used).await.unwrap();
    assert_eq!(refused(refresh(&first, &kept).await), invalid());
    let missing = password_change("", "", "", &"x".repeat(129));
    let missing = first.users.change_password(operator(missing)).await;
    assert_eq!(fields(missing), ["user_id", "current_password", "new_password", "refresh_token"]);
    let nobody = "0199a7d0-0000-7000-8000-000000000000";
    assert_eq!(refused(change_password(&first, nobody, passwords, "").await), (Code::NotFound, "NOT_FOUND".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twins_of_one_change_both_succeed_and_of_two_changes_one() {
    let folder = TempDir::new().unwrap();
    let (instances, user_id) = two(&folder).await;
    let change = |instance: &Instance, passwords: [&'static str; 2]| {
        let (instance, user_id) = (instance.clone(), user_id.clone());
        tokio::spawn(async move { change_password(&instance, &user_id, passwords, "").await })
    };
    let twins = instances.each_ref().map(|instance| change(instance, [PASSWORD, "battery staple"]));
    for twin in twins {
        twin.await.unwrap().unwrap();
    }
    let [first, second] = &instances;
    let rivals = [change(first, ["battery staple", "first horse"]), change(second, ["battery staple", "second horse"])];
    let mut won = 0;
    for rival in rivals {
        match rival.await.unwrap() {
            Ok(()) => won += 1,
            lost => assert_eq!(refused(lost), wrong()),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn no_login_begins_with_a_password_that_was_changed_while_it_was_checked() {
    let folder = TempDir::new().unwrap();
    let ([first, _], user_id) = two(&folder).await;
    let email = Email::parse("ada@example.com").unwrap();
    let found = users::find_by_email(first.database.read().await.unwrap().connection(), &email).await.unwrap();
    let (user, checked) = found.unwrap();
    change_password(&first, &user_id, [PASSWORD, "battery staple"], "").await.unwrap();
    let mut write = first.database.write().await.unwrap();
    let token = RefreshToken::draw();
    let now = first.database.now();
    assert!(!families::begin(write.connection(), &token, user.id, &checked, now).await.unwrap());
    drop(write);
    assert_eq!(rows(&first, "SELECT COUNT(*) FROM families").await, 0);
}

#[tokio::test]
async fn a_deleted_account_takes_its_logins_along() {
    let folder = TempDir::new().unwrap();
    let ([first, second], user_id) = two(&folder).await;
    let token = login(&first, PASSWORD).await.unwrap().refresh_token;
    let token = refresh(&first, &token).await.unwrap();
    delete(&second.users, &user_id).await.unwrap();
    assert_eq!(refused(refresh(&first, &token).await), invalid());
    for table in ["SELECT COUNT(*) FROM families", "SELECT COUNT(*) FROM exchanged_tokens"] {
        assert_eq!(rows(&first, table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn the_eleventh_guess_waits_at_the_door_and_a_success_ends_the_counting() {
    let folder = TempDir::new().unwrap();
    let ([first, _], user_id) = two(&folder).await;
    // An account that somebody has, and one that nobody has.
    for (email, address) in [("ada@example.com", 100), ("grace@example.com", 200)] {
        for round in 0..limits::FREE {
            let guess = login_from(&first, from(address + round), email, "battery staple").await;
            assert_eq!(refused(guess), wrong());
        }
        let before = first.passwords.counts.begun.load(Relaxed);
        let status = login_from(&first, from(99), email, PASSWORD).await.unwrap_err();
        assert_eq!(first.passwords.counts.begun.load(Relaxed), before, "no hash is spent on it");
        let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(!wait.is_zero() && wait <= limits::DELAY_MAX, "{wait:?}");
        assert_eq!(refused::<()>(Err(status)), (Code::ResourceExhausted, "LOGIN_TOO_OFTEN".into()));
    }
    // The way by another door is no way.
    let status = change_password(&first, &user_id, ["battery staple", "other horse"], "").await.unwrap_err();
    assert_eq!(refused::<()>(Err(status)), (Code::ResourceExhausted, "LOGIN_TOO_OFTEN".into()));
    first.clock.advance(limits::DELAY_MAX);
    login_from(&first, from(99), "ada@example.com", PASSWORD).await.expect("nothing is locked for good");
    for round in 0..limits::FREE {
        let guess = login_from(&first, from(300 + round), "ada@example.com", "battery staple").await;
        assert_eq!(refused(guess), wrong());
    }
}

#[tokio::test]
async fn an_address_is_believed_from_a_program_of_the_mesh_only() {
    let folder = TempDir::new().unwrap();
    let ([first, _], _) = two(&folder).await;
    let trusted = folder.path().join("trusted.json");
    let key = SigningKey::generate().unwrap();
    let roles = vec!["service".to_owned(), "admin".to_owned()];
    trust(&trusted, TrustedKey { key: key.public_jwk().clone(), iss: "gateway".into(), roles }).unwrap();
    let verifier = Verifier::start("user-svc", &[trusted], KeySource::none()).unwrap();
    let mut instance = first.clone();
    instance.users.verifier = Some(verifier);
    let token = |role| {
        let now = mesh_runtime::clock::wall();
        mint(&key, &Claims::new("gateway", role, "gateway", ["user-svc"], now, Duration::from_secs(60)))
    };
    let (service, admin) = (token(Role::Service), token(Role::Admin));
    let guess = async |number: u32, credential: Option<String>| {
        let email = format!("user{number}@example.com");
        let mut request = Request::new(LoginRequest { email, password: "battery staple".into() });
        request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr: Some(from(1)) });
        let metadata = request.metadata_mut();
        metadata.insert("x-mesh-client-address", from(number).ip().to_string().parse().unwrap());
        if let Some(credential) = credential {
            metadata.insert("x-mesh-service-authorization", format!("Bearer {credential}").parse().unwrap());
        }
        refused(instance.users.login(request).await)
    };
    for number in 10..10 + 3 * limits::FREE {
        assert_eq!(guess(number, Some(service.expose().to_owned())).await, wrong());
    }
    let others = [None, Some("nonsense".to_owned()), Some(admin.expose().to_owned())];
    for (number, credential) in (100..).zip(others.iter().cycle().take(limits::FREE as usize)) {
        assert_eq!(guess(number, credential.clone()).await, wrong());
    }
    for (number, credential) in (200..).zip(others) {
        assert_eq!(guess(number, credential).await, (Code::ResourceExhausted, "LOGIN_TOO_OFTEN".into()));
    }
}

#[tokio::test]
async fn the_keys_of_all_instances_are_listed_until_their_last_token_has_expired() {
    let folder = TempDir::new().unwrap();
    let clock = Clock::start();
    let gone = Instance::start(&folder, &clock).await;
    create(&gone.users, ada("1")).await.unwrap();
    let living = Instance::start(&folder, &clock).await;
    let tokens = [login(&gone, PASSWORD).await.unwrap(), login(&living, PASSWORD).await.unwrap()];
    let listed = async |instance: &Instance| {
        let keys = instance.users.get_jwks(Request::new(GetJwksRequest {})).await.unwrap().into_inner().keys;
        for key in &keys {
            let members = [&key.kty, &key.crv, &key.alg, &key.r#use].map(String::as_str);
            assert_eq!(members, ["OKP", "Ed25519", "EdDSA", "sig"]);
            assert!(key.kid.len() == 43 && key.x.len() == 43, "{key:?}");
        }
        keys.len()
    };
    assert_eq!((listed(&gone).await, listed(&living).await), (2, 2));
    drop(gone);
    for token in &tokens {
        living.verifier().verify(&token.access_token).await.unwrap();
    }
    // A quarter of an hour and the leeway of the clocks later no token of it holds; until then it is there.
    clock.advance(TOKEN_LIFE + Duration::from_secs(30));
    living.keys.renew(&living.database).await;
    assert_eq!(listed(&living).await, 2);
    for _ in 0..6 {
        clock.advance(Duration::from_secs(600));
        living.keys.renew(&living.database).await;
    }
    assert_eq!(listed(&living).await, 1);
    assert_eq!(rows(&living, "SELECT COUNT(*) FROM signing_keys").await, 1, "what has ended is cleared away");
    // Also without renewal: a token is made only when its key is listed for longer.
    clock.advance(DAY);
    assert_eq!(listed(&living).await, 0);
    login(&living, PASSWORD).await.unwrap();
    let end = UnixMillis(rows(&living, "SELECT MAX(ends_at_ms) FROM signing_keys").await);
    assert!(end > UnixMillis::from(clock.wall() + TOKEN_LIFE + Duration::from_secs(60)));
}

#[tokio::test]
async fn each_instance_has_a_key_file_of_its_own_and_has_it_again() {
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("new/user.db");
    let beside = || Keys::beside(&database, Clock::start()).unwrap();
    let token = |keys: &Keys| keys.access_token(uuid::Uuid::nil());
    let header = |keys: &Keys| token(keys).expose().split('.').next().unwrap().to_owned();
    let [first, second] = [beside(), beside()];
    let headers = [header(&first), header(&second)];
    assert_ne!(headers[0], headers[1], "the header names the key");
    drop(first);
    assert_eq!(header(&beside()), headers[0], "free again, and used again");
    assert_eq!(header(&second), headers[1]);
    let named = folder.path().join("named.pem");
    let named = || Keys::of_file(&named, Clock::start()).unwrap();
    assert_eq!(header(&named()), header(&named()));
    std::fs::write(folder.path().join("broken.pem"), "nonsense").unwrap();
    assert!(Keys::of_file(&folder.path().join("broken.pem"), Clock::start()).is_err());
}

#[tokio::test]
async fn a_token_that_nobody_here_signed_is_nobodys() {
    let folder = TempDir::new().unwrap();
    let ([first, _], user_id) = two(&folder).await;
    login(&first, PASSWORD).await.unwrap();
    let key = SigningKey::generate().unwrap();
    let now = mesh_runtime::clock::wall();
    let forged = mint(&key, &Claims::new(USER_ISSUER, Role::User, &user_id, [AUDIENCE_ALL], now, TOKEN_LIFE));
    assert_eq!(first.verifier().verify(forged.expose()).await, Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn no_token_and_no_key_stands_in_a_file_of_the_database() {
    let folder = TempDir::new().unwrap();
    let ([first, _], _) = two(&folder).await;
    let granted = login(&first, PASSWORD).await.unwrap();
    let next = refresh(&first, &granted.refresh_token).await.unwrap();
    for token in [&granted.refresh_token, &next] {
        // Neither its text nor its bytes, of which those after the family's name prove it.
        let body = token.strip_prefix("mesh_rt_").unwrap();
        let bytes = <base64ct::Base64UrlUnpadded as base64ct::Encoding>::decode_vec(body).unwrap();
        assert!(!is_in_a_file(&folder, body.as_bytes()) && !is_in_a_file(&folder, &bytes[16..]));
        assert!(is_in_a_file(&folder, &bytes[..16]), "the test would find it");
    }
    assert!(!is_in_a_file(&folder, granted.access_token.as_bytes()));
    let debug = format!("{granted:?}");
    assert!(!debug.contains(&granted.refresh_token) && !debug.contains(&granted.access_token), "{debug}");
}

#[test]
fn nobody_repeats_a_login_or_an_exchange_unasked() {
    use prost::Message as _;
    use prost_types::method_options::IdempotencyLevel;

    let set = prost_types::FileDescriptorSet::decode(mesh_api::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().filter(|file| file.package() == "shop.user.v1").flat_map(|file| &file.service);
    let level = |method: &prost_types::MethodDescriptorProto| {
        method.options.as_ref().map_or(IdempotencyLevel::IdempotencyUnknown, |options| options.idempotency_level())
    };
    let undeclared: Vec<_> = services
        .flat_map(|service| &service.method)
        .filter(|method| level(method) == IdempotencyLevel::IdempotencyUnknown)
        .map(|method| method.name())
        .collect();
    // What a client does with such a method: it is sent again only where no server has begun it.
    assert_eq!(undeclared, ["Login", "Refresh"]);
}
