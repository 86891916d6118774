//! Deadlines hold from the call to its trailers.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::HeaderValue;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tonic::Code;

use crate::clock;
use crate::context::{Context, TraceContext};
use crate::policy::decode_timeout;
use crate::rig::{CREATE, GET, MESSAGE, Net, Rig, Server, call, eventually, finish, hang, head, ok, request, send};

fn with_timeout(path: &str, timeout: &'static str) -> http::Request<tonic::body::Body> {
    let mut request = request(path);
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static(timeout));
    request
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_ends_at_its_deadline_and_is_reset() {
    let net = Net::default();
    let (gone, mut resets) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(&net, 1, move |_, mut reply| {
        let gone = gone.clone();
        async move {
            let reason = std::future::poll_fn(|cx| reply.poll_reset(cx)).await;
            let _ = gone.send(reason);
        }
    });
    let rig = Rig::new(&net, [1]);
    let begun = clock::now();
    let status = send(&rig.channel, with_timeout(GET, "250m")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(clock::now() - begun, Duration::from_millis(250));
    assert_eq!(resets.recv().await.unwrap().unwrap(), h2::Reason::CANCEL);
    assert_eq!((server.seen(), rig.handles()[&1].in_flight()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_the_body_to_its_trailers() {
    let net = Net::default();
    let _server = Server::start(&net, 1, |_, mut reply: crate::rig::Reply| async move {
        let mut stream = reply.send_response(head(), false).unwrap();
        stream.send_data(Bytes::from_static(MESSAGE), false).unwrap();
        std::future::pending::<()>().await;
    });
    let rig = Rig::new(&net, [1]);
    let begun = clock::now();
    let mut body = send(&rig.channel, with_timeout(GET, "2S")).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), MESSAGE);
    assert_eq!(body.frame().await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(clock::now() - begun, Duration::from_secs(2));
    assert!(body.frame().await.is_none());
    assert_eq!(rig.handles()[&1].in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_messages_that_are_there_already() {
    let net = Net::default();
    let _server = Server::start(&net, 1, |_, mut reply: crate::rig::Reply| async move {
        let mut stream = reply.send_response(head(), false).unwrap();
        for _ in 0..100 {
            stream.send_data(Bytes::from_static(MESSAGE), false).unwrap();
        }
        std::future::pending::<()>().await;
    });
    let rig = Rig::new(&net, [1]);
    let mut body = send(&rig.channel, with_timeout(GET, "2S")).await.unwrap().into_body();
    tokio::time::sleep(Duration::from_millis(1_900)).await;
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), MESSAGE);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(body.frame().await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    assert!(body.frame().await.is_none());
    assert_eq!(rig.handles()[&1].in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_not_sent() {
    let net = Net::default();
    let server = Server::start(&net, 1, ok);
    let rig = Rig::new(&net, [1]);
    rig.all(crate::ConnectivityState::Ready).await;
    let over = Context { deadline: Some(clock::now()), trace: None };
    let status = over.scope(call(&rig.channel, GET)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((server.seen(), rig.handles()[&1].in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_covers_the_queue() {
    let net = Net::default();
    let rig = Rig::new(&net, [1]);
    let begun = clock::now();
    let status = send(&rig.channel, with_timeout(GET, "1S")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(clock::now() - begun, Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_told_what_is_left() {
    let net = Net::default();
    let rig = Rig::new(&net, [1]);
    let waiting = tokio::spawn({
        let channel = rig.channel.clone();
        async move { finish(send(&channel, with_timeout(GET, "2S")).await.unwrap()).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let server = Server::start(&net, 1, ok);
    waiting.await.unwrap().unwrap();
    let left = decode_timeout(&server.heads()[0]["grpc-timeout"]).unwrap();
    assert!(left <= Duration::from_secs(1), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_inherits_the_deadline_and_the_trace_of_the_request_it_is_made_for() {
    let net = Net::default();
    let server = Server::start(&net, 1, ok);
    let rig = Rig::new(&net, [1]);
    let parent = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let context = Context { deadline: Some(clock::now() + Duration::from_secs(5)), trace: Some(parent) };
    context.scope(call(&rig.channel, GET)).await.unwrap();
    context.scope(async { finish(send(&rig.channel, with_timeout(GET, "1S")).await.unwrap()).await }).await.unwrap();

    let heads = server.heads();
    let timeouts: Vec<_> = heads.iter().map(|head| decode_timeout(&head["grpc-timeout"]).unwrap()).collect();
    assert!(timeouts[0] > Duration::from_secs(4) && timeouts[1] <= Duration::from_secs(1));
    let span = TraceContext::parse(heads[0]["traceparent"].to_str().unwrap()).unwrap();
    assert_eq!(span.trace_id(), parent.trace_id());
    assert_ne!(span.span_id(), parent.span_id());
}

#[tokio::test(start_paused = true)]
async fn a_call_outside_of_every_request_has_no_deadline() {
    let net = Net::default();
    let server = Server::start(&net, 1, hang);
    let rig = Rig::new(&net, [1]);
    assert!(timeout(Duration::from_secs(3600), call(&rig.channel, CREATE)).await.is_err());
    assert!(!server.heads()[0].contains_key("grpc-timeout"));
    eventually(|| rig.handles()[&1].in_flight() == 0).await;
}

async fn read_on(mut request: http::Request<h2::RecvStream>) {
    while let Some(Ok(data)) = request.body_mut().data().await {
        let _ = request.body_mut().flow_control().release_capacity(data.len());
    }
}

/// A conversation in which only the caller speaks.
#[tokio::test(start_paused = true)]
async fn whoever_only_sends_is_stopped_at_the_deadline() {
    let net = Net::default();
    let (gone, mut resets) = tokio::sync::mpsc::unbounded_channel();
    let _server = Server::start(&net, 1, move |request, mut reply: crate::rig::Reply| {
        let gone = gone.clone();
        async move {
            let mut stream = reply.send_response(head(), false).unwrap();
            tokio::spawn(read_on(request));
            let _ = gone.send(std::future::poll_fn(|cx| stream.poll_reset(cx)).await);
        }
    });
    let rig = Rig::new(&net, [1]);
    let (say, words) = tokio::sync::mpsc::channel(1);
    let frames = tokio_stream::wrappers::ReceiverStream::new(words)
        .map(|word: &'static [u8]| Ok::<_, tonic::Status>(http_body::Frame::data(Bytes::from_static(word))));
    let body = tonic::body::Body::new(http_body_util::StreamBody::new(frames));
    let begun = clock::now();
    say.send(MESSAGE).await.unwrap();
    let mut answer = send(&rig.channel, with_timeout(CREATE, "2S").map(|_| body)).await.unwrap().into_body();
    timeout(Duration::from_secs(10), async {
        while say.send(MESSAGE).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await
        }
    })
    .await
    .expect("nobody takes its words any more");
    let took = clock::now() - begun;
    assert!((1_999..2_020).contains(&took.as_millis()), "{took:?}");
    assert_eq!(resets.recv().await.unwrap().unwrap(), h2::Reason::CANCEL);
    assert_eq!(answer.frame().await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
}
