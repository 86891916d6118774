//! Who is a candidate, who is connected to, and how new ones are led up.

use std::collections::BTreeSet;
use std::time::Duration;

use mesh_client::balancer::Fitness::{Absent, Doubted, Draining, Ejected, Fit, OnTrial};
use mesh_client::balancer::{Alarm, Fitness, Seen, Zone, select, subset, warmth};
use mesh_client::{Percent, SlowStart};
use proptest::prelude::*;

use crate::model::names;

fn percent(number: u8) -> Percent {
    Percent::new(number).expect("at most 100")
}

fn seen() -> impl Strategy<Value = Vec<Seen>> {
    let fitness = prop::sample::select(vec![Fit, OnTrial, Doubted, Ejected, Absent, Draining]);
    let zone = prop::sample::select(vec![Zone::Own, Zone::Other]);
    prop::collection::vec((fitness, zone).prop_map(|(fitness, zone)| Seen { fitness, zone }), 0..60)
}

fn elsewhere(fitness: &[Fitness]) -> Vec<Seen> {
    fitness.iter().map(|fitness| Seen { fitness: *fitness, zone: Zone::Other }).collect()
}

proptest! {
    #[test]
    fn candidates_are_those_who_are_fit_or_in_a_panic_all_who_are_connected(
        seen in seen(),
        threshold in (0_u8..=100).prop_map(percent),
    ) {
        let selection = select(&seen, threshold);
        let wanted: &[Fitness] = match selection.alarm {
            Alarm::Calm => &[Fit, OnTrial],
            Alarm::Panic => &[Fit, OnTrial, Doubted, Ejected],
        };
        let picked: BTreeSet<usize> = selection.indices.iter().copied().collect();
        let expected: BTreeSet<usize> = (0..seen.len()).filter(|index| wanted.contains(&seen[*index].fitness)).collect();
        prop_assert_eq!(&picked, &expected);
        prop_assert_eq!(picked.len(), selection.indices.len());
        let own_first = selection.indices.is_sorted_by_key(|index| (seen[*index].zone == Zone::Other, *index));
        prop_assert!(own_first, "{:?}", selection.indices);
    }

    /// Whoever is connected and not leaving keeps the service going.
    #[test]
    fn somebody_is_a_candidate_while_anybody_is_connected(seen in seen(), threshold in (0_u8..=100).prop_map(percent)) {
        let connected = seen.iter().any(|seen| !matches!(seen.fitness, Absent | Draining));
        prop_assert_eq!(select(&seen, threshold).indices.is_empty(), !connected);
    }

    #[test]
    fn panic_begins_below_the_threshold(fit in 0_usize..50, unfit in 0_usize..50, threshold in 1_u8..=100) {
        prop_assume!(fit + unfit > 0);
        let seen = elsewhere(&[vec![Fit; fit], vec![Ejected; unfit]].concat());
        let share = fit as f64 / (fit + unfit) as f64 * 100.0;
        prop_assume!((share - f64::from(threshold)).abs() > 1e-9 || fit * 100 == usize::from(threshold) * (fit + unfit));
        let panics = select(&seen, percent(threshold)).alarm == Alarm::Panic;
        prop_assert_eq!(panics, share < f64::from(threshold) - 1e-9);
    }

    #[test]
    fn the_own_zones_share_is_its_fit_part_and_two_fifths_more(
        fit in 1_usize..30,
        absent in 0_usize..30,
        other in 1_usize..30,
    ) {
        let own = [vec![Fit; fit], vec![Absent; absent]].concat();
        let own = own.into_iter().map(|fitness| Seen { fitness, zone: Zone::Own });
        let seen: Vec<Seen> = own.chain(elsewhere(&vec![Fit; other])).collect();
        let share = select(&seen, percent(50)).own_share.unwrap();
        let expected = (1.4 * fit as f32 / (fit + absent) as f32).min(1.0);
        prop_assert!((share - expected).abs() < 1e-6);
    }

    /// One name more or less replaces at most one of those taken.
    #[test]
    fn a_subset_changes_by_one_at_most(count in 1_usize..200, max in 0_usize..60, gone in any::<prop::sample::Index>(), seed: u64) {
        let names = names(count);
        let mut fewer = names.clone();
        fewer.remove(gone.index(count));
        let taken = |names: &[String]| -> BTreeSet<String> {
            subset(seed, names, max).into_iter().map(|index| names[index].clone()).collect()
        };
        let (before, after) = (taken(&names), taken(&fewer));
        prop_assert_eq!(before.len(), max.min(count));
        prop_assert_eq!(after.len(), max.min(count - 1));
        prop_assert!(before.difference(&after).count() <= 1);
        prop_assert!(after.difference(&before).count() <= 1);
    }

    /// What is taken depends on the names and not on their order.
    #[test]
    fn a_subset_does_not_depend_on_the_order(count in 1_usize..200, max in 0_usize..60, seed: u64) {
        let names = names(count);
        let reversed: Vec<String> = names.iter().rev().cloned().collect();
        let mut mirrored: Vec<usize> = subset(seed, &reversed, max).iter().map(|index| count - 1 - index).collect();
        mirrored.reverse();
        prop_assert_eq!(subset(seed, &names, max), mirrored);
    }

    #[test]
    fn warmth_rises_from_the_smallest_share_to_all(
        window_ms in 0_u64..120_000,
        share_min in (0_u8..=100).prop_map(percent),
        at_ms in 0_u64..150_000,
        later_ms in 0_u64..150_000,
    ) {
        let policy = SlowStart { window: Duration::from_millis(window_ms), share_min };
        let at = |ms| warmth(Duration::from_millis(ms), policy);
        prop_assert!(at(at_ms) > 0.0 && at(at_ms) <= 1.0);
        prop_assert!(at(at_ms) >= f32::from(share_min.get()) / 100.0);
        prop_assert!(at(at_ms + later_ms) >= at(at_ms));
        prop_assert_eq!(at(window_ms.max(1000)), 1.0);
    }
}

/// A thousand callers with seeds of their own, each connected to twenty of a hundred: everybody is called by some two
/// hundred of them.
#[test]
fn many_callers_subsets_spread_evenly() {
    let names = names(100);
    let mut callers = [0; 100];
    for seed in 0..1000 {
        for index in subset(seed, &names, 20) {
            callers[index] += 1;
        }
    }
    // Five standard deviations of the binomial: 13 each.
    assert!(callers.iter().all(|callers| (137..263).contains(callers)), "{callers:?}");
}

/// What happens in another zone must not send calls there that the own zone can take.
#[test]
fn a_sick_zone_elsewhere_is_no_reason_to_panic() {
    let own = [Fit; 3].map(|fitness| Seen { fitness, zone: Zone::Own });
    let seen: Vec<Seen> = own.into_iter().chain(elsewhere(&[Doubted; 7])).collect();
    let selection = select(&seen, percent(50));
    assert_eq!((selection.indices, selection.alarm), (vec![0, 1, 2], Alarm::Calm));
}

#[test]
fn half_of_the_endpoints_is_enough_for_calm_and_less_is_not() {
    let threshold = percent(50);
    assert_eq!(select(&elsewhere(&[Fit, Fit, Ejected, Ejected]), threshold).indices, [0, 1]);
    assert_eq!(select(&elsewhere(&[Fit, Ejected, Ejected, Draining]), threshold).indices, [0, 1, 2]);
    // Who is not connected is kept away by no judgement.
    assert_eq!(select(&elsewhere(&[Fit, Doubted, Absent, Absent]), threshold).indices, [0]);
}

#[test]
fn without_a_threshold_the_unfit_are_the_last_resort() {
    assert_eq!(select(&elsewhere(&[Fit, Doubted, Ejected]), percent(0)).indices, [0]);
    assert_eq!(select(&elsewhere(&[Absent, Doubted, Ejected]), percent(0)).indices, [1, 2]);
}
