//! Whether a failed attempt is repeated.
//!
//! What a server cannot have processed is repeated always and for free. What it may have processed is repeated only when
//! the method is declared safe to repeat, and within the target's budget.

/// Attempts of one call that may have been processed, the first included. gRFC A6 caps at 5; three see two endpoints fail.
const ATTEMPTS_MAX: u32 = 3;
/// Repetitions of one call that were certainly not processed. The deadline is the real bound; this one ends a call without
/// a deadline among servers that refuse everything.
const RE_PICKS_MAX: u32 = 16;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    re_picks: u32,
    retries: u32,
}

impl Attempts {
    /// Decides about a failed attempt. `repeatable` and `budget` are asked only when they matter, in this order: a
    /// retry that is not allowed anyway takes nothing out of the budget.
    pub(crate) fn judge(
        &mut self,
        failure: Failure,
        replay: Replay,
        repeatable: impl FnOnce() -> bool,
        budget: impl FnOnce() -> bool,
    ) -> Verdict {
        if cfg!(feature = "no-resilience") {
            return Verdict::GiveUp;
        }
        match (failure, replay) {
            (Failure::Final | Failure::Unavailable { elsewhere: false }, _) | (_, Replay::Gone) => Verdict::GiveUp,
            (Failure::Unprocessed, Replay::Possible) if self.re_picks < RE_PICKS_MAX => {
                self.re_picks += 1;
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

    const ANSWERED: Failure = Failure::Unavailable { elsewhere: true };

    fn never() -> bool {
        panic!("not to be asked")
    }

    #[test]
    fn what_was_not_processed_is_repeated_for_free_and_a_bounded_number_of_times() {
        let mut attempts = Attempts::default();
        for _ in 0..RE_PICKS_MAX {
            assert_eq!(attempts.judge(Failure::Unprocessed, Replay::Possible, never, never), Verdict::RePick);
        }
        assert_eq!(attempts.judge(Failure::Unprocessed, Replay::Possible, never, never), Verdict::GiveUp);
        assert_eq!(attempts.retries(), 0);
    }

    #[test]
    fn what_may_have_been_processed_is_tried_three_times_when_it_is_repeatable() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.judge(Failure::Lost, Replay::Possible, || true, || true), Verdict::Retry);
        assert_eq!(attempts.judge(ANSWERED, Replay::Possible, || true, || true), Verdict::Retry);
        assert_eq!(attempts.judge(Failure::Lost, Replay::Possible, || true, || true), Verdict::GiveUp);
        assert_eq!(attempts.retries(), 2);
    }

    #[test]
    fn a_retry_that_is_not_allowed_takes_nothing_from_the_budget() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.judge(Failure::Lost, Replay::Possible, || false, never), Verdict::GiveUp);
        assert_eq!(attempts.judge(Failure::Lost, Replay::Gone, never, never), Verdict::GiveUp);
        assert_eq!(attempts.judge(Failure::Final, Replay::Possible, never, never), Verdict::GiveUp);
        let alone = Failure::Unavailable { elsewhere: false };
        assert_eq!(attempts.judge(alone, Replay::Possible, never, never), Verdict::GiveUp);
        assert_eq!(attempts.judge(Failure::Lost, Replay::Possible, || true, || false), Verdict::GiveUp);
        assert_eq!(attempts, Attempts::default());
    }
}
