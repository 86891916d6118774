//! How many snapshots begin at a time. When a registry comes back, every watcher asks for everything at once; what they
//! ask for is encoded once, but handing it out is work too, and heartbeats have to get in between.

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// Time between two snapshots: about what handing one of 100 instances out costs, so that no more than one of the
/// processors is at it. Two thousand watchers are served within 160 ms.
const INTERVAL: Duration = Duration::from_micros(80);

/// So many may begin at once after a rest.
const BURST: u32 = 64;

/// Gives out the times at which snapshots begin.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// When the snapshot that is asked for now may begin: at once, or once those asked for before have.
    pub(super) fn reserve(&self, now: Instant) -> Instant {
        let mut next = self.next.lock();
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + INTERVAL);
        turn.checked_sub(INTERVAL * BURST).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use mesh_runtime::clock;

    use super::*;

    #[test]
    fn a_storm_is_spread_and_one_alone_does_not_wait() {
        let (pace, now) = (Pace::default(), clock::now());
        let waits: Vec<Duration> = (0..2_000).map(|_| pace.reserve(now) - now).collect();
        assert!(waits[..64].iter().all(Duration::is_zero));
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        let last = waits[1_999];
        assert!(last > Duration::from_millis(150) && last < Duration::from_millis(160), "{last:?}");
        let later = now + Duration::from_secs(1);
        assert_eq!(pace.reserve(later), later);
    }
}
