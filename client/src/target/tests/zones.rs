//! Near endpoints before far ones, and some of many.

use std::collections::BTreeSet;

use super::*;
use crate::ConnectivityState::Ready;
use crate::resolver::{ResolvedEndpoint, Standing};
use crate::rig::{Manners, endpoint, eventually};

fn in_zone(port: u16, zone: &str) -> ResolvedEndpoint {
    ResolvedEndpoint { zone: zone.into(), ..endpoint(port) }
}

/// Two endpoints in the caller's zone and two in another one.
async fn two_zones() -> (Net, Vec<Server>, Rig) {
    let (net, servers, rig) = rig_of(4, |config| {
        in_turn(config);
        config.zone = "here".into();
    })
    .await;
    rig.resolve([in_zone(1, "here"), in_zone(2, "here"), in_zone(3, "there"), in_zone(4, "there")]);
    settled().await;
    (net, servers, rig)
}

#[tokio::test(start_paused = true)]
async fn calls_stay_in_the_own_zone_while_it_can_take_them() {
    let (_net, _servers, rig) = two_zones().await;
    assert_eq!(share_of(&rig, 1, 100).await + share_of(&rig, 2, 100).await, 100);
    assert_eq!((verdict(&rig, 1), verdict(&rig, 3)), (Verdict::Picked, Verdict::OtherZone { share: 0.0 }));
}

/// One of two is fit: 1.4 times a half stays.
#[tokio::test(start_paused = true)]
async fn calls_leave_the_own_zone_as_its_endpoints_do() {
    let (_net, mut servers, rig) = two_zones().await;
    drop(servers.remove(0));
    eventually(|| handle(&rig, 1).state() != Ready).await;
    let stay = share_of(&rig, 2, 1000).await;
    assert!((660..740).contains(&stay), "{stay}");
    drop(servers.remove(0));
    eventually(|| handle(&rig, 2).state() != Ready).await;
    assert_eq!(share_of(&rig, 3, 100).await, 50);
    assert_eq!(verdict(&rig, 3), Verdict::Picked);
}

#[tokio::test(start_paused = true)]
async fn calls_leave_the_own_zone_when_nobody_there_has_room() {
    let net = Net::default();
    let narrow = Manners { streams_max: Some(1) };
    let _servers = [Server::with_manners(&net, 1, narrow, ok), Server::start(&net, 2, ok)];
    let rig = Rig::with(&net, [1, 2], |config| config.zone = "here".into());
    rig.all(Ready).await;
    rig.resolve([in_zone(1, "here"), in_zone(2, "there")]);
    settled().await;
    let first = place(&rig);
    let second = place(&rig);
    assert_eq!((port(&first), port(&second)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn zones_make_no_difference_where_the_policy_or_the_caller_says_none() {
    let (_net, _servers, rig) = rig_of(2, in_turn).await;
    rig.resolve([in_zone(1, "here"), in_zone(2, "there")]);
    settled().await;
    assert_eq!(share_of(&rig, 2, 20).await, 10);

    let (_net, _servers, rig) = rig_of(2, |config| {
        in_turn(config);
        config.zone = "here".into();
        config.policy.zone_first = false;
    })
    .await;
    rig.resolve([in_zone(1, "here"), in_zone(2, "there")]);
    settled().await;
    assert_eq!(share_of(&rig, 2, 20).await, 10);
}

fn inside(rig: &Rig) -> BTreeSet<u16> {
    (1..=10).filter(|port| rig.handles().contains_key(port) && verdict(rig, *port) != Verdict::OutsideSubset).collect()
}

#[tokio::test(start_paused = true)]
async fn a_caller_connects_to_its_subset_and_one_that_leaves_it_is_replaced_by_one() {
    let net = Net::default();
    let _servers: Vec<Server> = (1..=10).map(|port| Server::start(&net, port, ok)).collect();
    let rig = Rig::with(&net, 1..=10, |config| config.policy.subset_max = Some(3));
    eventually(|| rig.handles().values().filter(|handle| handle.state() == Ready).count() == 3).await;
    let chosen = inside(&rig);
    assert_eq!((chosen.len(), net.connects()), (3, 3));

    let gone = *chosen.first().unwrap();
    rig.resolve((1..=10).filter(|port| *port != gone).map(endpoint));
    eventually(|| net.connects() == 4).await;
    settled().await;
    let after = inside(&rig);
    assert_eq!(after.intersection(&chosen).count(), 2);
    assert_eq!((after.len(), net.connects()), (3, 4));

    // When it is back, so is the former choice: the newcomer is left.
    rig.resolve((1..=10).map(endpoint));
    eventually(|| net.connects() == 5).await;
    settled().await;
    assert_eq!(inside(&rig), chosen);
    let newcomer = *after.difference(&chosen).next().unwrap();
    assert_ne!(handle(&rig, newcomer).state(), Ready);
}

#[tokio::test(start_paused = true)]
async fn a_draining_endpoint_gives_up_its_place_in_the_subset() {
    let net = Net::default();
    let _servers: Vec<Server> = (1..=3).map(|port| Server::start(&net, port, ok)).collect();
    let rig = Rig::with(&net, 1..=3, |config| config.policy.subset_max = Some(1));
    eventually(|| rig.channel.state() == Ready).await;
    let chosen = *inside(&rig).first().unwrap();
    let draining = |port| ResolvedEndpoint {
        standing: if port == chosen { Standing::Draining } else { Standing::Alive },
        ..endpoint(port)
    };
    rig.resolve((1..=3).map(draining));
    eventually(|| net.connects() == 2).await;
    settled().await;
    assert_eq!(verdict(&rig, chosen), Verdict::Draining);
    assert_eq!(share_of(&rig, chosen, 20).await, 0);
}

/// Once a lapsed endpoint is given up it has no place in the subset that another one could have.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_given_up_is_replaced_in_the_subset() {
    let net = Net::default();
    let mut servers: Vec<Server> = (1..=4).map(|port| Server::start(&net, port, ok)).collect();
    let rig = Rig::with(&net, 1..=4, |config| config.policy.subset_max = Some(2));
    eventually(|| rig.handles().values().filter(|handle| handle.state() == Ready).count() == 2).await;
    let lost = *inside(&rig).first().unwrap();
    drop(servers.remove(usize::from(lost) - 1));
    let lapsed = |port| ResolvedEndpoint {
        standing: if port == lost { Standing::Lapsed } else { Standing::Alive },
        ..endpoint(port)
    };
    rig.resolve((1..=4).map(lapsed));
    sleep(Duration::from_secs(90)).await;
    assert!(!rig.handles().contains_key(&lost));
    assert_eq!(rig.handles().values().filter(|handle| handle.state() == Ready).count(), 2);
}
