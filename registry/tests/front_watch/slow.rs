//! Who does not read, who hangs up, and a thousand that do neither.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use mesh_runtime::clock;
use pb::watch_response::Event;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use crate::kit::{Watch, changed, deregister, lasting, subscribe, whole};
use crate::support::{Door, Held, expect_refusal, instance_id, register, resolve};

/// Reads a metric without labels.
fn metric(door: &Door, name: &str) -> f64 {
    let text = door.metrics();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.split(' ').nth(1).expect("a value").parse().expect("a number")
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_not_read_is_bounded_and_then_cut_and_others_do_not_notice() {
    let (door, mut client) = whole().await;
    let mut narrow = door.narrow_client(65_535).await;
    let mut stalled = Watch::open(&mut narrow, subscribe("user-svc", None)).await;
    let mut reading = Watch::open(&mut client, subscribe("user-svc", None)).await;
    let mut held = reading.beginning().await;

    // Each state is 8 KiB, so the windows and buffers on the way are full after a few dozen.
    let big = |version: usize| {
        let metadata = BTreeMap::from([("blob".to_owned(), "x".repeat(8000))]);
        pb::RegisterRequest { metadata, ..changed(1, version) }
    };
    let begun = clock::now();
    for version in 0..400 {
        register(&mut client, big(version)).await;
        let seen = loop {
            let response = reading.next().await;
            let is_delta = matches!(response.event, Some(Event::Delta(_)));
            held.apply(response);
            if is_delta {
                break clock::now();
            }
        };
        assert!(seen - begun <= Duration::from_millis(25) * (1 + u32::try_from(version).expect("small")));
        sleep(Duration::from_millis(25)).await;
    }
    let sent = metric(&door, "registry_watch_messages_total");
    assert!(sent < 400.0 + 60.0, "a stalled watcher is not fed: {sent}");

    // It comes back within 30 s: what it missed is the latest state, not a queue of old ones.
    let mut late = Held::default();
    let mut messages = 0;
    while late.instances.get(&instance_id(1)).is_none_or(|instance| instance.version != "399") {
        let response = stalled.next().await;
        late.apply(response);
        messages += 1;
    }
    assert!(messages < 60, "{messages}");
    assert_eq!(late.instances, held.instances);

    // It stops reading for good, while there is something to read.
    let mut version = 400;
    let stalled_since = clock::now();
    while metric(&door, "registry_watch_cuts_total") == 0.0 {
        register(&mut client, big(version)).await;
        version += 1;
        while clock::now() < stalled_since + Duration::from_millis(500) * u32::try_from(version - 399).expect("small") {
            sleep(Duration::from_millis(100)).await;
        }
        assert!(clock::now() - stalled_since < Duration::from_secs(90), "nobody cuts it");
    }
    let end = loop {
        match stalled.responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a status is due"),
            Err(status) => break status,
        }
    };
    expect_refusal(Err::<(), _>(end), Code::ResourceExhausted, "SLOW_WATCHER");
    assert_eq!(metric(&door, "registry_watch_streams"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_dawdles_over_one_snapshot_is_cut() {
    let (door, mut client) = whole().await;
    let metadata = BTreeMap::from([("blob".to_owned(), "x".repeat(8000))]);
    for number in 1..=200 {
        let instance_id = format!("00000000-0000-7000-8000-{number:012x}");
        let request = pb::RegisterRequest { metadata: metadata.clone(), instance_id, ..lasting(1) };
        register(&mut client, request).await;
    }
    let mut narrow = door.narrow_client(65_535).await;
    let mut dawdling = Watch::open(&mut narrow, subscribe("user-svc", None)).await;
    let begun = clock::now();
    while metric(&door, "registry_watch_cuts_total") == 0.0 {
        assert!(clock::now() - begun < Duration::from_secs(95), "nobody cuts it");
        let Some(Event::Snapshot(chunk)) = dawdling.next().await.event else { panic!("a chunk is due") };
        assert!(!chunk.last);
        sleep(Duration::from_secs(29)).await;
    }
    assert!(clock::now() - begun > Duration::from_secs(60), "it has its time");
    let end = loop {
        match dawdling.responses.message().await {
            Ok(response) => assert!(response.is_some(), "a status is due"),
            Err(status) => break status,
        }
    };
    assert!(end.message().starts_with("one snapshot"), "{end:?}");
    expect_refusal(Err::<(), _>(end), Code::ResourceExhausted, "SLOW_WATCHER");
    assert_eq!(metric(&door, "registry_watch_streams"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn watches_end_with_the_registry_and_leave_nothing_behind() {
    let (door, mut client) = whole().await;
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
        watch.beginning().await;
        watches.push(watch);
    }
    assert_eq!(metric(&door, "registry_watch_streams"), 5.0);
    assert_eq!(metric(&door, "registry_watch_subscriptions"), 5.0);
    drop(watches.pop());
    let noticed = async {
        while metric(&door, "registry_watch_streams") > 4.0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(1), noticed).await.expect("a watcher that hangs up is let go");

    door.registry.ends_watches().cancel();
    for mut watch in watches {
        assert!(watch.responses.message().await.expect("a clean end").is_none());
    }
    timeout(Duration::from_secs(1), door.registry.shutdown()).await.expect("nothing is left");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_watchers_all_end_in_the_same_state() {
    let (door, mut client) = whole().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(door.client().await);
    }
    let mut watches = Vec::new();
    for number in 0..1000 {
        let client = &mut clients[number % 5];
        let mut watch = Watch::open(client, subscribe("user-svc", None)).await;
        let held = watch.beginning().await;
        watches.push((watch, held));
    }
    let mut last = None;
    for number in 1..=40 {
        let granted = register(&mut client, lasting(number)).await;
        if number % 2 == 0 {
            deregister(&mut client, &granted).await;
        }
        last = resolve(&mut client, "user-svc").await.expect("known").position;
    }
    let last = last.expect("a position").revision;
    let started: Instant = clock::now();
    for (watch, held) in &mut watches {
        while held.position.as_ref().expect("a position").revision < last {
            let news = watch.news().await;
            held.apply(news);
        }
        assert_eq!(held.instances.len(), 20);
    }
    assert!(clock::now() - started <= Duration::from_millis(100));
}
