//! `meshctl`: run the mesh, look at it, change it, call it.
//!
//! ```text
//! args       what the command line can say          failure    how a command ends badly, and its exit code
//! commands/  one file per command that looks at, changes or calls a mesh
//! view       what a Watch has told (pure)            follow     the Watch itself, opened again when it breaks
//! bearer     the token of a call                      operator   whoever runs a mesh, and mints one
//! local/     servers as child processes of this binary: started, killed, drained, never left behind
//! load/      an open-loop load over both services, and the oracle that knows every answer in advance
//! demo/      a mesh, that load, and the failures that nobody notices       up   the same mesh, left running
//! ```
//!
//! What holds everywhere: answers go to stdout and everything else to stderr; exit code 0 is done, 1 is failed, 2 is a
//! command that made no sense, 128 and its number is a signal that ended it; a reader that left, as `head` does, is no failure; whatever this process has started
//! ends with it, however it ends.
//!
//! The library part is public for the stories in `tests/`, which run the same processes under the same load.

mod args;
mod bearer;
mod commands;
mod demo;
mod failure;
mod follow;
mod load;
mod local;
mod operator;
mod output;
mod registry_client;
mod rest;
mod signals;
mod up;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::args::{Cli, Command};
use crate::commands::serve::Serve;

pub use crate::args::{Program, RegistryUrl};
pub use crate::bearer::Bearer;
pub use crate::failure::Failure;
pub use crate::follow::{Followed, Follower, NeverCame};
pub use crate::load::{CallFailure, Ledger, Load, LoadPlan, LoadReport, MethodReport};
pub use crate::local::{Launch, Launcher, Listen, LocalMesh, LocalMeshPlan, Member, Names, Process, ProcessError};
pub use crate::operator::Operator;
pub use crate::rest::{RestAnswer, RestClient, RestError};
pub use crate::view::{Change, Outlook, ServiceView, ViewError};
pub use mesh_runtime::code_name;

/// The program: reads its arguments, the first of which is its own name, and runs to the end.
pub fn main(args: Vec<OsString>) -> ExitCode {
    // A server brings its own runtime and its own flags.
    if let Some(serve) = Serve::read(&args) {
        return serve.run();
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.lines().iter().for_each(|line| output::note(line));
            failure.exit_code()
        }
    }
}

/// What clap has to say: help and version on stdout with 0, a mistake on stderr with 2.
fn explain(error: &clap::Error) -> ExitCode {
    // A broken pipe is the only way for this to fail, and no reason to say anything.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("the runtime cannot start: {error}")))?;
    let Cli { globals, command } = cli;
    let done = runtime.block_on(async {
        match command {
            Command::Demo(args) => demo::demo(&args).await,
            Command::Up(args) => up::up(&args).await,
            Command::Serve(args) => Err(commands::serve::misplaced(&args)),
            Command::Services => commands::list::services(&globals).await,
            Command::Instances { service } => commands::list::instances(&globals, &service).await,
            Command::Watch { service } => commands::watch::watch(&globals, &service).await,
            Command::Events(args) => commands::events::events(&globals, &args).await,
            Command::Doctor => commands::doctor::doctor(&globals).await,
            Command::Explain(args) => commands::explain::explain(&globals, &args).await,
            Command::Call(args) => commands::call::call(&globals, &args).await,
            Command::Key(command) => commands::key::key(&globals, &command),
            Command::Token(args) => commands::token::token(&globals, &args),
            Command::Drain(args) => commands::admin::drain(&globals, &args).await,
            Command::Enable(args) => commands::admin::enable(&globals, &args).await,
            Command::Registry(command) => commands::registry_store::registry(&globals, &command).await,
            Command::Completions { shell } => commands::completions::completions(shell),
        }
    });
    // A thread may sit in a read of stdin; nothing that is left is worth waiting for.
    runtime.shutdown_background();
    done
}
