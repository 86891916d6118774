//! A registry that stands still.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use crate::crowd::Crowd;
use crate::process::{Process, until};

/// The shortest there is.
const TTL: Duration = Duration::from_secs(2);

/// Services and their instances, all of which live through it. A service holds a thousand; in one of three no silent majority is
/// held back, so that a lease that ran out would be a removal.
const SERVICES: [(&str, usize); 3] = [("one-svc", 1_000), ("other-svc", 997), ("small-svc", 3)];
const LEASES: usize = 2_000;

/// T09 `registry_sigstop_gap` (P08): the registry stands still for three TTLs, and nobody is held to that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registry_sigstop_gap() {
    let flags = ["--store", "memory", "--default-ttl", "2s"];
    let registry = Process::start(None, &flags);
    let mut crowds = Vec::new();
    for (service, instances) in SERVICES {
        crowds.push(Crowd::enter(registry.grpc, service, instances, TTL, TTL / 4).await);
    }
    until("everybody to be registered", || registry.metric("registry_instances") == LEASES as u64).await;
    sleep(TTL).await;
    let before = registry.metrics();
    let count = crate::process::sum_of;

    registry.signal(Signal::STOP);
    sleep(3 * TTL).await;
    registry.signal(Signal::CONT);
    // The page of metrics may be asked for before the loop has turned.
    let noticed_by_now =
        || count(&registry.metrics(), "registry_clock_gaps_total") > count(&before, "registry_clock_gaps_total");
    until("the stop to be noticed", noticed_by_now).await;
    let noticed = registry.metrics();
    sleep(3 * TTL).await;
    let after = registry.metrics();
    let gaps = |text: &str| count(text, "registry_clock_gaps_total");
    let refused: u64 = crowds.iter().map(Crowd::others).sum();
    println!(
        "T09: {LEASES} leases of 2 s, stopped for 6 s: gaps {} -> {} -> {}, removals {}, beats that did not renew {refused}",
        gaps(&before),
        gaps(&noticed),
        gaps(&after),
        count(&after, "registry_removals_total"),
    );
    assert_eq!(gaps(&noticed) - gaps(&before), 1, "the stop is one gap");
    assert_eq!(count(&after, "registry_removals_total"), 0);
    let ran_out = |text: &str| count(text, "registry_lease_expirations_total");
    assert_eq!(ran_out(&after), ran_out(&before), "no lease runs out, removed or held back");
    assert_eq!(count(&after, "registry_instances"), LEASES as u64);
    assert_eq!(refused, 0, "every lease lives");
    for crowd in crowds {
        crowd.leave().await;
    }
}
