//! Everything in the program but the process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::catalog::{NodeId, StoreId};
use crate::cluster::{Cluster, Company, EtcdCluster, Member, PeerChannels};
use crate::engine::{Engine, EngineSettings, EngineTask, Metrics};
use crate::front::{self, Front, PeerFront, Quotas};
use crate::storage::{Control, EtcdAddress, EtcdStore, FileStore, MemoryStore, OpenError, Store, StoreError};
use crate::watch::Hub;

/// What a registry is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What its engine is told.
    pub engine: EngineSettings,
    /// What its doors let in.
    pub quotas: Quotas,
    /// Where its records live.
    pub store: StorePlace,
    /// Identity of its store where it begins one. Whoever starts two registries gives them two: a memory store remembers
    /// nothing, so the second one's history is another.
    pub store_id: StoreId,
    /// Where the other registries on one etcd reach this one's gRPC port.
    pub advertised: Option<SocketAddr>,
}

/// Where the records of a registry live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// In its memory: gone with the process.
    Memory,
    /// In a file in this folder, which nobody else uses.
    File(PathBuf),
    /// In an etcd that several registries share.
    Etcd(EtcdAddress),
}

/// A store as a registry has it.
struct Opened {
    store: Arc<dyn Store>,
    file: Option<OnFile>,
    company: Company,
}

/// A store in a file.
#[derive(Debug)]
struct OnFile {
    store: FileStore,
    /// Where backups of it can be had.
    control: Option<Control>,
}

impl OnFile {
    /// Closes the file, so that the next start finds it whole and nobody's.
    async fn close(self) {
        if let Some(control) = self.control {
            control.stop().await;
        }
        // Where it panicked, the next start repairs.
        let _ = tokio::task::spawn_blocking(move || self.store.close()).await;
    }
}

impl StorePlace {
    async fn open(self, id: StoreId, advertised: Option<SocketAddr>) -> Result<Opened, StartError> {
        match self {
            Self::Memory => {
                Ok(Opened { store: Arc::new(MemoryStore::new(id)), file: None, company: Company::default() })
            }
            Self::File(dir) => {
                let place = dir.clone();
                let opened = tokio::task::spawn_blocking(move || FileStore::open(&place, id)).await;
                let store = opened.map_err(|error| StoreError { reason: error.to_string() })??;
                // A registry serves without its socket; its path can be too long for one.
                let control = Control::listen(&dir, store.clone()).inspect_err(|error| {
                    tracing::warn!(dir = %dir.display(), %error, "no backups can be had while this registry runs");
                });
                let file = OnFile { store: store.clone(), control: control.ok() };
                Ok(Opened { store: Arc::new(store), file: Some(file), company: Company::default() })
            }
            Self::Etcd(etcd) => {
                let address = advertised.ok_or(StartError::Unreachable)?;
                let store = EtcdStore::open(&etcd).await?;
                let node = NodeId::new(mesh_runtime::entropy::uuid_v4());
                let cluster = EtcdCluster::join(&store, Member { node, address }).await?;
                let peers = Arc::new(PeerChannels::new(store.id()));
                let company = Company { cluster: Arc::new(cluster), peers };
                Ok(Opened { store: Arc::new(store), file: None, company })
            }
        }
    }
}

/// Why a registry does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its store was opened and cannot be read.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// It would share a store with registries that cannot reach it.
    #[error("a registry on etcd needs an address where the others reach it")]
    Unreachable,
}

impl Settings {
    /// Defaults with randomness and a clock of the process's own, in memory.
    #[must_use]
    pub fn of_process() -> Self {
        let id = mesh_runtime::entropy::uuid_v4().simple().to_string();
        let store_id = StoreId::parse(&id).expect("32 hexadecimal digits are a store id");
        let (engine, quotas) = (EngineSettings::of_process(), Quotas::default());
        Self { engine, quotas, store: StorePlace::Memory, store_id, advertised: None }
    }

    /// Defaults for a simulation, in memory: everything that happens follows from the seed and from what is asked.
    #[must_use]
    pub fn seeded(seed: u64, started_at: SystemTime) -> Self {
        let store_id = StoreId::parse(&format!("sim-{seed:016x}")).expect("hexadecimal digits are a store id");
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let (engine, quotas) = (EngineSettings::seeded(bytes, started_at), Quotas::default());
        Self { engine, quotas, store: StorePlace::Memory, store_id, advertised: None }
    }
}

/// A running registry: its engine, its watchers and its doors.
#[derive(Debug)]
pub struct Registry {
    engine: Engine,
    task: EngineTask,
    cluster: Arc<dyn Cluster>,
    file: Option<OnFile>,
    hub: Arc<Hub>,
    front: Arc<Front>,
    leaving: CancellationToken,
    ends: CancellationToken,
    engine_metrics: Metrics,
}

impl Registry {
    /// Starts a registry. Must be called inside a tokio runtime.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let Opened { store, file, company } = settings.store.open(settings.store_id, settings.advertised).await?;
        let engine_metrics = Metrics::default();
        let cluster = company.cluster.clone();
        let started = Engine::start_in(company, settings.engine, store, engine_metrics.clone()).await;
        let (engine, task) = match started {
            Ok(started) => started,
            Err(error) => {
                cluster.leave().await;
                return Err(error.into());
            }
        };
        let (leaving, ends) = (CancellationToken::new(), CancellationToken::new());
        let hub = Hub::new(engine.clone(), &settings.quotas, ends.clone());
        let front =
            Arc::new(Front::new(engine.clone(), Arc::clone(&hub), &settings.quotas, leaving.clone(), ends.clone()));
        Ok(Self { engine, task, cluster, file, hub, front, leaving, ends, engine_metrics })
    }

    /// Its gRPC services, with their limits.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let routes = Routes::new(Arc::clone(&self.front).into_service());
        if self.cluster.node().is_none() {
            return routes;
        }
        routes.add_service(PeerFront::new(self.engine.clone(), self.ends.clone()).into_service())
    }

    /// The names of its gRPC services.
    #[must_use]
    pub fn service_names(&self) -> Vec<&'static str> {
        let shared = self.cluster.node().is_some();
        let peers = shared.then_some("mesh.registry.v1.RegistryPeerService");
        ["mesh.registry.v1.RegistryService"].into_iter().chain(peers).collect()
    }

    /// Its page for the HTTP port: what is registered, as text.
    pub fn page(&self) -> Router {
        front::page(self.engine.clone())
    }

    /// Its metric families.
    #[must_use]
    pub fn metrics(&self) -> prometheus_client::registry::Registry {
        let mut registry = prometheus_client::registry::Registry::default();
        self.engine_metrics.register(&mut registry);
        self.front.metrics().register(&mut registry);
        self.hub.metrics().register(&mut registry);
        registry
    }

    /// Says that the registry is on its way out when it is cancelled: it still answers, and a heartbeat stream that ends
    /// from then on ends because it was asked to go elsewhere, so that no instance is suspected for it.
    #[must_use]
    pub fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Ends all watch and heartbeat streams when it is cancelled, as the registry's own act: no instance is suspected
    /// for it.
    #[must_use]
    pub fn ends_watches(&self) -> CancellationToken {
        self.ends.clone()
    }

    /// Resolves when the engine has ended although nobody ended it. Nothing is renewed, published or removed any more, so
    /// whoever serves this registry has to end too: the next start is of use, this one is not.
    pub async fn failed(&self) {
        self.task.ended().await;
    }

    /// As if the engine had a bug.
    #[cfg(test)]
    pub(crate) fn kill_engine(&self) {
        self.task.kill();
    }

    /// Ends every stream, then the engine, then this node's membership: what it owned is taken over at once.
    pub async fn shutdown(self) {
        self.leaving.cancel();
        self.ends.cancel();
        self.hub.ended().await;
        self.task.stop().await;
        self.cluster.leave().await;
        if let Some(file) = self.file {
            file.close().await;
        }
    }
}
