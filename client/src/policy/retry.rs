//! Whether a failed attempt is repeated.
//!
//! What a server cannot have processed is repeated always and for free. What it may have processed is repeated only when
//! the method is declared safe to repeat, and within the target's budget.

use std::time::Duration;

use tokio::time::Instant;

/// Attempts of one call that may have been processed, the first included. gRFC A6 caps at 5; three see two endpoints fail.
const ATTEMPTS_MAX: u32 = 3;

/// How long a call is sent again that nobody has processed. Time is the bound, and not a count: servers that are full or
/// leaving are so for a time, and the pauses between the repetitions keep their number small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Until the call's deadline, which is watched elsewhere; for ever where it has none and waits for READY.
    Whole,
    /// For this long since the first refusal: a call without a deadline must end among servers that refuse everything.
    For(Duration),
}

/// How an attempt failed, as far as that decides about the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The server cannot have processed it: not sent, refused, beyond a GOAWAY's last stream, or another service's.
    Unprocessed,
    /// The connection died after the request left.
    Lost,
    /// The server answered UNAVAILABLE, and `elsewhere` says whether an endpoint is left that was not tried.
    Unavailable { elsewhere: bool },
    /// Anything else: the call's outcome.
    Final,
}

/// Whether the request can be sent again from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// It is all still here.
    Possible,
    /// Part of its body is gone, or too large to keep.
    Gone,
}

/// What happens after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send it again; this does not count as a retry.
    RePick,
    /// Send it again as a retry.
    Retry,
    /// Tell the caller.
    GiveUp,
}

/// The attempts of one call so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempts {
    patience: Patience,
    /// When the call was first found unprocessed.
    refused: Option<Instant>,
    re_picks: u32,
    retries: u32,
}

impl Attempts {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, refused: None, re_picks: 0, retries: 0 }
    }

    /// Decides at `now` about a failed attempt. `repeatable` and `budget` are asked only when they matter, in this order:
    /// a retry that is not allowed anyway takes nothing out of the budget.
    pub(crate) fn judge(
        &mut self,
        failure: Failure,
        replay: Replay,
        now: Instant,
        repeatable: impl FnOnce() -> bool,
        budget: impl FnOnce() -> bool,
    ) -> Verdict {
        if cfg!(feature = "no-resilience") {
            return Verdict::GiveUp;
        }
        match (failure, replay) {
            (Failure::Final | Failure::Unavailable { elsewhere: false }, _) | (_, Replay::Gone) => Verdict::GiveUp,
            (Failure::Unprocessed, Replay::Possible) if self.is_patient(now) => {
                self.re_picks = self.re_picks.saturating_add(1);
                Verdict::RePick
            }
            (Failure::Unprocessed, Replay::Possible) => Verdict::GiveUp,
            (Failure::Lost | Failure::Unavailable { elsewhere: true }, Replay::Possible) => {
                let allowed = self.retries + 1 < ATTEMPTS_MAX && repeatable() && budget();
                if allowed {
                    self.retries += 1;
                    Verdict::Retry
                } else {
                    Verdict::GiveUp
                }
            }
        }
    }

    fn is_patient(&mut self, now: Instant) -> bool {
        let first = *self.refused.get_or_insert(now);
        match self.patience {
            Patience::Whole => true,
            Patience::For(patience) => now.saturating_duration_since(first) <= patience,
        }
    }

    /// Retries made: what `grpc-previous-rpc-attempts` says.
    pub(crate) fn retries(self) -> u32 {
        self.retries
    }

    /// Free repetitions made.
    pub(crate) fn re_picks(self) -> u32 {
        self.re_picks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const ANSWERED: Failure = Failure::Unavailable { elsewhere: true };

    fn never() -> bool {
        panic!("not to be asked")
    }

    #[test]
    fn what_was_not_processed_is_repeated_for_free_until_patience_ends() {
        let begun = clock::now();
        let mut attempts = Attempts::new(Patience::For(Duration::from_secs(3)));
        let mut at = |ms| {
            let now = begun + Duration::from_millis(ms);
            attempts.judge(Failure::Unprocessed, Replay::Possible, now, never, never)
        };
        assert!((0..=3_000).all(|ms| at(ms) == Verdict::RePick));
        assert_eq!(at(3_001), Verdict::GiveUp);
        assert_eq!(attempts.retries(), 0);
    }

    #[test]
    fn a_call_with_a_deadline_of_its_own_is_repeated_as_long_as_it_lasts() {
        let begun = clock::now();
        let mut attempts = Attempts::new(Patience::Whole);
        for hour in 0..1_000 {
            let now = begun + Duration::from_secs(hour * 3_600);
            assert_eq!(attempts.judge(Failure::Unprocessed, Replay::Possible, now, never, never), Verdict::RePick);
        }
    }

    #[test]
    fn what_may_have_been_processed_is_tried_three_times_when_it_is_repeatable() {
        let now = clock::now();
        let mut attempts = Attempts::new(Patience::Whole);
        assert_eq!(attempts.judge(Failure::Lost, Replay::Possible, now, || true, || true), Verdict::Retry);
        assert_eq!(attempts.judge(ANSWERED, Replay::Possible, now, || true, || true), Verdict::Retry);
        assert_eq!(attempts.judge(Failure::Lost, Replay::Possible, now, || true, || true), Verdict::GiveUp);
        assert_eq!(attempts.retries(), 2);
    }

    #[test]
    fn a_retry_that_is_not_allowed_takes_nothing_from_the_budget() {
        let now = clock::now();
        let mut attempts = Attempts::new(Patience::Whole);
        assert_eq!(attempts.judge(Failure::Lost, Replay::Possible, now, || false, never), Verdict::GiveUp);
        assert_eq!(attempts.judge(Failure::Lost, Replay::Gone, now, never, never), Verdict::GiveUp);
        assert_eq!(attempts.judge(Failure::Final, Replay::Possible, now, never, never), Verdict::GiveUp);
        let alone = Failure::Unavailable { elsewhere: false };
        assert_eq!(attempts.judge(alone, Replay::Possible, now, never, never), Verdict::GiveUp);
        assert_eq!(attempts.judge(Failure::Lost, Replay::Possible, now, || true, || false), Verdict::GiveUp);
        assert_eq!(attempts, Attempts::new(Patience::Whole));
    }
}
