//! A server is restarted under many channels, and they do not all come back at once.

use std::time::Duration;

use futures_util::future::join_all;
use mesh_client::{ConnectivityState, EndpointHandle, MeshChannel};
use mesh_runtime::clock;

use super::Scene;
use crate::fleet::Server;
use crate::harness::until;
use crate::load::{Call, DEADLINE, REPEATABLE, SERVICE, echo, static_mesh};
use crate::report::{Finding, span};
use crate::serve::USUAL;
use crate::wire::Manners;

/// Channels, each of a mesh of its own: as many clients as far as the server can tell.
const CHANNELS: usize = 500;

/// How long the server is away: by then every client has been refused a few times.
const AWAY: Duration = Duration::from_secs(3);

/// In which attempts to connect are counted (P31) ...
const BIN: Duration = Duration::from_millis(100);

/// ... and how many of all may fall into one.
const BIN_SHARE_MAX: f64 = 0.15;

/// How often the channels are looked at: far less than a bin, and more than nothing for this process to do.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Calls at a time: two cores serve both sides.
const AT_ONCE: usize = 50;

pub(super) async fn storm(scene: Scene) -> Finding {
    let mut server = Server::start(Manners::echo(USUAL)).await;
    let channel = |number: usize| {
        let mesh = static_mesh(scene.seed.wrapping_add(number as u64), vec![server.address().into()]);
        mesh.build().expect("the configuration is one").channel(SERVICE)
    };
    let channels: Vec<MeshChannel> = (0..CHANNELS).map(channel).collect();
    let mut calls = everybody_calls(&channels).await;
    let failed = calls.iter().filter(|call| call.outcome.is_err()).count();
    assert_eq!(failed, 0, "void: calls failed before anything happened");

    server.kill().await;
    let dead = server.told().called;
    tokio::time::sleep(AWAY).await;
    server = Server::start_at(server.address(), Manners::echo(USUAL)).await;
    let bins = attempts_to_connect(&channels).await;
    let told = server.until("everybody to come back", |told| told.connected.len() >= CHANNELS).await;
    calls.extend(everybody_calls(&channels).await);

    let last = told.connected.iter().max().copied().unwrap_or_default();
    let fullest = bins.iter().map(Bin::share).fold(0.0, f64::max);
    let mut finding = Finding::nobody_noticed(&calls);
    finding.attempts(dead + server.told().called, span(&calls));
    finding.converged(format!("all back within {last:.1?}, at most {:.1} % in 100 ms", fullest * 100.0));
    let connected = server.told().connected.len();
    finding.must(fullest <= BIN_SHARE_MAX, || format!("{:.1} % tried within 100 ms: {bins:?}", fullest * 100.0));
    finding.must(connected == CHANNELS, || format!("{connected} connections were made for {CHANNELS} channels"));
    finding
}

/// Channels that were first seen to try within some time: a bin, or longer where the machine let this process wait. All
/// who were due meanwhile try when it goes on, and that is no fault of theirs.
#[derive(Debug)]
struct Bin {
    tried: usize,
    lasted: Duration,
}

impl Bin {
    /// The share of all channels that tried per bin's time.
    fn share(&self) -> f64 {
        self.tried as f64 / CHANNELS as f64 / self.lasted.div_duration_f64(BIN)
    }
}

/// Waits until every channel has tried to connect, from now on, and tells how many did when. It is the client's own word:
/// when a server gets to accept them is another matter.
async fn attempts_to_connect(channels: &[MeshChannel]) -> Vec<Bin> {
    let mut waiting: Vec<EndpointHandle> = channels.iter().flat_map(MeshChannel::endpoints).collect();
    let mut bins = Vec::new();
    let (mut begun, mut tried) = (clock::now(), 0);
    while !waiting.is_empty() {
        tokio::time::sleep(LOOK_EVERY).await;
        let before = waiting.len();
        waiting.retain(|endpoint| endpoint.state() == ConnectivityState::TransientFailure);
        tried += before - waiting.len();
        let lasted = begun.elapsed();
        if lasted >= BIN {
            bins.push(Bin { tried, lasted });
            (begun, tried) = (clock::now(), 0);
        }
    }
    bins
}

/// One call by each, when it is connected.
async fn everybody_calls(channels: &[MeshChannel]) -> Vec<Call> {
    let ready = |channel: &MeshChannel| channel.state() == ConnectivityState::Ready;
    until("every channel to be connected", || channels.iter().all(ready)).await;
    let mut calls = Vec::with_capacity(channels.len());
    for some in channels.chunks(AT_ONCE) {
        calls.extend(join_all(some.iter().map(one_call)).await);
    }
    calls
}

async fn one_call(channel: &MeshChannel) -> Call {
    let due = clock::now();
    let outcome = echo(channel.clone(), REPEATABLE, "storm".to_owned(), DEADLINE).await;
    Call { due, took: due.elapsed(), outcome }
}
