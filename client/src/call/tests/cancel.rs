//! A call may be dropped at any moment, and leaves nothing behind.

use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tonic::Status;
use tower::Service;

use crate::rig::{
    CREATE, GET, MESSAGE, Manners, Net, Reply, Rig, Server, call, eventually, fail, hang, head, request, send,
};
use crate::target::TargetConfig;
use crate::{ConnectivityState, Policy};

/// The next call is in line while one is open.
fn one_connection(config: &mut TargetConfig) {
    config.policy.connections_per_endpoint = NonZeroU8::MIN;
}

/// Nothing is in flight, nobody waits, and the next call finds a place at once.
async fn nothing_is_left(rig: &Rig) {
    eventually(|| {
        rig.handles().values().all(|handle| handle.in_flight() == 0) && rig.channel.target().queue().waiting() == 0
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_sent_and_never_polled() {
    let net = Net::default();
    let server = Server::start(&net, 1, hang);
    let rig = Rig::new(&net, [1]);
    rig.all(ConnectivityState::Ready).await;
    let sent = rig.channel.clone().call(request(CREATE));
    assert_eq!(rig.handles()[&1].in_flight(), 1, "it is sent when it is made");
    eventually(|| server.seen() == 1).await;
    drop(sent);
    assert_eq!(rig.handles()[&1].in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_answer() {
    let net = Net::default();
    let server = Server::start(&net, 1, hang);
    let rig = Rig::new(&net, [1]);
    rig.all(ConnectivityState::Ready).await;
    let open = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, GET).await }
    });
    eventually(|| server.seen() == 1).await;
    open.abort();
    nothing_is_left(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_place() {
    let net = Net::default();
    let server = Server::with_manners(&net, 1, Manners { streams_max: Some(1) }, hang);
    let rig = Rig::with(&net, [1], one_connection);
    rig.all(ConnectivityState::Ready).await;
    let _first = rig.channel.clone().call(request(CREATE));
    let mut waiting = Box::pin(rig.channel.clone().call(request(CREATE)));
    assert_eq!(rig.channel.target().queue().waiting(), 0, "a place in the queue is taken by the first poll");
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    assert_eq!(rig.channel.target().queue().waiting(), 1);
    drop(waiting);
    assert_eq!((rig.channel.target().queue().waiting(), rig.handles()[&1].in_flight()), (0, 1));
    eventually(|| server.seen() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_between_two_attempts() {
    let net = Net::default();
    let failing = Server::start(&net, 1, |_, reply| fail(Status::unavailable("not today"), reply));
    let rig = Rig::with(&net, [1], |config| {
        config.policy = Policy::default();
        config.policy.retry.backoff_base = Duration::from_secs(3_600);
        config.policy.retry.backoff_max = Duration::from_secs(3_600);
    });
    rig.all(ConnectivityState::Ready).await;
    let pausing = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, GET).await }
    });
    eventually(|| failing.seen() == 1 && rig.handles()[&1].in_flight() == 0).await;
    pausing.abort();
    assert!(pausing.await.unwrap_err().is_cancelled());
    nothing_is_left(&rig).await;
    assert_eq!(failing.seen(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_to_its_end() {
    let net = Net::default();
    let _server = Server::start(&net, 1, |_, mut reply: Reply| async move {
        let mut stream = reply.send_response(head(), false).unwrap();
        stream.send_data(Bytes::from_static(MESSAGE), false).unwrap();
        std::future::pending::<()>().await;
    });
    let rig = Rig::new(&net, [1]);
    let unread = send(&rig.channel, request(CREATE)).await.unwrap();
    drop(unread);
    assert_eq!(rig.handles()[&1].in_flight(), 0);
    let mut half_read = send(&rig.channel, request(CREATE)).await.unwrap().into_body();
    half_read.frame().await.unwrap().unwrap();
    assert_eq!(rig.handles()[&1].in_flight(), 1);
    drop(half_read);
    nothing_is_left(&rig).await;
}

/// One place, many who want it, and each of them cancelled one wake-up later than the one before: whoever is woken and
/// goes away passes the place on.
#[tokio::test(start_paused = true)]
async fn no_wake_up_goes_with_a_call_that_is_dropped_when_it_is_woken() {
    let net = Net::default();
    let gate = Arc::new(Semaphore::new(0));
    let server = Server::with_manners(&net, 1, Manners { streams_max: Some(1) }, {
        let gate = gate.clone();
        move |request, reply| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                crate::rig::ok(request, reply).await;
            }
        }
    });
    let rig = Rig::with(&net, [1], one_connection);
    rig.all(ConnectivityState::Ready).await;
    for polls in 1..6 {
        let first = rig.channel.clone().call(request(CREATE));
        let mut woken = Box::pin(rig.channel.clone().call(request(CREATE)));
        assert!(futures_util::poll!(woken.as_mut()).is_pending());
        let last = tokio::spawn({
            let channel = rig.channel.clone();
            async move { call(&channel, CREATE).await }
        });
        eventually(|| rig.channel.target().queue().waiting() == 2).await;
        drop(first);
        for _ in 1..polls {
            let _ = futures_util::poll!(woken.as_mut());
        }
        drop(woken);
        gate.add_permits(3);
        last.await.unwrap().unwrap();
        nothing_is_left(&rig).await;
        gate.forget_permits(gate.available_permits());
    }
    assert!(server.seen() >= 5);
}
