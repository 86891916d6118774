//! The answer's body, to its end and no further.

use bytes::Bytes;
use http_body_util::BodyExt;
use tonic::{Code, Status};

use crate::rig::{CREATE, MESSAGE, Net, Reply, Rig, Server, call, eventually, head, request, send, trailers};

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_without_a_status_is_an_error_and_not_silence() {
    let net = Net::default();
    let _server = Server::start(&net, 1, |_, mut reply: Reply| async move {
        let mut stream = reply.send_response(head(), false).unwrap();
        stream.send_data(Bytes::from_static(MESSAGE), true).unwrap();
    });
    let rig = Rig::new(&net, [1]);
    let mut body = send(&rig.channel, request(CREATE)).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), MESSAGE);
    let status = body.frame().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    assert!(status.message().contains("user-svc at 10.0.0.1:1: the answer ended without a status"));
    assert!(body.frame().await.is_none());
    assert_eq!(rig.handles()[&1].in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_in_the_middle_of_its_answer_says_where() {
    let net = Net::default();
    let server = Server::start(&net, 1, |_, mut reply: Reply| async move {
        let mut stream = reply.send_response(head(), false).unwrap();
        stream.send_data(Bytes::from_static(MESSAGE), false).unwrap();
        std::future::pending::<()>().await;
    });
    let rig = Rig::new(&net, [1]);
    let mut body = send(&rig.channel, request(CREATE)).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(server);
    let status = body.frame().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("in the middle of its answer"), "{}", status.message());
    eventually(|| rig.handles().get(&1).is_none_or(|handle| handle.in_flight() == 0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_status_without_messages_is_the_whole_answer() {
    let net = Net::default();
    let _server = Server::start(&net, 1, |_, mut reply: Reply| async move {
        let mut only_a_head = head();
        only_a_head.headers_mut().extend(trailers());
        reply.send_response(only_a_head, true).unwrap();
    });
    let rig = Rig::new(&net, [1]);
    let response = send(&rig.channel, request(CREATE)).await.unwrap();
    assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::Ok);
    assert_eq!(rig.handles()[&1].in_flight(), 0, "nothing is to come, whether the body is read or not");
    assert!(response.into_body().frame().await.is_none());
}

/// A long answer that is all there already is read in turns with the other tasks of the thread.
#[tokio::test(start_paused = true)]
async fn whoever_reads_a_long_answer_lets_others_have_their_turn() {
    const MESSAGES: usize = 1_000;
    let net = Net::default();
    let _server = Server::start(&net, 1, |_, mut reply: Reply| async move {
        let mut stream = reply.send_response(head(), false).unwrap();
        for _ in 0..MESSAGES {
            stream.send_data(Bytes::from_static(MESSAGE), false).unwrap();
        }
        stream.send_trailers(trailers()).unwrap();
    });
    let rig = Rig::new(&net, [1]);
    call(&rig.channel, CREATE).await.unwrap();
    let mut body = send(&rig.channel, request(CREATE)).await.unwrap().into_body();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let turns = tokio::spawn(async {
        let mut turns = 0;
        loop {
            tokio::task::yield_now().await;
            turns += 1;
            if turns == 3 {
                return;
            }
        }
    });
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += usize::from(frame.unwrap().is_data());
        if turns.is_finished() {
            break;
        }
    }
    assert!(read < MESSAGES, "{read} messages in a row");
}
