//! What calls, the driver and the manager know in common about one connection.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Why a connection takes no more calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The peer said GOAWAY; open streams finish.
    GoAway,
    /// The peer closed it, or it broke.
    Closed(String),
    /// The peer did not answer a PING.
    Silent,
    /// Behind the address is another service.
    Misdirected,
    /// Nobody wants it any more.
    Released,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GoAway => f.write_str("the server is going away"),
            Self::Closed(why) => write!(f, "connection closed: {why}"),
            Self::Silent => f.write_str("no answer to a ping"),
            Self::Misdirected => f.write_str("another service answers at this address"),
            Self::Released => f.write_str("connection released"),
        }
    }
}

/// The state of one connection, as atomics: read and written by every call on it.
#[derive(Debug)]
pub(crate) struct Vitals {
    born: Instant,
    /// From the first PING to its PONG.
    rtt: Duration,
    /// Calls between their pick and their trailers.
    open: AtomicU32,
    /// How many may be open: the peer's MAX_CONCURRENT_STREAMS, and 0 once `ending` is set.
    limit: AtomicU32,
    /// How often `limit` was changed. Compared, and not the limit itself: one that falls and rises again in between is a
    /// change too, for a call that looked meanwhile.
    limits: AtomicU32,
    /// When a byte came after the last probe: nanoseconds since `born`.
    heard: AtomicU64,
    /// When a call was last given up without a sign of an answer: nanoseconds since `born`.
    given_up: AtomicU64,
    ending: OnceLock<Ending>,
    /// Rung when the manager should look again.
    bell: Arc<Notify>,
}

impl Vitals {
    pub(crate) fn new(born: Instant, rtt: Duration, bell: Arc<Notify>) -> Self {
        Self {
            born,
            rtt,
            open: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            limits: AtomicU32::new(0),
            heard: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            ending: OnceLock::new(),
            bell,
        }
    }

    /// How long the first PONG took: what the network and the peer need for the least of answers, and the first guess of what
    /// a call will take.
    pub(crate) fn rtt(&self) -> Duration {
        self.rtt
    }

    /// Takes a place for one call; `false` when there is none. Sequentially consistent, like [`Vitals::leave`]: a call that
    /// queues because this failed must be seen by whoever frees the place (`target::waiting`).
    pub(crate) fn enter(&self) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        let place = |open: u32| (open < limit).then_some(open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, place).is_ok()
    }

    /// Gives the place back.
    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.open.load(Ordering::SeqCst) < self.limit.load(Ordering::SeqCst)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// How often the peer has changed how many streams it allows.
    pub(crate) fn limits(&self) -> u32 {
        self.limits.load(Ordering::SeqCst)
    }

    /// The peer allows `limit` streams now.
    pub(crate) fn set_limit(&self, limit: usize) {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        if self.ending.get().is_some() || self.limit.swap(limit, Ordering::SeqCst) == limit {
            return;
        }
        if self.ending.get().is_some() {
            // It ended between the look and the write: the zero must stand last.
            self.limit.store(0, Ordering::SeqCst);
        }
        self.limits.fetch_add(1, Ordering::SeqCst);
        self.bell.notify_one();
    }

    /// Takes no more calls from now on. The first reason stands.
    pub(crate) fn retire(&self, ending: Ending) {
        if self.ending.set(ending).is_ok() {
            self.limit.store(0, Ordering::SeqCst);
            self.bell.notify_one();
        }
    }

    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.ending.get()
    }

    /// Notes that a call was given up at `now`, by its caller or for a faster answer elsewhere, with nothing come of it.
    pub(crate) fn give_up(&self, now: Instant) {
        self.given_up.store(self.nanos(now), Ordering::Relaxed);
    }

    /// Whether a call was given up unanswered after the last byte came at `heard`: that nobody waits any more is no sign of
    /// life.
    pub(super) fn is_owed(&self, heard: Instant) -> bool {
        self.given_up.load(Ordering::Relaxed) > self.nanos(heard)
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes that bytes came at `now`, and has the manager look, which asked for a sign of life.
    pub(super) fn hear(&self, now: Instant) {
        self.heard.store(self.nanos(now), Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// When a byte came after the last probe; when it was made, as long as none was asked for.
    pub(crate) fn heard(&self) -> Instant {
        self.born + Duration::from_nanos(self.heard.load(Ordering::Relaxed))
    }

    /// A connection that takes up to `limit` calls, for tests of those who only read it.
    #[cfg(test)]
    pub(crate) fn with_limit(limit: usize) -> Self {
        let vitals = Self::new(crate::clock::now(), Duration::ZERO, Arc::default());
        vitals.set_limit(limit);
        vitals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_calls_enter_than_the_peer_allows() {
        let vitals = Vitals::with_limit(2);
        assert!(vitals.enter() && vitals.enter());
        assert!(!vitals.enter() && !vitals.has_room());
        vitals.leave();
        assert!(vitals.enter());
    }

    #[test]
    fn a_retired_connection_stays_closed_whatever_the_peer_allows() {
        let vitals = Vitals::with_limit(10);
        assert!(vitals.enter());
        vitals.retire(Ending::GoAway);
        vitals.retire(Ending::Silent);
        vitals.set_limit(100);
        assert!(!vitals.enter() && vitals.is_busy());
        assert_eq!(vitals.ending(), Some(&Ending::GoAway));
    }
}
