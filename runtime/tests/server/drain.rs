//! The end of a server, with peers that go, that cannot, and that will not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_runtime::{GONE_MAX, Hooks, ServerArgs, clock, hardened_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::{self, Client, Probe, begun, message, read, request};

fn within(drain_timeout: Duration) -> ServerArgs {
    ServerArgs { drain_timeout, ..ServerArgs::loopback() }
}

/// More than any drain here needs, less than the deadline that would hide a hang.
const LONG: Duration = Duration::from_secs(60);

fn health_watch() -> http::Request<()> {
    http::Request::post("http://localhost/grpc.health.v1.Health/Watch").body(()).unwrap()
}

#[tokio::test]
async fn a_call_in_flight_is_answered_and_the_port_then_refuses() {
    let mut running = support::run(within(LONG), Hooks::none()).await;
    let mut client = Client::dial(running.grpc).await;
    let waiting = client.start(request("Wait").body(()).unwrap()).await.unwrap();
    assert_eq!(running.log.recv().await.unwrap(), "begun Wait");
    running.stop.cancel();
    // The GOAWAY: no further stream on this connection, and nobody listening for another.
    while client.call(request("Echo").body(()).unwrap()).await.is_ok() {}
    while TcpStream::connect(running.grpc).await.is_ok() {}
    assert!(!running.served.is_finished());
    running.probe.release.cancel();
    assert_eq!(read(waiting).await.unwrap().body, message(b"released"));
    running.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_silent_connection_an_idle_one_and_an_open_watch_delay_nothing() {
    let running = support::run(within(LONG), Hooks::none()).await;
    let mut silent = TcpStream::connect(running.grpc).await.unwrap();
    let mut idle = Client::dial(running.grpc).await;
    assert_eq!(idle.call(request("Echo").body(()).unwrap()).await.unwrap().code, Some(Code::Ok));
    let mut watcher = Client::dial(running.grpc).await;
    let watch = watcher.start_with(health_watch(), b"").await.unwrap();
    let (first, watch) = begun(watch).await.unwrap();
    const SERVING: [u8; 2] = [8, 1];
    const NOT_SERVING: [u8; 2] = [8, 2];
    assert_eq!(first, message(&SERVING));
    let at = clock::now();
    running.stop.cancel();
    let (watch, served) = tokio::join!(watch.rest(), running.served);
    served.unwrap().unwrap();
    assert!(clock::now() - at < Duration::from_secs(10), "two seconds of lingering and no waiting");
    let watch = watch.unwrap();
    assert_eq!(watch.code, Some(Code::Unavailable), "the watch ends by a status, not by a broken connection");
    assert_eq!(watch.body, message(&NOT_SERVING));
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0, "closed without a word");
}

#[tokio::test]
async fn an_open_reflection_stream_delays_nothing() {
    let running = support::run(within(LONG), Hooks::none()).await;
    let mut client = Client::dial(running.grpc).await;
    let mut open = Vec::new();
    for version in ["v1", "v1alpha"] {
        let path = format!("http://localhost/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        // ServerReflectionRequest { list_services: "*" }, which is field 7.
        let list = [7 << 3 | 2, 1, b'*'];
        let (response, asking) = client.start_open(http::Request::post(path).body(()).unwrap(), &list).await.unwrap();
        open.push((begun(response).await.unwrap(), asking));
    }
    let at = clock::now();
    running.stop.cancel();
    running.served.await.unwrap().unwrap();
    assert!(clock::now() - at < Duration::from_secs(10), "two seconds of lingering and no waiting");
    for ((_, begun), _asking) in open {
        assert_eq!(begun.rest().await.unwrap().code, Some(Code::Ok));
    }
}

#[tokio::test]
async fn at_the_deadline_what_is_left_is_cut() {
    let mut running = support::run(within(Duration::from_secs(1)), Hooks::none()).await;
    let mut client = Client::dial(running.grpc).await;
    let stuck = client.start(request("Wait").body(()).unwrap()).await.unwrap();
    assert_eq!(running.log.recv().await.unwrap(), "begun Wait");
    // A peer that has spoken and then neither reads nor answers.
    let mut deaf = TcpStream::connect(running.grpc).await.unwrap();
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let at = clock::now();
    running.stop.cancel();
    running.served.await.unwrap().unwrap();
    let took = clock::now() - at;
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(1) + GONE_MAX, "{took:?}");
    assert!(read(stuck).await.is_err());
    assert_eq!(running.log.recv().await.unwrap(), "dropped Wait");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_ignores_the_goodbye_is_left_after_three_seconds() {
    let (probe, _log) = Probe::new();
    let server = hardened_server(probe.routes());
    let (mut client, io) = tokio::io::duplex(64 * 1024);
    let goaway = CancellationToken::new();
    let asked = goaway.clone();
    let serving = tokio::spawn(async move { support::ended(server.serve_connection(io, None, &asked).await) });
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // The server's SETTINGS: it has heard us.
    client.read_exact(&mut [0; 9]).await.unwrap();
    let at = clock::now();
    goaway.cancel();
    assert_eq!(serving.await.unwrap(), "did not answer the goodbye within 3s");
    assert_eq!((clock::now() - at).as_secs(), 3);
}

#[tokio::test]
async fn the_steps_come_in_order_and_a_hook_that_hangs_is_left() {
    let (events, mut log) = mpsc::unbounded_channel();
    let (draining, gone) = (events.clone(), events.clone());
    let hooks = Hooks {
        draining: Box::new(move || {
            draining.send("draining").unwrap();
            Box::pin(std::future::pending())
        }),
        gone: Box::new(move || {
            gone.send("gone").unwrap();
            Box::pin(std::future::pending())
        }),
        ..Hooks::none()
    };
    let watches = CancellationToken::new();
    let running =
        support::run_app(within(Duration::from_secs(1)), hooks, |app| app.ends_watches(watches.clone())).await;
    let mut client = Client::dial(running.grpc).await;
    assert_eq!(client.call(request("Echo").body(()).unwrap()).await.unwrap().code, Some(Code::Ok));
    running.stop.cancel();
    assert_eq!(log.recv().await.unwrap(), "draining");
    assert!(!watches.is_cancelled());
    assert_eq!(client.call(request("Echo").body(()).unwrap()).await.unwrap().code, Some(Code::Ok), "still answering");
    watches.cancelled().await;
    assert!(client.call(request("Echo").body(()).unwrap()).await.is_err(), "the GOAWAY came before the watches' end");
    assert_eq!(log.recv().await.unwrap(), "gone");
    let at = clock::now();
    running.served.await.unwrap().unwrap();
    assert!(clock::now() - at < GONE_MAX + Duration::from_secs(1));
}

#[tokio::test]
async fn a_hook_that_panics_ends_nothing_early() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let gone = Arc::clone(&order);
    let hooks = Hooks {
        ready: Box::new(|_, _| Box::pin(async { panic!("as the test asked") })),
        draining: Box::new(|| Box::pin(async { panic!("as the test asked") })),
        gone: Box::new(move || Box::pin(async move { gone.lock().unwrap().push("gone") })),
        ..Hooks::none()
    };
    let running = support::run(within(Duration::from_millis(200)), hooks).await;
    assert!(support::echo(running.grpc).await.is_ok());
    running.stop.cancel();
    running.served.await.unwrap().unwrap();
    assert_eq!(*order.lock().unwrap(), ["gone"]);
}

#[tokio::test]
async fn a_server_that_is_dropped_leaves_nothing_behind() {
    let mut running = support::run(ServerArgs::loopback(), Hooks::none()).await;
    let mut client = Client::dial(running.grpc).await;
    let waiting = client.start(request("Wait").body(()).unwrap()).await.unwrap();
    assert_eq!(running.log.recv().await.unwrap(), "begun Wait");
    running.served.abort();
    assert!(read(waiting).await.is_err());
    assert_eq!(running.log.recv().await.unwrap(), "dropped Wait");
    while TcpStream::connect(running.grpc).await.is_ok() {}
}
