//! One server as a child process of this very binary, from its start to its end.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::args::Program;

/// Longest that a server may take to its ready line. It is far more than one needs, also on a machine that is busy
/// compiling: it only keeps a hung start from hanging the rest.
const READY_MAX: Duration = Duration::from_secs(20);

/// Longest that a drained server may take to its end: its own drain deadline and some more.
const END_MAX: Duration = Duration::from_secs(40);

/// How much of the end of a log is looked at for last words, in bytes.
const LAST_WORDS_BYTES: u64 = 4096;

/// Where server processes come from.
#[derive(Debug, Clone)]
pub struct Launcher {
    binary: PathBuf,
    logs: PathBuf,
    log_filter: Option<String>,
}

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Unique name, such as `user-svc-2`: for the log and for people.
    pub name: String,
    /// Which server.
    pub program: Program,
    /// Its flags.
    pub flags: Vec<OsString>,
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    child: OwnedChild,
    /// Kept open: a server takes the end of its stdin for the end of its parent.
    _stdin: ChildStdin,
    _stdout: BufReader<ChildStdout>,
    main: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
}

/// A child that does not outlive its owner, from the moment it exists.
#[derive(Debug)]
struct OwnedChild(Child);

/// Why a server did not start, or did not end.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The system could not start it.
    #[error("{name} cannot be started: {source}")]
    Spawn {
        /// Which one.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended instead of getting ready.
    #[error("{name} ended before it was ready ({status}): {last_words}")]
    EndedEarly {
        /// Which one.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said on stderr last.
        last_words: String,
    },
    /// Its first line is not the ready line.
    #[error("{name} printed {line:?} instead of its ready line")]
    NotReady {
        /// Which one.
        name: String,
        /// What it printed.
        line: String,
    },
    /// It did neither get ready nor end.
    #[error("{name} is still not ready after {} s: {last_words}", READY_MAX.as_secs())]
    Slow {
        /// Which one.
        name: String,
        /// What it said on stderr last.
        last_words: String,
    },
    /// It did not end after SIGTERM.
    #[error("{name} has not ended {} s after SIGTERM: {last_words}", END_MAX.as_secs())]
    DoesNotEnd {
        /// Which one.
        name: String,
        /// What it said on stderr last.
        last_words: String,
    },
    /// It was asked to end and did, but not with 0.
    #[error("{name} ended with {status} when it was asked to drain: {last_words}")]
    BadEnd {
        /// Which one.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said on stderr last.
        last_words: String,
    },
}

impl Launcher {
    /// Servers are started from `binary`, which is a meshctl, and their logs are kept in the folder `logs`.
    pub fn new(binary: impl Into<PathBuf>, logs: impl Into<PathBuf>) -> io::Result<Launcher> {
        let logs = logs.into();
        fs::create_dir_all(&logs)?;
        Ok(Launcher { binary: binary.into(), logs, log_filter: None })
    }

    /// Has the servers log what this says, in the words of `RUST_LOG`; without it, what the variable says here.
    #[must_use]
    pub fn log_filter(self, log_filter: Option<String>) -> Launcher {
        Launcher { log_filter, ..self }
    }

    /// Starts a server and waits until it says that it is ready.
    pub async fn start(&self, launch: Launch) -> Result<Process, ProcessError> {
        let log = self.logs.join(format!("{}.log", launch.name));
        let name = launch.name.clone();
        let spawned = self.spawn(&launch, &log);
        let (mut child, stdin, stdout) =
            spawned.map_err(|source| ProcessError::Spawn { name: name.clone(), source })?;

        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let ready = tokio::time::timeout(READY_MAX, stdout.read_line(&mut line)).await;
        let slow = || ProcessError::Slow { name: name.clone(), last_words: last_words(&log) };
        match ready {
            Ok(Ok(length)) if length > 0 => match ready_line(launch.program, &line) {
                Some((main, admin)) => Ok(Process { launch, child, _stdin: stdin, _stdout: stdout, main, admin, log }),
                None => Err(ProcessError::NotReady { name, line: line.trim_end().to_owned() }),
            },
            // Its stdout has ended, so it is ending too.
            Ok(_) => match tokio::time::timeout(READY_MAX, child.0.wait()).await {
                Ok(Ok(status)) => Err(ProcessError::EndedEarly { name, status, last_words: last_words(&log) }),
                _ => Err(slow()),
            },
            Err(_) => Err(slow()),
        }
    }

    /// The child gets a process group of its own, so that a Ctrl-C at the terminal is the parent's to answer; it gets
    /// nothing of the parent's `MESH_*`, which are meant for the parent; and it ends when its stdin does, that is, when
    /// the parent is gone, however that came about.
    fn spawn(&self, launch: &Launch, log: &Path) -> io::Result<(OwnedChild, ChildStdin, ChildStdout)> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", crate::commands::serve::END_WITH_PARENT, launch.program.name()])
            .args(["--log-format", "human"])
            .args(&launch.flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0);
        for (key, _) in std::env::vars_os().filter(|(key, _)| is_mesh_setting(key)) {
            command.env_remove(key);
        }
        if let Some(log_filter) = &self.log_filter {
            command.env("RUST_LOG", log_filter);
        }
        let mut child = OwnedChild(command.spawn()?);
        let stdin = child.0.stdin.take().expect("stdin was asked for as a pipe");
        let stdout = child.0.stdout.take().expect("stdout was asked for as a pipe");
        Ok((child, stdin, stdout))
    }
}

impl Process {
    /// Its unique name, such as `user-svc-2`.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// Where it answers gRPC.
    pub fn grpc(&self) -> SocketAddr {
        self.main
    }

    /// Where a gateway answers REST.
    pub fn rest(&self) -> SocketAddr {
        self.main
    }

    /// Where it answers probes and scrapes, over HTTP.
    pub fn http(&self) -> SocketAddr {
        self.admin
    }

    /// Which server it is.
    pub(crate) fn program(&self) -> Program {
        self.launch.program
    }

    /// Its process id; none once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.0.id()
    }

    /// What it said on stderr last.
    pub fn last_words(&self) -> String {
        last_words(&self.log)
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.signal(Signal::KILL);
        let _ = self.child.0.wait().await;
    }

    /// Sends a signal; nothing happens where it has ended already.
    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.0.wait().await
    }

    /// SIGTERM, and waits until it has drained and ended with 0.
    pub async fn drain(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::TERM);
        let name = self.launch.name.clone();
        match tokio::time::timeout(END_MAX, self.ended()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(ProcessError::BadEnd { name, status, last_words: self.last_words() }),
            Ok(Err(_)) | Err(_) => Err(ProcessError::DoesNotEnd { name, last_words: self.last_words() }),
        }
    }
}

impl OwnedChild {
    /// The id cannot have passed to another process: it is ours until `wait` has collected it, and then there is none.
    fn pid(&self) -> Option<Pid> {
        self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for OwnedChild {
    /// A killed process is gone in a moment, and it is waited for: whoever started a mesh and ended it leaves nothing
    /// behind, not even an entry in the process table.
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

fn is_mesh_setting(key: &OsStr) -> bool {
    key.as_encoded_bytes().starts_with(b"MESH_")
}

/// Reads `ready PROGRAM grpc=HOST:PORT http=HOST:PORT`, where a gateway says `http` and `admin`.
fn ready_line(program: Program, line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let rest = line.trim_end().strip_prefix("ready ")?.strip_prefix(program.name())?.strip_prefix(' ')?;
    let (main, admin) = rest.split_once(' ')?;
    let (main_name, admin_name) = program.ports();
    let address = |text: &str, name| text.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    Some((address(main, main_name)?, address(admin, admin_name)?))
}

/// The last line of a log that says something.
fn last_words(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
        let mut end = Vec::new();
        file.take(LAST_WORDS_BYTES).read_to_end(&mut end)?;
        Ok(String::from_utf8_lossy(&end).into_owned())
    };
    let end = read().unwrap_or_default();
    let last = end.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.map_or_else(|| "it said nothing".to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_is_read_and_anything_else_is_not() {
        let read = |line| ready_line(Program::UserSvc, line);
        assert_eq!(
            read("ready user-svc grpc=127.0.0.1:7410 http=127.0.0.1:7411\n"),
            Some((([127, 0, 0, 1], 7410).into(), ([127, 0, 0, 1], 7411).into()))
        );
        assert_eq!(
            ready_line(Program::Gateway, "ready gateway http=127.0.0.1:7480 admin=127.0.0.1:7481\n"),
            Some((([127, 0, 0, 1], 7480).into(), ([127, 0, 0, 1], 7481).into()))
        );
        for line in
            ["", "ready", "ready registry grpc=127.0.0.1:1 http=127.0.0.1:2", "ready user-svc grpc=x http=y", "hello"]
        {
            assert_eq!(read(line), None, "{line:?}");
        }
    }

    #[test]
    fn the_last_words_are_the_last_line_that_says_something() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let log = folder.path().join("x.log");
        assert_eq!(last_words(&log), "it said nothing");
        fs::write(&log, "first\nthe port is taken\n\n").expect("it can be written");
        assert_eq!(last_words(&log), "the port is taken");
    }
}
