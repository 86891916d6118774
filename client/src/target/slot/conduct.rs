//! One endpoint's ejections, carried out: the pure record of them, and the trials that calls make.

use std::time::Duration;

use tokio::time::Instant;

use crate::balancer::ejection::{Conduct, Record};
use crate::endpoint::{Endpoint, Trial};
use crate::policy::Ejection;

/// How long a trial waits for a call that may be repeated before it takes any; how long one that told nothing is followed by
/// none; and how long a stream must have gone well after its head to pass.
const STEP: Duration = Duration::from_secs(1);
/// How long the call that tries may go without an answer before another one tries. It may be one that takes its time.
const ANSWER: Duration = Duration::from_secs(5);

/// What happened to an endpoint's standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::target) enum Change {
    /// Its trial failed.
    EjectedAgain,
    /// Its trial went well.
    Acquitted,
    /// A call that found no place may try it now: at most once in a [`STEP`].
    TrialOpen,
}

#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) record: Record,
    /// How far the trial was when it was looked at last, and since when.
    seen: Option<(Trial, Instant)>,
}

impl Watched {
    pub(super) fn eject(&mut self, endpoint: &Endpoint, rule: &Ejection, age: Duration) {
        self.record.eject(rule, age);
        self.seen = None;
        endpoint.eject();
    }

    /// Moves on to `now`, which is `age` after the origin of the record's times. Says what changed and when to look again.
    pub(super) fn advance(
        &mut self,
        endpoint: &Endpoint,
        rule: &Ejection,
        now: Instant,
        age: Duration,
    ) -> (Option<Change>, Option<Instant>) {
        let over = self.record.advance(age);
        match self.record.conduct() {
            Conduct::Trusted => (None, None),
            Conduct::Ejected { .. } => (None, over.map(|over| now + over.saturating_sub(age))),
            Conduct::OnTrial { .. } => self.follow(endpoint, rule, now, age),
        }
    }

    fn follow(
        &mut self,
        endpoint: &Endpoint,
        rule: &Ejection,
        now: Instant,
        age: Duration,
    ) -> (Option<Change>, Option<Instant>) {
        let trial = endpoint.trial();
        let state = trial.get();
        let since = match self.seen {
            Some((seen, since)) if seen == state => since,
            _ => now,
        };
        let waited = now.saturating_duration_since(since);
        let admit = match state {
            Trial::Passed => return (Some(self.acquit(endpoint, rule, age)), None),
            Trial::Answered if waited >= STEP => return (Some(self.acquit(endpoint, rule, age)), None),
            Trial::Failed => {
                self.eject(endpoint, rule, age);
                return (
                    Some(Change::EjectedAgain),
                    self.record.advance(age).map(|over| now + over.saturating_sub(age)),
                );
            }
            Trial::Off => Some(Trial::ForRepeatable),
            Trial::Undecided if waited >= STEP => Some(Trial::ForRepeatable),
            Trial::ForRepeatable if waited >= STEP => Some(Trial::ForAny),
            Trial::Taken if waited >= ANSWER => Some(Trial::ForAny),
            Trial::ForRepeatable | Trial::ForAny | Trial::Taken | Trial::Answered | Trial::Undecided => None,
        };
        let (state, since) = match admit {
            Some(admitted) => {
                trial.set(admitted);
                (admitted, now)
            }
            None => (state, since),
        };
        self.seen = Some((state, since));
        let look = match state {
            // Whoever takes it rings.
            Trial::Off | Trial::ForAny | Trial::Passed | Trial::Failed => None,
            Trial::ForRepeatable | Trial::Answered | Trial::Undecided => Some(since + STEP),
            // An answer does not ring: it is looked for.
            Trial::Taken => Some(now + STEP),
        };
        (admit.map(|_| Change::TrialOpen), look)
    }

    fn acquit(&mut self, endpoint: &Endpoint, rule: &Ejection, age: Duration) -> Change {
        self.record.acquit(rule, age);
        self.seen = None;
        endpoint.acquit();
        Change::Acquitted
    }
}
