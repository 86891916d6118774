//! The one place of this crate that reads a clock. Everything else is handed an instant, so that a test or a simulation
//! with paused time decides what time it is.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

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

/// A moment on the clock of one target: nanoseconds since its birth. A reading becomes one once; from there on comparing
/// two is one instruction and their difference two, where an `Instant` counts seconds and nanoseconds apart.
///
/// Counted from the target's birth and not from the process's, so that where seconds and windows begin does not depend on
/// when a simulation was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    /// One more than it is: a stamp that may be missing is one word too.
    nanos: NonZeroU64,
}

impl Stamp {
    /// `now` on the clock of a target that was born at `origin`.
    #[inline]
    pub(crate) fn new(origin: Instant, now: Instant) -> Self {
        Self { nanos: NonZeroU64::MIN.saturating_add(nanos(now.saturating_duration_since(origin))) }
    }

    /// Nanoseconds since the target's birth; they last for 584 years.
    #[inline]
    pub(crate) fn nanos(self) -> u64 {
        self.nanos.get() - 1
    }

    /// How many nanoseconds after `earlier` it is.
    #[inline]
    pub(crate) fn nanos_since(self, earlier: Self) -> u64 {
        self.nanos.get().saturating_sub(earlier.nanos.get())
    }

    /// How long after `earlier` it is.
    #[inline]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// So much later.
    #[inline]
    pub(crate) fn after(self, pause: Duration) -> Self {
        Self { nanos: self.nanos.saturating_add(nanos(pause)) }
    }

    /// The moment on the clock that timers know.
    pub(crate) fn instant(self, origin: Instant) -> Instant {
        origin + Duration::from_nanos(self.nanos())
    }

    /// Milliseconds, which go round every 49 days: `Ewma` expects that.
    #[inline]
    pub(crate) fn millis(self) -> u32 {
        (self.nanos() / 1_000_000) as u32
    }
}

/// A duration in nanoseconds, at most 584 years.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    const PER_SECOND: u64 = 1_000_000_000;
    duration.as_secs().saturating_mul(PER_SECOND).saturating_add(u64::from(duration.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_the_moment_that_it_was_made_of() {
        let origin = now();
        let later = origin + Duration::from_millis(1_500);
        let (born, stamp) = (Stamp::new(origin, origin), Stamp::new(origin, later));
        assert_eq!((stamp.nanos(), stamp.instant(origin), stamp.since(born)), (1_500_000_000, later, later - origin));
        assert_eq!((born.after(later - origin), born.since(stamp)), (stamp, Duration::ZERO));
        assert_eq!(size_of::<Option<Stamp>>(), size_of::<u64>());
    }

    #[test]
    fn the_longest_duration_is_a_number() {
        assert_eq!(nanos(Duration::MAX), u64::MAX);
        assert_eq!(nanos(Duration::from_millis(1_500)), 1_500_000_000);
    }
}
