//! What registry processes of one store tell each other.

use bytes::Bytes;
use mesh_api::registry::v1 as pb;

use super::decode::load_report;
use super::encode::{Loads, instance_liveness, load_report as load_message};
use super::{Fault, service_key};
use crate::catalog::{Incarnation, InstanceHealth, InstanceId, Invalid, LeaseId, Liveness, StoreId};
use crate::cluster::{KeptHealth, PeerError, Relayed, RelayedBeat};

/// Most beats in one request.
const BEATS_MAX: usize = 1_000;

/// Beats to hand over.
pub(crate) fn relay_request(store: &StoreId, beats: &[RelayedBeat]) -> pb::RelayRequest {
    let beat = |beat: &RelayedBeat| pb::RelayedBeat {
        lease_id: Bytes::copy_from_slice(beat.lease.as_bytes()),
        incarnation: beat.incarnation.get(),
        load: beat.load.as_ref().map(load_message),
    };
    pb::RelayRequest { store_id: store.as_str().to_owned(), beats: beats.iter().map(beat).collect() }
}

/// Beats that were handed over.
pub(crate) fn relayed_beats(beats: Vec<pb::RelayedBeat>) -> Result<Vec<RelayedBeat>, Fault> {
    if beats.is_empty() {
        return Err(Fault::Missing { field: "beats" });
    }
    if beats.len() > BEATS_MAX {
        return Err(Invalid::TooMany { field: "beats", count: beats.len(), max: BEATS_MAX }.into());
    }
    let beat = |beat: pb::RelayedBeat| {
        let lease = LeaseId::from_wire(&beat.lease_id).ok_or(Invalid::Length {
            field: "beats.lease_id",
            bytes: beat.lease_id.len(),
            rule: "exactly 16 bytes",
        })?;
        let incarnation = Incarnation::new(beat.incarnation).ok_or(Fault::Missing { field: "beats.incarnation" })?;
        Ok(RelayedBeat { lease, incarnation, load: beat.load.as_ref().map(load_report) })
    };
    beats.into_iter().map(beat).collect()
}

/// What became of beats that were handed over.
pub(crate) fn relay_response(relayed: &[Relayed]) -> pb::RelayResponse {
    let outcome = |relayed: &Relayed| match relayed {
        Relayed::Renewed => pb::RelayOutcome::Renewed,
        Relayed::Gone => pb::RelayOutcome::Gone,
        Relayed::Elsewhere => pb::RelayOutcome::Elsewhere,
    };
    pb::RelayResponse { outcomes: relayed.iter().map(|relayed| outcome(relayed).into()).collect() }
}

/// What another process says became of them.
pub(crate) fn relayed(response: &pb::RelayResponse) -> Result<Vec<Relayed>, PeerError> {
    let outcome = |outcome| match outcome {
        pb::RelayOutcome::Renewed => Ok(Relayed::Renewed),
        pb::RelayOutcome::Gone => Ok(Relayed::Gone),
        pb::RelayOutcome::Elsewhere => Ok(Relayed::Elsewhere),
        pb::RelayOutcome::Unspecified => Err(PeerError { reason: "an outcome that is none".to_owned() }),
    };
    response.outcomes().map(outcome).collect()
}

/// What there is to say of the leases kept here in a service.
pub(crate) fn kept_health(kept: &KeptHealth) -> pb::SoftStatesResponse {
    pb::SoftStatesResponse {
        namespace: kept.service.namespace.as_str().to_owned(),
        service: kept.service.name.as_str().to_owned(),
        instances: kept.instances.iter().map(|(id, health)| instance_liveness(*id, health, Loads::Included)).collect(),
    }
}

/// What another process says of the leases that it keeps in a service.
pub(crate) fn told_health(told: pb::SoftStatesResponse) -> Result<KeptHealth, PeerError> {
    let fault = |reason: String| PeerError { reason };
    let service = service_key(&told.namespace, &told.service).map_err(|error| fault(error.to_string()))?;
    let instance = |instance: pb::InstanceLiveness| {
        let id = InstanceId::parse(&instance.instance_id).map_err(|error| fault(error.to_string()))?;
        let incarnation = Incarnation::new(instance.incarnation).ok_or_else(|| fault("no incarnation".to_owned()))?;
        let liveness = match instance.liveness() {
            pb::Liveness::Alive => Liveness::Alive,
            pb::Liveness::Suspect => Liveness::Suspect,
            pb::Liveness::Stale => Liveness::Stale,
            pb::Liveness::Unspecified => return Err(fault("a liveness that is none".to_owned())),
        };
        let load = instance.load.as_ref().map(load_report);
        Ok((id, InstanceHealth { incarnation, liveness, load }))
    };
    let instances = told.instances.into_iter().map(instance).collect::<Result<_, _>>()?;
    Ok(KeptHealth { service, instances })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::catalog::LoadReport;
    use crate::catalog::kit::{id, incarnation, service};

    #[test]
    fn beats_and_answers_arrive_as_they_were_sent() {
        let store = StoreId::parse("s").unwrap();
        let load = LoadReport { cpu_utilization: 0.5, ..LoadReport::default() };
        let beat = |load| RelayedBeat { lease: LeaseId::new([7; 16]), incarnation: incarnation(3), load };
        let beats = vec![beat(None), beat(Some(load))];
        assert_eq!(relayed_beats(relay_request(&store, &beats).beats).unwrap(), beats);
        let outcomes = vec![Relayed::Gone, Relayed::Renewed, Relayed::Elsewhere];
        assert_eq!(relayed(&relay_response(&outcomes)).unwrap(), outcomes);
    }

    #[test]
    fn what_is_said_of_leases_arrives_as_it_was_said() {
        let health = InstanceHealth { incarnation: incarnation(9), liveness: Liveness::Stale, load: None };
        let kept = KeptHealth { service: service("user-svc"), instances: BTreeMap::from([(id(1), health)]) };
        assert_eq!(told_health(kept_health(&kept)).unwrap(), kept);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(relayed_beats(Vec::new()).is_err());
        let beat = pb::RelayedBeat { lease_id: Bytes::from_static(&[1; 16]), incarnation: 1, load: None };
        assert!(relayed_beats(vec![pb::RelayedBeat { incarnation: 0, ..beat.clone() }]).is_err());
        assert!(relayed_beats(vec![pb::RelayedBeat { lease_id: Bytes::from_static(&[1]), ..beat.clone() }]).is_err());
        assert!(relayed_beats(vec![beat; BEATS_MAX + 1]).is_err());
        assert!(relayed(&pb::RelayResponse { outcomes: vec![0] }).is_err());
        let told = pb::SoftStatesResponse { service: "user-svc".to_owned(), ..Default::default() };
        let nobody = pb::InstanceLiveness { instance_id: "nobody".to_owned(), ..Default::default() };
        assert!(told_health(pb::SoftStatesResponse { instances: vec![nobody], ..told }).is_err());
    }
}
