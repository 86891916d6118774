//! What a target makes of what is resolved.

use std::time::Duration;

use tokio::time::sleep;

use crate::ConnectivityState::{Ready, Shutdown, TransientFailure};
use crate::conn::Conn;
use crate::resolver::{ResolvedEndpoint, Standing};
use crate::rig::{CREATE, Frozen, Manners, Net, Rig, Server, address, call, endpoint, eventually, hang, ok};

fn standing(port: u16, standing: Standing) -> ResolvedEndpoint {
    ResolvedEndpoint { standing, ..endpoint(port) }
}

async fn picks_of(rig: &Rig, port: u16, calls: usize) -> u64 {
    let handle = rig.handles()[&port].clone();
    let before = handle.picks();
    for _ in 0..calls {
        call(&rig.channel, CREATE).await.unwrap();
    }
    handle.picks() - before
}

#[tokio::test(start_paused = true)]
async fn unchanged_endpoints_keep_their_connections() {
    let net = Net::default();
    let _servers: Vec<Server> = (1..=3).map(|port| Server::start(&net, port, ok)).collect();
    let rig = Rig::new(&net, [1, 2]);
    rig.all(Ready).await;
    rig.resolve([endpoint(2), endpoint(3), ResolvedEndpoint { weight: 7, ..endpoint(1) }]);
    eventually(|| rig.handles().len() == 3).await;
    rig.all(Ready).await;
    assert_eq!(net.connects(), 3);
}

/// A registry that lost its memory numbers the same processes anew; that alone must not cost a connection.
#[tokio::test(start_paused = true)]
async fn a_new_incarnation_behind_a_living_connection_keeps_it() {
    let net = Net::default();
    let _server = Server::start(&net, 1, ok);
    let rig = Rig::new(&net, [1]);
    rig.all(Ready).await;
    rig.resolve([ResolvedEndpoint { incarnation: 9, ..endpoint(1) }]);
    eventually(|| rig.handles()[&1].incarnation() == 9).await;
    assert_eq!((net.connects(), rig.handles()[&1].state()), (1, Ready));
}

#[tokio::test(start_paused = true)]
async fn a_new_incarnation_ends_the_backoff() {
    let net = Net::default();
    let rig = Rig::new(&net, [1]);
    // Long enough for the backoff to reach its ceiling of five seconds.
    sleep(Duration::from_secs(60)).await;
    let _server = Server::start(&net, 1, ok);
    rig.all(TransientFailure).await;
    rig.resolve([ResolvedEndpoint { incarnation: 2, ..endpoint(1) }]);
    let begun = crate::clock::now();
    rig.all(Ready).await;
    assert!(crate::clock::now() - begun <= Duration::from_millis(2));
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_gets_no_picks_and_its_streams_finish() {
    let net = Net::default();
    let (finish, finishing) = tokio::sync::watch::channel(false);
    let slow = Server::start(&net, 1, move |request, reply| {
        let mut finishing = finishing.clone();
        async move {
            let _ = finishing.changed().await;
            ok(request, reply).await;
        }
    });
    let _other = Server::start(&net, 2, ok);
    let rig = Rig::new(&net, [1]);
    let open = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, CREATE).await }
    });
    eventually(|| slow.seen() == 1).await;
    let removed = rig.handles()[&1].clone();
    rig.resolve([endpoint(2)]);
    eventually(|| removed.state() == Shutdown).await;
    assert_eq!(picks_of(&rig, 2, 50).await, 50);

    finish.send_replace(true);
    open.await.unwrap().unwrap();
    assert_eq!((removed.picks(), removed.in_flight(), slow.seen()), (1, 0, 1));
    eventually(|| slow.connections() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_endpoint_gets_no_picks() {
    let net = Net::default();
    let _servers: Vec<Server> = (1..=2).map(|port| Server::start(&net, port, ok)).collect();
    let rig = Rig::new(&net, [1, 2]);
    rig.all(Ready).await;
    rig.resolve([standing(1, Standing::Draining), endpoint(2)]);
    // The news arrives when the manager has taken them: a moment in paused time.
    sleep(Duration::from_millis(1)).await;
    assert_eq!(picks_of(&rig, 1, 50).await, 0);
    assert_eq!(net.connects(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_answers_a_ping_is_picked_like_the_others() {
    let net = Net::default();
    let _servers: Vec<Server> = (1..=2).map(|port| Server::start(&net, port, ok)).collect();
    let rig = Rig::new(&net, [1, 2]);
    rig.all(Ready).await;
    for doubt in [Standing::Suspect, Standing::Stale, Standing::Lapsed] {
        rig.resolve([standing(1, doubt), endpoint(2)]);
        sleep(Duration::from_millis(1)).await;
        assert!(picks_of(&rig, 1, 100).await > 20, "{doubt:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_does_not_answer_is_picked_only_while_nobody_else_is_there() {
    let net = Net::default();
    let frozen = Frozen::start(&net, 1);
    let server = Server::start(&net, 2, ok);
    let rig = Rig::new(&net, [1, 2]);
    rig.all(Ready).await;
    frozen.freeze();
    rig.resolve([standing(1, Standing::Suspect), endpoint(2)]);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(picks_of(&rig, 1, 50).await, 0);

    // Alone it is better than nobody, for as long as its connection stands.
    drop(server);
    eventually(|| rig.handles()[&2].state() != Ready).await;
    let suspect = rig.handles()[&1].clone();
    let tried = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, CREATE).await }
    });
    eventually(|| suspect.picks() == 1).await;
    tried.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lapsed_endpoint_goes_after_a_minute_of_refused_connects_and_returns_when_it_is_listed_again() {
    let net = Net::default();
    let _server = Server::start(&net, 2, ok);
    let rig = Rig::new(&net, [1, 2]);
    eventually(|| rig.handles().get(&1).is_some_and(|handle| handle.state() == TransientFailure)).await;
    rig.resolve([standing(1, Standing::Lapsed), endpoint(2)]);
    sleep(Duration::from_secs(50)).await;
    assert!(rig.handles().contains_key(&1));
    sleep(Duration::from_secs(16)).await;
    assert!(!rig.handles().contains_key(&1));

    // Still lapsed under the same incarnation: still dropped, whatever else changes.
    let connects = net.connects();
    rig.resolve([standing(1, Standing::Lapsed), ResolvedEndpoint { weight: 7, ..endpoint(2) }]);
    sleep(Duration::from_secs(10)).await;
    assert!(!rig.handles().contains_key(&1));
    assert_eq!(net.connects(), connects);

    rig.resolve([endpoint(1), endpoint(2)]);
    eventually(|| rig.handles().contains_key(&1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_merely_unreachable_stays() {
    let net = Net::default();
    let rig = Rig::new(&net, [1]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(rig.handles()[&1].state(), TransientFailure);
    // Full jitter under a ceiling of 5 s: 2.5 s on average, one at a time.
    assert!((150..400).contains(&net.connects()), "{}", net.connects());
}

#[tokio::test(start_paused = true)]
async fn one_address_is_one_endpoint_and_the_one_in_better_standing_is_kept() {
    let net = Net::default();
    let _server = Server::start(&net, 1, ok);
    let rig = Rig::new(&net, []);
    let leftover = ResolvedEndpoint { instance_id: uuid::Uuid::max(), ..standing(1, Standing::Stale) };
    rig.resolve([endpoint(1), leftover]);
    rig.all(Ready).await;
    let ids: Vec<_> = rig.channel.endpoints().iter().map(|handle| handle.instance_id()).collect();
    assert_eq!(ids, [endpoint(1).instance_id]);
}

#[tokio::test(start_paused = true)]
async fn failure_sticks_until_an_endpoint_is_ready() {
    let net = Net::default();
    let rig = Rig::new(&net, [1, 2]);
    eventually(|| rig.channel.state() == TransientFailure).await;
    net.mute(&address(1));
    for _ in 0..1000 {
        assert_eq!(rig.channel.state(), TransientFailure);
        sleep(Duration::from_millis(20)).await;
    }
    let _server = Server::start(&net, 2, ok);
    eventually(|| rig.channel.state() == Ready).await;
}

#[tokio::test(start_paused = true)]
async fn connections_end_with_the_last_channel_and_the_last_stream() {
    let net = Net::default();
    let server = Server::start(&net, 1, ok);
    let hanging = Server::start(&net, 2, hang);
    let rig = Rig::new(&net, [1]);
    let held = Rig::new(&net, [2]);
    rig.all(Ready).await;
    let open = tokio::spawn({
        let channel = held.channel.clone();
        async move { call(&channel, CREATE).await }
    });
    eventually(|| hanging.seen() == 1).await;
    drop((rig, held));
    eventually(|| server.connections() == 0).await;
    assert_eq!(hanging.connections(), 1);
    open.abort();
    eventually(|| hanging.connections() == 0).await;
}

/// Hedging and short deadlines end calls long before the silence is long enough; the peer is frozen all the same.
#[tokio::test(start_paused = true)]
async fn a_frozen_endpoint_is_given_up_though_its_calls_were_given_up_before() {
    let net = Net::default();
    let frozen = Frozen::start(&net, 1);
    let rig = Rig::new(&net, [1]);
    rig.all(Ready).await;
    frozen.freeze();
    let handle = rig.handles()[&1].clone();
    let given_up = tokio::time::timeout(Duration::from_millis(50), call(&rig.channel, CREATE)).await;
    assert!(given_up.is_err() && handle.in_flight() == 0);
    sleep(Duration::from_millis(1_600)).await;
    // Another connection is tried for.
    assert_eq!(net.connects(), 2);
}

/// A dial that was called off must not keep the manager from seeing the others.
#[tokio::test(start_paused = true)]
async fn endpoints_that_go_while_they_are_dialled_hold_nobody_up() {
    let net = Net::default();
    for port in 1..=20 {
        net.black_hole(&address(port));
    }
    let _server = Server::start(&net, 21, ok);
    let rig = Rig::new(&net, 1..=20);
    eventually(|| net.connects() == 20).await;
    rig.resolve([endpoint(21)]);
    rig.all(Ready).await;
}

/// A connector comes from outside; one that panics is one failed attempt.
#[tokio::test(start_paused = true)]
async fn a_connector_that_panics_is_tried_again() {
    struct Clumsy(Net, std::sync::atomic::AtomicBool);

    impl crate::Connector for Clumsy {
        fn connect(&self, address: &crate::Address) -> crate::Connecting {
            if self.1.swap(false, std::sync::atomic::Ordering::Relaxed) {
                return Box::pin(async { panic!("expected by this test") });
            }
            self.0.connect(address)
        }
    }

    let net = Net::default();
    let _server = Server::start(&net, 1, ok);
    let clumsy = Clumsy(net.clone(), true.into());
    let rig = Rig::with(&net, [1], |config| config.connector = std::sync::Arc::new(clumsy));
    rig.all(Ready).await;
}

/// A snapshot for each PONG and each turn of a backoff must not wake ten thousand calls that it does not help.
#[tokio::test(start_paused = true)]
async fn waiting_calls_are_woken_only_by_what_may_help_them() {
    let net = Net::default();
    let full = Server::with_manners(&net, 1, Manners { streams_max: Some(1) }, hang);
    let rig = Rig::new(&net, [1]);
    rig.all(Ready).await;
    let target = rig.channel.target();
    let woken_by = async |change: &dyn Fn()| {
        let waiting = target.queue().join().unwrap();
        change();
        tokio::time::timeout(Duration::from_millis(10), waiting.told()).await.is_ok()
    };
    assert!(!woken_by(&|| rig.resolve([endpoint(1)])).await, "nothing is different");
    assert!(!woken_by(&|| rig.resolve([endpoint(1), endpoint(2)])).await, "nobody listens there");
    assert!(!woken_by(&|| {}).await);
    assert!(woken_by(&|| rig.resolve([ResolvedEndpoint { weight: 7, ..endpoint(1) }])).await, "another choice");
    let more_room = || target.shared.snapshot.load().candidates[0].first.conn.vitals().set_limit(2);
    assert!(woken_by(&more_room).await, "more room");
    drop(full);
    assert!(woken_by(&|| {}).await, "nobody is READY any more");
}

/// The last error names another address each time.
#[tokio::test(start_paused = true)]
async fn a_dial_that_fails_wakes_nobody_once_all_of_them_have() {
    let net = Net::default();
    let rig = Rig::new(&net, 1..=5);
    rig.all(TransientFailure).await;
    sleep(Duration::from_secs(1)).await;
    let (target, before) = (rig.channel.target(), net.connects());
    let waiting = target.queue().join().unwrap();
    let woken = tokio::time::timeout(Duration::from_secs(30), waiting.told()).await;
    assert!(woken.is_err() && net.connects() - before > 20, "{}", net.connects() - before);
}
