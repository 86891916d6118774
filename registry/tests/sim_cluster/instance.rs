//! An instance that registers, beats every third of its TTL, and goes elsewhere when nobody answers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use registry::catalog::{
    Beat, BeatOutcome, Endpoint, Granted, InstanceId, InstanceSpec, Protocol, Register, ServiceKey, ServingStatus,
    StartNonce, StreamId,
};
use registry::engine::{Closed, Engine};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::nodes::Place;

pub(crate) const TTL: Duration = Duration::from_secs(10);

/// How long an instance waits for an answer before it asks another node.
const PATIENCE: Duration = Duration::from_secs(1);

/// The engines that run, by their places.
pub(crate) type Engines = Arc<Mutex<BTreeMap<Place, Engine>>>;

/// How an instance beats.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Manner {
    /// On a stream to one node.
    Stream,
    /// By calls, to any node.
    Calls,
}

/// What is known of an instance from outside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// When it was last told "renewed", or was granted its lease.
    pub(crate) heard: Option<Instant>,
    pub(crate) dead: Option<Instant>,
}

pub(crate) type Lives = Arc<Mutex<BTreeMap<InstanceId, Life>>>;

pub(crate) fn service(number: u8) -> ServiceKey {
    ServiceKey::parse("", if number < 8 { "user-svc" } else { "order-svc" }).unwrap()
}

pub(crate) fn id(number: u8) -> InstanceId {
    InstanceId::new(Uuid::from_u128(u128::from(number) + 1)).unwrap()
}

pub(crate) struct Instance {
    pub(crate) number: u8,
    pub(crate) manner: Manner,
    pub(crate) engines: Engines,
    pub(crate) lives: Lives,
    pub(crate) rng: StdRng,
    at: Place,
    stream: Option<(Place, Engine, StreamId)>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl Instance {
    pub(crate) fn new(number: u8, manner: Manner, engines: Engines, lives: Lives, seed: u64) -> Self {
        lives.lock().insert(id(number), Life { heard: None, dead: None });
        let mut rng = StdRng::seed_from_u64(seed);
        let at = rng.random_range(0..3);
        Self { number, manner, engines, lives, rng, at, stream: None }
    }

    fn hang_up(&mut self) {
        if let Some((_, engine, stream)) = self.stream.take() {
            engine.stream_closed(stream, Closed::ByPeer);
        }
    }

    /// The engine that this instance turns to now. A connection to one that crashed is noticed at once.
    fn engine(&mut self) -> Option<Engine> {
        self.engines.lock().get(&self.at).cloned()
    }

    fn elsewhere(&mut self) {
        self.hang_up();
        self.at = (self.at + self.rng.random_range(1..3)) % 3;
    }

    fn heard(&self) {
        self.lives.lock().get_mut(&id(self.number)).unwrap().heard = Some(mesh_runtime::clock::now());
    }

    fn asks(&self) -> Register {
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, self.number));
        let endpoint = Endpoint::new("grpc", Protocol::Grpc, ip, 7_410).unwrap();
        Register {
            service: service(self.number),
            id: id(self.number),
            nonce: StartNonce::new([self.number; 16]),
            held: None,
            serving: ServingStatus::Serving,
            ttl: None,
            spec: InstanceSpec::new(vec![endpoint]).unwrap(),
        }
    }

    /// Lives until it is dropped.
    pub(crate) async fn live(mut self) {
        sleep(Duration::from_millis(self.rng.random_range(0..2_000))).await;
        loop {
            let granted = self.register().await;
            self.beat_until_unknown(&granted).await;
        }
    }

    async fn register(&mut self) -> Granted {
        loop {
            if let Some(engine) = self.engine()
                && let Ok(Ok(granted)) = timeout(2 * PATIENCE, engine.register(self.asks())).await
            {
                self.heard();
                return granted;
            }
            self.elsewhere();
            sleep(Duration::from_millis(self.rng.random_range(50..500))).await;
        }
    }

    async fn beat_until_unknown(&mut self, granted: &Granted) {
        loop {
            let pause = TTL.as_secs_f64() / 3.0 * self.rng.random_range(0.9..1.1);
            sleep(Duration::from_secs_f64(pause)).await;
            if self.manner == Manner::Calls && self.rng.random_ratio(1, 3) {
                self.elsewhere();
            }
            if self.manner == Manner::Stream && self.rng.random_ratio(1, 40) {
                // A connection's age.
                self.elsewhere();
            }
            loop {
                match self.beat(granted).await {
                    Some(BeatOutcome::Renewed) => break self.heard(),
                    Some(BeatOutcome::UnknownLease) => return,
                    Some(BeatOutcome::Fenced) => panic!("nobody else has the id of {}", self.number),
                    None => {
                        self.elsewhere();
                        sleep(Duration::from_millis(self.rng.random_range(20..200))).await;
                    }
                }
            }
        }
    }

    async fn beat(&mut self, granted: &Granted) -> Option<BeatOutcome> {
        let engine = self.engine()?;
        let via = match self.manner {
            Manner::Calls => None,
            Manner::Stream => {
                if self.stream.as_ref().is_none_or(|(place, _, _)| *place != self.at) {
                    self.hang_up();
                    self.stream = Some((self.at, engine.clone(), engine.stream_opened()));
                }
                self.stream.as_ref().map(|(_, _, stream)| *stream)
            }
        };
        let beat = Beat {
            lease: granted.lease,
            incarnation: granted.incarnation,
            serving: None,
            services: BTreeMap::new(),
            load: None,
        };
        let answered = timeout(PATIENCE, engine.beat(vec![beat], via)).await;
        Some(answered.ok()?.ok()?.first()?.outcome)
    }
}
