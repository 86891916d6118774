//! What callers get of accounts that are not theirs: what they get of accounts that never were.

use mesh_api::shop::user::v1::user_service_server::UserService as _;
use mesh_api::shop::user::v1::{
    ChangePasswordRequest, CreateUserRequest, DeleteUserRequest, GetUserRequest, UpdateUserRequest, User,
};
use mesh_runtime::auth::Caller;
use tempfile::TempDir;
use tonic::{Code, Status};

use super::logins::{from, login_from};
use super::{Instance, PASSWORD, ada, by, create, get, refused, rename};
use crate::clock::Clock;

/// Of the form of those that the service issues.
const NOBODY: &str = "0199a7d0-0000-7000-8000-000000000000";

/// Every method that names an account, called by `caller`; what each answers, without the id.
async fn answers(instance: &Instance, caller: &Caller, user: &User) -> Vec<(Code, String, Vec<u8>)> {
    let user_id = user.user_id.clone();
    let users = &instance.users;
    let change = ChangePasswordRequest {
        user_id: user_id.clone(),
        current_password: PASSWORD.into(),
        new_password: "battery staple".into(),
        refresh_token: String::new(),
    };
    let refusals: Vec<Status> = vec![
        users.get_user(by(caller, GetUserRequest { user_id: user_id.clone() })).await.unwrap_err(),
        users.update_user(by(caller, rename(user, "Countess"))).await.unwrap_err(),
        users.delete_user(by(caller, DeleteUserRequest { user_id: user_id.clone() })).await.unwrap_err(),
        users.change_password(by(caller, change)).await.unwrap_err(),
    ];
    let without_id = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).replace(&user_id, NOBODY);
        text.into_bytes()
    };
    refusals
        .into_iter()
        .map(|status| (status.code(), status.message().replace(&user_id, NOBODY), without_id(status.details())))
        .collect()
}

#[tokio::test]
async fn anothers_account_is_answered_as_one_that_never_was() {
    let folder = TempDir::new().unwrap();
    let instance = Instance::start(&folder, &Clock::start()).await;
    let users = &instance.users;
    let account = create(users, ada("1")).await.unwrap();
    create(users, CreateUserRequest { email: "grace@example.com".into(), ..ada("2") }).await.unwrap();
    let verifier = instance.verifier();
    let mut callers = Vec::new();
    for email in ["ada@example.com", "grace@example.com"] {
        let token = login_from(&instance, from(1), email, PASSWORD).await.unwrap().access_token;
        callers.push(verifier.verify(&token).await.unwrap());
    }
    let [owner, stranger] = callers.try_into().unwrap();
    let never = User { user_id: NOBODY.into(), ..account.clone() };
    let expected = answers(&instance, &stranger, &never).await;
    assert!(expected.iter().all(|(code, ..)| *code == Code::NotFound), "{expected:?}");
    assert_eq!(answers(&instance, &stranger, &account).await, expected);

    // The owner does the same, and what is remembered of it is not answered to others.
    let request = || GetUserRequest { user_id: account.user_id.clone() };
    users.get_user(by(&owner, request())).await.unwrap();
    let renamed = users.update_user(by(&owner, rename(&account, "Countess"))).await.unwrap();
    assert_eq!(renamed.into_inner().user.unwrap().display_name, "Countess");
    assert_eq!(answers(&instance, &stranger, &account).await, expected);
    let delete = || DeleteUserRequest { user_id: account.user_id.clone() };
    users.delete_user(by(&owner, delete())).await.unwrap();
    users.delete_user(by(&owner, delete())).await.expect("a repeat");
    assert_eq!(answers(&instance, &stranger, &account).await, expected);
    // Who runs the shop sees everybody's, and repeats what an owner did.
    users.delete_user(by(&Caller::operator(), delete())).await.expect("a repeat");
}

#[tokio::test]
async fn who_was_not_asked_gets_nothing() {
    let folder = TempDir::new().unwrap();
    let instance = Instance::start(&folder, &Clock::start()).await;
    let account = create(&instance.users, ada("1")).await.unwrap();
    let request = tonic::Request::new(UpdateUserRequest { ..rename(&account, "Countess") });
    let missing = (Code::Unauthenticated, "TOKEN_MISSING".to_owned());
    assert_eq!(refused(instance.users.update_user(request).await), missing);
    assert_eq!(get(&instance.users, &account.user_id).await.unwrap(), account);
}
