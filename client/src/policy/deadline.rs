//! The moment a call must be over, its body included.

use std::fmt;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::Alarm;
use crate::clock;

/// A deadline, or none. Its timer is taken when somebody first has to wait, so an answer that is all there never has one.
#[derive(Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    alarm: Alarm,
}

impl Deadline {
    pub(crate) fn new(at: Option<Instant>) -> Self {
        Self { at, alarm: Alarm::default() }
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
            Some(at) => self.alarm.poll(at, cx),
        }
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Deadline").field(&self.at).finish()
    }
}
