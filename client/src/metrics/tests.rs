//! What a scrape shows.

use std::sync::{Arc, Weak};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tonic::Code;

use super::{CallStats, MeshMetrics, Repeats};
use crate::rig::{CREATE, GET, Net, Rig, Server, call, endpoint, eventually, ok};
use crate::{ConnectivityState, EndpointHandle};

const MILLI_NANOS: u64 = 1_000_000;

/// What the registry of a process with these channels shows.
fn scrape(rigs: &[&Rig]) -> String {
    let targets: Vec<_> = rigs.iter().map(|rig| Arc::downgrade(rig.channel.target())).collect();
    let mut registry = Registry::default();
    let live = move || targets.iter().filter_map(Weak::upgrade).collect();
    registry.register_collector(Box::new(MeshMetrics::new(live, Arc::default())));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

/// One call of each kind.
fn record(stats: &CallStats) {
    let get = stats.method(GET);
    for _ in 0..3 {
        stats.attempt_started(get);
    }
    stats.attempt_ended(get, Code::Unavailable, MILLI_NANOS, 100, 0);
    stats.attempt_ended(get, Code::Ok, 2 * MILLI_NANOS, 100, 2000);
    stats.call_ended(get, Code::Ok, 300 * MILLI_NANOS);
    stats.call_repeated(get, Repeats { retries: 1, transparent: 2, hedges: 0 });
    stats.call_repeated(get, Repeats { retries: 0, transparent: 0, hedges: 1 });
    stats.call_repeated(get, Repeats::default());
    stats.attempt_started(stats.method(CREATE));
}

#[tokio::test(start_paused = true)]
async fn names_labels_and_units_are_what_the_golden_file_says() {
    let net = Net::default();
    let _server = Server::start(&net, 1, ok);
    let rig = Rig::new(&net, [1, 2]);
    let settled = [ConnectivityState::Ready, ConnectivityState::TransientFailure];
    eventually(|| rig.handles().values().map(EndpointHandle::state).eq(settled)).await;
    record(rig.channel.target().stats());

    // Of the buckets, those of one series say it for all.
    let text = scrape(&[&rig]);
    let telling = |line: &&str| !line.contains("_bucket{") || line.starts_with("grpc_client_call_duration");
    let shown: String = text.lines().filter(telling).flat_map(|line| [line, "\n"]).collect();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/golden.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(golden, &shown).unwrap();
    }
    assert_eq!(shown, include_str!("golden.txt"), "set UPDATE_GOLDEN=1 to take the new text");
}

#[tokio::test(start_paused = true)]
async fn series_go_with_the_endpoint_and_with_the_last_channel() {
    let net = Net::default();
    let rig = Rig::new(&net, [1, 2]);
    rig.all(ConnectivityState::TransientFailure).await;
    let second = "address=\"10.0.0.1:2\"";
    assert!(scrape(&[&rig]).contains(second));
    rig.resolve([endpoint(1)]);
    eventually(|| rig.handles().len() == 1).await;
    assert!(!scrape(&[&rig]).contains(second));

    let metrics = {
        let target = Arc::downgrade(rig.channel.target());
        MeshMetrics::new(move || target.upgrade().into_iter().collect(), Arc::default())
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    drop(rig);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let of_no_target = |line: &str| line.starts_with('#') || line.starts_with("mesh_client_registry_");
    assert!(text.lines().all(of_no_target), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_call_over_the_wire_is_measured() {
    let net = Net::default();
    let _server = Server::start(&net, 1, ok);
    let rig = Rig::new(&net, [1]);
    rig.all(ConnectivityState::Ready).await;
    call(&rig.channel, GET).await.unwrap();
    let text = scrape(&[&rig]);
    let method = "grpc_target=\"user-svc\",grpc_method=\"shop.Users/Get\"";
    for line in [
        format!("grpc_client_attempt_started_total{{{method}}} 1"),
        format!("grpc_client_attempt_duration_seconds_count{{{method},grpc_status=\"OK\"}} 1"),
        format!("grpc_client_attempt_sent_total_compressed_message_size_bytes_sum{{{method},grpc_status=\"OK\"}} 2.0"),
        format!("grpc_client_attempt_rcvd_total_compressed_message_size_bytes_sum{{{method},grpc_status=\"OK\"}} 2.0"),
        format!("grpc_client_call_duration_seconds_count{{{method},grpc_status=\"OK\"}} 1"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
}
