//! Which endpoints one caller connects to, of a service that has more than it needs.

use xxhash_rust::xxh64::xxh64;

/// The indices of at most `max` of `names`, ascending: random subsetting (gRFC A68). Each caller's `seed` orders the
/// names by a hash of its own, and the lowest are taken: the callers together spread evenly over the service, and a name
/// that comes or goes replaces at most one of those taken.
#[must_use]
pub fn subset<N: AsRef<str>>(seed: u64, names: &[N], max: usize) -> Vec<usize> {
    if names.len() <= max {
        return (0..names.len()).collect();
    }
    let mut ranked: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(index, name)| (xxh64(name.as_ref().as_bytes(), seed), name.as_ref(), index))
        .collect();
    if max > 0 {
        ranked.select_nth_unstable(max - 1);
    }
    let mut taken: Vec<usize> = ranked.into_iter().take(max).map(|(_, _, index)| index).collect();
    taken.sort_unstable();
    taken
}
