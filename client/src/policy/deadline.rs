//! The moment a call must be over, its body included.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock;

/// A deadline, or none. It moves from the call to the answer's body, and its timer with it: the timer is made when
/// somebody first has to wait, so a call that is answered at once never has one.
#[derive(Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(crate) fn new(at: Option<Instant>) -> Self {
        Self { at, timer: None }
    }

    /// The earlier of two moments that need not be.
    pub(crate) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// What time it is, if that is past the deadline.
    pub(crate) fn passed(&self) -> Option<Instant> {
        let at = self.at?;
        let now = clock::now();
        (at <= now).then_some(now)
    }

    /// Ready once the deadline has passed; never without one.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.at {
            None => Poll::Pending,
            Some(at) => self.timer.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Deadline").field(&self.at).finish()
    }
}
