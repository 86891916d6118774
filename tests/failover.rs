//! Instances die, and no call fails.

mod harness;

use std::net::SocketAddr;
use std::time::Duration;

use harness::{LONG, Story, TTL, endpoint, http_get, nobody_noticed};
use mesh_client::MeshChannel;
use mesh_runtime::clock;
use meshctl::{Follower, Member};
use rustix::process::Signal;

/// Nobody is sent to a dead instance any more after this (the figure).
const OUT_OF_PICKS: Duration = Duration::from_millis(250);

/// How often it is looked whether an instance has calls to answer. They take a few milliseconds, and a timer does not get
/// finer than one; to look all the time would take a core from the servers under test.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Kills of instances in one story, users and orders in turn.
const KILLS: usize = 6;

/// Times that the registry's own loop was late so far. It gives every lease a full TTL then, rather than take its own
/// silence for that of others.
async fn registry_lateness(http: SocketAddr) -> u64 {
    let (_, metrics) = http_get(http, "/metrics").await.expect("the registry answers");
    let count = metrics.lines().find_map(|line| line.strip_prefix("registry_clock_gaps_total "));
    count.and_then(|count| count.trim().parse().ok()).expect("the registry counts how often it was late")
}

/// Kills `victim` while it has calls to answer; then it must be out of the picks and out of the registry in time.
async fn kill(victim: &mut Member, channel: &MeshChannel, news: &mut Follower, registry: SocketAddr) {
    let (name, id) = (victim.process.name().to_owned(), victim.id.to_string());
    let endpoint = endpoint(channel, victim.id);
    let late_before = registry_lateness(registry).await;
    let busy = async {
        while endpoint.in_flight() == 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(LONG, busy).await.expect("it has its share of the load");

    let killed = clock::now();
    victim.process.signal(Signal::KILL);
    let removed = news.until("its removal", LONG, |view| !view.lists(&id)).await.expect("it is removed");

    let last_pick = endpoint.last_pick().expect("it was picked").saturating_duration_since(killed);
    let removal = removed - killed;
    let late = registry_lateness(registry).await - late_before;
    println!(
        "{name}: last pick {last_pick:?} and removal {removal:?} after the kill; the registry was late {late} times"
    );
    assert!(last_pick <= OUT_OF_PICKS, "{name} was still picked {last_pick:?} after it was killed");
    let leases = if late == 0 { TTL } else { 2 * TTL };
    assert!(removal <= leases + Duration::from_secs(1), "{name} was still listed {removal:?} after it was killed");
    victim.process.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_instances_fail_no_call_and_are_gone_in_time() {
    let mut story = Story::begin(3, 2).await;
    let load = story.under_load().await;
    for round in 0..KILLS {
        let registry = story.mesh.registry().expect("it runs").http();
        let Story { mesh, users, orders, user_news, order_news, user_channel, order_channel, .. } = &mut story;
        let (members, news, channel) = match round % 2 {
            0 => (users, user_news, &*user_channel),
            _ => (orders, order_news, &*order_channel),
        };
        let mut victim = members.remove(0);
        kill(&mut victim, channel, news, registry).await;
        members.push(mesh.rejoin(victim).await.expect("its successor starts at the same address"));
        story.everybody_listed().await;
        story.everybody_connected().await;
    }
    nobody_noticed(load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_registry_fails_no_call_and_everybody_comes_back_to_the_next_one() {
    let mut story = Story::begin(2, 1).await;
    let load = story.under_load().await;
    let streams_before = story.user_news.view().streams();

    story.mesh.kill_registry().await;
    story.mesh.start_registry().await.expect("it starts again");
    let anew =
        story.user_news.until("the next registry", LONG, |view| view.streams() > streams_before && view.complete());
    anew.await.expect("the watch comes back");
    story.everybody_listed().await;

    nobody_noticed(load).await;
}
