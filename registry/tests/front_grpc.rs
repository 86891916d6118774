//! The registry's contract at its gRPC door, told with a generated client.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use pb::deregister_request::Target;
use pb::selector::By;
use support::{
    Door, beat_of, expect_field, expect_refusal, grpc_endpoint, instance_id, lease_of, refusal, register, registration,
    resolve,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn heartbeat(beats: Vec<pb::Beat>) -> pb::HeartbeatRequest {
    pb::HeartbeatRequest { beats }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[tokio::test(start_paused = true)]
async fn an_instance_registers_beats_is_resolved_and_says_goodbye() {
    let door = Door::open().await;
    let mut client = door.client().await;

    let asked = pb::RegisterRequest {
        zone: "eu-1a".to_owned(),
        version: "1.2.3".to_owned(),
        metadata: BTreeMap::from([("team".to_owned(), "accounts".to_owned())]),
        descriptor_digest: vec![5; 32].into(),
        grpc_services: vec![pb::GrpcService {
            name: "shop.user.v1.UserService".to_owned(),
            methods: vec![pb::GrpcMethod {
                name: "GetUser".to_owned(),
                idempotency_level: pb::IdempotencyLevel::NoSideEffects.into(),
            }],
            serving_status: pb::ServingStatus::Unspecified.into(),
        }],
        ..registration(1)
    };
    let granted = register(&mut client, asked.clone()).await;
    assert_eq!(granted.lease_id.len(), 16);
    assert!(granted.incarnation > 0);
    assert_eq!(granted.ttl, seconds(10));

    let beat =
        pb::Beat { load: Some(pb::LoadReport { requests_in_flight: 3, ..Default::default() }), ..beat_of(&granted) };
    let beaten = client.heartbeat(heartbeat(vec![beat])).await.expect("beaten").into_inner();
    assert_eq!(beaten.results[0].outcome(), pb::BeatOutcome::Renewed);
    assert_eq!(beaten.results[0].admin_state(), pb::AdminState::Enabled);
    assert_eq!(beaten.heartbeat_interval, granted.heartbeat_interval);

    let resolved = resolve(&mut client, "user-svc").await.expect("known");
    let [instance] = &resolved.instances[..] else { panic!("{resolved:?}") };
    assert_eq!(instance.namespace, "default");
    assert_eq!(instance.endpoints, asked.endpoints);
    assert_eq!((instance.zone.as_str(), instance.version.as_str(), instance.weight), ("eu-1a", "1.2.3", 100));
    assert_eq!(instance.metadata, asked.metadata);
    assert_eq!(instance.descriptor_digest, asked.descriptor_digest);
    assert_eq!(instance.grpc_services[0].methods, asked.grpc_services[0].methods);
    assert_eq!(instance.grpc_services[0].serving_status(), pb::ServingStatus::Serving);
    assert_eq!(instance.serving_status(), pb::ServingStatus::Serving);
    assert_eq!(instance.liveness(), pb::Liveness::Alive);
    assert!(instance.pickable);
    assert_eq!(resolved.presence(), pb::ServicePresence::Populated);
    let position = |position: &Option<pb::Position>| position.clone().expect("a position");
    assert!(position(&resolved.position).revision >= position(&granted.position).revision);

    let goodbye = pb::DeregisterRequest { target: Some(Target::Lease(lease_of(&granted))) };
    let gone = client.deregister(goodbye.clone()).await.expect("gone").into_inner();
    let resolved = resolve(&mut client, "user-svc").await.expect("still known");
    assert!(resolved.instances.is_empty());
    assert_eq!(resolved.presence(), pb::ServicePresence::Emptied);
    assert!(position(&resolved.position).revision >= position(&gone.position).revision);
    client.deregister(goodbye).await.expect("gone already is fine");

    let beaten = client.heartbeat(heartbeat(vec![beat_of(&granted)])).await.expect("answered").into_inner();
    assert_eq!(beaten.results[0].outcome(), pb::BeatOutcome::UnknownLease);
    expect_refusal(client.register(asked).await, Code::FailedPrecondition, "DEPARTED");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_falls_silent_goes_and_one_of_two_stays() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let kept = register(&mut client, registration(1)).await;
    register(&mut client, registration(2)).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        client.heartbeat(heartbeat(vec![beat_of(&kept)])).await.expect("beaten");
    }
    let resolved = resolve(&mut client, "user-svc").await.expect("known");
    assert_eq!(resolved.instances.iter().map(|held| &held.instance_id).collect::<Vec<_>>(), [&instance_id(1)]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_service_is_told_from_an_empty_one() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let status = resolve(&mut client, "nobody").await.expect_err("unknown");
    assert_eq!(refusal(&status).0, Code::NotFound);
    assert_eq!(refusal(&status).1, "UNKNOWN_SERVICE");
    expect_field(resolve(&mut client, "No Name").await, "FIELD_INVALID", "service");
    expect_field(resolve(&mut client, "").await, "FIELD_INVALID", "service");
}

#[tokio::test(start_paused = true)]
async fn a_ttl_out_of_range_is_refused_and_nothing_is_registered() {
    let door = Door::open().await;
    let mut client = door.client().await;
    for ttl in [1, 301, -5] {
        let answer = client.register(pb::RegisterRequest { ttl: seconds(ttl), ..registration(1) }).await;
        let status = answer.expect_err("a refusal");
        let (code, reason, field) = refusal(&status);
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("ttl")), "{ttl} s");
        assert!(reason == "TTL_OUT_OF_RANGE" || ttl < 0, "{reason}");
    }
    expect_refusal(resolve(&mut client, "user-svc").await, Code::NotFound, "UNKNOWN_SERVICE");
    let granted = register(&mut client, pb::RegisterRequest { ttl: seconds(2), ..registration(1) }).await;
    assert_eq!(granted.ttl, seconds(2));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_nobody_can_call_is_refused() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let texts = ["user-svc.local", "", "10.0.0", "10.0.0.1:7410", "fe80::1%eth0"];
    let addresses =
        ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "169.254.1.1", "fe80::1", "::ffff:0.0.0.0"];
    for (ips, reason) in [(&texts[..], "FIELD_INVALID"), (&addresses[..], "ADDRESS_INVALID")] {
        for ip in ips {
            let request = pb::RegisterRequest { endpoints: vec![grpc_endpoint(ip, 7410)], ..registration(1) };
            expect_field(client.register(request).await, reason, "endpoints.ip");
        }
    }
    for port in [0, 65_536] {
        let request = pb::RegisterRequest { endpoints: vec![grpc_endpoint("10.0.0.1", port)], ..registration(1) };
        expect_field(client.register(request).await, "ADDRESS_INVALID", "endpoints.port");
    }
    let http = pb::Endpoint { protocol: pb::Protocol::Http.into(), ..grpc_endpoint("10.0.0.1", 80) };
    let grpc_services = vec![pb::GrpcService { name: "shop.user.v1.UserService".into(), ..pb::GrpcService::default() }];
    for (endpoints, reason) in [(vec![], "NO_ENDPOINT"), (vec![http], "NO_GRPC_ENDPOINT")] {
        let request = pb::RegisterRequest { endpoints, grpc_services: grpc_services.clone(), ..registration(1) };
        expect_field(client.register(request).await, reason, "endpoints");
    }
    expect_refusal(resolve(&mut client, "user-svc").await, Code::NotFound, "UNKNOWN_SERVICE");
}

#[tokio::test(start_paused = true)]
async fn loopback_is_an_address_only_for_who_is_here() {
    let door = Door::open().await;
    let loopback = |ip: &str| pb::RegisterRequest { endpoints: vec![grpc_endpoint(ip, 7410)], ..registration(1) };
    for afar in ["10.0.0.9:40000", "[fd00::9]:40000", "[::ffff:10.0.0.9]:40000"] {
        let mut client = door.client_from(Some(afar.parse().expect("an address"))).await;
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            expect_field(client.register(loopback(ip)).await, "ADDRESS_INVALID", "endpoints.ip");
        }
        register(&mut client, loopback("10.0.0.9")).await;
    }
    for here in [None, Some("127.0.0.1:40000"), Some("[::1]:40000"), Some("[::ffff:127.0.0.1]:40000")] {
        let mut client = door.client_from(here.map(|here| here.parse().expect("an address"))).await;
        register(&mut client, loopback("127.0.0.1")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_refused_by_name() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let many = (0..33).map(|number| (format!("key-{number}"), String::new())).collect();
    let answer = client.register(pb::RegisterRequest { metadata: many, ..registration(1) }).await;
    expect_field(answer, "TOO_MANY_ENTRIES", "metadata");

    let long = BTreeMap::from([("key".to_owned(), "x".repeat(9 * 1024))]);
    let answer = client.register(pb::RegisterRequest { metadata: long, ..registration(1) }).await;
    expect_field(answer, "FIELD_LENGTH", "metadata");

    let control = BTreeMap::from([("key".to_owned(), "a\nb".to_owned())]);
    let answer = client.register(pb::RegisterRequest { metadata: control, ..registration(1) }).await;
    expect_field(answer, "FIELD_INVALID", "metadata");

    let huge = BTreeMap::from([("key".to_owned(), "x".repeat(65 * 1024))]);
    let answer = client.register(pb::RegisterRequest { metadata: huge, ..registration(1) }).await;
    expect_refusal(answer, Code::InvalidArgument, "MESSAGE_TOO_LARGE");

    let beyond = BTreeMap::from([("key".to_owned(), "x".repeat(300 * 1024))]);
    let answer = client.register(pb::RegisterRequest { metadata: beyond, ..registration(1) }).await;
    assert_eq!(answer.expect_err("not even decoded").code(), Code::OutOfRange);

    let beats = vec![pb::Beat::default(); 1001];
    expect_field(client.heartbeat(heartbeat(beats)).await, "TOO_MANY_ENTRIES", "beats");
    expect_refusal(resolve(&mut client, "user-svc").await, Code::NotFound, "UNKNOWN_SERVICE");
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_one_start_is_the_same_incarnation() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let first = register(&mut client, registration(1)).await;
    let again = register(&mut client, registration(1)).await;
    assert_eq!((first.incarnation, &first.lease_id), (again.incarnation, &again.lease_id));
}

#[tokio::test(start_paused = true)]
async fn a_second_start_takes_the_id_and_the_first_is_fenced() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let first = register(&mut client, registration(1)).await;
    let nonce = |byte: u8| vec![byte; 16].into();
    let second = register(&mut client, pb::RegisterRequest { start_nonce: nonce(99), ..registration(1) }).await;
    assert!(second.incarnation > first.incarnation);

    let beats = vec![beat_of(&first), beat_of(&second)];
    let beaten = client.heartbeat(heartbeat(beats)).await.expect("answered").into_inner();
    let outcomes: Vec<_> = beaten.results.iter().map(pb::BeatResult::outcome).collect();
    assert_eq!(outcomes, [pb::BeatOutcome::Fenced, pb::BeatOutcome::Renewed]);

    let old = pb::RegisterRequest {
        held_incarnation: first.incarnation,
        held_store_id: first.position.clone().expect("a position").store_id,
        ..registration(1)
    };
    expect_refusal(client.register(old).await, Code::FailedPrecondition, "FENCED");

    let goodbye = pb::DeregisterRequest { target: Some(Target::Lease(lease_of(&first))) };
    let _ = client.deregister(goodbye).await;
    let resolved = resolve(&mut client, "user-svc").await.expect("known");
    assert_eq!(resolved.instances[0].incarnation, second.incarnation, "the fenced start removes nobody");
}

#[tokio::test(start_paused = true)]
async fn beats_that_name_nothing_are_answered_in_their_place() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let granted = register(&mut client, registration(1)).await;
    let nothing = |bytes: &[u8]| pb::Beat { lease_id: bytes.to_vec().into(), incarnation: 1, ..pb::Beat::default() };
    let beats = vec![nothing(b"short"), beat_of(&granted), nothing(&[0; 16]), pb::Beat::default()];
    let beaten = client.heartbeat(heartbeat(beats.clone())).await.expect("answered").into_inner();
    let outcomes: Vec<_> = beaten.results.iter().map(pb::BeatResult::outcome).collect();
    use pb::BeatOutcome::{Renewed, UnknownLease};
    assert_eq!(outcomes, [UnknownLease, Renewed, UnknownLease, UnknownLease]);
    let named = |leases: &[bytes::Bytes]| leases.to_vec();
    assert_eq!(
        named(&beaten.results.iter().map(|result| result.lease_id.clone()).collect::<Vec<_>>()),
        named(&beats.iter().map(|beat| beat.lease_id.clone()).collect::<Vec<_>>()),
    );
    expect_field(client.heartbeat(heartbeat(Vec::new())).await, "FIELD_MISSING", "beats");
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_that_names_no_lease_is_refused_and_removes_nobody() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let granted = register(&mut client, registration(1)).await;
    let goodbye = |lease: pb::Lease| pb::DeregisterRequest { target: Some(Target::Lease(lease)) };
    let nobody = pb::Lease { incarnation: 0, ..lease_of(&granted) };
    expect_field(client.deregister(goodbye(nobody)).await, "FIELD_MISSING", "lease.incarnation");
    for bytes in [0, 15, 17] {
        let cut = pb::Lease { lease_id: vec![1; bytes].into(), ..lease_of(&granted) };
        expect_field(client.deregister(goodbye(cut)).await, "FIELD_LENGTH", "lease.lease_id");
    }
    assert_eq!(resolve(&mut client, "user-svc").await.expect("known").instances.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_beat_with_a_status_of_a_later_protocol_says_nothing_new() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let service = pb::GrpcService { name: "shop.user.v1.UserService".to_owned(), ..pb::GrpcService::default() };
    let draining = pb::ServingStatus::Draining.into();
    let request =
        pb::RegisterRequest { serving_status: draining, grpc_services: vec![service.clone()], ..registration(1) };
    let granted = register(&mut client, request).await;
    let (requests, inbound) = mpsc::channel(2);
    let mut answers = client.keep_alive(ReceiverStream::new(inbound)).await.expect("open").into_inner();
    let later =
        pb::Beat { serving_status: 99, grpc_service_statuses: [(service.name, 99)].into(), ..beat_of(&granted) };
    for beats in [vec![later, beat_of(&granted)], vec![beat_of(&granted)]] {
        requests.send(pb::KeepAliveRequest { beats }).await.expect("open");
        let answer = answers.message().await.expect("open").expect("an answer");
        assert!(answer.results.iter().all(|result| result.outcome() == pb::BeatOutcome::Renewed));
    }
    let resolved = resolve(&mut client, "user-svc").await.expect("known");
    assert_eq!(resolved.instances[0].serving_status(), pb::ServingStatus::Draining);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_stream_answers_each_request_in_order() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let granted = register(&mut client, registration(1)).await;
    let (requests, inbound) = mpsc::channel(8);
    let mut answers = client.keep_alive(ReceiverStream::new(inbound)).await.expect("open").into_inner();

    for load in 0..5 {
        let load = Some(pb::LoadReport { requests_in_flight: load, ..pb::LoadReport::default() });
        let beats =
            vec![pb::Beat { load, ..beat_of(&granted) }; 1 + load.map_or(0, |load| load.requests_in_flight as usize)];
        requests.send(pb::KeepAliveRequest { beats }).await.expect("open");
    }
    for expected in 1..=5 {
        let answer = answers.message().await.expect("open").expect("an answer");
        assert_eq!(answer.results.len(), expected);
        assert!(answer.results.iter().all(|result| result.outcome() == pb::BeatOutcome::Renewed));
        assert_eq!(answer.heartbeat_interval, granted.heartbeat_interval);
    }
    drop(requests);
    assert!(answers.message().await.expect("a clean end").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_stream_that_the_peer_ends_is_suspect_and_one_that_we_end_is_not() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let granted = register(&mut client, registration(1)).await;
    let request = || pb::KeepAliveRequest { beats: vec![beat_of(&granted)] };
    let liveness = async |client: &mut support::Client| {
        tokio::time::sleep(Duration::from_millis(200)).await;
        resolve(client, "user-svc").await.expect("known").instances[0].liveness()
    };

    let (requests, inbound) = mpsc::channel(1);
    let mut answers = client.keep_alive(ReceiverStream::new(inbound)).await.expect("open").into_inner();
    requests.send(request()).await.expect("open");
    answers.message().await.expect("open").expect("an answer");
    drop((requests, answers));
    assert_eq!(liveness(&mut client).await, pb::Liveness::Suspect);

    let (requests, inbound) = mpsc::channel(1);
    let mut answers = client.keep_alive(ReceiverStream::new(inbound)).await.expect("open").into_inner();
    requests.send(request()).await.expect("open");
    answers.message().await.expect("open").expect("an answer");
    assert_eq!(liveness(&mut client).await, pb::Liveness::Alive);
    door.registry.ends_watches().cancel();
    assert!(answers.message().await.expect("a clean end").is_none());
    assert_eq!(liveness(&mut client).await, pb::Liveness::Alive);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_stream_that_ends_while_the_registry_leaves_says_nothing_of_its_instances() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let granted = register(&mut client, registration(1)).await;
    let (requests, inbound) = mpsc::channel(1);
    let mut answers = client.keep_alive(ReceiverStream::new(inbound)).await.expect("open").into_inner();
    requests.send(pb::KeepAliveRequest { beats: vec![beat_of(&granted)] }).await.expect("open");
    answers.message().await.expect("open").expect("an answer");
    door.registry.leaving().cancel();
    requests.send(pb::KeepAliveRequest { beats: vec![beat_of(&granted)] }).await.expect("open");
    answers.message().await.expect("open").expect("a registry that leaves still answers");
    drop((requests, answers));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let resolved = resolve(&mut client, "user-svc").await.expect("known");
    assert_eq!(resolved.instances[0].liveness(), pb::Liveness::Alive);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_none_ends_its_heartbeat_stream_with_the_reason() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let requests = tokio_stream::iter([pb::KeepAliveRequest::default()]);
    let mut answers = client.keep_alive(requests).await.expect("open").into_inner();
    expect_field(answers.message().await, "FIELD_MISSING", "beats");
}

#[tokio::test(start_paused = true)]
async fn an_operator_drains_and_enables_and_the_rule_outlives_the_instance() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let granted = register(&mut client, registration(1)).await;
    let rule = |state: pb::AdminState| pb::SetAdminStateRequest {
        service: "user-svc".to_owned(),
        selector: Some(pb::Selector { by: Some(By::InstanceId(instance_id(1))) }),
        state: state.into(),
        ..pb::SetAdminStateRequest::default()
    };
    let set = client.set_admin_state(rule(pb::AdminState::Draining)).await.expect("set").into_inner();
    assert_eq!(set.instances_selected, 1);
    let resolved = resolve(&mut client, "user-svc").await.expect("known");
    assert_eq!(resolved.instances[0].admin_state(), pb::AdminState::Draining);
    assert!(!resolved.instances[0].pickable);
    let beaten = client.heartbeat(heartbeat(vec![beat_of(&granted)])).await.expect("answered").into_inner();
    assert_eq!(beaten.results[0].admin_state(), pb::AdminState::Draining);

    let operator =
        pb::InstanceName { service: "user-svc".to_owned(), instance_id: instance_id(1), ..Default::default() };
    client.deregister(pb::DeregisterRequest { target: Some(Target::Instance(operator)) }).await.expect("removed");
    register(&mut client, pb::RegisterRequest { start_nonce: vec![9; 16].into(), ..registration(1) }).await;
    let resolved = resolve(&mut client, "user-svc").await.expect("known");
    assert_eq!(resolved.instances[0].admin_state(), pb::AdminState::Draining);

    client.set_admin_state(rule(pb::AdminState::Enabled)).await.expect("set");
    let resolved = resolve(&mut client, "user-svc").await.expect("known");
    assert!(resolved.instances[0].pickable);

    expect_field(client.set_admin_state(rule(pb::AdminState::Unspecified)).await, "FIELD_MISSING", "state");
    let nobody = pb::SetAdminStateRequest { selector: None, ..rule(pb::AdminState::Draining) };
    expect_field(client.set_admin_state(nobody).await, "FIELD_MISSING", "selector");
    let forever = pb::SetAdminStateRequest { expires_in: seconds(31 * 86_400), ..rule(pb::AdminState::Draining) };
    expect_field(client.set_admin_state(forever).await, "EXPIRY_OUT_OF_RANGE", "expires_in");
    expect_field(client.deregister(pb::DeregisterRequest::default()).await, "FIELD_MISSING", "target");
}

#[tokio::test(start_paused = true)]
async fn a_service_is_deleted_when_nobody_lives_in_it() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let granted = register(&mut client, registration(1)).await;
    let delete = pb::DeleteServiceRequest { service: "user-svc".to_owned(), ..pb::DeleteServiceRequest::default() };
    expect_refusal(client.delete_service(delete.clone()).await, Code::FailedPrecondition, "SERVICE_IN_USE");

    let goodbye = pb::DeregisterRequest { target: Some(Target::Lease(lease_of(&granted))) };
    client.deregister(goodbye).await.expect("gone");
    client.delete_service(delete.clone()).await.expect("deleted");
    expect_refusal(resolve(&mut client, "user-svc").await, Code::NotFound, "UNKNOWN_SERVICE");
    client.delete_service(delete).await.expect("deleted already is fine");
}

#[tokio::test(start_paused = true)]
async fn services_come_in_pages_in_the_order_of_their_names() {
    let door = Door::open().await;
    let mut client = door.client().await;
    for number in 0..7 {
        let service = format!("svc-{number}");
        register(&mut client, pb::RegisterRequest { service, ..registration(number) }).await;
    }
    let elsewhere = pb::RegisterRequest { namespace: "other".to_owned(), ..registration(8) };
    register(&mut client, elsewhere).await;

    let mut names = Vec::new();
    let mut request = pb::ListServicesRequest { page_size: 3, ..pb::ListServicesRequest::default() };
    loop {
        let page = client.list_services(request.clone()).await.expect("a page").into_inner();
        assert!(page.services.len() <= 3);
        assert!(page.services.iter().all(|service| service.instances == 1 && service.instances_pickable == 1));
        names.extend(page.services.into_iter().map(|service| service.service));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, (0..7).map(|number| format!("svc-{number}")).collect::<Vec<_>>());

    let all = client.list_services(pb::ListServicesRequest::default()).await.expect("a page").into_inner();
    assert_eq!((all.services.len(), all.next_page_token.as_str()), (7, ""));
    let namespace = "other".to_owned();
    let other = client.list_services(pb::ListServicesRequest { namespace, ..Default::default() }).await;
    assert_eq!(other.expect("a page").into_inner().services.len(), 1);

    let negative = pb::ListServicesRequest { page_size: -1, ..pb::ListServicesRequest::default() };
    expect_field(client.list_services(negative).await, "FIELD_INVALID", "page_size");
    let made_up = pb::ListServicesRequest { page_token: "Made Up".to_owned(), ..pb::ListServicesRequest::default() };
    expect_field(client.list_services(made_up).await, "FIELD_INVALID", "page_token");
}

#[tokio::test(start_paused = true)]
async fn a_read_waits_for_the_position_it_needs_and_says_when_it_did_not_come() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let granted = register(&mut client, registration(1)).await;
    let here = granted.position.expect("a position");
    let read = |at_least: pb::Position| pb::ResolveRequest {
        service: "user-svc".to_owned(),
        at_least: Some(at_least),
        ..pb::ResolveRequest::default()
    };
    client.resolve(read(here.clone())).await.expect("included");

    let ahead = pb::Position { revision: here.revision + 1, ..here.clone() };
    let started = mesh_runtime::clock::now();
    expect_refusal(client.resolve(read(ahead.clone())).await, Code::Unavailable, "NODE_BEHIND");
    assert_eq!(mesh_runtime::clock::now() - started, Duration::from_secs(1));

    let mut other = client.clone();
    let (waited, _) = tokio::join!(client.resolve(read(ahead)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        register(&mut other, registration(2)).await
    });
    assert_eq!(waited.expect("it came").into_inner().instances.len(), 2);

    let elsewhere = pb::Position { store_id: "another".to_owned(), ..here.clone() };
    expect_refusal(client.resolve(read(elsewhere)).await, Code::FailedPrecondition, "OTHER_STORE");
    let nowhere = pb::Position { store_id: String::new(), ..here };
    expect_field(client.resolve(read(nowhere)).await, "FIELD_INVALID", "store_id");
}

#[tokio::test(start_paused = true)]
async fn the_state_is_complete_one_default_ttl_after_a_start_without_it() {
    let door = Door::open().await;
    let mut client = door.client().await;
    register(&mut client, registration(1)).await;
    assert!(!resolve(&mut client, "user-svc").await.expect("known").complete);
    tokio::time::sleep(Duration::from_millis(10_600)).await;
    assert!(resolve(&mut client, "user-svc").await.expect("known").complete);
}
