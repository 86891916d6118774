//! `bench`: the mesh beside what it replaces, measured in one run.
//!
//! ```text
//! args          what the command line can say             failure    how a run ends badly, and its exit code
//! client        `bench client`: the order of a run           registries/ `bench registry`: ours beside etcd
//! gateways/     `bench gateway`: ours beside Envoy's transcoder
//! echo          the service that everybody calls: messages, the stub's part of a call, the server
//! contestant/   those who are measured: tonic's channels, bare h2 as the floor, the mesh
//! drive/        a process of its own that makes calls: one by one and counted, so many in flight, so many a second
//! child         processes: the echo server, the driver   counting   an allocator that counts
//! envoy         a proxy in between, as a sidecar would be   keep       somebody else's program that ends with the run
//! instructions  instructions and allocations of one call    timed      rates and latencies, in interleaved rounds
//! pick/         what a pick costs                           quality    how calls are spread when one server is slow
//! gate          the budgets, judged                        profile    the same, function by function
//! report        rows for people and for programs         machine    what it was measured on
//! ```
//!
//! What holds everywhere: the server is a process of its own and is never what is counted; every contestant runs the same
//! stub code, sends the same message with the same deadline, and is driven by a process of its own; what a run starts
//! ends with it.

mod args;
mod child;
mod client;
mod clock;
mod contestant;
mod counting;
mod drive;
mod echo;
mod envoy;
mod failure;
mod gate;
mod gateways;
mod instructions;
mod keep;
mod machine;
mod pick;
mod profile;
mod quality;
mod registries;
mod report;
mod timed;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn main() -> ExitCode {
    // clap ends a command line that makes no sense with 2, and help with 0.
    let cli = Cli::parse();
    // The servers have runtimes of their own, as where they are programs.
    let named = |name: &str, args: Vec<OsString>| std::iter::once(OsString::from(name)).chain(args).collect::<Vec<_>>();
    let command = match cli.command {
        Command::RegistryServer { args } => return registry::main(named("registry", args)),
        Command::GatewayServer { args } => return gateway::main(named("gateway", args)),
        Command::OrdersServer { args } => return gateways::backend::main(named("order-svc", args)),
        command => command,
    };
    // One thread: the driver is measured on it, and the server has a CPU of its own and no more.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench: the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = match command {
        Command::Client(args) => runtime.block_on(client::client(&args)),
        Command::Registry(args) => runtime.block_on(registries::registry(&args)),
        Command::Gateway(args) => runtime.block_on(gateways::gateway(&args)),
        Command::RegistryServer { .. } | Command::GatewayServer { .. } | Command::OrdersServer { .. } => Ok(()),
        Command::Ask { order } => gateways::ask(&runtime, &order),
        Command::Renew(args) => registries::renewals::renew(&args),
        Command::Serve(args) => runtime.block_on(echo::serve(&args)),
        Command::Drive(args) => drive::drive(&runtime, &args),
        Command::Load { order } => registries::load::load(&runtime, &order),
        Command::Pick(args) => pick::pick(&args),
        Command::Keep(args) => runtime.block_on(keep::keep(&args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
