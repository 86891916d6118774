use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::catalog::kit::{World, asks, id, nonce, service};
use crate::catalog::{Command, Metadata, Register};

/// A reader's copy of a service.
#[derive(Clone, PartialEq, Debug)]
struct Copy {
    revision: Revision,
    presence: Presence,
    instances: BTreeMap<InstanceId, Arc<Instance>>,
}

impl Copy {
    fn of(view: &ServiceView) -> Self {
        Self { revision: view.revision(), presence: view.presence(), instances: view.instances().clone() }
    }

    fn take(&mut self, delta: &Delta) {
        assert!(delta.base <= self.revision, "a gap: {:?} builds on more than {:?}", delta, self.revision);
        assert!(delta.revision > self.revision);
        for removal in &delta.removals {
            self.instances.remove(&removal.id);
        }
        self.instances.extend(delta.upserts.iter().map(|instance| (instance.id(), instance.clone())));
        (self.revision, self.presence) = (delta.revision, delta.presence);
    }
}

/// A world and the view of one service in it, as the engine keeps it.
struct Published {
    world: World,
    view: ServiceView,
}

impl Published {
    fn new() -> Self {
        let world = World::new();
        Self { view: world.state.view(&service("user-svc")), world }
    }

    fn follow(&mut self) {
        for change in std::mem::take(&mut self.world.changes) {
            if change.service == *self.view.key() {
                self.view = self.view.advanced(change);
            }
        }
    }

    /// Something happens to one of a few instances, of this service or of another.
    fn happen(&mut self, instance: u8, what: u8) {
        let asked = Register { nonce: nonce(what / 8), ..asks(u128::from(instance % 5) + 1) };
        let name = service(if what.is_multiple_of(7) { "order-svc" } else { "user-svc" });
        let command = match what % 4 {
            0 => Command::Remove { service: name, id: asked.id },
            1 => Command::DeleteService { service: name },
            _ => {
                let _ = self.world.register(Register { service: name, ..asked });
                return self.follow();
            }
        };
        let _ = self.world.command(&command);
        self.follow();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a reader held, what it is told brings it to where the service is.
    #[test]
    fn a_resume_from_anywhere_ends_at_the_present(events in prop::collection::vec((any::<u8>(), any::<u8>()), 1..80)) {
        let mut published = Published::new();
        let mut copies = vec![Copy::of(&published.view)];
        for (instance, what) in events {
            published.happen(instance, what);
            copies.push(Copy::of(&published.view));
            let snapshot = published.world.state.view(&service("user-svc"));
            prop_assert_eq!(published.view.instances(), snapshot.instances());
        }
        let present = Copy::of(&published.view);
        for mut copy in copies {
            match published.view.since(copy.revision) {
                Resume::Current => prop_assert_eq!(copy.revision, present.revision),
                Resume::Deltas(deltas) => deltas.iter().for_each(|delta| copy.take(delta)),
                Resume::Snapshot => prop_assert!(false, "the history reaches back to the start"),
            }
            prop_assert_eq!(&copy, &present);
        }
    }
}

#[test]
fn a_resume_below_the_ring_is_a_snapshot_and_one_within_is_whole() {
    let mut published = Published::new();
    let first = published.view.revision();
    for round in 0..1_500 {
        published.happen(0, if round % 2 == 0 { 2 } else { 4 });
    }
    assert!(matches!(published.view.since(first), Resume::Snapshot));

    let floor = (0..1_500).map(Revision::new).find(|at| !matches!(published.view.since(*at), Resume::Snapshot));
    let Resume::Deltas(deltas) = published.view.since(floor.unwrap()) else { panic!("the ring is not empty") };
    assert!((992..=1_024).contains(&deltas.len()), "{}", deltas.len());
    assert!(deltas.windows(2).all(|pair| pair[0].revision == pair[1].base), "each builds on the one before");
    assert_eq!(deltas.last().unwrap().revision, published.view.revision());
}

#[test]
fn the_ring_of_a_service_of_large_instances_is_bounded_in_bytes() {
    let mut published = Published::new();
    for round in 0..400 {
        let label = BTreeMap::from([("label".to_owned(), format!("{round:08000}"))]);
        let mut request = asks(1);
        request.spec.metadata = Metadata::new(label).unwrap();
        published.world.register(request).unwrap();
        published.follow();
    }
    let floor = (0..400).map(Revision::new).find(|at| !matches!(published.view.since(*at), Resume::Snapshot));
    let Resume::Deltas(deltas) = published.view.since(floor.unwrap()) else { panic!("the ring is not empty") };
    assert!((64..=131).contains(&deltas.len()), "{} of 8 kB in a MiB", deltas.len());
    assert!(deltas.windows(2).all(|pair| pair[0].revision == pair[1].base), "each builds on the one before");
}

#[test]
fn a_position_ahead_of_the_service_is_current() {
    let mut published = Published::new();
    published.happen(0, 2);
    assert!(matches!(published.view.since(published.view.revision().next()), Resume::Current));
}

#[test]
fn forgetting_a_removal_is_no_news() {
    let mut published = Published::new();
    published.happen(0, 2);
    published.happen(0, 4);
    let before = published.view.clone();
    assert_eq!(before.removals().len(), 1);
    published.world.wait(crate::catalog::REMEMBERED);
    for command in published.world.state.ended(published.world.now, usize::MAX) {
        published.world.command(&command).unwrap();
        published.follow();
    }
    assert!(published.view.removals().is_empty());
    assert_eq!(published.view.revision(), before.revision());
    assert!(matches!(published.view.since(before.revision()), Resume::Current));
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
