use std::time::Duration;

use crate::catalog::kit::{Grant, World, asks, id, in_zone, incarnation, nonce, service, store};
use crate::catalog::{CatalogError, Incarnation, Limits, Presence, Register, RemovalReason, ServingStatus, Ttl};

const TEN_MINUTES: Duration = Duration::from_secs(600);

fn held(grant: Grant) -> Option<(Incarnation, crate::catalog::StoreId)> {
    Some((grant.incarnation, store("memory-1")))
}

fn second_start(instance: u128) -> Register {
    Register { nonce: nonce(2), ..asks(instance) }
}

#[test]
fn the_same_start_keeps_incarnation_and_lease() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    let revision = world.revision();
    assert_eq!(world.register(asks(1)).unwrap(), first);
    assert_eq!(world.register(Register { held: held(first), ..asks(1) }).unwrap(), first);
    assert_eq!(world.revision(), revision, "nothing changed, so nothing is written");
}

#[test]
fn the_same_start_may_change_what_is_registered() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    let again = world.register(Register { spec: in_zone("eu-1b", "2"), ..asks(1) }).unwrap();
    assert_eq!(again, first);
    assert_eq!(world.instance(1).unwrap().spec().zone.as_str(), "eu-1b");
}

#[test]
fn a_new_start_that_holds_nothing_takes_the_id_over() {
    let mut world = World::new();
    let old = world.register(asks(1)).unwrap();
    let new = world.register(second_start(1)).unwrap();
    assert!(new.incarnation > old.incarnation);
    assert_ne!(new.lease, old.lease);
    assert!(world.state.is_fenced(old.lease));
    assert!(!world.state.is_fenced(new.lease));
}

#[test]
fn a_takeover_is_not_a_removal() {
    let mut world = World::new();
    world.register(asks(1)).unwrap();
    world.register(second_start(1)).unwrap();
    let [change] = &world.changes[..] else { panic!("one service changes") };
    assert!(change.gone.is_empty() && change.removals.is_empty());
    assert_eq!(change.upserts.len(), 1);
}

#[test]
fn a_restart_that_remembers_the_current_incarnation_takes_over_too() {
    let mut world = World::new();
    let old = world.register(asks(1)).unwrap();
    let new = world.register(Register { held: held(old), ..second_start(1) }).unwrap();
    assert!(new.incarnation > old.incarnation);
}

#[test]
fn a_fenced_start_cannot_register() {
    let mut world = World::new();
    let old = world.register(asks(1)).unwrap();
    let new = world.register(second_start(1)).unwrap();
    let fenced = Err(CatalogError::Fenced { by: new.incarnation });
    assert_eq!(world.register(Register { held: held(old), ..asks(1) }), fenced);
    assert_eq!(world.register(asks(1)), fenced, "its nonce is known, whatever it says it holds");
    let unheard_of = Register { nonce: nonce(3), held: held(old), ..asks(1) };
    assert_eq!(world.register(unheard_of), fenced, "an outdated incarnation is one of an older start");
}

#[test]
fn a_fenced_start_cannot_remove() {
    let mut world = World::new();
    let old = world.register(asks(1)).unwrap();
    let new = world.register(second_start(1)).unwrap();
    assert_eq!(world.deregister(old), Err(CatalogError::Fenced { by: new.incarnation }));
    world.expire(1, old);
    assert!(world.instance(1).is_some());
}

#[test]
fn a_fenced_start_cannot_report() {
    let mut world = World::new();
    let old = world.register(asks(1)).unwrap();
    world.register(second_start(1)).unwrap();
    world.report(1, old, ServingStatus::Draining);
    assert_eq!(world.instance(1).unwrap().serving(), ServingStatus::Serving);
}

#[test]
fn an_incarnation_of_another_store_counts_as_none() {
    let mut world = World::new();
    world.register(asks(1)).unwrap();
    world.register(second_start(1)).unwrap();
    let stranger = Register { nonce: nonce(3), held: Some((incarnation(1), store("memory-0"))), ..asks(1) };
    assert!(world.register(stranger).is_ok());
}

#[test]
fn a_start_that_expired_comes_back_with_a_higher_incarnation() {
    let mut world = World::new();
    let old = world.register(asks(1)).unwrap();
    world.expire(1, old);
    assert_eq!(world.instance(1), None);
    let new = world.register(Register { held: held(old), ..asks(1) }).unwrap();
    assert!(new.incarnation > old.incarnation);
    assert!(!world.state.is_fenced(old.lease), "its own late heartbeat must not make it give the id up");
}

#[test]
fn who_comes_back_after_another_start_expired_is_fenced() {
    let mut world = World::new();
    let old = world.register(asks(1)).unwrap();
    let new = world.register(second_start(1)).unwrap();
    world.expire(1, new);
    let fenced = Err(CatalogError::Fenced { by: new.incarnation });
    assert_eq!(world.register(Register { held: held(old), ..asks(1) }), fenced);
    assert!(world.register(second_start(1)).is_ok());
}

#[test]
fn a_start_that_said_goodbye_stays_away_for_ten_minutes() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    world.deregister(first).unwrap();
    world.wait(Duration::from_secs(1));
    let refused = Err(CatalogError::Departed { retry_in: TEN_MINUTES - Duration::from_secs(1) });
    assert_eq!(world.register(asks(1)), refused);
    world.wait(TEN_MINUTES);
    assert!(world.register(asks(1)).unwrap().incarnation > first.incarnation);
}

#[test]
fn deleting_the_service_does_not_let_a_departed_start_back_in() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    world.deregister(first).unwrap();
    world.command(&crate::catalog::Command::DeleteService { service: service("user-svc") }).unwrap();
    assert!(matches!(world.register(asks(1)), Err(CatalogError::Departed { .. })));
}

#[test]
fn another_start_may_follow_one_that_said_goodbye() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    world.deregister(first).unwrap();
    let second = world.register(second_start(1)).unwrap();
    assert!(second.incarnation > first.incarnation);
    assert!(matches!(world.register(asks(1)), Err(CatalogError::Fenced { .. })));
}

#[test]
fn an_operator_s_removal_does_not_keep_a_live_process_out() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    world.command(&crate::catalog::Command::Remove { service: service("user-svc"), id: id(1) }).unwrap();
    assert!(world.register(asks(1)).unwrap().incarnation > first.incarnation);
}

#[test]
fn a_newer_start_under_another_service_supersedes_the_old_one() {
    let mut world = World::new();
    let old = world.register(asks(1)).unwrap();
    world.register(Register { service: service("order-svc"), ..second_start(1) }).unwrap();
    let [orders, users] = &world.changes[..] else { panic!("two services change") };
    assert_eq!(orders.upserts.len(), 1);
    assert_eq!(users.gone.len(), 1);
    assert_eq!(users.gone[0].reason, RemovalReason::Superseded);
    assert_eq!(users.gone[0].incarnation, old.incarnation);
    assert!(users.removals.contains_key(&id(1)), "it still holds");
    assert!(matches!(users.presence, Presence::Empty(crate::catalog::Emptiness::Lapsed)));
}

#[test]
fn two_registrars_of_one_start_do_not_take_the_id_from_each_other_for_ever() {
    let mut world = World::new();
    let users = world.register(asks(1)).unwrap();
    let orders = Register { service: service("order-svc"), ..asks(1) };
    let moved = world.register(orders).unwrap();
    assert!(world.state.is_fenced(users.lease));
    let back = Register { held: held(users), ..asks(1) };
    assert_eq!(world.register(back), Err(CatalogError::Fenced { by: moved.incarnation }));
}

#[test]
fn one_id_in_two_namespaces_is_two_instances() {
    let mut world = World::new();
    world.register(asks(1)).unwrap();
    let elsewhere = crate::catalog::ServiceKey::parse("staging", "user-svc").unwrap();
    world.register(Register { service: elsewhere, ..second_start(1) }).unwrap();
    assert_eq!(world.state.live(), 2);
}

#[test]
fn incarnations_rise_past_a_forgotten_tombstone() {
    let mut world = World::new();
    let first = world.register(asks(1)).unwrap();
    world.expire(1, first);
    world.wait(TEN_MINUTES);
    world.housekeeping();
    assert_eq!(world.state.tombstones(), 0);
    assert!(world.register(asks(1)).unwrap().incarnation > first.incarnation);
}

#[test]
fn the_default_ttl_is_granted_to_who_asks_for_none() {
    let mut world = World::new();
    assert_eq!(world.register(asks(1)).unwrap().ttl, Ttl::DEFAULT);
    let asked = Ttl::new(Duration::from_secs(2)).unwrap();
    assert_eq!(world.register(Register { ttl: Some(asked), ..asks(2) }).unwrap().ttl, asked);
}

#[test]
fn a_full_service_takes_its_own_instances_back_but_no_more() {
    let mut world = World::new();
    world.limits = Limits { instances_per_service: 2, ..Limits::default() };
    world.register(asks(1)).unwrap();
    world.register(asks(2)).unwrap();
    let full = CatalogError::TooManyInstancesOfService { service: service("user-svc"), max: 2 };
    assert_eq!(world.register(asks(3)), Err(full));
    assert!(world.register(second_start(1)).is_ok());
}

#[test]
fn the_numbers_of_services_and_of_instances_are_bounded() {
    let mut world = World::new();
    world.limits = Limits { services: 1, instances: 2, ..Limits::default() };
    world.register(asks(1)).unwrap();
    let other = Register { service: service("order-svc"), ..asks(2) };
    assert_eq!(world.register(other), Err(CatalogError::TooManyServices { max: 1 }));
    world.register(asks(2)).unwrap();
    assert_eq!(world.register(asks(3)), Err(CatalogError::TooManyInstances { max: 2 }));
}
