//! Clocks that are elsewhere.

use std::process::Command;
use std::time::Duration;

use tokio::time::sleep;

use crate::crowd::Crowd;
use crate::process::{Process, command, until};

/// T08 `clock_jump` (P07), its real part: monotonic and boot time are ten years ahead, in a time namespace, as after a long
/// uptime or a machine that was moved. What wall clocks may do is told with injected ones in `sim_leases.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monotonic_clock_that_is_years_ahead_changes_nothing() {
    let ahead = ["--time", "--fork", "--kill-child", "--monotonic", "315360000", "--boottime", "315360000"];
    let allowed = Command::new("unshare").args(ahead).arg("true").status().is_ok_and(|status| status.success());
    if !allowed {
        println!("SKIPPED T08 time namespace: `unshare --time` is not allowed here");
        return;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(ahead).arg(command().get_program()).env_clear();
    let registry = Process::start_with(unshare, None, &["--store", "memory", "--default-ttl", "2s"]);
    let ttl = Duration::from_secs(2);
    let crowd = Crowd::enter(registry.grpc, "user-svc", 1_000, ttl, ttl / 4).await;
    until("everybody to be registered", || registry.metric("registry_instances") == 1_000).await;
    sleep(3 * ttl).await;
    let metrics = registry.metrics();
    let count = |name| crate::process::sum_of(&metrics, name);
    println!("T08: 1000 leases on clocks ten years ahead: {} removals", count("registry_removals_total"));
    assert_eq!(count("registry_removals_total"), 0);
    assert_eq!((count("registry_instances"), crowd.others()), (1_000, 0));
    crowd.leave().await;
}
