//! Real services around a real registry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_client::{EndpointHandle, Mesh, MeshChannel, Policy, Retry};
use mesh_runtime::clock;
use meshctl::{Load, LoadPlan, LoadReport, Member, Program, ServiceView};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::Scene;
use crate::args::Length;
use crate::harness::{LONG, RATE, Story, http_get, under_load, until};
use crate::report::Finding;

/// Calls per second while everything is replaced (T41); unoptimised, it would be the machine that fails them.
const RESTART_RATE: u32 = if cfg!(debug_assertions) { RATE } else { 400 };

/// How often everybody is replaced.
const ROUNDS: usize = 2;

/// How long the registry is away: thirty times the TTL, in seconds ...
const AWAY_SHORT: Duration = Duration::from_secs(60);

/// ... and as long as the promise says (P01).
pub(crate) const AWAY_FULL: Duration = Duration::from_secs(600);

/// How often every instance is asked whether it is ready, while there is no registry.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How often new endpoints are looked for, whose attempts are counted: far less than an instance lives.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn rolling_restart(scene: Scene) -> Finding {
    let rate = scene.rate.unwrap_or(RESTART_RATE);
    // One call in twenty may not be repeated.
    let once_rate = (rate / 20).max(1);
    let mut story = Story::begin(3, 2).await;
    // The services declare every method repeatable. To whoever neither retries nor hedges, none of them is.
    let retry = Retry { attempts_max: 1, ..Retry::default() };
    let once = Policy { retry, hedging: None, ..Policy::default() };
    let mesh = Mesh::builder().seed(scene.seed).registry([story.mesh.registry_url().to_string()]).default_policy(once);
    let mesh = mesh.build().expect("the configuration is one");
    let [users, orders] = [Program::UserSvc, Program::OrderSvc].map(|service| mesh.channel(service.name()));

    let counted = Attempts::count([&story.user_channel, &story.order_channel]);
    // Another seed: two loads with the same request ids would be given the same users.
    let other = Scene { seed: scene.seed.wrapping_add(1), ..scene };
    let load_once = begin(other, LoadPlan { users, orders, ..story.load(once_rate) }).await;
    let load = begin(scene, story.load(rate - once_rate)).await;
    let began = clock::now();
    for _ in 0..ROUNDS {
        story.replace_everybody().await;
    }
    let took = began.elapsed();
    let (report, report_once) = (end(load).await, end(load_once).await);

    let mut finding = Finding::of_report(&report);
    finding.attempts(counted.total(), took);
    finding.and(Finding::of_report(&report_once));
    finding.converged(format!("everybody {ROUNDS} times in {took:.0?} at {rate}/s; p99 {:.0?}", report.total.p99));
    finding
}

/// The registry is away, and an instance dies meanwhile (T27).
pub(super) async fn registry_down(scene: Scene) -> Finding {
    let away = if scene.length == Length::Full { AWAY_FULL } else { AWAY_SHORT };
    let mut story = Story::begin(3, 2).await;
    let counted = Attempts::count([&story.user_channel, &story.order_channel]);
    let load = begin(scene, story.load(RATE)).await;
    let streams_before = story.user_news.view().streams();

    story.mesh.kill_registry().await;
    let gone = clock::now();
    let mut ticks = tokio::time::interval(ASK_EVERY);
    while gone.elapsed() < away {
        ticks.tick().await;
        for member in story.users.iter().chain(&story.orders) {
            let (status, body) = http_get(member.process.http(), "/readyz").await.expect("it answers");
            assert_eq!(status, 200, "{} after {:?}: {body}", member.process.name(), gone.elapsed());
        }
        if gone.elapsed() > away / 2 && story.users.len() == 3 {
            story.users.remove(0).process.kill().await;
        }
    }

    let back = clock::now();
    story.mesh.start_registry().await.expect("it starts again");
    let anew = |view: &ServiceView| view.streams() > streams_before && view.complete();
    story.user_news.until("the next registry", LONG, anew).await.expect("the watch comes back");
    story.everybody_listed().await;
    let again = back.elapsed();

    let report = end(load).await;
    let mut finding = Finding::of_report(&report);
    finding.attempts(counted.total(), gone.elapsed());
    finding.converged(format!("away for {away:.0?}; everybody listed again after {again:.1?}"));
    finding
}

pub(super) async fn connection_age(scene: Scene) -> Finding {
    /// Ten seconds of calls ...
    const CALLS: u64 = 10 * RATE as u64;
    /// ... in which each service has seen this many connections at least: one every 2.4 s, and one to spare.
    const CONNECTIONS: u64 = 4;
    let story = Story::begin_with(3, 2, &["--max-connection-age", "2s"]).await;
    let counted = Attempts::count([&story.user_channel, &story.order_channel]);
    let load = begin(scene, story.load(RATE)).await;
    let began = clock::now();
    until("ten seconds of calls", || load.so_far().total.calls >= CALLS).await;
    let took = began.elapsed();
    let report = end(load).await;
    let mut connections = Vec::new();
    for member in story.users.iter().chain(&story.orders) {
        connections.push(accepted(member).await);
    }
    let mut finding = Finding::of_report(&report);
    finding.attempts(counted.total(), took);
    finding.converged(format!("connections taken: {connections:?}; p99 {:.0?}", report.total.p99));
    finding.must(connections.iter().all(|count| *count >= CONNECTIONS), || {
        format!("void: some connections did not end: {connections:?}")
    });
    finding
}

/// Starts a load over both services, and waits until it goes well.
async fn begin(scene: Scene, plan: LoadPlan) -> Load {
    under_load(LoadPlan { seed: scene.seed, ..plan }).await
}

async fn end(load: Load) -> LoadReport {
    let report = load.stop().await.expect("the load does not panic");
    println!("{} of {} calls were started late", report.late_starts, report.total.calls);
    report
}

/// Connections that an instance has taken so far.
async fn accepted(member: &Member) -> u64 {
    let (_, metrics) = http_get(member.process.http(), "/metrics").await.expect("it answers");
    let count = metrics.lines().find_map(|line| line.strip_prefix("mesh_server_connections_accepted_total "));
    count.and_then(|count| count.trim().parse().ok()).expect("it counts them")
}

/// Attempts on every endpoint that some channels ever had.
struct Attempts {
    seen: Arc<Mutex<BTreeMap<Uuid, EndpointHandle>>>,
    _looking: AbortOnDropHandle<()>,
}

impl Attempts {
    fn count(channels: [&MeshChannel; 2]) -> Attempts {
        let seen: Arc<Mutex<BTreeMap<Uuid, EndpointHandle>>> = Arc::default();
        let (channels, noted) = (channels.map(Clone::clone), seen.clone());
        let looking = tokio::spawn(async move {
            loop {
                for endpoint in channels.iter().flat_map(MeshChannel::endpoints) {
                    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    noted.insert(endpoint.instance_id(), endpoint);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Attempts { seen, _looking: AbortOnDropHandle::new(looking) }
    }

    fn total(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).values().map(EndpointHandle::picks).sum()
    }
}
