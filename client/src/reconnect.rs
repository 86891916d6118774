//! When to try again what must never be given up: the Watch stream, the registration, the KeepAlive stream.

use std::time::Duration;

use crate::entropy::Entropy;

/// The span of the first jittered wait; each further one doubles it up to the cap. A registry that restarts is back
/// within a second, so the first waits are short against that.
const FIRST_SPAN: Duration = Duration::from_millis(200);

/// The longest wait, wherever nothing shorter is asked for (DESIGN §4).
pub(crate) const CAP: Duration = Duration::from_secs(5);

/// A schedule without an end: at once, then full jitter over a span that doubles up to a cap. Full jitter spreads a crowd
/// that lost the same registry at the same moment (AWS Architecture Blog, "Exponential Backoff and Jitter", 2015).
#[derive(Clone, Debug)]
pub(crate) struct Reconnect {
    cap: Duration,
    failures: u32,
}

impl Reconnect {
    /// A schedule whose waits end at `cap`.
    pub(crate) fn new(cap: Duration) -> Self {
        Self { cap, failures: 0 }
    }

    /// Another cap from now on.
    pub(crate) fn set_cap(&mut self, cap: Duration) {
        self.cap = cap;
    }

    /// How long to wait after something that worked for `held` broke. Only what held for as long as the cap starts the
    /// schedule over: a registry that answers and hangs up is not asked in a tight loop.
    pub(crate) fn wait(&mut self, held: Duration, entropy: &Entropy) -> Duration {
        if held >= self.cap {
            self.failures = 0;
        }
        let span = match self.failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_SPAN.saturating_mul(2_u32.saturating_pow(doublings)).min(self.cap),
        };
        self.failures = self.failures.saturating_add(1);
        entropy.up_to(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wait_is_none_and_the_others_stay_below_the_cap_for_ever() {
        let entropy = Entropy::seeded(3);
        let mut schedule = Reconnect::new(CAP);
        assert_eq!(schedule.wait(Duration::ZERO, &entropy), Duration::ZERO);
        let waits: Vec<Duration> = (0..1_000).map(|_| schedule.wait(Duration::ZERO, &entropy)).collect();
        assert!(waits.iter().all(|wait| *wait < CAP));
        assert!(waits[0] < FIRST_SPAN && waits[1] < FIRST_SPAN * 2);
        assert!(waits.iter().any(|wait| *wait > CAP / 10 * 9));
    }

    #[test]
    fn only_what_held_starts_over() {
        let entropy = Entropy::seeded(3);
        let mut schedule = Reconnect::new(CAP);
        let waits =
            |schedule: &mut Reconnect, held| -> Duration { (0..20).map(|_| schedule.wait(held, &entropy)).sum() };
        assert!(waits(&mut schedule, CAP / 2) > CAP);
        assert_eq!(waits(&mut schedule, CAP), Duration::ZERO);
    }
}
