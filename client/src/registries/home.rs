//! Which store is this process's own. PURE: store ids and a time in, a verdict out.
//!
//! All configured registries are to show one store, and the first one that answers decides which. Nothing of a second one is
//! merged with what is known: its registry is left for another. A registry that keeps its store in memory begins with a new
//! store at each start, though, and that looks the same from here. So another store is believed where there is no other
//! registry to ask, and where nobody has heard of the own one for [`PATIENCE`]: then what it says, once it is complete,
//! replaces what was known (DESIGN §3).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the own store may be unheard of before another one takes its place. A registry that is there is heard every
/// 5 s by its bookmarks; a node that dies is replaced by another within a round.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Stores remembered that were this process's own once: one more than any set of registries has.
const LEFT_MAX: usize = 17;

/// Whether there is another registry to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Neighbours {
    None,
    Some,
}

/// Whose store an answer speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// This process's own.
    Ours,
    /// Another one than before, and it is the own one from here on.
    Moved {
        from: Arc<str>,
        /// It was the own one before: both live.
        before: bool,
    },
    /// A second one. Nothing of it counts.
    Strange { ours: Arc<str> },
}

/// What is known of stores.
#[derive(Debug, Default)]
pub(super) struct Home {
    own: Option<Own>,
    /// Those that were the own one before, the latest last.
    left: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Own {
    store: Arc<str>,
    heard: Instant,
}

impl Home {
    /// The own store, once there is one.
    pub(super) fn own(&self) -> Option<&Arc<str>> {
        self.own.as_ref().map(|own| &own.store)
    }

    /// A registry has answered out of `store`.
    pub(super) fn answered(&mut self, store: &str, neighbours: Neighbours, now: Instant) -> Whose {
        let Some(own) = &mut self.own else {
            self.own = Some(Own { store: store.into(), heard: now });
            return Whose::Ours;
        };
        if *own.store == *store {
            own.heard = now;
            return Whose::Ours;
        }
        if neighbours == Neighbours::Some && now.saturating_duration_since(own.heard) < PATIENCE {
            return Whose::Strange { ours: own.store.clone() };
        }
        let from = std::mem::replace(own, Own { store: store.into(), heard: now }).store;
        let before = self.left.iter().any(|left| **left == *store);
        self.left.retain(|left| **left != *store);
        self.left.push_back(from.clone());
        if self.left.len() > LEFT_MAX {
            self.left.pop_front();
        }
        Whose::Moved { from, before }
    }
}

#[cfg(test)]
mod tests;
