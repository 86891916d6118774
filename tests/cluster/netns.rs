//! An etcd of three, each member in a network namespace of its own, so that one can be cut off. Needs root and `ip`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use mesh_runtime::clock;
use tempfile::TempDir;

/// How long members may take to be there.
const START_MAX: Duration = Duration::from_secs(30);

/// How a member is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its cable is out: nothing comes or goes, and nobody is told.
    Whole,
    /// It hears the other members, and they do not hear it; clients reach it.
    OneWay,
}

/// Three members, and the network between them.
pub(crate) struct Etcd {
    /// Of its namespaces, links and bridge.
    name: String,
    /// Second byte of its addresses.
    net: u8,
    members: Vec<Child>,
    _folder: TempDir,
}

impl Etcd {
    /// Starts them, or says why not.
    pub(crate) fn start(test: &str) -> Option<Etcd> {
        if crate::etcd::binary().is_none() {
            skipped(test, "no etcd in the PATH (Debian: apt-get install etcd-server)");
            return None;
        }
        let id = std::process::id();
        let (name, net) = (format!("m{}", id % 100_000), 100 + (id % 100) as u8);
        let mut etcd = Etcd { name, net, members: Vec::new(), _folder: TempDir::new().expect("a temporary folder") };
        if let Err(why) = etcd.lay_cables() {
            skipped(test, &format!("network namespaces cannot be made here: {why}"));
            return None;
        }
        let cluster: Vec<String> = (0..3).map(|member| format!("m{member}=http://{}:2380", etcd.ip(member))).collect();
        for member in 0..3 {
            let (client, peer) = (etcd.url(member), format!("http://{}:2380", etcd.ip(member)));
            let data = etcd._folder.path().join(format!("m{member}"));
            let program = crate::etcd::binary().expect("it was there");
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &etcd.namespace(member)]).arg(program);
            command.args(["--name", &format!("m{member}"), "--data-dir", &data.to_string_lossy()]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            etcd.members.push(command.spawn().expect("etcd starts"));
        }
        let began = clock::now();
        while etcd.leader().is_none() {
            assert!(began.elapsed() < START_MAX, "{test}: etcd does not start");
            sleep(Duration::from_millis(100));
        }
        Some(etcd)
    }

    /// The members' URLs, with commas between them.
    pub(crate) fn urls(&self) -> String {
        (0..3).map(|member| self.url(member)).collect::<Vec<_>>().join(",")
    }

    /// The member that leads, once there is one that says so and can be reached.
    pub(crate) fn wait_for_leader(&self) -> usize {
        let began = clock::now();
        loop {
            if let Some(leader) = self.leader() {
                return leader;
            }
            assert!(began.elapsed() < START_MAX, "nobody leads");
            sleep(Duration::from_millis(100));
        }
    }

    fn leader(&self) -> Option<usize> {
        (0..3).find(|&member| {
            let at = SocketAddr::new(self.ip(member).parse().expect("an address"), 2379);
            metrics(at).is_some_and(|text| text.contains("\netcd_server_is_leader 1"))
        })
    }

    /// Cuts a member off.
    pub(crate) fn cut(&self, member: usize, cut: Cut) {
        let done = match cut {
            Cut::Whole => ip(&["link", "set", &self.cable(member), "down"]),
            Cut::OneWay => self.others(member).try_for_each(|other| {
                ip(&["-n", &self.namespace(member), "route", "add", "blackhole", &format!("{}/32", self.ip(other))])
            }),
        };
        done.expect("it was possible to make it");
    }

    /// Undoes every cut.
    pub(crate) fn heal(&self, member: usize) {
        ip(&["link", "set", &self.cable(member), "up"]).expect("it was possible to take it down");
        for other in self.others(member) {
            // Only after a one-way cut is there one.
            let _ =
                ip(&["-n", &self.namespace(member), "route", "del", "blackhole", &format!("{}/32", self.ip(other))]);
        }
    }

    fn others(&self, member: usize) -> impl Iterator<Item = usize> {
        (0..3).filter(move |other| *other != member)
    }

    fn ip(&self, member: usize) -> String {
        format!("10.{}.0.{}", self.net, 10 + member)
    }

    fn url(&self, member: usize) -> String {
        format!("http://{}:2379", self.ip(member))
    }

    fn namespace(&self, member: usize) -> String {
        format!("{}-{member}", self.name)
    }

    /// The outer end of a member's cable.
    fn cable(&self, member: usize) -> String {
        format!("{}v{member}", self.name)
    }

    fn bridge(&self) -> String {
        format!("{}br", self.name)
    }

    fn lay_cables(&mut self) -> Result<(), String> {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("10.{}.0.1/24", self.net), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for member in 0..3 {
            let (namespace, outer) = (self.namespace(member), self.cable(member));
            ip(&["netns", "add", &namespace])?;
            ip(&["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["link", "set", &outer, "master", &bridge])?;
            ip(&["link", "set", &outer, "up"])?;
            ip(&["-n", &namespace, "addr", "add", &format!("{}/24", self.ip(member)), "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
        for member in 0..3 {
            // The cable goes with the namespace of its inner end.
            let _ = ip(&["netns", "del", &self.namespace(member)]);
        }
        let _ = ip(&["link", "del", &self.bridge()]);
    }
}

/// Says that a story was not told, past the capture of the test runner, so that it is counted where the log is read.
fn skipped(test: &str, reason: &str) {
    // Nowhere to say it is fine.
    let _ = writeln!(std::io::stdout(), "SKIPPED {test}: {reason}");
}

/// One `ip` command.
fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// A member's metrics, if it answers soon.
fn metrics(at: SocketAddr) -> Option<String> {
    let time = Duration::from_millis(500);
    let mut stream = TcpStream::connect_timeout(&at, time).ok()?;
    stream.set_read_timeout(Some(time)).ok()?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {at}\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}
