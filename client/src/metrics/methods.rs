//! The methods that were called, each with a place of its own that is found without a lock.

use std::array;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Methods with numbers of their own; calls of further ones are counted together, as `other`. A service has tens; the bound
/// is for a caller that makes paths up.
const METHODS_MAX: usize = 256;
/// Longest path that gets a place; a longer one is `other`.
const PATH_BYTES_MAX: usize = 256;
/// Twice as many places as methods, so that a search ends after a few.
const PLACES: usize = 2 * METHODS_MAX;

/// A method of one target, found by [`Methods::find`] of the same target. For another one it stands for some other method,
/// and nothing worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MethodIndex(u16);

impl MethodIndex {
    const OTHER: Self = Self(PLACES as u16);
}

/// What is kept for each method, found by its path. Entries are made and never go.
///
/// Open addressing, in which a place is taken once. Finding a method that is known costs a hash of its path and mostly one
/// comparison; only the first calls of a method, should several threads make them at the same moment, wait for each other.
pub(super) struct Methods<T> {
    places: Box<[OnceLock<Box<Entry<T>>>; PLACES]>,
    taken: AtomicUsize,
    other: T,
}

struct Entry<T> {
    path: Box<str>,
    value: T,
}

impl<T: Default> Methods<T> {
    /// What the places take, empty or not.
    #[cfg(test)]
    pub(super) const TABLE_BYTES: usize = PLACES * size_of::<OnceLock<Box<Entry<T>>>>();

    pub(super) fn new() -> Self {
        Self { places: Box::new(array::from_fn(|_| OnceLock::new())), taken: AtomicUsize::new(0), other: T::default() }
    }

    /// The method with this path, such as `/shop.user.v1.UserService/GetUser`.
    pub(super) fn find(&self, path: &str) -> MethodIndex {
        let start = hash(path.as_bytes());
        for step in 0..PLACES {
            let place = start.wrapping_add(step) % PLACES;
            match self.places[place].get() {
                Some(entry) if *entry.path == *path => return MethodIndex(place as u16),
                Some(_) => {}
                None => return self.insert(path, place),
            }
        }
        MethodIndex::OTHER
    }

    /// Takes the free place at which the search for `path` ended, or the next one if somebody is faster.
    #[cold]
    fn insert(&self, path: &str, free: usize) -> MethodIndex {
        if path.len() > PATH_BYTES_MAX || self.taken.fetch_add(1, Ordering::Relaxed) >= METHODS_MAX {
            if path.len() <= PATH_BYTES_MAX {
                self.taken.fetch_sub(1, Ordering::Relaxed);
            }
            return MethodIndex::OTHER;
        }
        let mut entry = Box::new(Entry { path: path.into(), value: T::default() });
        for step in 0..PLACES {
            let place = (free + step) % PLACES;
            match self.places[place].set(entry) {
                Ok(()) => return MethodIndex(place as u16),
                Err(returned) => entry = returned,
            }
            if self.places[place].get().is_some_and(|held| held.path == entry.path) {
                self.taken.fetch_sub(1, Ordering::Relaxed);
                return MethodIndex(place as u16);
            }
        }
        MethodIndex::OTHER
    }

    pub(super) fn at(&self, method: MethodIndex) -> &T {
        match self.places.get(usize::from(method.0)).and_then(OnceLock::get) {
            Some(entry) => &entry.value,
            None => &self.other,
        }
    }

    /// Every method that was called and `other`, each by its label: `package.Service/Method`.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        let known = self.places.iter().filter_map(OnceLock::get);
        let known = known.map(|entry| (entry.path.strip_prefix('/').unwrap_or(&entry.path), &entry.value));
        known.chain([("other", &self.other)])
    }
}

impl<T> fmt::Debug for Methods<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Methods").field("taken", &self.taken).finish_non_exhaustive()
    }
}

/// Spreads paths over the places. A path is the caller's own, so nobody is kept from making it slow for himself.
fn hash(path: &[u8]) -> usize {
    /// The multiplier of rustc's `FxHasher`.
    const K: u64 = 0xf135_7aea_2e62_a9c5;
    let mut hash = path.len() as u64;
    let mut take = |word: &[u8; 8]| hash = hash.rotate_left(5).wrapping_add(u64::from_le_bytes(*word)).wrapping_mul(K);
    let (words, _) = path.as_chunks();
    words.iter().for_each(&mut take);
    // Its end once more, which is what tells methods of one service apart.
    path.last_chunk().into_iter().for_each(&mut take);
    // The upper bits are the well-mixed ones.
    (hash >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use super::*;

    #[test]
    fn a_method_keeps_its_place() {
        let methods = Methods::<AtomicUsize>::new();
        let get = methods.find("/shop.Users/Get");
        let create = methods.find("/shop.Users/Create");
        assert_ne!(get, create);
        assert_eq!(methods.find("/shop.Users/Get"), get);
        methods.at(get).store(7, Ordering::Relaxed);
        let seen: BTreeSet<_> = methods.iter().map(|(name, value)| (name, value.load(Ordering::Relaxed))).collect();
        assert_eq!(seen, BTreeSet::from([("other", 0), ("shop.Users/Create", 0), ("shop.Users/Get", 7)]));
    }

    #[test]
    fn methods_past_the_bound_are_other_and_the_first_ones_keep_their_places() {
        let methods = Methods::<AtomicUsize>::new();
        let paths: Vec<_> = (0..10 * METHODS_MAX).map(|number| format!("/a.B/Method{number}")).collect();
        let places: Vec<_> = paths.iter().map(|path| methods.find(path)).collect();
        assert!(places[..METHODS_MAX].iter().all(|place| *place != MethodIndex::OTHER));
        assert!(places[METHODS_MAX..].iter().all(|place| *place == MethodIndex::OTHER));
        assert_eq!(methods.iter().count(), METHODS_MAX + 1);
        assert!(paths.iter().zip(places).all(|(path, place)| methods.find(path) == place));
    }

    #[test]
    fn a_very_long_path_is_other() {
        let methods = Methods::<AtomicUsize>::new();
        assert_eq!(methods.find(&format!("/a.B/{}", "x".repeat(PATH_BYTES_MAX))), MethodIndex::OTHER);
        assert_eq!(methods.iter().count(), 1);
    }

    #[test]
    fn threads_that_meet_a_method_at_the_same_moment_agree_on_its_place() {
        for _ in 0..50 {
            let methods = Methods::<AtomicUsize>::new();
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for number in 0..METHODS_MAX {
                            let method = methods.find(&format!("/a.B/M{number}"));
                            methods.at(method).fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            let counts: Vec<_> = methods.iter().map(|(name, value)| (name, value.load(Ordering::Relaxed))).collect();
            assert_eq!(counts.iter().map(|(_, count)| count).sum::<usize>(), 4 * METHODS_MAX);
            let names: BTreeSet<_> = counts.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), counts.len(), "no method has two places");
        }
    }
}
