//! How busy an instance is, told by the registrar with its beats and heard by the resolver.

use std::time::Instant;

/// How busy a process is, averaged since its last report. A figure that is not a number, negative or infinite counts as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// Processor time over available time; 1.0 is one full share, above it is overload.
    pub cpu_utilization: f64,
    /// Calls finished per second.
    pub requests_per_second: f64,
    /// Calls finished with an error of the server's making, per second.
    pub errors_per_second: f64,
    /// Calls in flight now.
    pub requests_in_flight: u32,
}

impl LoadReport {
    /// The report with every figure that is none set to 0, so that no reader has to expect one.
    pub(crate) fn sane(self) -> Self {
        let figure = |value: f64| if value.is_finite() && value > 0.0 { value } else { 0.0 };
        Self {
            cpu_utilization: figure(self.cpu_utilization),
            requests_per_second: figure(self.requests_per_second),
            errors_per_second: figure(self.errors_per_second),
            requests_in_flight: self.requests_in_flight,
        }
    }
}

/// The figures in their order here, for a process shell that knows nothing of this crate.
impl From<(f64, f64, f64, u32)> for LoadReport {
    fn from(figures: (f64, f64, f64, u32)) -> Self {
        let (cpu_utilization, requests_per_second, errors_per_second, requests_in_flight) = figures;
        Self { cpu_utilization, requests_per_second, errors_per_second, requests_in_flight }
    }
}

/// The last load report of an endpoint, as the registry tells it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndpointLoad {
    /// What it says.
    pub report: LoadReport,
    /// Since when these figures are its latest. The registry repeats them for as long as the instance reports no others, so
    /// it is from here that their age counts.
    pub since: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_process_shell_are_a_report_in_their_order() {
        let figures = (0.5, 120.0, 2.0, 3);
        let report = LoadReport {
            cpu_utilization: 0.5,
            requests_per_second: 120.0,
            errors_per_second: 2.0,
            requests_in_flight: 3,
        };
        assert_eq!(LoadReport::from(figures), report);
    }

    #[test]
    fn a_figure_that_is_none_counts_as_nothing() {
        let report = LoadReport {
            cpu_utilization: f64::NAN,
            requests_per_second: f64::INFINITY,
            errors_per_second: -1.0,
            requests_in_flight: 3,
        };
        assert_eq!(report.sane(), LoadReport { requests_in_flight: 3, ..LoadReport::default() });
    }
}
