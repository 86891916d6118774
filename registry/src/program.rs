//! The registry as a program.

use std::ffi::OsString;
use std::process::ExitCode;

use mesh_runtime::{App, Error, Hooks, Program, Shell, Speaks, Step};

use crate::config::Args;
use crate::{Registry, Settings};

const PROGRAM: Program = Program {
    name: "registry",
    version: env!("CARGO_PKG_VERSION"),
    about: "The mesh's discovery registry: who is alive, and who is told",
    speaks: Speaks::Grpc,
    main_port: 7400,
    admin_port: 7401,
};

/// Plain reads: what a storm of callers asks for, and what must not stand before anybody's heartbeat (P13).
const READS: [&str; 2] =
    ["/mesh.registry.v1.RegistryService/Resolve", "/mesh.registry.v1.RegistryService/ListServices"];
/// How many of them stand in the queue of what runs next. Enough to keep every core busy; a heartbeat that comes behind them
/// waits for no more than these.
const READS_AT_ONCE: usize = 32;

/// Runs the registry; the first of `args` is the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    mesh_runtime::main(PROGRAM, args, run)
}

async fn run(args: Args) -> Result<(), Error> {
    let mut settings = Settings::try_from(&args).map_err(Error::startup)?;
    let shell = Shell::bind(&PROGRAM, &args.server, args.advertises()).await?;
    settings.advertised = Some(shell.advertised());
    let registry = Registry::start(settings).await.map_err(Error::startup)?;
    serve(shell, registry).await
}

/// Serves until a signal, or until the engine fails: a registry that answers and hears nobody is worse than none.
async fn serve(shell: Shell, registry: Registry) -> Result<(), Error> {
    let app = App::new(registry.routes()).authority(PROGRAM.name);
    let app = registry.service_names().into_iter().fold(app, App::grpc_service);
    let app = app
        .descriptors(mesh_api::FILE_DESCRIPTOR_SET)
        .lane(READS, READS_AT_ONCE)
        .admin(registry.page())
        .metrics(registry.metrics())
        .ends_watches(registry.ends_watches());
    let leaving = registry.leaving();
    let draining: Step = Box::new(move || {
        leaving.cancel();
        Box::pin(async {})
    });
    let served = tokio::select! {
        served = shell.serve(app, Hooks { draining, ..Hooks::none() }) => served,
        () = registry.failed() => Err(Error::failed("the engine stopped")),
    };
    registry.shutdown().await;
    served
}

#[cfg(test)]
mod tests {
    use mesh_runtime::{Advertise, ServerArgs};

    use super::*;

    #[tokio::test]
    async fn a_dead_engine_ends_the_program_with_exit_code_1() {
        let shell = Shell::bind(&PROGRAM, &ServerArgs::loopback(), Advertise::Nothing).await.expect("free ports");
        let registry = Registry::start(Settings::of_process()).await.expect("a memory store loads");
        registry.kill_engine();
        let serving = tokio::time::timeout(std::time::Duration::from_secs(10), serve(shell, registry));
        let error = serving.await.expect("it ends").expect_err("not well");
        assert_eq!((error.exit_code(), error.to_string().as_str()), (1, "the engine stopped"));
    }
}
