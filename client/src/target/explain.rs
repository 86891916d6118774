//! The target in words for people: the snapshot that calls pick from, and the counters as they are now.

use tokio::time::Instant;

use super::Target;
use super::snapshot::{Member, Place, Probation, Snapshot};
use crate::balancer::{Zone, warmth};
use crate::clock;
use crate::endpoint::EndpointHandle;
use crate::explain::{EndpointExplanation, Explanation, Verdict};

impl Target {
    /// Every endpoint, and why it is or is not picked.
    pub(crate) fn explain(&self) -> Explanation {
        let now = clock::now();
        let snapshot = self.shared.snapshot.load_full();
        let explain = |member: &Member| {
            let handle = EndpointHandle::new(member.endpoint.clone());
            EndpointExplanation {
                instance_id: handle.instance_id(),
                address: handle.address().clone(),
                zone: member.zone.clone(),
                weight: member.weight,
                standing: member.standing,
                connectivity: handle.state(),
                connections: member.connections,
                latency: handle.latency(),
                in_flight: handle.in_flight(),
                picks: handle.picks(),
                failures_in_a_row: handle.failures_in_a_row(),
                verdict: self.verdict(&snapshot, member, now),
            }
        };
        Explanation {
            service: self.service().to_owned(),
            state: snapshot.state,
            policy: self.policy().clone(),
            waiting: self.queue().waiting(),
            in_flight: self.shared.ledger.in_flight(),
            endpoints: snapshot.members.iter().map(explain).collect(),
        }
    }

    fn verdict(&self, snapshot: &Snapshot, member: &Member, now: Instant) -> Verdict {
        let after = |at: Instant| at.saturating_duration_since(now);
        let candidate = member.candidate.map(|index| &snapshot.candidates[index]);
        let full = || candidate.filter(|candidate| !candidate.has_room()).map(|_| Verdict::Full);
        let held_against_it = match &member.place {
            Place::Outside => return Verdict::OutsideSubset,
            Place::Draining => return Verdict::Draining,
            Place::Absent { error, next } => {
                return Verdict::NotConnected { error: error.clone(), next_attempt: next.map(after) };
            }
            Place::OnTrial => Verdict::OnTrial,
            Place::Fit => {
                let warming = candidate.and_then(|candidate| candidate.warming);
                let share = warming
                    .zip(self.policy().slow_start)
                    .map(|(since, rule)| warmth(self.ledger().stamp(now).since(since), rule));
                return match (full(), snapshot.own_share, share) {
                    (Some(full), _, _) => full,
                    (None, Some(own), _) if member.side == Zone::Other => Verdict::OtherZone { share: 1.0 - own },
                    (None, _, Some(share)) if share < 1.0 => Verdict::WarmingUp { share },
                    (None, _, _) => Verdict::Picked,
                };
            }
            Place::Doubted => Verdict::Doubted,
            Place::Ejected { until } => Verdict::Ejected { remaining: after(*until) },
        };
        match candidate {
            Some(candidate) if candidate.probation == Probation::OnTrial => full().unwrap_or(held_against_it),
            Some(_) => full().unwrap_or_else(|| Verdict::Panic { despite: Box::new(held_against_it) }),
            None => held_against_it,
        }
    }
}
