//! Where a piece of news stands in the history of a store.

use std::fmt;
use std::sync::Arc;

use super::Invalid;

/// Identity of a store, 1 to 64 bytes, opaque to everybody else. A memory store takes a new one at each start.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StoreId(Arc<str>);

impl StoreId {
    /// Longest id, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Takes an id of 1 to 64 printable ASCII bytes.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() || text.len() > Self::BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Invalid::name("store_id", text, "1 to 64 printable ASCII bytes"));
        }
        Ok(Self(text.into()))
    }

    /// The id as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of a committed change; rises with every change of any service of a store. 0 is the empty store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(u64);

impl Revision {
    /// The empty store.
    pub const ZERO: Self = Self(0);

    /// Above every revision that a store gives.
    pub const MAX: Self = Self(u64::MAX);

    /// The revision of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Rises when a store is restored from a backup, so that its reused revisions are not mistaken for old ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Generation(pub u64);

/// A point in the history of one store.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Position {
    /// Which store; positions of two stores are never compared.
    pub store: StoreId,
    /// Which life of it.
    pub generation: Generation,
    /// The last change that this position includes.
    pub revision: Revision,
}

impl Position {
    /// Whether both count the revisions of the same life of the same store.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.store, self.generation) == (&other.store, other.generation)
    }

    /// Whether everything up to `other` is included here; `None` where the two belong to different stores.
    #[must_use]
    pub fn includes(&self, other: &Self) -> Option<bool> {
        (self.store == other.store).then(|| (self.generation, self.revision) >= (other.generation, other.revision))
    }
}
