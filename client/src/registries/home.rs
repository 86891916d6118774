//! Which store is this process's own. PURE: store ids and a time in, a verdict out.
//!
//! All configured registries are to show one store, and the first one that answers decides which. Nothing of a second one is
//! merged with what is known: its registry is left for another. A registry that keeps its store in memory begins with a new
//! store at each start, though, and that looks the same from here. So another store is believed where there is no other
//! registry to ask, where every registry has shown that store or nobody since the own one was heard last, and where nobody
//! has heard of the own one for [`PATIENCE`]: then what it says, once it is complete, replaces what was known (DESIGN §3).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the own store may be unheard of before another one takes its place. A registry that is there is heard every
/// 5 s by its bookmarks; a node that dies is replaced by another within a round.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Stores remembered that were this process's own once: one more than any set of registries has.
const LEFT_MAX: usize = 17;

/// A registry, and how many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) registry: &'a Arc<str>,
    pub(super) doors: usize,
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
    Strange {
        ours: Arc<str>,
        /// It was not met before.
        first: bool,
    },
}

/// What is known of stores.
#[derive(Debug, Default)]
pub(super) struct Home {
    own: Option<Own>,
    /// Those that were the own one before, the latest last.
    left: VecDeque<Arc<str>>,
    /// What each registry has shown since the own store was heard last: another store, or nobody. One entry a registry.
    shown: BTreeMap<Arc<str>, Option<Arc<str>>>,
    /// Strangers met, the latest last; at most [`LEFT_MAX`].
    met: VecDeque<Arc<str>>,
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

    /// A registry was asked and nobody answered.
    pub(super) fn silent(&mut self, registry: &Arc<str>) {
        if self.own.is_some() {
            self.shown.insert(registry.clone(), None);
        }
    }

    /// A registry has answered out of `store`.
    pub(super) fn answered(&mut self, store: &str, asked: Asked<'_>, now: Instant) -> Whose {
        let Some(own) = &mut self.own else {
            self.own = Some(Own { store: store.into(), heard: now });
            return Whose::Ours;
        };
        if *own.store == *store {
            own.heard = now;
            self.shown.clear();
            return Whose::Ours;
        }
        self.shown.insert(asked.registry.clone(), Some(store.into()));
        let all_there_is = self.shown.len() >= asked.doors
            && self.shown.values().all(|shown| shown.as_deref().is_none_or(|shown| shown == store));
        if !all_there_is && now.saturating_duration_since(own.heard) < PATIENCE {
            let first = !self.met.iter().any(|met| **met == *store);
            if first {
                self.met.push_back(store.into());
                if self.met.len() > LEFT_MAX {
                    self.met.pop_front();
                }
            }
            return Whose::Strange { ours: own.store.clone(), first };
        }
        self.shown.clear();
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
