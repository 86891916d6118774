//! Weights as they are given, some of them unknown.

/// Weights with the unknown ones (0) at the mean of the known ones; all equal while fewer than two are known, because one
/// alone says nothing about the others.
pub(super) fn known(weights: impl Iterator<Item = u32> + Clone) -> Vec<u32> {
    let (count, sum) = weights
        .clone()
        .filter(|weight| *weight > 0)
        .fold((0_u64, 0_u64), |(count, sum), weight| (count + 1, sum + u64::from(weight)));
    if count < 2 {
        return weights.map(|_| 1).collect();
    }
    // At least 1, and at most the largest of them.
    let mean = (sum / count) as u32;
    weights.map(|weight| if weight == 0 { mean } else { weight }).collect()
}
