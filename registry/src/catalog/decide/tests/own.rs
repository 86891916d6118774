use std::time::Duration;

use crate::catalog::kit::{Grant, World, asks, id, identity, in_zone, node, service};
use crate::catalog::{
    AdminState, Answer, Command, Committed, Expected, Key, NodeId, OpId, Orphan, Overlay, Proposal, Register, Revision,
    Selector, ServingStatus, decide,
};

fn world_of(number: u128) -> World {
    let mut world = World::new();
    world.node = Some(node(number));
    world
}

fn owner(world: &World, instance: u128) -> Option<NodeId> {
    world.instance(instance).unwrap().registration.owner
}

fn claim(instance: u128, grant: Grant) -> Command {
    Command::Claim { identity: identity(instance), lease: grant.lease }
}

fn orphan(instance: u128, grant: Grant, of: Option<NodeId>) -> Orphan {
    Orphan { identity: identity(instance), lease: grant.lease, of }
}

/// What this node would propose now.
fn proposes(world: &mut World, as_node: u128, command: &Command) -> Option<Proposal> {
    world.node = Some(node(as_node));
    let context = world.context();
    decide(&Overlay::new(&world.state), command, context).unwrap().proposal
}

#[test]
fn a_registration_is_its_node_s_until_another_node_claims_it() {
    let mut world = world_of(1);
    let grant = world.register(asks(1)).unwrap();
    assert_eq!(owner(&world, 1), Some(node(1)));
    world.node = Some(node(2));
    assert_eq!(world.command(&claim(1, grant)), Ok(Answer::Done));
    assert_eq!(owner(&world, 1), Some(node(2)));
    assert!(proposes(&mut world, 2, &claim(1, grant)).is_none(), "it is this node's already");
}

#[test]
fn registering_again_with_another_node_moves_it_there_and_keeps_its_lease() {
    let mut world = world_of(1);
    let grant = world.register(asks(1)).unwrap();
    world.node = Some(node(2));
    assert_eq!(world.register(asks(1)), Ok(grant));
    assert_eq!(owner(&world, 1), Some(node(2)));
    assert!(world.changes.iter().all(|change| change.silent));
}

#[test]
fn a_lease_that_is_no_longer_the_current_one_claims_nothing() {
    let mut world = world_of(1);
    let old = world.register(asks(1)).unwrap();
    world.expire(1, old);
    let again = world.register(asks(1)).unwrap();
    assert!(proposes(&mut world, 2, &claim(1, old)).is_none());
    assert!(proposes(&mut world, 2, &claim(1, again)).is_some());
    assert!(proposes(&mut world, 2, &claim(7, old)).is_none(), "nobody has that id");
}

#[test]
fn readers_are_not_told_of_a_new_owner_and_the_leases_are() {
    let mut world = world_of(1);
    let grant = world.register(asks(1)).unwrap();
    let (before, revision) = (world.state.view(&service("user-svc")), world.instance(1).unwrap().revision());
    world.node = Some(node(2));
    world.command(&claim(1, grant)).unwrap();
    let [change] = &world.changes[..] else { panic!("one service was touched: {:?}", world.changes) };
    assert!(change.silent && change.upserts.is_empty() && change.gone.is_empty());
    assert_eq!(change.owned.iter().map(|instance| instance.id()).collect::<Vec<_>>(), [id(1)]);
    assert_eq!(world.instance(1).unwrap().revision(), revision);
    assert_eq!(before.presence(), world.state.view(&service("user-svc")).presence());
}

#[test]
fn what_operators_and_the_instance_say_outlives_a_new_owner() {
    let mut world = world_of(1);
    let grant = world.register(asks(1)).unwrap();
    world.rule(Selector::Instance(id(1)), AdminState::Draining, None).unwrap();
    world.report(1, grant, ServingStatus::NotServing);
    world.node = Some(node(2));
    world.command(&claim(1, grant)).unwrap();
    let instance = world.instance(1).unwrap();
    assert_eq!((instance.admin(), instance.serving()), (AdminState::Draining, ServingStatus::NotServing));
    world.report(1, grant, ServingStatus::Serving);
    assert_eq!(owner(&world, 1), Some(node(2)), "a status has no say in who owns it");
}

#[test]
fn a_changed_registration_is_told_though_its_owner_changes_too() {
    let mut world = world_of(1);
    world.register(asks(1)).unwrap();
    world.node = Some(node(2));
    world.register(Register { spec: in_zone("eu-1b", "2"), ..asks(1) }).unwrap();
    assert!(!world.changes[0].silent);
    assert_eq!(world.changes[0].upserts.len(), 1);
}

#[test]
fn only_its_owner_lets_an_instance_expire() {
    let mut world = world_of(1);
    let grant = world.register(asks(1)).unwrap();
    world.node = Some(node(2));
    world.expire(1, grant);
    assert!(world.instance(1).is_some());
    world.node = Some(node(1));
    world.expire(1, grant);
    assert!(world.instance(1).is_none());
}

#[test]
fn the_only_node_of_a_store_may_expire_what_an_earlier_one_owned() {
    let mut world = world_of(1);
    let grant = world.register(asks(1)).unwrap();
    world.node = None;
    world.expire(1, grant);
    assert!(world.instance(1).is_none());
}

#[test]
fn an_adoption_takes_every_orphan_that_still_is_one() {
    let mut world = world_of(1);
    let grants: Vec<Grant> = (1..=4).map(|instance| world.register(asks(instance)).unwrap()).collect();
    let orphans = (1..=4).zip(&grants).map(|(number, grant)| orphan(number, *grant, Some(node(1)))).collect();
    world.node = Some(node(3));
    world.command(&claim(2, grants[1])).unwrap();
    world.deregister(grants[2]).unwrap();
    world.node = Some(node(2));
    assert_eq!(world.command(&Command::Adopt(orphans)), Ok(Answer::Done));
    let owners: Vec<_> = [1, 2, 4].map(|instance| owner(&world, instance)).into();
    assert_eq!(owners, [Some(node(2)), Some(node(3)), Some(node(2))]);
}

#[test]
fn an_adoption_of_nobody_proposes_nothing() {
    let mut world = world_of(1);
    let grant = world.register(asks(1)).unwrap();
    let was_of_another = Command::Adopt(vec![orphan(1, grant, Some(node(9)))]);
    assert!(proposes(&mut world, 2, &was_of_another).is_none());
}

/// Two nodes may decide to adopt, to claim and to expire on the same state; whoever commits second has to find out.
#[test]
fn what_moves_or_ends_an_ownership_rests_on_every_key_it_writes() {
    let mut world = world_of(1);
    let (one, two) = (world.register(asks(1)).unwrap(), world.register(asks(2)).unwrap());
    let adoption = Command::Adopt(vec![orphan(1, one, Some(node(1))), orphan(2, two, Some(node(1)))]);
    let expiry = Command::Expire { identity: identity(1), lease: one.lease };
    for (as_node, command) in [(2, adoption), (2, claim(1, one)), (1, expiry)] {
        let proposal = proposes(&mut world, as_node, &command).unwrap();
        for write in &proposal.writes {
            let Key::Identity(key) = write.key() else { continue };
            let revision = world.state.instance(&service("user-svc"), key.id).unwrap().revision();
            let expected = (write.key().clone(), Expected::At(revision));
            assert!(proposal.expected.contains(&expected), "{command:?} does not compare {key}");
        }
    }
}

#[test]
fn a_silent_change_still_moves_the_key_s_revision() {
    let mut world = world_of(1);
    let grant = world.register(asks(1)).unwrap();
    world.node = Some(node(2));
    world.command(&claim(1, grant)).unwrap();
    let claimed_at = world.state.position().revision;
    let proposal = proposes(&mut world, 3, &claim(1, grant)).unwrap();
    assert_eq!(proposal.expected, [(Key::Identity(identity(1)), Expected::At(claimed_at))]);
}

#[test]
fn a_store_that_tells_of_ownership_and_of_a_lease_that_ended_in_one_commit_tells_readers_once() {
    let mut world = world_of(1);
    let grant = world.register(asks(1)).unwrap();
    let claimed = proposes(&mut world, 2, &claim(1, grant)).unwrap();
    world.wait(Duration::from_secs(1));
    let removal = proposes(&mut world, 1, &Command::Expire { identity: identity(1), lease: grant.lease }).unwrap();
    let writes = claimed.writes.into_iter().chain(removal.writes).collect();
    let revision = Revision::new(world.revision() + 1);
    let changes = world.state.apply(&Committed { revision, op: OpId([7; 16]), writes });
    assert_eq!((changes.len(), changes[0].silent, changes[0].owned.len(), changes[0].gone.len()), (1, false, 0, 1));
}
