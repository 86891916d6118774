//! What can be done with logins: begin one, go on with it, end it.
//!
//! A login is a family: one row, whose last refresh token alone can be exchanged. Every exchange is one transaction on the
//! database that all instances share, so of many at once one makes the next token and the others find it.

use std::net::IpAddr;

use mesh_api::shop::user::v1 as wire;
use mesh_runtime::auth::{Jwk, Secret};
use mesh_runtime::database::{Database, DatabaseError, UnixMillis};
use mesh_runtime::entropy;
use uuid::Uuid;

use crate::accounts::{not_found, to_wire};
use crate::clock::Clock;
use crate::error::UserError;
use crate::keys::Keys;
use crate::limits::{Attempt, Limits};
use crate::password::Passwords;
use crate::refresh::RefreshToken;
use crate::store::{families, users};
use crate::user::{Email, Password};

/// Most exchanges of one family within [`families::EXCHANGED_KEPT`], so that what has to be remembered of it has a bound.
const EXCHANGES_MAX: i64 = 8;
/// A change of password begins anew where another change came between its check and its write; a third time it does not.
const CHANGES_TRIED: usize = 2;

/// The logins of one database.
#[derive(Clone)]
pub(crate) struct Logins {
    database: Database,
    passwords: Passwords,
    keys: Keys,
    limits: Limits,
    clock: Clock,
}

/// What a caller gets to go on with.
pub(crate) struct Tokens {
    pub(crate) access: Secret,
    pub(crate) refresh: Secret,
}

/// A password to change, and by whom.
pub(crate) struct PasswordChange {
    pub(crate) user_id: Uuid,
    /// Whose account it has to be; anybody's if there is none.
    pub(crate) owner: Option<Uuid>,
    pub(crate) current: Password,
    pub(crate) new: Password,
    /// The family that goes on.
    pub(crate) kept: Option<RefreshToken>,
}

impl Logins {
    pub(crate) fn new(database: Database, passwords: Passwords, keys: Keys, limits: Limits, clock: Clock) -> Self {
        Self { database, passwords, keys, limits, clock }
    }

    pub(crate) async fn login(
        &self,
        email: &Email,
        password: Password,
        address: IpAddr,
    ) -> Result<(Tokens, wire::User), UserError> {
        let attempt = self.limits.begin(email, address)?;
        judged(attempt, self.try_login(email, password)).await
    }

    /// The same steps whether there is such an account or not, up to the verdict; `None` for a wrong password.
    async fn try_login(&self, email: &Email, password: Password) -> Result<Option<(Tokens, wire::User)>, UserError> {
        let found = users::find_by_email(self.database.read().await?.connection(), email).await?;
        let (user, hash) = found.unzip();
        let is_right = self.passwords.verify_if_any(password, hash.clone()).await?;
        let (Some(user), Some(hash), true) = (user, hash, is_right) else { return Ok(None) };
        let token = RefreshToken::draw();
        let mut write = self.database.write().await?;
        // Unless the password was changed while it was checked: that change ended all families, and this one is older.
        if !families::begin(write.connection(), &token, user.id, &hash, self.now()).await? {
            return Ok(None);
        }
        self.keys.publish(write.connection()).await?;
        write.commit().await?;
        Ok(Some((self.tokens(user.id, &token), to_wire(&user))))
    }

    pub(crate) async fn refresh(&self, token: &RefreshToken) -> Result<Tokens, UserError> {
        let now = self.now();
        // A reader asks first: what is of no family costs no write.
        if families::find(self.database.read().await?.connection(), token.family(), now).await?.is_none() {
            return Err(UserError::RefreshTokenInvalid);
        }

        let mut write = self.database.write().await?;
        let connection = write.connection();
        let family = families::find(connection, token.family(), now).await?.ok_or(UserError::RefreshTokenInvalid)?;
        let next = if family.token_hash == token.hash() {
            let (exchanged, first) = families::exchanged(connection, token.family(), now).await?;
            if exchanged >= EXCHANGES_MAX {
                return Err(UserError::RefreshTooOften { wait: first.after(families::EXCHANGED_KEPT).since(now) });
            }
            let seed = entropy::bytes();
            let next = token.next(&seed);
            families::exchange(connection, token, &seed, &next, now).await?;
            next
        } else if let Some(seed) = families::seed(connection, token, now).await? {
            token.next(&seed)
        } else {
            families::end(connection, token.family(), None).await?;
            write.commit().await?;
            tracing::warn!(user = %family.user_id, "refresh token used a second time; its login has ended");
            return Err(UserError::RefreshTokenReused);
        };
        self.keys.publish(connection).await?;
        write.commit().await?;
        Ok(self.tokens(family.user_id, &next))
    }

    /// Ends the family of a token, if `owner` may.
    pub(crate) async fn logout(&self, token: &RefreshToken, owner: Option<Uuid>) -> Result<(), UserError> {
        let mut write = self.database.write().await?;
        families::end(write.connection(), token.family(), owner).await?;
        Ok(write.commit().await?)
    }

    pub(crate) async fn change_password(&self, change: PasswordChange, address: IpAddr) -> Result<(), UserError> {
        let (user_id, owner) = (change.user_id, change.owner);
        let found = users::find_password(self.database.read().await?.connection(), user_id, owner).await?;
        let (email, _) = found.ok_or_else(|| not_found(user_id))?;
        let mut attempt = match owner {
            Some(owner) => self.limits.begin_own(owner, address)?,
            None => self.limits.begin(&email, address)?,
        };
        // One answer tells of two passwords: whether either is the account's.
        attempt.count_twice();
        judged(attempt, self.try_change(&change)).await
    }

    /// `None` for a wrong password.
    async fn try_change(&self, change: &PasswordChange) -> Result<Option<()>, UserError> {
        let PasswordChange { user_id, owner, current, new, kept } = change;
        for _ in 0..CHANGES_TRIED {
            let found = users::find_password(self.database.read().await?.connection(), *user_id, *owner).await?;
            let (_, hash) = found.ok_or_else(|| not_found(*user_id))?;
            if !self.passwords.verify(current.clone(), hash.clone()).await? {
                // Or it has been done, and this is a repeat: the same proof, the same state.
                return Ok(self.passwords.verify(new.clone(), hash).await?.then_some(()));
            }
            let new_hash = self.passwords.hash(new.clone()).await?;
            let mut write = self.database.write().await?;
            if users::change_password(write.connection(), *user_id, &hash, &new_hash).await? {
                families::end_others(write.connection(), *user_id, kept.as_ref()).await?;
                write.commit().await?;
                return Ok(Some(()));
            }
        }
        Err(DatabaseError::Busy.into())
    }

    /// The public keys of all instances.
    pub(crate) async fn jwks(&self) -> Result<Vec<Jwk>, UserError> {
        Ok(self.keys.list(&self.database).await?)
    }

    fn now(&self) -> UnixMillis {
        self.clock.wall().into()
    }

    /// After the write that the refresh token stands in.
    fn tokens(&self, user_id: Uuid, refresh: &RefreshToken) -> Tokens {
        Tokens { access: self.keys.access_token(user_id), refresh: refresh.text() }
    }
}

/// An attempt at the password of an account, counted by its outcome. `None` is a wrong password.
async fn judged<T>(
    counted: Attempt,
    attempt: impl Future<Output = Result<Option<T>, UserError>>,
) -> Result<T, UserError> {
    match attempt.await {
        Ok(Some(done)) => {
            counted.succeeded();
            Ok(done)
        }
        Ok(None) => {
            counted.failed();
            Err(UserError::Credentials)
        }
        Err(error) => {
            counted.undecided();
            Err(error)
        }
    }
}
