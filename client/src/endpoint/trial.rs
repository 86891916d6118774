//! One call at a time tries an ejected endpoint: what the manager and the calls tell each other about that.

use std::sync::atomic::{AtomicU8, Ordering};

/// How far an endpoint's trial is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Trial {
    /// None is held.
    #[default]
    Off,
    /// A call that may be repeated elsewhere may try.
    ForRepeatable,
    /// Any call may try.
    ForAny,
    /// A call tries.
    Taken,
    /// It tries, and the head of its answer has come: the server is at work.
    Answered,
    /// It went well.
    Passed,
    /// It failed.
    Failed,
    /// It ended and tells nothing: its caller gave it up, or the server did not look at it.
    Undecided,
}

impl Trial {
    const ALL: [Self; 8] = [
        Self::Off,
        Self::ForRepeatable,
        Self::ForAny,
        Self::Taken,
        Self::Answered,
        Self::Passed,
        Self::Failed,
        Self::Undecided,
    ];

    fn is_under_way(self) -> bool {
        matches!(self, Self::Taken | Self::Answered)
    }

    fn admits(self, repeatable: impl FnOnce() -> bool) -> bool {
        match self {
            Self::ForAny => true,
            Self::ForRepeatable => repeatable(),
            Self::Off | Self::Taken | Self::Answered | Self::Passed | Self::Failed | Self::Undecided => false,
        }
    }
}

/// The trial of one endpoint. The manager opens and closes it, a call takes it and says how it went; all of that is seldom, so
/// the orderings are the strong ones.
#[derive(Debug, Default)]
pub(crate) struct TrialCell(AtomicU8);

impl TrialCell {
    pub(crate) fn get(&self) -> Trial {
        Trial::ALL[usize::from(self.0.load(Ordering::SeqCst)) % Trial::ALL.len()]
    }

    /// The manager's word: [`Trial::Off`], or who may try.
    pub(crate) fn set(&self, trial: Trial) {
        self.0.store(trial as u8, Ordering::SeqCst);
    }

    /// Whether a call could take it now.
    pub(crate) fn admits(&self, repeatable: impl FnOnce() -> bool) -> bool {
        self.get().admits(repeatable)
    }

    /// Takes it for a call.
    pub(crate) fn take(&self, repeatable: impl FnOnce() -> bool) -> bool {
        let open = self.get();
        open.admits(repeatable) && self.change(open, Trial::Taken)
    }

    /// The head of the answer to the call that tries has come.
    pub(crate) fn answered(&self) {
        self.change(Trial::Taken, Trial::Answered);
    }

    /// The call that tried has ended. One that took so long that another one tries by now, speaks for both; one that the
    /// manager did not wait for any more is not listened to.
    pub(crate) fn end(&self, how: Trial) {
        loop {
            let held = self.get();
            if !held.is_under_way() || self.change(held, how) {
                return;
            }
        }
    }

    /// A call went well that was not sent to try. A trial that is over is left to the manager.
    pub(crate) fn pass(&self) {
        loop {
            let held = self.get();
            let is_over = matches!(held, Trial::Off | Trial::Passed | Trial::Failed);
            if is_over || self.change(held, Trial::Passed) {
                return;
            }
        }
    }

    fn change(&self, from: Trial, to: Trial) -> bool {
        self.0.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_at_a_time_tries() {
        let trial = TrialCell::default();
        assert!(!trial.take(|| true), "none is held");
        trial.set(Trial::ForAny);
        assert!(trial.take(|| false) && !trial.take(|| true));
        trial.answered();
        assert_eq!(trial.get(), Trial::Answered);
        trial.end(Trial::Passed);
        assert_eq!(trial.get(), Trial::Passed);
    }

    #[test]
    fn a_call_that_cannot_be_repeated_does_not_try_before_it_must() {
        let trial = TrialCell::default();
        trial.set(Trial::ForRepeatable);
        assert!(!trial.admits(|| false) && !trial.take(|| false));
        assert!(trial.take(|| true));
    }

    #[test]
    fn who_comes_too_late_is_not_listened_to() {
        let trial = TrialCell::default();
        trial.set(Trial::ForAny);
        assert!(trial.take(|| true));
        trial.set(Trial::Off);
        trial.answered();
        trial.end(Trial::Failed);
        assert_eq!(trial.get(), Trial::Off);
    }

    #[test]
    fn a_call_that_was_not_sent_to_try_passes_a_trial_that_is_held_and_no_other() {
        for (held, then) in Trial::ALL.map(|held| match held {
            Trial::Off | Trial::Failed => (held, held),
            _ => (held, Trial::Passed),
        }) {
            let trial = TrialCell::default();
            trial.set(held);
            trial.pass();
            assert_eq!(trial.get(), then);
        }
    }

    #[test]
    fn every_trial_survives_its_atomic() {
        for (number, trial) in Trial::ALL.into_iter().enumerate() {
            let cell = TrialCell::default();
            cell.set(trial);
            assert_eq!((cell.get(), trial as usize), (trial, number));
        }
    }
}
