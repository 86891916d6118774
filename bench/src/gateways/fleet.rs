//! The processes of a run: a registry, the backend, our gateway, and an Envoy where there is one.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::backend::{self, ORDER_ID};
use super::order::Way;
use crate::args::{GatewayArgs, KeepArgs};
use crate::child::{Kept, free_port};
use crate::envoy::{Config, Envoy};
use crate::failure::Failure;

/// How long it may take until everybody has found everybody.
const START_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// All of them, for as long as this is held.
pub(super) struct Fleet {
    _registry: Kept,
    backend: (SocketAddr, Kept),
    gateway: (SocketAddr, Kept),
    envoy: Option<Envoy>,
    workers: usize,
    _folder: TempDir,
}

impl Fleet {
    /// Starts them, and returns once an order can be had from each.
    pub(super) async fn start(args: &GatewayArgs, envoy: Option<&Path>) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("gateway-").tempdir_in(&args.out);
        let folder = folder.map_err(Failure::io(format!("make a folder in {}", args.out.display())))?;
        let workers = std::thread::available_parallelism().map_or(2, usize::from);

        let (registry_at, registry) = ours(&folder, "registry-server", &["--store", "memory"], None).await?;
        let backend = ours(&folder, "orders-server", &[], Some(registry_at)).await?;
        let gateway = ours(&folder, "gateway-server", &["--auth", "off"], Some(registry_at)).await?;
        let envoy = match envoy {
            None => None,
            Some(program) => {
                let descriptors = folder.path().join("descriptors.bin");
                fs::write(&descriptors, mesh_api::FILE_DESCRIPTOR_SET)
                    .map_err(Failure::io(format!("write {}", descriptors.display())))?;
                let config =
                    Config { codec: "AUTO", servers: &[backend.0], filter: Some(transcoder(&descriptors)), workers };
                Some(Envoy::start(program, config, folder.path()).await?)
            }
        };
        let fleet = Self { _registry: registry, backend, gateway, envoy, workers, _folder: folder };
        for way in fleet.ways().into_iter().filter(|way| *way != Way::Direct) {
            let (at, _) = fleet.at(way);
            let answers = async {
                while !has_order(at).await {
                    sleep(LOOK_EVERY).await;
                }
            };
            let silent = |_| Failure::Child(format!("{} gives no order at {at}", way.title()));
            timeout(START_MAX, answers).await.map_err(silent)?;
        }
        Ok(fleet)
    }

    /// The ways that can be measured.
    pub(super) fn ways(&self) -> Vec<Way> {
        [Way::Direct, Way::Gateway].into_iter().chain(self.envoy.as_ref().map(|_| Way::Envoy)).collect()
    }

    /// Where a way begins, and the process in its middle; of a direct call it is the backend.
    pub(super) fn at(&self, way: Way) -> (SocketAddr, u32) {
        match (way, &self.envoy) {
            (Way::Envoy, Some(envoy)) => (envoy.address(), envoy.pid()),
            (Way::Gateway, _) => (self.gateway.0, self.gateway.1.pid()),
            (Way::Direct | Way::Envoy, _) => (self.backend.0, self.backend.1.pid()),
        }
    }

    /// Who they are, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let workers = self.workers;
        let mut lines = vec![
            format!("gateway: --auth off, {workers} threads, one backend found through a registry, by its reflection"),
            "who asks: HTTP/1.1, a connection for each request in flight, one thread; everybody wherever the kernel likes"
                .to_owned(),
        ];
        lines.extend(self.envoy.as_ref().map(|envoy| {
            format!(
                "{}: grpc_json_transcoder on the same descriptors, --concurrency {workers}, the backend named",
                envoy.version()
            )
        }));
        lines
    }
}

/// One of our own servers on a free port; its log stands in the folder.
async fn ours(
    folder: &TempDir,
    server: &str,
    flags: &[&str],
    registry: Option<SocketAddr>,
) -> Result<(SocketAddr, Kept), Failure> {
    let [main, admin] = [free_port()?, free_port()?];
    let mut args = vec![OsString::from(server)];
    let mut flag = |name: &str, value: String| args.extend([OsString::from(name), OsString::from(value)]);
    flag("--listen", main.to_string());
    flag("--admin-listen", admin.to_string());
    if let Some(registry) = registry {
        flag("--registry", registry.to_string());
    }
    args.extend(flags.iter().map(OsString::from));
    let program = std::env::current_exe().map_err(Failure::io("find this binary"))?;
    let log = folder.path().join(format!("{server}.log"));
    let process = Kept::start(&KeepArgs { log: Some(log.clone()), program, args }).await?;
    let listens = async {
        while TcpStream::connect(main).await.is_err() {
            sleep(LOOK_EVERY).await;
        }
    };
    if timeout(START_MAX, listens).await.is_err() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let last = said.trim_end().lines().last().unwrap_or("nothing");
        return Err(Failure::Child(format!("the {server} does not listen; it said: {last}")));
    }
    Ok((main, process))
}

/// Envoy's filter, told to print what ours prints.
fn transcoder(descriptors: &Path) -> serde_json::Value {
    json!({
        "name": "envoy.filters.http.grpc_json_transcoder",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
            "proto_descriptor": descriptors,
            "services": [mesh_api::shop::order::v1::order_service_server::SERVICE_NAME],
            "convert_grpc_status": true,
            "print_options": { "always_print_primitive_fields": true },
        },
    })
}

/// Whether an order can be had by HTTP.
async fn has_order(at: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(at).await?;
        let request =
            format!("GET /v1/orders/{ORDER_ID} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", backend::NAME);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    asked.await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200") && answer.contains(ORDER_ID))
}
