//! What a server may have processed is repeated only when that is declared safe, elsewhere, and within the budget.

use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http_body_util::Full;
use tonic::{Code, Status};

use crate::resolver::{Idempotency, MethodLevels};
use crate::rig::{CREATE, GET, Net, Reply, Rig, Server, call, eventually, fail, finish, hang, ok, request, send};
use crate::{ConnectivityState, clock};

/// Makes a call that is on its way to the only server there is when that server dies and another one appears.
async fn killed_midway(path: &'static str) -> (Result<Bytes, Status>, usize) {
    let net = Net::default();
    let dying = Server::start(&net, 1, hang);
    let rig = Rig::new(&net, [1]);
    let open = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, path).await }
    });
    eventually(|| dying.seen() == 1).await;
    let living = Server::start(&net, 2, ok);
    rig.resolve([crate::rig::endpoint(1), crate::rig::endpoint(2)]);
    rig.all(ConnectivityState::Ready).await;
    drop(dying);
    (open.await.unwrap(), living.seen())
}

#[tokio::test(start_paused = true)]
async fn a_repeatable_call_survives_the_death_of_its_server() {
    let (outcome, seen_elsewhere) = killed_midway(GET).await;
    assert!(outcome.is_ok());
    assert_eq!(seen_elsewhere, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_not_be_repeated_fails_unavailable_and_was_sent_once() {
    let (outcome, seen_elsewhere) = killed_midway(CREATE).await;
    assert_eq!(outcome.unwrap_err().code(), Code::Unavailable);
    assert_eq!(seen_elsewhere, 0);
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_answer_is_retried_elsewhere_and_says_so() {
    let net = Net::default();
    let failing = Server::start(&net, 1, |_, reply| fail(Status::unavailable("not today"), reply));
    let serving = Server::start(&net, 2, ok);
    let rig = Rig::new(&net, [1, 2]);
    rig.all(ConnectivityState::Ready).await;
    for _ in 0..30 {
        call(&rig.channel, GET).await.unwrap();
    }
    assert!(failing.seen() > 0);
    let retried = serving.heads().iter().filter(|head| head.contains_key("grpc-previous-rpc-attempts")).count();
    assert_eq!(retried, failing.seen());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_stands_alone_is_asked_again_after_a_pause() {
    let net = Net::default();
    let failing = Server::start(&net, 1, |_, reply| fail(Status::unavailable("not today"), reply));
    let rig = Rig::with(&net, [1], |config| {
        config.policy.retry.backoff_base = Duration::from_secs(10);
        config.policy.retry.backoff_max = Duration::from_secs(15);
    });
    rig.all(ConnectivityState::Ready).await;
    let begun = clock::now();
    let status = call(&rig.channel, GET).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "not today"), "the last answer is the caller's");
    assert_eq!(failing.seen(), 3);
    let took = clock::now() - begun;
    assert!(took > Duration::from_millis(100) && took < Duration::from_secs(25), "two pauses, full jitter: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_policy_says_which_statuses_are_tried_again_and_how_often() {
    let net = Net::default();
    let code = Arc::new(AtomicI32::new(0));
    let failing: Vec<Server> = (1..=2)
        .map(|port| {
            let code = code.clone();
            Server::start(&net, port, move |_, reply| fail(Status::new(code.load(Relaxed).into(), "no"), reply))
        })
        .collect();
    let rig = Rig::with(&net, [1, 2], |config| {
        config.policy.retry.codes = vec![Code::Aborted];
        config.policy.retry.attempts_max = 5;
        config.policy.ejection = None;
    });
    rig.all(ConnectivityState::Ready).await;
    let mut before = 0;
    for (answer, attempts) in [(Code::Aborted, 5), (Code::Unavailable, 1), (Code::NotFound, 1)] {
        code.store(answer.into(), Relaxed);
        assert_eq!(call(&rig.channel, GET).await.unwrap_err().code(), answer);
        let seen = failing.iter().map(Server::seen).sum();
        assert_eq!(seen - before, attempts, "{answer:?}");
        before = seen;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_says_when_its_call_may_come_back() {
    for (pushback, attempts, took) in [("700", 3, 1_400), ("0", 3, 0), ("-1", 1, 0), ("later", 1, 0)] {
        let net = Net::default();
        let failing = Server::start(&net, 1, move |_, reply| async move {
            let mut status = Status::unavailable("not now");
            status.metadata_mut().insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
            fail(status, reply).await;
        });
        let rig = Rig::new(&net, [1]);
        rig.all(ConnectivityState::Ready).await;
        let begun = clock::now();
        assert_eq!(call(&rig.channel, GET).await.unwrap_err().message(), "not now");
        assert_eq!(failing.seen(), attempts, "{pushback}");
        assert_eq!((clock::now() - begun).as_millis(), took, "{pushback}");
    }
}

#[tokio::test(start_paused = true)]
async fn other_answers_stand_as_they_are() {
    let net = Net::default();
    let failing = Server::start(&net, 1, |_, reply| fail(Status::not_found("no such user"), reply));
    let serving = Server::start(&net, 2, |_, reply| fail(Status::not_found("no such user"), reply));
    let rig = Rig::new(&net, [1, 2]);
    for _ in 0..20 {
        assert_eq!(call(&rig.channel, GET).await.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(failing.seen() + serving.seen(), 20);
}

/// A reset stream may have been processed: it is judged by the status that stands for it, like an answer.
#[tokio::test(start_paused = true)]
async fn a_stream_that_the_server_resets_is_repeated_where_its_status_and_its_method_allow_it() {
    for (reason, code, attempts) in [
        (Reason::CANCEL, Code::Cancelled, 1),
        (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted, 1),
        (Reason::INADEQUATE_SECURITY, Code::PermissionDenied, 1),
        (Reason::INTERNAL_ERROR, Code::Internal, 3),
        (Reason::NO_ERROR, Code::Internal, 3),
    ] {
        let net = Net::default();
        let server = Server::start(&net, 1, move |_, mut reply: Reply| async move { reply.send_reset(reason) });
        let rig = Rig::new(&net, [1]);
        let status = call(&rig.channel, GET).await.unwrap_err();
        assert_eq!(status.code(), code, "{reason:?}");
        assert!(status.message().starts_with("user-svc at 10.0.0.1:1: stream reset"), "{}", status.message());
        assert_eq!(server.seen(), attempts, "{reason:?}");
        assert_eq!(call(&rig.channel, CREATE).await.unwrap_err().code(), code);
        assert_eq!(server.seen(), attempts + 1, "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_caller_learns_what_was_lost_where_and_why_it_was_not_repeated() {
    let message = killed_midway(CREATE).await.0.unwrap_err().message().to_owned();
    for part in ["user-svc at 10.0.0.1:1", "connection lost", "may have been processed", "idempotency_level"] {
        assert!(message.contains(part), "{message}");
    }
}

/// Something on the way that is no gRPC server answers in its place.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_grpc_is_read_by_its_http_status() {
    for (http, code, attempts) in [(503, Code::Unavailable, 3), (404, Code::Unimplemented, 1), (418, Code::Unknown, 1)]
    {
        let net = Net::default();
        let server = Server::start(&net, 1, move |_, mut reply: Reply| async move {
            let head = http::Response::builder().status(http).body(()).unwrap();
            let mut page = reply.send_response(head, false).unwrap();
            let _ = page.send_data(Bytes::from_static(b"<html>"), true);
        });
        let rig = Rig::new(&net, [1]);
        let status = call(&rig.channel, GET).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert!(status.message().contains(&http.to_string()), "{}", status.message());
        assert_eq!(server.seen(), attempts);
        eventually(|| rig.handles()[&1].in_flight() == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_caller_s_own_descriptors_allow_a_retry_that_the_record_does_not() {
    let net = Net::default();
    let failing = Server::start(&net, 1, |_, reply| fail(Status::unavailable("not today"), reply));
    let _serving = Server::start(&net, 2, ok);
    let mut methods = MethodLevels::default();
    methods.declare("shop.Users", "Create", Idempotency::Idempotent);
    let rig = Rig::with(&net, [1, 2], |config| config.methods = Arc::new(methods));
    rig.all(ConnectivityState::Ready).await;
    for _ in 0..20 {
        call(&rig.channel, CREATE).await.unwrap();
    }
    assert!(failing.seen() > 0);
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_budget() {
    let net = Net::default();
    let servers: Vec<Server> = (1..=3)
        .map(|port| Server::start(&net, port, |_, reply| fail(Status::unavailable("not today"), reply)))
        .collect();
    let rig = Rig::new(&net, [1, 2, 3]);
    rig.all(ConnectivityState::Ready).await;
    for _ in 0..1000 {
        assert_eq!(call(&rig.channel, GET).await.unwrap_err().code(), Code::Unavailable);
    }
    let attempts: usize = servers.iter().map(Server::seen).sum();
    // A fifth more than the calls; the reserve of 30 is part of that fifth.
    assert_eq!(attempts, 1200);
}

#[tokio::test(start_paused = true)]
async fn a_message_too_large_to_keep_is_sent_once() {
    let net = Net::default();
    let refusing = Server::start(&net, 1, crate::rig::refuse);
    let serving = Server::start(&net, 2, ok);
    let rig = Rig::new(&net, [1, 2]);
    rig.all(ConnectivityState::Ready).await;
    let (mut answered, mut failed) = (0, 0);
    for _ in 0..50 {
        let large = request(CREATE).map(|_| tonic::body::Body::new(Full::new(Bytes::from(vec![0; (64 << 10) + 1]))));
        match send(&rig.channel, large).await {
            Ok(response) => {
                finish(response).await.unwrap();
                answered += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable);
                failed += 1;
            }
        }
    }
    assert_eq!((answered, failed), (serving.seen(), refusing.seen()));
    assert!(answered > 0 && failed > 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_given_up_and_its_repeatable_call_goes_elsewhere() {
    let net = Net::default();
    // The server answers pings while it lives; its tasks are then frozen by taking its side of the pipe away.
    let frozen = crate::rig::Frozen::start(&net, 1);
    let rig = Rig::new(&net, [1]);
    rig.all(ConnectivityState::Ready).await;
    frozen.freeze();
    let begun = crate::clock::now();
    let open = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, GET).await }
    });
    tokio::task::yield_now().await;
    let _living = Server::start(&net, 2, ok);
    rig.resolve([crate::rig::endpoint(1), crate::rig::endpoint(2)]);
    open.await.unwrap().unwrap();
    let took = crate::clock::now() - begun;
    assert!((1500..1600).contains(&took.as_millis()), "half a second of silence and one for the PONG: {took:?}");
}
