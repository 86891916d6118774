//! What happens to a call before, instead of and after its handler.

use std::time::Duration;

use mesh_runtime::{Hooks, Server, ServerArgs, clock, hardened_server};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{self, Answer, Client, Log, Probe, begun, message, read, request, request_for};

/// A server that nobody asks to go, a client of it, and what its handlers do.
async fn probe() -> (Probe, Client, Log) {
    let (probe, log) = Probe::new();
    let (client, _serving) = Client::piped(&hardened_server(probe.routes()), &CancellationToken::new()).await;
    (probe, client, log)
}

fn reason(answer: &Answer) -> String {
    let info = answer.status.as_ref().unwrap().get_details_error_info().unwrap();
    assert_eq!(info.domain, "meshwork");
    info.reason
}

fn within(method: &str, timeout: &str) -> http::Request<()> {
    request(method).header("grpc-timeout", timeout).body(()).unwrap()
}

#[tokio::test]
async fn a_call_for_somebody_else_is_refused_before_the_handler() {
    let (probe, mut log) = Probe::new();
    let server: Server = hardened_server(probe.routes()).authority("user-svc").authority("users");
    let (mut client, _serving) = Client::piped(&server, &CancellationToken::new()).await;
    for stranger in ["order-svc", "user-svc2", "users.example.com"] {
        let answer = client.call(request_for(stranger, "Echo")).await.unwrap();
        assert_eq!((answer.http, answer.code), (200, Some(Code::Unavailable)), "{stranger}");
        let info = answer.status.as_ref().unwrap().get_details_error_info().unwrap();
        assert_eq!((info.domain.as_str(), info.reason.as_str()), ("meshwork", "WRONG_SERVICE"));
        assert_eq!(info.metadata["authority"], stranger, "so that whoever passes it on is not believed");
    }
    assert!(log.try_recv().is_err(), "no handler heard of it");
    for friend in ["user-svc", "users", "127.0.0.1", "127.0.0.1:7410", "[::1]:7410", "localhost", "order-svc:7420"] {
        let answer = client.call(request_for(friend, "Echo")).await.unwrap();
        assert_eq!(answer.code, Some(Code::Ok), "{friend}");
    }
}

#[tokio::test]
async fn a_server_without_a_name_takes_every_name() {
    let (_probe, mut client, _log) = probe().await;
    let answer = client.call(request_for("registry", "Echo")).await.unwrap();
    assert_eq!(answer.code, Some(Code::Ok));
    assert_eq!(answer.body, message(b"hello"));
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_dropped_when_its_caller_stops_waiting() {
    let (_probe, mut client, mut log) = probe().await;
    let at = clock::now();
    let answer = client.call(within("Wait", "250m")).await.unwrap();
    assert_eq!(answer.code, Some(Code::DeadlineExceeded));
    assert_eq!(reason(&answer), "DEADLINE_EXCEEDED");
    assert_eq!((clock::now() - at).as_millis() / 10, 25);
    assert_eq!(log.recv().await.unwrap(), "begun Wait");
    assert_eq!(log.recv().await.unwrap(), "dropped Wait");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_the_deadline_whether_it_is_silent_or_never_stops() {
    let (_probe, mut client, _log) = probe().await;
    let silent = client.call(within("Drip", "2S")).await.unwrap();
    assert_eq!((silent.body, silent.code), (message(b"drop"), Some(Code::DeadlineExceeded)));

    // A paused clock moves by itself only when everybody waits, and a flood never waits.
    let (_, flood) = begun(client.start(within("Flood", "2S")).await.unwrap()).await.unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(flood.rest().await.unwrap().code, Some(Code::DeadlineExceeded));
}

#[tokio::test]
async fn a_deadline_that_has_passed_or_is_none_never_reaches_the_handler() {
    let (_probe, mut client, mut log) = probe().await;
    let late = client.call(within("Echo", "0n")).await.unwrap();
    assert_eq!(late.code, Some(Code::DeadlineExceeded));
    let malformed = client.call(within("Echo", "soon")).await.unwrap();
    assert_eq!(malformed.code, Some(Code::InvalidArgument));
    assert_eq!(reason(&malformed), "MALFORMED_TIMEOUT");
    assert!(log.try_recv().is_err());
    let in_time = client.call(within("Echo", "99999999H")).await.unwrap();
    assert_eq!(in_time.code, Some(Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_turn_past_its_deadline_never_begins() {
    let (_probe, mut client, mut log) = probe().await;
    // Both arrive together; the first one keeps the only thread until a second has passed.
    let busy = client.start(request("Leap").body(()).unwrap()).await.unwrap();
    let late = client.start(within("Echo", "500m")).await.unwrap();
    let late = read(late).await.unwrap();
    assert_eq!((late.code, reason(&late).as_str()), (Some(Code::DeadlineExceeded), "DEADLINE_EXCEEDED"));
    assert_eq!(read(busy).await.unwrap().code, Some(Code::Ok));
    assert_eq!(log.recv().await.unwrap(), "begun Leap");
    assert_eq!(log.recv().await.unwrap(), "dropped Leap");
    assert!(log.try_recv().is_err(), "the other handler was not called");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_wakes_past_its_deadline_does_not_go_on() {
    let (_probe, mut client, mut log) = probe().await;
    let waiting = client.start(within("Wait", "500m")).await.unwrap();
    assert_eq!(log.recv().await.unwrap(), "begun Wait");
    // A second later, and in the same moment, what it waits for comes.
    let released = client.call(request("Leap").body(()).unwrap()).await.unwrap();
    assert_eq!(released.code, Some(Code::Ok));
    assert_eq!(read(waiting).await.unwrap().code, Some(Code::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_wakes_past_its_deadline_does_not_go_on() {
    let (_probe, mut client, mut log) = probe().await;
    let trickle = client.start(within("Trickle", "500m")).await.unwrap();
    assert_eq!(log.recv().await.unwrap(), "begun Trickle");
    assert_eq!(log.recv().await.unwrap(), "dropped Trickle");
    let released = client.call(request("Leap").body(()).unwrap()).await.unwrap();
    assert_eq!(released.code, Some(Code::Ok));
    let ended = read(trickle).await.unwrap();
    assert_eq!((ended.code, ended.body.len()), (Some(Code::DeadlineExceeded), 0));
    while let Ok(event) = log.try_recv() {
        assert_ne!(event, "resumed Trickle");
    }
}

#[tokio::test]
async fn a_handler_is_dropped_when_its_caller_cancels() {
    let (_probe, mut client, mut log) = probe().await;
    let (answer, mut body) = client.start_open(request("Wait").body(()).unwrap(), b"hello").await.unwrap();
    assert_eq!(log.recv().await.unwrap(), "begun Wait");
    body.send_reset(h2::Reason::CANCEL);
    assert_eq!(log.recv().await.unwrap(), "dropped Wait");
    drop(answer);
}

#[tokio::test]
async fn a_panic_fails_its_own_call_and_tells_nothing() {
    let (probe, mut client, mut log) = probe().await;
    let waiting = client.start(request("Wait").body(()).unwrap()).await.unwrap();
    assert_eq!(log.recv().await.unwrap(), "begun Wait");
    for method in ["PanicAtOnce", "Panic", "PanicLate"] {
        let answer = client.call(request(method).body(()).unwrap()).await.unwrap();
        assert_eq!(answer.code, Some(Code::Internal), "{method}");
        assert_eq!(reason(&answer), "PANICKED");
        assert_eq!(answer.status.unwrap().message(), "internal error", "{method}: not a word of what happened");
    }
    probe.release.cancel();
    assert_eq!(read(waiting).await.unwrap().body, message(b"released"), "a neighbour on the same connection");
}

#[tokio::test]
async fn a_handler_sees_who_calls() {
    let running = support::run(ServerArgs::loopback(), Hooks::none()).await;
    let io = tokio::net::TcpStream::connect(running.grpc).await.unwrap();
    let me = io.local_addr().unwrap();
    let answer = Client::over(io).await.call(request("Peer").body(()).unwrap()).await.unwrap();
    assert_eq!(answer.body, message(format!("Some({me})").as_bytes()));
}

#[tokio::test]
async fn a_path_that_is_no_method_is_unimplemented() {
    let (_probe, mut client, _log) = probe().await;
    for path in ["/", "/test.v1.Probe", "/test.v1.Other/Echo", "/test.v1.Probe/Nothing"] {
        let request = http::Request::post(format!("http://localhost{path}")).body(()).unwrap();
        assert_eq!(client.call(request).await.unwrap().code, Some(Code::Unimplemented), "{path}");
    }
}

#[tokio::test]
async fn calls_are_measured_as_a66_says_and_strangers_are_other() {
    let running = support::run(ServerArgs::loopback(), Hooks::none()).await;
    let mut client = Client::dial(running.grpc).await;
    assert_eq!(client.call(request("Echo").body(()).unwrap()).await.unwrap().code, Some(Code::Ok));
    assert_eq!(client.call(within("Wait", "1m")).await.unwrap().code, Some(Code::DeadlineExceeded));
    assert_eq!(client.call(within("Wait", "0m")).await.unwrap().code, Some(Code::DeadlineExceeded));
    let check = http::Request::post("http://localhost/grpc.health.v1.Health/Check").body(()).unwrap();
    // "hello" is no HealthCheckRequest.
    assert_eq!(client.call(check).await.unwrap().code, Some(Code::Internal));

    let (code, metrics) = support::get(running.http, "/metrics").await;
    assert_eq!(code, 200);
    for line in [
        "# TYPE grpc_server_call_duration_seconds histogram",
        "# UNIT grpc_server_call_duration_seconds seconds",
        "grpc_server_call_started_total{grpc_method=\"other\"} 3",
        "grpc_server_call_started_total{grpc_method=\"grpc.health.v1.Health/Check\"} 1",
        "grpc_server_call_started_total{grpc_method=\"grpc.health.v1.Health/Watch\"} 0",
        "grpc_server_call_duration_seconds_count{grpc_method=\"other\",grpc_status=\"OK\"} 1",
        "grpc_server_call_duration_seconds_count{grpc_method=\"other\",grpc_status=\"DEADLINE_EXCEEDED\"} 2",
        "grpc_server_call_duration_seconds_count{grpc_method=\"grpc.health.v1.Health/Check\",grpc_status=\"INTERNAL\"} 1",
        "mesh_server_calls_expired_unbegun_total 1",
        // "hello", without the five bytes in front.
        "grpc_server_call_sent_total_compressed_message_size_bytes_sum{grpc_method=\"other\",grpc_status=\"OK\"} 5.0",
        "grpc_server_call_rcvd_total_compressed_message_size_bytes_sum{grpc_method=\"other\",grpc_status=\"OK\"} 5.0",
        "mesh_server_connections 1",
        "mesh_process_info{program=\"probe\",version=\"1.2.3\"} 1",
        "mesh_registration_state{state=\"none\"} 1",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
}
