//! Where a registrar gets its load reports from.

use std::fmt;
use std::sync::{Arc, OnceLock};

use mesh_api::registry::v1 as wire;

use crate::load::LoadReport;

/// Says how busy the process has been since it was asked last.
type Sample = Box<dyn Fn() -> LoadReport + Send + Sync>;

/// The source of load reports: none until somebody gives one.
#[derive(Clone, Default)]
pub(super) struct Gauge(Arc<OnceLock<Sample>>);

impl Gauge {
    /// Takes the source; the first one holds.
    pub(super) fn set(&self, sample: Sample) {
        let _ = self.0.set(sample);
    }

    /// How busy the process is now; `None` without a source.
    pub(super) fn read(&self) -> Option<wire::LoadReport> {
        let report = (self.0.get()?)().sane();
        Some(wire::LoadReport {
            cpu_utilization: report.cpu_utilization,
            requests_per_second: report.requests_per_second,
            errors_per_second: report.errors_per_second,
            requests_in_flight: report.requests_in_flight,
        })
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gauge").field(&self.0.get().is_some()).finish()
    }
}
