//! The moving average in a word.

use std::time::Duration;

use mesh_client::balancer::Ewma;
use proptest::prelude::*;

/// Microseconds to minutes.
fn latency() -> impl Strategy<Value = Duration> {
    (1_u64..60_000_000).prop_map(Duration::from_micros)
}

fn seconds(latency: Duration) -> f32 {
    latency.as_secs_f32().max(Ewma::FLOOR.as_secs_f32())
}

proptest! {
    #[test]
    fn a_peak_replaces_the_average_at_once(known in latency(), peak in latency(), now: u32, after in 0_u32..1_000_000) {
        prop_assume!(peak > known);
        let later = now.wrapping_add(after);
        let average = Ewma::new(known, now).sampled(peak, later);
        prop_assert_eq!(average.project(later), seconds(peak));
    }

    /// The textbook: the old value times exp(-dt/tau), and the sample for the rest.
    #[test]
    fn a_lower_sample_pulls_it_down_with_time(known in latency(), sample in latency(), now: u32, after in 10_u32..1_000_000) {
        prop_assume!(sample <= known);
        let later = now.wrapping_add(after);
        let average = Ewma::new(known, now).sampled(sample, later).project(later);
        let kept = (-f64::from(after) / 10_000.0).exp();
        let expected = known.as_secs_f64() * kept + sample.as_secs_f64() * (1.0 - kept);
        let expected = expected.max(Ewma::FLOOR.as_secs_f64());
        prop_assert!((f64::from(average) / expected - 1.0).abs() < 1e-3, "{} for {}", average, expected);
    }

    /// Reading is free: the value stays, and only what is read of it falls, e times in ten seconds.
    #[test]
    fn the_projection_falls_with_time_and_never_below_the_floor(known in latency(), now: u32, one: u32, more: u32) {
        let average = Ewma::new(known, now);
        let (one, more) = (one / 4, more / 4);
        let (sooner, later) = (average.project(now.wrapping_add(one)), average.project(now.wrapping_add(one + more)));
        prop_assert!(later <= sooner * 1.0001);
        prop_assert!(later >= Ewma::FLOOR.as_secs_f32());
        prop_assert!(sooner <= seconds(known));
        let after_tau = average.project(now.wrapping_add(10_000)).max(Ewma::FLOOR.as_secs_f32());
        let expected = (known.as_secs_f32() / std::f32::consts::E).max(Ewma::FLOOR.as_secs_f32());
        prop_assert!((after_tau / expected - 1.0).abs() < 1e-3);
    }

    #[test]
    fn giving_up_and_failing_can_only_raise(known in latency(), took in latency(), now: u32, after in 0_u32..1_000_000) {
        let later = now.wrapping_add(after);
        let average = Ewma::new(known, now);
        let before = average.project(later);
        let raised = average.raised(took, later).project(later);
        prop_assert!(raised >= before);
        prop_assert_eq!(raised, before.max(seconds(took)));
        let failed = average.failed(took, later).project(later);
        prop_assert!(failed >= before && failed >= seconds(took) && failed >= seconds(known));
    }

    /// Failing at once is no virtue: a few failures in a row look like a second each.
    #[test]
    fn failures_in_a_row_soon_count_as_a_second(known in latency(), took in latency(), now: u32) {
        let average = (0..6).fold(Ewma::new(known, now), |average, _| average.failed(took, now));
        prop_assert!(average.project(now) >= 1.0);
        prop_assert!(average.project(now) <= 1.0_f32.max(seconds(known)).max(seconds(took)));
    }

    /// Two threads may write in either order of their clocks.
    #[test]
    fn a_write_from_the_near_future_counts_as_one_of_now(known in latency(), now: u32, ahead in 0_u32..1_000_000) {
        prop_assert_eq!(Ewma::new(known, now.wrapping_add(ahead)).project(now), seconds(known));
    }

    #[test]
    fn samples_that_could_not_matter_are_not_worth_a_write(known in latency(), sample in latency(), now: u32, after in 0_u32..10) {
        prop_assume!(sample <= known);
        let average = Ewma::new(known, now);
        prop_assert_eq!(average.sampled(sample, now.wrapping_add(after)), average);
    }

    #[test]
    fn it_survives_the_atomic(known in latency(), now: u32) {
        let average = Ewma::new(known, now);
        prop_assert_eq!(Ewma::from_bits(average.to_bits()), average);
    }
}
