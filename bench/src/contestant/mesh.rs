//! The mesh, as an application has it, over a method that is declared idempotent. With its default policy everything is on:
//! two choices by peak EWMA, retries, hedging, ejection, circuit cap, metrics.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_client::{Address, ConnectivityState, Mesh, MeshChannel, Policy};

use super::Rule;
use crate::echo;

/// How long all endpoints together may take to be READY.
const READY_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The default policy, or the default policy with this balancer and no hedging.
pub(super) async fn connect(servers: &[SocketAddr], rule: Option<Rule>) -> Result<MeshChannel, String> {
    let policy = match rule {
        None => Policy::default(),
        Some(rule) => Policy { balancer: rule.balancer(), hedging: None, ..Policy::default() },
    };
    let mesh = Mesh::builder()
        .static_service("echo", servers.iter().copied().map(Address::Tcp))
        .descriptors(&echo::descriptor_set())
        .policy("echo", policy)
        .build()
        .map_err(|error| error.to_string())?;
    let channel = mesh.channel("echo");
    let all_ready = async {
        let is_ready = |channel: &MeshChannel| {
            let endpoints = channel.endpoints();
            endpoints.len() == servers.len()
                && endpoints.iter().all(|endpoint| endpoint.state() == ConnectivityState::Ready)
        };
        while !is_ready(&channel) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(READY_MAX, all_ready).await.map_err(|_| format!("not READY within {READY_MAX:?}"))?;
    Ok(channel)
}
