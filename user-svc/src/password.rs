//! Password hashes: argon2id, on a pool that cannot take the machine down.

use std::sync::Arc;

use argon2::password_hash::phc;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64Unpadded, Encoding as _};
use mesh_runtime::entropy;
use tokio::sync::Semaphore;

use crate::store::users::PasswordHash;
use crate::user::Password;

/// Memory of one hash, in KiB: 19 MiB. With two passes and one lane the least that OWASP's password storage cheat sheet
/// recommends for argon2id.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Bytes of salt (RFC 9106 §3.1).
const SALT_BYTES: usize = 16;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// Hashes at a time where the number of cores is not known.
const CORES_UNKNOWN: usize = 2;
/// Hashes that wait, for each that runs: a hash takes some 30 ms, so the last waits some 60 ms.
const WAITING_PER_RUNNING: usize = 2;

/// Hashes passwords, a few at a time. Clones share the bound.
#[derive(Clone)]
pub(crate) struct Passwords {
    argon2: Argon2<'static>,
    /// One permit per hash that runs: each costs a core and 19 MiB.
    running: Arc<Semaphore>,
    /// One permit per hash that runs or waits.
    places: Arc<Semaphore>,
    /// The hash of a password that nobody knows, to check those of accounts that nobody has.
    nobodys: PasswordHash,
    #[cfg(test)]
    pub(crate) counts: Arc<tests::Counts>,
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

    pub(crate) fn bounded(running: usize) -> Self {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("these are within argon2's ranges");
        Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            running: Arc::new(Semaphore::new(running)),
            places: Arc::new(Semaphore::new(running * (1 + WAITING_PER_RUNNING))),
            nobodys: nobodys(),
            #[cfg(test)]
            counts: Arc::default(),
        }
    }

    /// The hash of a password as a PHC string, with a salt of its own.
    pub(crate) async fn hash(&self, password: Password) -> Result<PasswordHash, PasswordError> {
        let salt = entropy::bytes::<SALT_BYTES>();
        self.run(move |argon2| {
            let hash = argon2.hash_password_with_salt(password.as_bytes(), &salt);
            hash.map(|hash| PasswordHash(hash.to_string())).map_err(|error| PasswordError::Failed(error.to_string()))
        })
        .await
    }

    /// Whether a password is the one that was hashed.
    pub(crate) async fn verify(&self, password: Password, hash: PasswordHash) -> Result<bool, PasswordError> {
        self.run(move |argon2| {
            let hash = phc::PasswordHash::new(&hash.0).map_err(|error| PasswordError::Failed(error.to_string()))?;
            Ok(argon2.verify_password(password.as_bytes(), &hash).is_ok())
        })
        .await
    }

    /// As [`verify`](Self::verify) of a hash that is there; without one it is as much work, and never the password.
    pub(crate) async fn verify_if_any(
        &self,
        password: Password,
        hash: Option<PasswordHash>,
    ) -> Result<bool, PasswordError> {
        self.verify(password, hash.unwrap_or_else(|| self.nobodys.clone())).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| PasswordError::QueueFull)?;
        let running = Arc::clone(&self.running).acquire_owned().await.expect("this semaphore is never closed");
        let argon2 = self.argon2.clone();
        #[cfg(test)]
        let counted = tests::Counts::begin(&self.counts);
        let worked = tokio::task::spawn_blocking(move || {
            // The permits live as long as the work does, even where the caller has gone.
            let _permits = (place, running);
            #[cfg(test)]
            let _counted = counted;
            work(&argon2)
        });
        worked.await.unwrap_or_else(|error| Err(PasswordError::Failed(error.to_string())))
    }
}

/// A hash of the cost of all others, drawn rather than computed: no password has it but by chance of one in 2^256.
fn nobodys() -> PasswordHash {
    let (salt, hash) = (entropy::bytes::<SALT_BYTES>(), entropy::bytes::<HASH_BYTES>());
    let [salt, hash] = [salt.as_slice(), hash.as_slice()].map(Base64Unpadded::encode_string);
    PasswordHash(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${hash}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use tokio::sync::OwnedSemaphorePermit;
    use zeroize::Zeroizing;

    use super::{Password, PasswordError, PasswordHash, Passwords};

    /// Hashes of one pool, so far and at a time.
    #[derive(Debug, Default)]
    pub(crate) struct Counts {
        pub(crate) begun: AtomicU64,
        running: AtomicU64,
        pub(crate) running_max: AtomicU64,
    }

    /// Held while a hash runs.
    pub(super) struct Counted(Arc<Counts>);

    impl Counts {
        pub(super) fn begin(counts: &Arc<Self>) -> Counted {
            counts.begun.fetch_add(1, Relaxed);
            let running = counts.running.fetch_add(1, Relaxed) + 1;
            counts.running_max.fetch_max(running, Relaxed);
            Counted(Arc::clone(counts))
        }
    }

    impl Passwords {
        /// Lets no hash begin until the permits are dropped.
        pub(crate) async fn hold(&self) -> OwnedSemaphorePermit {
            let all = u32::try_from(self.running.available_permits()).unwrap();
            Arc::clone(&self.running).acquire_many_owned(all).await.unwrap()
        }

        /// Until as many hashes run or wait as may. Where they never come, it gives up rather than wait for ever.
        pub(crate) async fn until_full(&self) {
            let full = async {
                while self.places.available_permits() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), full).await.expect("hashes fill the queue");
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.running.fetch_sub(1, Relaxed);
        }
    }

    fn password(text: &str) -> Password {
        Password::parse(Zeroizing::new(text.to_owned())).unwrap()
    }

    #[tokio::test]
    async fn a_hash_says_what_it_cost_and_knows_its_password() {
        let passwords = Passwords::new();
        let hash = passwords.hash(password("correct horse")).await.unwrap();
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        assert!(passwords.verify(password("correct horse"), hash.clone()).await.unwrap());
        assert!(!passwords.verify(password("battery staple"), hash.clone()).await.unwrap());
        assert_ne!(passwords.hash(password("correct horse")).await.unwrap().0, hash.0, "each has its own salt");
    }

    #[tokio::test]
    async fn the_password_of_nobody_costs_the_same_and_is_never_right() {
        let passwords = Passwords::new();
        let hash = passwords.hash(password("correct horse")).await.unwrap();
        let shape = |hash: &PasswordHash| {
            let parts = hash.0.split('$').map(str::to_owned).collect::<Vec<_>>();
            (parts[..4].to_vec(), parts[4..].iter().map(String::len).collect::<Vec<_>>())
        };
        assert_eq!(shape(&passwords.nobodys), shape(&hash));
        assert!(!passwords.verify_if_any(password("correct horse"), None).await.unwrap());
        assert!(passwords.verify_if_any(password("correct horse"), Some(hash)).await.unwrap());
        assert_eq!(passwords.counts.begun.load(Relaxed), 3);
    }

    #[tokio::test]
    async fn a_hash_that_is_none_is_an_error_and_not_a_mismatch() {
        let verified = Passwords::new().verify(password("correct horse"), PasswordHash("plain".into())).await;
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
        passwords.until_full().await;
        assert!(matches!(passwords.run(|_| Ok(true)).await, Err(PasswordError::QueueFull)));
        release.send(()).unwrap();
        for done in waiting.into_iter().chain([running]) {
            assert!(done.await.unwrap().unwrap());
        }
        assert!(passwords.run(|_| Ok(true)).await.unwrap());
    }
}
