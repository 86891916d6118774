//! The flags that every server has, each also as an environment variable.

mod units;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, RangedU64ValueParser};
use clap::{Args, ValueEnum};
use uuid::Uuid;

use crate::server::Limits;

pub(crate) use units::nobody_dials;
pub use units::{advertised, duration};

/// Flags of every server, the registry included.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Address of the gRPC port; port 0 takes a free one
    #[arg(long, env = "MESH_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    /// Address of the HTTP port: metrics and probes; port 0 takes a free one
    #[arg(long, env = "MESH_ADMIN_LISTEN", value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    pub admin_listen: SocketAddr,

    /// Shape of the log lines on stderr [default: human on a terminal, else json]
    #[arg(long, env = "MESH_LOG_FORMAT", value_name = "human|json", value_enum, hide_possible_values = true)]
    pub log_format: Option<LogFormat>,

    /// Listen without TLS on addresses other than loopback
    #[arg(long, env = "MESH_INSECURE_PLAINTEXT", value_parser = BoolishValueParser::new())]
    pub insecure_plaintext: bool,

    /// Longest time from the first signal until calls still open are cut
    #[arg(long, env = "MESH_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = units::drain)]
    pub drain_timeout: Duration,

    /// Most connections on the gRPC port; further ones are closed at once
    #[arg(long, env = "MESH_MAX_CONNECTIONS", value_name = "COUNT", default_value = "8192", value_parser = connections())]
    pub max_connections: u32,

    /// Most connections on the gRPC port from one address (from one /64 network with IPv6)
    #[arg(long, env = "MESH_MAX_CONNECTIONS_PER_IP", value_name = "COUNT", default_value = "2048", value_parser = connections())]
    pub max_connections_per_ip: u32,

    /// Most calls open at a time on one connection
    #[arg(long, env = "MESH_MAX_CONCURRENT_STREAMS", value_name = "COUNT", default_value = "256",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_concurrent_streams: u32,

    /// Age at which a connection is asked to go and come anew, give or take a fifth
    #[arg(long, env = "MESH_MAX_CONNECTION_AGE", value_name = "DURATION", default_value = "30m", value_parser = units::age)]
    pub max_connection_age: Duration,

    /// How long a connection may have no call open before it is asked to go
    #[arg(long, env = "MESH_MAX_CONNECTION_IDLE", value_name = "DURATION", default_value = "10m", value_parser = units::age)]
    pub max_connection_idle: Duration,
}

/// Flags of every server that registers: where the registry is, and what it is told.
#[derive(Debug, Clone, Args)]
pub struct ProcessArgs {
    /// The flags of every server.
    #[command(flatten)]
    pub server: ServerArgs,

    /// Where the registry is, with or without http://; several addresses of one registry are separated by commas
    #[arg(long, env = "MESH_REGISTRY", value_name = "URL", default_value = "127.0.0.1:7400", value_delimiter = ',',
          value_parser = units::registry)]
    pub registry: Vec<String>,

    /// Address that callers shall dial; required when listening on a wildcard address [default: the bound address]
    #[arg(long, env = "MESH_ADVERTISE", value_name = "IP:PORT", value_parser = units::advertised)]
    pub advertise: Option<SocketAddr>,

    /// Where this process runs; told to its callers
    #[arg(long, env = "MESH_ZONE", value_name = "NAME", default_value = "", hide_default_value = true,
          value_parser = units::zone)]
    pub zone: String,

    /// Share of the calls relative to the other instances of the service
    #[arg(long, env = "MESH_WEIGHT", value_name = "N", default_value = "100",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub weight: u16,

    /// Identity of this process in the registry [default: a new one at each start]
    #[arg(long, env = "MESH_INSTANCE_ID", value_name = "UUID", value_parser = units::instance_id)]
    pub instance_id: Option<Uuid>,

    /// Folder in which this process keeps what the registry last told it of the services it calls, so that it finds them
    /// when it starts while no registry answers; made if missing, for its owner only [default: nothing is kept]
    #[arg(long, env = "MESH_STATE_DIR", value_name = "DIR", value_parser = units::folder)]
    pub state_dir: Option<PathBuf>,
}

/// Shape of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What this process is known by: what the registry will be told, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advertise {
    /// Nobody registers this process, so a wildcard address is fine as it is.
    Nothing,
    /// The bound address; refused when that is a wildcard, which nobody can dial.
    Bound,
    /// This address; port 0 stands for the bound port.
    Address(SocketAddr),
}

/// The meaning of `--advertise`: without it, the bound address.
impl From<Option<SocketAddr>> for Advertise {
    fn from(flag: Option<SocketAddr>) -> Self {
        flag.map_or(Self::Bound, Self::Address)
    }
}

impl ServerArgs {
    /// Free loopback ports and every default: what a test starts a server with.
    #[must_use]
    pub fn loopback() -> Self {
        let limits = Limits::default();
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: free,
            admin_listen: free,
            log_format: None,
            insecure_plaintext: false,
            drain_timeout: Duration::from_secs(30),
            max_connections: limits.connections,
            max_connections_per_ip: limits.connections_per_ip,
            max_concurrent_streams: limits.concurrent_streams,
            max_connection_age: Limits::CONNECTION_AGE,
            max_connection_idle: Limits::CONNECTION_IDLE,
        }
    }

    /// The limits of the gRPC port: the flags where there is one, else the defaults.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let open = usize::try_from(self.max_concurrent_streams).unwrap_or(usize::MAX);
        Limits {
            connections: self.max_connections,
            connections_per_ip: self.max_connections_per_ip,
            concurrent_streams: self.max_concurrent_streams,
            pending_accept_reset_streams: open.max(Limits::PENDING_ACCEPT_RESETS_MIN),
            connection_age: Some(self.max_connection_age),
            connection_idle: Some(self.max_connection_idle),
            ..Limits::default()
        }
    }
}

fn connections() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    #[test]
    fn every_stream_that_may_be_open_may_be_taken_back() {
        let resets = |max_concurrent_streams| {
            let limits = ServerArgs { max_concurrent_streams, ..ServerArgs::loopback() }.limits();
            (limits.concurrent_streams, limits.pending_accept_reset_streams)
        };
        assert_eq!((resets(65_536), resets(256)), ((65_536, 65_536), (256, 256)));
        assert_eq!(resets(1), (1, Limits::PENDING_ACCEPT_RESETS_MIN));
        assert_eq!(ServerArgs::loopback().limits(), Limits::default());
    }

    #[test]
    fn loopback_is_what_the_flags_say_without_flags() {
        let command = ServerArgs::augment_args(Command::new("server"));
        let parsed = ServerArgs::from_arg_matches(&command.get_matches_from(["server"])).unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{:?}", ServerArgs::loopback()));
    }
}
