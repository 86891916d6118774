//! The one place that reads a clock. Everything else is handed an instant, so that a test or a simulation with paused
//! time decides what time it is.

use std::time::SystemTime;

use tokio::time::Instant;

/// The monotonic time that every deadline, age and latency of the process is measured in. It is tokio's clock: it
/// stands still and jumps under `tokio::time::pause`.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    Instant::now()
}

/// The calendar time: for what people read and for what is stored, never for measuring.
#[must_use]
pub fn wall() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the calendar clock")]
    SystemTime::now()
}
