//! An endpoint's expected latency, in one word.

use std::time::Duration;

/// A peak-sensitive, exponentially weighted moving average of an endpoint's latency (Finagle's peak EWMA), packed into 64
/// bits: seconds as an `f32` above, and below when it was last written, in milliseconds since any origin the caller keeps
/// to. One word is read whole and written whole, so calls share it as an atomic and need no lock; that a sample is lost
/// when two are written at once does not matter to an average.
///
/// A latency above the average replaces it at once; one below pulls it down with a time constant of ten seconds. So a
/// stall is noticed with the first call that it delays, and is forgotten slowly. Without samples the *projection* falls
/// the same way, and never the value itself: an endpoint that is avoided is tried again after a while, and what it was
/// known for counts again as soon as it confirms it.
///
/// ```
/// use std::time::Duration;
/// use mesh_client::balancer::Ewma;
///
/// let seed = Ewma::new(Duration::from_millis(2), 0);
/// let slow = seed.sampled(Duration::from_millis(80), 500);
/// assert_eq!(slow.project(500), 0.08);
/// assert!(slow.project(10_500) < 0.03); // e times less, ten seconds later
/// assert_eq!(Ewma::from_bits(slow.to_bits()), slow);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ewma(u64);

impl Ewma {
    /// How long the average remembers: a latency counts 1/e after this; Finagle's and linkerd's default.
    pub const DECAY: Duration = Duration::from_secs(10);

    /// A failure counts as an answer that took this many times the average. Failing is quick, and whoever fails at once
    /// would otherwise attract every call. A factor rather than a time: failures in a row soon reach
    /// [`Ewma::FAILURE_MAX`], and one now and then on every endpoint still leaves a latency that says something.
    pub const FAILURE_FACTOR: f32 = 10.0;

    /// How far failures alone raise the average.
    pub const FAILURE_MAX: Duration = Duration::from_secs(1);

    /// The smallest projection. Below it, differences are the scheduler's and not the endpoint's; and were an endpoint
    /// without calls projected to nothing, the calls sent to it in one burst would count as nothing too.
    pub const FLOOR: Duration = Duration::from_micros(100);

    /// Lower samples are taken this far apart: what is skipped would have moved the average by less than a thousandth, and
    /// under load most samples cost no write.
    const RESOLUTION_MS: u32 = 10;

    /// Begins with `latency`: the time to the first PONG, as a rule.
    #[must_use]
    pub fn new(latency: Duration, now_ms: u32) -> Self {
        Self::pack(latency.as_secs_f32(), now_ms)
    }

    /// As it was packed.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// To be kept in an atomic.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The average in seconds, as if nothing but time had passed since it was written; at least [`Ewma::FLOOR`].
    #[must_use]
    pub fn project(self, now_ms: u32) -> f32 {
        let age = self.age_ms(now_ms);
        // Two of these are in each pick, and where calls come often this is what they find.
        let kept = if age < Self::RESOLUTION_MS { 1.0 } else { decay(age) };
        (self.seconds() * kept).max(Self::FLOOR.as_secs_f32())
    }

    /// After an answer. Unchanged, and not worth a write, when the last one is too recent for this one to matter.
    #[must_use]
    pub fn sampled(self, latency: Duration, now_ms: u32) -> Self {
        let (average, sample, age) = (self.seconds(), latency.as_secs_f32(), self.age_ms(now_ms));
        if sample > average {
            return Self::pack(sample, now_ms);
        }
        if age < Self::RESOLUTION_MS {
            return self;
        }
        let kept = decay(age);
        Self::pack(average * kept + sample * (1.0 - kept), now_ms)
    }

    /// After a call that was given up before its answer: it would have taken longer than it did, so it can only raise.
    #[must_use]
    pub fn raised(self, at_least: Duration, now_ms: u32) -> Self {
        let at_least = at_least.as_secs_f32();
        if at_least > self.project(now_ms) { Self::pack(at_least, now_ms) } else { self }
    }

    /// After a failure: it can only raise, and what is known of the endpoint does not fade for having failed.
    #[must_use]
    pub fn failed(self, took: Duration, now_ms: u32) -> Self {
        let known = self.seconds();
        let penalty = (known * Self::FAILURE_FACTOR).min(Self::FAILURE_MAX.as_secs_f32());
        Self::pack(took.as_secs_f32().max(penalty).max(known), now_ms)
    }

    fn pack(seconds: f32, now_ms: u32) -> Self {
        Self(u64::from(seconds.to_bits()) << 32 | u64::from(now_ms))
    }

    fn seconds(self) -> f32 {
        f32::from_bits((self.0 >> 32) as u32)
    }

    /// Milliseconds since the last write. The clock goes round every 49 days; a write that seems to lie in the future is
    /// one of another thread that read the time a moment later.
    fn age_ms(self, now_ms: u32) -> u32 {
        let age = now_ms.wrapping_sub(self.0 as u32);
        if age > u32::MAX / 2 { 0 } else { age }
    }
}

/// exp(-age / [`Ewma::DECAY`]), within 0.02 %: a power of two, whose whole part is an exponent and whose fraction is a cubic.
/// Two of these are in each pick; the library's `exp` takes several times as many instructions.
fn decay(age_ms: u32) -> f32 {
    /// Fixed point: so many bits after the point.
    const POINT: u32 = 40;
    /// log2(e) per time constant.
    const HALVINGS_PER_MS: u64 =
        (std::f64::consts::LOG2_E / Ewma::DECAY.as_millis() as f64 * (1_u64 << POINT) as f64) as u64;
    /// Beyond this nothing is left that matters.
    const HALVINGS_MAX: u64 = 120;
    /// What fills an `f32`'s mantissa.
    const MANTISSA: u32 = 24;

    // Ages are below 2^31 and the factor below 2^28.
    let halvings = u64::from(age_ms) * HALVINGS_PER_MS;
    let whole = halvings >> POINT;
    if whole >= HALVINGS_MAX {
        return 0.0;
    }
    let fraction = (halvings >> (POINT - MANTISSA)) as u32 & ((1 << MANTISSA) - 1);
    // 2^rest for a rest in (0, 1], so that 2^-halvings = 2^rest / 2^(whole + 1).
    let rest = 1.0 - fraction as f32 * (1.0 / (1_u32 << MANTISSA) as f32);
    let power = 1.0 + rest * (0.695_833 + rest * (0.226_067 + rest * 0.078_1));
    power * f32::from_bits((126 - whole as u32) << 23)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_fast_decay_is_the_exponential_within_a_fifth_of_a_thousandth(age_ms in 0_u32..700_000) {
            let exact = (-f64::from(age_ms) / 10_000.0).exp();
            prop_assert!((f64::from(decay(age_ms)) / exact - 1.0).abs() < 2e-4, "{} for {}", decay(age_ms), exact);
        }

        #[test]
        fn decay_never_rises_with_age(age_ms: u32, more: u32) {
            prop_assert!(decay(age_ms.saturating_add(more)) <= decay(age_ms) * 1.0001);
        }
    }

    #[test]
    fn nothing_has_decayed_at_once() {
        assert_eq!(decay(0), 1.0);
        assert_eq!(decay(u32::MAX), 0.0);
    }
}
