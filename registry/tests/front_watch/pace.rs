//! When a watcher is told: at once, or gathered, and at the latest.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use mesh_runtime::clock;
use pb::watch_response::Event;
use tokio::time::sleep;
use tonic::Code;

use crate::kit::{Watch, changed, deregister, lasting, subscribe, whole};
use crate::support::{Door, beat_of, expect_refusal, instance_id, register, resolve};

/// The longest time between two bookmarks within `time`.
async fn longest_gap(watch: &mut Watch, time: Duration) -> Duration {
    let (start, mut last, mut longest) = (clock::now(), clock::now(), Duration::ZERO);
    while clock::now() - start < time {
        let response = watch.next().await;
        if let Some(Event::Bookmark(bookmark)) = response.event {
            assert_eq!(bookmark.interval, Some(prost_types::Duration { seconds: 5, nanos: 0 }));
            assert!(response.service.is_empty() && response.complete);
            longest = longest.max(clock::now() - last);
            last = clock::now();
        }
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_within_five_seconds_on_idle_and_on_busy_streams() {
    let (door, mut client) = whole().await;
    let mut idle = Watch::open(&mut client, subscribe("user-svc", None)).await;
    assert!(longest_gap(&mut idle, Duration::from_secs(60)).await <= Duration::from_secs(5));

    let mut busy_client = door.client().await;
    let busy = tokio::spawn(async move {
        for version in 0.. {
            register(&mut busy_client, changed(1, version)).await;
            sleep(Duration::from_millis(15)).await;
        }
    });
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    assert!(longest_gap(&mut watch, Duration::from_secs(18)).await <= Duration::from_secs(5));
    busy.abort();
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_says_that_everything_up_to_its_position_was_sent() {
    let (door, mut client) = whole().await;
    let mut other = door.client().await;
    let busy = tokio::spawn(async move {
        let mut versions = BTreeMap::new();
        for version in 0..1000 {
            let granted = register(&mut other, changed(1, version)).await;
            versions.insert(granted.position.expect("a position").revision, version.to_string());
            sleep(Duration::from_millis(12)).await;
        }
        versions
    });
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    let mut held = watch.beginning().await;
    let mut marked = Vec::new();
    while marked.len() < 3 {
        let response = watch.next().await;
        if let Some(Event::Bookmark(_)) = response.event {
            let revision = response.position.expect("a position").revision;
            marked.push((revision, held.instances[&instance_id(1)].version.clone()));
        } else {
            held.apply(response);
        }
    }
    let versions = busy.await.expect("all registered");
    for (revision, seen) in marked {
        let (_, at_least) = versions.range(..=revision).next_back().expect("a version by then");
        assert!(seen.parse::<u32>().expect("a number") >= at_least.parse::<u32>().expect("a number"));
    }
}

#[tokio::test(start_paused = true)]
async fn completeness_is_announced_and_brings_the_whole_state() {
    let door = Door::open().await;
    let mut client = door.client().await;
    register(&mut client, lasting(1)).await;
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    let started = clock::now();
    let mut kinds = Vec::new();
    loop {
        let response = watch.next().await;
        match (response.complete, response.event.expect("an event")) {
            (false, _) => assert!(kinds.is_empty()),
            (true, Event::Snapshot(_)) => kinds.push("snapshot"),
            (true, Event::SoftState(_)) => kinds.push("soft state"),
            (true, Event::Bookmark(_)) => break,
            (true, other) => panic!("{other:?}"),
        }
    }
    assert_eq!(kinds, ["snapshot", "soft state"]);
    let told = clock::now() - started;
    assert!(told < Duration::from_secs(11), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_change_goes_at_once_and_a_busy_service_gathers() {
    let (_door, mut client) = whole().await;
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    watch.beginning().await;

    let before = clock::now();
    register(&mut client, lasting(1)).await;
    assert_eq!(watch.delta().await.upserts.len(), 1);
    assert_eq!(clock::now(), before, "the first change does not wait");

    for number in 2..12 {
        register(&mut client, lasting(number)).await;
    }
    assert_eq!(watch.delta().await.upserts.len(), 10, "ten changes are one message");
    assert_eq!(clock::now() - before, Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn removals_and_draining_do_not_wait_for_others() {
    let (_door, mut client) = whole().await;
    let (one, two) = (register(&mut client, lasting(1)).await, register(&mut client, lasting(2)).await);
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    watch.beginning().await;
    register(&mut client, lasting(3)).await;
    watch.delta().await;

    let before = clock::now();
    deregister(&mut client, &one).await;
    assert_eq!(watch.delta().await.removals.len(), 1);
    let draining = pb::Beat { serving_status: pb::ServingStatus::Draining.into(), ..beat_of(&two) };
    client.heartbeat(pb::HeartbeatRequest { beats: vec![draining] }).await.expect("beaten");
    assert_eq!(watch.delta().await.upserts[0].serving_status(), pb::ServingStatus::Draining);
    assert_eq!(clock::now(), before);
}

#[tokio::test(start_paused = true)]
async fn soft_state_follows_its_changes() {
    let (_door, mut client) = whole().await;
    let granted = register(&mut client, lasting(1)).await;
    register(&mut client, lasting(2)).await;
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    let held = watch.beginning().await;
    assert!(held.soft.expect("a soft state").instances.is_empty());

    let keep_alive = client.keep_alive(tokio_stream::iter([pb::KeepAliveRequest { beats: vec![beat_of(&granted)] }]));
    let mut answers = keep_alive.await.expect("open").into_inner();
    while answers.message().await.expect("open").is_some() {}
    let Some(Event::SoftState(soft)) = watch.news().await.event else { panic!("a broken heartbeat is told") };
    assert_eq!(soft.instances[0].instance_id, instance_id(1));
    assert_eq!(soft.instances[0].liveness(), pb::Liveness::Suspect);

    let load = pb::LoadReport { requests_in_flight: 7, ..pb::LoadReport::default() };
    let beat = pb::Beat { load: Some(load), ..beat_of(&granted) };
    client.heartbeat(pb::HeartbeatRequest { beats: vec![beat] }).await.expect("beaten");
    let Some(Event::SoftState(soft)) = watch.news().await.event else { panic!("the return is told") };
    assert_eq!((soft.instances[0].liveness(), soft.instances[0].load), (pb::Liveness::Alive, Some(load)));
}

#[tokio::test(start_paused = true)]
async fn a_service_too_large_for_one_answer_comes_by_watch_in_chunks() {
    let (_door, mut client) = whole().await;
    let metadata = BTreeMap::from([("blob".to_owned(), "x".repeat(8000))]);
    let id = |number: u32| format!("00000000-0000-7000-8000-{number:012x}");
    for number in 1..=540 {
        let request = pb::RegisterRequest { metadata: metadata.clone(), instance_id: id(number), ..lasting(1) };
        register(&mut client, request).await;
    }
    expect_refusal(resolve(&mut client, "user-svc").await, Code::OutOfRange, "ANSWER_TOO_LARGE");

    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    let mut seen = Vec::new();
    loop {
        let Some(Event::Snapshot(chunk)) = watch.next().await.event else { panic!("a snapshot is due") };
        seen.extend(chunk.instances.into_iter().map(|instance| instance.instance_id));
        if chunk.last {
            break;
        }
    }
    assert_eq!(seen, (1..=540).map(id).collect::<Vec<_>>());
}
