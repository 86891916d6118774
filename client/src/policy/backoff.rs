//! The pause before an endpoint is dialled again: full jitter under a ceiling that doubles.

use std::time::Duration;

use crate::entropy::Entropy;

/// First ceiling. gRPC's 1 s is made for the open internet; in a mesh an instance is back within a second.
const BASE: Duration = Duration::from_millis(100);
/// Ceiling of an endpoint that answers and then closes: it is alive, so its calls must not wait out their failfast time.
const FLAPPING_MAX: Duration = Duration::from_secs(1);

/// How often in a row an endpoint let us down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// Ceiling of an endpoint that refuses or does not answer.
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet; pauses will stay below `max`.
    pub(crate) fn new(max: Duration) -> Self {
        Self { max, failures: 0 }
    }

    /// Forgets what has failed.
    pub(crate) fn start_over(&mut self) {
        self.failures = 0;
    }

    /// The pause after an attempt that failed.
    pub(crate) fn after_failure(&mut self, entropy: &Entropy) -> Duration {
        let pause = entropy.up_to(self.ceiling(self.max));
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// The pause after a connection ended that was READY for `held`: none, unless they keep ending young.
    pub(crate) fn after_loss(&mut self, held: Duration, entropy: &Entropy) -> Duration {
        if held >= self.ceiling(self.max.min(FLAPPING_MAX)) {
            self.start_over();
        }
        let pause = match self.failures {
            0 => Duration::ZERO,
            _ => entropy.up_to(self.ceiling(self.max.min(FLAPPING_MAX))),
        };
        self.failures = self.failures.saturating_add(1);
        pause
    }

    fn ceiling(self, max: Duration) -> Duration {
        // 2^16 times the base is far beyond any ceiling; the bound only keeps the shift in range.
        (BASE * (1 << self.failures.min(16))).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_stay_under_a_ceiling_that_doubles_to_five_seconds() {
        let entropy = Entropy::seeded(1);
        let mut backoff = Backoff::new(MAX);
        for ceiling_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000] {
            assert!(backoff.after_failure(&entropy) < Duration::from_millis(ceiling_ms));
        }
        for _ in 0..100 {
            backoff.after_failure(&entropy);
        }
        assert!(backoff.after_failure(&entropy) < MAX);
    }

    #[test]
    fn a_connection_that_held_is_replaced_at_once() {
        let entropy = Entropy::seeded(1);
        let mut backoff = Backoff::new(MAX);
        backoff.after_failure(&entropy);
        backoff.after_failure(&entropy);
        assert_eq!(backoff.after_loss(Duration::from_secs(60), &entropy), Duration::ZERO);
    }

    #[test]
    fn connections_that_end_young_are_replaced_slower_but_below_failfast() {
        let entropy = Entropy::seeded(1);
        let mut backoff = Backoff::new(MAX);
        assert_eq!(backoff.after_loss(Duration::ZERO, &entropy), Duration::ZERO);
        let pauses: Vec<_> = (0..50).map(|_| backoff.after_loss(Duration::from_millis(1), &entropy)).collect();
        assert!(pauses.iter().all(|pause| *pause < FLAPPING_MAX));
        assert!(pauses.iter().any(|pause| *pause > FLAPPING_MAX / 2));
    }
}
