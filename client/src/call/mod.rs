//! One call from its request to its trailers.
//!
//! [`CallFuture`] is the path that most calls take: its first attempt is sent before the first poll, and nothing is boxed.
//! What does not go straight on is boxed and told in `run`: waiting for a place, trying again, hedging.
//!
//! ```text
//! future     the straight path                             state    the call: what its attempts have in common
//! run        waiting and trying again   hedge  two at a time  attempt  one stream: request sent, head awaited
//! head       what each attempt's head says                    upload   the body: sent, and kept (kept) for another attempt
//! response   the answer's body to its trailers                entry    the call in the statistics
//! status     what callers are told                            framing  messages and what is in front of them
//! ```

mod attempt;
mod entry;
mod framing;
mod future;
mod head;
mod hedge;
mod kept;
mod response;
mod run;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod upload;

pub use future::CallFuture;
pub use response::ResponseBody;

/// Ask on a request (`request.extensions_mut().insert(WaitForReady)`) to wait for a READY endpoint until the call's own
/// deadline instead of the channel's failfast time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady;

/// Where a call belongs on the ring of a service that is balanced by [`RingHash`](crate::RingHash): ask with
/// `request.extensions_mut().insert(HashKey::of(b"customer-7"))`. Equal keys go to the same endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashKey(pub u64);

impl HashKey {
    /// Hashes whatever tells callers apart, as the ring does (xxHash64).
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh64::xxh64(bytes, 0))
    }
}
