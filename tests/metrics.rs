//! What a service says of the calls that it makes, and of how busy it is.

mod harness;

use std::collections::BTreeSet;
use std::process::Stdio;

use harness::{LONG, Story, http_get};
use tokio::io::{AsyncBufReadExt, BufReader};

/// The families of the client half, by name and type.
const FAMILIES: [&str; 17] = [
    "grpc_client_attempt_duration_seconds histogram",
    "grpc_client_attempt_rcvd_total_compressed_message_size_bytes histogram",
    "grpc_client_attempt_sent_total_compressed_message_size_bytes histogram",
    "grpc_client_attempt_started counter",
    "grpc_client_call_duration_seconds histogram",
    "grpc_client_call_hedges histogram",
    "grpc_client_call_retries histogram",
    "grpc_client_call_transparent_retries histogram",
    "mesh_client_endpoint_ejections counter",
    "mesh_client_endpoint_failures counter",
    "mesh_client_endpoint_in_flight_calls gauge",
    "mesh_client_endpoint_latency_seconds gauge",
    "mesh_client_endpoint_picks counter",
    "mesh_client_endpoint_state gauge",
    "mesh_client_registry_second_store_answers counter",
    "mesh_client_service_state gauge",
    "mesh_client_service_waiting_calls gauge",
];

#[tokio::test(flavor = "multi_thread")]
async fn services_show_the_calls_they_make() {
    let story = Story::begin(2, 1).await;
    let nobody = r#"{"requestId":"an-order-of-metrics-rs","userId":"00000000-0000-7000-8000-000000000001","items":[{"sku":"tea","quantity":1,"unitPrice":{"currencyCode":"EUR","units":"4"}}]}"#;
    let ran = story.run(["call", "order-svc", "CreateOrder", nobody]).await;
    assert_eq!(ran.code, Some(1), "user-svc knows no such user: {ran:?}");

    let (order, user) = (story.orders[0].process.http(), story.users[0].process.http());
    for at in [order, user] {
        let (status, text) = http_get(at, "/metrics").await.expect("it answers");
        assert_eq!(status, 200);
        let client = |line: &&str| line.starts_with("grpc_client_") || line.starts_with("mesh_client_");
        let families: BTreeSet<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter(client).collect();
        assert_eq!(families, BTreeSet::from(FAMILIES));
    }
    let (_, text) = http_get(order, "/metrics").await.expect("it answers");
    let asked = r#"grpc_target="user-svc",grpc_method="shop.user.v1.UserService/GetUser""#;
    for line in [
        format!("grpc_client_attempt_started_total{{{asked}}} 1"),
        format!("grpc_client_attempt_duration_seconds_count{{{asked},grpc_status=\"NOT_FOUND\"}} 1"),
        format!("grpc_client_call_duration_seconds_count{{{asked},grpc_status=\"NOT_FOUND\"}} 1"),
        "mesh_client_service_state{service=\"user-svc\",state=\"READY\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    for user in &story.users {
        let endpoint = format!("instance_id=\"{}\",address=\"{}\"", user.id, user.process.grpc());
        let ready = format!("mesh_client_endpoint_state{{service=\"user-svc\",{endpoint},state=\"READY\"}} 1");
        assert!(text.lines().any(|found| found == ready), "{ready} is missing in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_tells_with_its_beats_how_busy_it_is() {
    let story = Story::begin(1, 0).await;
    let registry = story.mesh.registry_url().to_string();
    let mut watch = harness::command();
    watch.args(["--registry", &registry, "-o", "json", "watch", "user-svc"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("it was asked for")).lines();
    let first = lines.next_line().await.expect("it can be read").expect("it tells what is there");
    assert!(first.contains("snapshot"), "{first}");
    // From here on every report is told; the next one counts this call.
    let ran = story.run(["call", "user-svc", "ListUsers"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told = async {
        loop {
            let line = lines.next_line().await.expect("it can be read").expect("it goes on");
            let line: serde_json::Value = serde_json::from_str(&line).expect("an object a line");
            let load = &line["softState"]["instances"][0]["load"];
            let above_0 = |figure: &str| load[figure].as_f64().is_some_and(|figure| figure > 0.0);
            if above_0("requestsPerSecond") && above_0("cpuUtilization") {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, told).await.expect("it is told");
}
