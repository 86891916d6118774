//! The registry as a program.

use std::ffi::OsString;
use std::process::ExitCode;

use mesh_runtime::{Advertise, App, Error, Hooks, Program, Shell};

use crate::config::Args;
use crate::{Registry, Settings};

const PROGRAM: Program = Program {
    name: "registry",
    version: env!("CARGO_PKG_VERSION"),
    about: "The mesh's discovery registry: who is alive, and who is told",
    grpc_port: 7400,
    http_port: 7401,
};

/// Runs the registry; the first of `args` is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    mesh_runtime::main(PROGRAM, args, run)
}

async fn run(args: Args) -> Result<(), Error> {
    let settings = Settings::try_from(&args).map_err(Error::startup)?;
    let shell = Shell::bind(&PROGRAM, &args.server, Advertise::Nothing).await?;
    let registry = Registry::start(settings).await.map_err(Error::startup)?;
    let app = App::new(registry.routes())
        .authority(PROGRAM.name)
        .grpc_service("mesh.registry.v1.RegistryService")
        .descriptors(mesh_api::FILE_DESCRIPTOR_SET)
        .admin(registry.page())
        .metrics(registry.metrics())
        .ends_watches(registry.ends_watches());
    let served = shell.serve(app, Hooks::none()).await;
    registry.shutdown().await;
    served
}
