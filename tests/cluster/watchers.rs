//! Many processes that follow a service, as far as the registries can tell.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh_client::{Address, Connecting, Connector, Io, Mesh, MeshChannel, WatchState};
use tokio::net::TcpSocket;
use tokio::time::Instant;

/// The service that they follow. It has no instances, so that they connect to nobody but registries.
const NOBODY: &str = "nobody-svc";

/// One of them.
pub(crate) struct Watcher {
    mesh: Mesh,
    _channel: MeshChannel,
}

impl Watcher {
    /// Whether it has a stream on which it heard something after `since`.
    pub(crate) fn follows_since(&self, since: Instant) -> bool {
        self.mesh.watch_status().is_some_and(|status| {
            status.state == WatchState::Following && status.last_heard.is_some_and(|heard| heard > since)
        })
    }
}

/// Connections from one of twenty loopback addresses: of one, a registry takes only so many.
struct From(u8);

impl Connector for From {
    fn connect(&self, address: &Address) -> Connecting {
        let (host, to) = (self.0, address.tcp());
        Box::pin(async move {
            let to = to.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)))?;
            Ok(Box::new(socket.connect(to).await?) as Box<dyn Io>)
        })
    }
}

/// Starts so many of them.
pub(crate) fn follow(registries: &[String], count: usize) -> Vec<Watcher> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it is not allowed, some do not connect, and the test says how many do.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    let watcher = |number: usize| {
        let mesh = Mesh::builder().registry(registries).connector(Arc::new(From(10 + (number % 20) as u8)));
        let mesh = mesh.build().expect("the configuration is one");
        let channel = mesh.channel(NOBODY);
        Watcher { mesh, _channel: channel }
    };
    (0..count).map(watcher).collect()
}
