//! The registry as a process, to be stopped, killed and started again where it was.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for something that should come much sooner: only a hung test gets there.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A registry process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// The registry that these tests are of, without settings of whoever runs them.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
    // Without a store of its own a test writes nothing.
    command.env_clear().env("MESH_STORE", "memory");
    command
}

impl Process {
    /// Starts one on free ports, or where `at` says, and waits for its ready line.
    pub(crate) fn start(at: Option<(SocketAddr, SocketAddr)>, flags: &[&str]) -> Self {
        Self::start_with(command(), at, flags)
    }

    /// The same with another command in front.
    pub(crate) fn start_with(mut command: Command, at: Option<(SocketAddr, SocketAddr)>, flags: &[&str]) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let (grpc, http) = at.unwrap_or((free, free));
        let listen = ["--listen".to_owned(), grpc.to_string(), "--admin-listen".to_owned(), http.to_string()];
        let flags: Vec<OsString> = listen.iter().map(Into::into).chain(flags.iter().map(Into::into)).collect();
        let began = now();
        loop {
            let log = std::env::var_os("MESH_TEST_LOGS").map_or_else(Stdio::null, |_| Stdio::inherit());
            command.args(&flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
            let mut child = command.spawn().expect("the program starts");
            let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
            let mut ready = String::new();
            stdout.read_line(&mut ready).expect("a line");
            let words: Vec<&str> = ready.split_whitespace().collect();
            if let ["ready", "registry", grpc, http] = words[..] {
                let address = |word: &str| word.split_once('=').expect("an address").1.parse().expect("an address");
                let (grpc, http) = (address(grpc), address(http));
                return Self { child, _stdout: stdout, grpc, http };
            }
            let code = child.wait().expect("it ended").code();
            // A port that was ours a moment ago may be somebody's for another one.
            assert!(at.is_some() && began.elapsed() < LONG, "{ready:?}, exit code {code:?}");
            std::thread::sleep(Duration::from_millis(100));
            command = self::command();
        }
    }

    /// Where it listens, for its next start.
    pub(crate) fn place(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.grpc, self.http))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL; it is gone when this returns.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it lives");
    }

    /// Its metrics as text.
    pub(crate) fn metrics(&self) -> String {
        let mut connection = TcpStream::connect(self.http).expect("its HTTP port answers");
        connection.set_read_timeout(Some(LONG)).expect("a time that is more than none");
        write!(connection, "GET /metrics HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n").expect("asked");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// The sum of a metric over its labels; 0 where it has no series yet.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        sum_of(&self.metrics(), name)
    }

    /// What the operating system says of its memory, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }

    /// Processor time that it has used, user and system.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // Behind the name, which may hold blanks: the 14th and 15th field, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of a metric over its labels, in a text of metrics.
pub(crate) fn sum_of(metrics: &str, name: &str) -> u64 {
    let series = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
    metrics.lines().filter(series).map(value).sum::<f64>() as u64
}

/// Two loopback addresses that nobody listens on: below the ports that systems lend to outgoing connections, so that no
/// client's own end turns up there.
pub(crate) fn nobody_there() -> (SocketAddr, SocketAddr) {
    let mut rng = mesh_runtime::entropy::rng(mesh_runtime::entropy::seed());
    let mut free = || {
        let port = || rand::RngExt::random_range(&mut rng, 20_000..30_000_u16);
        std::iter::repeat_with(port).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).expect("a free port")
    };
    // Both are held before either is let go, so they differ.
    let (grpc, http) = (free(), free());
    let address = |listener: &TcpListener| listener.local_addr().expect("bound");
    (address(&grpc), address(&http))
}

/// The wall's pace, for real processes.
pub(crate) fn now() -> Instant {
    mesh_runtime::clock::now().into_std()
}

/// Waits for something that has no event of its own.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = now();
    while !holds() {
        assert!(began.elapsed() < LONG, "waited {LONG:?} for {what}, in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The value that this share of them does not exceed.
pub(crate) fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    let place = ((values.len() as f64 * share).ceil() as usize).saturating_sub(1);
    values.get(place).copied().unwrap_or_default()
}

/// A folder that goes away with the value.
pub(crate) fn folder(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix(name).tempdir().expect("a temporary folder can be made")
}
