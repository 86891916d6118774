//! tonic's own channels, as its documentation makes them.

use std::net::SocketAddr;

use tonic::transport::{Channel, Endpoint};

pub(super) async fn channel(servers: &[SocketAddr]) -> Result<Channel, String> {
    let server = servers.first().ok_or("no server")?;
    endpoint(server)?.connect().await.map_err(|error| error.to_string())
}

/// It connects when it is called first; the warm-up sees to that.
pub(super) fn balance_list(servers: &[SocketAddr]) -> Result<Channel, String> {
    let endpoints = servers.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
    Ok(Channel::balance_list(endpoints.into_iter()))
}

fn endpoint(server: &SocketAddr) -> Result<Endpoint, String> {
    Endpoint::from_shared(format!("http://{server}")).map_err(|error| error.to_string())
}
