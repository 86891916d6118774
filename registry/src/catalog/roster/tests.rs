//! The roster against a map that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::catalog::kit::{id, incarnation};
use crate::catalog::{Incarnation, RemovalReason};

fn removal(number: u16, revision: u64) -> Removal {
    let incarnation: Incarnation = incarnation(1);
    let reason = RemovalReason::Expired;
    Removal { id: id(u128::from(number) + 1), incarnation, reason, revision: Revision::new(revision) }
}

/// What must hold of the chunks for the searches in them to be right, and for a change to cost what it should.
fn assert_sound(roster: &Roster<Removal>) {
    let sizes: Vec<usize> = roster.chunks.iter().map(|chunk| chunk.entries.len()).collect();
    assert!(sizes.iter().all(|size| (1..=CHUNK_MAX).contains(size)), "{sizes:?}");
    assert!(sizes.len() <= 1 + 2 * roster.len() / CHUNK_MIN, "too many small chunks: {sizes:?}");
    for chunk in roster.chunks.iter() {
        assert_eq!(chunk.first, chunk.entries[0].id());
        assert_eq!(chunk.highest, highest(&chunk.entries));
    }
    assert!(roster.keys().zip(roster.keys().skip(1)).all(|(id, next)| id < next), "ids rise");
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16),
    Remove(u16),
    /// A whole range at once, so that chunks run full and empty.
    Fill(u16, u16),
    Clear(u16, u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 0..600_u16;
    let step = prop_oneof![
        4 => number.clone().prop_map(Step::Insert),
        4 => number.clone().prop_map(Step::Remove),
        1 => (number.clone(), 1..200_u16).prop_map(|(from, count)| Step::Fill(from, count)),
        1 => (number, 1..200_u16).prop_map(|(from, count)| Step::Clear(from, count)),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_roster_is_a_sorted_map_whatever_happens_to_it(steps in steps(), asked in 0..200_u64, from in 0..700_u16) {
        let (mut roster, mut model) = (Roster::<Removal>::default(), BTreeMap::new());
        let mut earlier = Vec::new();
        let mut revision = 0;
        for step in steps {
            earlier.push((roster.clone(), model.clone()));
            let (insert, numbers) = match step {
                Step::Insert(number) => (true, number..number + 1),
                Step::Remove(number) => (false, number..number + 1),
                Step::Fill(from, count) => (true, from..from + count),
                Step::Clear(from, count) => (false, from..from + count),
            };
            for number in numbers {
                revision += 1;
                let removal = removal(number, revision);
                let (got, wanted) = match insert {
                    true => (roster.insert(removal), model.insert(removal.id, removal)),
                    false => (roster.remove(&removal.id), model.remove(&removal.id)),
                };
                prop_assert_eq!(got, wanted);
            }
            assert_sound(&roster);
        }
        prop_assert!(roster.values().eq(model.values()));
        prop_assert_eq!(roster.len(), model.len());
        for number in 0..800 {
            let id = removal(number, 0).id;
            prop_assert_eq!(roster.get(&id), model.get(&id));
        }
        let asked = Revision::new(asked);
        prop_assert!(roster.after(asked).eq(model.values().filter(|removal| removal.revision > asked)));
        prop_assert_eq!(roster.highest(), model.values().map(|removal| removal.revision).max().unwrap_or_default());
        let from = removal(from, 0).id;
        for bound in [Bound::Included(from), Bound::Excluded(from), Bound::Unbounded] {
            prop_assert!(roster.from(bound).eq(model.range((bound, Bound::Unbounded)).map(|(_, removal)| removal)));
        }
        for (roster, model) in earlier {
            prop_assert!(roster.values().eq(model.values()), "a clone does not change");
        }
    }
}

#[test]
fn a_change_of_a_shared_roster_copies_one_chunk() {
    let mut roster = Roster::default();
    for number in 0..1_000 {
        roster.insert(removal(number, 1));
    }
    let shared = roster.clone();
    roster.insert(removal(500, 2));
    roster.remove(&removal(501, 0).id);
    let kept = shared.chunks.iter().zip(roster.chunks.iter());
    let copied = kept.filter(|(was, is)| !Arc::ptr_eq(&was.entries, &is.entries)).count();
    assert_eq!(copied, 1);
    assert!(roster != shared);
}
