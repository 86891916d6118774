//! Which descriptors a service is to be read by, and who serves them. PURE: what is known of the service in, the choice out.
//!
//! During a rolling upgrade two descriptor sets are served side by side, and every call may reach either. The choice falls
//! on what **most** of the instances that may be picked serve, and between equals on what the newest instance serves: so all
//! gateways choose alike from what they all know, one new instance on trial changes nobody's API, and at the latest when
//! most of the service is upgraded the new routes are there. What an older instance does not know it answers UNIMPLEMENTED.

use std::collections::BTreeMap;

use mesh_client::{Address, DescriptorDigest, Resolution, ResolutionStatus, ResolvedEndpoint, Standing};
use uuid::Uuid;

/// Which descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Schema {
    /// Those with this digest.
    Digest(DescriptorDigest),
    /// Whatever this start of an instance serves, the newest of them: none says a digest.
    Start(Uuid, u64),
}

/// What is to be done about a service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing: what is known of it is as good as before.
    Nothing,
    /// There is nobody, and that is believed.
    Gone,
    /// To be read by `schema`, from any of these, the newest instance first.
    Read {
        /// Which descriptors.
        schema: Schema,
        /// Who serves them.
        at: Vec<Address>,
    },
}

impl Wanted {
    /// What follows from all that is known about a service.
    pub(super) fn of(known: &Resolution) -> Self {
        match known.status {
            ResolutionStatus::Empty => return Self::Gone,
            ResolutionStatus::Unresolved | ResolutionStatus::Refused(_) => return Self::Nothing,
            ResolutionStatus::Resolved => {}
        }
        let standing = |wanted: fn(Standing) -> bool| -> Vec<&ResolvedEndpoint> {
            known.endpoints.iter().filter(|endpoint| wanted(endpoint.standing)).collect()
        };
        let mut instances = standing(|standing| standing == Standing::Alive);
        if instances.is_empty() {
            instances = standing(|standing| standing != Standing::Draining);
        }
        // By default an instance id is of version 7: a higher one began later.
        instances.sort_unstable_by_key(|instance| std::cmp::Reverse(instance.instance_id));
        let mut served: BTreeMap<Option<DescriptorDigest>, Vec<&ResolvedEndpoint>> = BTreeMap::new();
        for instance in instances {
            served.entry(instance.descriptor_digest).or_default().push(instance);
        }
        let newest = |instances: &[&ResolvedEndpoint]| instances.first().map(|instance| instance.instance_id);
        let chosen = served.into_iter().max_by_key(|(_, instances)| (instances.len(), newest(instances)));
        match chosen {
            Some((digest, instances)) if !instances.is_empty() => {
                let start = Schema::Start(instances[0].instance_id, instances[0].incarnation);
                Self::Read {
                    schema: digest.map_or(start, Schema::Digest),
                    at: instances.iter().map(|instance| instance.address.clone()).collect(),
                }
            }
            // Everybody is on the way out: successors are on the way in, or a goodbye.
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Instance `n` that serves the descriptors `digest`; 0 is none.
    fn instance(n: u16, digest: u8, standing: Standing) -> ResolvedEndpoint {
        ResolvedEndpoint {
            instance_id: Uuid::from_u128(n.into()),
            incarnation: 1,
            address: format!("10.0.0.1:{n}").parse().expect("an address"),
            zone: "".into(),
            weight: 100,
            standing,
            load: None,
            methods: Arc::default(),
            descriptor_digest: (digest > 0).then_some(DescriptorDigest([digest; 32])),
        }
    }

    fn of(instances: &[(u16, u8, Standing)]) -> Option<(Schema, Vec<String>)> {
        let endpoints = instances.iter().map(|&(n, digest, standing)| instance(n, digest, standing)).collect();
        match Wanted::of(&Resolution { endpoints, status: ResolutionStatus::Resolved }) {
            Wanted::Read { schema, at } => Some((schema, at.iter().map(Address::to_string).collect())),
            Wanted::Nothing => None,
            Wanted::Gone => panic!("only a service that is empty is gone"),
        }
    }

    fn digest(byte: u8) -> Schema {
        Schema::Digest(DescriptorDigest([byte; 32]))
    }

    #[test]
    fn most_instances_decide_and_between_equals_the_newest() {
        use Standing::{Alive, Draining, Lapsed, Suspect};
        let at = |ports: &[u16]| ports.iter().map(|port| format!("10.0.0.1:{port}")).collect::<Vec<_>>();
        assert_eq!(of(&[(1, 1, Alive), (2, 1, Alive), (3, 2, Alive)]), Some((digest(1), at(&[2, 1]))));
        assert_eq!(of(&[(1, 1, Alive), (3, 2, Alive)]), Some((digest(2), at(&[3]))));
        assert_eq!(of(&[(3, 1, Alive), (1, 2, Alive)]), Some((digest(1), at(&[3]))));
        assert_eq!(of(&[(1, 1, Draining), (2, 1, Draining), (3, 2, Alive)]), Some((digest(2), at(&[3]))));
        assert_eq!(of(&[(1, 1, Suspect), (2, 1, Lapsed), (3, 2, Alive)]), Some((digest(2), at(&[3]))));
        assert_eq!(of(&[(1, 1, Suspect), (2, 1, Lapsed), (3, 2, Draining)]), Some((digest(1), at(&[2, 1]))));
        assert_eq!(of(&[(1, 1, Draining)]), None);
    }

    #[test]
    fn who_says_no_digest_is_read_anew_at_each_start() {
        let one = instance(7, 0, Standing::Alive);
        let again = ResolvedEndpoint { incarnation: 2, ..one.clone() };
        let read = |endpoint: &ResolvedEndpoint| {
            let known = Resolution { endpoints: vec![endpoint.clone()], status: ResolutionStatus::Resolved };
            match Wanted::of(&known) {
                Wanted::Read { schema, .. } => schema,
                other => panic!("it is to be read: {other:?}"),
            }
        };
        assert_eq!(read(&one), read(&one));
        assert_ne!(read(&one), read(&again));
    }

    #[test]
    fn nobody_is_believed_only_where_somebody_says_so() {
        let of = |status| Wanted::of(&Resolution { endpoints: Vec::new(), status });
        assert_eq!(of(ResolutionStatus::Empty), Wanted::Gone);
        assert_eq!(of(ResolutionStatus::Unresolved), Wanted::Nothing);
        assert_eq!(of(ResolutionStatus::Refused("no".into())), Wanted::Nothing);
    }
}
