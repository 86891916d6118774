use mesh_api::registry::v1::{InstanceLiveness, RemovalHoldReason};

use super::*;

fn instance(id: &str, incarnation: u64) -> Instance {
    Instance { instance_id: id.to_owned(), incarnation, ..Instance::default() }
}

fn answer(store: &str, revision: u64, complete: bool, event: Event) -> WatchResponse {
    let position = Some(Position { store_id: store.to_owned(), generation: 0, revision });
    WatchResponse { service: "user-svc".to_owned(), position, complete, event: Some(event), ..Default::default() }
}

fn snapshot(instances: &[Instance], removals: &[Removal]) -> Event {
    Event::Snapshot(SnapshotChunk {
        instances: instances.to_vec(),
        last: true,
        presence: ServicePresence::Populated.into(),
        removals: removals.to_vec(),
        ..Default::default()
    })
}

fn delta(base_revision: u64, upserts: &[Instance], removals: &[Removal]) -> Event {
    let presence = ServicePresence::Populated.into();
    Event::Delta(Delta { base_revision, upserts: upserts.to_vec(), removals: removals.to_vec(), presence })
}

fn expired(id: &str, incarnation: u64) -> Removal {
    Removal { instance_id: id.to_owned(), incarnation, reason: RemovalReason::Expired.into(), revision: 9 }
}

fn view_of(instances: &[Instance]) -> ServiceView {
    let mut view = ServiceView::default();
    view.apply(&answer("s", 5, true, snapshot(instances, &[]))).expect("a snapshot always applies");
    view
}

fn ids(view: &ServiceView) -> Vec<&str> {
    view.instances().keys().map(String::as_str).collect()
}

#[test]
fn a_snapshot_applies_when_its_last_chunk_is_there() {
    let mut view = ServiceView::default();
    let chunk = |index, last, id| {
        let instances = vec![instance(id, 1)];
        Event::Snapshot(SnapshotChunk { instances, index, last, ..Default::default() })
    };
    assert_eq!(view.apply(&answer("s", 5, true, chunk(0, false, "lost"))), Ok(vec![]));
    assert_eq!(view.apply(&answer("s", 5, true, chunk(0, false, "a"))), Ok(vec![]));
    assert!(view.instances().is_empty());
    view.apply(&answer("s", 5, true, chunk(1, true, "b"))).expect("it applies");
    assert_eq!(ids(&view), ["a", "b"], "a first chunk discards an unfinished snapshot");
}

#[test]
fn a_delta_removes_with_its_reason_and_adds() {
    let mut view = view_of(&[instance("a", 1), instance("b", 2)]);
    let changes = view.apply(&answer("s", 6, true, delta(5, &[instance("c", 3)], &[expired("a", 1)])));
    let left = Change::Left { instance: instance("a", 1), reason: RemovalReason::Expired };
    assert_eq!(changes, Ok(vec![left, Change::Joined(instance("c", 3))]));
    assert_eq!(ids(&view), ["b", "c"]);
}

#[test]
fn a_removal_of_an_older_incarnation_removes_nothing() {
    let mut view = view_of(&[instance("a", 2)]);
    assert_eq!(view.apply(&answer("s", 6, true, delta(5, &[], &[expired("a", 1)]))), Ok(vec![]));
    assert_eq!(ids(&view), ["a"]);
}

#[test]
fn a_delta_on_something_unseen_is_a_gap() {
    let mut view = view_of(&[]);
    assert_eq!(view.apply(&answer("s", 9, true, delta(8, &[], &[]))), Err(ViewError::Gap { base: 8, held: 5 }));
    assert!(
        view.apply(&answer("other", 9, true, delta(5, &[], &[]))).is_err(),
        "revisions of two stores are not compared"
    );
}

#[test]
fn an_older_position_of_the_same_store_is_ignored() {
    let mut view = view_of(&[instance("a", 1)]);
    assert_eq!(view.apply(&answer("s", 4, true, snapshot(&[], &[]))), Ok(vec![]));
    assert_eq!(ids(&view), ["a"]);
}

#[test]
fn an_incomplete_registry_adds_and_removes_only_by_name() {
    let mut view = view_of(&[instance("a", 1), instance("b", 2)]);
    view.apply(&answer("new", 1, false, snapshot(&[instance("c", 1)], &[expired("b", 2)]))).expect("it applies");
    assert_eq!(ids(&view), ["a", "c"]);
    view.apply(&answer("new", 2, true, snapshot(&[instance("c", 1)], &[]))).expect("it applies");
    assert_eq!(ids(&view), ["c"], "a complete one is believed");
}

#[test]
fn soft_state_replaces_the_last_one() {
    let mut view = view_of(&[instance("a", 1), instance("b", 2)]);
    let suspect = |id: &str| InstanceLiveness {
        instance_id: id.to_owned(),
        liveness: Liveness::Suspect.into(),
        ..Default::default()
    };
    let hold = RemovalHold { reason: RemovalHoldReason::Rate.into(), ..Default::default() };
    let soft = SoftState { instances: vec![suspect("a")], removal_hold: Some(hold) };
    let changes = view.apply(&answer("s", 5, true, Event::SoftState(soft)));
    let late = Change::Liveness { instance: instance("a", 1), now: Liveness::Suspect };
    assert_eq!(changes, Ok(vec![late, Change::Hold(Some(hold))]));

    let changes = view.apply(&answer("s", 5, true, Event::SoftState(SoftState::default())));
    let back = Change::Liveness { instance: instance("a", 1), now: Liveness::Alive };
    assert_eq!(changes, Ok(vec![back, Change::Hold(None)]));
}

#[test]
fn a_registration_after_a_registry_restart_is_no_change() {
    let mut view = view_of(&[instance("a", 7)]);
    assert_eq!(view.apply(&answer("new", 1, false, snapshot(&[instance("a", 1)], &[]))), Ok(vec![]));
}

#[test]
fn what_a_former_store_knew_goes_when_the_new_one_is_complete() {
    let mut view = view_of(&[instance("a", 1), instance("b", 2)]);
    view.apply(&answer("new", 1, false, snapshot(&[], &[]))).expect("it applies");
    view.apply(&answer("new", 2, false, delta(1, &[instance("a", 1)], &[]))).expect("it applies");
    assert_eq!(ids(&view), ["a", "b"]);
    view.apply(&answer("new", 2, true, Event::Bookmark(Default::default()))).expect("it applies");
    assert_eq!(ids(&view), ["a"]);
}
