//! What a load came to.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::drive::Spent;

/// Longest time that is told apart.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Costs, each per operation, and times.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) operations: u64,
    /// Operations that should have been and were not: answers that never came, changes that a watcher was not told.
    pub(crate) missed: u64,
    pub(crate) per_second: f64,
    /// CPU time of the server's process, kernel included, in microseconds an operation.
    pub(crate) server_cpu_us: f64,
    /// CPU time of the process that asks.
    pub(crate) generator_cpu_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Times as they come in.
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Self {
        // Three digits: 0.1 %.
        Self(Histogram::new_with_bounds(100, TIME_MAX.as_nanos() as u64, 3).expect("the bounds are in order"))
    }

    pub(super) fn took(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many.
    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// With what was spent on so many operations.
    pub(super) fn over(&self, operations: u64, missed: u64, spent: &Spent) -> Figures {
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / operations.max(1) as f64;
        let micros = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Figures {
            operations,
            missed,
            per_second: operations as f64 / spent.time.as_secs_f64(),
            server_cpu_us: each(spent.behind_cpu),
            generator_cpu_us: each(spent.cpu),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
        }
    }
}
