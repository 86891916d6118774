//! What a target makes of what is resolved and of what its calls come to, over scripted servers in memory.
//!
//! Most of these tests pick and tell how it went without sending anything: what calls themselves do is told in
//! `call::tests`.

mod connections;
mod ejection;
mod explain;
mod picks;
mod resolution;
mod zones;

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Code;

use super::{InFlight, Outcome, Unplaced, Wanted};
use crate::clock;
use crate::endpoint::EndpointHandle;
use crate::explain::Verdict;
use crate::policy::Balancer;
use crate::rig::{GET, Net, Rig, Server, ok};
use crate::target::TargetConfig;

/// What a healthy server says.
const WELL: Outcome = Outcome::Code(Code::Ok);
/// What a sick one says.
const SICK: Outcome = Outcome::Code(Code::Unavailable);

/// Every endpoint in its turn, so that tests know who is next.
fn in_turn(config: &mut TargetConfig) {
    config.policy.balancer = Balancer::RoundRobin;
}

/// As many servers as endpoints, all READY.
async fn rig_of(ports: u16, configure: impl FnOnce(&mut TargetConfig)) -> (Net, Vec<Server>, Rig) {
    let net = Net::default();
    let servers = (1..=ports).map(|port| Server::start(&net, port, ok)).collect();
    let rig = Rig::with(&net, 1..=ports, configure);
    rig.all(crate::ConnectivityState::Ready).await;
    (net, servers, rig)
}

/// The manager takes its turn: a moment in paused time.
async fn settled() {
    sleep(Duration::from_millis(1)).await;
}

/// So many endpoints are listed, and all of them are READY.
async fn ready(rig: &Rig, endpoints: usize) {
    crate::rig::eventually(|| rig.handles().len() == endpoints).await;
    rig.all(crate::ConnectivityState::Ready).await;
}

fn place_for(rig: &Rig, method: &str) -> Result<InFlight, Unplaced> {
    let target = rig.channel.target();
    target.pick(&Wanted {
        now: target.ledger().now(),
        deadline: None,
        tried: &[],
        key: None,
        method,
        metric: target.stats().method(method),
    })
}

/// A place for a call that may be repeated.
fn place(rig: &Rig) -> InFlight {
    place_for(rig, GET).unwrap()
}

fn port(place: &InFlight) -> u16 {
    place.endpoint().address.tcp().unwrap().port()
}

/// Makes an attempt that ends at once, and says where.
async fn attempt(rig: &Rig, outcome: impl Fn(u16) -> Outcome) -> u16 {
    let mut place = place(rig);
    let port = port(&place);
    place.end(outcome(port), place.now());
    drop(place);
    settled().await;
    port
}

/// How many of so many attempts that end well go there.
async fn share_of(rig: &Rig, wanted: u16, attempts: usize) -> usize {
    let mut share = 0;
    for _ in 0..attempts {
        share += usize::from(attempt(rig, |_| WELL).await == wanted);
    }
    share
}

fn handle(rig: &Rig, port: u16) -> EndpointHandle {
    rig.handles()[&port].clone()
}

fn verdict(rig: &Rig, port: u16) -> Verdict {
    let explanation = rig.channel.explain();
    let is_it = |endpoint: &&crate::EndpointExplanation| endpoint.address.tcp().unwrap().port() == port;
    explanation.endpoints.iter().find(is_it).unwrap().verdict.clone()
}

async fn until(at: Instant) {
    tokio::time::sleep_until(at).await;
    settled().await;
}
