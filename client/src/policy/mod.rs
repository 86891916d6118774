//! When a call ends, when it is repeated, and how long a connection waits before it is tried again.

mod alarm;
mod backoff;
mod budget;
mod config;
mod retry;
mod timeout;

pub(crate) use alarm::Alarm;
pub(crate) use backoff::Backoff;
pub(crate) use budget::RetryBudget;
pub use config::{Balancer, Ejection, Hedging, Percent, PercentError, Policy, Retry, RingHash, SlowStart};
pub(crate) use retry::{Attempts, Failure, Patience, Pushback, Replay, Verdict};
pub(crate) use timeout::{decode_timeout, encode_timeout};
