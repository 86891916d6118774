//! Time as it is stored.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock;

/// Milliseconds since 1970-01-01T00:00:00Z: what a `BIGINT` column holds and a caller gets as a `Timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// The wall clock's time.
    pub fn now() -> Self {
        clock::wall().into()
    }

    /// The time `age` earlier.
    pub fn before(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How much later than another time this is; nothing if it is earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }

    /// The time `wait` later.
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl From<SystemTime> for UnixMillis {
    /// A clock set before 1970 reads as 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl From<UnixMillis> for prost_types::Timestamp {
    fn from(time: UnixMillis) -> Self {
        let nanos = time.0.rem_euclid(1000) * 1_000_000;
        Self { seconds: time.0.div_euclid(1000), nanos: i32::try_from(nanos).expect("below a billion") }
    }
}
