//! What is remembered of endpoints that are gone: they may be back in a moment, and are not to find their ejection forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Key;
use crate::balancer::ejection::Record;

/// How many are remembered; then those that have been gone for longest are forgotten. One that is not remembered is called
/// like a new one.
const RECORDS_MAX: usize = 1024;

/// Ejections of endpoints that are not listed now.
#[derive(Debug, Default)]
pub(super) struct Records {
    held: BTreeMap<Key, Remembered>,
}

#[derive(Debug)]
struct Remembered {
    /// Which one it was: another one begins anew.
    incarnation: u64,
    record: Record,
    gone: Duration,
}

impl Records {
    /// An endpoint is gone since `now`.
    pub(super) fn keep(&mut self, key: Key, incarnation: u64, record: Record, now: Duration) {
        self.held.retain(|_, held| !held.record.is_clean(now));
        if record.is_clean(now) {
            return;
        }
        if self.held.len() >= RECORDS_MAX
            && let Some((oldest, _)) = self.held.iter().min_by_key(|(_, held)| held.gone)
        {
            let oldest = oldest.clone();
            self.held.remove(&oldest);
        }
        self.held.insert(key, Remembered { incarnation, record, gone: now });
    }

    /// An endpoint is here: what is remembered of this incarnation.
    pub(super) fn take(&mut self, key: &Key, incarnation: u64) -> Option<Record> {
        let held = self.held.remove(key)?;
        (held.incarnation == incarnation).then_some(held.record)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::policy::Ejection;
    use crate::rig::address;

    fn key(number: u128) -> Key {
        (Uuid::from_u128(number), address(1))
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ejected() -> Record {
        let mut record = Record::default();
        record.eject(&Ejection::default(), s(0));
        record
    }

    #[test]
    fn who_has_been_gone_for_longest_is_forgotten_first() {
        let mut records = Records::default();
        // The keys in the other order.
        for second in 0..=RECORDS_MAX as u64 {
            records.keep(key(10_000 - u128::from(second)), 1, ejected(), s(second));
        }
        assert_eq!(records.held.len(), RECORDS_MAX);
        assert_eq!(records.take(&key(10_000), 1), None);
        assert_eq!(records.take(&key(9_999), 1), Some(ejected()));
        assert_eq!(records.take(&key(10_000 - RECORDS_MAX as u128), 1), Some(ejected()));
    }

    #[test]
    fn another_incarnation_begins_anew_and_who_was_well_is_not_kept() {
        let mut records = Records::default();
        records.keep(key(1), 1, ejected(), s(0));
        assert_eq!(records.take(&key(1), 2), None);
        assert_eq!(records.take(&key(1), 1), None, "it was here as another one");
        records.keep(key(1), 1, Record::default(), s(0));
        assert!(records.held.is_empty());
    }
}
