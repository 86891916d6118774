//! The instances or removals of one service, in the order of their ids: cheap to share, cheap to change, and quick to say
//! what is newer than a revision.
//!
//! A sorted list in chunks behind `Arc`s. A clone is one pointer; a change of a shared one copies the list of chunks and
//! one chunk, which is O(sqrt n) for the sizes that services have. Each chunk knows its highest revision, so that what
//! changed lately is found without looking at the rest.

use std::fmt;
use std::ops::{Bound, Index};
use std::sync::Arc;

use super::{Instance, InstanceId, Removal, Revision};

/// Most entries of a chunk. A full one is split in the middle.
const CHUNK_MAX: usize = 64;

/// A chunk with fewer entries is joined with a neighbour where both together leave room for more.
const CHUNK_MIN: usize = 16;

/// Most entries of two chunks that are joined: the result is not split by the next few insertions.
const JOINED_MAX: usize = 48;

/// What a roster holds: something with an id that was last changed at a revision.
pub trait Entry: Clone {
    /// What it is looked up by.
    fn id(&self) -> InstanceId;
    /// When it was last changed.
    fn revision(&self) -> Revision;
}

impl Entry for Arc<Instance> {
    fn id(&self) -> InstanceId {
        Instance::id(self)
    }

    fn revision(&self) -> Revision {
        Instance::revision(self)
    }
}

impl Entry for Removal {
    fn id(&self) -> InstanceId {
        self.id
    }

    fn revision(&self) -> Revision {
        self.revision
    }
}

/// A map from ids to entries that is shared between the state and the views of it.
#[derive(Clone)]
pub struct Roster<T> {
    /// None of them is empty; ids rise through them.
    chunks: Arc<Vec<Chunk<T>>>,
    len: usize,
}

#[derive(Clone)]
struct Chunk<T> {
    /// Id of the first entry, so that looking for a chunk touches no other memory.
    first: InstanceId,
    highest: Revision,
    entries: Arc<Vec<T>>,
}

impl<T: Entry> Chunk<T> {
    fn of(entries: Vec<T>) -> Option<Self> {
        let first = entries.first()?.id();
        Some(Self { first, highest: highest(&entries), entries: Arc::new(entries) })
    }
}

fn highest<T: Entry>(entries: &[T]) -> Revision {
    entries.iter().map(Entry::revision).max().unwrap_or(Revision::ZERO)
}

impl<T> Default for Roster<T> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<T: Entry> Roster<T> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry of this id.
    #[must_use]
    pub fn get(&self, id: &InstanceId) -> Option<&T> {
        let chunk = &self.chunks[self.chunk_of(id)?];
        let at = chunk.entries.binary_search_by_key(id, Entry::id).ok()?;
        chunk.entries.get(at)
    }

    /// Whether there is an entry of this id.
    #[must_use]
    pub fn contains_key(&self, id: &InstanceId) -> bool {
        self.get(id).is_some()
    }

    /// All entries, in the order of their ids.
    pub fn values(&self) -> impl Iterator<Item = &T> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.entries.iter())
    }

    /// All ids, in order.
    pub fn keys(&self) -> impl Iterator<Item = InstanceId> + Clone {
        self.values().map(Entry::id)
    }

    /// The entries from this id on, in order.
    pub fn from(&self, from: Bound<InstanceId>) -> impl Iterator<Item = &T> {
        let first = match &from {
            Bound::Unbounded => 0,
            Bound::Included(id) | Bound::Excluded(id) => self.chunk_of(id).unwrap_or(0),
        };
        let before = move |entry: &&T| match from {
            Bound::Unbounded => false,
            Bound::Included(id) => entry.id() < id,
            Bound::Excluded(id) => entry.id() <= id,
        };
        self.chunks[first..].iter().flat_map(|chunk| chunk.entries.iter()).skip_while(before)
    }

    /// The entries that were changed after a revision, in the order of their ids. Costs the chunks, and of those the
    /// entries in which something is.
    pub fn after(&self, revision: Revision) -> impl Iterator<Item = &T> {
        let newer = self.chunks.iter().filter(move |chunk| chunk.highest > revision);
        newer.flat_map(|chunk| chunk.entries.iter()).filter(move |entry| entry.revision() > revision)
    }

    /// The revision of the entry that was changed last; zero where there is none.
    #[must_use]
    pub fn highest(&self) -> Revision {
        self.chunks.iter().map(|chunk| chunk.highest).max().unwrap_or(Revision::ZERO)
    }

    /// Puts an entry where its id belongs; what stood there before.
    pub(super) fn insert(&mut self, entry: T) -> Option<T> {
        let id = entry.id();
        let Some(index) = self.chunk_of(&id).or_else(|| (!self.chunks.is_empty()).then_some(0)) else {
            self.chunks = Arc::new(Chunk::of(vec![entry]).into_iter().collect());
            self.len = 1;
            return None;
        };
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = &mut chunks[index];
        let entries = Arc::make_mut(&mut chunk.entries);
        let before = match entries.binary_search_by_key(&id, Entry::id) {
            Ok(at) => {
                let before = std::mem::replace(&mut entries[at], entry);
                chunk.highest = highest(entries);
                return Some(before);
            }
            Err(at) => at,
        };
        chunk.highest = chunk.highest.max(entry.revision());
        entries.insert(before, entry);
        chunk.first = entries[0].id();
        self.len += 1;
        if entries.len() > CHUNK_MAX {
            let upper = entries.split_off(CHUNK_MAX / 2);
            chunk.highest = highest(entries);
            chunks.splice(index + 1..=index, Chunk::of(upper));
        }
        None
    }

    /// Takes the entry of this id out.
    pub(super) fn remove(&mut self, id: &InstanceId) -> Option<T> {
        let index = self.chunk_of(id)?;
        let at = self.chunks[index].entries.binary_search_by_key(id, Entry::id).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = &mut chunks[index];
        let entries = Arc::make_mut(&mut chunk.entries);
        let removed = entries.remove(at);
        self.len -= 1;
        match entries.first() {
            None => _ = chunks.remove(index),
            Some(first) => {
                chunk.first = first.id();
                chunk.highest = highest(entries);
                join(chunks, index);
            }
        }
        Some(removed)
    }

    /// The chunk in which this id is, if it is anywhere: the last one that begins at it or before.
    fn chunk_of(&self, id: &InstanceId) -> Option<usize> {
        self.chunks.partition_point(|chunk| chunk.first <= *id).checked_sub(1)
    }
}

/// Joins a small chunk with a neighbour, so that removals leave no long list of little chunks.
fn join<T: Entry>(chunks: &mut Vec<Chunk<T>>, index: usize) {
    if chunks[index].entries.len() >= CHUNK_MIN {
        return;
    }
    let fits = |pair: &[Chunk<T>]| pair[0].entries.len() + pair[1].entries.len() <= JOINED_MAX;
    let Some(left) = [index.checked_sub(1), Some(index)]
        .into_iter()
        .flatten()
        .find(|left| chunks.get(*left..left + 2).is_some_and(fits))
    else {
        return;
    };
    let right = chunks.remove(left + 1);
    let chunk = &mut chunks[left];
    Arc::make_mut(&mut chunk.entries).extend(right.entries.iter().cloned());
    chunk.highest = chunk.highest.max(right.highest);
}

impl<T: Entry + PartialEq> PartialEq for Roster<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks) || (self.len == other.len && self.values().eq(other.values()))
    }
}

impl<T: Entry + Eq> Eq for Roster<T> {}

impl<T: Entry + fmt::Debug> fmt::Debug for Roster<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}

impl<T: Entry> Index<&InstanceId> for Roster<T> {
    type Output = T;

    fn index(&self, id: &InstanceId) -> &T {
        self.get(id).expect("an id that was looked for before")
    }
}

#[cfg(test)]
mod tests;
