//! Servers that take no more calls, for now or on this connection. What they did not take is nobody's loss: every call here
//! is one that may not be repeated.

use std::time::Duration;

use super::Scene;
use crate::fleet::{Server, addresses, called};
use crate::harness::until;
use crate::load::{Load, ONCE, Pace, SERVICE, static_mesh};
use crate::report::{Finding, span};
use crate::serve::USUAL;
use crate::wire::Manners;

pub(super) async fn goaway(scene: Scene) -> Finding {
    /// GOAWAYs in all.
    const TIMES: u64 = 1000;
    /// Age of a connection that is asked to go: a few calls.
    const AGE: Duration = Duration::from_millis(10);
    let servers = Server::several(8, Manners { goaway_after: Some(AGE), ..Manners::echo(USUAL) }).await;
    let load = begin(scene, &servers, Pace { rate: 300, burst: 3 });
    let sent_away = || servers.iter().map(|server| server.told().sent_away).sum::<u64>();
    load.healthy().await;
    for quarter in 1..=4 {
        until("GOAWAYs", || sent_away() >= quarter * TIMES / 4).await;
    }
    let mut finding = once(&servers, load).await;
    finding.converged(format!("{} GOAWAYs, each with a stream open", sent_away()));
    finding
}

pub(super) async fn one_stream(scene: Scene) -> Finding {
    /// Calls at once: three for every stream that two servers allow on the four connections to each.
    const AT_ONCE: u32 = 24;
    /// Calls in all.
    const CALLS: usize = 1000;
    let servers = Server::several(2, Manners { streams_max: Some(1), ..Manners::echo(USUAL) }).await;
    let load = begin(scene, &servers, Pace { rate: 10 * AT_ONCE, burst: AT_ONCE });
    load.healthy().await;
    load.calls(CALLS).await;
    let mut finding = once(&servers, load).await;
    let connections: Vec<usize> = servers.iter().map(|server| server.told().connected.len()).collect();
    finding.converged(format!("connections opened: {connections:?}"));
    finding
}

/// Calls that may not be repeated.
fn begin(scene: Scene, servers: &[Server], pace: Pace) -> Load {
    let mesh = static_mesh(scene.seed, addresses(servers)).build().expect("the configuration is one");
    Load::start(&mesh.channel(SERVICE), ONCE, pace, scene.seed)
}

/// Ends the load: nobody noticed, and every call was served exactly once.
async fn once(servers: &[Server], load: Load) -> Finding {
    let calls = load.stop().await;
    let mut finding = Finding::nobody_noticed(&calls);
    let served = called(servers);
    finding.attempts(served, span(&calls));
    finding.must(served == calls.len() as u64, || format!("{} calls were served {served} times", calls.len()));
    finding
}
