//! The two servers: each fresh, with its data in a folder of its own that goes with it.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::load::Who;
use crate::args::{KeepArgs, StoreArg};
use crate::child::{Kept, free_port};
use crate::clock;
use crate::failure::Failure;

/// How long one may take to listen, on a disk that is slow.
const START_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What an operator would set on a registry whose whole load comes from one address, and nothing else.
const OUR_FLAGS: [&str; 6] = [
    "--max-registrations-per-second",
    "1000000",
    "--max-registrations-per-second-per-ip",
    "1000000",
    "--max-connections-per-ip",
    "8192",
];

/// How to start one side.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) who: Who,
    pub(super) program: PathBuf,
    store: StoreArg,
    pub(super) version: String,
}

impl Recipe {
    /// Our registry: `program`, or this binary, which is one too.
    pub(super) async fn ours(program: Option<&Path>, store: StoreArg) -> Result<Self, Failure> {
        let (program, version) = match program {
            Some(program) => (program.to_owned(), said(program, "--version").await.unwrap_or_default()),
            None => {
                let this = std::env::current_exe().map_err(Failure::io("find this binary"))?;
                let (version, allocator) = (env!("CARGO_PKG_VERSION"), crate::counting::NAME);
                (this, format!("registry {version}, built into this bench; allocator: {allocator}"))
            }
        };
        Ok(Self { who: Who::Ours, program, store, version })
    }

    /// etcd, where it is.
    pub(super) async fn etcd(program: &Path) -> Option<Self> {
        let version = said(program, "--version").await?;
        let version = version.replacen("etcd Version: ", "etcd ", 1);
        Some(Self { who: Who::Etcd, program: program.to_owned(), store: StoreArg::File, version })
    }

    /// When what is acknowledged is on the disk.
    pub(super) fn durability(&self) -> &'static str {
        match (self.who, self.store) {
            (Who::Ours, StoreArg::File) => "fsync of each group of commits before any of them is acknowledged",
            (Who::Ours, StoreArg::Memory) => "none: --store memory",
            (Who::Etcd, _) => {
                "its default: fsync of the write-ahead log for each batch of proposals before any is acknowledged"
            }
        }
    }

    /// Its command line with these ports and this folder.
    fn args(&self, data: &Path, ports: [SocketAddr; 2]) -> Vec<OsString> {
        let [first, second] = ports;
        let mut args: Vec<OsString> = Vec::new();
        let mut flag = |name: &str, value: OsString| args.extend([OsString::from(name), value]);
        match self.who {
            Who::Ours => {
                let mut store = OsString::from(self.store.scheme());
                if self.store == StoreArg::File {
                    store.push(data);
                }
                flag("--store", store);
                flag("--listen", first.to_string().into());
                flag("--admin-listen", second.to_string().into());
                args.extend(OUR_FLAGS.map(OsString::from));
                if std::env::current_exe().is_ok_and(|this| this == self.program) {
                    args.insert(0, "registry-server".into());
                }
            }
            Who::Etcd => {
                let (client, peer) = (format!("http://{first}"), format!("http://{second}"));
                flag("--data-dir", data.as_os_str().to_owned());
                flag("--listen-client-urls", client.clone().into());
                flag("--advertise-client-urls", client.into());
                flag("--listen-peer-urls", peer.clone().into());
                flag("--initial-advertise-peer-urls", peer.clone().into());
                flag("--initial-cluster", format!("default={peer}").into());
            }
        }
        args
    }

    /// The command line, for people.
    pub(super) fn command_line(&self) -> String {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let name = self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy();
        let args = self.args(Path::new("DIR"), [nowhere; 2]);
        let args = args.iter().map(|arg| arg.to_string_lossy().replace(":0", ":PORT")).collect::<Vec<_>>();
        format!("{name} {}", args.join(" "))
    }
}

/// One of them, running for as long as this is held.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    process: Kept,
    folder: TempDir,
}

impl Server {
    /// Starts one with an empty folder below `out`, and returns once it listens.
    pub(super) async fn start(recipe: &Recipe, out: &Path) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("store-").tempdir_in(out);
        let folder = folder.map_err(Failure::io(format!("make a folder in {}", out.display())))?;
        Self::start_in(folder, recipe).await
    }

    /// Kills it and starts it on what it left; how long it took until it said that it was ready.
    pub(super) async fn killed_and_started_again(self, recipe: &Recipe) -> Result<(Self, Duration), Failure> {
        let Self { process, folder, .. } = self;
        process.stop().await;
        let begin = clock::now();
        let server = Self::start_in(folder, recipe).await?;
        let log = server.folder.path().join("log");
        let ready = async {
            while !fs::read_to_string(&log).is_ok_and(|said| said.lines().any(|line| line.starts_with("ready "))) {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(START_MAX, ready).await.map_err(|_| Failure::Child("the registry does not become ready".to_owned()))?;
        Ok((server, clock::now() - begin))
    }

    async fn start_in(folder: TempDir, recipe: &Recipe) -> Result<Self, Failure> {
        let [address, second] = [free_port()?, free_port()?];
        let log = folder.path().join("log");
        let args = recipe.args(&folder.path().join("data"), [address, second]);
        let process = Kept::start(&KeepArgs { log: Some(log.clone()), program: recipe.program.clone(), args }).await?;
        let listens = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(LOOK_EVERY).await;
                if !Path::new("/proc").join(process.pid().to_string()).join("fd").exists() {
                    return Err(());
                }
            }
            Ok(())
        };
        match timeout(START_MAX, listens).await {
            Ok(Ok(())) => Ok(Self { address, process, folder }),
            _ => {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let last = said.trim_end().lines().last().unwrap_or("nothing").to_owned();
                Err(Failure::Child(format!("{} does not listen; it said: {last}", recipe.command_line())))
            }
        }
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it holds in memory, in bytes.
    pub(super) fn resident_bytes(&self) -> Result<u64, Failure> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).map_err(Failure::io(format!("read {path}")))?;
        resident(&status).ok_or_else(|| Failure::Child(format!("{path} does not say VmRSS")))
    }

    /// Ends it, and waits for that: the next one is not to share the machine with it.
    pub(super) async fn stop(self) {
        self.process.stop().await;
    }
}

/// The resident memory in a process's status, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The first line that a program says to a flag; `None` where there is no such program.
async fn said(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().await.ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("Name:\tetcd\nVmRSS:\t   2048 kB\nThreads:\t9\n"), Some(2_097_152));
        assert_eq!(resident("Name:\tgone\n"), None);
    }
}
