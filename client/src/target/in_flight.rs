//! The guard that counts one attempt of a call on its endpoint, and tells the endpoint how it went.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use super::pick::{Place, Wanted};
use super::subchannel::Subchannel;
use crate::clock::{self, Stamp};
use crate::conn::{Conn, Wire};
use crate::endpoint::{Endpoint, Trial};
use crate::metrics::MethodIndex;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server's own word, from trailers or from an answer of only a head.
    Code(Code),
    /// The connection broke under it.
    Lost,
    /// The server did not process it.
    Unprocessed,
    /// The server did not process it, by its own word, and is there for the next one.
    Refused,
    /// The stream was reset, or the server broke the protocol: the status that stands for it.
    Broken(Code),
    /// The request is one that nobody could send.
    Malformed,
    /// The caller wants it no more.
    Cancelled,
    /// The caller's own deadline passed.
    Expired,
}

impl Outcome {
    /// What metrics call it (gRPC A66: the status that the caller would get).
    fn code(self) -> Code {
        match self {
            Self::Code(code) | Self::Broken(code) => code,
            Self::Lost | Self::Unprocessed | Self::Refused => Code::Unavailable,
            Self::Malformed => Code::Internal,
            Self::Cancelled => Code::Cancelled,
            Self::Expired => Code::DeadlineExceeded,
        }
    }
}

/// What the outcome of an attempt says about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    /// It answered; what it answered is the service's business.
    Well,
    /// It answered that it cannot take as much: well, but it must not look fast for it.
    Overloaded,
    /// It would not even begin: that is no failure, but it must not look fast for it either.
    Unwilling,
    /// It failed.
    Failed,
    /// Nobody knows.
    Open,
}

impl Judgement {
    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Code(Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss) => Self::Failed,
            Outcome::Code(Code::ResourceExhausted) | Outcome::Broken(Code::ResourceExhausted) => Self::Overloaded,
            Outcome::Lost | Outcome::Broken(_) => Self::Failed,
            Outcome::Refused => Self::Unwilling,
            Outcome::Code(_) => Self::Well,
            Outcome::Unprocessed | Outcome::Malformed | Outcome::Cancelled | Outcome::Expired => Self::Open,
        }
    }
}

/// Why an attempt is made at this endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Ordinary,
    /// To see whether it is well again.
    Trial,
    /// There is nobody else. Whether it is well again shows all the same.
    Witness,
}

impl Role {
    /// The attempt is not made after all.
    pub(super) fn give_back(self, endpoint: &Endpoint) {
        if self == Self::Trial {
            endpoint.trial().end(Trial::Undecided);
        }
    }
}

/// Whether it is known how an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Open,
    Ended,
}

/// A call in flight, from its pick until its trailers, its failure or its cancellation: dropping it is what ends the count,
/// so no path can forget to. Dropped without [`InFlight::end`] it was given up: by its deadline, or by the caller.
#[derive(Debug)]
pub(crate) struct InFlight {
    subchannel: Arc<Subchannel>,
    picked: Stamp,
    /// When the head of the answer came.
    answered: Option<Stamp>,
    deadline: Option<Stamp>,
    sent_bytes: u64,
    received_bytes: u64,
    metric: MethodIndex,
    role: Role,
    progress: Progress,
}

impl InFlight {
    /// For a call that has taken a place; `attempt` is its number among the target's.
    #[inline]
    pub(super) fn new(place: Place<'_>, wanted: &Wanted<'_>, attempt: u64) -> Self {
        let Place { subchannel, role } = place;
        subchannel.endpoint.enter(attempt, wanted.now);
        subchannel.ledger.stats.attempt_started(wanted.metric);
        Self {
            subchannel: subchannel.clone(),
            picked: wanted.now,
            answered: None,
            deadline: wanted.deadline,
            sent_bytes: 0,
            received_bytes: 0,
            metric: wanted.metric,
            role,
            progress: Progress::Open,
        }
    }

    pub(crate) fn conn(&self) -> &Wire {
        &self.subchannel.conn
    }

    pub(crate) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.subchannel.endpoint
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Stamp {
        self.subchannel.ledger.now()
    }

    /// When that is on the clock of timers.
    pub(crate) fn instant(&self, at: Stamp) -> Instant {
        self.subchannel.ledger.instant(at)
    }

    /// The head of the answer came: that is what latency is measured by, since what follows it may be a long stream.
    pub(crate) fn answered(&mut self, now: Stamp) {
        let Subchannel { endpoint, ledger, .. } = &*self.subchannel;
        let took = now.since(self.picked);
        self.answered = Some(now);
        ledger.stats.answered(now.nanos_since(self.picked), now);
        self.subchannel.serve();
        endpoint.answered(took, now);
        if self.role == Role::Trial {
            endpoint.trial().answered();
        }
    }

    /// So many bytes of messages went out.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }

    /// So many bytes of messages came.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
    }

    /// The attempt is over; its place is given back when the guard is dropped. The first word stands.
    pub(crate) fn end(&mut self, outcome: Outcome, now: Stamp) {
        if self.progress != Progress::Ended {
            self.book(outcome, now);
        }
    }

    fn book(&mut self, outcome: Outcome, now: Stamp) {
        self.progress = Progress::Ended;
        let Subchannel { endpoint, ledger, .. } = &*self.subchannel;
        let took_nanos = now.nanos_since(self.picked);
        ledger.stats.attempt_ended(self.metric, outcome.code(), took_nanos, self.sent_bytes, self.received_bytes);
        let took = Duration::from_nanos(took_nanos);

        let judgement = Judgement::of(outcome);
        match judgement {
            Judgement::Well => {
                if endpoint.succeeded() {
                    // What was known is how long it took to fail. Averaged with that, it would get no calls for a minute.
                    endpoint.begin_latency(self.answered.unwrap_or(now).since(self.picked), now);
                }
            }
            Judgement::Overloaded => {
                endpoint.succeeded();
                endpoint.penalise(took, now);
            }
            Judgement::Unwilling => endpoint.penalise(took, now),
            Judgement::Failed => ledger.tell_failures(endpoint.failed(took, now)),
            // What was not processed says nothing about how long it would have taken.
            Judgement::Open if matches!(outcome, Outcome::Unprocessed | Outcome::Malformed) => {}
            // With an answer begun, the latency is known; the rest is as long as the answer is.
            Judgement::Open if self.answered.is_some() => {}
            Judgement::Open => {
                endpoint.waited(took, now);
                ledger.stats.waited(took_nanos, now);
                self.subchannel.conn.vitals().give_up(clock::now());
            }
        }
        if self.role != Role::Ordinary {
            self.tell_trial(judgement, outcome);
        }
    }

    #[cold]
    fn tell_trial(&self, judgement: Judgement, outcome: Outcome) {
        let Subchannel { endpoint, ledger, .. } = &*self.subchannel;
        match self.role {
            Role::Ordinary => return,
            Role::Witness if matches!(judgement, Judgement::Well | Judgement::Overloaded) => endpoint.trial().pass(),
            // It proves nothing new, and there is nobody who could stand in.
            Role::Witness => return,
            Role::Trial => endpoint.trial().end(match judgement {
                Judgement::Well | Judgement::Overloaded => Trial::Passed,
                Judgement::Failed => Trial::Failed,
                // The caller's own deadline has passed without a sign of an answer.
                Judgement::Open if outcome == Outcome::Expired && self.answered.is_none() => Trial::Failed,
                Judgement::Open if self.answered.is_some() => Trial::Passed,
                Judgement::Unwilling | Judgement::Open => Trial::Undecided,
            }),
        }
        ledger.bell.notify_one();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.progress != Progress::Ended {
            let now = self.now();
            let expired = self.deadline.is_some_and(|at| at <= now);
            self.book(if expired { Outcome::Expired } else { Outcome::Cancelled }, now);
        }
        let Subchannel { endpoint, ledger, conn, .. } = &*self.subchannel;
        endpoint.leave();
        ledger.end();
        // The place is free before anybody who waits is told so.
        conn.vitals().leave();
        ledger.queue.wake_one();
    }
}
