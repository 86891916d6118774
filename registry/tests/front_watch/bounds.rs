//! How much one watcher, and one address, may follow.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use pb::watch_response::Event;
use tokio::sync::mpsc;
use tokio::time::{advance, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::kit::{Watch, lasting, subscribe, whole};
use crate::support::{Client, Door, refusal, register};

/// A client at this address, for as many streams as one connection has.
async fn at(door: &Door, host: u8) -> Client {
    static PORTS: AtomicU16 = AtomicU16::new(40_000);
    let port = PORTS.fetch_add(1, Ordering::Relaxed);
    door.client_from(Some(([10, 0, 0, host], port).into())).await
}

#[tokio::test(start_paused = true)]
async fn one_address_takes_its_share_of_the_streams_and_leaves_the_rest() {
    let (door, _client) = whole().await;
    let (mut watches, mut beats) = (Vec::new(), Vec::new());
    let mut client = at(&door, 1).await;
    for number in 0..1_024 {
        if number % 100 == 0 {
            client = at(&door, 1).await;
        }
        let (asks, asked) = mpsc::channel(1);
        watches.push((client.watch(ReceiverStream::new(asked)).await.expect("open"), asks));
        let (beating, beaten) = mpsc::channel(1);
        beats.push((client.keep_alive(ReceiverStream::new(beaten)).await.expect("open"), beating));
    }
    let refused = [
        client.watch(tokio_stream::pending()).await.map(drop).expect_err("one too many"),
        client.keep_alive(tokio_stream::pending()).await.map(drop).expect_err("one too many"),
    ];
    for status in refused {
        assert_eq!(refusal(&status).1, "TOO_MANY_STREAMS");
        assert!(status.message().starts_with("1024 of this address's "), "{}", status.message());
        assert!(status.get_error_details().retry_info().is_some());
    }
    let mut other = at(&door, 2).await;
    other.watch(tokio_stream::pending()).await.expect("another address has its own");
    other.keep_alive(tokio_stream::pending()).await.expect("another address has its own");
    drop((watches.pop(), beats.pop()));
    sleep(Duration::from_millis(10)).await;
    client.watch(tokio_stream::pending()).await.expect("one was given back");
    client.keep_alive(tokio_stream::pending()).await.expect("one was given back");
}

#[tokio::test(start_paused = true)]
async fn one_address_takes_its_share_of_the_subscriptions_and_leaves_the_rest() {
    let (door, _client) = whole().await;
    let subscription =
        |number: usize| pb::Subscription { service: format!("s{number}"), ..pb::Subscription::default() };
    let thousand = || pb::WatchRequest { subscribe: (0..1000).map(subscription).collect(), unsubscribe: Vec::new() };
    let mut client = at(&door, 1).await;
    let mut watches = Vec::new();
    for number in 1..=50 {
        if number % 5 == 0 {
            client = at(&door, 1).await;
        }
        let mut watch = Watch::open(&mut client, thousand()).await;
        while watch.news().await.service != "s999" {}
        watches.push(watch);
    }
    let mut watch = Watch::open(&mut client, subscribe("s0", None)).await;
    let Some(Event::Error(error)) = watch.news().await.event else { panic!("one too many is refused") };
    assert_eq!((error.code, error.reason.as_str()), (Code::ResourceExhausted.into(), "TOO_MANY_SUBSCRIPTIONS"));
    Watch::open(&mut at(&door, 2).await, subscribe("s0", None)).await.beginning().await;
    watches.pop();
    sleep(Duration::from_millis(10)).await;
    Watch::open(&mut client, subscribe("s0", None)).await.beginning().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_follows_a_thousand_names_and_no_more() {
    let (_door, mut client) = whole().await;
    let subscription =
        |number: usize| pb::Subscription { service: format!("s{number}"), ..pb::Subscription::default() };
    let request = pb::WatchRequest { subscribe: (0..1000).map(subscription).collect(), unsubscribe: Vec::new() };
    let mut watch = Watch::open(&mut client, request).await;
    for _ in 0..2000 {
        watch.news().await;
    }
    let request = pb::WatchRequest { subscribe: vec![subscription(1000)], unsubscribe: Vec::new() };
    watch.requests.send(request).await.expect("open");
    let Some(Event::Error(error)) = watch.news().await.event else { panic!("one too many is refused") };
    assert_eq!((error.code, error.reason.as_str()), (Code::ResourceExhausted.into(), "TOO_MANY_SUBSCRIPTIONS"));

    let request = pb::WatchRequest { subscribe: (0..1001).map(subscription).collect(), unsubscribe: Vec::new() };
    watch.requests.send(request).await.expect("open");
    let end = loop {
        match watch.responses.message().await {
            Ok(response) => assert!(response.is_some(), "a status is due"),
            Err(status) => break status,
        }
    };
    assert_eq!(refusal(&end).1, "TOO_MANY_ENTRIES");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_refused_late_leaves_the_ones_behind_it_alone() {
    let (_door, mut client) = whole().await;
    let granted = register(&mut client, lasting(1)).await;
    let here = granted.position.expect("a position");
    let ahead = pb::Position { revision: here.revision + 1_000_000, ..here };
    let name = |number: usize| pb::Subscription { service: format!("s{number}"), ..pb::Subscription::default() };
    let mut request = subscribe("user-svc", Some(ahead));
    request.subscribe.extend((1..1000).map(name));
    let mut watch = Watch::open(&mut client, request).await;
    // The first is given up on while the engine is asked for one of the others.
    for _ in 0..10 {
        watch.news().await;
    }
    advance(Duration::from_millis(1_100)).await;
    let (mut refused, mut last_begun) = (None, false);
    while refused.is_none() || !last_begun {
        let response = watch.news().await;
        match response.event.expect("an event") {
            Event::Error(error) => {
                assert!(!last_begun, "it was refused after all the others were followed: nothing is shown");
                refused = Some((response.service, error.reason));
            }
            Event::SoftState(_) => last_begun |= response.service == "s999",
            _ => {}
        }
    }
    assert_eq!(refused, Some(("user-svc".to_owned(), "NODE_BEHIND".to_owned())));

    // Each of those asked for around then is told of what happens.
    for number in 1..=100 {
        let (service, instance_id) = (format!("s{number}"), format!("00000000-0000-7000-8000-{number:012x}"));
        register(&mut client, pb::RegisterRequest { service, instance_id, ..lasting(2) }).await;
        let told = watch.news().await;
        assert_eq!(told.service, format!("s{number}"));
        assert!(matches!(told.event, Some(Event::Delta(_))), "{told:?}");
    }
}
