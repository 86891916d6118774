//! What a server may have processed is repeated only when that is declared safe, elsewhere, and within the budget.

use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use http_body_util::Full;
use tonic::{Code, Status};

use crate::ConnectivityState;
use crate::resolver::{Idempotency, MethodLevels};
use crate::rig::{CREATE, GET, Net, Rig, Server, call, eventually, fail, finish, hang, ok, request, send};

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
async fn an_unavailable_answer_stands_where_there_is_no_other_endpoint() {
    let net = Net::default();
    let failing = Server::start(&net, 1, |_, reply| fail(Status::unavailable("not today"), reply));
    let rig = Rig::new(&net, [1]);
    let status = call(&rig.channel, GET).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "not today"));
    assert_eq!(failing.seen(), 1);
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

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_server_resets_is_not_repeated() {
    let net = Net::default();
    let reset =
        |reason| Server::start(&net, 1, move |_, mut reply: crate::rig::Reply| async move { reply.send_reset(reason) });
    for (reason, code) in [
        (Reason::CANCEL, Code::Cancelled),
        (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
        (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
        (Reason::INTERNAL_ERROR, Code::Internal),
        (Reason::NO_ERROR, Code::Internal),
    ] {
        let server = reset(reason);
        let rig = Rig::new(&net, [1]);
        assert_eq!(call(&rig.channel, GET).await.unwrap_err().code(), code, "{reason:?}");
        assert_eq!(server.seen(), 1);
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
