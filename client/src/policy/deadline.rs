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
    /// The earlier of what the call asks for and what it inherited.
    pub(crate) fn earliest(own: Option<Instant>, inherited: Option<Instant>) -> Self {
        let at = match (own, inherited) {
            (Some(own), Some(inherited)) => Some(own.min(inherited)),
            (own, inherited) => own.or(inherited),
        };
        Self { at, timer: None }
    }

    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    pub(crate) fn has_passed(&self) -> bool {
        self.at.is_some_and(|at| at <= clock::now())
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
