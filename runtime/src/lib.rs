//! The process shell that every server of the mesh shares: flags, logs, metrics, limits, health, signals, drain.
//!
//! A program's `main` hands [`main`] who it is and a function that runs it. That function binds a [`Shell`] (before
//! anything is written), makes its services into an [`App`], and lets the shell serve it:
//!
//! ```no_run
//! use mesh_runtime::{App, Error, Hooks, ProcessArgs, Program, Shell, Speaks};
//!
//! const PROGRAM: Program =
//!     Program { name: "hello", version: "0.1.0", about: "Says hello", speaks: Speaks::Grpc, main_port: 7490, admin_port: 7491 };
//!
//! async fn run(args: ProcessArgs) -> Result<(), Error> {
//!     let shell = Shell::bind(&PROGRAM, &args.server, args.advertise).await?;
//!     let routes = tonic::service::Routes::default(); // .add_service(…)
//!     shell.serve(App::new(routes).authority("hello"), Hooks::none()).await
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     mesh_runtime::main(PROGRAM, std::env::args_os(), run)
//! }
//! ```
//!
//! Inside, from the outside in: `program` and `parse` (a program from its arguments to its exit code), `args` (the flags
//! every server has), `shell` (two ports, from bound to gone), `drain` (the way out), `server` (one HTTP/2 connection and
//! its calls, whatever HTTP it speaks; a [`Straight`] body goes past the router), `front` (a main port that does not speak
//! gRPC), `admin`, `health`, `reflection`, `metrics` and `load` (what others may ask). Only `clock` and `entropy` read a
//! clock or draw randomness. Behind features of their own: `database` (what the services with a database share) and `auth`
//! (who calls, and whether they may).
//!
//! It knows nothing of discovery: whoever registers the process reaches it through [`Hooks`], closures over std types.
//!
//! What holds, whatever a program does:
//! - a bad flag, a taken port or an unsafe address ends the program with exit code 2 before the ready line;
//! - stdout carries one line, `ready PROGRAM grpc=HOST:PORT http=HOST:PORT`, or with a [`Front`] `http=` and
//!   `admin=`;
//! - no peer can hold more than [`Limits`] allow, and none can stop the accept loop;
//! - a panic costs the call it happens in;
//! - the drain ends: at its deadline what is still open is cut.

mod admin;
mod app;
mod args;
#[cfg(feature = "auth")]
pub mod auth;
pub mod clock;
#[cfg(feature = "database")]
pub mod database;
mod drain;
pub mod entropy;
mod error;
mod front;
mod health;
mod hooks;
mod lifecycle;
mod load;
mod logs;
mod metrics;
mod open_files;
mod panics;
mod parse;
mod program;
mod reflection;
mod server;
mod shell;
mod signals;
mod status;

pub use app::App;
pub use args::{Advertise, LogFormat, ProcessArgs, ServerArgs, advertised, duration};
pub use drain::GONE_MAX;
pub use error::Error;
pub use front::{Connection, Front, Untold};
pub use hooks::{BoxFuture, Hooks, Ready, Standing, Step};
pub use load::{Load, LoadMeter};
pub use metrics::Refused;
pub use metrics::code_name;
pub use program::{Program, Speaks, main};
pub use server::{
    Allowance, ConnectionError, DoubtfulLength, Ends, Limits, Server, Slot, Slots, Straight, hardened_server,
    peer_network, serve_web,
};
pub use shell::Shell;
pub use status::{DOMAIN, refusal, refusal_with};
