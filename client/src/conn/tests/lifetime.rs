//! How a connection begins and ends.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;

use super::{dial_to, open, pair};
use crate::conn::{Calm, Conn, ConnSettings, ConnectError, Download, End, StreamError, Upload};
use crate::rig::{Frame, Net, Peer, Rig, address, eventually, wire};
use crate::{ConnectivityState, clock};

/// Nobody answers the SYN; somebody accepts and says nothing; somebody says its SETTINGS and answers no PING.
#[tokio::test(start_paused = true)]
async fn a_connect_that_gets_nowhere_is_given_up_in_time() {
    let net = Net::default();
    net.black_hole(&address(1));
    net.mute(&address(2));
    let mut half = net.listen(&address(3));
    let half_spoken = tokio::spawn(async move {
        let mut peer = Peer::accept(&mut half).await;
        peer.send(Frame::settings(&[])).await;
        while peer.next().await.is_some() {}
    });
    for port in 1..=3 {
        let begun = clock::now();
        let dialled = dial_to(&net, port, Calm::default()).await;
        assert!(matches!(dialled, Err(ConnectError::TimedOut(_))), "{port}: {dialled:?}");
        assert_eq!(clock::now() - begun, ConnSettings::default().connect_timeout);
    }
    // The attempt took its connection along.
    half_spoken.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_ready_with_its_first_pong_and_knows_its_round_trip() {
    let net = Net::default();
    let mut connections = net.listen(&address(1));
    let dialled = tokio::spawn({
        let net = net.clone();
        async move { dial_to(&net, 1, Calm::default()).await }
    });
    let mut peer = Peer::accept(&mut connections).await;
    peer.send(Frame::settings(&[(wire::MAX_CONCURRENT_STREAMS, 2)])).await;
    let ping = peer.until(wire::PING).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!dialled.is_finished());
    peer.send(Frame { flags: wire::ACK, ..ping }).await;
    let conn = dialled.await.unwrap().unwrap();
    assert_eq!(conn.vitals().rtt(), Duration::from_millis(30));
    // The SETTINGS came before the PONG: the limit holds from the first call.
    assert!(conn.vitals().enter() && conn.vitals().enter() && !conn.vitals().enter());
}

/// What is no HTTP/2 is told from what does not answer.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_speak_http_2_is_refused_at_once() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", "", "SSH-2.0-OpenSSH_9.6\r\n"] {
        let net = Net::default();
        let mut connections = net.listen(&address(1));
        let begun = clock::now();
        let (dialled, ()) = tokio::join!(dial_to(&net, 1, Calm::default()), async {
            Peer::accept(&mut connections).await.say(answer.as_bytes()).await
        });
        assert!(matches!(dialled, Err(ConnectError::Handshake(_) | ConnectError::Closed)), "{answer:?}: {dialled:?}");
        assert_eq!(clock::now(), begun);
    }
}

/// A black hole takes the connect timeout each time; nobody knocks twice at once meanwhile.
#[tokio::test(start_paused = true)]
async fn an_endpoint_has_one_attempt_at_a_time() {
    let net = Net::default();
    net.black_hole(&address(1));
    let rig = Rig::new(&net, [1]);
    tokio::time::sleep(Duration::from_millis(4_900)).await;
    rig.resolve([crate::resolver::ResolvedEndpoint { weight: 7, ..crate::rig::endpoint(1) }]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((net.connects(), rig.handles()[&1].state()), (1, ConnectivityState::Connecting));
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Five seconds for each attempt, and the backoff between.
    assert!((7..=13).contains(&net.connects()), "{}", net.connects());
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_its_handle_and_its_last_stream() {
    let mut pair = pair(&[]).await;
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    drop(pair.conn);
    // The stream that is open goes on.
    pair.peer.answer(stream).await;
    let mut body = answer.await.unwrap().into_body();
    assert!(poll_fn(|cx| body.poll_data(cx)).await.unwrap().is_ok());
    drop((body, _upload));
    // It says goodbye and closes.
    assert_eq!(pair.peer.until(wire::GOAWAY).await.stream, 0);
    while pair.peer.next().await.is_some() {}
}

/// A finished stream is kept for a while. It takes no place of the one that the peer allows, and holds up no end.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_over_is_in_nobodys_way() {
    let mut pair = pair(&[(wire::MAX_CONCURRENT_STREAMS, 1)]).await;
    for _ in 0..3 {
        let (answer, mut upload) = open(&pair.conn).map_err(drop).unwrap();
        upload.send(Bytes::from_static(b"request"), End::Here).unwrap();
        drop(upload);
        let stream = pair.peer.request().await;
        pair.peer.answer(stream).await;
        let mut body = answer.await.unwrap().into_body();
        while poll_fn(|cx| body.poll_data(cx)).await.transpose().unwrap().is_some() {}
        assert!(poll_fn(|cx| body.poll_trailers(cx)).await.unwrap().is_some());
        body.finish();
    }
    drop(pair.conn);
    while let Some(frame) = pair.peer.next().await {
        assert_ne!(frame.kind, wire::RST_STREAM);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_limit_that_changes_is_followed() {
    let mut pair = pair(&[(wire::MAX_CONCURRENT_STREAMS, 1)]).await;
    let vitals = pair.conn.vitals();
    assert!(vitals.enter() && !vitals.has_room());
    for (limit, room) in [(3, true), (1, false), (0, false), (100, true)] {
        let limits = vitals.limits();
        pair.peer.send(Frame::settings(&[(wire::MAX_CONCURRENT_STREAMS, limit)])).await;
        eventually(|| vitals.limits() > limits).await;
        assert_eq!(vitals.has_room(), room, "{limit}");
    }
}

/// Where a call is given up, the server is told to stop: before the answer, within it, and within the request.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_is_reset_at_every_stage() {
    let mut pair = pair(&[]).await;
    let cancelled = u32::from(h2::Reason::CANCEL);

    let waiting = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    drop(waiting);
    let reset = pair.peer.until(wire::RST_STREAM).await;
    assert_eq!((reset.stream, reset.number()), (stream, cancelled));

    let (answer, upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    pair.peer.send(Frame::head(stream)).await;
    drop((answer.await.unwrap(), upload));
    let reset = pair.peer.until(wire::RST_STREAM).await;
    assert_eq!((reset.stream, reset.number()), (stream, cancelled));

    let (_answer, mut upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    upload.cancel();
    let reset = pair.peer.until(wire::RST_STREAM).await;
    assert_eq!((reset.stream, reset.number()), (stream, cancelled));
}

/// A channel may outlive the runtime that its connections were made on.
#[test]
fn a_connection_ends_with_the_runtime_of_its_task() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let first = runtime();
    let pair = first.block_on(pair(&[]));
    assert_eq!(pair.conn.vitals().ending(), None);
    drop(first);
    assert!(pair.conn.vitals().ending().is_some() && !pair.conn.vitals().has_room());
    let refused = runtime().block_on(async { open(&pair.conn).map(drop) });
    assert!(matches!(refused, Err(StreamError::Unprocessed(_))), "{refused:?}");
}
