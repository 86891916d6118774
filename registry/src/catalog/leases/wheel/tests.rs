//! The wheel against a list that is kept in order.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::{BUCKETS, TICK_BITS, TURN_MAX, Wheel};
use crate::catalog::Timestamp;
use crate::catalog::leases::deadlines::Deadlines;
use crate::catalog::leases::slab::Slot;

const START: Timestamp = Timestamp::from_nanos(1_000_000_000_000_000);
const TICK: Duration = Duration::from_nanos(1 << TICK_BITS);

#[derive(Clone, Debug)]
enum Step {
    /// Due so much after now.
    File(u32, Duration),
    FileBy(u32, Duration),
    Unfile(u32),
    Pass(Duration),
}

/// Mostly within a few ticks, where order within a tick counts; also around the end of a turn, and far beyond it.
fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        1 => Just(Duration::ZERO),
        4 => (0_u64..300).prop_map(Duration::from_millis),
        4 => (0_u64..20_000).prop_map(Duration::from_millis),
        2 => (BUCKETS as u64 - 3..BUCKETS as u64 + 3).prop_map(|ticks| TICK * u32::try_from(ticks).unwrap_or(0)),
        1 => (0_u64..5_000).prop_map(Duration::from_secs),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u32..40, span()).prop_map(|(slot, after)| Step::File(slot, after)),
        2 => (0_u32..40, span()).prop_map(|(slot, after)| Step::FileBy(slot, after)),
        1 => (0_u32..40).prop_map(Step::Unfile),
        4 => span().prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..100)
}

/// What is filed stays filed: no slot was renewed meanwhile.
fn as_filed(_: Slot) -> Option<Timestamp> {
    Some(Timestamp::default())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same slots come at the same times in the same order as from a list that is kept in order.
    #[test]
    fn a_wheel_is_a_sorted_list(steps in steps()) {
        let (mut wheel, mut list, mut now) = (Wheel::default(), Deadlines::default(), START);
        for step in steps {
            match step {
                Step::File(slot, after) => {
                    wheel.file(Slot::numbered(slot), now.after(after));
                    list.file(slot, now.after(after));
                }
                Step::FileBy(slot, after) => {
                    wheel.file_by(Slot::numbered(slot), now.after(after));
                    list.file_by(slot, now.after(after));
                }
                Step::Unfile(slot) => {
                    wheel.unfile(Slot::numbered(slot));
                    list.unfile(&slot);
                }
                Step::Pass(duration) => {
                    now = now.after(duration);
                    wheel.turn(now, as_filed);
                    loop {
                        let came = wheel.pop_due(now).map(Slot::number);
                        prop_assert_eq!(came, list.pop_due(now));
                        if came.is_none() {
                            break;
                        }
                    }
                }
            }
            prop_assert_eq!(wheel.len(), list.len());
            match (wheel.next(), list.next()) {
                (Some(look), Some(due)) => prop_assert!(look <= due, "{:?} is due before {:?}", due, look),
                (look, due) => prop_assert_eq!(look, due),
            }
        }
    }

    /// Who looks whenever the wheel says so finds every slot at the time that holds for it by then, not before and not
    /// after, however often it was renewed; and looks at most once a tick in vain.
    #[test]
    fn a_renewal_needs_no_filing(
        ttl in (2_u64..300).prop_map(Duration::from_secs),
        beats in prop::collection::vec((0_u32..20, 0_u64..3_000), 1..200),
    ) {
        let (mut wheel, mut now) = (Wheel::default(), START);
        let mut holds: BTreeMap<u32, Timestamp> = (0..20).map(|slot| (slot, now.after(ttl))).collect();
        for (slot, at) in &holds {
            wheel.file(Slot::numbered(*slot), *at);
        }
        let beats = beats.into_iter().map(|(slot, wait)| (Some(slot), Duration::from_millis(wait)));
        for (beats, wait) in beats.chain([(None, ttl * 2)]) {
            let until = now.after(wait);
            let mut looks = 0;
            while let Some(look) = wheel.next().filter(|look| *look <= until) {
                looks += 1;
                now = now.max(look);
                wheel.turn(now, |slot| holds.get(&slot.number()).copied());
                while let Some(slot) = wheel.pop_due(now) {
                    match holds.get(&slot.number()).copied() {
                        Some(due) if due > now => wheel.file(slot, due),
                        due => {
                            prop_assert_eq!(due, Some(now), "it comes when it is due");
                            holds.remove(&slot.number());
                        }
                    }
                }
            }
            prop_assert!(looks <= 45 + wait.as_nanos() / TICK.as_nanos(), "{} looks in {:?}", looks, wait);
            now = until;
            prop_assert!(holds.values().all(|due| *due > now), "nothing is passed over");
            if let Some(due) = beats.and_then(|slot| holds.get_mut(&slot)) {
                *due = now.after(ttl);
            }
        }
        prop_assert_eq!((holds.len(), wheel.len(), wheel.next()), (0, 0, None));
    }
}

#[test]
fn a_crowd_comes_up_in_parts() {
    let mut wheel = Wheel::default();
    let crowd = u32::try_from(TURN_MAX * 2 + 1).expect("a small number");
    for slot in 0..crowd {
        wheel.file(Slot::numbered(slot), START);
    }
    wheel.unfile(Slot::numbered(0));
    wheel.file(Slot::numbered(0), START);
    let now = START.after(TICK);
    let mut parts = Vec::new();
    while wheel.next().is_some_and(|at| at <= now) {
        wheel.turn(now, as_filed);
        let mut came = 0;
        while wheel.pop_due(now).is_some() {
            came += 1;
        }
        parts.push(came);
    }
    assert_eq!(parts, [TURN_MAX, TURN_MAX, 1]);
    assert_eq!(wheel.len(), 0);
}
