//! Who a token speaks for: keys that are kept up to date, and the check against them.
//!
//! One task keeps the keys ([`keeper`]); it belongs to the [`Verifier`]s of one making and ends with the last of them. A
//! check reads the keys as they are and waits for nothing, unless a token names a key that is not known and might be told.

mod cache;
mod keeper;
mod keys;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::caller::Caller;
use super::claims::unix_seconds;
use super::error::TokenError;
use super::trusted::{TrustedError, TrustedFile};
use crate::clock;
pub use keeper::KeySource;
use keeper::{Asking, Keeper};
use keys::Keys;

/// How long a call waits for keys that are being asked for; a look-up takes milliseconds.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Verifies tokens for one service. Clones share keys and what was verified.
#[derive(Clone)]
pub struct Verifier {
    service: Arc<str>,
    told: watch::Receiver<Arc<Keys>>,
    asking: Arc<Asking>,
    _keeper: Arc<AbortOnDropHandle<()>>,
}

impl Verifier {
    /// A verifier of tokens for the service of this name: of users, whose keys `users` tells, and of programs and operators,
    /// whose keys stand in the `trusted` files. Must be called within a tokio runtime. Waits for nothing: until `users` has
    /// answered, a user's token is [`TokenError::KeysUnavailable`].
    pub fn start(service: &str, trusted: &[PathBuf], users: KeySource) -> Result<Self, TrustedError> {
        let trusted = trusted.iter().map(|path| TrustedFile::open(path)).collect::<Result<Vec<_>, _>>()?;
        let asking = Arc::new(Asking::default());
        let (keeper, told) = Keeper::new(users, trusted, Arc::clone(&asking));
        let keeper = Arc::new(AbortOnDropHandle::new(tokio::spawn(keeper.run())));
        Ok(Self { service: service.into(), told, asking, _keeper: keeper })
    }

    /// Who made this token, the text after `Bearer`. Where its key is not known, the keys are asked for anew, once for all
    /// who wait: three times at once, in the long run every 10 s. That takes 2 s at most.
    pub async fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        match self.verify_at_once(token) {
            Err(error) if self.may_learn(error) => {
                self.learn().await;
                self.verify_at_once(token)
            }
            outcome => outcome,
        }
    }

    /// As [`verify`](Self::verify), with the keys that are known.
    pub(super) fn verify_at_once(&self, token: &str) -> Result<Caller, TokenError> {
        self.verify_at(token, clock::wall())
    }

    fn verify_at(&self, token: &str, now: SystemTime) -> Result<Caller, TokenError> {
        let keys = Arc::clone(&self.told.borrow());
        keys.verify(token, &self.service, unix_seconds(now))
    }

    /// Whether asking for keys now might make good what is wrong.
    pub(super) fn may_learn(&self, error: TokenError) -> bool {
        matches!(error, TokenError::UnknownKey | TokenError::KeysUnavailable) && self.asking.is_worth_it(clock::now())
    }

    async fn learn(&self) {
        let mut told = self.told.clone();
        told.mark_unchanged();
        self.asking.ask();
        // Heard or not, the keys are looked at again; a keeper that is gone tells nothing more.
        let _ = timeout(WAIT_MAX, told.changed()).await;
    }
}

#[cfg(test)]
mod tests;
