//! The key of this instance, and the public keys of all.
//!
//! Every instance signs with a key of its own that no other program can read, and lists the public half in the database.
//! An access token is made only after a write that lists its key for longer than the token lives, so whoever can
//! read the list can verify every token there is, whatever has become of the instance that signed it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_runtime::auth::{
    AUDIENCE_ALL, Claims, Jwk, KeyError, Role, Secret, SigningKey, USER_ISSUER, lifetime_max, mint,
};
use mesh_runtime::database::{Connection, Database, DatabaseError};
use uuid::Uuid;

use crate::clock::Clock;
use crate::store;

/// How long an access token is good for.
pub(crate) const TOKEN_LIFE: Duration = lifetime_max(Role::User);
/// How long a key that is listed stays listed.
const LISTED: Duration = Duration::from_secs(60 * 60);
/// A key that is listed for less is listed anew before it signs: it must outlive its tokens, and the clocks that lag
/// behind ours.
const LISTED_LEAST: Duration = Duration::from_secs(20 * 60);
/// How often a living instance sees to it, so that its key is listed also while nobody logs in.
const RENEWAL: Duration = Duration::from_secs(10 * 60);
/// Most instances with key files beside one database.
const INSTANCES_MAX: u32 = 64;

/// Signs access tokens. Clones are one key.
#[derive(Clone)]
pub(crate) struct Keys {
    clock: Clock,
    key: Arc<InstanceKey>,
}

struct InstanceKey {
    signing: SigningKey,
    /// What tells other instances that this key is taken.
    _taken: Option<File>,
}

/// Why this instance has no key; one line for the operator, who has to act.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{INSTANCES_MAX} instances have their keys in {0}; give this one a --signing-key")]
    Full(PathBuf),
}

impl Keys {
    /// The key in this file, made now if there is none.
    pub(crate) fn of_file(path: &Path, clock: Clock) -> Result<Self, KeysError> {
        Ok(Self::of(SigningKey::open_or_create(path)?, None, clock))
    }

    /// The first key beside the database that no living instance uses, made now if there is none: so the instances of
    /// one machine have a key each, and have it again after a restart.
    pub(crate) fn beside(database: &Path, clock: Clock) -> Result<Self, KeysError> {
        let mut folder = database.as_os_str().to_owned();
        folder.push(".keys");
        let folder = PathBuf::from(folder);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|source| KeysError::File { path: folder.clone(), source })?;
        for number in 1..=INSTANCES_MAX {
            if let Some(taken) = take(&folder.join(format!("{number}.lock")))? {
                let signing = SigningKey::open_or_create(&folder.join(format!("{number}.pem")))?;
                return Ok(Self::of(signing, Some(taken), clock));
            }
        }
        Err(KeysError::Full(folder))
    }

    fn of(signing: SigningKey, taken: Option<File>, clock: Clock) -> Self {
        Self { clock, key: Arc::new(InstanceKey { signing, _taken: taken }) }
    }

    /// To be done in each write that an access token is made after.
    pub(crate) async fn publish(&self, connection: &mut Connection) -> Result<(), DatabaseError> {
        let now = self.clock.wall();
        let (least, end) = ((now + LISTED_LEAST).into(), (now + LISTED).into());
        store::keys::publish(connection, self.key.signing.public_jwk(), least, end).await
    }

    /// An access token of a user, after [`publish`](Self::publish).
    pub(crate) fn access_token(&self, user_id: Uuid) -> Secret {
        let now = self.clock.wall();
        mint(
            &self.key.signing,
            &Claims::new(USER_ISSUER, Role::User, user_id.to_string(), [AUDIENCE_ALL], now, TOKEN_LIFE),
        )
    }

    /// The keys of all instances.
    pub(crate) async fn list(&self, database: &Database) -> Result<Vec<Jwk>, DatabaseError> {
        let now = self.clock.wall().into();
        let listed = store::keys::list(database.read().await?.connection(), now).await?;
        let jwk = |(kid, x)| Jwk { kid, x, ..self.key.signing.public_jwk().clone() };
        Ok(listed.into_iter().map(jwk).collect())
    }

    /// Lists this instance's key, and forgets those whose time is over. What fails is made good by the next login, or by the
    /// next renewal.
    pub(crate) async fn renew(&self, database: &Database) {
        if let Err(error) = self.try_renew(database).await {
            tracing::warn!(%error, "signing key not listed anew; the next login does it, or the next try");
        }
    }

    async fn try_renew(&self, database: &Database) -> Result<(), DatabaseError> {
        let mut write = database.write().await?;
        store::keys::prune(write.connection(), self.clock.wall().into()).await?;
        self.publish(write.connection()).await?;
        write.commit().await
    }

    /// Keeps this instance's key listed for as long as it is polled, after a first [`renew`](Self::renew).
    pub(crate) async fn keep_listed(&self, database: &Database) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            self.renew(database).await;
        }
    }
}

/// The lock of a key, unless a living process has it. The file stays: to delete it would let two processes hold two files
/// of one name.
fn take(path: &Path) -> Result<Option<File>, KeysError> {
    let failed = |source| KeysError::File { path: path.to_owned(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
