//! What Watch promises, told with a generated client over a pipe, under paused time.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use mesh_runtime::clock;
use pb::deregister_request::Target;
use pb::watch_response::Event;
use support::{
    Client, Door, Held, beat_of, expect_refusal, instance_id, lease_of, refusal, register, registration, resolve,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, advance, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

/// One watch stream.
struct Watch {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

fn subscribe(service: &str, after: Option<pb::Position>) -> pb::WatchRequest {
    let subscription = pb::Subscription { service: service.to_owned(), after, ..pb::Subscription::default() };
    pb::WatchRequest { subscribe: vec![subscription], unsubscribe: Vec::new() }
}

impl Watch {
    async fn open(client: &mut Client, first: pb::WatchRequest) -> Self {
        let (requests, inbound) = mpsc::channel(8);
        requests.send(first).await.expect("there is room");
        let responses = client.watch(ReceiverStream::new(inbound)).await.expect("open").into_inner();
        Self { requests, responses }
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.responses.message().await.expect("open").expect("a message")
    }

    /// The next message that is no bookmark.
    async fn news(&mut self) -> pb::WatchResponse {
        loop {
            let response = self.next().await;
            if !matches!(response.event, Some(Event::Bookmark(_))) {
                return response;
            }
        }
    }

    async fn delta(&mut self) -> pb::Delta {
        match self.news().await.event {
            Some(Event::Delta(delta)) => delta,
            other => panic!("a delta is due, not {other:?}"),
        }
    }

    /// The snapshot and the soft state that a subscription begins with.
    async fn beginning(&mut self) -> Held {
        let mut held = Held::default();
        let snapshot = self.news().await;
        assert!(matches!(snapshot.event, Some(Event::Snapshot(_))), "{snapshot:?}");
        held.apply(snapshot);
        let soft = self.news().await;
        assert!(matches!(soft.event, Some(Event::SoftState(_))), "{soft:?}");
        held.apply(soft);
        held
    }

    /// Nothing but bookmarks comes for so long.
    async fn expect_silence(&mut self, time: Duration) {
        let news = timeout(time, self.news()).await;
        assert!(news.is_err(), "{news:?}");
    }
}

/// A registry whose state is whole: its default TTL has passed.
async fn whole() -> (Door, Client) {
    let door = Door::open().await;
    let mut client = door.client().await;
    sleep(Duration::from_secs(11)).await;
    let all = client.list_services(pb::ListServicesRequest::default()).await.expect("a page");
    assert!(all.into_inner().complete);
    (door, client)
}

async fn deregister(client: &mut Client, granted: &pb::RegisterResponse) {
    let target = Some(Target::Lease(lease_of(granted)));
    client.deregister(pb::DeregisterRequest { target }).await.expect("gone");
}

/// A registration with a TTL that outlasts any test.
fn lasting(number: u8) -> pb::RegisterRequest {
    let ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    pb::RegisterRequest { ttl, ..registration(number) }
}

fn changed(number: u8, version: usize) -> pb::RegisterRequest {
    pb::RegisterRequest { version: version.to_string(), ..lasting(number) }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_begins_with_a_snapshot_and_goes_on_with_deltas() {
    let (_door, mut client) = whole().await;
    let granted = register(&mut client, lasting(1)).await;
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    let mut held = watch.beginning().await;
    let resolved = resolve(&mut client, "user-svc").await.expect("known");
    assert_eq!(held.instances.keys().collect::<Vec<_>>(), [&instance_id(1)]);
    assert_eq!(held.position, resolved.position);

    register(&mut client, lasting(2)).await;
    let delta = watch.news().await;
    held.apply(delta);
    assert_eq!(held.instances.len(), 2);

    deregister(&mut client, &granted).await;
    let response = watch.news().await;
    let Some(Event::Delta(delta)) = &response.event else { panic!("{response:?}") };
    assert_eq!(delta.removals[0].instance_id, instance_id(1));
    assert_eq!(delta.removals[0].incarnation, granted.incarnation);
    assert_eq!(delta.removals[0].reason(), pb::RemovalReason::Deregistered);
    held.apply(response);
    assert_eq!(held.instances.keys().collect::<Vec<_>>(), [&instance_id(2)]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_service_is_an_empty_snapshot_and_followed_from_there() {
    let (_door, mut client) = whole().await;
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    let mut held = watch.beginning().await;
    assert!(held.instances.is_empty());
    assert_eq!(held.presence, i32::from(pb::ServicePresence::Unknown));

    let granted = register(&mut client, lasting(1)).await;
    held.apply(watch.news().await);
    assert_eq!((held.instances.len(), held.presence), (1, pb::ServicePresence::Populated.into()));
    deregister(&mut client, &granted).await;
    held.apply(watch.news().await);
    assert_eq!((held.instances.len(), held.presence), (0, pb::ServicePresence::Emptied.into()));

    let delete = pb::DeleteServiceRequest { service: "user-svc".to_owned(), ..pb::DeleteServiceRequest::default() };
    client.delete_service(delete).await.expect("deleted");
    held.apply(watch.news().await);
    assert_eq!(held.presence, i32::from(pb::ServicePresence::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_resume_is_a_delta_of_what_was_missed_and_of_another_store_a_snapshot() {
    let (_door, mut client) = whole().await;
    let first = register(&mut client, lasting(1)).await;
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    let mut held = watch.beginning().await;
    drop(watch);

    register(&mut client, lasting(2)).await;
    deregister(&mut client, &first).await;
    let mut watch = Watch::open(&mut client, subscribe("user-svc", held.position.clone())).await;
    let response = watch.news().await;
    let Some(Event::Delta(delta)) = &response.event else { panic!("{response:?}") };
    assert_eq!(delta.base_revision, held.position.as_ref().expect("a position").revision);
    assert_eq!((delta.upserts.len(), delta.removals.len()), (1, 1), "several changes come as one");
    held.apply(response);
    held.apply(watch.news().await);
    assert_eq!(held.instances.keys().collect::<Vec<_>>(), [&instance_id(2)]);
    drop(watch);

    // Nothing changed: the soft state alone says that the resume stands.
    let mut watch = Watch::open(&mut client, subscribe("user-svc", held.position.clone())).await;
    assert!(matches!(watch.news().await.event, Some(Event::SoftState(_))));
    watch.expect_silence(Duration::from_secs(20)).await;
    drop(watch);

    for version in 0..1100 {
        register(&mut client, changed(3, version)).await;
    }
    let mut watch = Watch::open(&mut client, subscribe("user-svc", held.position.clone())).await;
    let delta = watch.delta().await;
    assert_eq!(delta.upserts.iter().map(|instance| &instance.version).collect::<Vec<_>>(), ["1099"], "however much");

    let other = pb::Position { store_id: "other".to_owned(), ..held.position.expect("a position") };
    let mut watch = Watch::open(&mut client, subscribe("user-svc", Some(other))).await;
    assert_eq!(watch.beginning().await.instances.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_names_the_removals_that_still_hold() {
    let (_door, mut client) = whole().await;
    register(&mut client, lasting(1)).await;
    let gone = register(&mut client, lasting(2)).await;
    deregister(&mut client, &gone).await;
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    let Some(Event::Snapshot(chunk)) = watch.news().await.event else { panic!("a snapshot comes first") };
    assert_eq!(chunk.removals.len(), 1);
    assert_eq!((&chunk.removals[0].instance_id, chunk.removals[0].incarnation), (&instance_id(2), gone.incarnation));
}

#[tokio::test(start_paused = true)]
async fn half_closing_keeps_the_subscriptions() {
    let (_door, mut client) = whole().await;
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    watch.beginning().await;
    let Watch { requests, responses } = watch;
    drop(requests);
    sleep(Duration::from_secs(1)).await;
    register(&mut client, lasting(1)).await;
    let mut watch = Watch { requests: mpsc::channel(1).0, responses };
    assert_eq!(watch.delta().await.upserts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_stream_follows_many_and_drops_what_it_is_told_to() {
    let (_door, mut client) = whole().await;
    let names = ["a", "b", "c"];
    let subscribe = |service: &&str| pb::Subscription { service: (*service).to_owned(), ..pb::Subscription::default() };
    let request = pb::WatchRequest { subscribe: names.iter().map(subscribe).collect(), unsubscribe: Vec::new() };
    let mut watch = Watch::open(&mut client, request).await;
    for name in names {
        let snapshot = watch.next().await;
        assert_eq!(snapshot.service, name);
        watch.next().await;
    }

    let name = pb::ServiceName { service: "b".to_owned(), ..pb::ServiceName::default() };
    let request = pb::WatchRequest { subscribe: Vec::new(), unsubscribe: vec![name] };
    watch.requests.send(request).await.expect("open");
    sleep(Duration::from_millis(1)).await;
    for (number, service) in names.into_iter().enumerate() {
        let number = u8::try_from(number).expect("small");
        register(&mut client, pb::RegisterRequest { service: service.to_owned(), ..lasting(number) }).await;
    }
    assert_eq!(watch.news().await.service, "a");
    assert_eq!(watch.news().await.service, "c");
    watch.expect_silence(Duration::from_secs(6)).await;
}

#[tokio::test(start_paused = true)]
async fn subscribing_again_starts_over_at_the_position_given() {
    let (_door, mut client) = whole().await;
    register(&mut client, lasting(1)).await;
    let mut watch = Watch::open(&mut client, subscribe("user-svc", None)).await;
    watch.beginning().await;
    watch.requests.send(subscribe("user-svc", None)).await.expect("open");
    assert_eq!(watch.beginning().await.instances.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_bad_subscription_is_refused_and_the_others_go_on() {
    let (_door, mut client) = whole().await;
    let mut request = subscribe("Bad Name", None);
    let broken = pb::Position { store_id: String::new(), ..pb::Position::default() };
    request.subscribe.extend(subscribe("user-svc", Some(broken)).subscribe);
    request.subscribe.extend(subscribe("order-svc", None).subscribe);
    let mut watch = Watch::open(&mut client, request).await;

    let mut refused = BTreeMap::new();
    let mut snapshots = Vec::new();
    for _ in 0..4 {
        let response = watch.next().await;
        match response.event.expect("an event") {
            Event::Error(error) => {
                assert_eq!(error.code, i32::from(Code::InvalidArgument));
                refused.insert(response.service, error.reason);
            }
            Event::Snapshot(_) => snapshots.push(response.service),
            _ => {}
        }
    }
    assert_eq!(refused.keys().collect::<Vec<_>>(), ["Bad Name", "user-svc"]);
    assert_eq!(snapshots, ["order-svc"]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_hears_within_a_moment_that_the_state_is_whole() {
    let door = Door::open().await;
    let begun = clock::now();
    let mut client = door.client().await;
    let quiet = pb::RegisterRequest { service: "quiet".to_owned(), ..lasting(1) };
    register(&mut client, quiet).await;
    let mut request = subscribe("quiet", None);
    request.subscribe.extend(subscribe("user-svc", None).subscribe);
    let mut watch = Watch::open(&mut client, request).await;
    let busy = tokio::spawn(async move {
        for version in 0.. {
            register(&mut client, changed(2, version)).await;
            sleep(Duration::from_millis(100)).await;
        }
    });
    while !watch.next().await.complete || clock::now() - begun < Duration::from_secs(9) {}
    while watch.news().await.service != "quiet" {}
    let heard = clock::now() - begun;
    assert!(heard <= Duration::from_millis(10_600), "{heard:?}");
    busy.abort();
}

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
