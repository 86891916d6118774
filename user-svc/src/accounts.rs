//! What can be done with accounts. Mutating calls go through the ledger, so each is done once however often it arrives.

use std::net::IpAddr;

use mesh_api::shop::user::v1 as wire;
use mesh_runtime::database::{Answered, Begun, Call, Database, DatabaseError, Etag, Page, PageRequest, ResourceError};
use mesh_runtime::entropy;
use uuid::Uuid;

use crate::error::UserError;
use crate::limits::Limits;
use crate::password::Passwords;
use crate::store::users::{self, PasswordHash};
use crate::user::{Change, DisplayName, Email, Password, User};

/// The accounts of one database.
#[derive(Clone)]
pub(crate) struct Accounts {
    database: Database,
    passwords: Passwords,
    limits: Limits,
}

/// An account to create.
pub(crate) struct NewUser {
    pub(crate) email: Email,
    pub(crate) display_name: DisplayName,
    pub(crate) password: Password,
}

/// What the ledger remembers of a CreateUser. The password is part of the request and must be the same in a repeat, but
/// a digest of it could be guessed from; so its hash is kept instead, as well guarded as the account's own.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Created {
    #[prost(message, optional, tag = "1")]
    user: Option<wire::User>,
    #[prost(string, tag = "2")]
    password_hash: String,
}

impl Accounts {
    pub(crate) fn new(database: Database, passwords: Passwords, limits: Limits) -> Self {
        Self { database, passwords, limits }
    }

    /// The digest of `call` covers all of the request but the password.
    pub(crate) async fn create(&self, call: Call, new: NewUser, address: IpAddr) -> Result<wire::User, UserError> {
        // Asked before the hash, since a write must not wait for one; and again in the write, since a twin of this request
        // may have come first meanwhile.
        if let Some(answered) = self.database.recall(&call).await? {
            return self.repeat(answered, new, address).await;
        }
        let password_hash = self.passwords.hash(new.password.clone()).await?;
        let mut work = match self.database.begin(call).await? {
            Begun::Answered(answered) => return self.repeat(answered, new, address).await,
            Begun::Fresh(work) => work,
        };
        let now = work.now();
        let user = User {
            id: entropy::uuid_v7(),
            email: new.email,
            display_name: new.display_name,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        let inserted = users::insert(work.connection(), &user, &password_hash).await;
        inserted.map_err(|error| taken(error, &user.email))?;
        let user = to_wire(&user);
        work.finish(Created { user: Some(user.clone()), password_hash: password_hash.0 }).await?;
        Ok(user)
    }

    /// Whether the password of a repeat is the same tells whether it is the account's, so it is limited as a login is. That it
    /// was right forgives nothing: the account may be another's by now.
    async fn repeat(
        &self,
        answered: Answered<Created>,
        new: NewUser,
        address: IpAddr,
    ) -> Result<wire::User, UserError> {
        let reused = || UserError::Resource(ResourceError::RequestIdReused);
        let Answered::Same(created) = answered else { return Err(reused()) };
        let attempt = self.limits.begin(&new.email, address)?;
        let verified = self.passwords.verify(new.password, PasswordHash(created.password_hash)).await;
        if matches!(verified, Ok(false)) {
            attempt.failed();
            return Err(reused());
        }
        attempt.undecided();
        verified?;
        Ok(created.user.ok_or(DatabaseError::Unreadable { what: "created user" })?)
    }

    /// Of an account that is not `owner`'s, as of one that never was: the same work, the same answer. So too below.
    pub(crate) async fn get(&self, id: Uuid, owner: Option<Uuid>) -> Result<wire::User, UserError> {
        let found = users::find(self.database.read().await?.connection(), id, owner).await?;
        Ok(to_wire(&found.ok_or_else(|| not_found(id))?))
    }

    /// The call's key names the account and the etag, and the owner where it is another's.
    pub(crate) async fn update(
        &self,
        call: Call,
        id: Uuid,
        owner: Option<Uuid>,
        etag: Etag,
        change: Change,
    ) -> Result<wire::User, UserError> {
        let mut work = match self.database.begin(call).await? {
            Begun::Answered(Answered::Same(user)) => return Ok(user),
            // Another change was based on this etag, so the account has moved on.
            Begun::Answered(Answered::Otherwise) => {
                let user = self.get(id, owner).await?;
                return Err(ResourceError::EtagMismatch { kind: KIND, current: user.etag }.into());
            }
            Begun::Fresh(work) => work,
        };
        let found = users::find(work.connection(), id, owner).await?.ok_or_else(|| not_found(id))?;
        etag.require(KIND, &found.etag())?;
        let user = found.changed(change, work.now());
        users::update(work.connection(), &user).await.map_err(|error| taken(error, &user.email))?;
        Ok(work.finish(to_wire(&user)).await?)
    }

    /// The call's key names the account, and the owner where it is another's. Its families go with it.
    pub(crate) async fn delete(
        &self,
        call: Call,
        id: Uuid,
        owner: Option<Uuid>,
    ) -> Result<wire::DeleteUserResponse, UserError> {
        let mut work = match self.database.begin(call).await? {
            Begun::Answered(Answered::Same(response)) => return Ok(response),
            // Two requests to delete one account differ in nothing but the spelling of its id.
            Begun::Answered(Answered::Otherwise) => return Ok(wire::DeleteUserResponse {}),
            Begun::Fresh(work) => work,
        };
        if !users::delete(work.connection(), id, owner).await? {
            return Err(not_found(id));
        }
        Ok(work.finish(wire::DeleteUserResponse {}).await?)
    }

    pub(crate) async fn list(&self, page: PageRequest) -> Result<Page<wire::User>, UserError> {
        let rows = users::list(self.database.read().await?.connection(), &page).await?;
        let page = page.page(rows, |user| user.id);
        Ok(Page { rows: page.rows.iter().map(to_wire).collect(), next_page_token: page.next_page_token })
    }
}

/// The resource type in error details.
const KIND: &str = "user";

pub(crate) fn not_found(id: Uuid) -> UserError {
    ResourceError::NotFound { kind: KIND, id }.into()
}

/// The only unique value of an account, beside an id that was just drawn, is its email address.
fn taken(error: DatabaseError, email: &Email) -> UserError {
    match error {
        DatabaseError::NotUnique => UserError::EmailTaken(email.as_str().to_owned()),
        other => other.into(),
    }
}

pub(crate) fn to_wire(user: &User) -> wire::User {
    wire::User {
        user_id: user.id.to_string(),
        email: user.email.as_str().to_owned(),
        display_name: user.display_name.as_str().to_owned(),
        create_time: Some(user.created_at.into()),
        update_time: Some(user.updated_at.into()),
        etag: user.etag().as_str().to_owned(),
    }
}
