//! Which record stands where in a store file.
//!
//! Records are numbered in the order in which they are written, a changed one anew. So a group of commits fills the last few
//! pages of the file's tree, whatever its keys are; under their keys, which are drawn at random, each record would change a
//! page of its own, and with each page comes the way up to the root, its old copy to be freed, and a piece for the disk.
//! What stands where is known in memory and read off the file when that is opened.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::catalog::Revision;

/// A key in 16 bytes. Its hashes are of two secrets that were drawn for this process, so that nobody can choose keys of one
/// name; of a hundred million keys two have one with a chance of 1 in 10^22, and then the store says that it is damaged
/// rather than mix them up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Name([u8; 16]);

/// A record of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    /// Where it stands.
    pub(super) place: u64,
    /// When it was last changed.
    pub(super) revision: Revision,
}

/// The records of a file: about 45 bytes each.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_name: HashMap<Name, Kept>,
    secrets: [RandomState; 2],
    /// Every place taken so far is below it.
    next: u64,
}

impl Places {
    /// What a key goes by.
    pub(super) fn name(&self, key: &[u8]) -> Name {
        let mut name = [0; 16];
        for (half, secret) in name.chunks_mut(8).zip(&self.secrets) {
            half.copy_from_slice(&secret.hash_one(key).to_ne_bytes());
        }
        Name(name)
    }

    /// The record of this name.
    pub(super) fn get(&self, name: Name) -> Option<Kept> {
        self.by_name.get(&name).copied()
    }

    /// A place for a record that is written at this revision, and the one that it leaves.
    pub(super) fn take(&mut self, name: Name, revision: Revision) -> (u64, Option<Kept>) {
        let place = self.next;
        self.next += 1;
        (place, self.by_name.insert(name, Kept { place, revision }))
    }

    /// The place that a record leaves for good.
    pub(super) fn leave(&mut self, name: Name) -> Option<Kept> {
        self.by_name.remove(&name)
    }

    /// Notes a record that was found; whether it is the only one of its name.
    pub(super) fn found(&mut self, name: Name, kept: Kept) -> bool {
        self.next = self.next.max(kept.place.saturating_add(1));
        self.by_name.insert(name, kept).is_none()
    }
}

/// A record as it stands at its place: the length of the key in two bytes, little end first, the key, the value.
pub(super) fn join(out: &mut Vec<u8>, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
    out.clear();
    // Keys are some hundred bytes: names and texts of a registration, each with a limit of its own.
    out.extend(u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend(key);
    value(out);
}

/// The key and the value of a record.
pub(super) fn split(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = record.split_first_chunk()?;
    rest.split_at_checked(u16::from_le_bytes(*length).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_record_takes_a_place_behind_all_others() {
        let mut places = Places::default();
        let (one, other) = (places.name(b"one"), places.name(b"other"));
        assert!(places.found(one, Kept { place: 7, revision: Revision::new(3) }));
        assert!(!places.found(one, Kept { place: 7, revision: Revision::new(3) }), "it is there twice");
        assert_eq!(places.take(other, Revision::new(4)), (8, None));
        let was = Kept { place: 7, revision: Revision::new(3) };
        assert_eq!(places.take(one, Revision::new(5)), (9, Some(was)));
        assert_eq!(places.get(one), Some(Kept { place: 9, revision: Revision::new(5) }));
        assert_eq!(places.leave(other).map(|kept| kept.place), Some(8));
        assert_eq!(places.get(other), None);
    }

    #[test]
    fn a_record_splits_into_what_was_joined() {
        let mut record = vec![9; 40];
        join(&mut record, b"key", |out| out.extend(b"value"));
        assert_eq!(split(&record), Some((&b"key"[..], &b"value"[..])));
        join(&mut record, b"", |_| {});
        assert_eq!(split(&record), Some((&b""[..], &b""[..])));
        for damaged in [&b""[..], b"\x05", b"\x05\x00four"] {
            assert_eq!(split(damaged), None, "{damaged:?}");
        }
    }
}
