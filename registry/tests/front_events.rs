//! What happened to whom, told at the gRPC door.

mod support;

use std::time::Duration;

use mesh_api::registry::v1 as pb;
use registry::{Quotas, Settings, Share};
use support::{
    Client, Door, beat_of, expect_field, expect_refusal, instance_id, lease_of, register, registration, settings,
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Streaming};

async fn events(client: &mut Client, request: pb::ListEventsRequest) -> Streaming<pb::ListEventsResponse> {
    client.list_events(request).await.expect("answered").into_inner()
}

async fn next(stream: &mut Streaming<pb::ListEventsResponse>) -> pb::ListEventsResponse {
    let next = timeout(Duration::from_secs(60), stream.message()).await.expect("in time");
    next.expect("it goes on").expect("it goes on")
}

async fn all(client: &mut Client) -> Vec<pb::MembershipEvent> {
    next(&mut events(client, pb::ListEventsRequest::default()).await).await.events
}

fn kinds(events: &[pb::MembershipEvent]) -> Vec<pb::EventKind> {
    events.iter().map(pb::MembershipEvent::kind).collect()
}

fn goodbye(granted: &pb::RegisterResponse) -> pb::DeregisterRequest {
    pb::DeregisterRequest { target: Some(pb::deregister_request::Target::Lease(lease_of(granted))) }
}

#[tokio::test(start_paused = true)]
async fn every_change_of_an_instance_is_told_with_its_reason_and_position() {
    let door = Door::open().await;
    let mut client = door.client().await;
    assert_eq!(all(&mut client).await, [], "nothing has happened");

    let asked = pb::RegisterRequest { version: "1.2".to_owned(), zone: "eu".to_owned(), ..registration(1) };
    let first = register(&mut client, asked.clone()).await;
    let beat = pb::Beat { serving_status: pb::ServingStatus::NotServing.into(), ..beat_of(&first) };
    client.heartbeat(pb::HeartbeatRequest { beats: vec![beat] }).await.expect("beaten");
    let rule = pb::SetAdminStateRequest {
        service: "user-svc".to_owned(),
        selector: Some(pb::Selector { by: Some(pb::selector::By::InstanceId(instance_id(1))) }),
        state: pb::AdminState::Draining.into(),
        ..Default::default()
    };
    client.set_admin_state(rule).await.expect("set");
    register(&mut client, pb::RegisterRequest { weight: 7, serving_status: 2, ..asked.clone() }).await;
    let second = register(&mut client, pb::RegisterRequest { start_nonce: vec![9; 16].into(), ..asked.clone() }).await;
    let held = pb::RegisterRequest {
        held_incarnation: first.incarnation,
        held_store_id: first.position.as_ref().expect("a position").store_id.clone(),
        ..asked
    };
    for _ in 0..2 {
        expect_refusal(client.register(held.clone()).await, Code::FailedPrecondition, "FENCED");
    }
    let gone = client.deregister(goodbye(&second)).await.expect("gone").into_inner();

    let told = all(&mut client).await;
    use pb::EventKind::{Admin, Fenced, Registered, Removed, Serving, TakenOver, Updated};
    assert_eq!(kinds(&told), [Registered, Serving, Admin, Updated, TakenOver, Fenced, Removed], "{told:#?}");
    let details: Vec<&str> = told.iter().map(|event| event.detail.as_str()).collect();
    assert_eq!(
        details,
        [
            "version 1.2, zone eu",
            "Serving to NotServing",
            "Enabled to Draining",
            "another weight",
            &format!("a newer start has the id; incarnation {} before", first.incarnation),
            &format!("a newer start holds the id, incarnation {}", second.incarnation),
            "it said goodbye",
        ]
    );
    for (number, event) in (1..).zip(&told) {
        assert_eq!(event.number, number);
        assert_eq!((&*event.namespace, &*event.service), ("default", "user-svc"));
        assert_eq!((&*event.instance_id, &*event.address), (&*instance_id(1), "10.0.0.1:7410"));
        assert_eq!(event.time.as_ref().map(|time| time.seconds), Some(1_750_000_000), "{event:?}");
    }
    let revisions: Vec<u64> = told.iter().map(|event| event.position.as_ref().expect("one").revision).collect();
    assert!(revisions.is_sorted(), "{revisions:?}");
    assert_eq!(told[0].position, first.position);
    assert_eq!(told[6].position, gone.position);
    assert_eq!((told[0].incarnation, told[6].incarnation), (first.incarnation, second.incarnation));
}

#[tokio::test(start_paused = true)]
async fn silence_is_told_and_so_is_what_is_held_back_for_it() {
    let door = Door::open().await;
    let mut client = door.client().await;
    for number in 1..=2 {
        let ttl = Some(prost_types::Duration { seconds: 2, nanos: 0 });
        register(&mut client, pb::RegisterRequest { ttl, ..registration(number) }).await;
    }
    sleep(Duration::from_secs(30)).await;
    let told = all(&mut client).await;
    use pb::EventKind::{HeldBack, Registered, Removed};
    let kinds = kinds(&told);
    assert_eq!(kinds[..2], [Registered, Registered]);
    assert_eq!(kinds.iter().filter(|kind| **kind == Removed).count(), 1, "the last one stays: {told:#?}");
    let removed = told.iter().find(|event| event.kind() == Removed).expect("just counted");
    assert_eq!(removed.detail, "its lease ran out: no heartbeat came");
    let held = told.iter().rfind(|event| event.kind() == HeldBack).expect("the last one is held");
    assert_eq!((&*held.instance_id, held.incarnation, &*held.address), ("", 0, ""), "a whole service is meant");
    assert_eq!(held.detail, "silence alone does not remove the last instance; 1 kept as STALE");
}

#[tokio::test(start_paused = true)]
async fn events_are_picked_by_namespace_service_and_number() {
    let door = Door::open().await;
    let mut client = door.client().await;
    for (number, service, namespace) in [(1, "one", ""), (2, "two", ""), (3, "one", ""), (4, "one", "other")] {
        let (service, namespace) = (service.to_owned(), namespace.to_owned());
        register(&mut client, pb::RegisterRequest { service, namespace, ..registration(number) }).await;
    }
    let ask = |service: &str, namespace: &str, limit| pb::ListEventsRequest {
        service: service.to_owned(),
        namespace: namespace.to_owned(),
        limit,
        follow: false,
    };
    for (request, numbers) in [
        (ask("", "", 0), vec![1, 2, 3]),
        (ask("", "", 2), vec![2, 3]),
        (ask("one", "", 0), vec![1, 3]),
        (ask("one", "default", 1), vec![3]),
        (ask("", "other", 0), vec![4]),
        (ask("nobody", "", 0), vec![]),
    ] {
        let mut stream = events(&mut client, request.clone()).await;
        let told = next(&mut stream).await;
        assert_eq!(told.events.iter().map(|event| event.number).collect::<Vec<_>>(), numbers, "{request:?}");
        assert!(stream.message().await.expect("it ends well").is_none(), "nobody asked for more");
    }
    expect_field(client.list_events(ask("Not A Name", "", 0)).await, "FIELD_INVALID", "service");
    expect_field(client.list_events(ask("", "", 1_001)).await, "FIELD_INVALID", "limit");
    expect_field(client.list_events(ask("", "", -1)).await, "FIELD_INVALID", "limit");
}

#[tokio::test(start_paused = true)]
async fn who_follows_hears_what_happens_and_how_much_was_missed() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let mut stream = events(
        &mut client,
        pb::ListEventsRequest { service: "user-svc".to_owned(), follow: true, ..Default::default() },
    )
    .await;
    assert_eq!(next(&mut stream).await.events, [], "the past comes at once, even where there is none");
    register(&mut client, pb::RegisterRequest { service: "other-svc".to_owned(), ..registration(2) }).await;
    let granted = register(&mut client, registration(1)).await;
    let told = next(&mut stream).await;
    assert_eq!((kinds(&told.events), told.missed), (vec![pb::EventKind::Registered], 0));
    client.deregister(goodbye(&granted)).await.expect("gone");
    assert_eq!(kinds(&next(&mut stream).await.events), [pb::EventKind::Removed]);

    door.registry.ends_watches().cancel();
    assert!(stream.message().await.expect("it ends well").is_none());
}

#[tokio::test(start_paused = true)]
async fn event_streams_are_bounded() {
    let event_streams = Share { in_all: 1, per_address: 1, per_connection: 1 };
    let door = Door::open_with(Settings { quotas: Quotas { event_streams, ..Quotas::default() }, ..settings() }).await;
    let mut client = door.client().await;
    let follow = pb::ListEventsRequest { follow: true, ..Default::default() };
    let mut stream = events(&mut client, follow.clone()).await;
    next(&mut stream).await;
    expect_refusal(client.list_events(follow.clone()).await, Code::ResourceExhausted, "TOO_MANY_STREAMS");
    drop(stream);
    sleep(Duration::from_millis(10)).await;
    events(&mut client, follow).await;
}
