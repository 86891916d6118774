//! The one place that reads a clock. Everything else is handed an instant, so that a test or a simulation with paused
//! time decides what time it is.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use tokio::time::Instant;

/// The monotonic time that every deadline, age and latency of the process is measured in. It is tokio's clock: it
/// stands still and jumps under `tokio::time::pause`.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    Instant::now()
}

/// Processor time that this process has used, in user and system mode.
#[must_use]
pub(crate) fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.try_into().unwrap_or_default(), used.tv_nsec.try_into().unwrap_or_default())
}

/// The calendar time: for what people read and for what is stored, never for measuring.
#[must_use]
pub fn wall() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the calendar clock")]
    SystemTime::now()
}
