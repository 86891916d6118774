//! The tokens that were verified lately: a caller shows the same one with each of its calls, and a signature costs some
//! hundred times what a look-up does.

use std::collections::HashMap;

use crate::auth::caller::Caller;

/// Most tokens of one generation; two are kept, some 2 MiB.
const GENERATION_MAX: usize = 4096;

type Digest = [u8; 32];
/// Who showed it, and its `exp`.
type Verified = (Caller, u64);

/// Two generations: when the young one is full it becomes the old one, and the old one is forgotten. What is used lives on.
#[derive(Default)]
pub(super) struct Cache {
    young: HashMap<Digest, Verified>,
    old: HashMap<Digest, Verified>,
}

impl Cache {
    pub(super) fn get(&mut self, digest: &Digest) -> Option<Verified> {
        if let Some(found) = self.young.get(digest) {
            return Some(found.clone());
        }
        let found = self.old.remove(digest)?;
        self.insert(*digest, found.clone());
        Some(found)
    }

    pub(super) fn insert(&mut self, digest: Digest, verified: Verified) {
        if self.young.len() == GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, verified);
    }
}

#[cfg(test)]
mod tests {
    use super::{Cache, Caller, GENERATION_MAX};

    fn digest(of: usize) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&of.to_le_bytes());
        digest
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        cache.insert(digest(0), (Caller::operator(), 7));
        for of in 1..10 * GENERATION_MAX {
            cache.insert(digest(of), (Caller::operator(), 7));
            if of % 1000 == 0 {
                assert_eq!(cache.get(&digest(0)), Some((Caller::operator(), 7)), "after {of}");
            }
            assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION_MAX);
        }
        assert_eq!(cache.get(&digest(1)), None);
    }
}
