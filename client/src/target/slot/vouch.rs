//! What a doubted endpoint's own connection says.

use std::time::Duration;

use tokio::time::Instant;

use crate::conn::Vitals;

/// How long a doubted endpoint has to answer a PING to count as alive here (DESIGN §4).
const VOUCH_WITHIN: Duration = Duration::from_millis(250);
/// How often it is asked while the doubt lasts.
const VOUCH_EVERY: Duration = Duration::from_secs(1);

/// Whether it answered lately.
#[derive(Debug, Default)]
pub(super) struct Vouch {
    pub(super) alive: bool,
    asked: Option<Instant>,
    again: Option<Instant>,
}

impl Vouch {
    /// Asks, listens, and says when to look again. `probe` sends a PING.
    pub(super) fn advance(&mut self, vitals: &Vitals, now: Instant, probe: impl FnOnce()) -> Instant {
        if let Some(asked) = self.asked {
            if vitals.heard() >= asked {
                *self = Self { alive: true, asked: None, again: Some(asked + VOUCH_EVERY) };
            } else if now >= asked + VOUCH_WITHIN {
                *self = Self { alive: false, asked: None, again: Some(asked + VOUCH_EVERY) };
            } else {
                return asked + VOUCH_WITHIN;
            }
        }
        match self.again {
            Some(again) if now < again => again,
            _ => {
                self.asked = Some(now);
                self.again = None;
                probe();
                now + VOUCH_WITHIN
            }
        }
    }
}
