//! How many snapshots begin at a time. When a registry comes back, every watcher asks for everything at once; what they
//! ask for is encoded once, but handing it out is work too, and heartbeats have to get in between.

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// Time between two snapshots: about what handing one of 100 instances out costs, so that no more than one of the
/// processors is at it. Two thousand watchers are served within 160 ms.
const INTERVAL: Duration = Duration::from_micros(80);

/// So many may begin at once after a rest.
const BURST: u32 = 64;

/// Furthest ahead that one is put off. Far less than a bookmark is, which sends whatever stands before it without waiting.
const AHEAD_MAX: Duration = Duration::from_millis(500);

/// Gives out the times at which snapshots begin.
#[derive(Debug, Default)]
pub(super) struct Pace {
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// When the snapshot that is asked for now may begin: at once, or once those asked for before have, but within
    /// [`AHEAD_MAX`]. Times that are not used are not given back. When all of them until then are given out, they are given
    /// out once more: a caller that asks over and over makes the others wait no longer than this.
    pub(super) fn reserve(&self, now: Instant) -> Instant {
        let mut next = self.next.lock();
        let turn = next.filter(|next| *next <= now + AHEAD_MAX).map_or(now, |next| next.max(now));
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

    #[test]
    fn who_asks_over_and_over_puts_nobody_off_for_longer_than_the_furthest_ahead() {
        let (pace, now) = (Pace::default(), clock::now());
        let waits: Vec<Duration> = (0..100_000).map(|_| pace.reserve(now) - now).collect();
        let longest = waits.iter().max().expect("some");
        assert!(*longest <= AHEAD_MAX, "{longest:?}");
        // They are spread all the same: each tenth of the time has about a tenth of them.
        for tenth in 0..10 {
            let (from, to) = (AHEAD_MAX * tenth / 10, AHEAD_MAX * (tenth + 1) / 10);
            let begin = waits.iter().filter(|wait| (from..to).contains(*wait)).count();
            assert!((8_000..12_000).contains(&begin), "{begin} within {from:?} to {to:?}");
        }
    }
}
