//! Fault servers, each a process of its own, and what they have told.

use std::fmt;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use mesh_client::Address;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use crate::SERVE;
use crate::harness::{LONG, nobody_there};
use crate::wire::{Manners, News};

/// What a server has told so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// Calls that arrived.
    pub(crate) called: u64,
    /// Calls that were answered.
    pub(crate) answered: u64,
    /// Calls that were taken back.
    pub(crate) dropped: u64,
    /// Connections asked to go.
    pub(crate) sent_away: u64,
    /// When connections were accepted, from the moment it listened.
    pub(crate) connected: Vec<Duration>,
    address: Option<SocketAddr>,
    /// How many manners it has taken.
    behaves: u64,
}

/// A fault server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    stdin: ChildStdin,
    address: SocketAddr,
    told: watch::Receiver<Told>,
}

impl Server {
    /// Starts one on a port that is its own from then on, also after its death.
    pub(crate) async fn start(manners: Manners) -> Server {
        Server::start_at(nobody_there(), manners).await
    }

    /// Starts one at this address.
    pub(crate) async fn start_at(address: SocketAddr, manners: Manners) -> Server {
        Server::spawn("echo", address, &manners.to_string()).await
    }

    /// Starts one that answers whatever the next service answers it.
    pub(crate) async fn start_middle(seed: u64, next: &[Server]) -> Server {
        let next = next.iter().fold(seed.to_string(), |words, server| format!("{words} {}", server.address()));
        Server::spawn("middle", nobody_there(), &next).await
    }

    /// Starts a registry that says what it is told to, whatever that is.
    pub(crate) async fn start_registry() -> Server {
        Server::spawn("registry", nobody_there(), "").await
    }

    async fn spawn(kind: &str, address: SocketAddr, manners: &str) -> Server {
        let mut command = Command::new(std::env::current_exe().expect("this program is somewhere"));
        command.args([SERVE, kind, &address.to_string()]).args(manners.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn().expect("this program can be started once more");
        let stdin = child.stdin.take().expect("it was asked for");
        let mut lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
        let (tell, told) = watch::channel(Told::default());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let news = line.parse().expect("a server tells news");
                tell.send_modify(|told| told.note(news));
            }
        });
        let server = Server { child, stdin, address, told };
        server.until("it to listen", |told| told.address == Some(address)).await;
        server
    }

    /// Starts `count` with the same manners.
    pub(crate) async fn several(count: usize, manners: Manners) -> Vec<Server> {
        futures_util::future::join_all((0..count).map(|_| Server::start(manners))).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has told so far; of a killed one, everything once [`Server::kill`] has returned.
    pub(crate) fn told(&self) -> Told {
        self.told.borrow().clone()
    }

    /// Waits for something that it tells.
    pub(crate) async fn until(&self, what: &str, holds: impl FnMut(&Told) -> bool) -> Told {
        let mut told = self.told.clone();
        let waiting = tokio::time::timeout(LONG, told.wait_for(holds)).await;
        let held = waiting.unwrap_or_else(|_| panic!("waited {LONG:?} for {what}, in vain"));
        held.unwrap_or_else(|_| panic!("the server ended; {what} was waited for")).clone()
    }

    /// Has it behave otherwise; it does when this returns.
    pub(crate) async fn behave(&mut self, manners: impl fmt::Display) {
        let before = self.told().behaves;
        self.stdin.write_all(format!("{manners}\n").as_bytes()).await.expect("it reads its stdin");
        self.until("it to take its manners", |told| told.behaves > before).await;
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // The id is the child's until it has been waited for, and then there is none.
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL; when this returns it is gone, and all that it told is heard.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
        while self.told.changed().await.is_ok() {}
    }
}

impl Told {
    /// Calls that have arrived, and were neither answered nor taken back.
    pub(crate) fn unfinished(&self) -> u64 {
        self.called.saturating_sub(self.answered + self.dropped)
    }

    fn note(&mut self, news: News) {
        match news {
            News::Listening(address) => self.address = Some(address),
            News::Behaves => self.behaves += 1,
            News::Connected(after) => self.connected.push(after),
            News::Called => self.called += 1,
            News::Answered => self.answered += 1,
            News::Dropped => self.dropped += 1,
            News::SentAway => self.sent_away += 1,
        }
    }
}

/// Where servers are, for a fixed list.
pub(crate) fn addresses(servers: &[Server]) -> Vec<Address> {
    servers.iter().map(|server| server.address().into()).collect()
}

/// Calls that arrived at any of them.
pub(crate) fn called(servers: &[Server]) -> u64 {
    servers.iter().map(|server| server.told().called).sum()
}
