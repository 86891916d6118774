//! The one place of this crate that draws randomness: picks, jitter and ids come from one seed, so that a simulation
//! with the same seed makes the same choices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng;

/// A source of random numbers that clones share: a splitmix64 sequence (Steele et al., OOPSLA 2014), one atomic addition a
/// draw and no lock.
///
/// Numbers balance and spread load; they guard nothing. Ids that must not collide come from an [`Entropy::from_os`].
#[derive(Clone, Debug)]
pub(crate) struct Entropy {
    state: Arc<AtomicU64>,
}

/// The odd constant of splitmix64: 2^64 divided by the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Entropy {
    /// A sequence nobody has seen before.
    pub(crate) fn from_os() -> Self {
        let mut seed = [0; 8];
        #[expect(clippy::disallowed_methods, reason = "the one place that draws randomness")]
        rand::rng().fill_bytes(&mut seed);
        Self::seeded(u64::from_le_bytes(seed))
    }

    /// The same sequence for the same seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self { state: Arc::new(AtomicU64::new(seed)) }
    }

    /// A sequence of its own for one part, so that the draws of one do not depend on how often another draws.
    pub(crate) fn fork(&self) -> Self {
        Self::seeded(self.next())
    }

    /// 64 uniform bits.
    pub(crate) fn next(&self) -> u64 {
        scramble(self.state.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA))
    }

    /// What `turn + 1` draws from [`Entropy::seeded`] end with: for whoever counts turns anyway, and would pay for a second
    /// shared counter otherwise.
    pub(crate) fn nth(seed: u64, turn: u64) -> u64 {
        scramble(seed.wrapping_add(GAMMA.wrapping_mul(turn.wrapping_add(1))))
    }

    /// A uniform part of `span`, from nothing to all of it: full jitter.
    pub(crate) fn up_to(&self, span: Duration) -> Duration {
        // 53 bits fill a double's mantissa: the quotient is uniform in [0, 1).
        let share = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        span.mul_f64(share)
    }

    /// 16 random bytes: a trace id, a start nonce.
    pub(crate) fn bytes(&self) -> [u8; 16] {
        let (high, low) = (self.next(), self.next());
        ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
    }
}

/// splitmix64's output function.
fn scramble(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_of_a_sequence_is_what_that_many_draws_give() {
        let entropy = Entropy::seeded(7);
        let drawn = [0; 8].map(|_| entropy.next());
        assert_eq!(drawn, [0, 1, 2, 3, 4, 5, 6, 7].map(|turn| Entropy::nth(7, turn)));
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = |seed| -> Vec<u64> {
            let entropy = Entropy::seeded(seed);
            std::iter::repeat_with(|| entropy.next()).take(8).collect()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn jitter_stays_within_its_span_and_uses_all_of_it() {
        let entropy = Entropy::seeded(1);
        let span = Duration::from_millis(100);
        let draws: Vec<Duration> = std::iter::repeat_with(|| entropy.up_to(span)).take(1000).collect();
        assert!(draws.iter().all(|draw| *draw < span));
        assert!(draws.iter().any(|draw| *draw < span / 10) && draws.iter().any(|draw| *draw > span / 10 * 9));
    }
}
