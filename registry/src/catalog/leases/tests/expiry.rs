use super::*;
use crate::catalog::RemovalHoldReason;

#[test]
fn a_dead_instance_of_several_goes_at_its_deadline() {
    let (mut ward, grants) = Ward::of(3);
    ward.wait_beating(9 * SECOND, &grants[1..]);
    assert_eq!(ward.gone, [] as [u128; 0]);
    ward.wait(SECOND);
    assert_eq!(ward.gone, [1]);
    assert_eq!(ward.hold(), None);
}

#[test]
fn one_service_does_not_hold_back_another() {
    let (mut ward, _) = Ward::of(10);
    let orders = |instance| Register { service: service("order-svc"), ..asks(instance) };
    let alive = ward.register(orders(11));
    ward.register(orders(12));
    ward.wait_beating(12 * SECOND, &[alive]);
    assert!(ward.gone.contains(&12));
    assert!(ward.hold().is_some());
}

#[test]
fn silence_removes_fifteen_percent_a_window_the_longest_silent_first() {
    let (mut ward, mut grants) = Ward::of(20);
    let alive = grants.split_off(8);
    // The higher the number, the longer silent.
    ward.wait(SECOND);
    for instance in (0..8).rev() {
        ward.wait(Duration::from_millis(100));
        assert!(ward.beat(grants[instance]));
    }
    for grant in &alive {
        assert!(ward.beat(*grant));
    }
    ward.wait_beating(11 * SECOND, &alive);
    assert_eq!(ward.gone, [8, 7, 6]);
    let hold = ward.hold().unwrap();
    assert_eq!((hold.reason, hold.held), (RemovalHoldReason::Rate, 5));
    let ends = hold.until.since(ward.now());
    ward.wait_beating(ends, &alive);
    assert_eq!(ward.gone, [8, 7, 6, 5, 4, 3], "15 % of 17, rounded up");
}

#[test]
fn the_last_instance_is_kept_for_an_hour() {
    let (mut ward, _) = Ward::of(1);
    ward.wait(10 * SECOND);
    let hold = ward.hold().unwrap();
    assert_eq!((hold.reason, hold.held, hold.until), (RemovalHoldReason::LastInstance, 1, ward.now().after(HOUR)));
    ward.wait(HOUR - SECOND);
    assert_eq!(ward.liveness(1), Some(Liveness::Stale));
    ward.wait(SECOND);
    assert_eq!(ward.gone, [1]);
}

#[test]
fn of_two_silent_instances_one_goes_and_one_is_the_last() {
    let (mut ward, _) = Ward::of(2);
    ward.wait(10 * SECOND);
    assert_eq!(ward.gone, [1]);
    assert_eq!(ward.hold().unwrap().reason, RemovalHoldReason::LastInstance);
}

#[test]
fn a_newcomer_ends_the_last_one_s_hold() {
    let (mut ward, _) = Ward::of(1);
    ward.wait(20 * SECOND);
    let newcomer = ward.register(asks(2));
    ward.wait_beating(SECOND, &[newcomer]);
    assert_eq!(ward.gone, [1]);
    assert_eq!(ward.hold(), None);
}

#[test]
fn a_silent_majority_is_kept_for_ten_minutes() {
    let (mut ward, mut grants) = Ward::of(10);
    let alive = grants.split_off(6);
    ward.wait_beating(11 * SECOND, &alive);
    let hold = ward.hold().unwrap();
    assert_eq!((hold.reason, hold.held), (RemovalHoldReason::MajoritySilent, 6));
    let remaining = hold.until.since(ward.now());
    assert_eq!(remaining, 10 * MINUTE - SECOND);
    ward.wait_beating(remaining - SECOND, &alive);
    assert_eq!(ward.gone.len(), 0);
    ward.wait_beating(SECOND, &alive);
    assert_eq!(ward.gone.len(), 2, "and then 15 % a window");
    ward.wait_beating(MINUTE, &alive);
    assert_eq!(ward.gone.len(), 6);
    assert_eq!(ward.hold(), None);
}

#[test]
fn a_silent_majority_that_comes_back_loses_nobody() {
    let (mut ward, grants) = Ward::of(10);
    ward.wait(5 * MINUTE);
    assert_eq!(ward.count(Liveness::Stale), 10);
    ward.wait_beating(MINUTE, &grants);
    assert_eq!(ward.gone.len(), 0);
    assert_eq!(ward.hold(), None);
    assert_eq!(ward.count(Liveness::Stale), 0);
}

#[test]
fn a_majority_that_falls_silent_after_a_quiet_time_is_held_again() {
    let (mut ward, mut grants) = Ward::of(10);
    let alive = grants.split_off(6);
    ward.wait_beating(11 * MINUTE, &alive);
    assert_eq!(ward.gone.len(), 6);
    ward.wait(MINUTE);
    assert_eq!(ward.gone.len(), 6);
    assert_eq!(ward.hold().unwrap().reason, RemovalHoldReason::MajoritySilent);
}

#[test]
fn a_held_majority_is_let_go_of_when_few_are_left() {
    let (mut ward, mut grants) = Ward::of(10);
    ward.wait(12 * SECOND);
    let dead = grants.remove(0);
    ward.wait_beating(SECOND, &grants);
    ward.wait(Duration::ZERO);
    assert_eq!(ward.gone, [1], "one of ten is no fault of everybody's");
    assert!(!ward.beat(dead));
}

#[test]
fn goodbye_is_free_while_removals_are_held() {
    let (mut ward, grants) = Ward::of(10);
    ward.wait(12 * SECOND);
    for grant in &grants[1..] {
        ward.deregister(*grant);
    }
    assert_eq!(ward.world.state.live(), 1);
    assert_eq!(ward.gone.len(), 0);
}

#[test]
fn draining_instances_do_not_count_and_are_not_held() {
    let (mut ward, mut grants) = Ward::of(10);
    for instance in 1..=6 {
        ward.restrain(instance, AdminState::Draining);
    }
    let alive = grants.split_off(7);
    ward.wait_beating(12 * SECOND, &alive);
    assert_eq!(ward.gone.len(), 7, "six that drained, and one of four by its share");
    assert_eq!(ward.hold(), None);
}

#[test]
fn the_last_one_that_does_not_drain_is_kept() {
    let (mut ward, grants) = Ward::of(2);
    ward.restrain(2, AdminState::Draining);
    ward.wait_beating(12 * SECOND, &grants[1..]);
    assert_eq!(ward.gone, [] as [u128; 0]);
    assert_eq!(ward.hold().unwrap().reason, RemovalHoldReason::LastInstance);
}

#[test]
fn a_held_instance_that_is_told_to_drain_goes() {
    let (mut ward, _) = Ward::of(1);
    ward.wait(12 * SECOND);
    ward.restrain(1, AdminState::Draining);
    ward.wait(Duration::ZERO);
    assert_eq!(ward.gone, [1]);
}

#[test]
fn the_last_one_s_hold_ends_when_a_draining_sibling_is_enabled_again() {
    let (mut ward, grants) = Ward::of(2);
    ward.restrain(2, AdminState::Draining);
    ward.wait_beating(12 * SECOND, &grants[1..]);
    assert_eq!(ward.hold().unwrap().reason, RemovalHoldReason::LastInstance);
    ward.restrain(2, AdminState::Enabled);
    ward.wait_beating(SECOND, &grants[1..]);
    assert_eq!(ward.gone, [1]);
    assert_eq!(ward.hold(), None);
}

#[test]
fn a_removal_that_could_not_be_written_uses_no_share() {
    let (mut ward, grants) = Ward::of(7);
    ward.store_refuses = true;
    ward.wait_beating(12 * SECOND, &grants[2..]);
    ward.store_refuses = false;
    ward.wait_beating(3 * SECOND, &grants[2..]);
    assert_eq!(ward.gone, [1, 2], "15 % of seven is two");
}

#[test]
fn renewals_leave_one_deadline_each() {
    let (mut ward, grants) = Ward::of(5);
    ward.wait_beating(10 * MINUTE, &grants);
    assert_eq!(ward.gone.len(), 0);
    assert_eq!(ward.leases.reviews.len(), 5);
    for grant in grants {
        ward.deregister(grant);
    }
    assert_eq!(ward.leases.next_deadline(), None);
    assert!(ward.leases.is_empty());
}
