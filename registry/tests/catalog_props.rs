//! The catalog against a model that is too simple to be wrong: random commands, and after each one the same answer, the
//! same members, and everything that always holds.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

#[path = "catalog_props/expiry.rs"]
mod expiry;
#[path = "catalog_props/harness.rs"]
mod harness;
#[path = "catalog_props/model.rs"]
mod model;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Harness, Step, service, steps};
use model::Model;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use registry::catalog::{Committed, IdentityKey, Incarnation, Instance, Key, Position, Record, Revision, State, Write};

/// Longest sequence of steps.
const STEPS_MAX: usize = 100;

/// Sequences that each fact about the catalog is held against.
const CASES: u32 = 2_000;

fn config(cases: u32) -> ProptestConfig {
    // Failing cases are kept as named tests below, not as seeds in a file that nobody reads.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(CASES))]

    /// Every answer is the model's: who is granted what, who is fenced, who may not come back, which beats renew.
    #[test]
    fn every_answer_is_the_model_s(steps in steps(STEPS_MAX)) {
        let mut harness = Harness::new();
        let mut model = Model::default();
        for step in steps {
            harness.take(&step, &mut model);
            prop_assert_eq!(harness.members(), model.members(), "after {:?}", step);
            prop_assert_eq!(harness.presences(), model.presences(), "after {:?}", step);
        }
    }

    /// A state is what its commits amount to, whoever applies them and however often each is told.
    #[test]
    fn replaying_the_log_gives_the_state(steps in steps(STEPS_MAX)) {
        let harness = Harness::after(steps);
        let mut replayed = State::empty(start(&harness));
        for committed in &harness.log {
            replayed.apply(committed);
            prop_assert!(replayed.apply(committed).is_empty(), "a commit told twice changes nothing");
        }
        prop_assert_eq!(&replayed, &harness.state);
    }

    /// The records alone give the same state as the commits that led to them, but for when things changed.
    #[test]
    fn loading_the_records_gives_the_state(steps in steps(STEPS_MAX)) {
        let harness = Harness::after(steps);
        let loaded = State::load(harness.state.position().clone(), records(&harness.log));
        prop_assert_eq!(loaded.live(), harness.state.live());
        prop_assert_eq!(loaded.known(), harness.state.known());
        prop_assert_eq!(loaded.tombstones(), harness.state.tombstones());
        prop_assert_eq!(loaded.next_end(), harness.state.next_end());
        for name in harness.state.services().chain(loaded.services()) {
            let (was, is) = (harness.state.view(name), loaded.view(name));
            let facts = |instance: &Instance| (instance.id(), instance.incarnation(), instance.admin(), instance.serving());
            prop_assert!(was.instances().values().map(|i| facts(i)).eq(is.instances().values().map(|i| facts(i))));
            prop_assert!(was.removals().keys().eq(is.removals().keys()));
            prop_assert_eq!(was.presence(), is.presence());
        }
    }

    /// Revisions rise by commits alone, and every change carries the revision of the commit that made it.
    #[test]
    fn revisions_only_rise(steps in steps(STEPS_MAX)) {
        let harness = Harness::after(steps);
        let mut state = State::empty(start(&harness));
        for committed in &harness.log {
            let before = state.position().revision;
            let changes = state.apply(committed);
            prop_assert!(committed.revision > before);
            prop_assert_eq!(state.position().revision, committed.revision);
            for change in changes {
                prop_assert_eq!(change.revision, committed.revision);
                prop_assert!(change.upserts.iter().all(|instance| instance.revision() == committed.revision));
                prop_assert!(change.gone.iter().all(|removal| removal.revision == committed.revision));
            }
        }
    }

    /// A reader that takes every change holds the same instances as one that takes a snapshot.
    #[test]
    fn a_snapshot_is_all_the_changes_before_it(steps in steps(STEPS_MAX)) {
        let harness = Harness::after(steps);
        let mut state = State::empty(start(&harness));
        let mut held: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for committed in &harness.log {
            for change in state.apply(committed) {
                let instances = held.entry(change.service.clone()).or_default();
                for removal in &change.gone {
                    prop_assert!(instances.remove(&removal.id).is_some(), "what goes was there");
                }
                prop_assert!(!change.silent || (change.upserts.is_empty() && change.gone.is_empty()));
                // Readers do not see whose an instance is.
                instances.extend(change.upserts.iter().chain(&change.owned).map(|instance| (instance.id(), instance.clone())));
                let snapshot = state.view(&change.service);
                prop_assert!(instances.values().eq(snapshot.instances().values()));
            }
        }
    }

    /// Of one id the incarnations only rise, through takeovers, removals and forgotten tombstones alike.
    #[test]
    fn incarnations_only_rise(steps in steps(STEPS_MAX)) {
        let harness = Harness::after(steps);
        let mut issued: BTreeMap<IdentityKey, Incarnation> = BTreeMap::new();
        for committed in &harness.log {
            for write in &committed.writes {
                let Write::Put(Key::Identity(key), Record::Identity(identity)) = write else { continue };
                let Some(live) = &identity.live else { continue };
                let before = issued.insert(key.clone(), live.incarnation);
                prop_assert!(before.is_none_or(|before| before <= live.incarnation));
                prop_assert!(live.incarnation.get() <= committed.revision.get());
            }
        }
    }
}

#[test]
fn the_steps_reach_every_answer_worth_reaching() {
    let mut runner = TestRunner::deterministic();
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let steps = steps(STEPS_MAX).new_tree(&mut runner).expect("steps can be drawn").current();
        let mut harness = Harness::new();
        for step in steps {
            reached.insert(harness.take(&step, &mut Model::deaf()));
        }
    }
    for answer in [
        "granted",
        "repeated",
        "fenced",
        "departed",
        "renewed",
        "unknown lease",
        "fenced beat",
        "lapsed",
        "deleted",
        "in use",
        "selected",
        "adopted",
        "done",
    ] {
        assert!(reached.contains(answer), "no sequence came to {answer:?}; reached {reached:?}");
    }
}

#[test]
fn waiting_for_an_hour_forgets_everything_but_the_last_instances() {
    let step = |id, nonce| Step::Register { id, nonce, service: 0, holds: harness::Holds::Nothing, changed: false };
    let mut harness = Harness::new();
    for id in 0..3 {
        harness.take(&step(id, 0), &mut Model::deaf());
    }
    harness.take(&Step::Wait(Duration::from_secs(3_000)), &mut Model::deaf());
    assert_eq!(harness.state.view(&service(0)).instances().len(), 1);
    assert_eq!(harness.state.tombstones(), 0);
}

fn start(harness: &Harness) -> Position {
    Position { revision: Revision::ZERO, ..harness.state.position().clone() }
}

/// The records that a store of these commits holds.
fn records(log: &[Committed]) -> Vec<(Key, Record, Revision, registry::catalog::OpId)> {
    let mut records = BTreeMap::new();
    for committed in log {
        for write in &committed.writes {
            match write {
                Write::Put(key, record) => {
                    records.insert(key.clone(), (record.clone(), committed.revision, committed.op));
                }
                Write::Delete(key) => {
                    records.remove(key);
                }
            }
        }
    }
    records.into_iter().map(|(key, (record, revision, op))| (key, record, revision, op)).collect()
}
