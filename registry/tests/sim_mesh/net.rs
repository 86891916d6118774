//! A network in memory: hosts at addresses, connections as pipes with a delay, hosts that crash and pairs that are cut.
//!
//! It behaves like TCP where that matters here: bytes arrive whole and in order, a lost segment is a late one, a crashed
//! host's connections end, a cut pair's connections fall silent and its dials hang.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_client::{Address, Connecting, Connector, Io};
use mesh_runtime::Server;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Bytes under way in one direction of one connection.
const PIPE_BYTES: usize = 64 * 1024;
/// One way, undisturbed.
const DELAY_MS: std::ops::Range<u64> = 0..3;
/// A lost segment costs a retransmission timeout.
const LOSS_DELAY: Duration = Duration::from_millis(200);
/// One chunk in this many is lost.
const LOSS_ONE_IN: u32 = 500;

/// The network; clones are the same one.
#[derive(Clone)]
pub(crate) struct Net {
    state: Arc<Mutex<State>>,
    /// Pairs that are cut; links watch it.
    cuts: Arc<watch::Sender<BTreeSet<(SocketAddr, SocketAddr)>>>,
}

struct State {
    hosts: BTreeMap<SocketAddr, Host>,
    rng: StdRng,
}

#[derive(Clone)]
struct Host {
    server: Server,
    crashed: CancellationToken,
    goaway: CancellationToken,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        let state = State { hosts: BTreeMap::new(), rng: StdRng::seed_from_u64(seed) };
        Self { state: Arc::new(Mutex::new(state)), cuts: Arc::new(watch::Sender::new(BTreeSet::new())) }
    }

    /// Starts serving at an address.
    pub(crate) fn listen(&self, address: SocketAddr, server: Server) {
        let host = Host { server, crashed: CancellationToken::new(), goaway: CancellationToken::new() };
        self.state.lock().hosts.insert(address, host);
    }

    /// Ends a host without a word: its connections break, its address refuses.
    pub(crate) fn crash(&self, address: SocketAddr) {
        if let Some(host) = self.state.lock().hosts.remove(&address) {
            host.crashed.cancel();
        }
    }

    /// Ends a host as a drain does: GOAWAY on its connections, its address refuses.
    pub(crate) fn retire(&self, address: SocketAddr) {
        if let Some(host) = self.state.lock().hosts.remove(&address) {
            host.goaway.cancel();
        }
    }

    /// Cuts or mends a pair, in both directions.
    pub(crate) fn set_cut(&self, a: SocketAddr, b: SocketAddr, cut: bool) {
        let pair = (a.min(b), a.max(b));
        self.cuts.send_modify(|cuts| {
            if cut {
                cuts.insert(pair)
            } else {
                cuts.remove(&pair)
            };
        });
    }

    /// How the host at this address reaches others.
    pub(crate) fn from(&self, address: SocketAddr) -> Arc<dyn Connector> {
        Arc::new(From { net: self.clone(), address })
    }
}

/// Dials as one host.
struct From {
    net: Net,
    address: SocketAddr,
}

impl Connector for From {
    fn connect(&self, to: &Address) -> Connecting {
        let to = to.tcp().expect("this network knows no other");
        let (net, from) = (self.net.clone(), self.address);
        Box::pin(async move {
            let pair = (from.min(to), from.max(to));
            let mut cuts = net.cuts.subscribe();
            // A SYN into a cut pair gets no answer; the dialler's own timeout ends the attempt.
            cuts.wait_for(|cuts| !cuts.contains(&pair)).await.map_err(io::Error::other)?;
            let host = net.state.lock().hosts.get(&to).cloned();
            let Some(host) = host else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            let (dialler, near) = tokio::io::duplex(PIPE_BYTES);
            let (far, server) = tokio::io::duplex(PIPE_BYTES);
            let seeds: [u64; 2] = { std::array::from_fn(|_| net.state.lock().rng.random()) };
            let link = link(near, far, cuts, pair, seeds);
            tokio::spawn(host.crashed.clone().run_until_cancelled_owned(link));
            let Host { server: serving, crashed, goaway } = host;
            tokio::spawn(async move {
                let served = serving.serve_connection(server, Some(from), &goaway);
                let _ended = crashed.run_until_cancelled(served).await;
            });
            Ok(Box::new(dialler) as Box<dyn Io>)
        })
    }
}

/// Carries bytes both ways until both directions have ended.
async fn link(
    near: DuplexStream,
    far: DuplexStream,
    cuts: watch::Receiver<BTreeSet<(SocketAddr, SocketAddr)>>,
    pair: (SocketAddr, SocketAddr),
    seeds: [u64; 2],
) {
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    let there = carry(near_read, far_write, cuts.clone(), pair, StdRng::seed_from_u64(seeds[0]));
    let back = carry(far_read, near_write, cuts, pair, StdRng::seed_from_u64(seeds[1]));
    tokio::join!(there, back);
}

async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    mut cuts: watch::Receiver<BTreeSet<(SocketAddr, SocketAddr)>>,
    pair: (SocketAddr, SocketAddr),
    mut rng: StdRng,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let lost = rng.random_ratio(1, LOSS_ONE_IN);
        let delay = Duration::from_millis(rng.random_range(DELAY_MS));
        sleep(if lost { delay + LOSS_DELAY } else { delay }).await;
        if cuts.wait_for(|cuts| !cuts.contains(&pair)).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    // An end that cannot be told is an end all the same.
    let _told = to.shutdown().await;
}
