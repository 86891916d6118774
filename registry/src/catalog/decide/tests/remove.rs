use std::time::Duration;

use crate::catalog::kit::{World, asks, id, identity, nonce, service};
use crate::catalog::{
    Answer, CatalogError, Command, Emptiness, Expected, Incarnation, Key, LeaseId, Limits, Overlay, Presence, Register,
    RemovalReason, ServingStatus, decide,
};

#[test]
fn goodbye_removes_at_once_and_a_second_one_is_fine() {
    let mut world = World::new();
    let grant = world.register(asks(1)).unwrap();
    assert_eq!(world.deregister(grant), Ok(Answer::Done));
    assert_eq!(world.changes[0].gone[0].reason, RemovalReason::Deregistered);
    assert_eq!(world.deregister(grant), Ok(Answer::Done));
    assert!(world.changes.is_empty());
}

#[test]
fn a_lease_nobody_granted_says_goodbye_in_vain() {
    let mut world = World::new();
    let grant = world.register(asks(1)).unwrap();
    let unknown = Command::Deregister { lease: LeaseId::new([9; 16]), incarnation: grant.incarnation };
    assert_eq!(world.command(&unknown), Ok(Answer::Done));
    assert!(world.instance(1).is_some());
}

#[test]
fn a_goodbye_under_another_incarnation_is_refused_and_removes_nobody() {
    let mut world = World::new();
    let grant = world.register(asks(1)).unwrap();
    let other = Incarnation::new(grant.incarnation.get() + 1).unwrap();
    let goodbye = Command::Deregister { lease: grant.lease, incarnation: other };
    assert_eq!(world.command(&goodbye), Err(CatalogError::Fenced { by: grant.incarnation }));
    assert!(world.instance(1).is_some());
}

#[test]
fn who_emptied_a_service_is_recorded() {
    for (reason, presence) in [
        (RemovalReason::Deregistered, Presence::Empty(Emptiness::Emptied)),
        (RemovalReason::Operator, Presence::Empty(Emptiness::Emptied)),
        (RemovalReason::Expired, Presence::Empty(Emptiness::Lapsed)),
    ] {
        let mut world = World::new();
        let grant = world.register(asks(1)).unwrap();
        match reason {
            RemovalReason::Deregistered => _ = world.deregister(grant).unwrap(),
            RemovalReason::Operator => {
                _ = world.command(&Command::Remove { service: service("user-svc"), id: id(1) }).unwrap();
            }
            _ => world.expire(1, grant),
        }
        assert_eq!(world.presence("user-svc"), presence, "{reason:?}");
    }
}

#[test]
fn the_last_removal_tells_how_a_service_was_emptied() {
    let mut world = World::new();
    let (first, second) = (world.register(asks(1)).unwrap(), world.register(asks(2)).unwrap());
    world.deregister(first).unwrap();
    assert_eq!(world.presence("user-svc"), Presence::Populated);
    world.expire(2, second);
    assert_eq!(world.presence("user-svc"), Presence::Empty(Emptiness::Lapsed));
}

#[test]
fn a_service_that_was_emptied_on_purpose_and_populated_again_lapses_like_any_other() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    world.deregister(first).unwrap();
    let second = world.register(asks(2)).unwrap();
    world.expire(2, second);
    assert_eq!(world.presence("user-svc"), Presence::Empty(Emptiness::Lapsed));
}

#[test]
fn a_removal_holds_for_ten_minutes() {
    let mut world = World::new();
    world.register(asks(1)).unwrap();
    let gone = world.register(asks(2)).unwrap();
    world.expire(2, gone);
    world.wait(Duration::from_secs(599));
    world.housekeeping();
    assert_eq!(world.state.view(&service("user-svc")).removals().len(), 1);
    world.wait(Duration::from_secs(1));
    world.housekeeping();
    assert!(world.state.view(&service("user-svc")).removals().is_empty());
    assert_eq!(world.state.next_end(), None);
}

#[test]
fn an_instance_that_is_back_is_no_removal_any_more() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    world.expire(1, first);
    world.register(asks(1)).unwrap();
    let view = world.state.view(&service("user-svc"));
    assert!(view.removals().is_empty());
    assert_eq!(view.instances().len(), 1);
}

#[test]
fn past_the_bound_a_removal_is_told_but_not_remembered() {
    let mut world = World::new();
    world.limits = Limits { tombstones_per_service: 1, ..Limits::default() };
    let (first, second) = (world.register(asks(1)).unwrap(), world.register(asks(2)).unwrap());
    world.expire(1, first);
    world.expire(2, second);
    assert_eq!(world.changes[0].gone.len(), 1);
    world.housekeeping();
    assert_eq!(world.state.tombstones(), 1);
}

#[test]
fn an_old_lease_running_out_removes_nobody() {
    let mut world = World::new();
    let old = world.register(asks(1)).unwrap();
    world.expire(1, old);
    world.register(asks(1)).unwrap();
    world.expire(1, old);
    assert!(world.instance(1).is_some());
}

#[test]
fn a_status_that_is_reported_is_written_once() {
    let mut world = World::new();
    let grant = world.register(asks(1)).unwrap();
    world.report(1, grant, ServingStatus::Draining);
    assert_eq!(world.changes[0].upserts[0].serving(), ServingStatus::Draining);
    world.report(1, grant, ServingStatus::Draining);
    assert!(world.changes.is_empty());
}

#[test]
fn commands_of_one_group_build_on_each_other() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    let state = world.state.clone();
    let mut overlay = Overlay::new(&state);

    let expire = Command::Expire { identity: identity(1), lease: first.lease };
    let removal = decide(&overlay, &expire, world.context()).unwrap().proposal.unwrap();
    overlay.add(&removal);
    let request = Register { nonce: nonce(1), ..asks(1) };
    let back = Command::Register { request, fresh: LeaseId::new([7; 16]) };
    let decision = decide(&overlay, &back, world.context()).unwrap();

    let proposal = decision.proposal.unwrap();
    assert!(proposal.expected.contains(&(Key::Identity(identity(1)), Expected::By(removal.op))));
    assert!(proposal.expected.contains(&(Key::Service(service("user-svc")), Expected::By(removal.op))));
    let Answer::Granted { incarnation, .. } = decision.answer else { panic!("{:?}", decision.answer) };
    assert!(incarnation > first.incarnation);
}

/// Which instances' records a removal rests on.
fn rests_on(world: &mut World, instance: u128, lease: LeaseId) -> Vec<u128> {
    let expire = Command::Expire { identity: identity(instance), lease };
    let context = world.context();
    let proposal = decide(&Overlay::new(&world.state), &expire, context).unwrap().proposal.unwrap();
    let reads = |number: &u128| proposal.expected.iter().any(|(key, _)| *key == Key::Identity(identity(*number)));
    (1..=10).filter(reads).collect()
}

#[test]
fn whoever_goes_by_silence_from_among_few_goes_only_while_the_others_are_as_they_were() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    assert_eq!(rests_on(&mut world, 1, first.lease), [1]);
    let second = world.register(asks(2)).unwrap();
    assert_eq!(rests_on(&mut world, 1, first.lease), [1, 2]);
    assert_eq!(rests_on(&mut world, 2, second.lease), [1, 2], "so that of two at once one conflicts");
    for instance in 3..=6 {
        world.register(asks(instance)).unwrap();
    }
    assert_eq!(rests_on(&mut world, 1, first.lease), [1, 2, 3, 4, 5, 6]);
    world.register(asks(7)).unwrap();
    assert_eq!(rests_on(&mut world, 1, first.lease), [1], "of so many the share is counted, not each one");
}

#[test]
fn draining_instances_are_not_among_those_that_count() {
    let mut world = World::new();
    let grants: Vec<_> = (1..=8).map(|instance| world.register(asks(instance)).unwrap()).collect();
    for (instance, grant) in (3..=8).zip(&grants[2..]) {
        world.report(instance, *grant, ServingStatus::Draining);
    }
    assert_eq!(rests_on(&mut world, 1, grants[0].lease), [1, 2]);
    assert_eq!(rests_on(&mut world, 3, grants[2].lease), [3]);
}
