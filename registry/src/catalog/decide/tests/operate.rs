use std::time::Duration;

use crate::catalog::kit::{World, asks, id, in_zone, nonce, service};
use crate::catalog::{
    AdminState, Answer, CatalogError, Command, Invalid, Limits, Presence, Register, Selector, Version, Zone,
};

const HOUR: Duration = Duration::from_secs(3_600);

fn zone(name: &str) -> Selector {
    Selector::Zone(Zone::parse(name).unwrap())
}

fn version(name: &str) -> Selector {
    Selector::Version(Version::parse(name).unwrap())
}

fn delete(world: &mut World) -> Result<Answer, CatalogError> {
    world.command(&Command::DeleteService { service: service("user-svc") })
}

fn admin(world: &World, instance: u128) -> AdminState {
    world.instance(instance).unwrap().admin()
}

/// Instance 1 in zone a, instance 2 in zone b, both of version 1.
fn two_zones() -> World {
    let mut world = World::new();
    world.register(Register { spec: in_zone("a", "1"), ..asks(1) }).unwrap();
    world.register(Register { spec: in_zone("b", "1"), ..asks(2) }).unwrap();
    world
}

#[test]
fn a_rule_means_what_its_selector_names() {
    for (selector, meant) in [
        (Selector::Instance(id(1)), [true, false]),
        (zone("b"), [false, true]),
        (version("1"), [true, true]),
        (version("2"), [false, false]),
    ] {
        let mut world = two_zones();
        let selected = world.rule(selector, AdminState::Draining, None).unwrap();
        assert_eq!(selected, meant.iter().filter(|meant| **meant).count());
        for (instance, meant) in [1, 2].into_iter().zip(meant) {
            assert_eq!(admin(&world, instance) == AdminState::Draining, meant);
        }
    }
}

#[test]
fn of_several_rules_the_strictest_holds() {
    let mut world = two_zones();
    world.rule(version("1"), AdminState::Disabled, None).unwrap();
    world.rule(zone("a"), AdminState::Draining, None).unwrap();
    assert_eq!(admin(&world, 1), AdminState::Disabled);
    world.rule(version("1"), AdminState::Enabled, None).unwrap();
    assert_eq!(admin(&world, 1), AdminState::Draining);
    assert_eq!(admin(&world, 2), AdminState::Enabled);
}

#[test]
fn a_rule_is_a_change_of_the_instances_it_means_alone() {
    let mut world = two_zones();
    world.rule(zone("a"), AdminState::Draining, None).unwrap();
    let [change] = &world.changes[..] else { panic!("one service changes") };
    assert_eq!(change.upserts.iter().map(|instance| instance.id()).collect::<Vec<_>>(), [id(1)]);
    assert_eq!(change.upserts[0].revision().get(), world.revision());
}

#[test]
fn a_rule_survives_re_registration_and_means_those_that_come_later() {
    let mut world = two_zones();
    world.rule(Selector::Instance(id(1)), AdminState::Draining, None).unwrap();
    world.register(Register { nonce: nonce(2), ..asks(1) }).unwrap();
    assert_eq!(admin(&world, 1), AdminState::Draining);

    world.rule(zone("c"), AdminState::Disabled, None).unwrap();
    world.register(Register { spec: in_zone("c", "1"), ..asks(3) }).unwrap();
    assert_eq!(admin(&world, 3), AdminState::Disabled);
}

#[test]
fn a_rule_ends_when_it_says() {
    let mut world = two_zones();
    world.rule(zone("a"), AdminState::Draining, Some(HOUR)).unwrap();
    assert_eq!(world.state.next_end(), Some(world.now.after(HOUR)));
    world.wait(HOUR - Duration::from_secs(1));
    world.housekeeping();
    assert_eq!(admin(&world, 1), AdminState::Draining);
    world.wait(Duration::from_secs(1));
    world.housekeeping();
    assert_eq!(admin(&world, 1), AdminState::Enabled);
    assert_eq!(world.state.next_end(), None);
}

#[test]
fn a_rule_set_anew_has_a_new_end() {
    let mut world = two_zones();
    world.rule(zone("a"), AdminState::Draining, Some(HOUR)).unwrap();
    world.wait(HOUR / 2);
    world.rule(zone("a"), AdminState::Draining, Some(HOUR)).unwrap();
    world.wait(HOUR / 2);
    world.housekeeping();
    assert_eq!(admin(&world, 1), AdminState::Draining);
    world.rule(zone("a"), AdminState::Draining, None).unwrap();
    assert_eq!(world.state.next_end(), None);
}

#[test]
fn a_rule_s_life_is_a_second_to_thirty_days() {
    let mut world = two_zones();
    for asked in [Duration::from_millis(999), 31 * 24 * HOUR] {
        let refused = world.rule(zone("a"), AdminState::Draining, Some(asked));
        assert_eq!(refused, Err(CatalogError::Invalid(Invalid::ExpiryOutOfRange { asked })));
    }
}

#[test]
fn a_rule_for_an_unknown_service_is_refused() {
    let refused = World::new().rule(zone("a"), AdminState::Draining, None);
    assert_eq!(refused, Err(CatalogError::UnknownService { service: service("user-svc") }));
}

#[test]
fn the_number_of_rules_is_bounded() {
    let mut world = two_zones();
    world.limits = Limits { rules_per_service: 1, ..Limits::default() };
    world.rule(zone("a"), AdminState::Draining, None).unwrap();
    let full = CatalogError::TooManyRules { service: service("user-svc"), max: 1 };
    assert_eq!(world.rule(zone("b"), AdminState::Draining, None), Err(full));
    assert!(world.rule(zone("a"), AdminState::Disabled, None).is_ok(), "a rule that is there may change");
    assert_eq!(world.rule(zone("b"), AdminState::Enabled, None), Ok(1), "and one that is not may be taken back");
}

#[test]
fn a_service_with_live_instances_is_not_deleted() {
    let mut world = two_zones();
    assert_eq!(delete(&mut world), Err(CatalogError::ServiceInUse { service: service("user-svc"), instances: 2 }));
}

#[test]
fn a_deleted_service_is_unknown_and_its_rules_are_gone() {
    let mut world = World::new();
    let grant = world.register(asks(1)).unwrap();
    world.rule(Selector::Instance(id(2)), AdminState::Disabled, None).unwrap();
    world.deregister(grant).unwrap();
    delete(&mut world).unwrap();
    assert_eq!(world.presence("user-svc"), Presence::Unknown);
    assert_eq!(world.changes[0].presence, Presence::Unknown);
    assert_eq!(world.state.known(), 0);

    world.register(asks(2)).unwrap();
    assert_eq!(admin(&world, 2), AdminState::Enabled);
    assert!(delete(&mut World::new()).is_ok(), "an unknown one is fine");
}
