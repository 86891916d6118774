//! Bytes that were encoded once, for everybody who asks for the same.
//!
//! A [`Memo`] stands beside what the bytes were made of and holds them weakly; a [`Shelf`], one for the whole process,
//! holds the last ones. What is asked for often is made once, and what nobody asks for takes no memory for long.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Chunks;
use crate::catalog::{Revision, Timestamp};

/// Most bytes on the shelf, beside what the entry put there last grows to.
const SHELF_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Deltas remembered of one view. Watchers that keep up hold the same revision; a few may be one change behind.
const DELTAS_MAX: usize = 4;

/// Longest delta that stays as long as its view does, where everybody finds it without a lock: one for each service that
/// somebody follows. Longer ones stand on the shelf.
const KEPT_BYTES_MAX: usize = 2 * 1024;

/// How long a soft state that tells what is left of a hold is told as it is: a hold takes minutes.
const HOLD_AGE_MAX: Duration = Duration::from_millis(100);

/// What stands on a shelf.
pub(crate) trait Shelved: Any + Send + Sync + std::fmt::Debug {
    /// How much memory it takes now.
    fn bytes(&self) -> usize;
}

impl Shelved for Bytes {
    fn bytes(&self) -> usize {
        self.len()
    }
}

/// The last encodings that were made.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    last: Mutex<VecDeque<Arc<dyn Shelved>>>,
}

/// Most entries on the shelf: what bounds the look at all of them that each new one takes.
const SHELF_MAX: usize = 1_024;

impl Shelf {
    fn put(&self, entry: Arc<dyn Shelved>) {
        let mut last = self.last.lock();
        last.push_back(entry);
        let mut bytes: usize = last.iter().map(|entry| entry.bytes()).sum();
        while (bytes > SHELF_BYTES_MAX && last.len() > 1) || last.len() > SHELF_MAX {
            bytes -= last.pop_front().map_or(0, |entry| entry.bytes());
        }
    }
}

/// What was encoded of one published view.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    resolved: Mutex<Weak<Bytes>>,
    chunks: Mutex<Weak<Chunks>>,
    soft: Mutex<(Option<Timestamp>, Weak<Bytes>)>,
    /// The delta that was asked for first, if it is short: what nearly every watcher asks for.
    delta: OnceLock<((Revision, bool), Bytes)>,
    deltas: Mutex<VecDeque<Delta>>,
}

/// A delta that was encoded.
#[derive(Debug)]
struct Delta {
    /// The revision that it builds on, and whether the state was whole.
    from: (Revision, bool),
    made: Weak<Bytes>,
}

impl Memo {
    /// What `Resolve` answers, but for what is told anew each time.
    pub(crate) fn resolved(&self, shelf: &Shelf, make: impl FnOnce() -> Bytes) -> Arc<Bytes> {
        let mut held = self.resolved.lock();
        held.upgrade().unwrap_or_else(|| {
            let made = Arc::new(make());
            *held = Arc::downgrade(&made);
            shelf.put(Arc::clone(&made) as Arc<dyn Shelved>);
            made
        })
    }

    /// The snapshot that everybody takes chunks of.
    pub(crate) fn chunks(&self, shelf: &Shelf, make: impl FnOnce() -> Chunks) -> Arc<Chunks> {
        let mut held = self.chunks.lock();
        held.upgrade().unwrap_or_else(|| {
            let made = Arc::new(make());
            *held = Arc::downgrade(&made);
            shelf.put(Arc::clone(&made) as Arc<dyn Shelved>);
            made
        })
    }

    /// The soft state. `until` is the moment up to which it may be told, where what is left of a hold stands in it.
    pub(crate) fn soft(&self, shelf: &Shelf, holds_at: Option<Timestamp>, make: impl FnOnce() -> Bytes) -> Arc<Bytes> {
        let mut held = self.soft.lock();
        let (made_at, made) = &*held;
        let fresh = match (made_at, holds_at) {
            (Some(made_at), Some(now)) => now.since(*made_at) <= HOLD_AGE_MAX,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if let Some(made) = made.upgrade().filter(|_| fresh) {
            return made;
        }
        let made = Arc::new(make());
        *held = (holds_at, Arc::downgrade(&made));
        shelf.put(Arc::clone(&made) as Arc<dyn Shelved>);
        made
    }

    /// The delta from this revision on, as told while the state was as whole as this.
    pub(crate) fn delta(&self, shelf: &Shelf, from: (Revision, bool), make: impl FnOnce() -> Bytes) -> Bytes {
        let kept = || self.delta.get().filter(|(kept, _)| *kept == from).map(|(_, delta)| delta.clone());
        if let Some(delta) = kept() {
            return delta;
        }
        let mut deltas = self.deltas.lock();
        // Somebody else may have made it meanwhile.
        let held = deltas.iter().find(|held| held.from == from).and_then(|held| held.made.upgrade());
        kept().or_else(|| held.map(|held| Bytes::clone(&held))).unwrap_or_else(|| {
            let delta = make();
            if delta.len() <= KEPT_BYTES_MAX && self.delta.set((from, delta.clone())).is_ok() {
                return delta;
            }
            let made = Arc::new(delta.clone());
            deltas.retain(|held| held.from != from);
            if deltas.len() == DELTAS_MAX {
                deltas.pop_front();
            }
            deltas.push_back(Delta { from, made: Arc::downgrade(&made) });
            shelf.put(made as Arc<dyn Shelved>);
            delta
        })
    }
}
