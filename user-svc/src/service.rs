//! `shop.user.v1.UserService` on the wire: requests become valid values, answers become messages.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName};
use mesh_api::shop::user::v1 as wire;
use mesh_api::shop::user::v1::user_service_server::UserService;
use mesh_runtime::auth::{Caller, Jwk, Role, Verifier, bearer};
use mesh_runtime::database::{Call, Etag, Fault, Mask, PageRequest, RequestId, Scope, Violations, id};
use tonic::{Request, Response, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::accounts::{Accounts, NewUser};
use crate::error::UserError;
use crate::keys::TOKEN_LIFE;
use crate::logins::{Logins, PasswordChange, Tokens};
use crate::refresh::RefreshToken;
use crate::user::{Change, DisplayName, Email, Password};

/// How an access token is sent.
const TOKEN_TYPE: &str = "Bearer";
/// Longest text that is taken for a refresh token, in bytes; ours have 72.
const REFRESH_TOKEN_BYTES_MAX: usize = 128;
/// Where a program that calls for somebody else, as a gateway does, says from where they call; it counts beside
/// [`SERVICE_AUTHORIZATION`] only.
const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("x-mesh-client-address");
/// The program's own credential, in the form of an `authorization` header.
const SERVICE_AUTHORIZATION: HeaderName = HeaderName::from_static("x-mesh-service-authorization");

/// The front door of the accounts and logins.
#[derive(Clone)]
pub(crate) struct Users {
    pub(crate) accounts: Accounts,
    pub(crate) logins: Logins,
    /// Who tells programs of the mesh from others; nobody where nobody is asked.
    pub(crate) verifier: Option<Verifier>,
}

#[tonic::async_trait]
impl UserService for Users {
    async fn create_user(
        &self,
        request: Request<wire::CreateUserRequest>,
    ) -> Result<Response<wire::CreateUserResponse>, Status> {
        let address = self.address(&request).await;
        let (call, new) = create(request.into_inner())?;
        let user = self.accounts.create(call, new, address).await?;
        Ok(Response::new(wire::CreateUserResponse { user: Some(user) }))
    }

    async fn get_user(
        &self,
        request: Request<wire::GetUserRequest>,
    ) -> Result<Response<wire::GetUserResponse>, Status> {
        let owner = Caller::of(&request)?.owner();
        let user = self.accounts.get(user_id(&request.get_ref().user_id)?, owner).await?;
        Ok(Response::new(wire::GetUserResponse { user: Some(user) }))
    }

    async fn update_user(
        &self,
        request: Request<wire::UpdateUserRequest>,
    ) -> Result<Response<wire::UpdateUserResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let (call, id, etag, change) = update(&caller, request.into_inner())?;
        let user = self.accounts.update(call, id, caller.owner(), etag, change).await?;
        Ok(Response::new(wire::UpdateUserResponse { user: Some(user) }))
    }

    async fn delete_user(
        &self,
        request: Request<wire::DeleteUserRequest>,
    ) -> Result<Response<wire::DeleteUserResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let request = request.into_inner();
        let id = user_id(&request.user_id)?;
        let call = Call::new("DeleteUser", key(&caller, id), &request);
        Ok(Response::new(self.accounts.delete(call, id, caller.owner()).await?))
    }

    async fn list_users(
        &self,
        request: Request<wire::ListUsersRequest>,
    ) -> Result<Response<wire::ListUsersResponse>, Status> {
        Caller::of(&request)?; // which of them may, the layer knows
        let request = request.into_inner();
        let page = PageRequest::parse(Scope::all("ListUsers"), request.page_size, &request.page_token)?;
        let page = self.accounts.list(page).await?;
        Ok(Response::new(wire::ListUsersResponse { users: page.rows, next_page_token: page.next_page_token }))
    }

    async fn login(&self, request: Request<wire::LoginRequest>) -> Result<Response<wire::LoginResponse>, Status> {
        let address = self.address(&request).await;
        let (email, password) = login(request.into_inner())?;
        let (tokens, user) = self.logins.login(&email, password, address).await?;
        Ok(Response::new(wire::LoginResponse {
            access_token: tokens.access.expose().to_owned(),
            token_type: TOKEN_TYPE.to_owned(),
            expires_in: Some(expires_in()),
            refresh_token: tokens.refresh.expose().to_owned(),
            user: Some(user),
        }))
    }

    async fn refresh(&self, request: Request<wire::RefreshRequest>) -> Result<Response<wire::RefreshResponse>, Status> {
        let token = refresh_token(request.into_inner().refresh_token)?.ok_or(UserError::RefreshTokenInvalid)?;
        let Tokens { access, refresh } = self.logins.refresh(&token).await?;
        Ok(Response::new(wire::RefreshResponse {
            access_token: access.expose().to_owned(),
            token_type: TOKEN_TYPE.to_owned(),
            expires_in: Some(expires_in()),
            refresh_token: refresh.expose().to_owned(),
        }))
    }

    async fn logout(&self, request: Request<wire::LogoutRequest>) -> Result<Response<wire::LogoutResponse>, Status> {
        let owner = Caller::of(&request)?.owner();
        if let Some(token) = refresh_token(request.into_inner().refresh_token)? {
            self.logins.logout(&token, owner).await?;
        }
        Ok(Response::new(wire::LogoutResponse {}))
    }

    async fn change_password(
        &self,
        request: Request<wire::ChangePasswordRequest>,
    ) -> Result<Response<wire::ChangePasswordResponse>, Status> {
        let owner = Caller::of(&request)?.owner();
        let address = self.address(&request).await;
        self.logins.change_password(password_change(owner, request.into_inner())?, address).await?;
        Ok(Response::new(wire::ChangePasswordResponse {}))
    }

    async fn get_jwks(&self, _: Request<wire::GetJwksRequest>) -> Result<Response<wire::GetJwksResponse>, Status> {
        let keys = self.logins.jwks().await?.into_iter().map(jwk).collect();
        Ok(Response::new(wire::GetJwksResponse { keys }))
    }
}

impl Users {
    /// From where a call comes: from its peer, or from where a program of the mesh says.
    async fn address<T>(&self, request: &Request<T>) -> IpAddr {
        // Without a peer there is no socket, and whoever calls shares one address.
        let peer = request.remote_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let headers: &HeaderMap = request.metadata().as_ref();
        let (Some(verifier), Some(client), Ok(token)) =
            (&self.verifier, client_address(headers), bearer(headers, &SERVICE_AUTHORIZATION))
        else {
            return peer;
        };
        match verifier.verify(token).await {
            Ok(caller) if caller.role() == Role::Service => client,
            Ok(_) | Err(_) => peer,
        }
    }
}

fn client_address(headers: &HeaderMap) -> Option<IpAddr> {
    let mut values = headers.get_all(CLIENT_ADDRESS).iter();
    let address = values.next()?.to_str().ok()?.parse().ok()?;
    values.next().is_none().then_some(address)
}

/// What names an account in the ledger. What was recorded of another's is not found, so it cannot be answered.
fn key(caller: &Caller, id: Uuid) -> String {
    match caller.owner() {
        Some(owner) if owner != id => format!("{owner}/{id}"),
        _ => id.to_string(),
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

fn update(caller: &Caller, request: wire::UpdateUserRequest) -> Result<(Call, Uuid, Etag, Change), Violations> {
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
            // Every other change of that state is another request.
            let key = format!("{}/{}", key(caller, id), etag.as_str());
            Ok((Call::new("UpdateUser", key, &request), id, etag, change))
        }
        _ => Err(violations),
    }
}

fn user_id(text: &str) -> Result<Uuid, Violations> {
    Violations::only("user_id", id(text))
}

fn login(mut request: wire::LoginRequest) -> Result<(Email, Password), Violations> {
    let password = Zeroizing::new(std::mem::take(&mut request.password));
    let mut violations = Violations::default();
    let email = violations.check("email", Email::parse(&request.email));
    let password = violations.check("password", Password::parse(password));
    email.zip(password).ok_or(violations)
}

/// A refresh token that is required; `None` for a text that cannot be one.
fn refresh_token(text: String) -> Result<Option<RefreshToken>, Violations> {
    let text = Zeroizing::new(text);
    if text.is_empty() {
        return Violations::only("refresh_token", Err("is required"));
    }
    Violations::only("refresh_token", bounded(&text))
}

fn bounded(text: &str) -> Result<Option<RefreshToken>, Fault> {
    if text.len() > REFRESH_TOKEN_BYTES_MAX {
        return Err(Fault(format!("must have at most {REFRESH_TOKEN_BYTES_MAX} bytes")));
    }
    Ok(RefreshToken::parse(text))
}

fn password_change(
    owner: Option<Uuid>,
    mut request: wire::ChangePasswordRequest,
) -> Result<PasswordChange, Violations> {
    let current = Zeroizing::new(std::mem::take(&mut request.current_password));
    let new = Zeroizing::new(std::mem::take(&mut request.new_password));
    let kept = Zeroizing::new(std::mem::take(&mut request.refresh_token));
    let mut violations = Violations::default();
    let user_id = violations.check("user_id", id(&request.user_id));
    let current = violations.check("current_password", Password::parse(current));
    let new = violations.check("new_password", Password::parse(new));
    let kept = violations.check("refresh_token", bounded(&kept));
    match (user_id, current, new, kept) {
        (Some(user_id), Some(current), Some(new), Some(kept)) => {
            Ok(PasswordChange { user_id, owner, current, new, kept })
        }
        _ => Err(violations),
    }
}

fn expires_in() -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(TOKEN_LIFE.as_secs()).unwrap_or(i64::MAX), nanos: 0 }
}

fn jwk(key: Jwk) -> wire::Jwk {
    let Jwk { kty, crv, x, kid, alg, usage } = key;
    wire::Jwk { kty, crv, alg: alg.unwrap_or_default(), r#use: usage.unwrap_or_default(), kid, x }
}
