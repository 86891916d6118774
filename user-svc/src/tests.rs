//! The service as its callers meet it, over a database of its own.

mod flood;
mod logins;
mod strangers;

use std::collections::BTreeSet;

use mesh_api::shop::user::v1::user_service_server::UserService as _;
use mesh_api::shop::user::v1::{
    CreateUserRequest, DeleteUserRequest, GetUserRequest, ListUsersRequest, UpdateUserRequest, User,
};
use mesh_runtime::auth::{Caller, KeySource, Verifier};
use mesh_runtime::database::Database;
use prost_types::FieldMask;
use tempfile::TempDir;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::keys::Keys;
use crate::limits::Limits;
use crate::logins::Logins;
use crate::password::Passwords;
use crate::service::Users;
use crate::store::SCHEMA;

const PASSWORD: &str = "correct horse";

/// One instance of the service, and what a test looks at inside it.
#[derive(Clone)]
struct Instance {
    users: Users,
    clock: Clock,
    passwords: Passwords,
    database: Database,
    keys: Keys,
}

impl Instance {
    /// On the database in a folder, with a clock that others may share; two of them are two instances.
    async fn start(folder: &TempDir, clock: &Clock) -> Self {
        Self::with(folder, clock, Passwords::new()).await
    }

    async fn with(folder: &TempDir, clock: &Clock, passwords: Passwords) -> Self {
        let path = folder.path().join("user.db");
        let database = format!("sqlite:{}", path.display()).parse().unwrap();
        let database = Database::open(&database, &SCHEMA).await.unwrap();
        let keys = Keys::beside(&path, clock.clone()).unwrap();
        keys.renew(&database).await;
        let limits = Limits::new(clock.clone());
        let accounts = Accounts::new(database.clone(), passwords.clone(), limits.clone());
        let logins = Logins::new(database.clone(), passwords.clone(), keys.clone(), limits, clock.clone());
        let users = Users { accounts, logins, verifier: None };
        Self { users, clock: clock.clone(), passwords, database, keys }
    }

    /// Who verifies tokens by the keys that this instance lists.
    fn verifier(&self) -> Verifier {
        let (keys, database) = (self.keys.clone(), self.database.clone());
        let source = KeySource::new(move || {
            let (keys, database) = (keys.clone(), database.clone());
            async move { keys.list(&database).await }
        });
        Verifier::start("order-svc", &[], source).unwrap()
    }
}

async fn instance(folder: &TempDir) -> Users {
    Instance::start(folder, &Clock::start()).await.users
}

/// A request as it arrives behind the layer that asks who calls.
fn by<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

fn operator<T>(message: T) -> Request<T> {
    by(&Caller::operator(), message)
}

fn ada(request_id: &str) -> CreateUserRequest {
    CreateUserRequest {
        request_id: format!("request-{request_id:0>16}"),
        email: "ada@example.com".into(),
        display_name: "Ada".into(),
        password: PASSWORD.into(),
    }
}

async fn create(users: &Users, request: CreateUserRequest) -> Result<User, Status> {
    users.create_user(Request::new(request)).await.map(|response| response.into_inner().user.unwrap())
}

async fn get(users: &Users, user_id: &str) -> Result<User, Status> {
    let request = GetUserRequest { user_id: user_id.into() };
    users.get_user(operator(request)).await.map(|response| response.into_inner().user.unwrap())
}

async fn update(users: &Users, request: UpdateUserRequest) -> Result<User, Status> {
    users.update_user(operator(request)).await.map(|response| response.into_inner().user.unwrap())
}

async fn delete(users: &Users, user_id: &str) -> Result<(), Status> {
    users.delete_user(operator(DeleteUserRequest { user_id: user_id.into() })).await.map(drop)
}

fn rename(user: &User, name: &str) -> UpdateUserRequest {
    UpdateUserRequest {
        user_id: user.user_id.clone(),
        etag: user.etag.clone(),
        display_name: Some(name.into()),
        ..UpdateUserRequest::default()
    }
}

/// Code and reason, which every refusal has.
fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, "meshwork");
    (status.code(), info.reason)
}

fn fields<T: std::fmt::Debug>(result: Result<T, Status>) -> Vec<String> {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn an_account_is_found_as_it_was_created() {
    let folder = TempDir::new().unwrap();
    let users = instance(&folder).await;
    let created = create(&users, CreateUserRequest { email: "Ada@Example.com".into(), ..ada("1") }).await.unwrap();
    assert_eq!(created.email, "ada@example.com");
    assert_eq!(created.create_time, created.update_time);
    assert_eq!(get(&instance(&folder).await, &created.user_id).await.unwrap(), created, "from another instance");
}

#[tokio::test]
async fn every_fault_of_a_request_is_named() {
    let folder = TempDir::new().unwrap();
    let users = instance(&folder).await;
    let nothing = create(&users, CreateUserRequest::default()).await;
    assert_eq!(fields(nothing), ["request_id", "email", "display_name", "password"]);
    let long = CreateUserRequest { password: "x".repeat(129), ..ada("1") };
    let status = create(&users, long).await.unwrap_err();
    assert!(!format!("{status:?}").contains("xxxxxxxx"), "what was typed is not repeated");
    assert_eq!(fields(get(&users, "ada").await), ["user_id"]);
    assert_eq!(fields(update(&users, UpdateUserRequest::default()).await), ["user_id", "etag"]);
    let user = create(&users, ada("2")).await.unwrap();
    let nothing = UpdateUserRequest { display_name: None, ..rename(&user, "") };
    assert_eq!(fields(update(&users, nothing).await), ["update_mask"]);
    let mask = |path: &str| Some(FieldMask { paths: vec![path.into()] });
    let unknown = UpdateUserRequest { update_mask: mask("password"), ..rename(&user, "Countess") };
    assert_eq!(fields(update(&users, unknown).await), ["update_mask"]);
    let absent = UpdateUserRequest { update_mask: mask("email"), ..rename(&user, "Countess") };
    assert_eq!(fields(update(&users, absent).await), ["email"]);
    let list = ListUsersRequest { page_size: -1, page_token: "x".into() };
    assert_eq!(fields(users.list_users(operator(list)).await), ["page_size", "page_token"]);
}

#[tokio::test]
async fn a_repeated_creation_is_one_account_and_another_body_is_told_apart() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (instance(&folder).await, instance(&folder).await);
    let created = create(&first, ada("1")).await.unwrap();
    assert_eq!(create(&second, ada("1")).await.unwrap(), created);
    let reused = (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned());
    for other in [
        CreateUserRequest { email: "countess@example.com".into(), ..ada("1") },
        CreateUserRequest { display_name: "Countess".into(), ..ada("1") },
        CreateUserRequest { password: "battery staple".into(), ..ada("1") },
    ] {
        assert_eq!(refused(create(&second, other).await), reused);
    }
    // The promise outlives the account.
    delete(&first, &created.user_id).await.unwrap();
    assert_eq!(create(&second, ada("1")).await.unwrap(), created);
}

#[tokio::test]
async fn guesses_by_repeated_creation_are_limited_as_logins_are() {
    let folder = TempDir::new().unwrap();
    let users = instance(&folder).await;
    create(&users, ada("1")).await.unwrap();
    let guess = || CreateUserRequest { password: "battery staple".into(), ..ada("1") };
    for _ in 0..crate::limits::FREE {
        assert_eq!(refused(create(&users, guess()).await), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
    }
    assert_eq!(refused(create(&users, guess()).await), (Code::ResourceExhausted, "LOGIN_TOO_OFTEN".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twins_at_two_instances_one_creates() {
    let folder = TempDir::new().unwrap();
    let instances = [instance(&folder).await, instance(&folder).await];
    for round in 0..5 {
        let request = CreateUserRequest { email: format!("ada{round}@example.com"), ..ada(&round.to_string()) };
        let [first, second] = instances.clone().map(|users| {
            let request = request.clone();
            tokio::spawn(async move { create(&users, request).await })
        });
        assert_eq!(first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_email_address_belongs_to_one_account() {
    let folder = TempDir::new().unwrap();
    let instances = [instance(&folder).await, instance(&folder).await];
    let racers = [0, 1, 2, 3].map(|racer| {
        let users = instances[racer % 2].clone();
        // Spelled differently, it is the same address.
        let email = if racer < 2 { "ADA@example.com" } else { "ada@EXAMPLE.com" };
        let request = CreateUserRequest { email: email.into(), ..ada(&racer.to_string()) };
        tokio::spawn(async move { create(&users, request).await })
    });
    let mut winners = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Ok(user) => winners.push(user),
            lost => assert_eq!(refused(lost), (Code::AlreadyExists, "EMAIL_TAKEN".into())),
        }
    }
    assert_eq!(winners.len(), 1);
    let [users, _] = instances;
    let grace = CreateUserRequest { email: "grace@example.com".into(), ..ada("9") };
    let grace = create(&users, grace).await.unwrap();
    let steal = UpdateUserRequest { email: Some("Ada@example.com".into()), ..rename(&grace, "Grace") };
    assert_eq!(refused(update(&users, steal).await), (Code::AlreadyExists, "EMAIL_TAKEN".into()));
    assert_eq!(get(&users, &grace.user_id).await.unwrap(), grace);
    // A deleted account gives its address back.
    delete(&users, &winners[0].user_id).await.unwrap();
    create(&users, ada("10")).await.unwrap();
}

#[tokio::test]
async fn a_change_is_made_once_and_only_on_the_state_it_was_based_on() {
    let folder = TempDir::new().unwrap();
    let users = instance(&folder).await;
    let created = create(&users, ada("1")).await.unwrap();
    let renamed = update(&users, rename(&created, "Countess")).await.unwrap();
    assert_eq!((renamed.display_name.as_str(), renamed.email.as_str()), ("Countess", "ada@example.com"));
    assert_ne!(renamed.etag, created.etag);
    // Again, and again after somebody else's change: the same answer, and no second effect.
    assert_eq!(update(&users, rename(&created, "Countess")).await.unwrap(), renamed);
    let later = update(&users, rename(&renamed, "Lady Lovelace")).await.unwrap();
    assert_eq!(update(&users, rename(&created, "Countess")).await.unwrap(), renamed);
    assert_eq!(get(&users, &created.user_id).await.unwrap(), later);
    // Another change on a state that has passed; and on one that never was.
    let mismatch = (Code::Aborted, "ETAG_MISMATCH".to_owned());
    assert_eq!(refused(update(&users, rename(&created, "Augusta")).await), mismatch);
    let never = User { etag: "never".into(), ..created };
    assert_eq!(refused(update(&users, rename(&never, "Augusta")).await), mismatch);
}

#[tokio::test]
async fn a_mask_chooses_among_the_fields_that_are_present() {
    let folder = TempDir::new().unwrap();
    let users = instance(&folder).await;
    let created = create(&users, ada("1")).await.unwrap();
    let change = UpdateUserRequest {
        update_mask: Some(FieldMask { paths: vec!["email".into()] }),
        email: Some("countess@example.com".into()),
        ..rename(&created, "Countess")
    };
    let changed = update(&users, change).await.unwrap();
    assert_eq!((changed.display_name.as_str(), changed.email.as_str()), ("Ada", "countess@example.com"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_changes_to_one_state_one_wins() {
    let folder = TempDir::new().unwrap();
    let instances = [instance(&folder).await, instance(&folder).await];
    let created = create(&instances[0], ada("1")).await.unwrap();
    let racers = [0, 1, 2, 3, 4, 5].map(|racer| {
        let users = instances[racer % 2].clone();
        let request = rename(&created, &format!("Ada {racer}"));
        tokio::spawn(async move { update(&users, request).await })
    });
    let mut winners = Vec::new();
    for racer in racers {
        match racer.await.unwrap() {
            Ok(user) => winners.push(user),
            lost => assert_eq!(refused(lost), (Code::Aborted, "ETAG_MISMATCH".into())),
        }
    }
    assert_eq!(winners, [get(&instances[1], &created.user_id).await.unwrap()]);
}

#[tokio::test]
async fn a_deleted_account_is_gone_and_stays_deleted() {
    let folder = TempDir::new().unwrap();
    let users = instance(&folder).await;
    let created = create(&users, ada("1")).await.unwrap();
    delete(&users, &created.user_id).await.unwrap();
    delete(&users, &created.user_id).await.unwrap();
    delete(&users, &created.user_id.to_uppercase()).await.unwrap();
    let gone = (Code::NotFound, "NOT_FOUND".to_owned());
    assert_eq!(refused(get(&users, &created.user_id).await), gone);
    assert_eq!(refused(update(&users, rename(&created, "Countess")).await), gone);
    let nobody = "0199a7d0-0000-7000-8000-000000000000";
    let status = delete(&users, nobody).await.unwrap_err();
    let resource = status.get_details_resource_info().unwrap();
    assert_eq!((resource.resource_type.as_str(), resource.resource_name.as_str()), ("user", nobody));
    assert_eq!(refused::<()>(Err(status)), gone);
}

#[tokio::test]
async fn pages_hold_every_account_once_and_in_order() {
    let folder = TempDir::new().unwrap();
    let users = instance(&folder).await;
    let mut created = BTreeSet::new();
    for index in 0..5 {
        let request = CreateUserRequest { email: format!("ada{index}@example.com"), ..ada(&index.to_string()) };
        created.insert(create(&users, request).await.unwrap().user_id);
    }
    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListUsersRequest { page_size: 2, page_token };
        let page = users.list_users(operator(request)).await.unwrap().into_inner();
        listed.extend(page.users.into_iter().map(|user| user.user_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, created.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_password_is_in_no_answer_and_in_no_file() {
    let folder = TempDir::new().unwrap();
    let users = instance(&folder).await;
    let created = create(&users, ada("1")).await.unwrap();
    let answer = format!("{created:?}");
    assert!(!answer.contains("correct horse") && !answer.contains("argon2"), "{answer}");
    assert!(!is_in_a_file(&folder, b"correct horse"));
}

/// Whether bytes stand in a file of the database or beside it.
fn is_in_a_file(folder: &TempDir, needle: &[u8]) -> bool {
    let mut files: Vec<_> = [folder.path().to_owned(), folder.path().join("user.db.keys")]
        .iter()
        .flat_map(|folder| folder.read_dir().unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.is_file());
    assert!(files.len() >= 3, "{files:?}");
    files.iter().any(|path| std::fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle))
}
