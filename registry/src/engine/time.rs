//! The engine's clock: the wall clock read once, then advanced by the monotonic one.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::catalog::Timestamp;

/// Turns tokio's instants into the catalog's timestamps and back. Under paused tokio time it stands still with it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_is: Timestamp,
}

impl Clock {
    /// A clock that starts at this wall time now. A simulation passes a fixed one.
    #[must_use]
    pub fn starting_at(wall: SystemTime) -> Self {
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { origin: mesh_runtime::clock::now(), origin_is: Timestamp::since_epoch(since_epoch) }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.origin_is.after(mesh_runtime::clock::now().saturating_duration_since(self.origin))
    }

    /// The instant to sleep until for a timestamp.
    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        self.origin + at.since(self.origin_is)
    }
}
