//! What the command line can say.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use mesh_runtime::auth::Role;

use crate::bearer::TokenSource;

/// Run the mesh, look at it, change it, call it.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Start here:  meshctl demo    shows the whole mesh, its failures included, and ends by itself\n\
                        \x20            meshctl up      leaves one running to play with\n\n\
                        Exit codes:  0 done, 1 failed, 2 a command that makes no sense, 128 + N ended by signal N"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where to ask, for how long, and how to answer.
#[derive(Debug, Clone, Args)]
pub(crate) struct Globals {
    /// Registries over one store; the first that answers is asked.
    #[arg(
        long,
        env = "MESH_REGISTRY",
        value_name = "URL[,URL]",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400",
        global = true
    )]
    pub(crate) registry: Vec<RegistryUrl>,

    /// Namespace of the services.
    #[arg(long, env = "MESH_NAMESPACE", value_name = "NAME", default_value = "default", global = true)]
    pub(crate) namespace: String,

    /// Longest time that one answer may take, and `call` and `explain` as a whole: "500ms", "5s" or "1m".
    #[arg(long, env = "MESH_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = time, global = true)]
    pub(crate) timeout: Duration,

    /// For people, or for programs: canonical protobuf JSON, one object a line.
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Table, global = true)]
    pub(crate) output: Format,
}

/// What an answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a whole mesh at work: load, a killed instance, a drain, a registry restart; ends by itself within 30 s.
    Demo(DemoArgs),
    /// Run a whole mesh until Ctrl-C: the registry, three user-svc and two order-svc.
    Up(UpArgs),
    /// Run one of the servers: this one binary is all of them.
    Serve(ServeArgs),
    /// List the services.
    Services,
    /// List the instances of a service: who is alive, and who is picked.
    Instances {
        /// Service name, such as user-svc.
        service: String,
    },
    /// Follow a service: what is there, then every change, until Ctrl-C.
    Watch {
        /// Service name, such as user-svc; it need not exist yet.
        service: String,
    },
    /// Tell what has happened to instances lately: who came, left, was drained or taken over, when and why.
    Events(EventsArgs),
    /// Look for what is wrong: registries, clocks, stores, services, and addresses that do not answer.
    ///
    /// Asks every registry of --registry, and every instance of the namespace at the address that it advertises. Each finding
    /// is a line: what, where, what to do. Exit codes: 0 nothing found, 1 something found, 2 a command that makes no sense.
    Doctor,
    /// Show where a call to a service would go, and why: connects to each instance as any caller would.
    Explain(ExplainArgs),
    /// Call a unary method of a service, found and balanced as any caller in the mesh would.
    Call(CallArgs),
    /// Make keys that sign tokens, and tell servers to trust them.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Print a token that says who calls, signed with a key of your own.
    #[command(after_help = TOKEN_EXAMPLES)]
    Token(TokenArgs),
    /// Take an instance out of the picks; what it is doing it finishes.
    Drain(AdminArgs),
    /// Take a drained instance back in.
    Enable(EnableArgs),
    /// Keep what a registry has stored elsewhere, bring it back, and look it through.
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: Shell,
    },
}

/// What is done with the store of a registry.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Write all that a store holds to a new file, with a checksum. A registry that has it open goes on meanwhile.
    ///
    /// The file holds the same secrets as the store, and only its owner may read it. A store in etcd is backed up with
    /// `etcdctl snapshot save`.
    Backup {
        /// Folder of the store: DIR or file:DIR, as given to the registry with --store.
        #[arg(value_parser = store_folder)]
        source: PathBuf,
        /// File to write; one that exists is not overwritten.
        file: PathBuf,
    },
    /// Make a store from a backup, in a folder that does not exist or is empty.
    ///
    /// The store keeps its identity and gets a higher generation: callers that have seen what came after the backup take
    /// what is restored for newer all the same.
    Restore {
        /// File of the backup.
        file: PathBuf,
        /// Folder of the new store: DIR or file:DIR.
        #[arg(value_parser = store_folder)]
        dir: PathBuf,
    },
    /// Read all of a store or of a backup and say whether it is sound; changes nothing.
    Verify {
        /// Folder of a store (DIR or file:DIR), or file of a backup.
        #[arg(value_parser = store_folder)]
        path: PathBuf,
    },
}

/// Reads the folder of a store, also as a registry is told it.
fn store_folder(text: &str) -> Result<PathBuf, String> {
    if text.starts_with("etcd:") {
        return Err("a store in etcd is backed up with `etcdctl snapshot save`, wanted DIR or file:DIR".to_owned());
    }
    match text.strip_prefix("file:").unwrap_or(text) {
        "" | "memory" => Err("wanted the folder of a store: DIR or file:DIR".to_owned()),
        folder => Ok(PathBuf::from(folder)),
    }
}

/// What `events` tells.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Service name, such as user-svc [default: every service of the namespace].
    pub(crate) service: Option<String>,
    /// Go on with what happens from here, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Most events of the past, the latest ones: 1 to 1000.
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(i16).range(1..=1000))]
    pub(crate) limit: i16,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Calls started per second, whatever becomes of the ones before them.
    #[arg(long, value_name = "CALLS", default_value_t = 150, value_parser = clap::value_parser!(u32).range(100..=2000))]
    pub(crate) rate: u32,
}

/// Flags of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Folder of the databases and logs; it stays when the mesh ends.
    #[arg(long, env = "MESH_DATA_DIR", value_name = "DIR", default_value = "mesh-data")]
    pub(crate) data_dir: PathBuf,
}

/// What `serve` runs.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Which server.
    #[arg(value_enum)]
    pub(crate) program: Program,

    /// Its own flags; `meshctl serve PROGRAM --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    pub(crate) flags: Vec<OsString>,
}

/// A server that this binary can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Program {
    /// Who is alive, and who is told.
    Registry,
    /// Users: accounts and passwords.
    UserSvc,
    /// Orders of those users.
    OrderSvc,
    /// REST/JSON in front of every service.
    Gateway,
}

impl Program {
    /// Its name: on the command line, in its ready line, and in the registry.
    pub const fn name(self) -> &'static str {
        match self {
            Program::Registry => "registry",
            Program::UserSvc => "user-svc",
            Program::OrderSvc => "order-svc",
            Program::Gateway => "gateway",
        }
    }

    /// What its two ports are called: the main one, and that of metrics and probes.
    pub(crate) const fn ports(self) -> (&'static str, &'static str) {
        match self {
            Program::Registry | Program::UserSvc | Program::OrderSvc => ("grpc", "http"),
            Program::Gateway => ("http", "admin"),
        }
    }

    /// Its default ports, the main one first (DESIGN §2).
    pub(crate) fn default_ports(self) -> (SocketAddr, SocketAddr) {
        let main = match self {
            Program::Registry => 7400,
            Program::UserSvc => 7410,
            Program::OrderSvc => 7420,
            Program::Gateway => 7480,
        };
        (([127, 0, 0, 1], main).into(), ([127, 0, 0, 1], main + 1).into())
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `explain` explains, and to whom.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Service name, such as user-svc.
    pub(crate) service: String,
    /// To whom.
    #[command(flatten)]
    pub(crate) caller: CallerArgs,
}

/// Who calls.
#[derive(Debug, Args)]
pub(crate) struct CallerArgs {
    /// Zone of the caller, whose instances go before others.
    #[arg(long, env = "MESH_ZONE", value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) zone: String,
    /// Folder in which the caller keeps what the registry last told it, and finds it while no registry answers; that of a
    /// service that runs as the same user will do [default: nothing is kept].
    #[arg(long, env = "MESH_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// What `call` calls.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// Service name in the mesh, such as user-svc.
    pub(crate) service: String,
    /// Method: GetUser, shop.user.v1.UserService/GetUser or shop.user.v1.UserService.GetUser.
    pub(crate) method: String,
    /// Request as protobuf JSON; "-" reads it from stdin.
    #[arg(default_value = "{}")]
    pub(crate) request: String,
    /// Token that says who calls, or @FILE with it; see `meshctl token`. A command line is seen by everybody on the machine,
    /// a file and the environment are not.
    #[arg(long, env = "MESH_TOKEN", hide_env_values = true, value_name = "TOKEN|@FILE")]
    pub(crate) token: Option<TokenSource>,
    /// By whom.
    #[command(flatten)]
    pub(crate) caller: CallerArgs,
}

/// What is done with keys.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key pair: the private half in a file that only its owner may read, the public half where servers look.
    ///
    /// A server trusts what a key signs once the key's public half is in its --trusted-jwks file. What a key may sign is
    /// said there: for one issuer, and for callers in the roles given here. Without --jwks the public half is only printed,
    /// as a line of such a file.
    #[command(
        after_help = "Example:\n\x20 meshctl key new keys/operator.pem --role admin --jwks keys/trusted.jwks.json\n\
                            \x20 user-svc --trusted-jwks keys/trusted.jwks.json\n\
                            \x20 meshctl token --key keys/operator.pem --role admin"
    )]
    New(KeyNewArgs),
}

/// What key `key new` makes.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyNewArgs {
    /// File of the private key, PKCS#8 as PEM; one that exists is not overwritten.
    pub(crate) file: PathBuf,
    /// Who signs with it [default: the name of the file without its ending, such as operator].
    #[arg(long, value_name = "NAME", value_parser = an_issuer)]
    pub(crate) issuer: Option<String>,
    /// In which roles those may call for whom it signs.
    #[arg(long = "role", value_name = "ROLE[,ROLE]", value_enum, value_delimiter = ',', required = true)]
    pub(crate) roles: Vec<SignedRole>,
    /// File of trusted public keys to add it to; made where there is none.
    #[arg(long, value_name = "FILE")]
    pub(crate) jwks: Option<PathBuf>,
}

/// A role that a key of an operator may sign for. Users get their tokens from user-svc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SignedRole {
    /// May do everything, for everybody.
    Admin,
    /// A program that calls for itself: may do what the services' table of access lets programs do.
    Service,
}

impl From<SignedRole> for Role {
    fn from(role: SignedRole) -> Role {
        match role {
            SignedRole::Admin => Role::Admin,
            SignedRole::Service => Role::Service,
        }
    }
}

/// What token `token` prints.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// File of the private key that signs it, as `meshctl key new` and `meshctl up` make them.
    #[arg(long, env = "MESH_KEY", value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Who signs; the key is trusted for this name only [default: the name of the key's file without its ending].
    #[arg(long, value_name = "NAME", value_parser = an_issuer)]
    pub(crate) issuer: Option<String>,
    /// What the caller may do; the key must be trusted with it.
    #[arg(long, value_name = "ROLE", value_enum, default_value_t = SignedRole::Admin)]
    pub(crate) role: SignedRole,
    /// Who calls: a name for the logs of servers [default: the issuer].
    #[arg(long, value_name = "NAME", value_parser = a_name)]
    pub(crate) subject: Option<String>,
    /// For whom: a service's name is that one alone, "meshwork" every one, which a service's token cannot be for [default:
    /// meshwork; none for the role service].
    #[arg(long, value_name = "NAME", value_parser = a_name)]
    pub(crate) audience: Option<String>,
    /// How long it is good for.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = time)]
    pub(crate) ttl: Duration,
}

/// Shown below the flags of `token`.
const TOKEN_EXAMPLES: &str = "Examples:\n\
    \x20 export MESH_TOKEN=$(meshctl token --key mesh-data/keys/operator.pem)\n\
    \x20 meshctl call user-svc ListUsers\n\
    \x20 grpcurl -plaintext -H \"authorization: Bearer $MESH_TOKEN\" 127.0.0.1:7410 shop.user.v1.UserService/ListUsers\n\n\
    The token, and nothing else, goes to stdout; -o json says with it what it is good for, and until when. Whoever has it is\n\
    the caller that it names: keep it out of logs and command lines (MESH_TOKEN and --token @FILE do).";

/// What `drain` drains.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Instance id, or the beginning of one that no other instance shares.
    pub(crate) instance: String,
    /// Take the drain back by itself after this time, 1 s to 30 days; without it, it stays until `enable`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) expires: Option<Duration>,
}

/// What `enable` enables.
#[derive(Debug, Args)]
pub(crate) struct EnableArgs {
    /// Instance id, or the beginning of one that no other instance shares.
    pub(crate) instance: String,
}

/// Address of a registry: `host:port`, with or without `http://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryUrl(http::uri::Authority);

impl RegistryUrl {
    /// As a client's URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0)
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<SocketAddr> for RegistryUrl {
    fn from(address: SocketAddr) -> Self {
        RegistryUrl(address.to_string().parse().expect("a socket address is an authority"))
    }
}

impl FromStr for RegistryUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err("https is not spoken here yet; give host:port".to_owned());
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        match bare.parse::<http::uri::Authority>() {
            Ok(authority) if authority.port_u16().is_some_and(|port| port > 0) && !authority.host().is_empty() => {
                Ok(RegistryUrl(authority))
            }
            _ => Err("wanted host:port, such as 127.0.0.1:7400".to_owned()),
        }
    }
}

/// Longest name in a token, in bytes: of an issuer, as servers have it, and so of whom it speaks for.
const NAME_BYTES_MAX: usize = 64;

/// Reads the name of an issuer.
pub(crate) fn an_issuer(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-');
    match text.len() {
        1..=NAME_BYTES_MAX if text.bytes().all(plain) => Ok(text.to_owned()),
        _ => Err(format!("wanted 1 to {NAME_BYTES_MAX} characters of a-z 0-9 . -")),
    }
}

/// Reads the name of a subject or of an audience.
fn a_name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=NAME_BYTES_MAX if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err(format!("wanted 1 to {NAME_BYTES_MAX} letters, digits and signs, without blanks")),
    }
}

/// Reads a time as every flag of the house does; none at all is no time.
fn time(text: &str) -> Result<Duration, String> {
    match mesh_runtime::duration(text)? {
        Duration::ZERO => Err("expected more than nothing".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_registry_is_named_with_or_without_its_scheme() {
        for text in ["127.0.0.1:7400", "http://127.0.0.1:7400", "http://127.0.0.1:7400/"] {
            assert_eq!(
                text.parse::<RegistryUrl>().map(|url| url.url()),
                Ok("http://127.0.0.1:7400".to_owned()),
                "{text}"
            );
        }
        assert!("[::1]:7400".parse::<RegistryUrl>().is_ok());
        for text in ["", "localhost", "127.0.0.1:", "127.0.0.1:0", "https://a:1", "http://a:1/path", "a b:1"] {
            assert!(text.parse::<RegistryUrl>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_time_at_all_is_refused() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert!(time("0s").is_err() && time("soon").is_err());
    }
}
