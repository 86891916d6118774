//! The connections to one endpoint, oldest first (gRFC A105).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::conn::{Conn, Ending};
use crate::target::subchannel::Subchannel;

/// How often a further connection is looked at: one that no call has used since then is closed. Calls fill the oldest first, so
/// it falls idle when it is not needed any more; half a minute outlasts the pauses of a load that comes in waves.
const IDLE: Duration = Duration::from_secs(30);

/// At most as many as the policy allows.
#[derive(Debug, Default)]
pub(super) struct Connections {
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    subchannel: Arc<Subchannel>,
    since: Instant,
    /// When to see whether it was used; the oldest is not asked.
    look: Instant,
}

/// A connection that takes no more calls.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) ending: Ending,
    /// How long it was READY.
    pub(super) held: Duration,
    /// Whether it was of any use, or another one that was lost with it: a call was answered.
    pub(super) has_served: bool,
}

impl Connections {
    pub(super) fn add(&mut self, subchannel: Subchannel, now: Instant) {
        self.held.push(Held { subchannel: Arc::new(subchannel), since: now, look: now + IDLE });
    }

    /// Leaves those that take no more calls, and tells of the youngest one of them. Their streams finish by themselves.
    pub(super) fn leave_lost(&mut self, now: Instant) -> Option<Lost> {
        let mut lost: Option<Lost> = None;
        self.held.retain(|held| match held.subchannel.conn.vitals().ending() {
            None => true,
            Some(ending) => {
                lost = Some(Lost {
                    ending: ending.clone(),
                    held: now.saturating_duration_since(held.since),
                    has_served: held.subchannel.has_served() || lost.as_ref().is_some_and(|lost| lost.has_served),
                });
                false
            }
        });
        lost
    }

    /// Closes further ones that are not needed. Returns how many were, and when to look again.
    pub(super) fn close_idle(&mut self, now: Instant) -> (usize, Option<Instant>) {
        let before = self.held.len();
        let mut next: Option<Instant> = None;
        let mut position = 0;
        self.held.retain_mut(|held| {
            position += 1;
            if position == 1 {
                return true;
            }
            if held.look <= now {
                if !held.subchannel.was_used() {
                    return false;
                }
                held.look = now + IDLE;
            }
            next = Some(next.map_or(held.look, |next| next.min(held.look)));
            true
        });
        (before - self.held.len(), next)
    }

    /// Leaves all of them.
    pub(super) fn clear(&mut self) {
        self.held.clear();
    }

    pub(super) fn oldest(&self) -> Option<&Arc<Subchannel>> {
        self.held.first().map(|held| &held.subchannel)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Subchannel>> {
        self.held.iter().map(|held| &held.subchannel)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
