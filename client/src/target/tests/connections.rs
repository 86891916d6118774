//! Several connections to one endpoint, and the end of one.

use std::num::NonZeroU8;

use super::*;
use crate::ConnectivityState::Ready;
use crate::conn::Conn;
use crate::rig::{CREATE, Manners, address, call, eventually, hang};

/// One endpoint that allows one stream on a connection, and up to three connections.
async fn narrow() -> (Net, Server, Rig) {
    let net = Net::default();
    let server = Server::with_manners(&net, 1, Manners { streams_max: Some(1) }, ok);
    let rig = Rig::with(&net, [1], |config| config.policy.connections_per_endpoint = NonZeroU8::new(3).unwrap());
    rig.all(Ready).await;
    (net, server, rig)
}

/// Fills every connection there may be.
async fn fill(net: &Net, rig: &Rig) -> Vec<InFlight> {
    let mut held = vec![place(rig)];
    for connections in 2..=3 {
        assert_eq!(place_for(rig, GET).unwrap_err(), Unplaced::Wait);
        eventually(|| net.connects() == connections).await;
        settled().await;
        held.push(place(rig));
    }
    held
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_every_connection_full_has_another_one_opened_up_to_the_bound() {
    let (net, server, rig) = narrow().await;
    let held = fill(&net, &rig).await;
    assert_eq!((verdict(&rig, 1), rig.channel.explain().endpoints[0].connections), (Verdict::Full, 3));
    for _ in 0..10 {
        assert_eq!(place_for(&rig, GET).unwrap_err(), Unplaced::Wait);
        settled().await;
    }
    assert_eq!((net.connects(), server.connections(), held.len()), (3, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn nobody_opens_a_second_connection_while_one_is_enough() {
    let (net, _servers, rig) = rig_of(1, in_turn).await;
    let held: Vec<InFlight> = (0..50).map(|_| place(&rig)).collect();
    settled().await;
    assert_eq!((net.connects(), held.len()), (1, 50));
}

#[tokio::test(start_paused = true)]
async fn the_oldest_connection_with_room_is_used() {
    let (net, _server, rig) = narrow().await;
    let mut held = fill(&net, &rig).await;
    let oldest = std::ptr::from_ref(held[0].conn());
    held.clear();
    for _ in 0..10 {
        assert!(std::ptr::eq(place(&rig).conn(), oldest));
    }
}

#[tokio::test(start_paused = true)]
async fn further_connections_are_closed_when_nobody_needs_them_and_the_oldest_is_not() {
    let (net, server, rig) = narrow().await;
    let mut held = fill(&net, &rig).await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(server.connections(), 3, "calls are open on them");
    held.clear();
    let idle = clock::now();
    eventually(|| server.connections() == 1).await;
    assert!((29..=61).contains(&(clock::now() - idle).as_secs()), "{:?}", clock::now() - idle);
    assert_eq!(handle(&rig, 1).state(), Ready);
    sleep(Duration::from_secs(600)).await;
    assert_eq!((server.connections(), net.connects()), (1, 3));
    // And they come back when they are needed.
    let _again = (place(&rig), place_for(&rig, GET).unwrap_err());
    eventually(|| server.connections() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_further_connection_that_cannot_be_made_takes_nothing_away() {
    let (net, _server, rig) = narrow().await;
    let _held = place(&rig);
    net.black_hole(&address(1));
    assert_eq!(place_for(&rig, GET).unwrap_err(), Unplaced::Wait);
    sleep(Duration::from_secs(30)).await;
    assert_eq!((handle(&rig, 1).state(), rig.channel.state()), (Ready, Ready));
    // Nobody asks again, so one attempt was all.
    assert_eq!((net.connects(), verdict(&rig, 1)), (2, Verdict::Full));
}

#[tokio::test(start_paused = true)]
async fn one_of_several_connections_may_be_lost_without_a_pause() {
    let (net, server, rig) = narrow().await;
    let mut held = fill(&net, &rig).await;
    held.clear();
    rig.channel.target().shared.snapshot.load().candidates[0].first.conn.vitals().retire(crate::conn::Ending::GoAway);
    settled().await;
    assert_eq!((handle(&rig, 1).state(), rig.channel.explain().endpoints[0].connections), (Ready, 2));
    assert_eq!(attempt(&rig, |_| WELL).await, 1);
    assert_eq!(net.connects(), 3);
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn a_goaway_is_followed_by_a_new_connection_at_once_while_streams_are_open() {
    let net = Net::default();
    let server = Server::start(&net, 1, hang);
    let rig = Rig::new(&net, [1]);
    rig.all(Ready).await;
    let open = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, CREATE).await }
    });
    eventually(|| server.seen() == 1).await;
    // Longer than any connection that ends young.
    sleep(Duration::from_secs(10)).await;
    server.go_away();
    let told = clock::now();
    eventually(|| net.connects() == 2 && handle(&rig, 1).state() == Ready).await;
    assert!(clock::now() - told <= Duration::from_millis(5), "{:?}", clock::now() - told);
    assert_eq!(server.connections(), 2, "the open stream keeps the old one");
    assert_eq!(attempt(&rig, |_| WELL).await, 1);
    open.abort();
    eventually(|| server.connections() == 1).await;
}

/// A server may end its connections after a few calls each. One that ends them without answering any is given time.
#[tokio::test(start_paused = true)]
async fn connections_that_were_of_use_are_replaced_at_once_however_young_they_are() {
    let net = Net::default();
    let server = Server::start(&net, 1, ok);
    let rig = Rig::new(&net, [1]);
    rig.all(Ready).await;
    let begun = clock::now();
    for round in 1..=100 {
        call(&rig.channel, CREATE).await.unwrap();
        server.go_away();
        eventually(|| net.connects() == round + 1 && handle(&rig, 1).state() == Ready).await;
    }
    assert!(clock::now() - begun < Duration::from_secs(1), "{:?}", clock::now() - begun);

    let begun = clock::now();
    for round in 101..=120 {
        server.go_away();
        eventually(|| net.connects() == round + 1 && handle(&rig, 1).state() == Ready).await;
    }
    assert!(clock::now() - begun > Duration::from_secs(2), "{:?}", clock::now() - begun);
}

/// What failed before it was of use says nothing about the next time it is away.
#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_connection_was_of_use_is_dialled_like_a_new_one_when_it_is_lost() {
    let net = Net::default();
    let rig = Rig::new(&net, [1]);
    // Long enough for the backoff to reach its ceiling of five seconds.
    sleep(Duration::from_secs(60)).await;
    let server = Server::start(&net, 1, ok);
    rig.all(Ready).await;
    call(&rig.channel, CREATE).await.unwrap();
    drop(server);
    let before = net.connects();
    sleep(Duration::from_secs(2)).await;
    // At once, and then after at most 100, 200, 400 and 800 ms.
    assert!(net.connects() - before >= 5, "{}", net.connects() - before);
}

#[tokio::test(start_paused = true)]
async fn who_waits_behind_full_connections_gets_another_one_though_its_first_dial_failed() {
    let (net, server, rig) = narrow().await;
    let _endless = place(&rig);
    net.black_hole(&address(1));
    let waiting = tokio::spawn({
        let channel = rig.channel.clone();
        let mut request = crate::rig::request(CREATE);
        request.extensions_mut().insert(crate::WaitForReady);
        async move { crate::rig::send(&channel, request).await }
    });
    eventually(|| net.connects() == 2).await;
    // The second dial times out, and the next one has somebody to talk to.
    sleep(Duration::from_secs(3)).await;
    let second = Server::with_manners(&net, 1, Manners { streams_max: Some(1) }, ok);
    eventually(|| waiting.is_finished()).await;
    waiting.await.unwrap().unwrap();
    assert_eq!((server.seen(), second.seen()), (0, 1));
}
