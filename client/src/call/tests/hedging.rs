//! A slow call goes once to a second endpoint, where that is safe and within the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::policy::Hedging;
use crate::resolver::MethodLevels;
use crate::rig::{
    CREATE, GET, MESSAGE, Net, Reply, Rig, Server, call, eventually, fail, finish, ok, refuse, request, send,
};
use crate::{ConnectivityState, Policy, clock};

/// Calls that make the service's latency known: as many as a percentile needs.
const KNOWN: usize = 100;
/// Shortest time to a second attempt, by the default policy.
const DELAY: Duration = Duration::from_millis(50);

/// A server that takes as long as it is told to.
struct Slow {
    server: Server,
    millis: Arc<AtomicU64>,
    /// Requests whose stream was reset before they were answered.
    resets: mpsc::UnboundedReceiver<h2::Reason>,
}

impl Slow {
    fn start(net: &Net, port: u16) -> Self {
        Self::answering(net, port, |request, reply| async move { ok(request, reply).await })
    }

    fn answering<F, Fut>(net: &Net, port: u16, answer: F) -> Self
    where
        F: Fn(Request<RecvStream>, Reply) -> Fut + Send + Sync + Clone + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let millis = Arc::new(AtomicU64::new(0));
        let (reset, resets) = mpsc::unbounded_channel();
        let server = Server::start(net, port, {
            let millis = millis.clone();
            move |request, mut reply: Reply| {
                let (millis, reset, answer) = (millis.clone(), reset.clone(), answer.clone());
                async move {
                    let pause = Duration::from_millis(millis.load(Ordering::Relaxed));
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        Ok(reason) = std::future::poll_fn(|cx| reply.poll_reset(cx)) => {
                            let _ = reset.send(reason);
                            return;
                        }
                    }
                    answer(request, reply).await;
                }
            }
        });
        Self { server, millis, resets }
    }

    fn takes(&self, pause: Duration) {
        self.millis.store(pause.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }
}

/// A channel to these ports whose latencies are known.
async fn known(net: &Net, ports: impl IntoIterator<Item = u16>) -> Rig {
    known_with(net, ports, |_| {}).await
}

async fn known_with(net: &Net, ports: impl IntoIterator<Item = u16>, policy: impl FnOnce(&mut Policy)) -> Rig {
    let rig = Rig::with(net, ports, |config| {
        // One call at a time to one endpoint after the other: which one is slow is known beforehand.
        config.policy.balancer = crate::Balancer::RoundRobin;
        policy(&mut config.policy);
    });
    rig.all(ConnectivityState::Ready).await;
    for _ in 0..KNOWN {
        call(&rig.channel, GET).await.unwrap();
    }
    // It is worked out once a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig
}

/// How long a call takes.
async fn timed(rig: &Rig, path: &str) -> (Result<Bytes, Status>, Duration) {
    let begun = clock::now();
    let outcome = call(&rig.channel, path).await;
    (outcome, clock::now() - begun)
}

async fn nothing_in_flight(rig: &Rig) {
    eventually(|| rig.handles().values().all(|handle| handle.in_flight() == 0)).await;
}

#[tokio::test(start_paused = true)]
async fn the_second_endpoint_answers_and_the_first_attempt_is_reset() {
    let net = Net::default();
    let (mut slow, fast) = (Slow::start(&net, 1), Slow::start(&net, 2));
    let rig = known(&net, [1, 2]).await;
    slow.takes(Duration::from_secs(10));
    let before = (slow.server.seen(), fast.server.seen());
    for _ in 0..10 {
        let (outcome, took) = timed(&rig, GET).await;
        outcome.unwrap();
        assert!(took <= DELAY, "{took:?}");
    }
    let hedged = slow.server.seen() - before.0;
    assert!(hedged > 0 && fast.server.seen() - before.1 == 10);
    let says_so = fast.server.heads().iter().filter(|head| head.contains_key("grpc-previous-rpc-attempts")).count();
    assert_eq!(says_so, hedged);
    for _ in 0..hedged {
        assert_eq!(slow.resets.recv().await, Some(h2::Reason::CANCEL));
    }
    nothing_in_flight(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_goes_on_and_may_still_win() {
    let net = Net::default();
    let (slow, slower) = (Slow::start(&net, 1), Slow::start(&net, 2));
    let rig = known(&net, [1, 2]).await;
    slow.takes(Duration::from_millis(80));
    slower.takes(Duration::from_millis(80));
    let seen = slow.server.seen() + slower.server.seen();
    let (outcome, took) = timed(&rig, GET).await;
    outcome.unwrap();
    assert_eq!(took, Duration::from_millis(80), "a second attempt takes until 130 ms");
    assert_eq!(slow.server.seen() + slower.server.seen(), seen + 2);
    nothing_in_flight(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn hedges_are_retries_to_the_budget() {
    let net = Net::default();
    let servers = [1, 2, 3].map(|port| Slow::start(&net, port));
    let rig = known(&net, [1, 2, 3]).await;
    servers.iter().for_each(|server| server.takes(Duration::from_secs(1)));
    let seen = || servers.iter().map(|slow| slow.server.seen()).sum::<usize>();
    let before = seen();
    let mut calls = JoinSet::new();
    for _ in 0..400 {
        let channel = rig.channel.clone();
        calls.spawn(async move { call(&channel, GET).await });
    }
    while let Some(outcome) = calls.join_next().await {
        outcome.unwrap().unwrap();
    }
    // A fifth of the calls of these ten seconds, those that made the latency known among them.
    assert_eq!(seen() - before, 400 + (400 + KNOWN) / 5);
    nothing_in_flight(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_is_sent_once_however_slow() {
    let net = Net::default();
    let servers = [1, 2].map(|port| Slow::start(&net, port));
    let rig = known(&net, [1, 2]).await;
    servers.iter().for_each(|server| server.takes(Duration::from_secs(2)));
    let (outcome, took) = timed(&rig, CREATE).await;
    outcome.unwrap();
    let seen: usize = servers.iter().map(|slow| slow.server.seen()).sum();
    assert_eq!((took, seen), (Duration::from_secs(2), KNOWN + 1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_messages_is_sent_once_however_slow() {
    let net = Net::default();
    let servers = [1, 2].map(|port| Slow::start(&net, port));
    let rig = known(&net, [1, 2]).await;
    servers.iter().for_each(|server| server.takes(Duration::from_secs(2)));
    let two_pieces = || vec![Bytes::from_static(MESSAGE), Bytes::from_static(MESSAGE)];
    let one_piece = || vec![Bytes::from([MESSAGE, MESSAGE].concat())];
    for pieces in [two_pieces(), one_piece()] {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Status>(Frame::data(piece)));
        let body = tonic::body::Body::new(StreamBody::new(futures_util::stream::iter(frames)));
        finish(send(&rig.channel, request(GET).map(|_| body)).await.unwrap()).await.unwrap();
    }
    let seen: usize = servers.iter().map(|slow| slow.server.seen()).sum();
    assert_eq!(seen, KNOWN + 2);
}

#[tokio::test(start_paused = true)]
async fn hedging_can_be_turned_off_and_waits_for_what_it_needs_to_know() {
    let net = Net::default();
    let servers = [1, 2].map(|port| Slow::start(&net, port));
    let off = known_with(&net, [1, 2], |policy| policy.hedging = None).await;
    let unknown = Rig::new(&net, [1, 2]);
    unknown.all(ConnectivityState::Ready).await;
    servers.iter().for_each(|server| server.takes(Duration::from_secs(2)));
    for rig in [&off, &unknown] {
        assert_eq!(timed(rig, GET).await.1, Duration::from_secs(2));
    }
}

#[tokio::test(start_paused = true)]
async fn the_policy_says_how_long_the_first_attempt_has() {
    let net = Net::default();
    let (slow, _fast) = (Slow::start(&net, 1), Slow::start(&net, 2));
    let delay_min = Duration::from_millis(300);
    let rig = known_with(&net, [1, 2], |policy| policy.hedging = Some(Hedging { delay_min })).await;
    slow.takes(Duration::from_secs(10));
    let mut longest = Duration::ZERO;
    for _ in 0..4 {
        longest = longest.max(timed(&rig, GET).await.1);
    }
    assert_eq!(longest, delay_min);
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_that_fails_does_not_end_the_first() {
    let net = Net::default();
    let slow = Slow::start(&net, 1);
    let failing = Slow::answering(&net, 2, |request: Request<RecvStream>, reply| async move {
        if request.headers().contains_key("grpc-previous-rpc-attempts") {
            fail(Status::unavailable("not today"), reply).await;
        } else {
            ok(request, reply).await;
        }
    });
    let rig = known(&net, [1, 2]).await;
    slow.takes(Duration::from_millis(200));
    let mut hedged = 0;
    for _ in 0..4 {
        let (outcome, took) = timed(&rig, GET).await;
        outcome.unwrap();
        hedged += usize::from(took == Duration::from_millis(200));
    }
    assert!(hedged > 0 && failing.server.seen() > KNOWN / 2);
    nothing_in_flight(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_that_fails_does_not_end_the_second() {
    let net = Net::default();
    let millis = Arc::new(AtomicU64::new(0));
    // Once it is slow, the first attempt fails at 80 ms and the second, begun at 50 ms, takes until 130 ms.
    let servers = [1, 2].map(|port| {
        let millis = millis.clone();
        Server::start(&net, port, move |request: Request<RecvStream>, reply| {
            let millis = Duration::from_millis(millis.load(Ordering::Relaxed));
            async move {
                tokio::time::sleep(millis).await;
                if !millis.is_zero() && !request.headers().contains_key("grpc-previous-rpc-attempts") {
                    fail(Status::unavailable("not today"), reply).await;
                } else {
                    ok(request, reply).await;
                }
            }
        })
    });
    let rig = known(&net, [1, 2]).await;
    millis.store(80, Ordering::Relaxed);
    let (outcome, took) = timed(&rig, GET).await;
    outcome.unwrap();
    assert_eq!(took, Duration::from_millis(130));
    assert_eq!(servers.iter().map(Server::seen).sum::<usize>(), KNOWN + 2);
}

#[tokio::test(start_paused = true)]
async fn two_failures_and_a_word_to_stop_end_the_call() {
    let net = Net::default();
    let millis = Arc::new(AtomicU64::new(0));
    let servers = [1, 2, 3].map(|port| {
        let millis = millis.clone();
        Server::start(&net, port, move |request: Request<RecvStream>, reply: Reply| {
            let millis = Duration::from_millis(millis.load(Ordering::Relaxed));
            async move {
                tokio::time::sleep(millis).await;
                if millis.is_zero() {
                    return ok(request, reply).await;
                }
                let mut status = Status::unavailable("stop");
                status.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
                fail(status, reply).await;
            }
        })
    });
    let rig = known(&net, [1, 2, 3]).await;
    millis.store(80, Ordering::Relaxed);
    let (outcome, took) = timed(&rig, GET).await;
    assert_eq!(outcome.unwrap_err().code(), Code::Unavailable);
    assert_eq!(took, Duration::from_millis(130));
    assert_eq!(servers.iter().map(Server::seen).sum::<usize>(), KNOWN + 2, "the third is not asked");
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_that_is_refused_leaves_the_first_alone() {
    let net = Net::default();
    let slow = Slow::start(&net, 1);
    let _refusing = Slow::answering(&net, 2, |request: Request<RecvStream>, reply| async move {
        if request.headers().contains_key("grpc-previous-rpc-attempts") {
            refuse(request, reply).await;
        } else {
            ok(request, reply).await;
        }
    });
    let rig = known(&net, [1, 2]).await;
    slow.takes(Duration::from_millis(200));
    for _ in 0..4 {
        timed(&rig, GET).await.0.unwrap();
    }
    nothing_in_flight(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_that_is_dropped_leaves_nothing_behind() {
    let net = Net::default();
    let mut servers = [1, 2].map(|port| Slow::start(&net, port));
    let rig = known(&net, [1, 2]).await;
    servers.iter().for_each(|server| server.takes(Duration::from_secs(3_600)));
    let hedged = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, GET).await }
    });
    eventually(|| rig.handles().values().all(|handle| handle.in_flight() == 1)).await;
    hedged.abort();
    for server in &mut servers {
        assert_eq!(server.resets.recv().await, Some(h2::Reason::CANCEL));
    }
    nothing_in_flight(&rig).await;
}

/// The generated stub of a server stream sends one message too; whoever takes it twice reads it from the beginning.
#[tokio::test(start_paused = true)]
async fn a_method_that_is_known_to_stream_is_never_sent_twice() {
    let net = Net::default();
    let (slow, fast) = (Slow::start(&net, 1), Slow::start(&net, 2));
    let mut methods = MethodLevels::default();
    methods.declare_streaming("shop.Users", "Get");
    let rig = Rig::with(&net, [1, 2], |config| {
        config.policy.balancer = crate::Balancer::RoundRobin;
        config.methods = Arc::new(methods);
    });
    rig.all(ConnectivityState::Ready).await;
    for _ in 0..KNOWN {
        call(&rig.channel, GET).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    slow.takes(Duration::from_secs(1));
    let before = slow.server.seen() + fast.server.seen();
    for _ in 0..10 {
        call(&rig.channel, GET).await.unwrap();
    }
    assert_eq!(slow.server.seen() + fast.server.seen(), before + 10);
}

/// A second attempt that has no place to go takes nothing from the budget.
#[tokio::test(start_paused = true)]
async fn what_is_not_sent_is_not_paid_for() {
    let net = Net::default();
    let (slow, other) = (Slow::start(&net, 1), Slow::start(&net, 2));
    let rig = known_with(&net, [1, 2], |policy| policy.in_flight_max = 1).await;
    slow.takes(Duration::from_secs(1));
    other.takes(Duration::from_secs(1));
    for _ in 0..5 {
        call(&rig.channel, GET).await.unwrap();
    }
    assert_eq!(slow.server.seen() + other.server.seen(), KNOWN + 5);
    let target = rig.channel.target();
    let left = (0..100).take_while(|_| target.budget().withdraw(target.ledger().now())).count();
    assert_eq!(left, 30);
}
