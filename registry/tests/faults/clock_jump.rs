//! Clocks that are elsewhere.

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use mesh_api::registry::v1 as pb;
use registry::{Settings, StorePlace};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::crowd::{Crowd, one_of_many};
use crate::process::{Process, command, folder, sum_of, until};
use crate::support::{Client, Door, beat_of, lease_of, resolve, settings};

/// The shortest there is.
const TTL: Duration = Duration::from_secs(2);

/// Leases that live through it: as many as a service holds.
const LEASES: usize = 1_000;

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;

/// T08 `clock_jump` (P07), with injected wall clocks: the registry starts again on its file while the wall clock is an hour or
/// ten years off, in either direction. Nobody's lease ends, and nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_jump() {
    let before = folder("clock-jump");
    let started_at = settings().engine.started_at;
    let door = Door::open_with(on(before.path(), started_at)).await;
    let mut client = door.client().await;
    let mut leases = Vec::new();
    for number in 0..LEASES {
        leases.push(client.register(one_of_many("user-svc", number, TTL)).await.expect("registered").into_inner());
        if number % 100 == 99 {
            beat(&mut client, &leases).await;
        }
    }
    // A tombstone and a rule, which have times of their own.
    let gone = client.register(one_of_many("order-svc", 1, TTL)).await.expect("registered").into_inner();
    let target = Some(pb::deregister_request::Target::Lease(lease_of(&gone)));
    client.deregister(pb::DeregisterRequest { target }).await.expect("gone");
    let rule = pb::SetAdminStateRequest {
        service: "user-svc".to_owned(),
        selector: Some(pb::Selector { by: Some(pb::selector::By::Version("none".to_owned())) }),
        state: pb::AdminState::Draining.into(),
        expires_in: Some(prost_types::Duration { seconds: HOUR, nanos: 0 }),
        ..pb::SetAdminStateRequest::default()
    };
    client.set_admin_state(rule).await.expect("a rule");
    drop(client);
    door.registry.shutdown().await;

    let mut jumps = JoinSet::new();
    for jump in [-10 * YEAR, -HOUR, HOUR, 10 * YEAR] {
        let copy = folder("clock-jump");
        for file in std::fs::read_dir(before.path()).expect("a folder").map_while(Result::ok) {
            std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("a copy");
        }
        let by = Duration::from_secs(jump.unsigned_abs());
        let started_at = if jump < 0 { started_at - by } else { started_at + by };
        let leases = leases.clone();
        jumps.spawn(async move {
            let door = Door::open_with(on(copy.path(), started_at)).await;
            let mut client = door.client().await;
            for _ in 0..12 {
                beat(&mut client, &leases).await;
                sleep(TTL / 4).await;
            }
            let listed = resolve(&mut client, "user-svc").await.expect("known").instances.len();
            let metrics = door.metrics();
            let count = |name| sum_of(&metrics, name);
            println!(
                "T08: wall clock off by {jump} s: {listed} of {LEASES} listed, {} removals, {} expirations",
                count("registry_removals_total"),
                count("registry_lease_expirations_total"),
            );
            assert_eq!((listed, count("registry_removals_total")), (LEASES, 0), "{jump} s");
            drop(client);
            door.registry.shutdown().await;
        });
    }
    while let Some(ended) = jumps.join_next().await {
        ended.expect("no jump ends it");
    }
}

fn on(folder: &Path, started_at: SystemTime) -> Settings {
    let mut settings = settings();
    settings.store = StorePlace::File(folder.to_owned());
    settings.engine.started_at = started_at;
    settings
}

/// Everybody beats, and lives.
async fn beat(client: &mut Client, leases: &[pb::RegisterResponse]) {
    let beats = leases.iter().map(beat_of).collect();
    let answer = client.heartbeat(pb::HeartbeatRequest { beats }).await.expect("heard").into_inner();
    let renewed = |result: &pb::BeatResult| result.outcome() == pb::BeatOutcome::Renewed;
    assert!(answer.results.iter().all(renewed), "somebody's lease is gone");
}

/// T08 `clock_jump` (P07), its real part: monotonic and boot time are ten years ahead, in a time namespace, as after a long
/// uptime or a machine that was moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monotonic_clock_that_is_years_ahead_changes_nothing() {
    let ahead = ["--time", "--fork", "--kill-child", "--monotonic", "315360000", "--boottime", "315360000"];
    let allowed = Command::new("unshare").args(ahead).arg("true").status().is_ok_and(|status| status.success());
    if !allowed {
        // Past the capture of the test runner, so that it is counted where the log is read.
        let _ = writeln!(io::stdout(), "SKIPPED T08 in a time namespace: `unshare --time` is not allowed here");
        return;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(ahead).arg(command().get_program()).env_clear();
    let registry = Process::start_with(unshare, None, &["--store", "memory", "--default-ttl", "2s"]);
    let crowd = Crowd::enter(registry.grpc, "user-svc", LEASES, TTL, TTL / 4).await;
    until("everybody to be registered", || registry.metric("registry_instances") == LEASES as u64).await;
    sleep(3 * TTL).await;
    let metrics = registry.metrics();
    let count = |name| sum_of(&metrics, name);
    println!("T08: {LEASES} leases on clocks ten years ahead: {} removals", count("registry_removals_total"));
    assert_eq!(count("registry_removals_total"), 0);
    assert_eq!((count("registry_instances"), crowd.others()), (LEASES as u64, 0));
    crowd.leave().await;
}
