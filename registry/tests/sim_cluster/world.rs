//! A run: nodes, instances, faults drawn from the seed, and what has to hold when they are over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use registry::catalog::{InstanceId, Liveness, NodeId, StoreId, Ttl};
use registry::cluster::Company;
use registry::engine::{Engine, EngineSettings, EngineTask, Metrics};
use registry::storage::{HostileStore, Hostility, MemoryStore};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::instance::{Engines, Instance, Life, Lives, Manner, TTL, id, service};
use crate::judge::judge;
use crate::nodes::{ModelPeers, NODE_TTL, Net, NodeStore, Place, node_id};
use crate::trace::Trace;

const PLACES: std::ops::Range<Place> = 0..3;
const INSTANCES: u8 = 12;
const FAULTS: u32 = 6;

/// A store that does what stores do, more often than they do it. Other nodes' writes are the other nodes'.
const HOSTILITY: Hostility = Hostility {
    foreign_writes: 0,
    conflicts: 4,
    unknowns: 6,
    refusals: 2,
    broken_feeds: 2,
    compactions: 20,
    delay_max_ms: 15,
};

/// What goes wrong next.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// A node is gone without a word, and another start of it comes later.
    Crash(Place, Duration),
    /// A node does not reach the store.
    Storeless(Place, Duration),
    /// No node reaches the store: it has lost its quorum.
    NoStore(Duration),
    /// A node reaches neither the store nor another node; instances reach it, and the others.
    Alone(Place, Duration),
    /// Two nodes do not reach each other.
    Apart(Place, Place, Duration),
    /// An instance dies.
    Death(u8),
    /// Nothing does.
    Peace(Duration),
}

impl Fault {
    fn draw(rng: &mut StdRng, lonely: bool) -> Self {
        let place = rng.random_range(PLACES);
        let long = Duration::from_millis(rng.random_range(200..40_000));
        match rng.random_range(0..8) {
            0 | 1 => Self::Crash(place, long),
            2 | 3 if lonely => Self::Alone(place, 2 * long),
            2 | 3 => Self::Storeless(place, long),
            4 => Self::NoStore(long),
            5 => Self::Apart(place, (place + 1) % 3, long),
            6 => Self::Death(rng.random_range(0..INSTANCES)),
            _ => Self::Peace(long),
        }
    }
}

struct Node {
    id: NodeId,
    task: EngineTask,
    store: HostileStore,
}

pub(crate) struct World {
    seed: u64,
    /// Whether nodes are cut off from everything instead of from the store alone.
    lonely: bool,
    rng: StdRng,
    net: Net,
    truth: MemoryStore,
    engines: Engines,
    nodes: BTreeMap<Place, Node>,
    starts: u64,
    instances: BTreeMap<u8, JoinHandle<()>>,
    lives: Lives,
    trace: Trace,
    wrong: Arc<Mutex<Vec<String>>>,
    judge: JoinHandle<()>,
    clock: JoinHandle<()>,
}

impl World {
    pub(crate) async fn new(seed: u64, lonely: bool) -> Self {
        let net = Net::new(seed);
        let truth = MemoryStore::new(StoreId::parse("shared").unwrap());
        let (engines, lives, wrong) = (Engines::default(), Lives::default(), Arc::default());
        let trace = Trace::new();
        let judging = judge(truth.clone(), net.clone(), Arc::clone(&lives), trace.clone(), Arc::clone(&wrong));
        let ticking = net.clone();
        let mut world = Self {
            seed,
            lonely,
            rng: StdRng::seed_from_u64(seed),
            net,
            truth,
            engines,
            nodes: BTreeMap::new(),
            starts: 0,
            instances: BTreeMap::new(),
            lives,
            trace,
            wrong,
            judge: tokio::spawn(judging),
            clock: tokio::spawn(async move {
                loop {
                    sleep(Duration::from_millis(50)).await;
                    ticking.tick();
                }
            }),
        };
        for place in PLACES {
            world.start(place).await;
        }
        for number in 0..INSTANCES {
            let manner = if world.rng.random_bool(0.5) { Manner::Stream } else { Manner::Calls };
            let (engines, lives) = (Arc::clone(&world.engines), Arc::clone(&world.lives));
            let instance = Instance::new(number, manner, engines, lives, world.rng.random());
            world.instances.insert(number, tokio::spawn(instance.live()));
        }
        world
    }

    async fn start(&mut self, place: Place) {
        self.starts += 1;
        let node = node_id(self.seed, self.starts);
        let store = HostileStore::new(self.truth.clone(), self.rng.random(), HOSTILITY);
        let seen = NodeStore { net: self.net.clone(), node, place, inner: store.clone() };
        let cluster = Arc::new(self.net.join(node, place));
        let peers = Arc::new(ModelPeers { net: self.net.clone(), place });
        let mut settings = EngineSettings::seeded([0; 32], UNIX_EPOCH + Duration::from_secs(1_000_000));
        settings.seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        settings.seed[8..16].copy_from_slice(&self.starts.to_le_bytes());
        settings.default_ttl = Ttl::new(TTL).unwrap();
        let started = Engine::start_in(Company { cluster, peers }, settings, Arc::new(seen), Metrics::default()).await;
        let (engine, task) = started.unwrap();
        self.net.started(node, engine.clone());
        self.net.change(|cuts| _ = cuts.down.remove(&place));
        self.engines.lock().insert(place, engine);
        self.trace.note(format!("node {node} up at {place}"));
        self.nodes.insert(place, Node { id: node, task, store });
    }

    async fn crash(&mut self, place: Place) {
        let Node { id, task, store: _ } = self.nodes.remove(&place).unwrap();
        self.trace.note(format!("node {id} crashes at {place}"));
        self.engines.lock().remove(&place);
        self.net.crash(id);
        self.net.change(|cuts| _ = cuts.down.insert(place));
        task.stop().await;
    }

    fn kill(&mut self, number: u8) {
        let Some(instance) = self.instances.remove(&number) else { return };
        self.trace.note(format!("instance {} dies", id(number)));
        self.lives.lock().get_mut(&id(number)).unwrap().dead = Some(mesh_runtime::clock::now());
        instance.abort();
    }

    /// Some minutes of a life with faults.
    pub(crate) async fn live(&mut self) {
        sleep(Duration::from_secs(15)).await;
        for _ in 0..FAULTS {
            let fault = Fault::draw(&mut self.rng, self.lonely);
            self.trace.note(format!("{fault:?}"));
            match fault {
                Fault::Crash(place, long) => {
                    self.crash(place).await;
                    sleep(long).await;
                    self.start(place).await;
                }
                Fault::Storeless(place, long) => {
                    self.net.change(|cuts| _ = cuts.from_store.insert(place));
                    sleep(long).await;
                    self.net.change(|cuts| _ = cuts.from_store.remove(&place));
                }
                Fault::Alone(place, long) => {
                    let pairs =
                        PLACES.filter(|other| *other != place).map(|other| (place.min(other), place.max(other)));
                    self.net.change(|cuts| {
                        cuts.from_store.insert(place);
                        cuts.pairs.extend(pairs);
                    });
                    sleep(long).await;
                    self.net.change(|cuts| {
                        cuts.from_store.clear();
                        cuts.pairs.clear();
                    });
                }
                Fault::NoStore(long) => {
                    self.net.change(|cuts| cuts.from_store.extend(PLACES));
                    sleep(long).await;
                    self.net.change(|cuts| cuts.from_store.clear());
                }
                Fault::Apart(one, other, long) => {
                    let pair = (one.min(other), one.max(other));
                    self.net.change(|cuts| _ = cuts.pairs.insert(pair));
                    sleep(long).await;
                    self.net.change(|cuts| _ = cuts.pairs.remove(&pair));
                }
                Fault::Death(number) => self.kill(number),
                Fault::Peace(long) => sleep(long).await,
            }
            let pause = self.rng.random_range(0..15_000);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Peace; and then everything is as it should be.
    pub(crate) async fn settle(mut self) -> Vec<String> {
        self.trace.note("healed");
        for node in self.nodes.values() {
            node.store.set_hostility(None);
        }
        // The dead may have to wait for a window of removals each, and for a node's lease and half a TTL before.
        sleep(NODE_TTL + 6 * TTL).await;
        let wrong: Vec<String> = self.net.faults().into_iter().chain(self.wrong.lock().drain(..)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}\n{}", self.trace.lines().join("\n"));

        let lives = self.lives.lock().clone();
        let alive = |(id, life): (&InstanceId, &Life)| life.dead.is_none().then_some(*id);
        let expected: Vec<InstanceId> = lives.iter().filter_map(alive).collect();
        // A stream that moves makes an instance SUSPECT for a moment; everybody is ALIVE everywhere at some moment soon.
        let mut last = Err("nobody looked".to_owned());
        for _ in 0..100 {
            last = self.agree(&expected);
            if last.is_ok() {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        if let Err(differs) = last {
            panic!("{differs}\n{}", self.trace.lines().join("\n"));
        }
        for instance in std::mem::take(&mut self.instances).into_values() {
            instance.abort();
        }
        self.judge.abort();
        self.clock.abort();
        for node in std::mem::take(&mut self.nodes).into_values() {
            node.task.stop().await;
        }
        self.trace.lines()
    }

    /// Whether all nodes show the same: those who live, and they are ALIVE.
    fn agree(&self, expected: &[InstanceId]) -> Result<(), String> {
        let mut first = None;
        for (place, engine) in self.engines.lock().iter() {
            let view = engine.view();
            if view.stale_since().is_some() {
                return Err(format!("node {place} does not reach the store"));
            }
            let mut all = BTreeMap::new();
            for service in [service(0), service(11)].iter().filter_map(|service| view.service(service)) {
                for instance in service.instances().values() {
                    let liveness = service.liveness(instance);
                    if liveness != Liveness::Alive {
                        return Err(format!("{} is {liveness:?} at {place}", instance.id()));
                    }
                    all.insert(instance.id(), (instance.incarnation(), instance.owner()));
                }
            }
            if !all.keys().eq(expected) {
                return Err(format!("node {place} shows {:?}, not {expected:?}", all.keys()));
            }
            let first = first.get_or_insert_with(|| all.clone());
            let ours = |all: &BTreeMap<InstanceId, _>| -> Vec<_> {
                all.values().map(|(incarnation, _): &(_, Option<NodeId>)| *incarnation).collect()
            };
            if ours(first) != ours(&all) {
                return Err(format!("node {place} shows {all:?}, another {first:?}"));
            }
        }
        Ok(())
    }
}
