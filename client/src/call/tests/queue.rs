//! Calls that find nobody READY wait: bounded in number and in time.

use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tonic::Code;

use crate::resolver::{Resolution, ResolutionStatus};
use crate::rig::{CREATE, GET, Manners, Net, Rig, Server, call, eventually, finish, hang, ok, request, send};
use crate::target::TargetConfig;
use crate::{ConnectivityState, WaitForReady, clock};

/// So that a full connection is a full endpoint.
fn one_connection(config: &mut TargetConfig) {
    config.policy.connections_per_endpoint = NonZeroU8::MIN;
}

#[tokio::test(start_paused = true)]
async fn three_seconds_of_nothing_ready_end_a_call_with_the_last_connect_error() {
    let net = Net::default();
    let rig = Rig::new(&net, [1]);
    let begun = clock::now();
    let status = call(&rig.channel, GET).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("10.0.0.1:1: connection refused"), "{}", status.message());
    assert_eq!(clock::now() - begun, Duration::from_secs(3));
    assert_eq!(rig.channel.state(), ConnectivityState::TransientFailure);
}

#[tokio::test(start_paused = true)]
async fn failfast_counts_from_when_nothing_was_ready_any_more() {
    let net = Net::default();
    let full = Server::with_manners(&net, 1, Manners { streams_max: Some(1) }, hang);
    let rig = Rig::with(&net, [1], one_connection);
    let in_line = || {
        let channel = rig.channel.clone();
        tokio::spawn(async move { call(&channel, CREATE).await })
    };
    let _first = in_line();
    eventually(|| full.seen() == 1).await;
    let second = in_line();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    drop(full);
    let lost = clock::now();
    assert_eq!(second.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!((clock::now() - lost).as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_ready_outlasts_failfast() {
    let net = Net::default();
    let rig = Rig::new(&net, [1]);
    let waiting = tokio::spawn({
        let channel = rig.channel.clone();
        let mut request = request(GET);
        request.extensions_mut().insert(WaitForReady);
        async move { finish(send(&channel, request).await?).await }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    let _server = Server::start(&net, 1, ok);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_all_go_once_an_endpoint_is_ready() {
    let net = Net::default();
    let rig = Rig::new(&net, []);
    let mut calls = JoinSet::new();
    for _ in 0..500 {
        let channel = rig.channel.clone();
        calls.spawn(async move { call(&channel, CREATE).await });
    }
    eventually(|| rig.channel.target().queue().waiting() == 500).await;
    let server = Server::start(&net, 1, ok);
    rig.resolve([crate::rig::endpoint(1)]);
    while let Some(outcome) = calls.join_next().await {
        outcome.unwrap().unwrap();
    }
    assert_eq!((server.seen(), rig.channel.target().queue().waiting()), (500, 0));
}

#[tokio::test(start_paused = true)]
async fn one_call_too_many_is_turned_away_at_once() {
    let net = Net::default();
    let rig = Rig::with(&net, [1], |config| config.policy.waiting_max = 10);
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let channel = rig.channel.clone();
        calls.spawn(async move { call(&channel, GET).await });
    }
    eventually(|| rig.channel.target().queue().waiting() == 10).await;
    let begun = clock::now();
    assert_eq!(call(&rig.channel, GET).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(clock::now(), begun);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_emptied_is_waited_for_until_failfast() {
    let net = Net::default();
    let rig = Rig::new(&net, []);
    rig.resolver.send_replace(Arc::new(Resolution { endpoints: Vec::new(), status: ResolutionStatus::Empty }));
    let begun = clock::now();
    let status = call(&rig.channel, GET).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "user-svc: no instances"));
    assert_eq!(clock::now() - begun, Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn cancelled_calls_leave_the_queue_and_the_count_in_flight() {
    let net = Net::default();
    let rig = Rig::new(&net, [1]);
    let waiting = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, GET).await }
    });
    eventually(|| rig.channel.target().queue().waiting() == 1).await;
    waiting.abort();
    eventually(|| rig.channel.target().queue().waiting() == 0).await;

    let server = Server::start(&net, 1, hang);
    let sent = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, GET).await }
    });
    eventually(|| server.seen() == 1).await;
    assert_eq!(rig.handles()[&1].in_flight(), 1);
    sent.abort();
    eventually(|| rig.handles()[&1].in_flight() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_gets_no_more_streams_than_it_allows() {
    let net = Net::default();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = Server::with_manners(&net, 1, Manners { streams_max: Some(2) }, {
        let (open, most) = (open.clone(), most.clone());
        move |request, reply| {
            let (open, most) = (open.clone(), most.clone());
            async move {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                open.fetch_sub(1, Ordering::SeqCst);
                ok(request, reply).await;
            }
        }
    });
    let rig = Rig::with(&net, [1], one_connection);
    let mut calls = JoinSet::new();
    // They take 5 s, more than failfast: full is not the same as not READY.
    for _ in 0..1000 {
        let channel = rig.channel.clone();
        calls.spawn(async move { call(&channel, CREATE).await });
    }
    while let Some(outcome) = calls.join_next().await {
        outcome.unwrap().unwrap();
    }
    assert_eq!((server.seen(), most.load(Ordering::SeqCst)), (1000, 2));
}

/// Callers that come back at once, more than there are places.
#[tokio::test(start_paused = true)]
async fn whoever_waits_goes_before_whoever_comes() {
    const CALLERS: usize = 8;
    let net = Net::default();
    let _server = Server::with_manners(&net, 1, Manners { streams_max: Some(2) }, |request, reply| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        ok(request, reply).await;
    });
    let rig = Rig::with(&net, [1], one_connection);
    rig.all(ConnectivityState::Ready).await;
    let served: Arc<[AtomicUsize; CALLERS]> = Arc::default();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (channel, served) = (rig.channel.clone(), served.clone());
        callers.spawn(async move {
            loop {
                call(&channel, CREATE).await.unwrap();
                served[caller].fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let served = served.each_ref().map(|served| served.load(Ordering::Relaxed));
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(*least > 50 && most - least <= 1, "{served:?}");
}
