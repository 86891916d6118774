//! The way in: one [`Mesh`] per process, channels and registrars from it.

mod address;
mod builder;
mod faults;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use http::uri::Authority;
use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;

use address::RegistryAddress;
use builder::Policies;
pub use builder::{ConfigError, MeshBuilder, PolicyScope};
pub use faults::PolicyFault;

use crate::Address;
use crate::channel::MeshChannel;
use crate::conn::Connector;
use crate::entropy::Entropy;
use crate::explain::Explanation;
use crate::grpc::registry_client;
use crate::metrics::MeshMetrics;
use crate::policy::Policy;
use crate::registrar::{InstanceSpec, Registrar};
use crate::registries::{Door, Round, Stores};
use crate::resolver::{
    HostPort, MethodLevels, Resolution, ResolutionStatus, Resolutions, SERVICES_MAX, StateFolder, WatchStatus, Watcher,
    constant, follow,
};
use crate::target::{Outage, Target, TargetConfig};

/// What logs and errors call the registry.
const REGISTRY: &str = "registry";
/// Longest pause between two attempts to connect to the registry: half the least TTL that it grants (DESIGN §4), so that
/// no lease runs out while its registry is back.
const REGISTRY_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long a registry has to be connected where there is another one to go to. Whoever refuses is left at once; this is
/// for one that says nothing.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(1);

/// Services that are called at the same time: as many as one process follows.
const TARGETS_MAX: usize = SERVICES_MAX;

/// The services of one namespace, as one registry knows them. Cheap to clone; clones share everything.
///
/// Neither making it nor taking channels from it waits for anything: a registry that is down is tried again for ever, and
/// calls wait for it as long as their deadline and the channel's failfast time allow. Channels and registrars are made
/// inside a tokio runtime, and outlive the `Mesh` that they come from.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

struct Inner {
    namespace: Arc<str>,
    registries: Vec<RegistryAddress>,
    statics: BTreeMap<String, Static>,
    methods: Arc<MethodLevels>,
    connector: Arc<dyn Connector>,
    policies: Policies,
    /// Where this process runs; empty is unknown.
    zone: Arc<str>,
    /// Where what is known outlives the process.
    state: Option<Arc<StateFolder>>,
    entropy: Entropy,
    /// Whose store the registries show.
    stores: Arc<Stores>,
    /// Started with the first service that is followed.
    watcher: OnceLock<Watcher>,
    /// Targets in use, at most [`TARGETS_MAX`]; an entry whose last channel is gone is dropped when the next one is made.
    targets: Mutex<HashMap<String, Weak<Target>>>,
    /// The target of [`Mesh::registry`].
    tools: Mutex<Weak<Target>>,
}

/// Where a service is that no registry is asked for.
#[derive(Clone, Debug)]
enum Static {
    /// Here.
    Addresses(Vec<Address>),
    /// Where these names lead.
    Hosts(Vec<HostPort>),
}

impl Mesh {
    /// A mesh behind the registries at these URLs, `host:port` with or without `http://`, all with one store behind them.
    pub fn new<U: AsRef<str>>(registry: impl IntoIterator<Item = U>) -> Result<Self, ConfigError> {
        Self::builder().registry(registry).build()
    }

    /// A mesh with more to say about it.
    pub fn builder() -> MeshBuilder {
        MeshBuilder::default()
    }

    /// Calls to a service by its name. Channels of one service share connections and everything learnt about them.
    ///
    /// An unusable name gives a channel whose calls fail with the reason; there is nothing to unwrap here. So does one name
    /// more than a thousand while channels of all of them are held: names then come from outside, and each would cost
    /// connections and a series of metrics.
    pub fn channel(&self, service: &str) -> MeshChannel {
        let mut targets = self.inner.targets.lock();
        if let Some(target) = targets.get(service).and_then(Weak::upgrade) {
            return MeshChannel::new(target);
        }
        targets.retain(|_, target| target.strong_count() > 0);
        if targets.len() >= TARGETS_MAX {
            tracing::warn!(service, TARGETS_MAX, "too many services are called; one more is refused");
            let refused = refused("too many services are called by this process");
            return MeshChannel::new(Target::spawn(self.target_config(service), refused));
        }
        let target = Target::spawn(self.target_config(service), self.resolutions(service));
        targets.insert(service.to_owned(), Arc::downgrade(&target));
        MeshChannel::new(target)
    }

    /// What is known of a service, now and from here on, without a connection to anybody: for those who have to know who
    /// serves it rather than to call. For as long as this or a channel of the service is held, the registry is asked.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mesh = mesh_client::Mesh::builder().static_service("user-svc", ["127.0.0.1:7410".parse()?]).build()?;
    /// let known = mesh.resolutions("user-svc").borrow().clone();
    /// assert_eq!(known.endpoints.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn resolutions(&self, service: &str) -> Resolutions {
        match self.inner.statics.get(service) {
            Some(Static::Addresses(addresses)) => return constant(Resolution::fixed(addresses.iter().cloned())),
            Some(Static::Hosts(hosts)) => return follow(hosts.clone()),
            None => {}
        }
        if !is_service_name(service) {
            return refused("not a service name: labels of 1 to 63 bytes of [a-z0-9-], dotted, at most 253 bytes");
        }
        if self.inner.registries.is_empty() {
            return refused("no registry is configured and the service is not a static one");
        }
        self.watcher().follow(service).unwrap_or_else(|| {
            tracing::warn!(service, services_max = SERVICES_MAX, "too many services are followed; one more is refused");
            refused("too many services are followed by this process")
        })
    }

    /// Every endpoint of a service, and why calls go where they go: what [`MeshChannel::explain`] says of a channel. Of a
    /// service that nobody in this process holds a channel to, nothing is known yet.
    pub fn explain(&self, service: &str) -> Explanation {
        self.channel(service).explain()
    }

    /// What registers this process under `spec.service`, once its [`hooks`](Registrar::hooks) are called.
    pub fn registrar(&self, spec: InstanceSpec) -> Registrar {
        let mesh = self.clone();
        let connect = Box::new(move || mesh.registries());
        Registrar::new(spec, self.inner.namespace.clone(), connect, self.inner.entropy.fork())
    }

    /// The registry itself, for tools: balanced over the URLs, on a connection apart from watches and heartbeats.
    pub fn registry(&self) -> RegistryServiceClient<MeshChannel> {
        let mut tools = self.inner.tools.lock();
        let target = tools.upgrade().unwrap_or_else(|| self.registry_target());
        *tools = Arc::downgrade(&target);
        RegistryServiceClient::new(MeshChannel::new(target))
    }

    /// The namespace of every name here.
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// How the Watch stream is doing; `None` until the first service is followed.
    pub fn watch_status(&self) -> Option<WatchStatus> {
        self.inner.watcher.get().map(Watcher::status)
    }

    /// What is measured of the calls to every service, read at each scrape.
    pub fn metrics(&self) -> MeshMetrics {
        let inner = Arc::downgrade(&self.inner);
        let targets = move || {
            let Some(inner) = inner.upgrade() else { return Vec::new() };
            inner.targets.lock().values().filter_map(Weak::upgrade).collect()
        };
        MeshMetrics::new(targets, self.inner.stores.clone())
    }

    /// Shows [`Mesh::metrics`] among the families of a registry.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mesh = mesh_client::Mesh::builder().static_service("user-svc", ["127.0.0.1:7410".parse()?]).build()?;
    /// let mut registry = prometheus_client::registry::Registry::default();
    /// mesh.register_metrics(&mut registry);
    ///
    /// let _users = mesh.channel("user-svc");
    /// let mut text = String::new();
    /// prometheus_client::encoding::text::encode(&mut text, &registry)?;
    /// assert!(text.contains("mesh_client_service_state{service=\"user-svc\""));
    /// # Ok(())
    /// # }
    /// ```
    pub fn register_metrics(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.metrics()));
    }

    fn watcher(&self) -> &Watcher {
        self.inner.watcher.get_or_init(|| {
            let inner = &self.inner;
            Watcher::spawn(self.registries(), inner.namespace.clone(), inner.state.clone(), inner.entropy.fork())
        })
    }

    /// A way round the registries with connections of its own, so that a busy watch never delays a heartbeat.
    fn registries(&self) -> Round {
        let inner = &self.inner;
        let mut doors: Vec<Door> =
            inner.registries.iter().map(|registry| self.door(registry, inner.registries.len() > 1)).collect();
        if doors.is_empty() {
            let config = self.registry_config(Authority::from_static("localhost"));
            let connect = move || MeshChannel::new(Target::spawn(config.clone(), refused("no registry is configured")));
            doors.push(Door { name: REGISTRY.into(), connect: Box::new(move || registry_client(connect())) });
        }
        Round::new(doors, inner.stores.clone(), &inner.entropy)
    }

    /// One registry; where it is one of `several`, its outage is told at once.
    fn door(&self, registry: &RegistryAddress, several: bool) -> Door {
        let mut config = self.registry_config(registry.authority.clone());
        if several {
            config.outage = Outage::Told;
            config.policy.failfast = config.policy.failfast.min(REGISTRY_PATIENCE);
        }
        let hosts = vec![registry.host.clone()];
        let connect = move || {
            let config = TargetConfig { entropy: config.entropy.fork(), ..config.clone() };
            MeshChannel::new(Target::spawn(config, follow(hosts.clone())))
        };
        Door { name: registry.authority.as_str().into(), connect: Box::new(move || registry_client(connect())) }
    }

    fn registry_target(&self) -> Arc<Target> {
        let authority = self.inner.registries.first().map(|registry| registry.authority.clone());
        let config = self.registry_config(authority.unwrap_or_else(|| Authority::from_static("localhost")));
        let hosts: Vec<_> = self.inner.registries.iter().map(|registry| registry.host.clone()).collect();
        if hosts.is_empty() {
            return Target::spawn(config, refused("no registry is configured"));
        }
        Target::spawn(config, follow(hosts))
    }

    fn registry_config(&self, authority: Authority) -> TargetConfig {
        let config = self.config(REGISTRY, authority, self.inner.policies.of_registry());
        TargetConfig { backoff_max: REGISTRY_BACKOFF_MAX, ..config }
    }

    fn target_config(&self, service: &str) -> TargetConfig {
        // A name that is no authority is refused before anything is sent under it.
        let authority = service.parse().unwrap_or_else(|_| Authority::from_static("invalid"));
        self.config(service, authority, self.inner.policies.of(service))
    }

    fn config(&self, service: &str, authority: Authority, policy: &Policy) -> TargetConfig {
        TargetConfig {
            connector: self.inner.connector.clone(),
            methods: self.inner.methods.clone(),
            policy: policy.clone(),
            zone: self.inner.zone.clone(),
            ..TargetConfig::new(service, authority, self.inner.entropy.fork())
        }
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("namespace", &self.inner.namespace)
            .field("registries", &self.inner.registries)
            .finish_non_exhaustive()
    }
}

fn refused(reason: &str) -> Resolutions {
    constant(Resolution { endpoints: Vec::new(), status: ResolutionStatus::Refused(reason.into()) })
}

/// Labels of 1 to 63 bytes of [a-z0-9-], dotted, 253 bytes in all: what the registry takes.
fn is_service_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Opens connections of its own to the registries, once they are needed.
pub(crate) type Connect = Box<dyn Fn() -> Round + Send + Sync>;

#[cfg(test)]
mod tests;
