//! How an endpoint that has just become READY is led up to its share.

use std::time::Duration;

use crate::policy::SlowStart;

/// What part of its weight an endpoint is given that became READY `since` ago, in (0, 1]: linear in time over the window
/// and never below the policy's smallest share (gRFC A100 with its default aggression of 1.0).
///
/// ```
/// use std::time::Duration;
/// use mesh_client::SlowStart;
/// use mesh_client::balancer::warmth;
///
/// let policy = SlowStart::default(); // half a minute from a tenth
/// assert_eq!(warmth(Duration::ZERO, policy), 0.1);
/// assert_eq!(warmth(Duration::from_secs(15), policy), 0.5);
/// assert_eq!(warmth(Duration::from_secs(30), policy), 1.0);
/// ```
#[must_use]
pub fn warmth(since: Duration, policy: SlowStart) -> f32 {
    /// The first second counts as one: A100's formula. It keeps the result above zero whatever the smallest share is.
    const SINCE_MIN: Duration = Duration::from_secs(1);
    let since = since.max(SINCE_MIN);
    if since >= policy.window {
        return 1.0;
    }
    let elapsed = since.as_secs_f32() / policy.window.as_secs_f32();
    elapsed.max(f32::from(policy.share_min.get()) / 100.0).min(1.0)
}
