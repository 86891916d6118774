//! Flow control: nobody sends more than the other side takes.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{open, pair};
use crate::conn::dial::STREAM_WINDOW_BYTES;
use crate::conn::{Conn, Download, End, Upload};
use crate::rig::{Frame, wire};

/// An answer of far more than both windows: none of it is let in before the one before was read, and all of it after.
#[tokio::test(start_paused = true)]
async fn an_answer_is_let_in_as_fast_as_it_is_read() {
    let mut pair = pair(&[]).await;
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    pair.peer.send(Frame::head(stream)).await;
    let mut body = answer.await.unwrap().into_body();

    // As much as the stream's window takes, unread.
    let piece = vec![0; 16 << 10];
    let pieces = STREAM_WINDOW_BYTES as usize / piece.len();
    for _ in 0..pieces {
        pair.peer.send(Frame::data(stream, 0, piece.clone())).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let mut granted = tokio::spawn(async move {
        loop {
            let update = pair.peer.until(wire::WINDOW_UPDATE).await;
            if update.stream == stream {
                return update.number();
            }
        }
    });
    tokio::task::yield_now().await;
    assert!(!granted.is_finished(), "nothing was read yet");
    for _ in 0..pieces {
        assert_eq!(poll_fn(|cx| body.poll_data(cx)).await.unwrap().unwrap().len(), piece.len());
    }
    // h2 gives the window back once half of it is free.
    assert!((&mut granted).await.unwrap() >= STREAM_WINDOW_BYTES / 2);
}

/// Room is given back by the piece and not by the message; a peer that uses its window to the last byte never waits for what was
/// read and not given back.
#[tokio::test(start_paused = true)]
async fn an_answer_of_small_messages_outlasts_its_window() {
    let mut pair = pair(&[]).await;
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    pair.peer.send(Frame::head(stream)).await;
    let frames = Frame::data(stream, 0, [7; 20]).encode().repeat(1000);
    let (batch, batches) = (20_000, 200);
    let peer = tokio::spawn(async move {
        let mut room = STREAM_WINDOW_BYTES;
        for _ in 0..batches {
            while room < batch {
                let update = pair.peer.until(wire::WINDOW_UPDATE).await;
                room += if update.stream == stream { update.number() } else { 0 };
            }
            room -= batch;
            pair.peer.say(&frames).await;
        }
    });
    let mut body = answer.await.unwrap().into_body();
    let mut bytes = 0;
    while bytes < (batch * batches) as usize {
        bytes += poll_fn(|cx| body.poll_data(cx)).await.unwrap().unwrap().len();
    }
    peer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_upload_waits_for_room() {
    let mut pair = pair(&[(wire::INITIAL_WINDOW_SIZE, 10)]).await;
    let (_answer, mut upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    let has_room = |upload: &mut <crate::conn::Wire as Conn>::Upload| {
        !matches!(upload.poll_room(&mut Context::from_waker(Waker::noop())), Poll::Pending)
    };
    assert!(has_room(&mut upload));
    upload.send(Bytes::from_static(&[7; 25]), End::NotYet).unwrap();
    assert_eq!(pair.peer.until(wire::DATA).await.payload, [7; 10]);
    assert!(!has_room(&mut upload), "15 bytes of the first piece wait for the peer");

    pair.peer.send(Frame::window_update(stream, 15)).await;
    assert_eq!(pair.peer.until(wire::DATA).await.payload, [7; 15]);
    assert!(!has_room(&mut upload), "the window is used up again");
    pair.peer.send(Frame::window_update(stream, 1)).await;
    poll_fn(|cx| upload.poll_room(cx)).await.unwrap();
    upload.send(Bytes::from_static(&[8]), End::Here).unwrap();
    let last = pair.peer.until(wire::DATA).await;
    assert_eq!((last.payload.as_slice(), last.has(wire::END_STREAM)), (&[8][..], true));
}

/// However fast a caller's stream of messages is, only about a window and one message of it wait in memory.
#[tokio::test(start_paused = true)]
async fn a_stalled_upload_holds_one_piece_beyond_the_window() {
    let mut pair = pair(&[]).await;
    let (_answer, mut upload) = open(&pair.conn).map_err(drop).unwrap();
    pair.peer.request().await;
    let piece = Bytes::from(vec![0; 16 << 10]);
    let mut taken = 0;
    while matches!(upload.poll_room(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))) {
        upload.send(piece.clone(), End::NotYet).unwrap();
        taken += piece.len();
        assert!(taken < 2 << 20, "no bound");
        tokio::task::yield_now().await;
    }
    // HTTP/2's default window of 65 535 bytes, which this peer never widens.
    assert!((65_535..=65_535 + piece.len()).contains(&taken), "{taken}");
}

/// A stream of small messages that nobody reads for a while: h2 counts what each frame costs beyond its bytes, and would break
/// the connection, with all the calls on it, long before the windows are full.
#[tokio::test(start_paused = true)]
async fn many_small_messages_unread_break_nothing() {
    let mut pair = pair(&[]).await;
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    pair.peer.send(Frame::head(stream)).await;
    // Messages of 15 bytes until the stream's window is full, some 100 000 of them.
    let message = [&[0, 0, 0, 0, 15][..], &[7; 15]].concat();
    let frame = Frame::data(stream, 0, message.clone()).encode();
    let count = STREAM_WINDOW_BYTES as usize / message.len();
    for _ in 0..count / 1000 {
        pair.peer.say(&frame.repeat(1000)).await;
    }
    let mut body = answer.await.unwrap().into_body();
    let mut bytes = 0;
    while bytes < count / 1000 * 1000 * message.len() {
        bytes += poll_fn(|cx| body.poll_data(cx)).await.unwrap().unwrap().len();
    }
    assert_eq!(pair.conn.vitals().ending(), None);
}

/// Ten answers that come and are not read, as those of a caller with slow customers of its own: other calls on the connection
/// are none the worse for it.
#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_hold_up_no_other() {
    let mut pair = pair(&[]).await;
    let mut unread = Vec::new();
    for _ in 0..10 {
        unread.push(open(&pair.conn).map_err(drop).unwrap());
        let stream = pair.peer.request().await;
        pair.peer.send(Frame::head(stream)).await;
        let piece = vec![0; 16 << 10];
        for _ in 0..STREAM_WINDOW_BYTES / (16 << 10) {
            pair.peer.send(Frame::data(stream, 0, piece.clone())).await;
        }
    }
    let (answer, _upload) = open(&pair.conn).map_err(drop).unwrap();
    let stream = pair.peer.request().await;
    pair.peer.answer(stream).await;
    let mut body = answer.await.unwrap().into_body();
    assert!(poll_fn(|cx| body.poll_data(cx)).await.unwrap().is_ok());
}
