//! The manager's book on one endpoint: which connectivity state it is in, and what is due when.
//!
//! A state machine without I/O: the manager starts the dials it asks for and tells it how they ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{self, AbortHandle};
use tokio::time::Instant;

use super::subchannel::Subchannel;
use crate::balancer::Preference;
use crate::conn::{Calm, Conn, Ending, Vitals};
use crate::endpoint::{ConnectivityState, Endpoint};
use crate::entropy::Entropy;
use crate::policy::Backoff;
use crate::resolver::{ResolvedEndpoint, Standing};

/// How long a doubted endpoint has to answer a PING to count as alive here (DESIGN §4).
const VOUCH_WITHIN: Duration = Duration::from_millis(250);
/// How often it is asked while the doubt lasts.
const VOUCH_EVERY: Duration = Duration::from_secs(1);
/// How long connects to an endpoint that the registry no longer lists must fail before it is dropped (DESIGN §6).
const LAPSED_FOR: Duration = Duration::from_secs(60);
/// How long an address where another service answered is left alone. The resolver corrects it sooner, as a rule.
const MISDIRECTED_FOR: Duration = Duration::from_secs(5);

/// One endpoint.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) standing: Standing,
    pub(super) weight: u16,
    /// What the server has asked for about PINGs; handed to every dial.
    pub(super) calm: Calm,
    phase: Phase,
    backoff: Backoff,
    vouch: Vouch,
    /// Since when no attempt has succeeded. Sticky: CONNECTING in between does not clear it, only READY does.
    failing_since: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    /// No connection until then: 'at once' for a new endpoint, the backoff for one that failed.
    Waiting {
        until: Instant,
    },
    Dialling(Dial),
    Ready {
        subchannel: Arc<Subchannel>,
        since: Instant,
    },
}

/// An attempt under way; dropping it ends the attempt.
#[derive(Debug)]
struct Dial(AbortHandle);

impl Drop for Dial {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a doubted endpoint's own connection says.
#[derive(Debug, Default)]
struct Vouch {
    alive: bool,
    asked: Option<Instant>,
    again: Option<Instant>,
}

impl Vouch {
    /// Asks, listens, and says when to look again. `probe` sends a PING.
    fn advance(&mut self, vitals: &Vitals, now: Instant, probe: impl FnOnce()) -> Instant {
        if let Some(asked) = self.asked {
            if vitals.heard() >= asked {
                *self = Self { alive: true, asked: None, again: Some(asked + VOUCH_EVERY) };
            } else if now >= asked + VOUCH_WITHIN {
                *self = Self { alive: false, asked: None, again: Some(asked + VOUCH_EVERY) };
            } else {
                return asked + VOUCH_WITHIN;
            }
        }
        match self.again {
            Some(again) if now < again => again,
            _ => {
                self.asked = Some(now);
                self.again = None;
                probe();
                now + VOUCH_WITHIN
            }
        }
    }
}

/// What the manager does for a slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Look again then, or when something happens.
    At(Option<Instant>),
    /// Start a dial and hand it over with [`Slot::dialling`].
    Dial,
    /// Forget the endpoint: nothing has answered there for long, and the registry does not list it.
    Drop,
}

impl Slot {
    pub(super) fn new(resolved: &ResolvedEndpoint, backoff: Backoff, now: Instant) -> Self {
        Self {
            endpoint: Arc::new(Endpoint::new(resolved, now)),
            standing: resolved.standing,
            weight: resolved.weight,
            calm: Calm::default(),
            phase: Phase::Waiting { until: now },
            backoff,
            vouch: Vouch::default(),
            failing_since: None,
        }
    }

    /// Takes what the resolver says now. The connection stays: it was made to this very address, and had the process
    /// behind it changed, it would be gone. A new incarnation is worth an attempt at once.
    pub(super) fn update(&mut self, resolved: &ResolvedEndpoint, now: Instant) {
        if self.endpoint.update(resolved) {
            self.backoff.start_over();
            self.failing_since = None;
            if let Phase::Waiting { until } = &mut self.phase {
                *until = now;
            }
        }
        if self.standing != resolved.standing {
            self.standing = resolved.standing;
            self.vouch = Vouch::default();
        }
        self.weight = resolved.weight;
    }

    /// Moves on to `now`. The error tells why a READY connection was lost.
    pub(super) fn advance(&mut self, now: Instant, entropy: &Entropy) -> (Due, Option<Ending>) {
        let lost = self.leave_lost(now, entropy);
        (self.due(now), lost)
    }

    fn due(&mut self, now: Instant) -> Due {
        match &self.phase {
            Phase::Waiting { .. } if self.standing == Standing::Draining => Due::At(None),
            Phase::Waiting { .. } if self.has_lapsed(now) => Due::Drop,
            Phase::Waiting { until } if *until <= now => Due::Dial,
            Phase::Waiting { until } => Due::At(Some(*until)),
            Phase::Dialling(_) => Due::At(None),
            Phase::Ready { subchannel, .. } => match self.standing {
                Standing::Alive | Standing::Draining => Due::At(None),
                Standing::Suspect | Standing::Stale | Standing::Lapsed => {
                    let conn = &subchannel.conn;
                    Due::At(Some(self.vouch.advance(conn.vitals(), now, || conn.probe())))
                }
            },
        }
    }

    /// Leaves a connection that takes no more calls. Its streams finish by themselves.
    fn leave_lost(&mut self, now: Instant, entropy: &Entropy) -> Option<Ending> {
        let Phase::Ready { subchannel, since } = &self.phase else { return None };
        let ending = subchannel.conn.vitals().ending()?.clone();
        let pause = match ending {
            Ending::Misdirected => MISDIRECTED_FOR,
            _ => self.backoff.after_loss(now.saturating_duration_since(*since), entropy),
        };
        self.phase = Phase::Waiting { until: now + pause };
        self.vouch = Vouch::default();
        self.endpoint.set_state(if pause.is_zero() {
            ConnectivityState::Idle
        } else {
            self.failing_since.get_or_insert(now);
            ConnectivityState::TransientFailure
        });
        Some(ending)
    }

    pub(super) fn dialling(&mut self, attempt: AbortHandle) {
        self.phase = Phase::Dialling(Dial(attempt));
        self.endpoint.set_state(ConnectivityState::Connecting);
    }

    /// Whether this task is the slot's attempt.
    pub(super) fn awaits(&self, task: task::Id) -> bool {
        matches!(&self.phase, Phase::Dialling(Dial(attempt)) if attempt.id() == task)
    }

    /// An attempt succeeded.
    pub(super) fn connected(&mut self, subchannel: Subchannel, now: Instant) {
        self.phase = Phase::Ready { subchannel: Arc::new(subchannel), since: now };
        self.failing_since = None;
        self.vouch = Vouch::default();
        self.endpoint.set_state(ConnectivityState::Ready);
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self, now: Instant, entropy: &Entropy) {
        self.phase = Phase::Waiting { until: now + self.backoff.after_failure(entropy) };
        self.failing_since.get_or_insert(now);
        self.endpoint.set_state(ConnectivityState::TransientFailure);
    }

    fn has_lapsed(&self, now: Instant) -> bool {
        self.standing == Standing::Lapsed && self.failing_since.is_some_and(|since| now >= since + LAPSED_FOR)
    }

    /// The connection, and how much it is wanted.
    pub(super) fn candidate(&self) -> Option<(&Arc<Subchannel>, Preference)> {
        let Phase::Ready { subchannel, .. } = &self.phase else { return None };
        let preference = match self.standing {
            Standing::Alive => Preference::Preferred,
            Standing::Suspect | Standing::Stale | Standing::Lapsed if self.vouch.alive => Preference::Preferred,
            Standing::Suspect | Standing::Stale | Standing::Lapsed => Preference::Spare,
            Standing::Draining => Preference::Never,
        };
        Some((subchannel, preference))
    }

    /// Whether it counts as TRANSIENT_FAILURE in the target's state.
    pub(super) fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.endpoint.set_state(ConnectivityState::Shutdown);
    }
}
