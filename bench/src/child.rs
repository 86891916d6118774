//! The processes of a run: the echo server and the drivers are this very binary, started again.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::args::{DriveArgs, KeepArgs, PickArgs, RenewArgs, ServeArgs};
use crate::drive::Times;
use crate::failure::Failure;
use crate::gateways;
use crate::machine::Cpus;
use crate::registries::load::{Measured, Order};
use crate::registries::renewals::Renewed;

/// The echo server, for as long as this is held.
pub(crate) struct EchoServer {
    addresses: Vec<SocketAddr>,
    pid: u32,
    command_line: String,
    /// It ends when its stdin does, and this holds that.
    _process: Child,
}

impl EchoServer {
    /// Starts it, and returns once it listens.
    pub(crate) async fn start(args: &ServeArgs, cpus: Cpus) -> Result<Self, Failure> {
        let mut process = pinned(cpus.server)?
            .args(args.command_line())
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
        let pid = process.id().ok_or_else(|| Failure::Child("the echo server has ended".to_owned()))?;
        let command_line = format!("bench {}, one thread", args.command_line().join(" "));
        Ok(Self { addresses, pid, command_line, _process: process })
    }

    /// How it was started.
    pub(crate) fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The first `count` of its addresses.
    pub(crate) fn addresses(&self, count: u16) -> Vec<SocketAddr> {
        self.addresses.iter().copied().take(count.into()).collect()
    }
}

/// A program of somebody else's, for as long as this is held.
pub(crate) struct Kept {
    pid: u32,
    /// What holds it ends when its stdin does, and this holds that. It is not killed: it has something to do before.
    process: Child,
}

impl Kept {
    /// Starts it, wherever the kernel likes.
    pub(crate) async fn start(args: &KeepArgs) -> Result<Self, Failure> {
        let mut process = Command::new(this_binary()?)
            .args(args.command_line())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Failure::io(format!("start {}", args.program.display())))?;
        let stdout = process.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await.map_err(Failure::io("read a process id"))?;
        let pid = line.trim().parse().map_err(|_| Failure::Child(format!("no process id, but {line:?}")))?;
        Ok(Self { pid, process })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it, and returns once it has ended.
    pub(crate) async fn stop(mut self) {
        drop(self.process.stdin.take());
        // It can only have ended before.
        let _ = self.process.wait().await;
    }
}

/// Makes calls in a process of its own, and returns what it says they cost.
pub(crate) async fn drive<A: DeserializeOwned>(args: &DriveArgs, cpus: Cpus) -> Result<A, Failure> {
    run(pinned(cpus.driver)?.args(args.command_line())).await
}

/// The same under callgrind, which writes what happened in the driver's `measured` to `profile`.
pub(crate) async fn drive_under_callgrind<A: DeserializeOwned>(args: &DriveArgs, profile: &Path) -> Result<A, Failure> {
    under_callgrind("*sequence*measured*", args.command_line(), profile).await
}

/// Makes picks in a process of its own.
pub(crate) async fn pick<A: DeserializeOwned>(args: &PickArgs, cpus: Cpus) -> Result<A, Failure> {
    run(pinned(cpus.driver)?.args(args.command_line())).await
}

/// The same under callgrind.
pub(crate) async fn pick_under_callgrind<A: DeserializeOwned>(args: &PickArgs, profile: &Path) -> Result<A, Failure> {
    under_callgrind("*pick*measured*", args.command_line(), profile).await
}

/// Puts a server under loads in a process of its own, wherever the kernel likes: the server is not bound to a CPU either.
pub(crate) async fn load(order: &Order) -> Result<Vec<Measured>, Failure> {
    let order = serde_json::to_string(order).expect("an order is JSON");
    run(Command::new(this_binary()?).args(["load", &order])).await
}

/// Asks a gateway in a process of its own, wherever the kernel likes.
pub(crate) async fn ask(order: &gateways::Order) -> Result<Times, Failure> {
    let order = serde_json::to_string(order).expect("an order is JSON");
    run(Command::new(this_binary()?).args(["ask", &order])).await
}

/// Renews leases in a process of its own.
pub(crate) async fn renew(args: &RenewArgs, cpus: Cpus) -> Result<Renewed, Failure> {
    run(pinned(cpus.driver)?.args(args.command_line())).await
}

/// The same under callgrind, which counts from when the leases are granted.
pub(crate) async fn renew_under_callgrind(args: &RenewArgs, profile: &Path) -> Result<Renewed, Failure> {
    let mut process = callgrind("*renewals*measured*", profile)
        .arg("--instr-atstart=no")
        .arg(this_binary()?)
        .args(args.command_line())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Failure::io("start valgrind"))?;
    let (mut told, tells) = (process.stdin.take(), process.stdout.take().expect("stdout is piped"));
    let mut lines = BufReader::new(tells).lines();
    let said = lines.next_line().await.map_err(Failure::io("read from the renewals"))?;
    let pid = process.id().ok_or_else(|| Failure::Child(format!("the renewals have ended; they said {said:?}")))?;
    let on = Command::new("callgrind_control")
        .args(["--instr=on", &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let on = on.await.map_err(Failure::io("start callgrind_control"))?;
    if !on.success() {
        return Err(Failure::Child(format!("callgrind_control ended with {on}")));
    }
    if let Some(told) = &mut told {
        told.write_all(b"\n").await.map_err(Failure::io("tell the renewals"))?;
    }
    let said = lines.next_line().await.map_err(Failure::io("read from the renewals"))?.unwrap_or_default();
    let status = process.wait().await.map_err(Failure::io("wait for the renewals"))?;
    let answer = serde_json::from_str(&said).ok().filter(|_| status.success());
    answer.ok_or_else(|| Failure::Child(format!("the renewals ended with {status} and said {said:?}")))
}

async fn under_callgrind<A: DeserializeOwned>(
    collected: &str,
    command_line: Vec<String>,
    profile: &Path,
) -> Result<A, Failure> {
    run(callgrind(collected, profile).arg(this_binary()?).args(command_line)).await
}

/// Callgrind, which collects what happens in functions of this name and writes it to `profile`.
fn callgrind(collected: &str, profile: &Path) -> Command {
    let mut file = OsString::from("--callgrind-out-file=");
    file.push(profile);
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]).arg(format!("--toggle-collect={collected}")).arg(file);
    command
}

async fn run<A: DeserializeOwned>(command: &mut Command) -> Result<A, Failure> {
    // Both of its outputs are taken, whatever was set before.
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(Failure::io(format!("start {:?}", command.as_std().get_program())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::Child(format!("a driver ended with {}: {}", output.status, said.trim_end())));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Failure::Child(format!("a driver's answer: {error}")))
}

/// This binary, on one CPU if it is to be.
fn pinned(cpu: Option<u16>) -> Result<Command, Failure> {
    let this = this_binary()?;
    Ok(match cpu {
        None => Command::new(this),
        Some(cpu) => {
            let mut command = Command::new("taskset");
            command.arg("--cpu-list").arg(cpu.to_string()).arg(this);
            command
        }
    })
}

fn this_binary() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(Failure::io("find this binary"))
}

/// A port on loopback that was free a moment ago: for servers that have to be told one.
pub(crate) fn free_port() -> Result<SocketAddr, Failure> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    address.map_err(Failure::io("find a free port"))
}
