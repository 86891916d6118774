//! Histograms of whole numbers: nanoseconds, bytes, counts.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the latency buckets, in nanoseconds (A66; there in seconds).
pub(super) static NANOS: Bounds<41> = Bounds::new([
    0,
    10_000,
    50_000,
    100_000,
    300_000,
    600_000,
    800_000,
    1_000_000,
    2_000_000,
    3_000_000,
    4_000_000,
    5_000_000,
    6_000_000,
    8_000_000,
    10_000_000,
    13_000_000,
    16_000_000,
    20_000_000,
    25_000_000,
    30_000_000,
    40_000_000,
    50_000_000,
    65_000_000,
    80_000_000,
    100_000_000,
    130_000_000,
    160_000_000,
    200_000_000,
    250_000_000,
    300_000_000,
    400_000_000,
    500_000_000,
    650_000_000,
    800_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    20_000_000_000,
    50_000_000_000,
    100_000_000_000,
]);

/// Upper bounds of the size buckets, in bytes (A66).
pub(super) static BYTES: Bounds<14> = Bounds::new([
    0,
    1 << 10,
    2 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
    64 << 20,
    256 << 20,
    1 << 30,
    4 << 30,
]);

/// Upper bounds of retries and hedges of one call (A96).
pub(super) static REPEATS: Bounds<5> = Bounds::new([1, 2, 3, 4, 5]);
/// Upper bounds of transparent retries of one call (A96).
pub(super) static TRANSPARENT: Bounds<6> = Bounds::new([1, 2, 3, 4, 5, 10]);

/// Upper bounds of buckets, rising, and where to begin looking for the one of a value.
pub(super) struct Bounds<const N: usize> {
    upper: [u64; N],
    /// By how many bits a value has: the first bound that is not below every such value.
    first: [u8; 65],
}

impl<const N: usize> Bounds<N> {
    const fn new(upper: [u64; N]) -> Self {
        let mut first = [0; 65];
        let mut bits = 1;
        while bits < first.len() {
            let least = 1 << (bits - 1);
            let mut bound = first[bits - 1];
            while (bound as usize) < N && upper[bound as usize] < least {
                bound += 1;
            }
            first[bits] = bound;
            bits += 1;
        }
        Self { upper, first }
    }

    pub(super) fn upper(&self) -> &[u64; N] {
        &self.upper
    }

    /// The first bound that the value does not exceed; `N` is past all of them. Of A66's bounds at most three lie between a
    /// power of two and the next one, so this is a few steps, where halving 41 bounds takes six.
    fn bucket(&self, value: u64) -> usize {
        let mut bucket = usize::from(self.first[(u64::BITS - value.leading_zeros()) as usize]);
        while self.upper.get(bucket).is_some_and(|bound| *bound < value) {
            bucket += 1;
        }
        bucket
    }
}

/// Counts by upper bound. `N` bounds make `N + 1` buckets, of which the last has no bound and stands in `over`.
///
/// The sum wraps: 584 years of calls added up, or 16 EiB. Whoever reads it takes that for a restart, as with any counter.
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    over: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: array::from_fn(|_| AtomicU64::new(0)), over: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts a value under the first bound that it does not exceed. The bounds are the same with every call.
    pub(super) fn observe(&self, bounds: &Bounds<N>, value: u64) {
        self.counts.get(bounds.bucket(value)).unwrap_or(&self.over).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted so far, the bucket without a bound last; and the sum of the values. Calls that end meanwhile may
    /// be in one and not yet in the other.
    pub(super) fn read(&self) -> (Vec<u64>, u64) {
        let counts = self.counts.iter().chain([&self.over]).map(|count| count.load(Ordering::Relaxed)).collect();
        (counts, self.sum.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_under_the_first_bound_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 5, 6, u64::MAX - 14] {
            histogram.observe(&REPEATS, value);
        }
        assert_eq!(histogram.read(), (vec![2, 1, 0, 0, 1, 2], u64::MAX));
    }

    #[test]
    fn every_value_finds_the_bucket_that_a_search_finds() {
        fn check<const N: usize>(bounds: &Bounds<N>) {
            assert!(bounds.upper.is_sorted());
            let around = |edge: u64| [edge.saturating_sub(1), edge, edge.saturating_add(1)];
            let powers = (0..64).map(|bit| 1 << bit);
            for value in bounds.upper.into_iter().chain(powers).chain([u64::MAX]).flat_map(around) {
                assert_eq!(bounds.bucket(value), bounds.upper.partition_point(|bound| *bound < value), "{value}");
            }
        }
        check(&NANOS);
        check(&BYTES);
        check(&REPEATS);
        check(&TRANSPARENT);
    }
}
