//! The manager's book on one endpoint: which connectivity state it is in, and what is due when.
//!
//! A state machine without I/O: the manager starts the dials it asks for and tells it how they ended.

mod conduct;
mod connections;
mod vouch;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{self, AbortHandle};
use tokio::time::Instant;

pub(super) use conduct::Change;
use conduct::Watched;
use connections::Connections;
use vouch::Vouch;

use super::subchannel::Subchannel;
use crate::balancer::Fitness;
use crate::balancer::ejection::{Conduct, Record};
use crate::clock::Stamp;
use crate::conn::{Calm, Conn, Ending};
use crate::endpoint::{ConnectivityState, Endpoint};
use crate::entropy::Entropy;
use crate::load::EndpointLoad;
use crate::policy::{Backoff, Ejection};
use crate::resolver::{ResolvedEndpoint, Standing};

/// How long connects to an endpoint that the registry no longer lists must fail before it is dropped (DESIGN §6).
const LAPSED_FOR: Duration = Duration::from_secs(60);
/// How long an address where another service answered is left alone. The resolver corrects it sooner, as a rule.
const MISDIRECTED_FOR: Duration = Duration::from_secs(5);

/// One endpoint.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) endpoint: Arc<Endpoint>,
    /// Its address in words: what places it in a subset and on a ring.
    pub(super) name: Arc<str>,
    pub(super) standing: Standing,
    pub(super) weight: u16,
    pub(super) zone: Arc<str>,
    pub(super) load: Option<EndpointLoad>,
    pub(super) reach: Reach,
    /// Why the last attempt or connection failed; forgotten when one succeeds.
    pub(super) last_error: Option<Arc<str>>,
    /// What its peer has said about PINGs: for every connection to it.
    pub(super) calm: Calm,
    connections: Connections,
    /// Whether a call was answered on what was lost last.
    was_of_use: bool,
    /// Since when there was always a connection.
    ready_since: Option<Instant>,
    dialler: Dialler,
    backoff: Backoff,
    vouch: Vouch,
    watched: Watched,
    /// Since when no attempt has succeeded. Sticky: CONNECTING in between does not clear it, only READY does.
    failing_since: Option<Instant>,
}

/// Whether this caller connects to an endpoint at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Inside,
    /// The subset is elsewhere.
    Outside,
}

/// Whether calls wait for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    None,
    Waiting,
}

#[derive(Debug)]
enum Dialler {
    /// None before then: 'at once' for a new endpoint, the backoff for one that failed.
    Rest(Instant),
    Dialling(Dial),
}

/// An attempt under way; dropping it ends the attempt.
#[derive(Debug)]
struct Dial(AbortHandle);

impl Drop for Dial {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a slot stands after a look at it.
#[derive(Debug)]
pub(super) struct Look {
    /// What the manager does for it.
    pub(super) due: Due,
    /// When to look again, if nothing happens before.
    pub(super) next: Option<Instant>,
    /// Why its connection was lost, where one was.
    pub(super) lost: Option<Ending>,
}

/// What the manager does for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Start a dial and hand it over with [`Slot::dialling`].
    Dial,
    /// Forget the endpoint: nothing has answered there for long, and the registry does not list it.
    Drop,
}

impl Slot {
    /// `origin`: what the endpoint's stamps count from.
    pub(super) fn new(resolved: &ResolvedEndpoint, backoff: Backoff, origin: Instant, now: Instant) -> Self {
        Self {
            endpoint: Arc::new(Endpoint::new(resolved, origin)),
            name: resolved.address.to_string().into(),
            standing: resolved.standing,
            weight: resolved.weight,
            zone: resolved.zone.clone(),
            load: resolved.load,
            reach: Reach::Inside,
            last_error: None,
            calm: Calm::default(),
            connections: Connections::default(),
            was_of_use: false,
            ready_since: None,
            dialler: Dialler::Rest(now),
            backoff,
            vouch: Vouch::default(),
            watched: Watched::default(),
            failing_since: None,
        }
    }

    /// Takes what the resolver says now. The connection stays: it was made to this very address, and had the process
    /// behind it changed, it would be gone. A new incarnation is worth an attempt at once.
    pub(super) fn update(&mut self, resolved: &ResolvedEndpoint, now: Instant, age: Duration) {
        if self.endpoint.update(resolved) {
            self.backoff.start_over();
            self.failing_since = None;
            self.watched.record.reconsider(age);
            self.forget_failures();
            if let Dialler::Rest(until) = &mut self.dialler {
                *until = now;
            }
        }
        if self.standing != resolved.standing {
            self.standing = resolved.standing;
            self.vouch = Vouch::default();
        }
        self.weight = resolved.weight;
        self.zone = resolved.zone.clone();
        self.load = resolved.load;
    }

    /// Whether it is connected to. Connections that are given up close with their last stream.
    pub(super) fn set_reach(&mut self, reach: Reach, now: Instant) {
        if self.reach == reach {
            return;
        }
        self.reach = reach;
        if reach == Reach::Outside {
            self.connections.clear();
            self.dialler = Dialler::Rest(now);
            self.ready_since = None;
            self.failing_since = None;
            self.last_error = None;
            self.endpoint.set_state(ConnectivityState::Idle);
        }
    }

    /// Moves on to `now`, with up to `connections_max` connections.
    pub(super) fn advance(&mut self, now: Instant, connections_max: usize, entropy: &Entropy) -> Look {
        let lost = self.leave_lost(now, entropy);
        let (closed, idle) = self.connections.close_idle(now);
        if closed > 0 {
            self.endpoint.uncrowd();
        }
        let (due, attempt) = match self.dialler {
            Dialler::Rest(_) if self.has_lapsed(now) => (Due::Drop, None),
            Dialler::Rest(until) if self.wants_connection(connections_max) => {
                if until <= now {
                    (Due::Dial, None)
                } else {
                    (Due::Nothing, Some(until))
                }
            }
            Dialler::Rest(_) | Dialler::Dialling(_) => (Due::Nothing, None),
        };
        let next = [attempt, idle, self.ask(now)].into_iter().flatten().min();
        Look { due, next, lost }
    }

    fn wants_connection(&self, connections_max: usize) -> bool {
        let welcome = self.reach == Reach::Inside && self.standing != Standing::Draining;
        let crowded = self.endpoint.is_crowded() && self.connections.len() < connections_max;
        welcome && (self.connections.is_empty() || crowded)
    }

    /// Asks a doubted endpoint whether it is alive.
    fn ask(&mut self, now: Instant) -> Option<Instant> {
        let conn = &self.connections.oldest()?.conn;
        match self.standing {
            Standing::Alive | Standing::Draining => None,
            Standing::Suspect | Standing::Stale | Standing::Lapsed => {
                Some(self.vouch.advance(conn.vitals(), now, || conn.probe()))
            }
        }
    }

    /// Leaves connections that take no more calls. Where none is left, another one is due.
    fn leave_lost(&mut self, now: Instant, entropy: &Entropy) -> Option<Ending> {
        let lost = self.connections.leave_lost(now)?;
        self.endpoint.uncrowd();
        if !self.connections.is_empty() {
            return Some(lost.ending);
        }
        self.ready_since = None;
        self.was_of_use = lost.has_served;
        self.vouch = Vouch::default();
        if let Dialler::Dialling(_) = self.dialler {
            // A further one is being made: it will be the first.
            self.endpoint.set_state(ConnectivityState::Connecting);
            return Some(lost.ending);
        }
        let pause = match lost.ending {
            Ending::Misdirected => MISDIRECTED_FOR,
            // However young it was. Each of these is paid for with a call that was answered, so there is no tight loop.
            Ending::GoAway | Ending::Closed(_) if lost.has_served => {
                self.backoff.start_over();
                Duration::ZERO
            }
            _ => self.backoff.after_loss(lost.held, entropy),
        };
        self.dialler = Dialler::Rest(now + pause);
        self.endpoint.set_state(if pause.is_zero() {
            ConnectivityState::Idle
        } else {
            self.failing_since.get_or_insert(now);
            ConnectivityState::TransientFailure
        });
        Some(lost.ending)
    }

    pub(super) fn dialling(&mut self, attempt: AbortHandle) {
        self.dialler = Dialler::Dialling(Dial(attempt));
        if self.connections.is_empty() {
            self.endpoint.set_state(ConnectivityState::Connecting);
        }
    }

    /// Whether this task is the slot's attempt.
    pub(super) fn awaits(&self, task: task::Id) -> bool {
        matches!(&self.dialler, Dialler::Dialling(Dial(attempt)) if attempt.id() == task)
    }

    /// An attempt succeeded.
    pub(super) fn connected(&mut self, subchannel: Subchannel, stamp: Stamp, now: Instant, age: Duration) {
        if self.connections.is_empty() {
            // Perhaps to another process than the one before.
            self.endpoint.seed_latency(subchannel.conn.vitals().rtt(), stamp);
            self.watched.record.reconsider(age);
            // Those of calls that broke with a process which answered others. Who answers none is judged by them: it may
            // break every connection that is made to it.
            if self.was_of_use {
                self.forget_failures();
            }
            self.ready_since = Some(now);
            self.failing_since = None;
            self.last_error = None;
            self.vouch = Vouch::default();
            self.endpoint.set_state(ConnectivityState::Ready);
        }
        self.connections.add(subchannel, now);
        self.dialler = Dialler::Rest(now);
        self.endpoint.uncrowd();
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self, error: Option<Arc<str>>, demand: Demand, now: Instant, entropy: &Entropy) {
        self.dialler = Dialler::Rest(now + self.backoff.after_failure(entropy));
        match demand {
            // They have said so, and do not look again before something is different.
            Demand::Waiting => {}
            // One more may have become unnecessary: whoever needs it still says so again.
            Demand::None => self.endpoint.uncrowd(),
        }
        if self.connections.is_empty() {
            self.last_error = error;
            self.failing_since.get_or_insert(now);
            self.endpoint.set_state(ConnectivityState::TransientFailure);
        }
    }

    /// Its failures are another process's, or may be. Out for them, it has a trial to pass all the same.
    fn forget_failures(&mut self) {
        if self.conduct() == Conduct::Trusted {
            self.endpoint.forget_failures();
        }
    }

    /// A connection was lost, and this is why.
    pub(super) fn blame(&mut self, error: Arc<str>) {
        if self.connections.is_empty() {
            self.last_error = Some(error);
        }
    }

    fn has_lapsed(&self, now: Instant) -> bool {
        let failing = self.failing_since.is_some_and(|since| now >= since + LAPSED_FOR);
        self.standing == Standing::Lapsed && self.connections.is_empty() && failing
    }

    /// Whether it can be picked.
    pub(super) fn fitness(&self) -> Fitness {
        let doubted = match self.standing {
            Standing::Draining => return Fitness::Draining,
            Standing::Alive => false,
            Standing::Suspect | Standing::Stale | Standing::Lapsed => !self.vouch.alive,
        };
        match self.conduct() {
            _ if self.connections.is_empty() => Fitness::Absent,
            Conduct::Ejected { .. } => Fitness::Ejected,
            _ if doubted => Fitness::Doubted,
            Conduct::OnTrial { .. } => Fitness::OnTrial,
            Conduct::Trusted => Fitness::Fit,
        }
    }

    pub(super) fn conduct(&self) -> Conduct {
        self.watched.record.conduct()
    }

    /// What is to be remembered of its ejections when it goes.
    pub(super) fn record(&self) -> Record {
        self.watched.record
    }

    /// It was here before.
    pub(super) fn remember(&mut self, record: Record) {
        self.watched.record = record;
    }

    pub(super) fn eject(&mut self, rule: &Ejection, age: Duration) {
        self.watched.eject(&self.endpoint, rule, age);
    }

    /// Follows its ejection and its trial. Says what changed and when to look again.
    pub(super) fn advance_conduct(
        &mut self,
        rule: &Ejection,
        now: Instant,
        age: Duration,
    ) -> (Option<Change>, Option<Instant>) {
        self.watched.advance(&self.endpoint, rule, now, age)
    }

    /// Whether it is one of those that calls are shared between, connected or not.
    pub(super) fn is_member(&self) -> bool {
        self.reach == Reach::Inside && self.standing != Standing::Draining
    }

    /// Whether it is one of those that calls go to, or would if they had not failed.
    pub(super) fn is_judged(&self) -> bool {
        self.is_member() && !self.connections.is_empty()
    }

    /// Its connections, oldest first.
    pub(super) fn connections(&self) -> impl Iterator<Item = &Arc<Subchannel>> {
        self.connections.iter()
    }

    pub(super) fn connection_count(&self) -> usize {
        self.connections.len()
    }

    pub(super) fn ready_since(&self) -> Option<Instant> {
        self.ready_since
    }

    /// When the next attempt begins; `None` while one is under way, or none is wanted.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        match self.dialler {
            Dialler::Rest(until) if self.is_member() => Some(until),
            Dialler::Rest(_) | Dialler::Dialling(_) => None,
        }
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
