//! The pick: from what a call wants to a place on a connection.

use std::cell::Cell;
use std::sync::Arc;

use super::Target;
use super::in_flight::{InFlight, Role};
use super::ledger::{Capped, Ledger};
use super::snapshot::{Candidate, Growth, Probation, Snapshot};
use super::subchannel::Subchannel;
use crate::balancer::{Candidates, Load, warmth};
use crate::clock::Stamp;
use crate::endpoint::Endpoint;
use crate::entropy::Entropy;
use crate::metrics::MethodIndex;
use crate::policy::Balancer;

/// What a call wants of a pick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// When it is made.
    pub(crate) now: Stamp,
    /// Endpoints that have failed this call.
    pub(crate) tried: &'a [Arc<Endpoint>],
    /// Where the call belongs on a ring.
    pub(crate) key: Option<u64>,
    /// The method, as in `:path`.
    pub(crate) method: &'a str,
    /// The same method in [`Target::stats`].
    pub(crate) metric: MethodIndex,
    /// When the call must be over.
    pub(crate) deadline: Option<Stamp>,
}

/// Why a call got no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unplaced {
    /// Nobody can take a call now; somebody may soon.
    Wait,
    /// [`Policy::in_flight_max`](crate::Policy::in_flight_max) calls are in flight: UNAVAILABLE, and not tried again (gRFC A32).
    Capped,
}

impl Target {
    /// Picks an endpoint and takes a place on its connection. Endpoints that were tried are picked only when nobody else
    /// has room.
    pub(crate) fn pick(&self, wanted: &Wanted<'_>) -> Result<InFlight, Unplaced> {
        self.pick_by(wanted, |field| {
            let is_plain = wanted.tried.is_empty() && field.snapshot.trials.is_empty();
            if is_plain { field.pick() } else { field.pick_with_care() }
        })
    }

    /// As [`Target::pick`], but never an endpoint that was tried.
    #[cold]
    pub(crate) fn pick_untried(&self, wanted: &Wanted<'_>) -> Option<InFlight> {
        self.pick_by(wanted, |field| field.try_trials().or_else(|| field.pick())).ok()
    }

    #[inline]
    fn pick_by(
        &self,
        wanted: &Wanted<'_>,
        pick: impl for<'a> FnOnce(&Field<'a>) -> Option<Place<'a>>,
    ) -> Result<InFlight, Unplaced> {
        let ledger = &*self.shared.ledger;
        let attempt = ledger.begin().map_err(|Capped| Unplaced::Capped)?;
        let snapshot = self.shared.snapshot.load();
        let field = Field {
            target: self,
            snapshot: &snapshot,
            wanted,
            avoided: wanted.tried,
            attempt,
            draws: Cell::new(ledger.draw(attempt)),
        };
        match pick(&field) {
            Some(place) => Ok(InFlight::new(place, wanted, attempt)),
            None => {
                ledger.end();
                Err(Unplaced::Wait)
            }
        }
    }

    /// Whether an endpoint that is not in `tried` could take a call now.
    pub(crate) fn has_untried(&self, tried: &[Arc<Endpoint>]) -> bool {
        let snapshot = self.shared.snapshot.load();
        snapshot.candidates.iter().any(|candidate| {
            let is_tried = tried.iter().any(|tried| Arc::ptr_eq(tried, candidate.endpoint()));
            !is_tried && candidate.probation != Probation::OnTrial && candidate.has_room()
        })
    }
}

/// A place that was taken on a connection.
pub(super) struct Place<'a> {
    pub(super) subchannel: &'a Arc<Subchannel>,
    pub(super) role: Role,
}

/// The candidates of one pick, as they are at its moment.
struct Field<'a> {
    target: &'a Target,
    snapshot: &'a Snapshot,
    wanted: &'a Wanted<'a>,
    /// Endpoints that are not to be picked.
    avoided: &'a [Arc<Endpoint>],
    /// The number of the attempt.
    attempt: u64,
    /// The next draw.
    draws: Cell<u64>,
}

impl<'a> Field<'a> {
    /// Between the balancer's look and taking the place another call may take the last one; then the balancer looks
    /// again. The bound is for the reader: each miss means that somebody else made progress.
    fn pick(&self) -> Option<Place<'a>> {
        const LOOKS_MAX: usize = 64;
        for _ in 0..LOOKS_MAX {
            let index = self.snapshot.picker.pick(self, self.wanted.key)?;
            if let Some(place) = self.enter(&self.snapshot.candidates[index]) {
                return Some(place);
            }
        }
        None
    }

    /// The pick where somebody is on trial, or the call has been somewhere before.
    #[cold]
    fn pick_with_care(&self) -> Option<Place<'a>> {
        let anywhere = || Field { avoided: &[], draws: Cell::new(self.draws.get()), ..*self }.pick();
        let untried = self.try_trials().or_else(|| self.pick());
        if self.avoided.is_empty() { untried } else { untried.or_else(anywhere) }
    }

    /// Gives the call to an endpoint that waits for one to try it. Left to the balancer, one that is known for failures would
    /// wait until those are forgotten. On a ring it waits for a call that belongs there.
    fn try_trials(&self) -> Option<Place<'a>> {
        if matches!(self.target.policy().balancer, Balancer::RingHash(_)) {
            return None;
        }
        let admitted = self.snapshot.trials.iter().filter(|index| self.load(**index).is_some());
        admitted.filter_map(|index| self.enter(&self.snapshot.candidates[*index])).next()
    }

    /// Takes a place on the oldest connection that has one.
    fn enter(&self, candidate: &'a Candidate) -> Option<Place<'a>> {
        let role = match candidate.probation {
            Probation::None => Role::Ordinary,
            Probation::OnTrial => self.take_trial(candidate)?,
            Probation::Waived => Role::Witness,
        };
        let Some(subchannel) = candidate.connections().find(|subchannel| subchannel.enter()) else {
            role.give_back(candidate.endpoint());
            return None;
        };
        Some(Place { subchannel, role })
    }

    #[cold]
    fn take_trial(&self, candidate: &Candidate) -> Option<Role> {
        let taken = candidate.endpoint().trial().take(|| self.is_repeatable(candidate));
        // The manager watches how long it takes.
        taken.then(|| self.ledger().bell.notify_one()).map(|()| Role::Trial)
    }

    /// Whether this call may find out what an endpoint is like by now: one that has failed is asked by a call that can be sent
    /// elsewhere.
    #[cold]
    fn may_ask(&self, candidate: &Candidate) -> bool {
        candidate.endpoint().failures_in_a_row() == 0 || self.is_repeatable(candidate)
    }

    /// Whether the call may go there, as far as that depends on the call.
    #[cold]
    fn admits(&self, candidate: &Candidate) -> bool {
        let endpoint = candidate.endpoint();
        let is_avoided = self.avoided.iter().any(|avoided| Arc::ptr_eq(avoided, endpoint));
        let is_free = || match candidate.probation {
            Probation::None | Probation::Waived => true,
            Probation::OnTrial => endpoint.trial().admits(|| self.is_repeatable(candidate)),
        };
        !is_avoided && is_free()
    }

    /// Has the manager open another connection, where it may: those there are are full.
    #[cold]
    fn tell_crowd(&self, candidate: &Candidate) {
        if candidate.growth == Growth::Possible && candidate.endpoint().crowd() {
            self.ledger().bell.notify_one();
        }
    }

    #[cold]
    fn warmth_since(&self, since: Stamp) -> f32 {
        self.target.policy().slow_start.map_or(1.0, |rule| warmth(self.wanted.now.since(since), rule))
    }

    fn is_repeatable(&self, candidate: &Candidate) -> bool {
        self.target.idempotency(self.wanted.method, candidate.endpoint()).repeatable()
    }

    fn ledger(&self) -> &Ledger {
        &self.target.shared.ledger
    }
}

impl Candidates for Field<'_> {
    fn count(&self) -> usize {
        self.snapshot.candidates.len()
    }

    #[inline]
    fn load(&self, index: usize) -> Option<Load> {
        let candidate = &self.snapshot.candidates[index];
        let is_open = self.avoided.is_empty() && candidate.probation == Probation::None;
        if !is_open && !self.admits(candidate) {
            return None;
        }
        if !candidate.has_room() {
            self.tell_crowd(candidate);
            return None;
        }
        Some(Load { in_flight: candidate.endpoint().in_flight(), weight: candidate.weight })
    }

    #[inline]
    fn latency(&self, index: usize) -> f32 {
        let candidate = &self.snapshot.candidates[index];
        let endpoint = candidate.endpoint();
        if endpoint.is_overdue(self.attempt, self.wanted.now) && self.may_ask(candidate) {
            // Whoever is drawn beside it.
            return f32::MIN_POSITIVE;
        }
        endpoint.latency(self.wanted.now)
    }

    #[inline]
    fn warmth(&self, index: usize) -> f32 {
        self.snapshot.candidates[index].warming.map_or(1.0, |since| self.warmth_since(since))
    }

    fn in_flight(&self) -> u32 {
        // Without this one.
        self.ledger().in_flight().saturating_sub(1)
    }

    fn turn(&self) -> u64 {
        self.ledger().turn()
    }

    fn draw(&self) -> u64 {
        let draw = self.draws.get();
        self.draws.set(Entropy::nth(draw, 0));
        draw
    }
}
