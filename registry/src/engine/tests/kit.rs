//! An engine with short names for what is asked of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::catalog::kit::{asks, id, service};
use crate::catalog::{
    Beat, BeatOutcome, Granted, LeaseId, Liveness, Presence, Register, ServingStatus, StoreId, StreamId,
};
use crate::engine::{Departure, Engine, EngineError, EngineSettings, EngineTask, Metrics, Published};
use crate::storage::{MemoryStore, Store};

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Rig {
    pub(super) engine: Engine,
    pub(super) metrics: Metrics,
    pub(super) task: EngineTask,
}

pub(super) fn settings(seed: u8) -> EngineSettings {
    EngineSettings::seeded([seed; 32], SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
}

pub(super) fn memory() -> MemoryStore {
    MemoryStore::new(StoreId::parse("memory-1").unwrap())
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::on(memory(), settings(1)).await
    }

    pub(super) async fn on(store: impl Store, settings: EngineSettings) -> Self {
        let metrics = Metrics::default();
        let (engine, task) = Engine::start(settings, Arc::new(store), metrics.clone()).await.unwrap();
        Self { engine, metrics, task }
    }

    pub(super) async fn register(&self, instance: u128) -> Granted {
        self.engine.register(asks(instance)).await.unwrap()
    }

    pub(super) async fn try_register(&self, request: Register) -> Result<Granted, EngineError> {
        self.engine.register(request).await
    }

    pub(super) async fn beat(&self, granted: &Granted) -> BeatOutcome {
        self.beat_via(granted, None).await
    }

    pub(super) async fn beat_via(&self, granted: &Granted, via: Option<StreamId>) -> BeatOutcome {
        self.engine.beat(vec![beat_of(granted)], via).await.unwrap()[0].outcome
    }

    pub(super) async fn says(&self, granted: &Granted, serving: ServingStatus) -> BeatOutcome {
        let beat = Beat { serving: Some(serving), ..beat_of(granted) };
        self.engine.beat(vec![beat], None).await.unwrap()[0].outcome
    }

    pub(super) async fn deregister(&self, granted: &Granted) {
        let own = Departure::Own { lease: granted.lease, incarnation: granted.incarnation };
        self.engine.deregister(own).await.unwrap();
    }

    /// Keeps these alive while time passes, beating every second.
    pub(super) async fn wait_beating(&self, duration: Duration, alive: &[&Granted]) {
        for _ in 0..duration.as_secs() {
            tokio::time::sleep(SECOND).await;
            for granted in alive {
                assert_eq!(self.beat(granted).await, BeatOutcome::Renewed);
            }
        }
    }

    pub(super) fn users(&self) -> Arc<Published> {
        self.engine.view().service(&service("user-svc")).unwrap()
    }

    pub(super) fn metrics_text(&self) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    pub(super) fn presence(&self) -> Presence {
        self.users().presence()
    }

    pub(super) fn liveness(&self, instance: u128) -> Option<Liveness> {
        let users = self.users();
        users.instances().get(&id(instance)).map(|instance| users.liveness(instance))
    }
}

pub(super) fn beat_of(granted: &Granted) -> Beat {
    Beat {
        lease: granted.lease,
        incarnation: granted.incarnation,
        serving: None,
        services: BTreeMap::new(),
        load: None,
    }
}

pub(super) fn beat_of_nobody() -> Beat {
    Beat {
        lease: LeaseId::new([0xee; 16]),
        incarnation: crate::catalog::kit::incarnation(1),
        serving: None,
        services: BTreeMap::new(),
        load: None,
    }
}
