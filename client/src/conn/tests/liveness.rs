//! How a peer that says nothing is told from one that has nothing to say.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Pair, open, pair, pair_with};
use crate::clock;
use crate::conn::{Calm, Conn, Ending, StreamError};
use crate::rig::{Frame, Peer, eventually, wire};

/// How long it takes from the first silence to the verdict.
const DEAD_AFTER: Duration = Duration::from_millis(1_500);

#[tokio::test(start_paused = true)]
async fn a_frozen_peer_is_dead_after_a_second_and_a_half() {
    let mut pair = pair(&[]).await;
    sleep(Duration::from_secs(60)).await;
    assert!(pair.conn.vitals().enter());
    let called = clock::now();
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    pair.peer.request().await;
    assert!(matches!(answer.await, Err(StreamError::Lost(_))));
    assert_eq!(pair.conn.vitals().ending(), Some(&Ending::Silent));
    assert!((clock::now() - called).abs_diff(DEAD_AFTER) <= Duration::from_millis(3));
}

/// A peer that answers PINGs, and when it was asked.
async fn asked_at(peer: &mut Peer, begun: Instant, count: usize) -> Vec<u128> {
    let mut asked = Vec::new();
    while asked.len() < count {
        peer.pong().await;
        asked.push((clock::now() - begun).as_millis() / 100 * 100);
    }
    asked
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_idle_streams_is_asked_rarely() {
    let Pair { conn, mut peer, .. } = pair(&[]).await;
    assert!(conn.vitals().enter());
    let _idle = open(&conn).map_err(drop).unwrap();
    peer.request().await;
    let begun = clock::now();
    assert_eq!(asked_at(&mut peer, begun, 7).await, [500, 1_500, 3_500, 7_500, 15_500, 25_500, 35_500]);

    // It froze, and a call is made: that call is not to wait for ten seconds.
    assert!(conn.vitals().enter());
    sleep(Duration::from_secs(2)).await;
    let called = clock::now();
    let (answer, _upload) = open(&conn).map_err(drop).unwrap();
    assert!(matches!(answer.await, Err(StreamError::Lost(_))));
    assert!((clock::now() - called).abs_diff(DEAD_AFTER) <= Duration::from_millis(5), "{:?}", clock::now() - called);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_while_no_call_is_in_flight() {
    let mut pair = pair(&[]).await;
    assert!(pair.conn.vitals().enter());
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    pair.peer.send(Frame::head(stream)).await;
    pair.peer.send(Frame::trailers(stream, "0")).await;
    drop(answer.await.unwrap());
    pair.conn.vitals().leave();
    let asked = timeout(Duration::from_secs(3600), pair.peer.until(wire::PING)).await;
    assert!(asked.is_err(), "{asked:?}");
    assert_eq!(pair.conn.vitals().ending(), None);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_answered_for_whoever_waits_for_it() {
    let mut pair = pair(&[]).await;
    sleep(Duration::from_secs(1)).await;
    let asked = clock::now();
    pair.conn.probe();
    pair.conn.probe();
    pair.peer.pong().await;
    eventually(|| pair.conn.vitals().heard() >= asked).await;
    let again = timeout(Duration::from_secs(60), pair.peer.until(wire::PING)).await;
    assert!(again.is_err(), "two orders, one PING");
}

#[tokio::test(start_paused = true)]
async fn a_complaint_about_pings_is_remembered() {
    let calm = Calm::default();
    let be_calm = u32::from(h2::Reason::ENHANCE_YOUR_CALM);
    // With its streams left open, and closed at once.
    for closes in [false, true] {
        let mut pair = pair_with(&[], calm.clone()).await;
        pair.peer.send(Frame::go_away(0, be_calm, b"too_many_pings")).await;
        if closes {
            drop(pair.peer);
        }
        eventually(|| pair.conn.vitals().ending().is_some()).await;
        drop(pair.conn);
        sleep(Duration::from_secs(1)).await;
    }
    // A GOAWAY for another reason is no complaint.
    for (code, words) in [(0, ""), (be_calm, "too_many_resets")] {
        let mut leaving = pair_with(&[], calm.clone()).await;
        leaving.peer.send(Frame::go_away(0, code, words.as_bytes())).await;
        eventually(|| leaving.conn.vitals().ending().is_some()).await;
    }

    let Pair { conn, mut peer, .. } = pair_with(&[], calm).await;
    assert!(conn.vitals().enter());
    let _idle = open(&conn).map_err(drop).unwrap();
    peer.request().await;
    let begun = clock::now();
    assert_eq!(asked_at(&mut peer, begun, 3).await, [2_000, 6_000, 14_000]);
}

/// An answer that keeps coming is life enough, however long its PONG stands behind it.
#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_and_answers_no_ping_is_alive() {
    let mut pair = pair(&[]).await;
    assert!(pair.conn.vitals().enter());
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    pair.peer.send(Frame::head(stream)).await;
    let _body = answer.await.unwrap();
    for _ in 0..20 {
        sleep(Duration::from_millis(900)).await;
        pair.peer.send(Frame::data(stream, 0, *b"x")).await;
    }
    assert_eq!(pair.conn.vitals().ending(), None);
}
