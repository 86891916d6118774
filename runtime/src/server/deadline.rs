//! The moment at which a caller stops waiting.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

use crate::clock;

/// A deadline that costs a timer only once somebody has to wait for it: most calls are answered at the first poll.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) fn new(at: Instant) -> Self {
        Self { at, timer: None }
    }

    pub(super) fn has_passed(&self) -> bool {
        clock::now() >= self.at
    }

    /// Ready at the deadline; until then the task is woken for it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at))).as_mut().poll(cx)
    }
}
