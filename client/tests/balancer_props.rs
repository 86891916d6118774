//! The balancers against naive models: whom they pick, how often, and what changes when somebody goes.

#[path = "balancer_props/ewma.rs"]
mod ewma;
#[path = "balancer_props/latency.rs"]
mod latency;
#[path = "balancer_props/least_request.rs"]
mod least_request;
#[path = "balancer_props/model.rs"]
mod model;
#[path = "balancer_props/random.rs"]
mod random;
#[path = "balancer_props/ring.rs"]
mod ring;
#[path = "balancer_props/rounds.rs"]
mod rounds;
#[path = "balancer_props/selection.rs"]
mod selection;
#[path = "balancer_props/zones.rs"]
mod zones;

use mesh_client::balancer::Zone;
use proptest::prelude::*;

use crate::model::{Endpoint, Model, balancers, picker};

/// Endpoints in any state.
fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let endpoint = (0_u32..50, 0_u16..400, 0.0_f32..2.0, 0.01_f32..1.0, prop::bool::weighted(0.7));
    let endpoint = endpoint.prop_map(|(in_flight, weight, latency, warmth, open)| Endpoint {
        in_flight,
        weight,
        latency,
        warmth,
        open,
        ..Endpoint::default()
    });
    prop::collection::vec(endpoint, 0..40)
}

proptest! {
    /// Whoever is picked can take the call, and somebody is picked whenever anybody can: for each balancer, in one zone or
    /// split in two, with a key or without.
    #[test]
    fn only_those_who_can_take_a_call_are_picked(
        mut endpoints in endpoints(),
        balancer in balancers(),
        own in 0_usize..40,
        share in prop::option::of(0.0_f32..=1.0),
        key: Option<u64>,
        seed: u64,
    ) {
        for endpoint in endpoints.iter_mut().take(own) {
            endpoint.zone = Zone::Own;
        }
        let model = Model::new(endpoints, seed);
        let picker = picker(&balancer, &model, share);
        for _ in 0..20 {
            match picker.pick(&model, key) {
                Some(index) => prop_assert!(model.endpoints[index].open),
                None => prop_assert!(model.endpoints.iter().all(|endpoint| !endpoint.open)),
            }
        }
    }

    /// One candidate gets every call, whatever is said of it.
    #[test]
    fn the_only_candidate_is_picked(endpoint in endpoints().prop_filter_map("one", |all| all.first().copied()),
        balancer in balancers(), key: Option<u64>, seed: u64) {
        let model = Model::new(vec![Endpoint { open: true, ..endpoint }], seed);
        prop_assert_eq!(picker(&balancer, &model, None).pick(&model, key), Some(0));
    }

    /// With a million endpoints a pick would still be a handful of reads.
    #[test]
    fn a_pick_looks_at_few_candidates_however_many_there_are(balancer in balancers(), count in 3_usize..2000, seed: u64) {
        const PICKS: usize = 200;
        let model = Model::equal(count, seed);
        let picker = picker(&balancer, &model, None);
        for _ in 0..PICKS {
            picker.pick(&model, None).unwrap();
        }
        prop_assert!(model.looks.borrow().len() <= 2 * PICKS);
    }
}
