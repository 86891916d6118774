//! Connections: how one is opened, proved alive, watched, and used by calls.

mod connector;

use std::time::Duration;

pub use connector::{Connecting, Connector, Io, TcpConnector};

/// How connections are made and watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnSettings {
    /// Longest time from the first SYN to the first PONG.
    pub(crate) connect_timeout: Duration,
    /// With a call in flight and no byte for this long, the connection is asked with a PING.
    pub(crate) silence: Duration,
    /// No byte for this long after the PING: the connection is dead.
    pub(crate) pong_timeout: Duration,
}

impl Default for ConnSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            silence: Duration::from_millis(500),
            pong_timeout: Duration::from_secs(1),
        }
    }
}
