//! The registrar against a registry that the test plays by hand, in paused time.

use mesh_api::registry::v1 as wire;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Status;
use wire::BeatOutcome::{Fenced, Renewed, UnknownLease};

use super::*;
use crate::fake_registry::{Calls, Stream, registry};
use crate::registries::{Round, Stores};

type Beats = Stream<wire::KeepAliveRequest, wire::KeepAliveResponse>;
type Answer = oneshot::Sender<Result<wire::RegisterResponse, Status>>;

const TTL: Duration = Duration::from_secs(9);
const INTERVAL: Duration = Duration::from_secs(3);

/// A registrar that has been told to register, and its registry.
fn started() -> (Registrar, Calls, JoinHandle<()>) {
    let (client, calls) = registry();
    let connect: Connect = Box::new(move || Round::only(client.clone()));
    let spec = InstanceSpec { ttl: Some(TTL), ..InstanceSpec::new("user-svc") };
    let registrar = Registrar::new(spec, "default".into(), connect, Entropy::seeded(5));
    let ready = registrar.clone();
    let registered = tokio::spawn(async move {
        ready.register("127.0.0.1:7410".parse().unwrap(), Some("127.0.0.1:7411".parse().unwrap())).await;
    });
    (registrar, calls, registered)
}

fn lease(n: u8) -> bytes::Bytes {
    vec![n; 16].into()
}

fn grant(n: u8) -> wire::RegisterResponse {
    wire::RegisterResponse {
        lease_id: lease(n),
        incarnation: n.into(),
        ttl: TTL.try_into().ok(),
        heartbeat_interval: INTERVAL.try_into().ok(),
        position: Some(wire::Position { store_id: "a".into(), generation: 0, revision: n.into() }),
    }
}

fn accept(answer: Answer, n: u8) {
    answer.send(Ok(grant(n))).unwrap();
}

/// Takes one beat and answers it.
async fn answer(beats: &mut Beats, outcome: wire::BeatOutcome) -> wire::Beat {
    let beat = beats.request().await.beats.remove(0);
    let result = wire::BeatResult { lease_id: beat.lease_id.clone(), outcome: outcome.into(), admin_state: 1 };
    beats.say(wire::KeepAliveResponse { results: vec![result], heartbeat_interval: None }).await;
    beat
}

/// Registered with lease 1 and beating.
async fn enrolled() -> (Registrar, Calls, Beats) {
    let (registrar, mut calls, registered) = started();
    let (_, granted) = calls.register().await;
    accept(granted, 1);
    registered.await.unwrap();
    let mut beats = calls.keep_alive().await;
    answer(&mut beats, Renewed).await;
    (registrar, calls, beats)
}

async fn reached(registrar: &Registrar, state: RegistrarState) {
    registrar.inner.status.clone().wait_for(|status| status.state == state).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_process_registers_once_and_beats_at_the_interval_give_or_take_a_tenth() {
    let (registrar, mut calls, mut beats) = enrolled().await;
    let mut last = clock::now();
    for _ in 0..20 {
        let beat = answer(&mut beats, Renewed).await;
        assert_eq!((beat.lease_id, beat.incarnation), (lease(1), 1));
        let passed = clock::now() - last;
        assert!(
            (INTERVAL.mul_f64(0.9)..=INTERVAL.mul_f64(1.1) + Duration::from_millis(2)).contains(&passed),
            "{passed:?}"
        );
        last = clock::now();
    }
    assert_eq!(registrar.status().state, RegistrarState::Registered);
    assert!(calls.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn every_beat_reports_the_load_since_the_last_one() {
    let (registrar, _calls, mut beats) = enrolled().await;
    assert_eq!(answer(&mut beats, Renewed).await.load, None);
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = asked.clone();
    registrar.report_load(move || LoadReport {
        cpu_utilization: f64::NAN,
        requests_per_second: 2.5,
        requests_in_flight: count.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        ..LoadReport::default()
    });
    for requests_in_flight in 0..3 {
        let load = answer(&mut beats, Renewed).await.load;
        let expected = wire::LoadReport { requests_per_second: 2.5, requests_in_flight, ..Default::default() };
        assert_eq!(load, Some(expected));
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_is_the_record_and_the_identity() {
    let (registrar, mut calls, _registered) = started();
    let (request, _granted) = calls.register().await;
    assert_eq!((request.service.as_str(), request.namespace.as_str()), ("user-svc", "default"));
    assert_eq!(request.instance_id, registrar.status().instance_id.to_string());
    assert_eq!(registrar.status().instance_id.get_version_num(), 7);
    assert_eq!((request.start_nonce.len(), request.held_incarnation), (16, 0));
    assert_eq!(request.serving_status(), wire::ServingStatus::Serving);
    assert_eq!(request.endpoints.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_lease_is_registered_again_at_once_with_what_is_held() {
    let (registrar, mut calls, mut beats) = enrolled().await;
    let first = registrar.status().instance_id;
    answer(&mut beats, Renewed).await;
    answer(&mut beats, UnknownLease).await;
    let then = clock::now();
    let (request, granted) = calls.register().await;
    assert_eq!(clock::now(), then);
    assert_eq!(request.instance_id, first.to_string());
    assert_eq!((request.held_incarnation, request.held_store_id.as_str()), (1, "a"));
    accept(granted, 2);
    let mut beats = calls.keep_alive().await;
    assert_eq!(answer(&mut beats, Renewed).await.lease_id, lease(2));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_beat_takes_a_new_id_and_a_new_nonce() {
    let (client, mut calls) = registry();
    let connect: Connect = Box::new(move || Round::only(client.clone()));
    let first_id = Uuid::from_u128(77);
    let spec = InstanceSpec { instance_id: Some(first_id), ..InstanceSpec::new("user-svc") };
    let registrar = Registrar::new(spec, "default".into(), connect, Entropy::seeded(5));
    let (ready, ..) = registrar.hooks();
    let _ready = ready("127.0.0.1:7410".parse().unwrap(), "127.0.0.1:7411".parse().ok());
    let (first, granted) = calls.register().await;
    assert_eq!(first.instance_id, first_id.to_string());
    accept(granted, 1);
    answer(&mut calls.keep_alive().await, Fenced).await;
    let (second, granted) = calls.register().await;
    assert_ne!(second.instance_id, first.instance_id);
    assert_ne!(second.start_nonce, first.start_nonce);
    assert_eq!(second.held_incarnation, 0);
    assert_eq!(Uuid::parse_str(&second.instance_id).unwrap().get_version_num(), 7);
    accept(granted, 2);
    let _beats = calls.keep_alive().await;
    assert_eq!(registrar.status().instance_id.to_string(), second.instance_id);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_fenced_takes_a_new_id() {
    let (_registrar, mut calls, _registered) = started();
    let (first, refused) = calls.register().await;
    refused.send(Err(Status::failed_precondition("a newer start holds it"))).unwrap();
    let (second, _) = calls.register().await;
    assert_ne!(second.instance_id, first.instance_id);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_absent_is_tried_at_once_then_within_5_s_for_ever() {
    let (registrar, mut calls, registered) = started();
    let mut attempts: Vec<Instant> = Vec::new();
    for _ in 0..200 {
        let (_, answer) = calls.register().await;
        attempts.push(clock::now());
        answer.send(Err(Status::unavailable("nobody there"))).unwrap();
    }
    assert!(!registered.is_finished());
    assert_eq!(registrar.status().state, RegistrarState::Registering);
    assert!(registrar.status().detail().contains("nobody there"));
    let waits: Vec<Duration> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(waits[0], Duration::ZERO);
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(5) + Duration::from_millis(1)));
    assert!(waits.iter().any(|wait| *wait > Duration::from_secs(4)));

    let (_, answer) = calls.register().await;
    accept(answer, 1);
    registered.await.unwrap();
    assert_eq!(registrar.status().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_shown_and_tried_again_all_the_same() {
    let (registrar, mut calls, _registered) = started();
    for _ in 0..3 {
        let (request, answer) = calls.register().await;
        assert_eq!(request.instance_id, registrar.status().instance_id.to_string());
        answer.send(Err(Status::invalid_argument("ttl 1s is outside 2s to 300s"))).unwrap();
    }
    calls.register().await;
    assert!(registrar.status().detail().contains("ttl 1s is outside"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_does_not_hold_the_registrar_up() {
    let (_registrar, mut calls, _registered) = started();
    let (_, _never) = calls.register().await;
    calls.register().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_opened_again_at_once_under_the_same_lease() {
    let (registrar, mut calls, mut beats) = enrolled().await;
    for _ in 0..3 {
        answer(&mut beats, Renewed).await;
    }
    beats.fail(Status::unavailable("going away")).await;
    let then = clock::now();
    let mut beats = calls.keep_alive().await;
    assert_eq!(clock::now(), then);
    assert_eq!(registrar.status().state, RegistrarState::Reconnecting);
    assert_eq!(answer(&mut beats, Renewed).await.lease_id, lease(1));
    reached(&registrar, RegistrarState::Registered).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_keeps_breaking_is_waited_for_half_a_ttl_at_most() {
    let (_registrar, mut calls, beats) = enrolled().await;
    drop(beats);
    let mut last = clock::now();
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        drop(calls.keep_alive().await);
        longest = longest.max(clock::now() - last);
        last = clock::now();
    }
    assert!(longest <= TTL / 2 + Duration::from_millis(1) && longest > TTL / 4, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_answer_is_given_up() {
    let (_registrar, mut calls, mut silent) = enrolled().await;
    silent.request().await;
    let sent = clock::now();
    let _beats = calls.keep_alive().await;
    assert!(clock::now() - sent <= TTL / 2 + Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn the_registry_can_ask_for_another_interval() {
    let (_registrar, _calls, mut beats) = enrolled().await;
    let beat = beats.request().await.beats.remove(0);
    let result = wire::BeatResult { lease_id: beat.lease_id, outcome: Renewed.into(), admin_state: 1 };
    let faster = Duration::from_secs(1);
    beats.say(wire::KeepAliveResponse { results: vec![result], heartbeat_interval: faster.try_into().ok() }).await;
    let then = clock::now();
    answer(&mut beats, Renewed).await;
    assert!(clock::now() - then <= faster.mul_f64(1.1) + Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_wants_stands_in_the_status() {
    let (registrar, _calls, mut beats) = enrolled().await;
    let beat = beats.request().await.beats.remove(0);
    let draining = wire::AdminState::Draining.into();
    let result = wire::BeatResult { lease_id: beat.lease_id, outcome: Renewed.into(), admin_state: draining };
    beats.say(wire::KeepAliveResponse { results: vec![result], heartbeat_interval: None }).await;
    registrar.inner.status.clone().wait_for(|status| status.operator_objects).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_beaten_at_once_beats_go_on_and_the_goodbye_comes_last() {
    let (registrar, mut calls, mut beats) = enrolled().await;
    let (_, draining, gone, status) = registrar.hooks();
    let then = clock::now();
    let drained = tokio::spawn(draining());
    let beat = answer(&mut beats, Renewed).await;
    assert_eq!(beat.serving_status(), wire::ServingStatus::Draining);
    assert_eq!(clock::now(), then);
    drained.await.unwrap();
    assert_eq!(status().0, "draining");
    for _ in 0..3 {
        let beat = answer(&mut beats, Renewed).await;
        assert_eq!(beat.serving_status(), wire::ServingStatus::Draining);
    }
    registrar.set_serving(ServingStatus::Serving);
    let gone = tokio::spawn(gone());
    let (request, answered) = calls.deregister().await;
    let named = wire::Lease { lease_id: lease(1), incarnation: 1 };
    assert_eq!(request.target, Some(wire::deregister_request::Target::Lease(named)));
    answered.send(Ok(wire::DeregisterResponse::default())).unwrap();
    gone.await.unwrap();
    assert_eq!(registrar.status().state, RegistrarState::Gone);
    assert!(beats.is_over().await);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_status_is_beaten_at_once() {
    let (registrar, _calls, mut beats) = enrolled().await;
    let then = clock::now();
    registrar.set_serving(ServingStatus::NotServing);
    assert_eq!(answer(&mut beats, Renewed).await.serving_status(), wire::ServingStatus::NotServing);
    assert_eq!(clock::now(), then);
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_said_again_where_the_registry_has_forgotten() {
    let (registrar, mut calls, mut beats) = enrolled().await;
    registrar.set_serving(ServingStatus::Draining);
    answer(&mut beats, UnknownLease).await;
    let (request, _) = calls.register().await;
    assert_eq!(request.serving_status(), wire::ServingStatus::Draining);
}

#[tokio::test(start_paused = true)]
async fn draining_and_leaving_end_in_time_without_a_registry() {
    let (registrar, calls, beats) = enrolled().await;
    drop((calls, beats));
    let then = clock::now();
    registrar.drain().await;
    assert!(clock::now() - then <= DRAINING_MAX + Duration::from_millis(2));
    let then = clock::now();
    registrar.leave().await;
    assert!(clock::now() - then <= Duration::from_millis(2_002));
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_that_is_not_taken_is_said_again() {
    let (registrar, mut calls, _beats) = enrolled().await;
    let gone = tokio::spawn(async move { registrar.leave().await });
    let (_, answered) = calls.deregister().await;
    answered.send(Err(Status::unavailable("just restarting"))).unwrap();
    let (_, answered) = calls.deregister().await;
    answered.send(Ok(wire::DeregisterResponse::default())).unwrap();
    gone.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_granted_while_leaving_is_given_back() {
    let (registrar, mut calls, _registered) = started();
    let (_, granted) = calls.register().await;
    let gone = tokio::spawn(async move { registrar.leave().await });
    tokio::task::yield_now().await;
    accept(granted, 1);
    let (_, answered) = calls.deregister().await;
    answered.send(Ok(wire::DeregisterResponse::default())).unwrap();
    gone.await.unwrap();
}

/// The registry may have granted what it could not answer.
#[tokio::test(start_paused = true)]
async fn a_registration_that_was_not_answered_is_said_again_before_leaving_and_its_lease_given_back() {
    let (registrar, mut calls, _registered) = started();
    let (first, lost) = calls.register().await;
    let gone = tokio::spawn(async move { registrar.leave().await });
    tokio::task::yield_now().await;
    lost.send(Err(Status::unavailable("connection lost"))).unwrap();
    let (again, granted) = calls.register().await;
    assert_eq!((&again.instance_id, &again.start_nonce), (&first.instance_id, &first.start_nonce));
    assert_eq!(again.serving_status(), wire::ServingStatus::Draining, "nobody is to call what leaves");
    accept(granted, 1);
    let (request, answered) = calls.deregister().await;
    let named = wire::Lease { lease_id: lease(1), incarnation: 1 };
    assert_eq!(request.target, Some(wire::deregister_request::Target::Lease(named)));
    answered.send(Ok(wire::DeregisterResponse::default())).unwrap();
    gone.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_registration_in_doubt_is_settled_also_where_the_registrar_rests() {
    let (registrar, mut calls, _registered) = started();
    for _ in 0..4 {
        let (_, lost) = calls.register().await;
        lost.send(Err(Status::deadline_exceeded("not answered"))).unwrap();
    }
    tokio::task::yield_now().await;
    assert!(calls.is_quiet());
    let gone = tokio::spawn(async move { registrar.leave().await });
    let then = clock::now();
    let (_, granted) = calls.register().await;
    assert_eq!(clock::now(), then);
    accept(granted, 1);
    let (_, answered) = calls.deregister().await;
    answered.send(Ok(wire::DeregisterResponse::default())).unwrap();
    gone.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_registration_leaves_nothing_to_take_back() {
    let (registrar, mut calls, _registered) = started();
    let (_, refused) = calls.register().await;
    let gone = tokio::spawn(async move { registrar.leave().await });
    tokio::task::yield_now().await;
    let then = clock::now();
    refused.send(Err(Status::invalid_argument("ttl 1s is outside 2s to 300s"))).unwrap();
    gone.await.unwrap();
    assert_eq!(clock::now(), then);
    assert!(calls.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_registrar_that_is_dropped_deregisters() {
    let (registrar, mut calls, _beats) = enrolled().await;
    drop(registrar);
    calls.deregister().await;
}

#[tokio::test(start_paused = true)]
async fn what_never_registered_leaves_at_once() {
    let (client, mut calls) = registry();
    let connect: Connect = Box::new(move || Round::only(client.clone()));
    let registrar = Registrar::new(InstanceSpec::new("a"), "default".into(), connect, Entropy::seeded(1));
    registrar.drain().await;
    registrar.leave().await;
    assert_eq!(registrar.status().state.label(), "idle");
    assert!(calls.is_quiet());
}

/// A registrar of two registries, in this order.
fn started_with_two() -> (Registrar, [Calls; 2], Arc<Stores>) {
    let ((one, one_calls), (other, other_calls)) = (registry(), registry());
    let stores: Arc<Stores> = Arc::default();
    let shared = stores.clone();
    let connect: Connect = Box::new(move || Round::over(vec![one.clone(), other.clone()], &shared));
    let spec = InstanceSpec { ttl: Some(TTL), ..InstanceSpec::new("user-svc") };
    let registrar = Registrar::new(spec, "default".into(), connect, Entropy::seeded(5));
    let ready = registrar.clone();
    tokio::spawn(async move { ready.register("127.0.0.1:7410".parse().unwrap(), None).await });
    (registrar, [one_calls, other_calls], stores)
}

fn listing_of(store: &str) -> wire::ListServicesResponse {
    let position = wire::Position { store_id: store.into(), ..Default::default() };
    wire::ListServicesResponse { position: Some(position), ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_dies_is_replaced_by_the_next_at_once_under_the_same_lease() {
    let (registrar, [mut one, mut other], _) = started_with_two();
    accept(one.register().await.1, 1);
    let mut beats = one.keep_alive().await;
    answer(&mut beats, Renewed).await;
    let killed = clock::now();
    beats.fail(Status::unavailable("killed")).await;
    let mut beats = other.keep_alive().await;
    assert_eq!(answer(&mut beats, Renewed).await.lease_id, lease(1));
    assert_eq!(clock::now(), killed);
    reached(&registrar, RegistrarState::Registered).await;
    assert!(one.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_refused_registration_is_tried_at_the_next_registry_at_once() {
    let (_registrar, [mut one, mut other], _) = started_with_two();
    one.register().await.1.send(Err(Status::unavailable("no quorum"))).unwrap();
    let refused = clock::now();
    accept(other.register().await.1, 1);
    assert_eq!(clock::now(), refused);
    answer(&mut other.keep_alive().await, Renewed).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_registers_in_a_second_store_while_the_own_one_is_heard_of() {
    let (_registrar, [mut one, mut other], stores) = started_with_two();
    accept(one.register().await.1, 1);
    let mut beats = one.keep_alive().await;
    answer(&mut beats, Renewed).await;
    beats.fail(Status::unavailable("killed")).await;
    // The stranger does not know the lease.
    answer(&mut other.keep_alive().await, UnknownLease).await;
    other.list_services().await.1.send(Ok(listing_of("b"))).unwrap();
    one.list_services().await.1.send(Ok(listing_of("a"))).unwrap();
    let (request, granted) = one.register().await;
    assert_eq!((request.held_incarnation, request.held_store_id.as_str()), (1, "a"));
    accept(granted, 1);
    answer(&mut one.keep_alive().await, Renewed).await;
    assert!(other.is_quiet());
    assert_eq!(stores.seconds(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_second_store_that_is_all_there_is_is_registered_in_within_one_round() {
    let (registrar, [mut one, mut other], _) = started_with_two();
    accept(one.register().await.1, 1);
    let mut beats = one.keep_alive().await;
    answer(&mut beats, Renewed).await;
    let gone = clock::now();
    drop((beats, one));
    answer(&mut other.keep_alive().await, UnknownLease).await;
    let mut glances = 0;
    let granted = loop {
        match other.next().await {
            crate::fake_registry::Call::ListServices(_, answer) => {
                glances += 1;
                answer.send(Ok(listing_of("b"))).unwrap();
            }
            crate::fake_registry::Call::Register(_, granted) => break granted,
            _ => panic!("nothing else is asked"),
        }
    };
    assert_eq!(glances, 2, "once before the first one was found gone, and once after");
    assert!(clock::now() - gone < Duration::from_secs(5), "{:?}", clock::now() - gone);
    let position = wire::Position { store_id: "b".into(), ..Default::default() };
    granted.send(Ok(wire::RegisterResponse { position: Some(position), ..grant(2) })).unwrap();
    answer(&mut other.keep_alive().await, Renewed).await;
    reached(&registrar, RegistrarState::Registered).await;
}
