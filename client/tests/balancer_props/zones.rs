//! The part of the calls that stays in the own zone.

use mesh_client::balancer::Zone;
use proptest::prelude::*;

use crate::model::{Endpoint, Model, balancers, is_likely, picker};

fn zones(own: usize, other: usize, seed: u64) -> Model {
    let endpoint = |zone| Endpoint { zone, ..Endpoint::default() };
    Model::new([vec![endpoint(Zone::Own); own], vec![endpoint(Zone::Other); other]].concat(), seed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_own_zone_keeps_its_share(
        own in 1_usize..10,
        other in 1_usize..10,
        share in 0.0_f32..=1.0,
        balancer in balancers(),
        seed: u64,
    ) {
        const CALLS: usize = 5_000;
        let model = zones(own, other, seed);
        let picks = model.picks(&picker(&balancer, &model, Some(share)), CALLS);
        let stayed: usize = picks[..own].iter().sum();
        prop_assert!(is_likely(stayed, CALLS, share.into()), "{} of {} for {}", stayed, CALLS, share);
    }

    /// A share of one keeps every call, and one of none sends each away.
    #[test]
    fn all_is_all_and_nothing_is_nothing(own in 1_usize..10, other in 1_usize..10, balancer in balancers(), seed: u64) {
        let model = zones(own, other, seed);
        let stayed = |share| model.picks(&picker(&balancer, &model, Some(share)), 500)[..own].iter().sum::<usize>();
        prop_assert_eq!(stayed(1.0), 500);
        prop_assert_eq!(stayed(0.0), 0);
    }

    /// A zone that cannot take the call leaves it to the other one.
    #[test]
    fn a_full_zone_overflows(own in 1_usize..10, other in 1_usize..10, balancer in balancers(), seed: u64) {
        let mut model = zones(own, other, seed);
        for endpoint in &mut model.endpoints[..own] {
            endpoint.open = false;
        }
        let picks = model.picks(&picker(&balancer, &model, Some(1.0)), 100);
        prop_assert_eq!(picks[own..].iter().sum::<usize>(), 100);
    }

    #[test]
    fn without_a_share_the_zone_makes_no_difference(own in 1_usize..10, other in 1_usize..10, seed: u64) {
        let model = zones(own, other, seed);
        let picks = model.picks(&picker(&mesh_client::Balancer::RoundRobin, &model, None), 3 * (own + other));
        prop_assert!(picks.iter().all(|picked| *picked == 3), "{:?}", picks);
    }
}
