use std::sync::Arc;
use std::time::Duration;

use super::kit::{Rig, SECOND, beat_of, beat_of_nobody, memory, settings};
use crate::catalog::kit::{asks, id, nonce, service};
use crate::catalog::{
    BeatOutcome, Emptiness, Limits, Liveness, Presence, Register, RemovalHoldReason, RemovalReason, Resume,
    ServingStatus, Ttl,
};
use crate::engine::{Bell, Closed, EngineError, EngineSettings, Lane};

#[tokio::test(start_paused = true)]
async fn what_is_granted_is_published() {
    let rig = Rig::new().await;
    let granted = rig.register(1).await;
    let view = rig.engine.view();
    assert_eq!(view.position(), &granted.position);
    let users = view.service(&service("user-svc")).unwrap();
    assert_eq!(users.instances()[&id(1)].incarnation(), granted.incarnation);
    assert_eq!(users.revision(), granted.position.revision);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_writes_nothing_and_renews() {
    let rig = Rig::new().await;
    let (first, other) = (rig.register(1).await, rig.register(2).await);
    rig.wait_beating(9 * SECOND, &[&other]).await;
    assert_eq!(rig.register(1).await.lease, first.lease);
    rig.wait_beating(9 * SECOND, &[&other]).await;
    assert!(rig.liveness(1).is_some());
    assert_eq!(rig.engine.view().position().revision, other.position.revision);
}

#[tokio::test(start_paused = true)]
async fn a_silent_instance_is_removed_within_its_ttl_and_a_second() {
    let rig = Rig::new().await;
    rig.register(1).await;
    let other = rig.register(2).await;
    rig.wait_beating(9 * SECOND, &[&other]).await;
    assert_eq!(rig.liveness(1), Some(Liveness::Suspect));
    rig.wait_beating(2 * SECOND, &[&other]).await;
    assert_eq!(rig.liveness(1), None);
    assert_eq!(rig.users().removals()[&id(1)].reason, RemovalReason::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_beat_after_the_removal_says_register_again() {
    let rig = Rig::new().await;
    let (gone, other) = (rig.register(1).await, rig.register(2).await);
    rig.wait_beating(11 * SECOND, &[&other]).await;
    assert_eq!(rig.beat(&gone).await, BeatOutcome::UnknownLease);
    let back = rig.register(1).await;
    assert!(back.incarnation > gone.incarnation);
    assert_eq!(rig.beat(&gone).await, BeatOutcome::UnknownLease, "its own old lease, not another start's");
    assert_eq!(rig.beat(&back).await, BeatOutcome::Renewed);
}

#[tokio::test(start_paused = true)]
async fn the_older_start_is_told_that_it_is_fenced() {
    let rig = Rig::new().await;
    let old = rig.register(1).await;
    let new = rig.try_register(Register { nonce: nonce(2), ..asks(1) }).await.unwrap();
    assert_eq!(rig.beat(&old).await, BeatOutcome::Fenced);
    assert_eq!(rig.beat(&new).await, BeatOutcome::Renewed);
    let outcomes = rig.engine.beat(vec![beat_of_nobody()], None).await.unwrap();
    assert_eq!(outcomes[0].outcome, BeatOutcome::UnknownLease);
}

#[tokio::test(start_paused = true)]
async fn a_changed_status_is_written_before_the_beat_is_answered() {
    let rig = Rig::new().await;
    let granted = rig.register(1).await;
    assert_eq!(rig.says(&granted, ServingStatus::Draining).await, BeatOutcome::Renewed);
    let users = rig.users();
    assert_eq!(users.instances()[&id(1)].serving(), ServingStatus::Draining);
    assert!(!users.pickable(&users.instances()[&id(1)]));
    let revision = users.revision();
    rig.says(&granted, ServingStatus::Draining).await;
    assert_eq!(rig.users().revision(), revision, "and only when it changes");
}

#[tokio::test(start_paused = true)]
async fn heartbeats_never_reach_the_store() {
    let store = memory();
    let rig = Rig::on(store.clone(), settings(1)).await;
    let granted = rig.register(1).await;
    let revision = store.revision();
    rig.wait_beating(120 * SECOND, &[&granted]).await;
    assert_eq!(store.revision(), revision);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_from_its_side_makes_suspect_and_one_that_we_end_does_not() {
    let rig = Rig::new().await;
    for (how, liveness) in [(Closed::ByUs, Liveness::Alive), (Closed::ByPeer, Liveness::Suspect)] {
        let granted = rig.register(1).await;
        let stream = rig.engine.stream_opened();
        rig.beat_via(&granted, Some(stream)).await;
        rig.engine.stream_closed(stream, how);
        tokio::time::sleep(SECOND).await;
        assert_eq!(rig.liveness(1), Some(liveness), "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_memory_store_is_incomplete_for_one_default_ttl() {
    let rig = Rig::new().await;
    assert!(!rig.engine.view().complete());
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    assert!(!rig.engine.view().complete());
    tokio::time::sleep(SECOND).await;
    assert!(rig.engine.view().complete());
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_was_late_expires_nobody() {
    let rig = Rig::new().await;
    let granted: Vec<_> = [rig.register(1).await, rig.register(2).await, rig.register(3).await].into();
    tokio::time::advance(Duration::from_secs(30)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    for granted in &granted {
        assert_eq!(rig.beat(granted).await, BeatOutcome::Renewed);
    }
    assert_eq!(rig.metrics.clock_gaps.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_short_stall_of_the_registry_makes_nobody_suspect() {
    let rig = Rig::new().await;
    let ttl = Some(Ttl::new(2 * SECOND).unwrap());
    let granted = rig.try_register(Register { ttl, ..asks(1) }).await.unwrap();
    let users = rig.engine.follow(&service("user-svc")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    // The next beat is due at 733 ms and waits in a socket until the stall is over.
    tokio::time::advance(Duration::from_millis(400)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.liveness(1), Some(Liveness::Alive));
    assert_eq!(rig.beat(&granted).await, BeatOutcome::Renewed);
    assert!(!users.has_changed(), "nothing was told");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(users.look().soft().instances[&id(1)].liveness, Liveness::Suspect, "without a stall it is");
}

#[tokio::test(start_paused = true)]
async fn a_beat_that_the_registry_had_no_room_for_lets_nobody_expire() {
    let rig = Rig::new().await;
    let (one, two) = (rig.register(1).await, rig.register(2).await);
    tokio::time::sleep(Duration::from_millis(9_500)).await;
    assert_eq!(rig.beat(&two).await, BeatOutcome::Renewed);
    let flood = (0..5_000).map(|_| rig.engine.beat(Vec::new(), None));
    let late = rig.engine.beat(vec![beat_of(&one)], None);
    let (_, late) = futures_util::future::join(futures_util::future::join_all(flood), late).await;
    assert_eq!(late, Err(EngineError::Overloaded { lane: Lane::Beats }));
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(rig.beat(&one).await, BeatOutcome::Renewed);
}

#[tokio::test(start_paused = true)]
async fn a_restart_on_the_same_store_gives_everybody_a_full_ttl() {
    let store = memory();
    let first = Rig::on(store.clone(), settings(1)).await;
    let (one, two) = (first.register(1).await, first.register(2).await);
    tokio::time::sleep(9 * SECOND).await;
    first.task.stop().await;
    assert_eq!(first.engine.beat(Vec::new(), None).await, Err(EngineError::Stopped));

    let second = Rig::on(store, settings(2)).await;
    assert_eq!(second.users().instances().len(), 2);
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(second.beat(&one).await, BeatOutcome::Renewed);
    assert_eq!(second.beat(&two).await, BeatOutcome::Renewed);
}

#[tokio::test(start_paused = true)]
async fn a_service_tells_who_emptied_it() {
    let rig = Rig::new().await;
    let granted = rig.register(1).await;
    rig.deregister(&granted).await;
    assert_eq!(rig.presence(), Presence::Empty(Emptiness::Emptied));
    rig.register(2).await;
    tokio::time::sleep(11 * SECOND).await;
    assert_eq!(rig.liveness(2), Some(Liveness::Stale));
    assert_eq!(rig.users().soft().hold.unwrap().reason, RemovalHoldReason::LastInstance);
    tokio::time::sleep(3_600 * SECOND).await;
    assert_eq!(rig.presence(), Presence::Empty(Emptiness::Lapsed));
}

#[tokio::test(start_paused = true)]
async fn an_instance_of_the_second_choice_is_pickable_when_there_is_no_first() {
    let rig = Rig::new().await;
    let (_, other) = (rig.register(1).await, rig.register(2).await);
    rig.wait_beating(6 * SECOND, &[&other]).await;
    let pickable = |instance: u128| {
        let users = rig.users();
        users.pickable(&users.instances()[&id(instance)])
    };
    assert_eq!([pickable(1), pickable(2)], [false, true]);
    rig.says(&other, ServingStatus::NotServing).await;
    assert_eq!([pickable(1), pickable(2)], [true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_gets_every_state_it_can_keep_up_with() {
    let rig = Rig::new().await;
    let users = rig.engine.follow(&service("user-svc")).await.unwrap();
    let before = users.look();
    assert_eq!(before.presence(), Presence::Unknown);

    let granted = rig.register(1).await;
    users.changed().await;
    let after = users.look();
    assert_eq!(after.instances().len(), 1);
    assert_eq!(after.since(before.revision()), Resume::Delta);
    assert_eq!(after.revision(), granted.position.revision);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_followed_is_not_thereby_known() {
    let rig = Rig::new().await;
    let _following = rig.engine.follow(&service("user-svc")).await.unwrap();
    rig.try_register(Register { service: service("order-svc"), ..asks(1) }).await.unwrap();
    let view = rig.engine.view();
    let known: Vec<_> = view.services(&service("any").namespace, None).map(|s| s.key().clone()).collect();
    assert_eq!(known, [service("order-svc")]);
}

#[tokio::test(start_paused = true)]
async fn the_names_that_nobody_registered_and_somebody_follows_are_bounded() {
    let rig = Rig::new().await;
    let bell = Arc::new(Bell::default());
    let follow = |name: String, host: u8| rig.engine.follow_unknown(&service(&name), &bell, 0, [10, 0, 0, host].into());
    let mut following = Vec::new();
    for number in 0..10_000 {
        following.push(follow(format!("s{number}"), u8::try_from(number / 1_000).unwrap()).await.unwrap());
    }
    let full = |max, of_address| EngineError::TooManyFollowed { max, of_address };
    assert_eq!(follow("one-more".to_owned(), 10).await.unwrap_err(), full(10_000, false));
    rig.register(1).await;
    assert!(rig.engine.follow(&service("user-svc")).await.is_ok(), "a known name is always there to follow");

    following.truncate(10);
    tokio::time::sleep(2 * SECOND).await;
    assert!(follow("one-more".to_owned(), 10).await.is_ok(), "who leaves makes room");
    assert!(following.iter().all(|follow| follow.look().presence() == Presence::Unknown));
}

#[tokio::test(start_paused = true)]
async fn one_address_has_its_share_of_the_names_that_nobody_registered() {
    let rig = Rig::new().await;
    let bell = Arc::new(Bell::default());
    let follow = |name: &str, host: u8| rig.engine.follow_unknown(&service(name), &bell, 0, [10, 0, 0, host].into());
    let mut following = vec![follow("user-svc", 1).await.unwrap()];
    for number in 1..1_000 {
        following.push(follow(&format!("s{number}"), 1).await.unwrap());
    }
    let full = EngineError::TooManyFollowed { max: 1_000, of_address: true };
    assert_eq!(follow("one-more", 1).await.unwrap_err(), full);
    following.push(follow("s1", 1).await.unwrap());
    following.push(follow("theirs", 2).await.unwrap());
    following.push(follow("theirs", 1).await.unwrap());
    assert_eq!(follow("one-more", 1).await.unwrap_err(), full, "what others follow costs nobody anything");

    // A name that is registered is on nobody's account.
    rig.register(1).await;
    following.push(follow("one-more", 1).await.unwrap());
    assert_eq!(follow("yet-another", 1).await.unwrap_err(), full);
    following.clear();
    tokio::time::sleep(2 * SECOND).await;
    assert!(follow("yet-another", 1).await.is_ok(), "who leaves makes room");
}

#[tokio::test(start_paused = true)]
async fn following_an_unknown_name_leaves_what_is_published_as_it_is() {
    let rig = Rig::new().await;
    rig.register(1).await;
    let before = rig.engine.view();
    let orders = rig.engine.follow(&service("order-svc")).await.unwrap();
    assert!(Arc::ptr_eq(&before, &rig.engine.view()), "the map of all names is not copied for a name of nobody");
    assert_eq!(orders.look().presence(), Presence::Unknown);
    rig.try_register(Register { service: service("order-svc"), ..asks(2) }).await.unwrap();
    assert!(orders.has_changed());
    assert_eq!(orders.look().presence(), Presence::Populated);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_name_is_let_go_of_once_its_removals_are_forgotten() {
    let rig = Rig::new().await;
    let orders = rig.engine.follow(&service("order-svc")).await.unwrap();
    for (instance, name) in [(1, "user-svc"), (2, "order-svc")] {
        let granted = rig.try_register(Register { service: service(name), ..asks(instance) }).await.unwrap();
        rig.deregister(&granted).await;
        rig.engine.delete_service(service(name)).await.unwrap();
        assert!(rig.engine.view().service(&service(name)).is_some(), "its removals still hold");
    }
    tokio::time::sleep(crate::catalog::REMEMBERED + 2 * SECOND).await;
    assert!(rig.engine.view().services.is_empty());
    assert!(orders.look().removals().is_empty());

    rig.try_register(Register { service: service("order-svc"), ..asks(3) }).await.unwrap();
    assert_eq!(orders.look().presence(), Presence::Populated, "who follows it goes on to");
}

#[tokio::test(start_paused = true)]
async fn the_metrics_count_what_happened() {
    let rig = Rig::new().await;
    let (_, other) = (rig.register(1).await, rig.register(2).await);
    rig.wait_beating(11 * SECOND, &[&other]).await;
    tokio::time::sleep(20 * SECOND).await;
    let text = rig.metrics_text();
    for line in [
        "registry_registrations_total 2",
        "registry_heartbeats_total{outcome=\"renewed\"} 11",
        "registry_removals_total{reason=\"expired\"} 1",
        "registry_lease_expirations_total{reason=\"removed\"} 1",
        "registry_lease_expirations_total{reason=\"held_last_instance\"} 1",
        "registry_commits_total{outcome=\"committed\"} 3",
        "registry_instances 1",
        "registry_instances_stale 1",
        "registry_services 1",
        "registry_services_holding 1",
        "registry_revision 3",
    ] {
        assert!(text.lines().any(|had| had == line), "{line} is missing in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_past_the_bound_of_tombstones_is_counted() {
    let limits = Limits { tombstones_per_service: 1, ..Limits::default() };
    let rig = Rig::on(memory(), EngineSettings { limits, ..settings(1) }).await;
    for instance in 1..=3 {
        let granted = rig.register(instance).await;
        rig.deregister(&granted).await;
    }
    assert!(rig.metrics_text().lines().any(|line| line == "registry_removals_unremembered_total 2"));
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_trace() {
    async fn trace(seed: u8) -> Vec<String> {
        let rig = Rig::on(memory(), settings(seed)).await;
        let mut trace = Vec::new();
        let mut granted = Vec::new();
        for instance in 1..=20 {
            granted.push(rig.register(instance).await);
        }
        for round in 0..40_usize {
            tokio::time::sleep(SECOND).await;
            for (index, granted) in granted.iter().enumerate() {
                if (index + round) % 7 < 3 {
                    trace.push(format!("{:?}", rig.beat(granted).await));
                }
            }
            trace.push(format!("{:?} {:?}", rig.engine.view().position(), rig.users()));
        }
        trace
    }
    assert_eq!(trace(1).await, trace(1).await);
    assert_ne!(trace(1).await, trace(2).await, "lease ids are drawn from the seed");
}
