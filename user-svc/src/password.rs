//! Password hashes: argon2id, on a pool that cannot take the machine down.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use mesh_runtime::entropy;
use tokio::sync::Semaphore;

use crate::user::Password;

/// Memory of one hash, in KiB: 19 MiB. With two passes and one lane the least that OWASP's password storage cheat sheet
/// recommends for argon2id.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Bytes of salt (RFC 9106 §3.1).
const SALT_BYTES: usize = 16;

/// Hashes at a time where the number of cores is not known.
const CORES_UNKNOWN: usize = 2;
/// Hashes that wait, for each that runs: a hash takes some 30 ms, so the last waits some 60 ms.
const WAITING_PER_RUNNING: usize = 2;

/// Hashes passwords, a few at a time. Clones share the bound.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    argon2: Argon2<'static>,
    /// One permit per hash that runs: each costs a core and 19 MiB.
    running: Arc<Semaphore>,
    /// One permit per hash that runs or waits.
    places: Arc<Semaphore>,
}

/// Why a password was not hashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    /// As many hashes wait as may.
    #[error("too many passwords are waiting to be hashed")]
    QueueFull,
    /// The hash cannot be computed or a stored one cannot be read; never holds a password.
    #[error("password hashing failed: {0}")]
    Failed(String),
}

impl Passwords {
    /// As many hashes at a time as there are cores.
    pub(crate) fn new() -> Self {
        Self::bounded(std::thread::available_parallelism().map_or(CORES_UNKNOWN, usize::from))
    }

    fn bounded(running: usize) -> Self {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("these are within argon2's ranges");
        Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            running: Arc::new(Semaphore::new(running)),
            places: Arc::new(Semaphore::new(running * (1 + WAITING_PER_RUNNING))),
        }
    }

    /// The hash of a password as a PHC string, with a salt of its own.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, PasswordError> {
        let salt = entropy::bytes::<SALT_BYTES>();
        self.run(move |argon2| {
            let hash = argon2.hash_password_with_salt(password.as_bytes(), &salt);
            hash.map(|hash| hash.to_string()).map_err(|error| PasswordError::Failed(error.to_string()))
        })
        .await
    }

    /// Whether a password is the one that was hashed.
    pub(crate) async fn verify(&self, password: Password, hash: String) -> Result<bool, PasswordError> {
        self.run(move |argon2| {
            let hash = PasswordHash::new(&hash).map_err(|error| PasswordError::Failed(error.to_string()))?;
            Ok(argon2.verify_password(password.as_bytes(), &hash).is_ok())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| PasswordError::QueueFull)?;
        let running = Arc::clone(&self.running).acquire_owned().await.expect("this semaphore is never closed");
        let argon2 = self.argon2.clone();
        let worked = tokio::task::spawn_blocking(move || {
            // The permits live as long as the work does, even where the caller has gone.
            let _permits = (place, running);
            work(&argon2)
        });
        worked.await.unwrap_or_else(|error| Err(PasswordError::Failed(error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use zeroize::Zeroizing;

    use super::{Password, PasswordError, Passwords};

    fn password(text: &str) -> Password {
        Password::parse(Zeroizing::new(text.to_owned())).unwrap()
    }

    #[tokio::test]
    async fn a_hash_says_what_it_cost_and_knows_its_password() {
        let passwords = Passwords::new();
        let hash = passwords.hash(password("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify(password("correct horse"), hash.clone()).await.unwrap());
        assert!(!passwords.verify(password("battery staple"), hash.clone()).await.unwrap());
        assert_ne!(passwords.hash(password("correct horse")).await.unwrap(), hash, "each has its own salt");
    }

    #[tokio::test]
    async fn a_hash_that_is_none_is_an_error_and_not_a_mismatch() {
        let verified = Passwords::new().verify(password("correct horse"), "plain".into()).await;
        assert!(matches!(verified, Err(PasswordError::Failed(_))));
    }

    #[tokio::test]
    async fn beyond_the_queue_is_refused_at_once_and_the_queue_drains() {
        let passwords = Passwords::bounded(1);
        let (release, held) = mpsc::channel::<()>();
        let (running_passwords, running_held) = (passwords.clone(), held);
        let running =
            tokio::spawn(async move { running_passwords.run(move |_| Ok(running_held.recv().is_ok())).await });
        while passwords.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.run(|_| Ok(true)).await })
            })
            .collect();
        while passwords.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(passwords.run(|_| Ok(true)).await, Err(PasswordError::QueueFull)));
        release.send(()).unwrap();
        for done in waiting.into_iter().chain([running]) {
            assert!(done.await.unwrap().unwrap());
        }
        assert!(passwords.run(|_| Ok(true)).await.unwrap());
    }
}
