//! Real etcd processes for tests: one or three members on free loopback ports, data in a folder of their own. Depends on
//! nothing of the registry's, so that other crates' tests take it by `#[path]`.

#![allow(dead_code, reason = "each test uses its part")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long members may take to be there; five times what it takes on two busy cores.
const START_MAX: Duration = Duration::from_secs(30);

/// How often ports are drawn anew because somebody else took one in between.
const DRAWS_MAX: u32 = 5;

/// A cluster of its own for one test. Ends with it.
#[derive(Debug)]
pub(crate) struct Etcd {
    folder: TempDir,
    members: Vec<Member>,
    /// Further flags, as they were given at the start.
    flags: Vec<String>,
}

#[derive(Debug)]
struct Member {
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<Child>,
}

impl Etcd {
    /// Starts so many members, one or three, and waits for them. `None`, with a line that says so, where there is no etcd to
    /// start. Blocks: in an async test call it before anything else.
    pub(crate) fn start(test: &str, members: usize) -> Option<Self> {
        Self::start_with(test, members, &[])
    }

    /// The same with further flags.
    pub(crate) fn start_with(test: &str, members: usize, flags: &[&str]) -> Option<Self> {
        let Some(_) = binary() else {
            skipped(test, "no etcd in the PATH (Debian: apt-get install etcd-server)");
            return None;
        };
        for _ in 0..DRAWS_MAX {
            let mut etcd = Self {
                folder: TempDir::new().expect("a temporary folder"),
                members: draw(members),
                flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            };
            (0..members).for_each(|member| etcd.spawn(member, "new"));
            if etcd.becomes_healthy() {
                return Some(etcd);
            }
            eprintln!("{}", etcd.logs());
        }
        panic!("{test}: etcd did not start, {DRAWS_MAX} times");
    }

    /// What `--store` is given.
    pub(crate) fn store(&self) -> String {
        format!("etcd:{}", self.urls())
    }

    /// The members' URLs, with commas between them.
    pub(crate) fn urls(&self) -> String {
        (0..self.members.len()).map(|member| self.url(member)).collect::<Vec<_>>().join(",")
    }

    /// One member's URL.
    pub(crate) fn url(&self, member: usize) -> String {
        format!("http://{}", self.members[member].client)
    }

    /// How many there are, dead or alive.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Its process; `None` while it is killed.
    pub(crate) fn pid(&self, member: usize) -> Option<u32> {
        self.members[member].process.as_ref().map(Child::id)
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
            // Gone already is fine.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Stops a member where it stands: its connections stay, and nobody answers.
    pub(crate) fn freeze(&self, member: usize) {
        self.signal(member, Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self, member: usize) {
        self.signal(member, Signal::CONT);
    }

    /// Raises or ends etcd's alarm that there is no space: while it stands nothing can be put, and leases are kept.
    pub(crate) fn is_full(&self, full: bool) {
        let action = if full { "ACTIVATE" } else { "DEACTIVATE" };
        let body = format!(r#"{{"action":"{action}","alarm":"NOSPACE"}}"#);
        let length = format!("Content-Length: {}", body.len());
        let answer = ask(self.members[0].client, "POST /v3/maintenance/alarm", &length, &body).expect("etcd answers");
        assert!(answer.contains(" 200 OK"), "{answer}");
    }

    /// Starts a killed member again, on its data.
    pub(crate) fn restart(&mut self, member: usize) {
        self.kill(member);
        self.spawn(member, "existing");
    }

    /// Keeps a copy of a member's data, as an operator's backup of a killed one would be.
    pub(crate) fn back_up(&mut self, member: usize) {
        self.kill(member);
        copy(&self.data(member), &self.folder.path().join("backup"));
        self.restart(member);
    }

    /// Puts the copy in the place of what a member has now.
    pub(crate) fn restore(&mut self, member: usize) {
        self.kill(member);
        let data = self.data(member);
        fs::remove_dir_all(&data).expect("its data");
        copy(&self.folder.path().join("backup"), &data);
        self.spawn(member, "existing");
    }

    /// Takes everything away that a member has.
    pub(crate) fn wipe(&mut self, member: usize) {
        self.kill(member);
        fs::remove_dir_all(self.data(member)).expect("its data");
        self.spawn(member, "new");
    }

    /// The member that leads, as far as the members that run say.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |member: &usize| {
            self.pid(*member).is_some()
                && get(self.members[*member].client, "/metrics")
                    .is_some_and(|text| text.contains("\netcd_server_is_leader 1"))
        };
        (0..self.members.len()).find(leads)
    }

    /// The same, once there is one.
    pub(crate) fn wait_for_leader(&self) -> usize {
        let until = now() + START_MAX;
        loop {
            if let Some(leader) = self.leader() {
                return leader;
            }
            assert!(now() < until, "nobody leads:\n{}", self.logs());
            sleep(Duration::from_millis(50));
        }
    }

    /// The member that has most watches, which is the one that a single watcher hangs on.
    pub(crate) fn watched(&self) -> usize {
        let most = (0..self.members.len()).max_by(|one, other| self.watches(*one).total_cmp(&self.watches(*other)));
        most.expect("a member")
    }

    /// Whether anybody watches any member.
    pub(crate) fn is_watched(&self) -> bool {
        (0..self.members.len()).any(|member| self.watches(member) > 0.0)
    }

    fn watches(&self, member: usize) -> f64 {
        let text = get(self.members[member].client, "/metrics").unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("etcd_debugging_mvcc_watcher_total "));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// The ends of what the members wrote, for a test that fails.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for member in 0..self.members.len() {
            let log = fs::read_to_string(self.log(member)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(15)..].join("\n");
            text.push_str(&format!("--- member {member}\n{end}\n"));
        }
        text
    }

    fn signal(&self, member: usize, signal: Signal) {
        let pid = self.pid(member).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).expect("it runs");
        kill_process(pid, signal).expect("it runs");
    }

    fn data(&self, member: usize) -> PathBuf {
        self.folder.path().join(format!("m{member}"))
    }

    fn log(&self, member: usize) -> PathBuf {
        self.folder.path().join(format!("{member}.log"))
    }

    fn spawn(&mut self, member: usize, state: &str) {
        let all: Vec<String> =
            self.members.iter().enumerate().map(|(index, member)| format!("m{index}=http://{}", member.peer)).collect();
        let log = File::options().create(true).append(true).open(self.log(member)).expect("a log file");
        let Member { client, peer, .. } = self.members[member];
        let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
        let data = self.data(member);
        let process = Command::new(binary().expect("it was there"))
            .env_clear()
            .current_dir(self.folder.path())
            .args(["--name", &format!("m{member}"), "--data-dir", &data.to_string_lossy()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", state])
            .args(["--logger", "zap", "--log-outputs", "stderr"])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        self.members[member].process = Some(process);
    }

    fn becomes_healthy(&mut self) -> bool {
        let until = now() + START_MAX;
        while now() < until {
            let exited = |member: &mut Member| match &mut member.process {
                Some(process) => !matches!(process.try_wait(), Ok(None)),
                None => true,
            };
            if self.members.iter_mut().any(exited) {
                return false;
            }
            let healthy = |member: &Member| get(member.client, "/health").is_some_and(|text| text.contains("\"true\""));
            if self.members.iter().all(healthy) {
                return true;
            }
            sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}

/// Says that a test did not run, past the capture of the test runner, so that it is counted where the log is read.
fn skipped(test: &str, reason: &str) {
    // Nowhere to say it is fine.
    let _ = writeln!(io::stdout(), "\nSKIPPED {test}: {reason}");
}

/// The etcd in the PATH.
pub(crate) fn binary() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|file| is_program(file))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { _ = fs::copy(entry.path(), to).expect("a file") }
    }
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file())
}

/// Free ports, all held until all are drawn.
fn draw(members: usize) -> Vec<Member> {
    let listeners: Vec<TcpListener> =
        (0..2 * members).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let addresses: Vec<SocketAddr> =
        listeners.iter().map(|listener| listener.local_addr().expect("it is bound")).collect();
    addresses.chunks(2).map(|two| Member { client: two[0], peer: two[1], process: None }).collect()
}

/// A page of a member's, if it answers soon.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    ask(address, &format!("GET {path}"), "Accept: */*", "")
}

/// One HTTP request with one header line beside the host.
fn ask(address: SocketAddr, what: &str, header: &str, body: &str) -> Option<String> {
    let time = Duration::from_millis(500);
    let mut stream = TcpStream::connect_timeout(&address, time).ok()?;
    stream.set_read_timeout(Some(time)).ok()?;
    write!(stream, "{what} HTTP/1.0\r\nHost: {address}\r\n{header}\r\n\r\n{body}").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "how long a process may take has nothing to do with a paused clock")]
    Instant::now()
}
