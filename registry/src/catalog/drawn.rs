//! Maps of ids that this registry, or another node of the same store, drew itself.
//!
//! A key goes into such a map only when a registration was granted or a stream was opened: lease ids are drawn from a
//! generator whose seed nobody knows, stream ids are counted. So nobody can choose keys that collide, which is what the
//! standard hasher pays some 20 ns a look for. A beat with an invented id is looked up and not found; it costs a probe
//! like any other. Nothing iterates over these maps, so their order is nobody's.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by an id that was drawn or counted here.
pub(super) type DrawnMap<K, V> = HashMap<K, V, BuildHasherDefault<Fold>>;

/// Folds an id into one word.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_ne_bytes(word);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 ^= word;
    }

    // The length of an array goes before it, the same for every id.
    fn write_usize(&mut self, _: usize) {}

    /// Spread by the golden ratio: the map takes its bits from both ends, and counted ids differ at one only.
    fn finish(&self) -> u64 {
        let spread = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        spread ^ (spread >> 32)
    }
}
