//! The one place that draws randomness. What must be replayable takes a seed and a [`StdRng`] instead of asking here.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

/// A new id that sorts by the time it was made: instances, users, orders.
#[must_use]
pub fn uuid_v7() -> Uuid {
    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    Uuid::now_v7()
}

/// A new id that tells nothing, not even when it was made.
#[must_use]
pub fn uuid_v4() -> Uuid {
    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    Uuid::new_v4()
}

/// `N` bytes nobody can guess, from the generator that the operating system keeps seeded.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::disallowed_methods, reason = "the one place that draws randomness")]
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// A seed to print beside whatever is done with it, so that it can be done again.
#[must_use]
pub fn seed() -> u64 {
    u64::from_le_bytes(bytes())
}

/// The generator of everything that must come out the same for the same seed.
#[must_use]
pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_v7_ids_sort_after_earlier_ones() {
        let ids: Vec<Uuid> = std::iter::repeat_with(uuid_v7).take(100).collect();
        assert!(ids.is_sorted_by(|earlier, later| earlier < later));
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = |seed| -> Vec<u64> {
            let mut rng = rng(seed);
            std::iter::repeat_with(|| rng.next_u64()).take(8).collect()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(bytes::<16>(), bytes::<16>());
    }
}
