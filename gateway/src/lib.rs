//! gateway: REST/JSON and gRPC-Web in front of every registered service, from the descriptors that its instances serve.
//!
//! | module | job |
//! |---|---|
//! | `services` | which services there are, what they offer over HTTP, and who keeps a contested route |
//! | `published` | what that comes to: replaced as a whole, read by every request |
//! | `transcode` | PURE: HTTP and JSON to gRPC and back, by what descriptors say |
//! | `front` | requests of anybody, over HTTP/1.1 or HTTP/2, to calls of the mesh |
//! | `args` | the flags |
//!
//! What must stay true: nothing is compiled in about any service, with two exceptions that are the house's own (which methods
//! of the shop need a token, and where users' keys come from); a request waits for no registry; what is between a request and
//! its service is the mesh client, so a gateway balances, retries and is drained like any caller.

mod args;
pub mod front;
mod published;
pub mod services;
pub mod transcode;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use mesh_client::{InstanceSpec, Mesh};
use mesh_runtime::auth::{Access, KeySource, ServiceIdentity, SigningKey};
use mesh_runtime::{App, Error, Program, Shell, Speaks};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use args::GatewayArgs;
use front::{Config, Edge, Front};
pub use published::{Known, Published};
use services::Services;

const PROGRAM: Program = Program {
    name: "gateway",
    version: env!("CARGO_PKG_VERSION"),
    about: "REST/JSON and gRPC-Web in front of every registered service",
    speaks: Speaks::Http,
    main_port: 7480,
    admin_port: 7481,
};

/// How long the ready line waits for the routes of the services that are there already. It is on the way of every start, so
/// a registry that is away delays it by no more than this.
const SETTLED_MAX: Duration = Duration::from_secs(3);

/// Runs the gateway; the first argument is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    mesh_runtime::main(PROGRAM, args, run)
}

async fn run(args: GatewayArgs) -> Result<(), Error> {
    let GatewayArgs { process, auth, jwks_service, service_key, cors_origin, trusted_proxy, request } = args;
    let limits = request.limits().map_err(Error::startup)?;
    let identity = service_key.as_deref().map(identity).transpose()?;
    let shell = Shell::bind(&PROGRAM, &process.server, process.advertise).await?;
    let mesh = Mesh::builder().registry(&process.registry).zone(&process.zone).state_dir(process.state_dir);
    let mesh = mesh.build().map_err(Error::startup)?; // does not wait: the registry may be down
    let keys = KeySource::user_service(mesh.channel(&jwks_service));
    let verifier = auth.verifier(PROGRAM.name, process.server.listen, keys)?;

    let mut metrics = Registry::default();
    let services = Services::follow(&mesh, PROGRAM.name, &mut metrics);
    let ends_streams = CancellationToken::new();
    let config = Config {
        limits,
        edge: Edge::new(verifier, Access::of),
        identity,
        proxies: trusted_proxy.into_iter().collect(),
        origins: cors_origin,
        ends_streams: ends_streams.clone(),
    };
    let front = Front::new(config, services.published());
    front.register_metrics(&mut metrics);
    let app = App::of_front(front)
        .admin(services.page())
        .metrics(metrics)
        .collector(mesh.metrics())
        .ends_watches(ends_streams);
    let registrar = mesh.registrar(InstanceSpec {
        speaks: mesh_client::Speaks::Http,
        instance_id: process.instance_id,
        zone: process.zone,
        weight: process.weight,
        version: PROGRAM.version.to_owned(),
        ..InstanceSpec::new(PROGRAM.name)
    });
    registrar.report_load(shell.load().hook());

    // Who connects meanwhile waits in the listen queue, and hears of every route.
    services.settled(SETTLED_MAX).await;
    let served = shell.serve(app, registrar.hooks().into()).await; // ready, registered, drained, gone
    services.stop().await;
    served
}

/// What services are shown, so that they believe what is said of clients: each a token of its own, since anybody may be
/// one.
fn identity(key: &Path) -> Result<ServiceIdentity, Error> {
    Ok(ServiceIdentity::new(SigningKey::open(key).map_err(Error::startup)?, PROGRAM.name))
}
