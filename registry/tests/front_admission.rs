//! What a registry refuses because something is full: every refusal is RESOURCE_EXHAUSTED, says when to come back, is
//! counted by its reason, and leaves what is there already alone.

mod support;

use std::time::Duration;

use mesh_api::registry::v1 as pb;
use pb::watch_response::Event;
use registry::catalog::Limits;
use registry::{Quotas, Rate, Settings, Share};
use support::{Client, Door, beat_of, instance_id, refusal, register, registration, resolve, settings};
use tokio::sync::mpsc;
use tokio::time::{advance, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

const WIDE: Share = Share { in_all: 1_000, per_address: 1_000, per_connection: 1_000 };

fn quotas(quotas: Quotas) -> Settings {
    Settings { quotas, ..settings() }
}

fn limits(limits: Limits) -> Settings {
    let mut settings = settings();
    settings.engine.limits = limits;
    settings
}

/// A client on a connection of its own.
async fn at(door: &Door, host: u8, port: u16) -> Client {
    door.client_from(Some(([10, 0, 0, host], port).into())).await
}

/// Expects this refusal with a time to come back, and the counter to have counted it. Gives that time.
fn expect_full<T: std::fmt::Debug>(door: &Door, answer: Result<T, Status>, reason: &str) -> Duration {
    let status = answer.expect_err("a refusal");
    let (code, why, _) = refusal(&status);
    assert_eq!((code, why.as_str()), (Code::ResourceExhausted, reason), "{status:?}");
    assert_counted(door, reason);
    let details = status.get_error_details();
    let retry = details.retry_info().unwrap_or_else(|| panic!("no RetryInfo in {status:?}"));
    let retry = retry.retry_delay.expect("a time to come back");
    assert!(retry > Duration::ZERO, "{status:?}");
    retry
}

fn assert_counted(door: &Door, reason: &str) {
    let metrics = door.metrics();
    let line = format!("registry_refusals_total{{reason=\"{reason}\"}} ");
    assert!(metrics.lines().any(|found| found.starts_with(&line)), "{reason} is not counted:\n{metrics}");
}

/// A watch of these names, and the sender that keeps its request side open.
async fn watch(
    client: &mut Client,
    names: &[&str],
) -> Result<(Streaming<pb::WatchResponse>, mpsc::Sender<pb::WatchRequest>), Status> {
    let (asks, asked) = mpsc::channel(4);
    let subscription = |name: &&str| pb::Subscription { service: (*name).to_owned(), ..Default::default() };
    let request = pb::WatchRequest { subscribe: names.iter().map(subscription).collect(), unsubscribe: Vec::new() };
    asks.send(request).await.expect("there is room");
    Ok((client.watch(ReceiverStream::new(asked)).await?.into_inner(), asks))
}

/// The first refusal of a subscription on this stream.
async fn refused_subscription(watch: &mut Streaming<pb::WatchResponse>) -> pb::ServiceError {
    loop {
        let response = watch.message().await.expect("it goes on").expect("it goes on");
        if let Some(Event::Error(error)) = response.event {
            return error;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn watch_streams_are_bounded_by_connection_by_address_and_in_all() {
    let share = Share { in_all: 4, per_address: 3, per_connection: 2 };
    let door = Door::open_with(quotas(Quotas { watch_streams: share, ..Quotas::default() })).await;
    let (mut first, mut second, mut other) = (at(&door, 1, 1).await, at(&door, 1, 2).await, at(&door, 2, 1).await);
    let mut open = vec![watch(&mut first, &[]).await.expect("one"), watch(&mut first, &[]).await.expect("two")];
    let refused = watch(&mut first, &[]).await.map(drop);
    assert!(refused.as_ref().is_err_and(|status| status.message().starts_with("2 of this connection's watch")));
    expect_full(&door, refused, "TOO_MANY_STREAMS");
    open.push(watch(&mut second, &[]).await.expect("another connection has its own share"));
    let refused = watch(&mut second, &[]).await.map(drop);
    assert!(refused.as_ref().is_err_and(|status| status.message().starts_with("3 of this address's watch")));
    expect_full(&door, refused, "TOO_MANY_STREAMS");
    open.push(watch(&mut other, &[]).await.expect("another address has its own share"));
    let refused = watch(&mut other, &[]).await.map(drop);
    assert!(refused.as_ref().is_err_and(|status| status.message().starts_with("4 watch streams")));
    expect_full(&door, refused, "TOO_MANY_STREAMS");
    drop(open.remove(0));
    sleep(Duration::from_millis(10)).await;
    watch(&mut first, &[]).await.expect("one was given back");
}

#[tokio::test(start_paused = true)]
async fn heartbeat_streams_are_bounded_by_connection_by_address_and_in_all() {
    let share = Share { in_all: 4, per_address: 3, per_connection: 2 };
    let door = Door::open_with(quotas(Quotas { heartbeat_streams: share, ..Quotas::default() })).await;
    let mut open = Vec::new();
    for (host, port, let_in) in [(1, 1, 2), (1, 2, 1), (2, 1, 1), (3, 1, 0)] {
        let mut client = at(&door, host, port).await;
        for _ in 0..let_in {
            let (beats, beaten) = mpsc::channel(1);
            let answers = client.keep_alive(ReceiverStream::new(beaten)).await.expect("there is room");
            open.push((beats, answers, client.clone()));
        }
        let refused = client.keep_alive(tokio_stream::pending()).await.map(drop);
        expect_full(&door, refused, "TOO_MANY_STREAMS");
    }
    // Who is in goes on.
    let (_, _, client) = &mut open[0];
    let granted = register(client, registration(1)).await;
    let (beats, answers, _) = &mut open[0];
    beats.send(pb::KeepAliveRequest { beats: vec![beat_of(&granted)] }).await.expect("open");
    let answer = answers.get_mut().message().await.expect("it lives").expect("it lives");
    assert_eq!(answer.results[0].outcome(), pb::BeatOutcome::Renewed);
}

#[tokio::test(start_paused = true)]
async fn watched_names_are_bounded_by_connection_by_address_and_in_all() {
    let share = Share { in_all: 4, per_address: 3, per_connection: 2 };
    let door = Door::open_with(quotas(Quotas { watched_names: share, ..Quotas::default() })).await;
    let mut open = Vec::new();
    for (host, port, names) in [(1, 1, &["a", "b", "c"][..]), (1, 2, &["a", "b"]), (2, 1, &["a", "b"])] {
        let mut client = at(&door, host, port).await;
        let (mut stream, asks) = watch(&mut client, names).await.expect("the stream itself is fine");
        let error = refused_subscription(&mut stream).await;
        assert_eq!((error.code, &*error.reason), (Code::ResourceExhausted.into(), "TOO_MANY_SUBSCRIPTIONS"));
        assert!(error.retry_after.is_some_and(|retry| retry.seconds > 0), "{error:?}");
        open.push((client, stream, asks));
    }
    assert_counted(&door, "TOO_MANY_SUBSCRIPTIONS");
}

#[tokio::test(start_paused = true)]
async fn registrations_of_one_address_come_at_its_pace_and_others_at_theirs() {
    let rates = Quotas {
        registrations: Rate { per_second: 100, burst: 100 },
        registrations_per_address: Rate { per_second: 2, burst: 3 },
        ..Quotas::default()
    };
    let door = Door::open_with(quotas(rates)).await;
    let mut client = at(&door, 1, 1).await;
    for number in 1..=3 {
        register(&mut client, registration(number)).await;
    }
    let retry = expect_full(&door, client.register(registration(4)).await, "TOO_MANY_REGISTRATIONS");
    let refused = at(&door, 1, 2).await.register(registration(4)).await;
    assert!(refused.as_ref().is_err_and(|status| status.message().contains("2 registrations per second")));
    expect_full(&door, refused, "TOO_MANY_REGISTRATIONS");
    register(&mut at(&door, 2, 1).await, registration(5)).await;
    advance(retry).await;
    register(&mut client, registration(4)).await;
    assert_eq!(resolve(&mut client, "user-svc").await.expect("known").instances.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn registrations_in_all_have_a_pace_and_beats_and_goodbyes_have_none() {
    let one = Rate { per_second: 1, burst: 1 };
    let rates = Quotas { registrations: one, registrations_per_address: one, ..Quotas::default() };
    let door = Door::open_with(quotas(rates)).await;
    let mut client = at(&door, 1, 1).await;
    let granted = register(&mut client, registration(1)).await;
    let refused = at(&door, 2, 1).await.register(registration(2)).await;
    assert!(refused.as_ref().is_err_and(|status| status.message().ends_with("come in all")));
    expect_full(&door, refused, "TOO_MANY_REGISTRATIONS");
    for _ in 0..100 {
        let beaten = client.heartbeat(pb::HeartbeatRequest { beats: vec![beat_of(&granted)] }).await;
        assert_eq!(beaten.expect("beaten").into_inner().results[0].outcome(), pb::BeatOutcome::Renewed);
    }
    let target = pb::deregister_request::Target::Lease(support::lease_of(&granted));
    client.deregister(pb::DeregisterRequest { target: Some(target) }).await.expect("a goodbye is always heard");
}

#[tokio::test(start_paused = true)]
async fn a_full_catalog_says_what_is_full_and_keeps_what_it_holds() {
    let full =
        Limits { instances_per_service: 2, instances: 3, services: 2, rules_per_service: 1, ..Limits::default() };
    let door = Door::open_with(limits(full)).await;
    let mut client = door.client().await;
    let of = |service: &str, number| pb::RegisterRequest { service: service.to_owned(), ..registration(number) };
    register(&mut client, of("one", 1)).await;
    register(&mut client, of("one", 2)).await;
    expect_full(&door, client.register(of("one", 3)).await, "TOO_MANY_INSTANCES_OF_SERVICE");
    register(&mut client, of("two", 3)).await;
    expect_full(&door, client.register(of("three", 4)).await, "TOO_MANY_SERVICES");
    expect_full(&door, client.register(of("two", 4)).await, "TOO_MANY_INSTANCES");
    let rule = |number| pb::SetAdminStateRequest {
        service: "one".to_owned(),
        selector: Some(pb::Selector { by: Some(pb::selector::By::InstanceId(instance_id(number))) }),
        state: pb::AdminState::Draining.into(),
        ..Default::default()
    };
    client.set_admin_state(rule(1)).await.expect("the first rule");
    expect_full(&door, client.set_admin_state(rule(2)).await, "TOO_MANY_RULES");
    // A repeated registration needs no room.
    register(&mut client, of("one", 1)).await;
    assert_eq!(resolve(&mut client, "one").await.expect("known").instances.len(), 2);
}

/// Why one more name that nobody registered is refused.
async fn refused_for_unknown(client: &mut Client) -> pb::ServiceError {
    let (mut news, _asks) = watch(client, &["one-too-many"]).await.expect("open");
    let error = refused_subscription(&mut news).await;
    assert_eq!((error.code, &*error.reason), (Code::ResourceExhausted.into(), "TOO_MANY_UNKNOWN_SERVICES"));
    assert!(error.retry_after.is_some(), "{error:?}");
    error
}

#[tokio::test(start_paused = true)]
async fn names_that_nobody_registered_are_bounded_by_address_and_in_all() {
    let names = Share { in_all: 20_000, per_address: 20_000, per_connection: 20_000 };
    let door = Door::open_with(quotas(Quotas { watched_names: names, watch_streams: WIDE, ..Quotas::default() })).await;
    let mut open = Vec::new();
    for stream in 0..10 {
        let mut client = at(&door, stream, 1).await;
        let names: Vec<String> = (0..1_000).map(|number| format!("s{stream}-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (mut news, asks) = watch(&mut client, &names).await.expect("open");
        // A snapshot and the soft state of each.
        for _ in 0..2_000 {
            news.message().await.expect("it goes on").expect("it goes on");
        }
        if stream == 0 {
            let error = refused_for_unknown(&mut client).await;
            assert!(error.message.starts_with("1000 unknown names") && error.message.ends_with("this address"));
        }
        open.push((client, news, asks));
    }
    let error = refused_for_unknown(&mut at(&door, 10, 1).await).await;
    assert!(error.message.starts_with("10000 unknown names") && error.message.ends_with("in all"), "{error:?}");
    assert_counted(&door, "TOO_MANY_UNKNOWN_SERVICES");
}
