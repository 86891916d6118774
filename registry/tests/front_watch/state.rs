//! What a watcher is told, and from where on.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use mesh_runtime::clock;
use pb::registry_service_client::RegistryServiceClient;
use pb::watch_response::Event;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::kit::{Watch, changed, deregister, lasting, subscribe, whole};
use crate::support::{Door, instance_id, register, resolve};

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

#[tokio::test(start_paused = true)]
async fn a_server_that_knows_no_way_past_the_router_tells_the_same() {
    let (door, mut client) = whole().await;
    register(&mut client, lasting(1)).await;
    let mut held = Watch::open(&mut client, subscribe("user-svc", None)).await.beginning().await;

    let mut plain = RegistryServiceClient::new(door.registry.routes());
    let (requests, inbound) = mpsc::channel(1);
    requests.send(subscribe("user-svc", None)).await.expect("there is room");
    let responses = plain.watch(ReceiverStream::new(inbound)).await.expect("open").into_inner();
    let mut watch = Watch { requests, responses };
    let plainly = watch.beginning().await;
    assert_eq!((&plainly.instances, &plainly.position), (&held.instances, &held.position));
    register(&mut client, changed(1, 2)).await;
    held.apply(watch.news().await);
    assert_eq!(held.instances[&instance_id(1)].version, "2");
}
