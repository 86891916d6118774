//! What is common to the calls of one target.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::snapshot::Snapshot;
use super::waiting::WaitQueue;
use crate::clock::{self, Stamp};
use crate::entropy::Entropy;
use crate::metrics::CallStats;
use crate::policy::Policy;

/// What the manager writes and the calls read.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) snapshot: ArcSwap<Snapshot>,
    pub(super) ledger: Arc<Ledger>,
}

impl Shared {
    /// Replaces the snapshot, and has those who wait look at it where that may help them. Stored first: a call registers
    /// before it looks, so it is either woken or has seen the new one.
    pub(super) fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let former = self.snapshot.swap(snapshot.clone());
        if snapshot.is_news_after(&former) {
            self.ledger.queue.wake_all();
        }
    }
}

/// What the calls write. It knows nothing of the snapshot: connections hold it, and the snapshot holds connections.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The service's name.
    pub(crate) service: Arc<str>,
    pub(super) queue: WaitQueue,
    pub(crate) stats: CallStats,
    /// Rung when the manager should look.
    pub(super) bell: Arc<Notify>,
    /// What stamps count from.
    pub(super) origin: Instant,
    in_flight_max: u64,
    /// Failures in a row that the manager is told of; absent: none.
    failures_told: Option<u32>,
    seed: u64,
    turns: AtomicU64,
    counts: Counts,
}

/// What every call writes, on cache lines of its own. Two counters that only rise: the first is also what draws are made
/// from, so that a pick changes one shared word and not two.
///
/// Relaxed, since nothing is read on the strength of them. Whoever sees an old `over` sees too many calls in flight; the cap
/// may refuse one early then, and never lets one through too many.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    begun: AtomicU64,
    over: AtomicU64,
}

/// As many calls are in flight as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capped;

impl Ledger {
    pub(super) fn new(service: Arc<str>, policy: &Policy, entropy: &Entropy, origin: Instant) -> Self {
        Self {
            service,
            queue: WaitQueue::new(policy.waiting_max),
            stats: CallStats::new(),
            bell: Arc::default(),
            origin,
            in_flight_max: policy.in_flight_max.into(),
            failures_told: policy.ejection.map(|rule| rule.failures.max(1)),
            seed: entropy.next(),
            // Somewhere, so that callers that start together do not go round together; low enough to never wrap.
            turns: AtomicU64::new(entropy.next() >> 32),
            counts: Counts::default(),
        }
    }

    /// Counts an attempt, if one more may be in flight, and gives its number.
    pub(super) fn begin(&self) -> Result<u64, Capped> {
        let before = self.counts.begun.fetch_add(1, Ordering::Relaxed);
        if before.saturating_sub(self.counts.over.load(Ordering::Relaxed)) >= self.in_flight_max {
            self.end();
            return Err(Capped);
        }
        Ok(before)
    }

    /// 64 uniform bits for the pick of the attempt with this number.
    pub(super) fn draw(&self, attempt: u64) -> u64 {
        Entropy::nth(self.seed, attempt)
    }

    /// An attempt that was counted is over.
    pub(super) fn end(&self) {
        self.counts.over.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn in_flight(&self) -> u32 {
        let over = self.counts.over.load(Ordering::Relaxed);
        let begun = self.counts.begun.load(Ordering::Relaxed);
        u32::try_from(begun.saturating_sub(over)).unwrap_or(u32::MAX)
    }

    pub(super) fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Stamp {
        self.stamp(clock::now())
    }

    /// When that is on the clock of this target.
    pub(crate) fn stamp(&self, at: Instant) -> Stamp {
        Stamp::new(self.origin, at)
    }

    /// When that is on the clock of timers.
    pub(crate) fn instant(&self, at: Stamp) -> Instant {
        at.instant(self.origin)
    }

    /// An endpoint has failed so many calls in a row: the manager judges it. Once, however many more fail: if it may not be
    /// ejected now, then what makes it possible will ring too.
    pub(super) fn tell_failures(&self, in_a_row: u32) {
        if self.failures_told == Some(in_a_row) {
            self.bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attempt_too_many_is_refused_and_leaves_no_trace() {
        let policy = Policy { in_flight_max: 2, ..Policy::default() };
        let ledger = Ledger::new("user-svc".into(), &policy, &Entropy::seeded(1), clock::now());
        assert_ne!(ledger.begin().unwrap(), ledger.begin().unwrap());
        assert_eq!((ledger.begin(), ledger.begin()), (Err(Capped), Err(Capped)));
        assert_eq!(ledger.in_flight(), 2);
        ledger.end();
        assert!(ledger.begin().is_ok());
    }
}
