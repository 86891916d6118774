//! How long answers took lately: what decides when an unanswered call is worth a second one.

use std::array;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Stamp;

const SECOND_NANOS: u64 = 1_000_000_000;
/// How long one window takes samples. Read are the one that does and the one before it: what is known is at least this old
/// at its oldest, and at most twice.
const WINDOW_NANOS: u64 = 15 * SECOND_NANOS;
/// Fewer samples say nothing about a twentieth of them.
const SAMPLES_MIN: u32 = 100;
/// Buckets to each doubling: each is at most an eighth wide, and a percentile that much too long.
const STEPS: usize = 8;
/// What is told apart begins at a microsecond (2^10 ns)
const FIRST: u32 = 10;
/// and ends at 2^37 ns, some two minutes.
const DOUBLINGS: usize = 27;
const BUCKETS: usize = DOUBLINGS * STEPS;
/// The cached percentile's word for "not known".
const UNKNOWN: u32 = u32::MAX;

/// A sliding distribution of latencies. Lock-free: a thread that turns the windows over while others count may cost a few
/// samples.
pub(super) struct Recent {
    windows: [[AtomicU32; BUCKETS]; 2],
    /// Which window takes samples, counted from the first stamp there can be: its parity is the index.
    turn: AtomicU64,
    /// The percentile in microseconds, below the second in which it was worked out, plus one.
    cached: AtomicU64,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self {
            windows: array::from_fn(|_| array::from_fn(|_| AtomicU32::new(0))),
            turn: AtomicU64::new(0),
            cached: AtomicU64::new(0),
        }
    }

    /// Counts an answer that took so many nanoseconds, at `now`.
    pub(super) fn record(&self, took: u64, now: Stamp) {
        let turn = self.turn_to(now);
        self.windows[(turn % 2) as usize][bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// The 95th percentile of the last 15 to 30 s, worked out once a second; `None` for want of samples.
    pub(super) fn p95(&self, now: Stamp) -> Option<Duration> {
        let second = now.nanos() / SECOND_NANOS + 1;
        let cached = self.cached.load(Ordering::Relaxed);
        if cached >> 32 != second & u64::from(u32::MAX) {
            self.turn_to(now);
            let micros = self.percentile(95);
            self.cached.store(second << 32 | u64::from(micros), Ordering::Relaxed);
            return known(micros);
        }
        known(cached as u32)
    }

    /// Moves on to the window of this moment, emptied, and gives its number.
    fn turn_to(&self, now: Stamp) -> u64 {
        let due = now.nanos() / WINDOW_NANOS;
        let held = self.turn.load(Ordering::Relaxed);
        if held < due { self.turn_over(held, due) } else { held }
    }

    #[cold]
    fn turn_over(&self, held: u64, due: u64) -> u64 {
        if self.turn.compare_exchange(held, due, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let empty = |turn: u64| {
                self.windows[(turn % 2) as usize].iter().for_each(|count| count.store(0, Ordering::Relaxed));
            };
            empty(due);
            if due - held > 1 {
                empty(due - 1);
            }
        }
        due
    }

    /// Microseconds that so many percent of the samples did not exceed.
    fn percentile(&self, percent: u64) -> u32 {
        let count = |bucket: usize| {
            self.windows.iter().map(|window| u64::from(window[bucket].load(Ordering::Relaxed))).sum::<u64>()
        };
        let samples: u64 = (0..BUCKETS).map(count).sum();
        if samples < u64::from(SAMPLES_MIN) {
            return UNKNOWN;
        }
        let rank = (samples * percent).div_ceil(100);
        let mut below = 0;
        let found = (0..BUCKETS).find(|bucket| {
            below += count(*bucket);
            below >= rank
        });
        // Counts only grow between the two looks, but for a window that is emptied: then the sample is missed for a second.
        found.map_or(UNKNOWN, |bucket| u32::try_from(upper(bucket).div_ceil(1_000)).unwrap_or(UNKNOWN))
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

fn known(micros: u32) -> Option<Duration> {
    (micros != UNKNOWN).then(|| Duration::from_micros(u64::from(micros)))
}

/// Which bucket counts this many nanoseconds: by the doubling, and by the three bits behind its first.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.clamp(1 << FIRST, (1 << (FIRST + DOUBLINGS as u32)) - 1);
    let doubling = nanos.ilog2();
    let step = (nanos >> (doubling - STEPS.ilog2())) as usize % STEPS;
    (doubling - FIRST) as usize * STEPS + step
}

/// The least number of nanoseconds that is past this bucket.
fn upper(bucket: usize) -> u64 {
    let (doubling, step) = (bucket / STEPS, bucket % STEPS);
    ((STEPS + step + 1) as u64) << (FIRST as usize + doubling - STEPS.ilog2() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MILLI: Duration = Duration::from_millis(1);

    fn at(millis: u64) -> Stamp {
        let origin = clock::now();
        Stamp::new(origin, origin + Duration::from_millis(millis))
    }

    fn record(recent: &Recent, now: Stamp, took: Duration) {
        recent.record(took.as_nanos() as u64, now);
    }

    #[test]
    fn every_latency_is_below_the_end_of_its_bucket_by_an_eighth_at_most() {
        let mut nanos = 1 << FIRST;
        while nanos < 1 << 37 {
            let end = upper(bucket(nanos));
            assert!(nanos < end && end - nanos <= nanos.div_ceil(8), "{nanos} ends at {end}");
            nanos += nanos / 61 + 1;
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn the_slowest_twentieth_is_past_the_percentile() {
        let now = at(0);
        let recent = Recent::new();
        for sample in 0..1000 {
            record(&recent, now, if sample % 25 == 0 { 900 * MILLI } else { 10 * MILLI });
        }
        let p95 = recent.p95(now).unwrap();
        assert!((10 * MILLI..12 * MILLI).contains(&p95), "four in a hundred are slow: {p95:?}");

        let recent = Recent::new();
        for sample in 0..1000 {
            record(&recent, now, if sample % 16 == 0 { 900 * MILLI } else { 10 * MILLI });
        }
        let p95 = recent.p95(now).unwrap();
        assert!((900 * MILLI..1013 * MILLI).contains(&p95), "six in a hundred are slow: {p95:?}");
    }

    #[test]
    fn too_few_samples_say_nothing() {
        let now = at(0);
        let recent = Recent::new();
        assert_eq!(recent.p95(now), None);
        (0..99).for_each(|_| record(&recent, now, MILLI));
        let later = at(1_000);
        assert_eq!(recent.p95(later), None);
        record(&recent, later, MILLI);
        assert_eq!(recent.p95(later), None, "worked out once a second");
        assert!(recent.p95(at(2_000)).is_some());
    }

    #[test]
    fn samples_are_forgotten_after_two_windows_at_most() {
        let at = |seconds: u64| at(1_000 * seconds);
        let recent = Recent::new();
        (0..200).for_each(|_| record(&recent, at(0), 500 * MILLI));
        assert!(recent.p95(at(14)).unwrap() >= 500 * MILLI);
        (0..10_000).for_each(|_| record(&recent, at(16), 5 * MILLI));
        assert!(recent.p95(at(29)).unwrap() < 6 * MILLI);
        (0..200).for_each(|_| record(&recent, at(31), 500 * MILLI));
        assert!(recent.p95(at(44)).unwrap() < 6 * MILLI, "the second window still counts");
        assert!(recent.p95(at(46)).unwrap() >= 500 * MILLI, "and then it does not");
        assert_eq!(recent.p95(at(1_000)), None);
        record(&recent, at(2_000), MILLI);
        assert_eq!(recent.p95(at(2_000)), None);
    }
}
