//! What the command line can say.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::contestant::Contestant;

/// Measures the mesh beside what it replaces, in one run.
#[derive(Debug, Parser)]
#[command(name = "bench", version, max_term_width = 110)]
#[command(after_help = "Exit codes:  0 measured, 1 failed or a gate missed, 2 a command that makes no sense")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A unary call through the mesh client: beside tonic's channels, and bare h2 as the floor.
    Client(ClientArgs),
    /// The echo server; ends when its stdin does.
    #[command(hide = true)]
    Serve(ServeArgs),
    /// A process that makes calls and says on stdout what they cost.
    #[command(hide = true)]
    Drive(DriveArgs),
}

/// `bench client`.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// Measures only these; all of them without it.
    #[arg(long, value_name = "SECTION[,SECTION]", value_delimiter = ',')]
    pub(crate) only: Vec<Section>,

    /// Measures only what the budgets of instructions and allocations are about, and ends with 1 when one is missed.
    #[arg(long, conflicts_with = "only")]
    pub(crate) check: bool,

    /// Measures nothing else, and writes where this contestant's instructions go, function by function.
    #[arg(long, value_name = "CONTESTANT", conflicts_with_all = ["only", "check"])]
    pub(crate) profile: Option<Contestant>,

    /// Fewer calls and shorter runs: a look, not a result.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Where client.json and profiles are written.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
}

impl ClientArgs {
    /// Whether a section is to be measured.
    pub(crate) fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }
}

/// A part of `bench client` that can be had alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// Instructions (by callgrind) and allocations of one call; they repeat, so they are what is gated.
    Instructions,
}

/// `bench serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Ports to serve on.
    #[arg(long, default_value_t = 1)]
    pub(crate) ports: u16,
}

/// `bench drive`.
#[derive(Debug, Args)]
pub(crate) struct DriveArgs {
    /// Who makes the calls.
    #[arg(long)]
    pub(crate) contestant: Contestant,
    /// Where the servers are.
    #[arg(long, value_delimiter = ',')]
    pub(crate) servers: Vec<SocketAddr>,
    /// Size of the message, in bytes.
    #[arg(long)]
    pub(crate) payload_bytes: usize,
    /// Calls that are not counted, before those that are.
    #[arg(long)]
    pub(crate) warm_up: u32,
    /// Calls that are counted.
    #[arg(long)]
    pub(crate) calls: u32,
}
