//! The one place of this crate that reads a clock. Everything else is handed an instant, so that a test or a simulation
//! with paused time decides what time it is.

use std::time::SystemTime;

use tokio::time::Instant;

/// The monotonic time in which deadlines, ages and latencies are measured. It is tokio's clock: it stands still and jumps
/// under `tokio::time::pause`.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    Instant::now()
}

/// The time of day, for ids that sort by it. Nothing is decided by it: it may jump.
pub(crate) fn wall() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time of day")]
    SystemTime::now()
}
