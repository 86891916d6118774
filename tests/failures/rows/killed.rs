//! Servers that die, stop or are cut off.

use std::time::Duration;

use mesh_client::{ConnectivityState, EndpointHandle};
use mesh_runtime::clock;
use rustix::process::Signal;
use tokio::time::Instant;

use super::Scene;
use crate::args::Length;
use crate::fleet::{Server, called};
use crate::harness::until;
use crate::load::{Call, Cast, ONCE, RATE, REPEATABLE, Stage, endpoint, words};
use crate::proxy::Proxy;
use crate::report::{Finding, span};
use crate::serve::USUAL;
use crate::wire::Manners;

/// Calls that are watched after a fault: three seconds of them.
const AFTERMATH: usize = 3 * RATE as usize;

/// Picks of a killed server: what a third of the load comes to in 50 ms (P23) is 3, and the rest is for a machine that
/// lets this process wait.
const PICKS_AFTER_KILL: u64 = 10;

/// Picks of a stopped one. Nothing tells of it but its silence: a third of the load in the second and a half until that is taken
/// for death is 75. What waits there already is reason enough to go elsewhere sooner.
const PICKS_AFTER_STOP: u64 = 30;

/// Calls per death that may be lost beside those that the dead one says it had, where nothing may be repeated: it had not read
/// them yet, or not sent their answers. Whoever made them cannot know. One in two deaths has such a call.
const UNDER_WAY_MAX: u64 = 2;

/// What the client says of a lost call that left it. One that did not is always sent elsewhere.
const MAYBE_PROCESSED: &str = "it may have been processed";

/// How long a call takes the servers whose calls may not be repeated: a third of the load leaves two or three of them to be
/// lost at any moment.
const LINGERING: Duration = Duration::from_millis(50);

/// How long a server is stopped: longer than any call waits.
const STOPPED: Duration = Duration::from_secs(4);

/// One server under a fault: how often it was picked before.
struct Watched {
    endpoint: EndpointHandle,
    before: u64,
    since: Instant,
}

impl Watched {
    fn from_now(endpoint: EndpointHandle) -> Watched {
        Watched { before: endpoint.picks(), endpoint, since: clock::now() }
    }

    fn picks(&self) -> u64 {
        self.endpoint.picks() - self.before
    }

    fn last_pick(&self) -> Duration {
        self.endpoint.last_pick().map_or(Duration::ZERO, |picked| picked.saturating_duration_since(self.since))
    }
}

/// Waits until a call is there to be lost.
async fn busy(endpoint: &EndpointHandle) {
    until("it to have a call to answer", || endpoint.in_flight() > 0).await;
}

pub(super) async fn one_of_three(scene: Scene) -> Finding {
    let (calls, told) = kill_one_by_one(scene, REPEATABLE, USUAL).await;
    let mut finding = Finding::nobody_noticed(&calls);
    finding.attempts(told.called, span(&calls));
    told.judge(&mut finding);
    finding
}

/// Calls that may not be repeated: those that the dead server had are lost, and no other.
pub(super) async fn one_of_three_writes(scene: Scene) -> Finding {
    let (calls, told) = kill_one_by_one(scene, ONCE, LINGERING).await;
    let mut finding = Finding::of(&calls);
    finding.attempts(told.called, span(&calls));
    told.judge(&mut finding);
    println!("failures: {:?}", words(&calls));
    let failed = calls.iter().filter(|call| call.outcome.is_err()).count() as u64;
    let most = told.had + told.kills as u64 * UNDER_WAY_MAX;
    finding.must(failed <= most, || format!("{failed} failed, and the dead had {}: {:?}", told.had, words(&calls)));
    let unsent =
        calls.iter().filter_map(|call| call.outcome.as_ref().err()).filter(|text| !text.contains(MAYBE_PROCESSED));
    let unsent = unsent.count();
    finding.must(unsent == 0, || format!("{unsent} failed that no server can have processed: {:?}", words(&calls)));
    let sent = told.called;
    finding.must(sent <= calls.len() as u64, || format!("{} calls were sent {sent} times", calls.len()));
    finding
}

/// What became of servers that were killed.
#[derive(Default)]
struct Killed {
    kills: usize,
    /// Most picks of one after its death, and the latest of them.
    most: u64,
    latest: Duration,
    /// Calls that had arrived at them when they died, and had been neither answered nor taken back: by their own word.
    had: u64,
    /// Calls that arrived anywhere.
    called: u64,
}

impl Killed {
    fn judge(&self, finding: &mut Finding) {
        let Killed { kills, most, latest, had, .. } = self;
        finding.converged(format!("{most} picks, {latest:.0?} (worst of {kills} kills, with {had} calls in hand)"));
        finding.must(*most <= PICKS_AFTER_KILL, || format!("it was picked {most} times after its death"));
    }
}

/// Kills one of three while it has calls, starts its successor, and goes on with the next one.
async fn kill_one_by_one(scene: Scene, method: &'static str, delay: Duration) -> (Vec<Call>, Killed) {
    let servers = Server::several(3, Manners::echo(delay)).await;
    let mut stage = Stage::set(scene.seed, Cast { method, ..Cast::of(servers) }).await;
    let kills = if scene.length == Length::Full { 20 } else { 4 };
    let mut told = Killed { kills, ..Killed::default() };
    for kill in 0..kills {
        let victim = kill % stage.servers.len();
        let endpoint = stage.endpoint(victim);
        // By its own word: a server that the machine lets wait would have calls that it knows nothing of.
        stage.servers[victim].until("a call to be lost", |told| told.unfinished() > 0).await;
        let watched = Watched::from_now(endpoint.clone());
        stage.servers[victim].kill().await;
        let last_words = stage.servers[victim].told();
        told.called += last_words.called;
        told.had += last_words.unfinished();
        stage.load.calls(RATE as usize).await;
        told.most = told.most.max(watched.picks());
        told.latest = told.latest.max(watched.last_pick());
        let address = stage.servers[victim].address();
        stage.servers[victim] = Server::start_at(address, Manners::echo(delay)).await;
        until("the successor to be connected", || endpoint.state() == ConnectivityState::Ready).await;
    }
    let calls = stage.load.stop().await;
    told.called += called(&stage.servers);
    (calls, told)
}

pub(super) async fn half_at_once(scene: Scene) -> Finding {
    let mut stage = Stage::set(scene.seed, Cast::well(4).await).await;
    let watched = [0, 1].map(|server| Watched::from_now(stage.endpoint(server)));
    let [first, second, ..] = &mut stage.servers[..] else { unreachable!("four were started") };
    tokio::join!(first.kill(), second.kill());
    stage.load.calls(AFTERMATH).await;
    let calls = stage.load.stop().await;
    let mut finding = Finding::nobody_noticed(&calls);
    finding.attempts(called(&stage.servers), span(&calls));
    let picks: u64 = watched.iter().map(Watched::picks).sum();
    let latest = watched.iter().map(Watched::last_pick).max().unwrap_or_default();
    finding.converged(format!("{picks} picks, {latest:.0?}"));
    finding.must(picks <= 2 * PICKS_AFTER_KILL, || format!("they were picked {picks} times after their death"));
    finding
}

pub(super) async fn stopped_one_of_three(scene: Scene) -> Finding {
    let stage = Stage::set(scene.seed, Cast::well(3).await).await;
    // Which call takes unusually long is known only to those who know what is usual.
    stage.load.calls(2 * RATE as usize).await;
    let endpoint = stage.endpoint(0);
    busy(&endpoint).await;
    let watched = Watched::from_now(endpoint.clone());
    stage.servers[0].signal(Signal::STOP);
    tokio::time::sleep(STOPPED).await;
    let (picks, latest) = (watched.picks(), watched.last_pick());

    stage.servers[0].signal(Signal::CONT);
    until("it to be picked again", || endpoint.picks() > watched.before + picks + 10).await;
    stage.load.calls(RATE as usize).await;
    let calls = stage.load.stop().await;
    let mut finding = Finding::nobody_noticed(&calls);
    finding.attempts(called(&stage.servers), span(&calls));
    finding.converged(format!("{picks} picks, {latest:.0?}"));
    finding.must(picks <= PICKS_AFTER_STOP, || format!("it was picked {picks} times after it was stopped"));
    finding
}

/// Its connections stay, and whatever is written to them gets lost, either way.
pub(super) async fn swallowed_one_of_three(scene: Scene) -> Finding {
    let server = Server::start(Manners::echo(USUAL)).await;
    let proxy = Proxy::before(server.address()).await;
    let others = vec![proxy.address().into()];
    let stage = Stage::set(scene.seed, Cast { others, ..Cast::well(2).await }).await;
    stage.load.calls(2 * RATE as usize).await;
    let cut_off = endpoint(&stage.channel, proxy.address().into());
    busy(&cut_off).await;
    let watched = Watched::from_now(cut_off.clone());
    proxy.swallow();
    tokio::time::sleep(STOPPED).await;
    let (picks, latest, state) = (watched.picks(), watched.last_pick(), cut_off.state());
    stage.load.calls(AFTERMATH).await;
    let after = watched.picks() - picks;
    let calls = stage.load.stop().await;
    let mut finding = Finding::nobody_noticed(&calls);
    // Calls that were swallowed, no server has seen.
    finding.attempts(called(&stage.servers) + cut_off.picks(), span(&calls));
    finding.converged(format!("{picks} picks, {latest:.0?}; {state} by then, and {after} more"));
    finding.must(picks <= PICKS_AFTER_STOP, || format!("it was picked {picks} times while nothing came back"));
    // Even where hedging ends each call on it within milliseconds.
    finding.must(state != ConnectivityState::Ready, || "its connection was never given up".to_owned());
    finding.must(after * 100 <= AFTERMATH as u64, || format!("it was picked {after} times more when that was known"));
    finding
}
