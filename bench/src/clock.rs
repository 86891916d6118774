//! The one place that reads the clock.

use std::time::Instant;

pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    Instant::now()
}
