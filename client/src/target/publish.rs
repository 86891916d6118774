//! From the manager's books to the snapshot that calls pick from.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::TargetConfig;
use super::slot::{Reach, Slot};
use super::snapshot::{Candidate, Growth, Member, Outlook, Place, Probation, Snapshot};
use crate::balancer::ejection::Conduct;
use crate::balancer::{self, Alarm, Capacity, Fitness, Picker, Seen, Selection, Zone, effective_weights, select};
use crate::clock::Stamp;
use crate::conn::Conn;
use crate::endpoint::ConnectivityState;
use crate::policy::Balancer;
use crate::resolver::ResolutionStatus;

/// Makes snapshots. The picker is made anew only for other candidates: a ring of thousands of places is not built again for
/// each PONG.
pub(super) struct Publisher {
    config: Arc<TargetConfig>,
    basis: Basis,
    picker: Arc<Picker>,
}

/// All that a picker is made from.
#[derive(Debug, Default, PartialEq)]
struct Basis {
    members: Vec<Weighted>,
    absent: Vec<Weighted>,
    own_share: Option<f32>,
}

/// What a picker knows of an endpoint: its name, its weight, and where it is.
type Weighted = (Arc<str>, u32, Zone);

impl Publisher {
    pub(super) fn new(config: Arc<TargetConfig>) -> Self {
        let picker = Arc::new(Picker::new(&config.policy.balancer, &[], &[], None));
        Self { config, basis: Basis::default(), picker }
    }

    /// The snapshot of `slots`, and when it will be out of date by time alone.
    pub(super) fn snapshot(
        &mut self,
        slots: &[&Slot],
        status: &ResolutionStatus,
        last_error: Option<&Arc<str>>,
        origin: Instant,
        now: Instant,
    ) -> (Snapshot, Option<Instant>) {
        let inside: Vec<usize> = (0..slots.len()).filter(|index| slots[*index].reach == Reach::Inside).collect();
        let seen: Vec<Seen> = inside
            .iter()
            .map(|index| Seen { fitness: slots[*index].fitness(), zone: self.side(slots[*index]) })
            .collect();
        let Selection { indices, own_share, alarm } = select(&seen, self.config.policy.panic_threshold);
        let chosen: Vec<usize> = indices.into_iter().map(|index| inside[index]).collect();
        // The other way round: where an endpoint is among the candidates.
        let mut positions = vec![None; slots.len()];
        for (position, index) in chosen.iter().enumerate() {
            positions[*index] = Some(position);
        }
        let (weights, until) = self.weights(slots, now);
        self.choose(slots, &chosen, &positions, &weights, own_share);

        // None is left out: whoever is chosen is connected.
        let candidates: Box<[Candidate]> =
            chosen.iter().filter_map(|index| self.candidate(slots[*index], alarm, origin, now)).collect();
        let on_trial = |index: &usize| candidates[*index].probation == Probation::OnTrial;
        let trials = (0..candidates.len()).filter(on_trial).collect();
        let member = |(index, slot): (usize, &&Slot)| Member {
            endpoint: slot.endpoint.clone(),
            zone: slot.zone.clone(),
            side: self.side(slot),
            weight: slot.weight,
            standing: slot.standing,
            connections: slot.connection_count(),
            place: place(slot, origin),
            candidate: positions[index],
        };
        let state = state(slots, status, &candidates);
        let snapshot = Snapshot {
            trials,
            picker: self.picker.clone(),
            own_share,
            members: slots.iter().enumerate().map(member).collect(),
            outlook: outlook(slots, status, last_error, state),
            state,
            candidates,
        };
        (snapshot, until)
    }

    /// Where an endpoint is, as far as it makes a difference.
    fn side(&self, slot: &Slot) -> Zone {
        let matters = self.config.policy.zone_first && !self.config.zone.is_empty();
        if matters && slot.zone == self.config.zone { Zone::Own } else { Zone::Other }
    }

    /// What the endpoints weigh, and when that changes without news: a report begins to count, or ceases to.
    fn weights(&self, slots: &[&Slot], now: Instant) -> (Vec<u32>, Option<Instant>) {
        if self.config.policy.balancer != Balancer::WeightedRoundRobin {
            return (slots.iter().map(|slot| slot.weight.into()).collect(), None);
        }
        let changes = |slot: &&Slot| -> Option<[Instant; 2]> {
            let load = slot.load.as_ref()?;
            // A moment later than it ends: an age of exactly that still counts.
            let ends = Instant::from(load.since) + Capacity::REPORT_AGE_MAX + Duration::from_millis(1);
            Some([slot.ready_since()? + Capacity::BLACKOUT, ends])
        };
        let next = slots.iter().filter_map(changes).flatten().filter(|at| *at > now).min();
        let capacities: Vec<_> = slots.iter().map(|slot| capacity(slot, now)).collect();
        (effective_weights(&capacities), next)
    }

    /// Has a picker for these candidates.
    fn choose(
        &mut self,
        slots: &[&Slot],
        chosen: &[usize],
        positions: &[Option<usize>],
        weights: &[u32],
        own_share: Option<f32>,
    ) {
        let weighted: Vec<Weighted> =
            slots.iter().zip(weights).map(|(slot, weight)| (slot.name.clone(), *weight, self.side(slot))).collect();
        let is_absent = |index: &usize| slots[*index].is_member() && positions[*index].is_none();
        // Only a ring asks for those.
        let absent = match self.config.policy.balancer {
            Balancer::RingHash(_) => (0..slots.len()).filter(is_absent).map(|index| weighted[index].clone()).collect(),
            _ => Vec::new(),
        };
        let basis = Basis { members: chosen.iter().map(|index| weighted[*index].clone()).collect(), absent, own_share };
        if basis != self.basis {
            self.picker = Arc::new(basis.picker(&self.config.policy.balancer));
            self.basis = basis;
        }
    }

    fn candidate(&self, slot: &Slot, alarm: Alarm, origin: Instant, now: Instant) -> Option<Candidate> {
        let mut connections = slot.connections().cloned();
        let first = connections.next()?;
        let more: Box<[_]> = connections.collect();
        let limits = |limits: u32, further: &Arc<super::subchannel::Subchannel>| {
            limits.wrapping_add(further.conn.vitals().limits())
        };
        let most = usize::from(self.config.policy.connections_per_endpoint.get());
        let warming = |since: &Instant| self.config.policy.slow_start.is_some_and(|rule| now < *since + rule.window);
        Some(Candidate {
            limits: more.iter().fold(first.conn.vitals().limits(), limits),
            growth: if slot.connection_count() < most { Growth::Possible } else { Growth::Over },
            probation: match (slot.fitness(), alarm) {
                (Fitness::OnTrial, Alarm::Calm) => Probation::OnTrial,
                (Fitness::OnTrial, Alarm::Panic) => Probation::Waived,
                _ => Probation::None,
            },
            warming: slot.ready_since().filter(warming).map(|since| Stamp::new(origin, since)),
            weight: slot.weight,
            first,
            more,
        })
    }
}

impl Basis {
    fn picker(&self, balancer: &Balancer) -> Picker {
        let members: Vec<_> = self.members.iter().map(as_member).collect();
        let absent: Vec<_> = self.absent.iter().map(as_member).collect();
        Picker::new(balancer, &members, &absent, self.own_share)
    }
}

fn as_member((name, weight, zone): &Weighted) -> balancer::Member<'_> {
    balancer::Member { name, weight: *weight, zone: *zone }
}

fn capacity(slot: &Slot, now: Instant) -> Capacity<'_> {
    let since = |at: Instant| now.saturating_duration_since(at);
    Capacity {
        registered: slot.weight,
        report: slot.load.as_ref().map(|load| (&load.report, since(load.since.into()))),
        ready_for: slot.ready_since().map(since).unwrap_or_default(),
    }
}

/// What there is to say about an endpoint.
fn place(slot: &Slot, origin: Instant) -> Place {
    if slot.reach == Reach::Outside {
        return Place::Outside;
    }
    match (slot.fitness(), slot.conduct()) {
        (Fitness::Draining, _) => Place::Draining,
        (Fitness::Absent, _) => Place::Absent { error: slot.last_error.clone(), next: slot.next_attempt() },
        (_, Conduct::Ejected { until }) => Place::Ejected { until: origin + until },
        (Fitness::Doubted | Fitness::Ejected, _) => Place::Doubted,
        (Fitness::OnTrial, _) => Place::OnTrial,
        (Fitness::Fit, _) => Place::Fit,
    }
}

/// gRPC's aggregation: READY if any is; else CONNECTING if any may become so; else TRANSIENT_FAILURE, which sticks
/// to an endpoint until it is READY.
fn state(slots: &[&Slot], status: &ResolutionStatus, candidates: &[Candidate]) -> ConnectivityState {
    let settled = matches!(status, ResolutionStatus::Empty | ResolutionStatus::Refused(_));
    let failing = slots.iter().filter(|slot| slot.reach == Reach::Inside).all(|slot| slot.is_failing());
    match candidates {
        [_, ..] => ConnectivityState::Ready,
        [] if slots.is_empty() && !settled => ConnectivityState::Connecting,
        [] if failing => ConnectivityState::TransientFailure,
        [] => ConnectivityState::Connecting,
    }
}

fn outlook(
    slots: &[&Slot],
    status: &ResolutionStatus,
    last_error: Option<&Arc<str>>,
    state: ConnectivityState,
) -> Outlook {
    match (status, last_error) {
        (ResolutionStatus::Empty, _) if slots.is_empty() => Outlook::Empty,
        (ResolutionStatus::Refused(reason), _) if slots.is_empty() => Outlook::Refused(reason.clone()),
        (ResolutionStatus::Unresolved, _) if slots.is_empty() => Outlook::Unresolved,
        (_, Some(error)) if state == ConnectivityState::TransientFailure => Outlook::Failing(error.clone()),
        _ => Outlook::Connecting,
    }
}
