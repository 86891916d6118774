//! A server is restarted under many channels, and they do not all come back at once.

use std::time::Duration;

use futures_util::future::join_all;
use mesh_client::{ConnectivityState, MeshChannel};
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

/// In which connections are counted (P31) ...
const BIN: Duration = Duration::from_millis(100);

/// ... and how many of all may fall into one.
const BIN_SHARE_MAX: f64 = 0.15;

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
    let told = server.until("everybody to come back", |told| told.connected.len() >= CHANNELS).await;
    calls.extend(everybody_calls(&channels).await);

    let mut bins = std::collections::BTreeMap::<u128, usize>::new();
    for connected in &told.connected {
        *bins.entry(connected.as_millis() / BIN.as_millis()).or_default() += 1;
    }
    let fullest = bins.values().copied().max().unwrap_or_default();
    let last = told.connected.iter().max().copied().unwrap_or_default();
    let mut finding = Finding::nobody_noticed(&calls);
    finding.attempts(dead + server.told().called, span(&calls));
    finding.converged(format!("all back within {last:.1?}, at most {fullest} in 100 ms"));
    let connected = server.told().connected.len();
    finding.must(fullest as f64 <= BIN_SHARE_MAX * connected as f64, || {
        format!("{fullest} of {connected} connections came within 100 ms: {bins:?}")
    });
    finding.must(connected == CHANNELS, || format!("{connected} connections were made for {CHANNELS} channels"));
    finding
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
