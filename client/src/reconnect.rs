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
///
/// Where there are several registries each is tried at once after the one before, and only a round of them all is
/// followed by a wait.
#[derive(Clone, Debug)]
pub(crate) struct Reconnect {
    cap: Duration,
    /// How many there are to try; at least 1.
    doors: u32,
    failures: u32,
}

impl Reconnect {
    /// A schedule whose waits end at `cap`, for something that `doors` lead to.
    pub(crate) fn new(cap: Duration, doors: usize) -> Self {
        Self { cap, doors: u32::try_from(doors).unwrap_or(u32::MAX).max(1), failures: 0 }
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
        // The only one there is may have hung up for a reason of its own: it is asked once more at once.
        let tried = if self.doors == 1 { self.failures } else { self.failures.saturating_add(1) };
        let rounds = if tried % self.doors == 0 { tried / self.doors } else { 0 };
        let span = match rounds.checked_sub(1) {
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
        let mut schedule = Reconnect::new(CAP, 1);
        assert_eq!(schedule.wait(Duration::ZERO, &entropy), Duration::ZERO);
        let waits: Vec<Duration> = (0..1_000).map(|_| schedule.wait(Duration::ZERO, &entropy)).collect();
        assert!(waits.iter().all(|wait| *wait < CAP));
        assert!(waits[0] < FIRST_SPAN && waits[1] < FIRST_SPAN * 2);
        assert!(waits.iter().any(|wait| *wait > CAP / 10 * 9));
    }

    #[test]
    fn every_other_registry_is_tried_at_once_and_a_round_of_them_is_followed_by_a_wait() {
        let entropy = Entropy::seeded(3);
        let mut schedule = Reconnect::new(CAP, 3);
        let waits: Vec<Duration> = (0..3_000).map(|_| schedule.wait(Duration::ZERO, &entropy)).collect();
        for round in waits.chunks(3) {
            assert_eq!(round[..2], [Duration::ZERO; 2]);
            assert!(!round[2].is_zero() && round[2] < CAP);
        }
        assert!(waits[2] < FIRST_SPAN && waits[5] < FIRST_SPAN * 2);
        assert!(waits.iter().any(|wait| *wait > CAP / 10 * 9));
    }

    #[test]
    fn only_what_held_starts_over() {
        let entropy = Entropy::seeded(3);
        let mut schedule = Reconnect::new(CAP, 1);
        let waits =
            |schedule: &mut Reconnect, held| -> Duration { (0..20).map(|_| schedule.wait(held, &entropy)).sum() };
        assert!(waits(&mut schedule, CAP / 2) > CAP);
        assert_eq!(waits(&mut schedule, CAP), Duration::ZERO);
    }
}
