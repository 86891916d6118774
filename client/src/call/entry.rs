//! A call's entry in the statistics.

use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use crate::clock::Stamp;
use crate::metrics::{MethodIndex, Repeats};
use crate::policy::Attempts;
use crate::target::Ledger;

/// One call in the statistics, made when it is over. Dropped before that it was given up: by its deadline, or by the caller.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None` once it is made, or in other hands.
    ledger: Option<Arc<Ledger>>,
    method: MethodIndex,
    begun: Stamp,
    deadline: Option<Stamp>,
    repeats: Repeats,
}

impl Entry {
    pub(super) fn new(ledger: Arc<Ledger>, path: &str, begun: Stamp, deadline: Option<Stamp>) -> Self {
        let method = ledger.stats.method(path);
        Self { ledger: Some(ledger), method, begun, deadline, repeats: Repeats::default() }
    }

    pub(super) fn method(&self) -> MethodIndex {
        self.method
    }

    pub(super) fn service(&self) -> &str {
        self.ledger.as_ref().map_or("", |ledger| &ledger.service)
    }

    pub(super) fn begun(&self) -> Stamp {
        self.begun
    }

    /// When the call must be over.
    pub(super) fn deadline(&self) -> Option<Stamp> {
        self.deadline
    }

    /// How long the call has lasted at `now`.
    pub(super) fn lasted(&self, now: Stamp) -> Duration {
        now.since(self.begun)
    }

    /// What the call took beyond its first attempt.
    pub(super) fn repeated(&mut self, attempts: &Attempts) {
        self.repeats =
            Repeats { retries: attempts.retries(), transparent: attempts.re_picks(), hedges: attempts.hedges() };
    }

    /// The same entry, for whoever sees the call's end.
    pub(super) fn hand_over(&mut self) -> Self {
        Self { ledger: self.ledger.take(), ..*self }
    }

    /// The call is over, and this is what its caller is told. The first word stands.
    pub(super) fn end(&mut self, code: Code, now: Stamp) {
        if let Some(ledger) = self.ledger.take() {
            ledger.stats.call_ended(self.method, code, now.nanos_since(self.begun));
            ledger.stats.call_repeated(self.method, self.repeats);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(ledger) = &self.ledger {
            let now = ledger.now();
            let expired = self.deadline.is_some_and(|at| at <= now);
            self.end(if expired { Code::DeadlineExceeded } else { Code::Cancelled }, now);
        }
    }
}
