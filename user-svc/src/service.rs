//! `shop.user.v1.UserService` on the wire: requests become valid values, answers become messages.

use mesh_api::shop::user::v1 as wire;
use mesh_api::shop::user::v1::user_service_server::UserService;
use mesh_runtime::database::{Call, Etag, Mask, PageRequest, RequestId, Scope, Violations, id};
use tonic::{Request, Response, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::accounts::{Accounts, NewUser};
use crate::user::{Change, DisplayName, Email, Password};

/// The front door of the accounts.
#[derive(Clone, Debug)]
pub(crate) struct Users(pub(crate) Accounts);

#[tonic::async_trait]
impl UserService for Users {
    async fn create_user(
        &self,
        request: Request<wire::CreateUserRequest>,
    ) -> Result<Response<wire::CreateUserResponse>, Status> {
        let (call, new) = create(request.into_inner())?;
        let user = self.0.create(call, new).await?;
        Ok(Response::new(wire::CreateUserResponse { user: Some(user) }))
    }

    async fn get_user(
        &self,
        request: Request<wire::GetUserRequest>,
    ) -> Result<Response<wire::GetUserResponse>, Status> {
        let user = self.0.get(user_id(&request.get_ref().user_id)?).await?;
        Ok(Response::new(wire::GetUserResponse { user: Some(user) }))
    }

    async fn update_user(
        &self,
        request: Request<wire::UpdateUserRequest>,
    ) -> Result<Response<wire::UpdateUserResponse>, Status> {
        let (call, id, etag, change) = update(request.into_inner())?;
        let user = self.0.update(call, id, etag, change).await?;
        Ok(Response::new(wire::UpdateUserResponse { user: Some(user) }))
    }

    async fn delete_user(
        &self,
        request: Request<wire::DeleteUserRequest>,
    ) -> Result<Response<wire::DeleteUserResponse>, Status> {
        let request = request.into_inner();
        let id = user_id(&request.user_id)?;
        let call = Call::new("DeleteUser", id, &request);
        Ok(Response::new(self.0.delete(call, id).await?))
    }

    async fn list_users(
        &self,
        request: Request<wire::ListUsersRequest>,
    ) -> Result<Response<wire::ListUsersResponse>, Status> {
        let request = request.into_inner();
        let page = PageRequest::parse(Scope::all("ListUsers"), request.page_size, &request.page_token)?;
        let page = self.0.list(page).await?;
        Ok(Response::new(wire::ListUsersResponse { users: page.rows, next_page_token: page.next_page_token }))
    }

    async fn login(&self, _: Request<wire::LoginRequest>) -> Result<Response<wire::LoginResponse>, Status> {
        Err(Status::unimplemented("no logins yet"))
    }

    async fn refresh(&self, _: Request<wire::RefreshRequest>) -> Result<Response<wire::RefreshResponse>, Status> {
        Err(Status::unimplemented("no logins yet"))
    }

    async fn logout(&self, _: Request<wire::LogoutRequest>) -> Result<Response<wire::LogoutResponse>, Status> {
        Err(Status::unimplemented("no logins yet"))
    }

    async fn change_password(
        &self,
        _: Request<wire::ChangePasswordRequest>,
    ) -> Result<Response<wire::ChangePasswordResponse>, Status> {
        Err(Status::unimplemented("no logins yet"))
    }

    async fn get_jwks(&self, _: Request<wire::GetJwksRequest>) -> Result<Response<wire::GetJwksResponse>, Status> {
        Err(Status::unimplemented("no logins yet"))
    }
}

fn create(mut request: wire::CreateUserRequest) -> Result<(Call, NewUser), Violations> {
    let password = Zeroizing::new(std::mem::take(&mut request.password));
    let mut violations = Violations::default();
    let request_id = violations.check("request_id", RequestId::parse(&request.request_id));
    let email = violations.check("email", Email::parse(&request.email));
    let display_name = violations.check("display_name", DisplayName::parse(&request.display_name));
    let password = violations.check("password", Password::parse(password));
    let (Some(request_id), Some(email), Some(display_name), Some(password)) =
        (request_id, email, display_name, password)
    else {
        return Err(violations);
    };
    // The password has been taken out: see `accounts::Created`.
    let call = Call::new("CreateUser", request_id.as_str(), &request);
    Ok((call, NewUser { email, display_name, password }))
}

fn update(request: wire::UpdateUserRequest) -> Result<(Call, Uuid, Etag, Change), Violations> {
    let mut violations = Violations::default();
    let id = violations.check("user_id", id(&request.user_id));
    let etag = violations.check("etag", Etag::parse(&request.etag));
    let mask = Mask::parse(request.update_mask.clone(), &["email", "display_name"]);
    let mask = violations.check("update_mask", mask);
    let names = |field, value: &Option<String>| mask.as_ref().is_some_and(|mask| mask.names(field, value.is_some()));
    let change = Change {
        email: names("email", &request.email)
            .then(|| violations.check("email", Email::parse(request.email.as_deref().unwrap_or_default())))
            .flatten(),
        display_name: names("display_name", &request.display_name)
            .then(|| {
                let name = request.display_name.as_deref().unwrap_or_default();
                violations.check("display_name", DisplayName::parse(name))
            })
            .flatten(),
    };
    if violations.is_empty() && change.email.is_none() && change.display_name.is_none() {
        violations.add("update_mask", "names no field, and none is present");
    }
    match (id, etag) {
        (Some(id), Some(etag)) if violations.is_empty() => {
            Ok((Call::based_on("UpdateUser", id, &etag, &request), id, etag, change))
        }
        _ => Err(violations),
    }
}

fn user_id(text: &str) -> Result<Uuid, Violations> {
    Violations::only("user_id", id(text))
}
