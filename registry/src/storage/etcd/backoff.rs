//! How long to wait before etcd is asked again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rand::RngExt;

/// The first span.
const FIRST: Duration = Duration::from_millis(50);

/// Full jitter over a span that doubles up to a cap, so that nodes that lost the same etcd do not come back in step. Shared
/// by everything that asks for one purpose; what works starts it over.
#[derive(Debug)]
pub(crate) struct Backoff {
    cap: Duration,
    failures: AtomicU32,
}

impl Backoff {
    /// Spans that end at `cap`.
    pub(crate) fn new(cap: Duration) -> Self {
        Self { cap, failures: AtomicU32::new(0) }
    }

    /// It worked.
    pub(crate) fn worked(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// It did not; nothing is waited before the first time.
    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The wait before the next time.
    pub(crate) fn wait(&self) -> Duration {
        let Some(doublings) = self.failures.load(Ordering::Relaxed).checked_sub(1) else { return Duration::ZERO };
        let span = FIRST.saturating_mul(2_u32.saturating_pow(doublings.min(16))).min(self.cap);
        let mut rng = mesh_runtime::entropy::rng(mesh_runtime::entropy::seed());
        span.mul_f64(rng.random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_cap_and_end_with_success() {
        let backoff = Backoff::new(Duration::from_secs(1));
        assert_eq!(backoff.wait(), Duration::ZERO);
        backoff.failed();
        assert!((0..100).all(|_| backoff.wait() <= FIRST));
        (0..100).for_each(|_| backoff.failed());
        let waits: Vec<Duration> = (0..100).map(|_| backoff.wait()).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(1)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_millis(700)));
        backoff.worked();
        assert_eq!(backoff.wait(), Duration::ZERO);
    }
}
