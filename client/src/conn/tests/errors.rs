//! What a failed stream means.

use tonic::Code;

use super::{Pair, open, pair};
use crate::ConnectivityState;
use crate::conn::{Conn, Download, StreamError};
use crate::rig::{CREATE, Frame, MESSAGE, Net, Peer, Rig, Server, address, call, field, ok, wire};

async fn the_next_call_goes_well(pair: &mut Pair) {
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    pair.peer.answer(stream).await;
    assert!(answer.await.is_ok());
    assert_eq!(pair.conn.vitals().ending(), None);
}

/// The connection is dead already, and the process has not noticed: nothing of the request can have got anywhere.
#[tokio::test(start_paused = true)]
async fn a_request_that_never_left_was_not_processed() {
    let pair = pair(&[]).await;
    drop(pair.peer);
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    assert!(matches!(answer.await, Err(StreamError::Unprocessed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_left_is_lost() {
    let mut pair = pair(&[]).await;
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    pair.peer.request().await;
    drop(pair.peer);
    assert!(matches!(answer.await, Err(StreamError::Lost(_))));
}

/// Also one that may be sent only once.
#[tokio::test(start_paused = true)]
async fn a_request_that_never_left_is_sent_elsewhere() {
    let net = Net::default();
    let mut connections = net.listen(&address(1));
    let rig = Rig::new(&net, [1]);
    let peer = Peer::ready(&mut connections, &[]).await;
    rig.all(ConnectivityState::Ready).await;
    drop((peer, connections));
    let server = Server::start(&net, 1, ok);
    call(&rig.channel, CREATE).await.unwrap();
    assert_eq!(server.seen(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_goaway_ends_the_streams_beyond_its_last_one_and_no_other() {
    let mut pair = pair(&[]).await;
    let (first, _first) = open(&pair.conn).map_err(drop).unwrap();
    let (second, _second) = open(&pair.conn).map_err(drop).unwrap();
    let (one, three) = (pair.peer.request().await, pair.peer.request().await);
    assert!(one < three);
    pair.peer.send(Frame::go_away(one, 0, b"")).await;

    assert!(matches!(second.await, Err(StreamError::Unprocessed(_))));
    assert!(matches!(open(&pair.conn), Err(StreamError::Unprocessed(_))));
    pair.peer.answer(one).await;
    let mut body = first.await.unwrap().into_body();
    let data = std::future::poll_fn(|cx| body.poll_data(cx)).await.unwrap().unwrap();
    assert_eq!(data, MESSAGE);
    let trailers = std::future::poll_fn(|cx| body.poll_trailers(cx)).await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

/// A GOAWAY says which streams were not looked at; those before it and unanswered when the connection closes are lost.
#[tokio::test(start_paused = true)]
async fn a_stream_within_a_goaway_whose_connection_breaks_is_lost() {
    let mut pair = pair(&[]).await;
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    pair.peer.send(Frame::go_away(stream, 0, b"")).await;
    drop(pair.peer);
    assert!(matches!(answer.await, Err(StreamError::Lost(_))));
}

/// PROTOCOL-HTTP2, "Errors": HTTP/2 error codes to gRPC statuses. REFUSED_STREAM goes elsewhere, which is tested there.
#[tokio::test(start_paused = true)]
async fn http_2_errors_are_told_as_the_grpc_table_says() {
    let table = [
        (h2::Reason::NO_ERROR, Code::Internal),
        (h2::Reason::PROTOCOL_ERROR, Code::Internal),
        (h2::Reason::INTERNAL_ERROR, Code::Internal),
        (h2::Reason::FLOW_CONTROL_ERROR, Code::Internal),
        (h2::Reason::SETTINGS_TIMEOUT, Code::Internal),
        (h2::Reason::FRAME_SIZE_ERROR, Code::Internal),
        (h2::Reason::CANCEL, Code::Cancelled),
        (h2::Reason::COMPRESSION_ERROR, Code::Internal),
        (h2::Reason::CONNECT_ERROR, Code::Internal),
        (h2::Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
        (h2::Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
    ];
    for (reason, code) in table {
        let net = Net::default();
        let _server = Server::start(&net, 1, move |_, mut reply: crate::rig::Reply| async move {
            reply.send_reset(reason);
        });
        let rig = Rig::new(&net, [1]);
        assert_eq!(call(&rig.channel, CREATE).await.unwrap_err().code(), code, "{reason:?}");
        assert_eq!(rig.handles()[&1].in_flight(), 0);
    }
}

/// An answer's head of more than 16 KiB fails its call and nothing else.
#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_fails_alone() {
    let mut pair = pair(&[]).await;
    let (large, _large) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    let filler = field("x-filler", &"x".repeat(120));
    let block = [&[0x88][..], &filler.repeat(110)].concat();
    pair.peer.send(Frame::new(wire::HEADERS, wire::END_HEADERS, stream, block)).await;
    let refused = large.await.map(drop);
    assert!(matches!(refused, Err(StreamError::Protocol(_))), "{refused:?}");

    the_next_call_goes_well(&mut pair).await;
}

/// Three thousand calls are given up at once, by a deadline or a hedge that won, and their answers are on the way already. h2
/// forgets most of such streams at once by default, takes frames for one that it forgot as a violation, and breaks the
/// connection off when there were a thousand of them in its life.
#[tokio::test(start_paused = true)]
async fn the_late_answers_of_many_cancelled_calls_break_nothing() {
    let mut pair = pair(&[]).await;
    let mut calls = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..3_000 {
        calls.push(open(&pair.conn).map_err(drop).unwrap());
        streams.push(pair.peer.request().await);
    }
    drop(calls);
    for _ in &streams {
        pair.peer.until(wire::RST_STREAM).await;
    }
    for stream in streams {
        pair.peer.answer(stream).await;
    }
    the_next_call_goes_well(&mut pair).await;
}

/// What a server says with its goodbye goes into statuses and logs: not all of it.
#[tokio::test(start_paused = true)]
async fn a_server_that_leaves_with_many_words_is_cut_short() {
    let mut pair = pair(&[]).await;
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    pair.peer.request().await;
    pair.peer.send(Frame::go_away(0, 0, &[0xff; 16_000])).await;
    let error = answer.await.map(drop).unwrap_err();
    assert!(matches!(error, StreamError::Unprocessed(_)) && error.to_string().len() < 300, "{error}");
}
