//! Which store this is: made once, by whoever comes first, and found by everybody else.

use std::fmt;

use crate::catalog::{Generation, StoreId};
use crate::storage::codec::FORMAT;

/// What stands under the key `store`: `FORMAT ID GENERATION CLUSTER`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) store: StoreId,
    /// Rises when etcd is found restored from a backup: its revisions are used again then.
    pub(super) generation: Generation,
    /// The etcd cluster that it is kept in. A restored backup is another cluster.
    pub(super) cluster: u64,
}

/// Why a value under the key `store` is not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("the store is of format {found}, and this registry knows formats up to {FORMAT}: use a newer registry")]
    Newer { found: u32 },
    #[error("its key holds {0:?}, which no registry wrote: is another program using the same keys?")]
    Foreign(String),
}

impl Identity {
    pub(super) fn parse(value: &[u8]) -> Result<Self, IdentityError> {
        let foreign = || IdentityError::Foreign(String::from_utf8_lossy(value).chars().take(120).collect());
        let text = std::str::from_utf8(value).map_err(|_| foreign())?;
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or_else(foreign);
        let found: u32 = word()?.parse().map_err(|_| foreign())?;
        if found > FORMAT {
            return Err(IdentityError::Newer { found });
        }
        let store = StoreId::parse(word()?).map_err(|_| foreign())?;
        let generation = Generation(word()?.parse().map_err(|_| foreign())?);
        let cluster = u64::from_str_radix(word()?, 16).map_err(|_| foreign())?;
        Ok(Self { store, generation, cluster })
    }

    /// The same store, found in a cluster whose revisions are not those it had before.
    pub(super) fn restored(&self, cluster: u64) -> Self {
        Self { store: self.store.clone(), generation: Generation(self.generation.0 + 1), cluster }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORMAT} {} {} {:x}", self.store, self.generation.0, self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let id = Identity { store: StoreId::parse("abc").unwrap(), generation: Generation(3), cluster: u64::MAX };
        assert_eq!(id.to_string(), "1 abc 3 ffffffffffffffff");
        assert_eq!(Identity::parse(id.to_string().as_bytes()), Ok(id.clone()));
        assert_eq!(id.restored(7).to_string(), "1 abc 4 7");
    }

    #[test]
    fn what_is_newer_or_strange_is_refused() {
        assert_eq!(Identity::parse(b"2 what ever"), Err(IdentityError::Newer { found: 2 }));
        for strange in ["", "1", "1 abc", "1 abc x 7", "1 abc 3 zz", "one abc 3 7"] {
            assert!(matches!(Identity::parse(strange.as_bytes()), Err(IdentityError::Foreign(_))), "{strange}");
        }
        assert!(matches!(Identity::parse(&[0xff]), Err(IdentityError::Foreign(_))));
    }
}
