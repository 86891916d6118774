//! The same endpoint for the same key.

use mesh_client::balancer::{Candidates, Member, Picker, Zone};
use mesh_client::{Balancer, RingHash};
use proptest::prelude::*;
use xxhash_rust::xxh64::xxh64;

use crate::model::{Endpoint, Model, is_likely, members, names, picker};

const KEYS: usize = 4096;

fn ring(bound_percent: u16) -> Balancer {
    Balancer::RingHash(RingHash { bound_percent, key_header: None })
}

/// Uniform keys.
fn keys(seed: u64) -> Vec<u64> {
    let model = Model::equal(0, seed);
    (0..KEYS).map(|_| model.draw()).collect()
}

/// Where each key goes on a quiet service.
fn places(picker: &Picker, model: &Model, keys: &[u64]) -> Vec<usize> {
    keys.iter().map(|key| picker.pick(model, Some(*key)).expect("somebody can take a call")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// gRFC A42 to the letter, for endpoints of one weight.
    #[test]
    fn a_key_belongs_to_the_first_place_at_or_after_it(count in 1_usize..40, seed: u64) {
        let model = Model::equal(count, seed);
        let names = names(count);
        let each = 1024_usize.div_ceil(count);
        let mut places: Vec<(u64, usize)> = (0..count * each)
            .map(|place| (xxh64(format!("{}_{}", names[place / each], place % each).as_bytes(), 0), place / each))
            .collect();
        places.sort_unstable();
        let picker = picker(&ring(125), &model, None);
        for key in keys(seed).into_iter().take(200).chain([0, u64::MAX, places[0].0, places[0].0 + 1]) {
            let owner = places.iter().find(|(hash, _)| *hash >= key).unwrap_or(&places[0]).1;
            prop_assert_eq!(picker.pick(&model, Some(key)), Some(owner));
        }
    }

    /// Keys spread by weight: 1024 places leave the lightest of eight with about a dozen percent of deviation.
    #[test]
    fn keys_spread_by_weight(weights in prop::collection::vec(50_u16..=200, 2..8), seed: u64) {
        let model = Model::weighted(&weights, seed);
        let picker = picker(&ring(10_000), &model, None);
        let sum: f64 = weights.iter().copied().map(f64::from).sum();
        let placed = places(&picker, &model, &keys(seed));
        for (index, weight) in weights.iter().enumerate() {
            let keys = placed.iter().filter(|place| **place == index).count() as f64;
            let expected = KEYS as f64 * f64::from(*weight) / sum;
            prop_assert!((0.6..1.5).contains(&(keys / expected)), "{} of {}", keys, expected);
        }
    }

    #[test]
    fn calls_without_a_key_go_anywhere(count in 2_usize..10, seed: u64) {
        let model = Model::equal(count, seed);
        let picks = model.picks(&picker(&ring(125), &model, None), KEYS);
        prop_assert!(picks.iter().all(|picked| *picked > KEYS / count / 2), "{:?}", picks);
    }

    /// One that is lost for a moment, or cannot take calls: its keys go elsewhere, about one in n, and all others stay.
    #[test]
    fn who_is_lost_moves_its_own_keys_and_no_others(count in 2_usize..60, lost in any::<prop::sample::Index>(), seed: u64) {
        let mut model = Model::equal(count, seed);
        let lost = lost.index(count);
        let (names, keys) = (names(count), keys(seed));
        let all = members(&names, &model.endpoints);
        let whole = Picker::new(&ring(125), &all, &[], None);
        let before = places(&whole, &model, &keys);

        model.endpoints[lost].open = false;
        let closed = places(&whole, &model, &keys);

        let mut present = all.clone();
        let absent = present.remove(lost);
        let fewer = Model::equal(count - 1, seed);
        let without = places(&Picker::new(&ring(125), &present, &[absent], None), &fewer, &keys);
        let without: Vec<usize> = without.into_iter().map(|place| place + usize::from(place >= lost)).collect();

        prop_assert_eq!(&without, &closed, "to be full and to be gone are the same to a key");
        let moved: Vec<usize> = (0..KEYS).filter(|key| before[*key] != closed[*key]).collect();
        prop_assert!(moved.iter().all(|key| before[*key] == lost));
        prop_assert!(before.iter().zip(&closed).all(|(before, closed)| *before != lost || *closed != lost));
        prop_assert!(moved.len() as f64 <= 2.0 * KEYS as f64 / count as f64 + 10.0, "{} of {}", moved.len(), KEYS);
    }

    /// One that the registry no longer lists leaves more places to each of the others, as A42 wants it: the keys that lie
    /// before the new ones move too.
    #[test]
    fn who_is_gone_for_good_moves_few_keys(count in 3_usize..60, gone in any::<prop::sample::Index>(), seed: u64) {
        let gone = gone.index(count);
        let (model, fewer) = (Model::equal(count, seed), Model::equal(count - 1, seed));
        let (names, keys) = (names(count), keys(seed));
        let mut left = members(&names, &model.endpoints);
        let before = places(&Picker::new(&ring(125), &left, &[], None), &model, &keys);
        left.remove(gone);
        let after = places(&Picker::new(&ring(125), &left, &[], None), &fewer, &keys);
        let moved = before.iter().zip(&after).filter(|(before, after)| **before != **after + usize::from(**after >= gone));
        let places = |count: usize| 1024_usize.div_ceil(count) as f64;
        let expected = 1.0 / count as f64 + 1.0 - places(count) / places(count - 1);
        prop_assert!(moved.count() as f64 <= (1.5 * expected + 0.02) * KEYS as f64, "for {}", expected);
    }

    /// No endpoint takes more than its bound, whatever the keys: at most ceil(bound × weight share × calls in flight).
    #[test]
    fn nobody_takes_more_than_its_bound(
        weights in prop::collection::vec(1_u16..=400, 1..20),
        bound_percent in 100_u16..400,
        hot_keys in 1_usize..5,
        calls in 1_usize..500,
        seed: u64,
    ) {
        let mut model = Model::weighted(&weights, seed);
        let picker = picker(&ring(bound_percent), &model, None);
        let keys = keys(seed);
        let sum: u64 = weights.iter().copied().map(u64::from).sum();
        for call in 0..calls {
            let picked = picker.pick(&model, Some(keys[call % hot_keys])).unwrap();
            model.endpoints[picked].in_flight += 1;
            let part = u64::from(weights[picked]) * u64::from(model.in_flight()) * u64::from(bound_percent);
            prop_assert!(u64::from(model.endpoints[picked].in_flight) <= part.div_ceil(sum * 100));
        }
    }

    /// Where the others cannot take a call, one beyond its bound still does.
    #[test]
    fn a_bound_refuses_nobody(count in 1_usize..20, key: u64, seed: u64) {
        let mut model = Model::new(vec![Endpoint { open: false, ..Endpoint::default() }; count], seed);
        model.endpoints[0] = Endpoint { in_flight: 1000, ..Endpoint::default() };
        prop_assert_eq!(picker(&ring(100), &model, None).pick(&model, Some(key)), Some(0));
    }
}

/// More endpoints than a ring is meant to have places: each still has one.
#[test]
fn nobody_is_left_off_a_crowded_ring() {
    let count = 5_000;
    let (model, names) = (Model::equal(count, 1), names(count));
    let picker = picker(&ring(125), &model, None);
    for (index, name) in names.iter().enumerate() {
        let place = xxh64(format!("{name}_0").as_bytes(), 0);
        assert_eq!(picker.pick(&model, Some(place)), Some(index));
    }
}

/// What tells two equal endpoints apart is their name, so every caller agrees on where a key goes.
#[test]
fn the_order_of_endpoints_moves_no_key() {
    let names = names(20);
    let model = Model::equal(20, 1);
    let (keys, forward) = (keys(1), members(&names, &model.endpoints));
    let backward: Vec<Member<'_>> = forward.iter().rev().copied().collect();
    let one = places(&Picker::new(&ring(125), &forward, &[], None), &model, &keys);
    let other = places(&Picker::new(&ring(125), &backward, &[], None), &model, &keys);
    assert!(one.iter().zip(&other).all(|(one, other)| *one == 19 - *other));
}

/// A key that spills to another zone always does, and one that stays always stays.
#[test]
fn keys_agree_on_their_zone() {
    let endpoint = |zone| Endpoint { zone, ..Endpoint::default() };
    let model = Model::new([vec![endpoint(Zone::Own); 3], vec![endpoint(Zone::Other); 3]].concat(), 1);
    let (picker, keys) = (picker(&ring(125), &model, Some(0.5)), keys(1));
    let placed = places(&picker, &model, &keys);
    assert_eq!(placed, places(&picker, &model, &keys));
    assert!(is_likely(placed.iter().filter(|place| **place < 3).count(), KEYS, 0.5));
}

/// A pick that finds nobody costs as much as there are candidates, and not as the ring has places.
#[test]
fn nobody_is_asked_twice() {
    for count in [1, 3, 40, 700] {
        let mut model = Model::equal(count, 7);
        model.endpoints.iter_mut().for_each(|endpoint| endpoint.open = false);
        assert_eq!(picker(&ring(125), &model, None).pick(&model, Some(42)), None);
        let mut looks = model.looks.take();
        looks.sort_unstable();
        assert_eq!(looks, (0..count).collect::<Vec<_>>());
    }
}
