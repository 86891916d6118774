//! What is wrong with a [`Policy`]: every field outside its range, all of them at once.

use std::fmt;
use std::time::Duration;

use tonic::Code;

use crate::policy::{Balancer, Ejection, Policy, Retry, RingHash, SlowStart};

/// Longest time that a policy may name, a day: no call waits longer, and a sum with an instant stays one.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How many attempts gRFC A6 allows.
const ATTEMPTS_MAX: u32 = 5;

/// Below 100 nobody could take even its own share of the calls in flight; at 100 times the share there is no bound left.
const RING_BOUND_PERCENT: std::ops::RangeInclusive<u16> = 100..=10_000;

/// One field of a [`Policy`] that is outside its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFault {
    field: &'static str,
    given: String,
    taken: &'static str,
}

impl PolicyFault {
    /// The field, as it is written in Rust: `ejection.base`.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, {} is taken", self.field, self.given, self.taken)
    }
}

/// Everything that is wrong with it.
pub(super) fn faults_of(policy: &Policy) -> Vec<PolicyFault> {
    let mut faults = Faults::default();
    if let Balancer::RingHash(RingHash { bound_percent, .. }) = policy.balancer {
        let fits = RING_BOUND_PERCENT.contains(&bound_percent);
        faults.unless(fits, "balancer.bound_percent", bound_percent, "100 to 10000");
    }
    if let Some(subset_max) = policy.subset_max {
        faults.unless(subset_max > 0, "subset_max", subset_max, "1 to 65535");
    }
    if let Some(SlowStart { window, share_min }) = policy.slow_start {
        faults.unless(lasting(window), "slow_start.window", seconds(window), "more than 0 s and at most a day");
        let share = share_min.get();
        faults.unless(share > 0, "slow_start.share_min", share, "1 to 100 percent");
    }
    if let Some(ejection) = policy.ejection {
        faults.of_ejection(ejection);
    }
    faults.of_retry(&policy.retry);
    if let Some(hedging) = policy.hedging {
        let delay = hedging.delay_min;
        faults.unless(delay <= TIME_MAX, "hedging.delay_min", seconds(delay), "at most a day");
    }
    faults.unless(policy.in_flight_max > 0, "in_flight_max", policy.in_flight_max, "at least 1");
    faults.unless(policy.waiting_max > 0, "waiting_max", policy.waiting_max, "at least 1");
    faults.unless(policy.failfast <= TIME_MAX, "failfast", seconds(policy.failfast), "at most a day");
    faults.found
}

#[derive(Default)]
struct Faults {
    found: Vec<PolicyFault>,
}

impl Faults {
    fn unless(&mut self, fits: bool, field: &'static str, given: impl fmt::Display, taken: &'static str) {
        if !fits {
            self.found.push(PolicyFault { field, given: given.to_string(), taken });
        }
    }

    fn of_ejection(&mut self, Ejection { failures, base, max, .. }: Ejection) {
        self.unless(failures > 0, "ejection.failures", failures, "at least 1");
        self.unless(lasting(base), "ejection.base", seconds(base), "more than 0 s and at most a day");
        let fits = (base..=TIME_MAX).contains(&max);
        self.unless(fits, "ejection.max", seconds(max), "at least ejection.base and at most a day");
    }

    fn of_retry(&mut self, Retry { attempts_max, codes, backoff_base, backoff_max }: &Retry) {
        let fits = (1..=ATTEMPTS_MAX).contains(attempts_max);
        self.unless(fits, "retry.attempts_max", attempts_max, "1 to 5");
        self.unless(!codes.contains(&Code::Ok), "retry.codes", "with OK", "any status but OK");
        self.unless(
            lasting(*backoff_base),
            "retry.backoff_base",
            seconds(*backoff_base),
            "more than 0 s and at most a day",
        );
        let fits = (*backoff_base..=TIME_MAX).contains(backoff_max);
        self.unless(fits, "retry.backoff_max", seconds(*backoff_max), "at least retry.backoff_base and at most a day");
    }
}

fn lasting(time: Duration) -> bool {
    !time.is_zero() && time <= TIME_MAX
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Hedging, Percent};

    #[test]
    fn the_default_has_no_fault() {
        assert_eq!(faults_of(&Policy::default()), []);
    }

    #[test]
    fn every_field_out_of_range_is_named_at_once() {
        let day = TIME_MAX + Duration::from_nanos(1);
        let policy = Policy {
            balancer: Balancer::RingHash(RingHash { key_header: None, bound_percent: 99 }),
            subset_max: Some(0),
            slow_start: Some(SlowStart { window: Duration::ZERO, share_min: Percent::new(0).unwrap() }),
            ejection: Some(Ejection { failures: 0, base: Duration::ZERO, max: day, ..Ejection::default() }),
            retry: Retry {
                attempts_max: 0,
                codes: vec![Code::Ok],
                backoff_base: Duration::from_secs(1),
                backoff_max: Duration::from_millis(1),
            },
            hedging: Some(Hedging { delay_min: day }),
            in_flight_max: 0,
            waiting_max: 0,
            failfast: Duration::MAX,
            ..Policy::default()
        };
        let fields: Vec<_> = faults_of(&policy).iter().map(PolicyFault::field).collect();
        let expected = [
            "balancer.bound_percent",
            "subset_max",
            "slow_start.window",
            "slow_start.share_min",
            "ejection.failures",
            "ejection.base",
            "ejection.max",
            "retry.attempts_max",
            "retry.codes",
            "retry.backoff_max",
            "hedging.delay_min",
            "in_flight_max",
            "waiting_max",
            "failfast",
        ];
        assert_eq!(fields, expected);
        assert_eq!(faults_of(&policy)[1].to_string(), "subset_max is 0, 1 to 65535 is taken");
    }

    #[test]
    fn the_ends_of_each_range_are_taken() {
        let ring = |bound_percent| Policy {
            balancer: Balancer::RingHash(RingHash { key_header: None, bound_percent }),
            ..Policy::default()
        };
        let attempts = |attempts_max| Policy { retry: Retry { attempts_max, ..Retry::default() }, ..Policy::default() };
        for policy in [ring(100), ring(10_000), attempts(1), attempts(5)] {
            assert_eq!(faults_of(&policy), []);
        }
        for policy in [ring(10_001), attempts(6)] {
            assert_eq!(faults_of(&policy).len(), 1);
        }
    }
}
