//! Where a registration stands and what follows from each answer. PURE: answers and a time in, the next step out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use crate::entropy::Entropy;
use crate::reconnect;
use crate::serving::ServingStatus;

/// TTL assumed until one is granted: the registry's default (DESIGN §4).
const TTL: Duration = Duration::from_secs(10);

/// Beats sent and not answered yet; at this many no further one is sent, and soon the oldest is overdue.
const UNANSWERED_MAX: usize = 8;

/// Shortest interval that a registry can ask for: a fault there must not make a fleet beat in a tight loop.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Who this process is to the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The instance id.
    pub(super) id: Uuid,
    /// Drawn once for this id: tells a repeat from a restart.
    pub(super) nonce: [u8; 16],
}

/// What a registration is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) lease_id: Bytes,
    pub(super) incarnation: u64,
    pub(super) store_id: String,
    /// Absent where the registry does not say.
    pub(super) ttl: Option<Duration>,
    /// Absent where the registry does not say.
    pub(super) interval: Option<Duration>,
}

/// A registration and its lease.
#[derive(Debug)]
pub(super) struct Enrolment {
    identity: Identity,
    /// The incarnation issued last, and the store that issued it.
    held: Option<(u64, String)>,
    lease: Option<Lease>,
    ttl: Duration,
    interval: Duration,
    serving: ServingStatus,
    announced: Option<ServingStatus>,
    unanswered: VecDeque<Sent>,
    next_beat: Instant,
}

/// The right to beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) id: Bytes,
    pub(super) incarnation: u64,
    pub(super) granted: Instant,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    serving: ServingStatus,
}

/// What became of a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Renewed,
    UnknownLease,
    Fenced,
}

/// What an answer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on beating.
    Beat,
    /// Register again under the same id.
    Register,
    /// [Become another](Enrolment::become_another) and register: a newer start holds the id, and two starts that fight
    /// over one help nobody.
    RegisterAnew,
}

impl Enrolment {
    /// Not registered yet.
    pub(super) fn new(identity: Identity, now: Instant) -> Self {
        Self {
            identity,
            held: None,
            lease: None,
            ttl: TTL,
            interval: TTL / 3,
            serving: ServingStatus::Serving,
            announced: None,
            unanswered: VecDeque::new(),
            next_beat: now,
        }
    }

    /// Who registers.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is held from before, for the registry to recognise.
    pub(super) fn held(&self) -> Option<(u64, &str)> {
        self.held.as_ref().map(|(incarnation, store_id)| (*incarnation, store_id.as_str()))
    }

    /// The lease, if there is one.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// What is to be said of this process.
    pub(super) fn serving(&self) -> ServingStatus {
        self.serving
    }

    /// What the registry has taken note of.
    pub(super) fn announced(&self) -> Option<ServingStatus> {
        self.announced
    }

    /// The longest wait between two attempts: half a TTL, so that one broken stream never costs the lease.
    pub(super) fn patience(&self) -> Duration {
        reconnect::CAP.min(self.ttl / 2)
    }

    /// Says something else of this process, with a beat at once.
    pub(super) fn serve(&mut self, serving: ServingStatus, now: Instant) {
        if self.serving != serving {
            self.serving = serving;
            self.next_beat = now;
        }
    }

    /// A registration that said `serving` was granted.
    pub(super) fn granted(&mut self, grant: Grant, serving: ServingStatus, now: Instant) {
        self.ttl = grant.ttl.filter(|ttl| !ttl.is_zero()).unwrap_or(TTL);
        self.set_interval(grant.interval.unwrap_or(self.ttl / 3));
        self.held = Some((grant.incarnation, grant.store_id));
        self.announced = Some(serving);
        self.lease = Some(Lease { id: grant.lease_id, incarnation: grant.incarnation, granted: now });
    }

    /// A stream begins: the first beat goes out at once, so that the registry knows whose stream it is.
    pub(super) fn stream_begun(&mut self, now: Instant) {
        self.unanswered.clear();
        self.next_beat = now;
    }

    /// When the next beat is to be sent; `None` while too many are not answered.
    pub(super) fn beat_at(&self) -> Option<Instant> {
        (self.unanswered.len() < UNANSWERED_MAX).then_some(self.next_beat)
    }

    /// When the stream is to be given up, unless an answer comes.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        self.unanswered.front().map(|sent| sent.at + self.patience())
    }

    /// A beat is sent; the next one is due an interval later, give or take 10 %.
    pub(super) fn beaten(&mut self, now: Instant, entropy: &Entropy) {
        self.unanswered.push_back(Sent { at: now, serving: self.serving });
        self.next_beat = now + self.interval.mul_f64(0.9) + entropy.up_to(self.interval.mul_f64(0.2));
    }

    /// The oldest beat is answered.
    pub(super) fn answered(&mut self, outcome: Outcome, interval: Option<Duration>, entropy: &Entropy) -> Next {
        let sent = self.unanswered.pop_front();
        match outcome {
            Outcome::Renewed => {
                if let Some(sent) = sent {
                    self.announced = Some(sent.serving);
                    let former = self.interval;
                    self.set_interval(interval.unwrap_or(former));
                    if self.interval < former {
                        // Told to beat faster: the next beat does so already.
                        let earlier = sent.at + self.interval.mul_f64(0.9) + entropy.up_to(self.interval.mul_f64(0.2));
                        self.next_beat = self.next_beat.min(earlier);
                    }
                }
                Next::Beat
            }
            Outcome::UnknownLease => {
                self.lease = None;
                Next::Register
            }
            Outcome::Fenced => {
                self.lease = None;
                Next::RegisterAnew
            }
        }
    }

    /// Leaves the id to whoever holds it.
    pub(super) fn become_another(&mut self, identity: Identity) {
        self.identity = identity;
        self.held = None;
        self.lease = None;
        self.announced = None;
    }

    fn set_interval(&mut self, interval: Duration) {
        self.interval = interval.clamp(INTERVAL_MIN, self.ttl.max(INTERVAL_MIN));
    }
}

#[cfg(test)]
mod tests;
