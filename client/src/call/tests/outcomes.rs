//! Each attempt and each call is in the statistics once, as what it came to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use h2::Reason;
use http::HeaderValue;
use http_body_util::BodyExt;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tower::Service;

use crate::metrics::MeshMetrics;
use crate::rig::{
    CREATE, GET, MESSAGE, Net, Reply, Rig, Server, call, eventually, fail, hang, head, ok, refuse, request, send,
};
use crate::{ConnectivityState, clock};

const ATTEMPTS: &str = "grpc_client_attempt_duration_seconds_count";
const CALLS: &str = "grpc_client_call_duration_seconds_count";
const SENT: &str = "grpc_client_attempt_sent_total_compressed_message_size_bytes_sum";
const RECEIVED: &str = "grpc_client_attempt_rcvd_total_compressed_message_size_bytes_sum";

/// The values of one series by status.
fn by_status(rig: &Rig, series: &str) -> BTreeMap<String, u64> {
    let target = Arc::downgrade(rig.channel.target());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(MeshMetrics::new(
        move || Weak::upgrade(&target).into_iter().collect(),
        Arc::default(),
    )));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let mut values = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with(series)) {
        let (labels, value) = line.rsplit_once(' ').unwrap();
        let status = labels.split("grpc_status=\"").nth(1).unwrap().trim_end_matches("\"}");
        *values.entry(status.to_owned()).or_default() += value.parse::<f64>().unwrap() as u64;
    }
    values
}

#[track_caller]
fn assert_counted(rig: &Rig, attempts: &[(&str, u64)], calls: &[(&str, u64)]) {
    let expected = |counts: &[(&str, u64)]| counts.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect();
    let (counted_attempts, counted_calls) = (by_status(rig, ATTEMPTS), by_status(rig, CALLS));
    assert_eq!((counted_attempts, counted_calls), (expected(attempts), expected(calls)));
    assert!(rig.handles().values().all(|handle| handle.in_flight() == 0));
}

fn within(path: &str, timeout: &'static str) -> http::Request<tonic::body::Body> {
    let mut request = request(path);
    request.headers_mut().insert("grpc-timeout", HeaderValue::from_static(timeout));
    request
}

async fn ready(net: &Net, ports: impl IntoIterator<Item = u16>) -> Rig {
    let rig = Rig::with(net, ports, |config| config.policy.balancer = crate::Balancer::RoundRobin);
    rig.all(ConnectivityState::Ready).await;
    rig
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_is_the_servers_word_and_its_sizes_are_those_of_messages() {
    let net = Net::default();
    let _server = Server::start(&net, 1, ok);
    let rig = ready(&net, [1]).await;
    call(&rig.channel, CREATE).await.unwrap();
    assert_counted(&rig, &[("OK", 1)], &[("OK", 1)]);
    // Five bytes in front of each message are framing.
    let message = MESSAGE.len() as u64 - 5;
    assert_eq!((by_status(&rig, SENT)["OK"], by_status(&rig, RECEIVED)["OK"]), (message, message));
}

#[tokio::test(start_paused = true)]
async fn a_status_in_the_head_counts_before_anybody_reads_on() {
    let net = Net::default();
    let _server = Server::start(&net, 1, |_, reply| fail(Status::not_found("no such user"), reply));
    let rig = ready(&net, [1]).await;
    let unread = send(&rig.channel, request(GET)).await.unwrap();
    assert_counted(&rig, &[("NOT_FOUND", 1)], &[("NOT_FOUND", 1)]);
    drop(unread);
    assert_counted(&rig, &[("NOT_FOUND", 1)], &[("NOT_FOUND", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_repeated_is_one_call_of_several_attempts() {
    let net = Net::default();
    let servers = [
        Server::start(&net, 1, |_, reply| fail(Status::unavailable("not today"), reply)),
        Server::start(&net, 2, refuse),
        Server::start(&net, 3, ok),
    ];
    let rig = ready(&net, [1, 2, 3]).await;
    for _ in 0..3 {
        call(&rig.channel, GET).await.unwrap();
    }
    let [failing, refusing, _] = servers.each_ref().map(|server| server.seen() as u64);
    assert!(failing > 0 && refusing > 0);
    assert_counted(&rig, &[("OK", 3), ("UNAVAILABLE", failing + refusing)], &[("OK", 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_stream_and_a_lost_one_count_as_what_the_caller_is_told() {
    let net = Net::default();
    let server = Server::start(&net, 1, |request, mut reply: Reply| async move {
        if request.uri().path() == CREATE {
            reply.send_reset(Reason::INTERNAL_ERROR);
        } else {
            hang(request, reply).await;
        }
    });
    let rig = ready(&net, [1]).await;
    call(&rig.channel, CREATE).await.unwrap_err();
    let lost = tokio::spawn({
        let channel = rig.channel.clone();
        async move { call(&channel, "/shop.Users/Delete").await }
    });
    eventually(|| server.seen() == 2).await;
    drop(server);
    assert_eq!(lost.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_counted(&rig, &[("INTERNAL", 1), ("UNAVAILABLE", 1)], &[("INTERNAL", 1), ("UNAVAILABLE", 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_deadline_ended_counts_as_that_wherever_it_was() {
    let net = Net::default();
    let _server = Server::start(&net, 1, |request, mut reply: Reply| async move {
        if request.uri().path() == GET {
            return hang(request, reply).await;
        }
        let mut stream = reply.send_response(head(), false).unwrap();
        stream.send_data(Bytes::from_static(MESSAGE), false).unwrap();
        std::future::pending::<()>().await;
    });
    let rig = ready(&net, [1]).await;
    let status = send(&rig.channel, within(GET, "100m")).await.unwrap_err();
    assert_eq!(status.message(), "user-svc: deadline exceeded after 100.0ms: 10.0.0.1:1 has not begun to answer");
    let mut body = send(&rig.channel, within(CREATE, "100m")).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    let status = body.frame().await.unwrap().unwrap_err();
    assert!(status.message().ends_with("the answer of 10.0.0.1:1 has begun, but not ended"), "{}", status.message());
    let expired = ("DEADLINE_EXCEEDED", 2);
    assert_counted(&rig, &[expired], &[expired]);

    // One that nobody drops in time has expired all the same.
    let forgotten = send(&rig.channel, within(CREATE, "100m")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(forgotten);
    let expired = ("DEADLINE_EXCEEDED", 3);
    assert_counted(&rig, &[expired], &[expired]);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_a_call_without_an_attempt() {
    let net = Net::default();
    let rig = Rig::new(&net, [1]);
    let status = send(&rig.channel, within(GET, "100m")).await.unwrap_err();
    assert!(status.message().starts_with("user-svc: deadline exceeded after 100.0ms: the call was waiting"));
    call(&rig.channel, GET).await.unwrap_err();
    assert_counted(&rig, &[], &[("DEADLINE_EXCEEDED", 1), ("UNAVAILABLE", 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_gives_up_is_cancelled_wherever_it_is() {
    let net = Net::default();
    let _server = Server::start(&net, 1, |request, mut reply: Reply| async move {
        if request.uri().path() == GET {
            return hang(request, reply).await;
        }
        let _open = reply.send_response(head(), false).unwrap();
        std::future::pending::<()>().await;
    });
    let rig = ready(&net, [1]).await;
    drop(rig.channel.clone().call(request(GET)));
    drop(send(&rig.channel, request(CREATE)).await.unwrap());
    assert_counted(&rig, &[("CANCELLED", 2)], &[("CANCELLED", 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_beyond_the_cap_is_refused_at_once_and_not_repeated() {
    let net = Net::default();
    let server = Server::start(&net, 1, hang);
    let rig = Rig::with(&net, [1], |config| config.policy.in_flight_max = 1);
    rig.all(ConnectivityState::Ready).await;
    let open = rig.channel.clone().call(request(GET));
    let begun = clock::now();
    let status = call(&rig.channel, GET).await.unwrap_err();
    assert_eq!((status.code(), clock::now()), (Code::Unavailable, begun));
    assert_eq!(status.get_details_error_info().unwrap().reason, "TOO_MANY_IN_FLIGHT");
    assert!(status.message().starts_with("user-svc: 1 calls are in flight already"), "{}", status.message());
    drop(open);
    eventually(|| server.seen() <= 1).await;
    assert_counted(&rig, &[("CANCELLED", 1)], &[("CANCELLED", 1), ("UNAVAILABLE", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_counts_as_the_status_that_stands_for_it() {
    let net = Net::default();
    let _server = Server::start(&net, 1, |request, mut reply: Reply| async move {
        match request.uri().path() {
            CREATE => reply.send_reset(Reason::ENHANCE_YOUR_CALM),
            GET => reply.send_reset(Reason::CANCEL),
            _ => drop(reply.send_response(head(), true)),
        }
    });
    let rig = ready(&net, [1]).await;
    for path in [CREATE, GET, "/shop.Users/Delete"] {
        call(&rig.channel, path).await.unwrap_err();
    }
    let expected = [("CANCELLED", 1), ("RESOURCE_EXHAUSTED", 1), ("UNKNOWN", 1)];
    assert_counted(&rig, &expected, &expected);
    assert_eq!(rig.handles()[&1].failures_in_a_row(), 2, "whoever asks for calm is not sick");
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_while_the_answer_came_counts_however_that_ends() {
    let net = Net::default();
    let _server = Server::start(&net, 1, |request, mut reply: Reply| async move {
        let _open = (request, reply.send_response(head(), false).unwrap());
        std::future::pending::<()>().await;
    });
    let rig = ready(&net, [1]).await;
    let (say, words) = tokio::sync::mpsc::channel(1);
    let frames = tokio_stream::wrappers::ReceiverStream::new(words)
        .map(|word: &'static [u8]| Ok::<_, Status>(http_body::Frame::data(Bytes::from_static(word))));
    let body = tonic::body::Body::new(http_body_util::StreamBody::new(frames));
    let answer = send(&rig.channel, request(CREATE).map(|_| body)).await.unwrap();
    for _ in 0..3 {
        say.send(MESSAGE).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(answer);
    assert_eq!(by_status(&rig, SENT)["CANCELLED"], 3 * (MESSAGE.len() as u64 - 5));
}
