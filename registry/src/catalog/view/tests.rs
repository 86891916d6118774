use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::catalog::kit::{World, asks, id, nonce, service};
use crate::catalog::{AdminState, Command, Key, Record, Register, Selector, State, Write};

/// A reader's copy of a service.
#[derive(Clone, PartialEq, Debug)]
struct Copy {
    revision: Revision,
    presence: Presence,
    instances: BTreeMap<InstanceId, Arc<Instance>>,
}

impl Copy {
    fn of(view: &ServiceView) -> Self {
        let instances = view.instances().values().map(|instance| (instance.id(), instance.clone()));
        Self { revision: view.revision(), presence: view.presence(), instances: instances.collect() }
    }

    /// Takes what a view tells who holds this.
    fn catch_up(&mut self, view: &ServiceView) {
        match view.since(self.revision) {
            Resume::Current => return,
            Resume::Snapshot => *self = Self::of(view),
            Resume::Delta => {
                for removal in view.removals().after(self.revision) {
                    self.instances.remove(&removal.id);
                }
                let upserts = view.instances().after(self.revision).map(|instance| (instance.id(), instance.clone()));
                self.instances.extend(upserts);
            }
        }
        (self.revision, self.presence) = (view.revision(), view.presence());
    }

    /// Everything but when it changed, which a load only knows roughly.
    fn facts(&self) -> (Presence, Vec<(InstanceId, Incarnation, AdminState)>) {
        let facts = |instance: &Arc<Instance>| (instance.id(), instance.incarnation(), instance.admin());
        (self.presence, self.instances.values().map(facts).collect())
    }
}

/// A world and the view of one service in it, as the engine keeps it.
struct Published {
    world: World,
    view: ServiceView,
    /// What a store of all commits holds.
    records: BTreeMap<Key, (Record, Revision)>,
}

impl Published {
    fn new() -> Self {
        let world = World::new();
        Self { view: world.state.view(&service("user-svc")), world, records: BTreeMap::new() }
    }

    fn follow(&mut self) {
        for write in std::mem::take(&mut self.world.writes) {
            match write {
                Write::Put(key, record) => _ = self.records.insert(key, (record, self.world.state.position().revision)),
                Write::Delete(key) => _ = self.records.remove(&key),
            }
        }
        for change in std::mem::take(&mut self.world.changes) {
            if change.service == *self.view.key() {
                self.view = self.view.advanced(change);
            }
        }
    }

    /// Something happens to one of a few instances, of one of a few services.
    fn happen(&mut self, instance: u8, what: u8) {
        let asked = Register { nonce: nonce(what / 32), ..asks(u128::from(instance % 5) + 1) };
        let names = ["user-svc", "user-svc", "user-svc", "a", "b", "c", "d", "e"];
        let name = service(names[usize::from(what % 8)]);
        match instance / 8 % 8 {
            0 | 1 => _ = self.world.command(&Command::Remove { service: name, id: asked.id }),
            2 => _ = self.world.command(&Command::DeleteService { service: name }),
            3 => {
                let wanted = if what % 16 < 8 { AdminState::Draining } else { AdminState::Enabled };
                _ = self.world.rule(Selector::Instance(asked.id), wanted, None);
            }
            4 => {
                self.world.wait(crate::catalog::REMEMBERED / 3);
                for command in self.world.state.ended(self.world.now, usize::MAX) {
                    self.world.command(&command).unwrap();
                    self.follow();
                }
            }
            _ => _ = self.world.register(Register { service: name, ..asked }),
        }
        self.follow();
    }

    /// The registry stops and starts on the same store.
    fn restart(&mut self) {
        let records = self
            .records
            .iter()
            .map(|(key, (record, revision))| (key.clone(), record.clone(), *revision, crate::catalog::OpId([0; 16])));
        self.world.state = State::load(self.world.state.position().clone(), records);
        self.view = self.world.state.view(self.view.key());
    }

    /// The registry loses sight of its store and loads anew.
    fn reload(&mut self) {
        let before = self.view.clone();
        self.restart();
        self.view = before.reloaded(self.view.clone(), self.world.state.position().revision);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a reader held, however long ago, across restarts and forgotten removals, what it is told brings it to
    /// where the service is.
    #[test]
    fn a_resume_from_anywhere_ends_at_the_present(
        events in prop::collection::vec((any::<u8>(), any::<u8>(), 0..40_u8), 1..120),
    ) {
        let mut published = Published::new();
        let mut copies = vec![Copy::of(&published.view)];
        for (instance, what, start) in events {
            match start {
                0 => published.restart(),
                1 => published.reload(),
                _ => published.happen(instance, what),
            }
            copies.push(Copy::of(&published.view));
            // One reader catches up now and then, so that a fault is not healed by a later restart's snapshot.
            let met = usize::from(what) % copies.len();
            copies[met].catch_up(&published.view);
            prop_assert_eq!(copies[met].facts(), Copy::of(&published.view).facts());
        }
        for mut copy in copies {
            prop_assert!(copy.revision <= published.world.state.position().revision);
            copy.catch_up(&published.view);
            prop_assert_eq!(copy.facts(), Copy::of(&published.view).facts());
        }
    }
}

#[test]
fn a_resume_is_a_delta_until_a_removal_after_it_was_forgotten() {
    let mut published = Published::new();
    for instance in 1..=2 {
        published.world.register(asks(instance)).unwrap();
        published.follow();
    }
    let held = published.view.revision();
    published.world.command(&Command::Remove { service: service("user-svc"), id: id(1) }).unwrap();
    published.follow();
    let removed = published.view.revision();
    published.world.wait(crate::catalog::REMEMBERED / 2);
    published.world.register(asks(3)).unwrap();
    published.follow();
    assert_eq!(published.view.since(held), Resume::Delta);

    published.world.wait(crate::catalog::REMEMBERED / 2);
    for command in published.world.state.ended(published.world.now, usize::MAX) {
        published.world.command(&command).unwrap();
        published.follow();
    }
    for restarted in [false, true] {
        if restarted {
            published.restart();
        }
        assert_eq!(published.view.since(held), Resume::Snapshot, "restarted: {restarted}");
        assert_eq!(published.view.since(removed), Resume::Delta, "restarted: {restarted}");
        assert_eq!(published.view.since(published.view.revision()), Resume::Current);
    }
}

#[test]
fn a_quiet_service_is_current_after_a_restart() {
    let mut published = Published::new();
    published.world.register(asks(1)).unwrap();
    published.follow();
    let held = published.view.revision();
    published.world.register(Register { service: service("order-svc"), ..asks(2) }).unwrap();
    published.follow();
    published.restart();
    assert_eq!(published.view.since(held), Resume::Current);
}

#[test]
fn a_rule_that_came_before_a_restart_is_not_missed_after_it() {
    let mut published = Published::new();
    published.world.register(asks(1)).unwrap();
    published.follow();
    let held = published.view.revision();
    published.world.rule(Selector::Instance(id(1)), AdminState::Draining, None).unwrap();
    published.follow();
    published.restart();
    assert_eq!(published.view.since(held), Resume::Delta);
    let told: Vec<AdminState> = published.view.instances().after(held).map(|instance| instance.admin()).collect();
    assert_eq!(told, [AdminState::Draining]);
}

#[test]
fn what_a_stranger_removed_without_a_trace_is_told_by_snapshot() {
    let mut published = Published::new();
    published.world.register(asks(1)).unwrap();
    published.follow();
    let held = published.view.revision();
    let revision = published.world.state.position().revision.next();
    let key = crate::catalog::kit::identity(1);
    let writes = vec![Write::Delete(Key::Identity(key))];
    let committed = crate::catalog::Committed { revision, op: crate::catalog::OpId([9; 16]), writes };
    published.world.changes = published.world.state.apply(&committed);
    published.follow();
    assert!(published.view.instances().is_empty());
    assert_eq!(published.view.since(held), Resume::Snapshot);
}

#[test]
fn a_position_ahead_of_the_service_is_current() {
    let mut published = Published::new();
    published.world.register(asks(1)).unwrap();
    published.follow();
    assert_eq!(published.view.since(published.view.revision().next()), Resume::Current);
}

#[test]
fn forgetting_a_removal_is_no_news() {
    let mut published = Published::new();
    let granted = published.world.register(asks(1)).unwrap();
    published.follow();
    published.world.deregister(granted).unwrap();
    published.follow();
    let before = published.view.clone();
    assert_eq!(before.removals().len(), 1);
    published.world.wait(crate::catalog::REMEMBERED);
    for command in published.world.state.ended(published.world.now, usize::MAX) {
        published.world.command(&command).unwrap();
        published.follow();
    }
    assert!(published.view.removals().is_empty());
    assert_eq!(published.view.revision(), before.revision());
    assert_eq!(published.view.since(before.revision()), Resume::Current);
}

#[test]
fn the_soft_state_of_another_incarnation_says_nothing() {
    let mut published = Published::new();
    let old = published.world.register(asks(1)).unwrap();
    published.follow();
    let stale = crate::catalog::InstanceHealth { incarnation: old.incarnation, liveness: Liveness::Stale, load: None };
    let soft = SoftState { instances: BTreeMap::from([(id(1), stale)]), hold: None };
    published.view = published.view.with_soft(Arc::new(soft));
    assert_eq!(published.view.liveness(&published.view.instances()[&id(1)]), Liveness::Stale);
    published.world.register(Register { nonce: nonce(2), ..asks(1) }).unwrap();
    published.follow();
    assert_eq!(published.view.liveness(&published.view.instances()[&id(1)]), Liveness::Alive);
}

#[test]
fn a_removal_that_was_forgotten_once_stays_forgotten_after_a_reload() {
    let view = |floor| {
        let (revision, floor) = (Revision::new(9), Revision::new(floor));
        ServiceView::of(service("user-svc"), revision, floor, Presence::Populated, Roster::default(), Roster::default())
    };
    let reloaded = view(5).reloaded(view(3), Revision::new(9));
    assert_eq!(reloaded.since(Revision::new(4)), Resume::Snapshot);
    assert_eq!(reloaded.since(Revision::new(5)), Resume::Delta);
}
