//! Who is told, and how far behind they may fall.
//!
//! Watch promises state, not events. A [`Subscription`](subscription::Subscription) knows what its watcher holds and works
//! out the next message from that and the latest [`ServiceView`](crate::catalog::ServiceView). A watcher is pulled: the
//! transport asks it for a message when there is room for one, so nothing waits anywhere for who does not read, and what he
//! misses shrinks to the latest state meanwhile. It has no task and shares nothing that blocks: a stalled one costs the
//! message at hand and the snapshot it is in the middle of, for 30 s at most; one that reads slowly, that snapshot for a
//! minute, and 30 s more where it stalls at last.

mod framed;
mod hub;
mod metrics;
mod pace;
mod press;
mod seat;
mod subscription;
mod watcher;

use std::time::Duration;

pub(crate) use hub::Hub;
pub(crate) use seat::Pull;

/// How long until the next bookmark at the latest. Silent for three of these, a stream is dead to its watcher.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(5);
/// How often one is sent, so that it arrives within the interval also over a slow network.
const BOOKMARK_EVERY: Duration = Duration::from_secs(4);

/// Longest delta and soft state; a longer delta goes out as a snapshot, in chunks. As large as the protocol lets a chunk be.
const DELTA_BYTES_MAX: usize = 256 * 1024;

/// Most services on one stream (S10).
const SUBSCRIPTIONS_MAX: usize = 1000;

/// How long a watcher may take nothing while something waits for it.
const STALL_MAX: Duration = Duration::from_secs(30);
