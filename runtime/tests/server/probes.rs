//! What a prober, a scraper and `grpcurl` see.

use std::sync::{Arc, Mutex};

use axum::routing::get;
use mesh_runtime::{Hooks, ServerArgs};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tonic::Code;

use crate::support::{self, Client};

#[tokio::test]
async fn readiness_waits_for_the_registration_and_ends_with_the_drain() {
    let (registered, registration) = oneshot::channel::<()>();
    let (drains, draining) = oneshot::channel::<()>();
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let hooks = Hooks {
        ready: Box::new(move |grpc, http| {
            *tell.lock().unwrap() = Some((grpc, http));
            Box::pin(async move { registration.await.unwrap() })
        }),
        draining: Box::new(move || {
            drains.send(()).unwrap();
            Box::pin(async {})
        }),
        status: Box::new(|| ("registering", "no answer from 127.0.0.1:7400 yet".to_owned())),
        ..Hooks::none()
    };
    let running = support::run(ServerArgs::loopback(), hooks).await;
    assert_eq!(support::get(running.http, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(support::get(running.http, "/readyz").await, (503, "starting\n".to_owned()));
    assert_eq!(
        *told.lock().unwrap(),
        Some((running.grpc, Some(running.http))),
        "who registers is told the bound addresses"
    );
    let (code, verbose) = support::get(running.http, "/readyz?verbose").await;
    assert_eq!(code, 503);
    assert!(verbose.contains("[ ]registration registering: no answer from 127.0.0.1:7400 yet\n"), "{verbose}");
    assert!(support::echo(running.grpc).await.is_ok(), "it serves all the same");

    registered.send(()).unwrap();
    while support::get(running.http, "/readyz").await != (200, "ok\n".to_owned()) {}
    running.stop.cancel();
    draining.await.unwrap();
    assert_eq!(support::get(running.http, "/readyz").await, (503, "draining\n".to_owned()));
    assert_eq!(support::get(running.http, "/livez").await.0, 200, "a draining process is alive");
    assert!(support::echo(running.grpc).await.is_ok(), "and still answers");
    running.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_programs_own_routes_and_metrics_stand_beside_the_shells() {
    let mut registry = Registry::default();
    let orders: Counter = Counter::default();
    registry.register("shop_orders", "Orders taken", orders.clone());
    orders.inc_by(3);
    let running = support::run_app(ServerArgs::loopback(), Hooks::none(), |app| {
        app.metrics(registry).admin(axum::Router::new().route("/dashboard", get(async || "a page")))
    })
    .await;
    assert_eq!(support::get(running.http, "/dashboard").await, (200, "a page".to_owned()));
    assert_eq!(support::get(running.http, "/nothing").await.0, 404);
    let (_, metrics) = support::get(running.http, "/metrics").await;
    assert!(metrics.contains("shop_orders_total 3\n"), "{metrics}");
    assert!(metrics.contains("grpc_server_call_started_total"));
    assert_eq!(metrics.matches("# EOF").count(), 1);
}

/// The names of the services that a reflection of this version lists.
async fn listed(client: &mut Client, version: &str) -> String {
    let path = format!("http://localhost/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
    // ServerReflectionRequest { list_services: "*" }, which is field 7.
    let list = [7 << 3 | 2, 1, b'*'];
    let answer = client.call_with(http::Request::post(path).body(()).unwrap(), &list).await.unwrap();
    assert_eq!(answer.code, Some(Code::Ok));
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[tokio::test]
async fn both_versions_of_reflection_list_what_is_served_and_no_more() {
    let running = support::run_app(ServerArgs::loopback(), Hooks::none(), |app| {
        // A service that this server serves by its own health, described beside one that it does not.
        app.descriptors(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
    })
    .await;
    let mut client = Client::dial(running.grpc).await;
    for version in ["v1", "v1alpha"] {
        let names = listed(&mut client, version).await;
        for service in
            ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]
        {
            assert!(names.contains(service), "{version}: {names}");
        }
    }
}

#[tokio::test]
async fn one_address_cannot_take_the_http_port_from_the_probes() {
    let running = support::run(ServerArgs::loopback(), Hooks::none()).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        let mut io = TcpStream::connect(running.http).await.unwrap();
        io.write_all(b"GET /livez HTTP/1.1\r\nhost: probe\r\n\r\n").await.unwrap();
        assert_eq!(io.read(&mut [0; 1]).await.unwrap(), 1);
        held.push(io);
    }
    let mut refused = TcpStream::connect(running.http).await.unwrap();
    // Closed at once: the request is not even taken, and may fail.
    let _ = refused.write_all(b"GET /livez HTTP/1.1\r\nhost: probe\r\n\r\n").await;
    assert_eq!(refused.read(&mut [0; 1]).await.unwrap_or(0), 0);
    let prober = TcpSocket::new_v4().unwrap();
    prober.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut prober = prober.connect(running.http).await.unwrap();
    prober.write_all(b"GET /livez HTTP/1.1\r\nhost: probe\r\n\r\n").await.unwrap();
    assert_eq!(prober.read(&mut [0; 1]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_service_that_no_descriptor_describes_does_not_start() {
    let running =
        support::run_app(ServerArgs::loopback(), Hooks::none(), |app| app.grpc_service("test.v1.Probe")).await;
    let error = running.served.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "no descriptor describes the service test.v1.Probe");
    assert_eq!(error.exit_code(), 2);
}
