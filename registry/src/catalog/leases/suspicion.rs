//! How fast a service may become SUSPECT.

use std::collections::VecDeque;
use std::time::Duration;

use crate::catalog::Timestamp;

/// Over which suspicions are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Largest share of a service that becomes SUSPECT in any second, in percent. A fault of the registry's own network looks
/// like a fault of everybody; callers that ping a seventh of their connections at a time bear that.
const SHARE_PERCENT: usize = 15;

/// The suspicions of the last second in one service; never more entries than the share allows.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    recent: VecDeque<Timestamp>,
}

impl Suspicions {
    /// Takes one suspicion from the budget of a service of this size, or says when there will be one.
    pub(super) fn take(&mut self, instances: usize, now: Timestamp) -> Result<(), Timestamp> {
        while self.recent.front().is_some_and(|earlier| earlier.after(WINDOW) <= now) {
            self.recent.pop_front();
        }
        let allowed = (instances * SHARE_PERCENT / 100).max(1);
        match self.recent.front() {
            Some(first) if self.recent.len() >= allowed => Err(first.after(WINDOW)),
            _ => {
                self.recent.push_back(now);
                Ok(())
            }
        }
    }
}
