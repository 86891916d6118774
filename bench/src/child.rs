//! The processes of a run: the echo server and the drivers are this very binary, started again.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::args::DriveArgs;
use crate::drive::Counts;
use crate::failure::Failure;

/// The echo server, for as long as this is held.
pub(crate) struct EchoServer {
    addresses: Vec<SocketAddr>,
    /// It ends when its stdin does, and this holds that.
    _process: Child,
}

impl EchoServer {
    /// Starts it, and returns once it listens.
    pub(crate) async fn start(ports: u16) -> Result<Self, Failure> {
        let mut process = Command::new(this_binary()?)
            .args(["serve", "--ports", &ports.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Failure::io("start the echo server"))?;
        let stdout = process.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await.map_err(Failure::io("read from the echo server"))?;
        let addresses = line.trim().split(',').map(str::parse).collect::<Result<Vec<_>, _>>();
        let addresses = addresses.map_err(|_| Failure::Child(format!("the echo server said {line:?}")))?;
        Ok(Self { addresses, _process: process })
    }

    /// The first `count` of its addresses.
    pub(crate) fn addresses(&self, count: u16) -> Vec<SocketAddr> {
        self.addresses.iter().copied().take(count.into()).collect()
    }
}

/// Makes calls in a process of its own, and returns what it says they cost.
pub(crate) async fn drive(args: &DriveArgs) -> Result<Counts, Failure> {
    run(Command::new(this_binary()?).args(flags(args))).await
}

/// The same under callgrind, which writes what happened within [`drive::measured`](crate::drive) to `profile`.
pub(crate) async fn drive_under_callgrind(args: &DriveArgs, profile: &Path) -> Result<Counts, Failure> {
    let mut file = OsString::from("--callgrind-out-file=");
    file.push(profile);
    run(Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--toggle-collect=*drive*measured*"])
        .arg(file)
        .arg(this_binary()?)
        .args(flags(args)))
    .await
}

async fn run(command: &mut Command) -> Result<Counts, Failure> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(Failure::io(format!("start {:?}", command.as_std().get_program())))?;
    if !output.status.success() {
        return Err(Failure::Child(format!("a driver ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Failure::Child(format!("a driver's answer: {error}")))
}

fn flags(args: &DriveArgs) -> [String; 11] {
    let servers: Vec<String> = args.servers.iter().map(SocketAddr::to_string).collect();
    [
        "drive".to_owned(),
        "--contestant".to_owned(),
        args.contestant.name().to_owned(),
        "--servers".to_owned(),
        servers.join(","),
        "--payload-bytes".to_owned(),
        args.payload_bytes.to_string(),
        "--warm-up".to_owned(),
        args.warm_up.to_string(),
        "--calls".to_owned(),
        args.calls.to_string(),
    ]
}

fn this_binary() -> Result<std::path::PathBuf, Failure> {
    std::env::current_exe().map_err(Failure::io("find this binary"))
}
