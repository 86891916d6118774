//! The task that keeps the keys: asks for those of users, and looks at the files of trusted ones.

use std::fmt::Display;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use jsonwebtoken::DecodingKey;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::keys::Keys;
use crate::auth::jwk::Jwk;
use crate::auth::trusted::{KEYS_MAX, TrustedFile};
use crate::clock;

/// How often the keys of users are asked for, so that one that was withdrawn is not trusted for longer.
const ASK_EVERY: Duration = Duration::from_secs(5 * 60);
/// How long after that, because nobody answered; and how often for tokens whose key is unknown, in the long run.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How often at once for those: when several instances of user-svc start, each comes with a key of its own.
const ASKS_AT_ONCE: u32 = 3;
/// The same while no answer has ever come, when no user's token can be verified.
const ASK_FIRST: Duration = Duration::from_secs(1);
/// Longest time that an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often the files are looked at for a change.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same for an unknown key: who has just added one uses it at once.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

type Answer = Pin<Box<dyn Future<Output = Result<Vec<Jwk>, String>> + Send>>;

/// Where the keys of users come from.
pub struct KeySource(Option<Box<dyn Fn() -> Answer + Send + Sync>>);

impl KeySource {
    /// A question that is asked again and again. Its answer is all keys that hold now; no key at all is no answer.
    pub fn new<F, E>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Vec<Jwk>, E>> + Send + 'static,
        E: Display,
    {
        Self(Some(Box::new(move || {
            let answer = ask();
            Box::pin(async { answer.await.map_err(|error| error.to_string()) })
        })))
    }

    /// No users: only trusted keys are verified with.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }
}

/// How checks reach the keeper.
#[derive(Default)]
pub(super) struct Asking {
    asked: Notify,
    /// From when on a round can bring something new; `None` while one is under way.
    from: Mutex<Option<Instant>>,
}

impl Asking {
    /// Whether a round now might tell of a key that was not known.
    pub(super) fn is_worth_it(&self, now: Instant) -> bool {
        self.from.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|from| now >= from)
    }

    /// Asks for a round. Who asks meanwhile gets the same one.
    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }

    fn under_way(&self) {
        *self.from.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn not_before(&self, from: Instant) {
        *self.from.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
    }
}

pub(super) struct Keeper {
    users: KeySource,
    /// The last good answer.
    user_keys: Option<Vec<Jwk>>,
    trusted: Vec<TrustedFile>,
    asking: Arc<Asking>,
    /// Tells after every round, whether anything changed or not.
    told: watch::Sender<Arc<Keys>>,
    /// When users' keys will be asked for unless somebody asks before.
    ask_at: Instant,
    /// When every question that was asked for somebody is paid off, at one in [`ASK_AGAIN`].
    paid_at: Instant,
    /// Whether the last question had no good answer; said once, not at each question.
    unanswered: bool,
    looked_for_somebody_at: Option<Instant>,
    look_at: Instant,
}

impl Keeper {
    pub(super) fn new(
        users: KeySource,
        trusted: Vec<TrustedFile>,
        asking: Arc<Asking>,
    ) -> (Self, watch::Receiver<Arc<Keys>>) {
        let user_keys = users.0.is_none().then(Vec::new);
        let keys = Arc::new(keys(user_keys.as_deref(), &trusted));
        let (told, receiver) = watch::channel(keys);
        let now = clock::now();
        let keeper = Self {
            users,
            user_keys,
            trusted,
            asking,
            told,
            ask_at: now,
            paid_at: now,
            unanswered: false,
            looked_for_somebody_at: None,
            look_at: now + LOOK_EVERY,
        };
        (keeper, receiver)
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let for_somebody = tokio::select! {
                biased; // one round for a question that is due anyway and somebody who asks it
                () = self.asking.asked.notified() => true,
                () = sleep_until(self.ask_at), if self.users.0.is_some() => false,
                () = sleep_until(self.look_at) => false,
            };
            self.asking.under_way();
            self.round(for_somebody).await;
        }
    }

    async fn round(&mut self, for_somebody: bool) {
        let now = clock::now();
        let mut changed = false;
        let looked_lately = self.looked_for_somebody_at.is_some_and(|at| now < at + LOOK_AGAIN);
        if now >= self.look_at || for_somebody && !looked_lately {
            // A few small files, at most once a second.
            for file in &mut self.trusted {
                changed |= file.look();
            }
            self.look_at = now + LOOK_EVERY;
            if for_somebody {
                self.looked_for_somebody_at = Some(now);
            }
        }
        let overdraft = ASK_AGAIN * (ASKS_AT_ONCE - 1);
        if now >= self.ask_at {
            changed |= self.ask(now).await;
        } else if for_somebody && now + overdraft >= self.paid_at {
            self.paid_at = self.paid_at.max(now) + ASK_AGAIN;
            changed |= self.ask(now).await;
        }
        let keys = changed.then(|| Arc::new(keys(self.user_keys.as_deref(), &self.trusted)));
        // Before it is told, so that who is told does not ask again.
        let look_again = self.looked_for_somebody_at.map_or(now, |at| at + LOOK_AGAIN);
        let ask_again = self.paid_at.checked_sub(overdraft).unwrap_or(now);
        let ask_again = self.users.0.is_some().then_some(ask_again);
        let look_again = (!self.trusted.is_empty()).then_some(look_again);
        let earliest = [look_again, ask_again].into_iter().flatten().min();
        self.asking.not_before(earliest.unwrap_or(now + ASK_EVERY));
        // Who asked meanwhile is told by this round.
        let _ = self.asking.asked.notified().now_or_never();
        self.told.send_modify(|told| {
            if let Some(keys) = keys {
                *told = keys;
            }
        });
    }

    /// Asks for the keys of users; tells whether they are others now. Where nobody answers, the last answer stays.
    async fn ask(&mut self, now: Instant) -> bool {
        let Some(ask) = &self.users.0 else { return false };
        let answer = timeout(ANSWER_MAX, ask()).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        match answer.and_then(usable) {
            Ok(keys) => {
                self.ask_at = now + ASK_EVERY;
                self.unanswered = false;
                let changed = self.user_keys.as_ref() != Some(&keys);
                if changed {
                    tracing::info!(keys = keys.len(), "keys of users have changed");
                    self.user_keys = Some(keys);
                }
                changed
            }
            Err(error) => {
                let known = self.user_keys.is_some();
                self.ask_at = now + if known { ASK_AGAIN } else { ASK_FIRST };
                if !self.unanswered {
                    tracing::warn!(
                        error,
                        known,
                        "keys of users cannot be fetched; those known before stay, the question too"
                    );
                }
                self.unanswered = true;
                false
            }
        }
    }
}

/// The keys of an answer that can be used. One that cannot takes nothing from the others.
fn usable(mut keys: Vec<Jwk>) -> Result<Vec<Jwk>, String> {
    keys.truncate(KEYS_MAX);
    keys.retain(|key| match key.decoding_key() {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(%error, "a key of users is left out");
            false
        }
    });
    if keys.is_empty() { Err("the answer holds no key".to_owned()) } else { Ok(keys) }
}

fn keys(users: Option<&[Jwk]>, trusted: &[TrustedFile]) -> Keys {
    let decoded = |keys: &[Jwk]| -> Vec<(String, DecodingKey)> {
        keys.iter().filter_map(|key| Some((key.kid.clone(), key.decoding_key().ok()?))).collect()
    };
    Keys::new(users.map(decoded), trusted.iter().flat_map(TrustedFile::keys))
}
