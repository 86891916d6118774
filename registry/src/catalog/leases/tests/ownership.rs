use std::collections::BTreeMap;

use super::*;
use crate::catalog::kit::{identity, node};
use crate::catalog::{Command, InstanceHealth, InstanceId, Keeper, RemovalHoldReason};

const HERE: u128 = 1;
const THERE: u128 = 2;

/// A ward of node 1 with so many instances of its own, ids from 1 on, and so many of node 2, ids from 101 on.
fn shared(here: u128, there: u128) -> (Ward, Vec<Grant>, Vec<Grant>) {
    let mut ward = Ward::new();
    ward.leases = Leases::of_node(Some(node(HERE)), HOUR);
    let mut start = |on: u128, ids: std::ops::RangeInclusive<u128>| {
        ward.world.node = Some(node(on));
        ids.map(|instance| ward.register(asks(instance))).collect::<Vec<_>>()
    };
    let (ours, theirs) = (start(HERE, 1..=here), start(THERE, 101..=100 + there));
    ward.world.node = Some(node(HERE));
    (ward, ours, theirs)
}

impl Ward {
    /// A node claims an instance, as the store tells it.
    fn claimed_by(&mut self, by: u128, instance: u128, grant: Grant) {
        self.world.node = Some(node(by));
        self.world.command(&Command::Claim { identity: identity(instance), lease: grant.lease }).unwrap();
        self.world.node = Some(node(HERE));
        self.follow();
    }

    /// The other node says that these are so.
    fn told(&mut self, liveness: Liveness, grants: &[(u128, Grant)]) {
        let health = |grant: &Grant| InstanceHealth { incarnation: grant.incarnation, liveness, load: None };
        let told: BTreeMap<InstanceId, InstanceHealth> =
            grants.iter().map(|(instance, grant)| (id(*instance), health(grant))).collect();
        self.leases.told(node(THERE), &service("user-svc"), &told, self.world.now);
    }

    fn keeper(&mut self, grant: Grant) -> Option<Keeper> {
        let now = self.world.now;
        self.leases.renew(grant.lease, grant.incarnation, None, None, now).map(|renewal| renewal.keeper)
    }
}

fn there() -> Option<Keeper> {
    Some(Keeper::Elsewhere(Some(node(THERE))))
}

#[test]
fn a_beat_here_renews_what_is_kept_here_and_names_the_keeper_of_what_is_not() {
    let (mut ward, ours, theirs) = shared(1, 1);
    assert_eq!(ward.keeper(ours[0]), Some(Keeper::Here));
    assert_eq!(ward.keeper(theirs[0]), there());
}

#[test]
fn nothing_follows_here_from_the_silence_of_what_is_kept_elsewhere() {
    let (mut ward, ours, _) = shared(1, 3);
    ward.wait_beating(10 * MINUTE, &ours);
    assert_eq!((ward.gone.len(), ward.count(Liveness::Alive), ward.soft().instances.len()), (0, 0, 0));
}

#[test]
fn its_keeper_tells_how_a_lease_stands_until_it_says_nothing_any_more() {
    let (mut ward, _, theirs) = shared(1, 2);
    ward.told(Liveness::Suspect, &[(101, theirs[0])]);
    assert_eq!((ward.liveness(101), ward.liveness(102)), (Some(Liveness::Suspect), Some(Liveness::Alive)));
    assert_eq!(ward.leases.take_changed().len(), 1);
    ward.told(Liveness::Stale, &[(102, theirs[1])]);
    assert_eq!((ward.liveness(101), ward.liveness(102)), (Some(Liveness::Alive), Some(Liveness::Stale)));
    ward.leases.untold(node(THERE), ward.now());
    assert_eq!(ward.liveness(102), Some(Liveness::Alive));
}

#[test]
fn of_leases_that_are_another_s_a_node_is_not_believed() {
    let (mut ward, ours, _) = shared(1, 1);
    ward.told(Liveness::Stale, &[(1, ours[0])]);
    assert_eq!(ward.liveness(1), Some(Liveness::Alive));
    let mut stale = asks(101);
    stale.nonce = crate::catalog::kit::nonce(9);
    let (old, _) = (ward.world.instance(101).unwrap().incarnation(), ward.register(stale));
    assert_ne!(ward.world.instance(101).unwrap().incarnation(), old);
}

#[test]
fn peers_are_told_of_what_is_kept_here_alone() {
    let (mut ward, _, theirs) = shared(1, 1);
    ward.told(Liveness::Stale, &[(101, theirs[0])]);
    ward.wait(9 * SECOND);
    let told = ward.leases.kept_health(&service("user-svc"));
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), [id(1)]);
}

#[test]
fn a_lease_that_is_taken_over_gets_a_full_ttl() {
    let (mut ward, ours, theirs) = shared(1, 1);
    ward.wait_beating(30 * SECOND, &ours);
    ward.told(Liveness::Stale, &[(101, theirs[0])]);
    ward.claimed_by(HERE, 101, theirs[0]);
    assert_eq!(ward.liveness(101), Some(Liveness::Alive));
    ward.wait_beating(9 * SECOND, &ours);
    assert_eq!(ward.gone, []);
    ward.wait_beating(3 * SECOND, &ours);
    assert_eq!(ward.gone, [101], "whoever keeps a lease ends it too");
}

#[test]
fn a_lease_that_is_handed_over_does_not_end_here() {
    let (mut ward, ours, _) = shared(2, 0);
    ward.store_refuses = true;
    ward.wait_beating(11 * SECOND, &ours[1..]);
    assert_eq!(ward.liveness(1), Some(Liveness::Stale));
    ward.claimed_by(THERE, 1, ours[0]);
    assert_eq!((ward.liveness(1), ward.keeper(ours[0])), (Some(Liveness::Alive), there()));
    ward.store_refuses = false;
    ward.wait_beating(MINUTE, &ours[1..]);
    assert_eq!(ward.gone, []);
}

#[test]
fn a_stream_that_breaks_suspects_nobody_who_has_moved() {
    let (mut ward, ours, _) = shared(1, 0);
    let stream = StreamId::new(7);
    ward.beat_on(ours[0], stream);
    ward.claimed_by(THERE, 1, ours[0]);
    ward.leases.stream_broke(stream, ward.now());
    ward.wait(SECOND);
    assert_eq!(ward.liveness(1), Some(Liveness::Alive));
}

#[test]
fn the_silent_of_all_nodes_make_a_majority() {
    let (mut ward, ours, theirs) = shared(4, 6);
    // Two of four here alone would be no majority of ten.
    let silent: Vec<(u128, Grant)> = (101..).zip(theirs.iter().copied()).take(4).collect();
    ward.told(Liveness::Stale, &silent);
    ward.wait_beating(12 * SECOND, &ours[2..]);
    assert_eq!(ward.gone, []);
    assert_eq!(ward.hold().map(|hold| (hold.reason, hold.held)), Some((RemovalHoldReason::MajoritySilent, 2)));
    ward.told(Liveness::Stale, &[]);
    ward.wait_beating(12 * SECOND, &ours[2..]);
    assert_eq!(ward.gone, [], "a fifth is silent, and that is more than 15 %");
}

#[test]
fn one_of_ten_goes_though_it_is_the_only_one_kept_here() {
    let (mut ward, _, _) = shared(1, 9);
    ward.wait(11 * SECOND);
    assert_eq!(ward.gone, [1], "it is not the last of its service");
}

#[test]
fn removals_by_another_node_count_against_the_window() {
    let (mut ward, ours, theirs) = shared(10, 10);
    ward.wait_beating(9 * SECOND, &ours[3..]);
    for (instance, grant) in (101..=103).zip(&theirs) {
        ward.world.node = Some(node(THERE));
        ward.world.expire(instance, *grant);
        ward.follow();
    }
    ward.world.node = Some(node(HERE));
    ward.wait_beating(3 * SECOND, &ours[3..]);
    assert_eq!(ward.gone, [], "15 % of twenty have gone over there");
    assert_eq!(ward.hold().map(|hold| hold.reason), Some(RemovalHoldReason::Rate));
    ward.wait_beating(9 * SECOND, &ours[3..]);
    assert_eq!(ward.gone, [1, 2, 3]);
}

#[test]
fn a_registry_that_was_late_says_nothing_of_what_is_kept_elsewhere() {
    let (mut ward, _, theirs) = shared(1, 1);
    ward.told(Liveness::Stale, &[(101, theirs[0])]);
    ward.leases.extend_all(ward.now());
    assert_eq!(ward.liveness(101), Some(Liveness::Stale), "its keeper says so");
    assert_eq!(ward.keeper(theirs[0]), there());
}

#[test]
fn what_one_keeper_said_is_worth_nothing_when_another_keeps_the_lease() {
    let (mut ward, _, theirs) = shared(1, 1);
    ward.told(Liveness::Suspect, &[(101, theirs[0])]);
    ward.claimed_by(3, 101, theirs[0]);
    assert_eq!(ward.liveness(101), Some(Liveness::Alive));
    ward.told(Liveness::Alive, &[]);
    assert_eq!(ward.liveness(101), Some(Liveness::Alive));
}

#[test]
fn a_keeper_may_speak_before_the_store_tells_that_it_keeps_the_lease() {
    let (mut ward, ours, _) = shared(1, 1);
    ward.told(Liveness::Suspect, &[(1, ours[0])]);
    assert_eq!(ward.liveness(1), Some(Liveness::Alive));
    ward.claimed_by(THERE, 1, ours[0]);
    assert_eq!(ward.liveness(1), Some(Liveness::Suspect));
    ward.leases.untold(node(THERE), ward.now());
    assert_eq!(ward.liveness(1), Some(Liveness::Alive));
}
