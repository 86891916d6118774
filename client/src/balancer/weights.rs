//! How much each endpoint can take.

use std::time::Duration;

use crate::LoadReport;

/// What errors count for: at 1.0, an endpoint that answers every call with an error looks as busy as one at full load.
const ERROR_PENALTY: f64 = 1.0;
/// What a call a second at full load weighs. Reports are weighed against each other only, so it may be any number that
/// keeps small ones apart.
const SCALE: f64 = 100.0;

/// What is known of how much one endpoint can take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity<'a> {
    /// The weight it registered with; 0: none.
    pub registered: u16,
    /// Its last load report and how old that is.
    pub report: Option<(&'a LoadReport, Duration)>,
    /// How long it has been READY.
    pub ready_for: Duration,
}

/// The weights of endpoints, in their order, for [`Member::weight`](super::Member::weight): calls per second over
/// utilisation as they report it (gRFC A58), where at least two have a report that counts, and 0 (not known) for those
/// that have none; else the weights that they registered with. The two are never mixed: they have no common measure.
#[must_use]
pub fn effective_weights(endpoints: &[Capacity<'_>]) -> Vec<u32> {
    let reported: Vec<u32> = endpoints.iter().map(Capacity::reported).collect();
    if reported.iter().filter(|weight| **weight > 0).count() >= 2 {
        return reported;
    }
    endpoints.iter().map(|endpoint| endpoint.registered.into()).collect()
}

impl Capacity<'_> {
    /// How old a report may be: gRFC A58's expiration period.
    pub const REPORT_AGE_MAX: Duration = Duration::from_secs(180);

    /// How long an endpoint is READY before its reports count: gRFC A58's blackout period. What it says of itself while its
    /// first calls arrive tells nothing about its capacity.
    pub const BLACKOUT: Duration = Duration::from_secs(10);

    /// What its report says, or 0 when it says nothing or does not count.
    fn reported(&self) -> u32 {
        let Some((report, age)) = self.report else { return 0 };
        let rate = report.requests_per_second;
        if age > Self::REPORT_AGE_MAX || self.ready_for < Self::BLACKOUT || rate <= 0.0 || report.cpu_utilization <= 0.0
        {
            return 0;
        }
        let busy = report.cpu_utilization + report.errors_per_second / rate * ERROR_PENALTY;
        // A cast from a float ends at the type's bounds and makes no number a zero.
        ((rate / busy * SCALE).round() as u32).max(1)
    }
}

/// Weights with the unknown ones (0) at the mean of the known ones; all equal while fewer than two are known, because one
/// alone says nothing about the others.
pub(super) fn known(weights: impl Iterator<Item = u32> + Clone) -> Vec<u32> {
    let known = weights.clone().filter(|weight| *weight > 0);
    let (count, sum) = known.fold((0_u64, 0_u64), |(count, sum), weight| (count + 1, sum + u64::from(weight)));
    if count < 2 {
        return weights.map(|_| 1).collect();
    }
    // At least 1, and at most the largest of them.
    let mean = (sum / count) as u32;
    weights.map(|weight| if weight == 0 { mean } else { weight }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn report(rate: f64, utilization: f64, errors: f64) -> LoadReport {
        LoadReport {
            requests_per_second: rate,
            cpu_utilization: utilization,
            errors_per_second: errors,
            requests_in_flight: 0,
        }
    }

    fn fresh(report: &LoadReport) -> Capacity<'_> {
        Capacity { registered: 7, report: Some((report, Duration::ZERO)), ready_for: Duration::from_secs(60) }
    }

    #[test]
    fn calls_over_utilisation_is_what_an_endpoint_can_take() {
        let (busy, idle, failing) = (report(100.0, 0.5, 0.0), report(100.0, 0.25, 0.0), report(100.0, 0.25, 25.0));
        assert_eq!(effective_weights(&[&busy, &idle, &failing].map(fresh)), [20_000, 40_000, 20_000]);
    }

    #[test]
    fn reports_that_are_old_early_or_empty_do_not_count() {
        let (good, none) = (report(100.0, 0.5, 0.0), report(0.0, 0.5, 0.0));
        let old = Capacity { report: Some((&good, Duration::from_secs(181))), ..fresh(&good) };
        let early = Capacity { ready_for: Duration::from_secs(9), ..fresh(&good) };
        let silent = Capacity { report: None, ..fresh(&good) };
        let all = [fresh(&good), old, early, fresh(&none), silent, fresh(&good)];
        assert_eq!(effective_weights(&all), [20_000, 0, 0, 0, 0, 20_000]);
    }

    #[test]
    fn registered_weights_are_used_until_two_reports_can_be_compared() {
        let good = report(100.0, 0.5, 0.0);
        assert_eq!(effective_weights(&[fresh(&good), Capacity { report: None, ..fresh(&good) }]), [7, 7]);
    }

    #[test]
    fn what_is_not_known_is_the_mean_of_what_is() {
        assert_eq!(known([10, 0, 30].into_iter()), [10, 20, 30]);
        assert_eq!(known([10, 0, 0].into_iter()), [1, 1, 1]);
        assert_eq!(known([u32::MAX, u32::MAX, 0].into_iter()), [u32::MAX; 3]);
        assert!(known(std::iter::empty()).is_empty());
    }
}
