//! Whether a failed attempt is repeated.
//!
//! What a server cannot have processed is repeated always and for free. What it may have processed is repeated only when
//! it ended with a status that the policy tries again, the method is declared safe to repeat, the server does not ask
//! otherwise, and the target's budget has one left.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tonic::Code;

use super::Retry;
use crate::clock::Stamp;

/// A server's own word on when to come back (gRFC A6).
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The longest that a call is put off by. A server that asks for more asks not to be asked again: the call may have no deadline,
/// and what it keeps of its request is kept that long.
const PUSHBACK_MAX: Duration = Duration::from_secs(60);

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
    /// The server may have processed it. `code` is what the caller would see: the server's own answer, or what stands for
    /// the end of the stream.
    Processed { code: Code, pushback: Pushback },
    /// Sending it again would fail in the same way.
    Final,
}

/// What a server that failed a call asks of the next attempt, from the least to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pushback {
    /// Nothing.
    #[default]
    None,
    /// To come after this time, and not before.
    After(Duration),
    /// Not to come.
    Stop,
}

impl Pushback {
    /// Reads the answer of only a head. Anything but a number of milliseconds means stop (gRFC A6), and so does a minute and
    /// more.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        match headers.get(PUSHBACK) {
            None => Self::None,
            Some(value) => value
                .to_str()
                .ok()
                .and_then(|text| text.parse::<u32>().ok())
                .map(|ms| Duration::from_millis(ms.into()))
                .filter(|wait| *wait <= PUSHBACK_MAX)
                .map_or(Self::Stop, Self::After),
        }
    }
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
    /// Send it again as a retry: when the server says, or when there is somebody to send it to.
    Retry { after: Option<Duration> },
    /// Tell the caller.
    GiveUp(GaveUp),
}

/// Why a failed attempt was the last one: what the caller can do something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GaveUp {
    /// The policy does not try this again.
    Final,
    /// Servers refused it for as long as the call has patience.
    Patience,
    /// Nobody says that it may be done twice.
    NotRepeatable,
    /// What was sent is no longer here.
    BodyGone,
    /// The policy's number of attempts was made.
    Attempts(u32),
    /// Retries have made up their share of the load.
    Budget,
    /// The server asks not to be asked again.
    Pushback,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Final => f.write_str("not repeated"),
            Self::Patience => f.write_str("not repeated any more: give the call a deadline to have it wait longer"),
            Self::NotRepeatable => f.write_str(
                "not repeated, for it may have been processed: declare the method's idempotency_level if twice is as good as once",
            ),
            Self::BodyGone => f.write_str("not repeated: more of the request was sent than is kept"),
            Self::Attempts(made) => write!(f, "given up after {made} attempts"),
            Self::Budget => f.write_str("not repeated: the retry budget is spent"),
            Self::Pushback => f.write_str("not repeated: the server asks not to"),
        }
    }
}

/// The attempts of one call so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempts {
    patience: Patience,
    /// When the call was first found unprocessed.
    refused: Option<Stamp>,
    re_picks: u32,
    retries: u32,
    hedges: u32,
}

impl Attempts {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, refused: None, re_picks: 0, retries: 0, hedges: 0 }
    }

    /// Decides at `now` about a failed attempt. `repeatable` and `budget` are asked only when they matter, in this order:
    /// a retry that is not allowed anyway takes nothing out of the budget.
    pub(crate) fn judge(
        &mut self,
        failure: Failure,
        replay: Replay,
        policy: &Retry,
        now: Stamp,
        repeatable: impl FnOnce() -> bool,
        budget: impl FnOnce() -> bool,
    ) -> Verdict {
        if cfg!(feature = "no-resilience") {
            return Verdict::GiveUp(GaveUp::Final);
        }
        let (code, pushback) = match failure {
            Failure::Final => return Verdict::GiveUp(GaveUp::Final),
            _ if replay == Replay::Gone => return Verdict::GiveUp(GaveUp::BodyGone),
            Failure::Unprocessed if self.is_patient(now) => {
                self.re_picks = self.re_picks.saturating_add(1);
                return Verdict::RePick;
            }
            Failure::Unprocessed => return Verdict::GiveUp(GaveUp::Patience),
            Failure::Processed { code, pushback } => (code, pushback),
        };
        let gave_up = if !policy.codes.contains(&code) {
            GaveUp::Final
        } else if !repeatable() {
            GaveUp::NotRepeatable
        } else if pushback == Pushback::Stop {
            GaveUp::Pushback
        } else if !self.has_another(policy) {
            GaveUp::Attempts(self.previous() + 1)
        } else if !budget() {
            GaveUp::Budget
        } else {
            self.retries += 1;
            let after = if let Pushback::After(wait) = pushback { Some(wait) } else { None };
            return Verdict::Retry { after };
        };
        Verdict::GiveUp(gave_up)
    }

    /// Whether a call that waits for its answer is sent a second time beside the first; once per call.
    pub(crate) fn may_hedge(&self, policy: &Retry) -> bool {
        !cfg!(feature = "no-resilience") && self.hedges == 0 && self.has_another(policy)
    }

    /// It was.
    pub(crate) fn hedged(&mut self) {
        self.hedges += 1;
    }

    fn has_another(&self, policy: &Retry) -> bool {
        self.previous() + 1 < policy.attempts_max
    }

    fn is_patient(&mut self, now: Stamp) -> bool {
        let first = *self.refused.get_or_insert(now);
        match self.patience {
            Patience::Whole => true,
            Patience::For(patience) => now.since(first) <= patience,
        }
    }

    /// Attempts made that may have been processed, but for the first: what `grpc-previous-rpc-attempts` says.
    pub(crate) fn previous(self) -> u32 {
        self.retries + self.hedges
    }

    /// Retries made, one after the other.
    pub(crate) fn retries(self) -> u32 {
        self.retries
    }

    /// Attempts made beside another one.
    pub(crate) fn hedges(self) -> u32 {
        self.hedges
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

    fn now() -> Stamp {
        let origin = clock::now();
        Stamp::new(origin, origin)
    }

    const LOST: Failure = Failure::Processed { code: Code::Unavailable, pushback: Pushback::None };

    fn never() -> bool {
        panic!("not to be asked")
    }

    /// Judged under the default policy, with its body at hand.
    fn judge(attempts: &mut Attempts, failure: Failure, repeatable: bool, budget: bool) -> Verdict {
        attempts.judge(failure, Replay::Possible, &Retry::default(), now(), || repeatable, || budget)
    }

    #[test]
    fn what_was_not_processed_is_repeated_for_free_until_patience_ends() {
        let begun = now();
        let mut attempts = Attempts::new(Patience::For(Duration::from_secs(3)));
        let mut at = |ms| {
            let now = begun.after(Duration::from_millis(ms));
            attempts.judge(Failure::Unprocessed, Replay::Possible, &Retry::default(), now, never, never)
        };
        assert!((0..=3_000).all(|ms| at(ms) == Verdict::RePick));
        assert_eq!(at(3_001), Verdict::GiveUp(GaveUp::Patience));
        assert_eq!(attempts.previous(), 0);
    }

    #[test]
    fn a_call_with_a_deadline_of_its_own_is_repeated_as_long_as_it_lasts() {
        let begun = now();
        let mut attempts = Attempts::new(Patience::Whole);
        for hour in 0..1_000 {
            let now = begun.after(Duration::from_secs(hour * 3_600));
            let judged = attempts.judge(Failure::Unprocessed, Replay::Possible, &Retry::default(), now, never, never);
            assert_eq!(judged, Verdict::RePick);
        }
    }

    #[test]
    fn what_may_have_been_processed_is_tried_three_times_when_it_is_repeatable() {
        let mut attempts = Attempts::new(Patience::Whole);
        assert_eq!(judge(&mut attempts, LOST, true, true), Verdict::Retry { after: None });
        assert_eq!(judge(&mut attempts, LOST, true, true), Verdict::Retry { after: None });
        assert_eq!(judge(&mut attempts, LOST, true, true), Verdict::GiveUp(GaveUp::Attempts(3)));
        assert_eq!(attempts.retries(), 2);
    }

    #[test]
    fn a_hedge_is_one_of_the_attempts_and_comes_once() {
        let mut attempts = Attempts::new(Patience::Whole);
        assert!(attempts.may_hedge(&Retry::default()));
        attempts.hedged();
        assert!(!attempts.may_hedge(&Retry::default()));
        assert_eq!((attempts.hedges(), attempts.previous()), (1, 1));
        assert_eq!(judge(&mut attempts, LOST, true, true), Verdict::Retry { after: None });
        assert_eq!(judge(&mut attempts, LOST, true, true), Verdict::GiveUp(GaveUp::Attempts(3)));
        assert!(!Attempts::new(Patience::Whole).may_hedge(&Retry { attempts_max: 1, ..Retry::default() }));
    }

    #[test]
    fn a_retry_that_is_not_allowed_takes_nothing_from_the_budget() {
        let now = now();
        let policy = Retry::default();
        let mut attempts = Attempts::new(Patience::Whole);
        let gone = attempts.judge(LOST, Replay::Gone, &policy, now, never, never);
        assert_eq!(gone, Verdict::GiveUp(GaveUp::BodyGone));
        let last = attempts.judge(Failure::Final, Replay::Possible, &policy, now, never, never);
        assert_eq!(last, Verdict::GiveUp(GaveUp::Final));
        let not_found = Failure::Processed { code: Code::NotFound, pushback: Pushback::None };
        let answered = attempts.judge(not_found, Replay::Possible, &policy, now, never, never);
        assert_eq!(answered, Verdict::GiveUp(GaveUp::Final));
        let undeclared = attempts.judge(LOST, Replay::Possible, &policy, now, || false, never);
        assert_eq!(undeclared, Verdict::GiveUp(GaveUp::NotRepeatable));
        let stop = Failure::Processed { code: Code::Unavailable, pushback: Pushback::Stop };
        let stopped = attempts.judge(stop, Replay::Possible, &policy, now, || true, never);
        assert_eq!(stopped, Verdict::GiveUp(GaveUp::Pushback));
        assert_eq!(judge(&mut attempts, LOST, true, false), Verdict::GiveUp(GaveUp::Budget));
        assert_eq!(attempts, Attempts::new(Patience::Whole));
    }

    #[test]
    fn a_server_says_when_to_come_back() {
        let pushback = |text: &'static str| {
            let header = (PUSHBACK, http::HeaderValue::from_static(text));
            Pushback::of(&HeaderMap::from_iter([header]))
        };
        assert_eq!(Pushback::of(&HeaderMap::new()), Pushback::None);
        assert_eq!(pushback("150"), Pushback::After(Duration::from_millis(150)));
        assert_eq!(pushback("0"), Pushback::After(Duration::ZERO));
        assert_eq!(pushback("60000"), Pushback::After(PUSHBACK_MAX));
        for stop in ["-1", "", "soon", "1.5", "60001", "4294967295", "99999999999"] {
            assert_eq!(pushback(stop), Pushback::Stop, "{stop:?}");
        }
        let busy = Failure::Processed { code: Code::Unavailable, pushback: pushback("150") };
        let judged = judge(&mut Attempts::new(Patience::Whole), busy, true, true);
        assert_eq!(judged, Verdict::Retry { after: Some(Duration::from_millis(150)) });
    }
}
