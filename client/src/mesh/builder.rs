//! What can be said about a mesh before it is used.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::address::RegistryAddress;
use super::faults::{PolicyFault, faults_of};
use super::{Inner, Mesh, Static};
use crate::Address;
use crate::conn::{Connector, SocketConnector};
use crate::entropy::Entropy;
use crate::policy::Policy;
use crate::resolver::{DescriptorError, HostPort, MethodLevels, StateDirError, StateFolder};

/// Registries in one list; they are nodes in front of one store, and more than this many is a mistake in a script.
const REGISTRIES_MAX: usize = 16;

/// Hosts of one service: they are looked up one after the other.
const HOSTS_MAX: usize = 64;

/// Why a mesh cannot be made. All of it is in the configuration; a registry that is down is no error.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A registry URL cannot be used.
    #[error("registry URL {url:?}: {reason}")]
    RegistryUrl {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More registries than one mesh has.
    #[error("{given} registry URLs, at most {REGISTRIES_MAX} are taken")]
    TooManyRegistries {
        /// How many were given.
        given: usize,
    },
    /// A host of a service cannot be used.
    #[error("host {host:?}: {reason}")]
    Host {
        /// As it was given.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More hosts than one service has.
    #[error("{given} hosts of one service, at most {HOSTS_MAX} are taken")]
    TooManyHosts {
        /// How many were given.
        given: usize,
    },
    /// A namespace that the registry would refuse.
    #[error("namespace {0:?}: 1 to 63 bytes of [a-z0-9-] are taken")]
    Namespace(String),
    /// A zone that the registry would refuse.
    #[error("zone {0:?}: up to 63 bytes without control characters are taken")]
    Zone(String),
    /// Policies that cannot be followed, with everything that is wrong with each.
    #[error("{}", told(.0))]
    Policy(Vec<(PolicyScope, Vec<PolicyFault>)>),
    /// A state folder that cannot be used.
    #[error("state folder {}: {reason}", path.display())]
    StateDir {
        /// As it was given.
        path: PathBuf,
        /// What is wrong with it.
        reason: StateDirError,
    },
    /// The descriptors are none.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
}

/// What a [`Policy`] is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyScope {
    /// Every service without a policy of its own.
    Default,
    /// This service.
    Service(String),
}

impl fmt::Display for PolicyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default policy"),
            Self::Service(service) => write!(f, "policy of {service}"),
        }
    }
}

fn told(policies: &[(PolicyScope, Vec<PolicyFault>)]) -> String {
    let of = |(scope, faults): &(PolicyScope, Vec<PolicyFault>)| {
        let faults: Vec<_> = faults.iter().map(PolicyFault::to_string).collect();
        format!("{scope}: {}", faults.join("; "))
    };
    policies.iter().map(of).collect::<Vec<_>>().join(" | ")
}

/// Says what a [`Mesh`] is to be.
#[must_use]
pub struct MeshBuilder {
    registries: Vec<String>,
    namespace: String,
    statics: BTreeMap<String, Vec<Address>>,
    hosts: BTreeMap<String, Vec<String>>,
    descriptors: Vec<Vec<u8>>,
    connector: Arc<dyn Connector>,
    policies: BTreeMap<PolicyScope, Policy>,
    failfast: Option<Duration>,
    zone: String,
    state_dir: Option<PathBuf>,
    entropy: Option<u64>,
}

impl Default for MeshBuilder {
    fn default() -> Self {
        Self {
            registries: Vec::new(),
            namespace: "default".to_owned(),
            statics: BTreeMap::new(),
            hosts: BTreeMap::new(),
            descriptors: Vec::new(),
            connector: Arc::new(SocketConnector),
            policies: BTreeMap::new(),
            failfast: None,
            zone: String::new(),
            state_dir: None,
            entropy: None,
        }
    }
}

impl MeshBuilder {
    /// Adds registries by their URLs, `host:port` with or without `http://`.
    pub fn registry<U: AsRef<str>>(mut self, urls: impl IntoIterator<Item = U>) -> Self {
        self.registries.extend(urls.into_iter().map(|url| url.as_ref().to_owned()));
        self
    }

    /// Which namespace names are looked up and registered in; "default" without it.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Gives a service a fixed list of addresses; the registry is then not asked for it. Given again, the list is replaced.
    ///
    /// TCP and Unix sockets may stand side by side:
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mesh = mesh_client::Mesh::builder()
    ///     .static_service("user-svc", ["10.0.0.1:7410".parse()?, "[fd00::1]:7410".parse()?, "unix:/run/user.sock".parse()?])
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn static_service(mut self, service: impl Into<String>, addresses: impl IntoIterator<Item = Address>) -> Self {
        let service = service.into();
        self.hosts.remove(&service);
        self.statics.insert(service, addresses.into_iter().collect());
        self
    }

    /// Gives a service hosts by name, `host:port`; the registry is then not asked for it. Every address behind a name is an
    /// endpoint. Names are looked up by the system every 30 s, every second while one leads nowhere; a name that cannot be
    /// looked up any more keeps its last addresses. Given again, the list is replaced.
    ///
    /// ```
    /// let mesh = mesh_client::Mesh::builder().host_service("user-svc", ["users.internal:7410"]).build()?;
    /// # Ok::<_, mesh_client::ConfigError>(())
    /// ```
    pub fn host_service<H: AsRef<str>>(
        mut self,
        service: impl Into<String>,
        hosts: impl IntoIterator<Item = H>,
    ) -> Self {
        let service = service.into();
        self.statics.remove(&service);
        self.hosts.insert(service, hosts.into_iter().map(|host| host.as_ref().to_owned()).collect());
        self
    }

    /// Adds an encoded `FileDescriptorSet`, from which the idempotency of methods is taken. What is declared here goes
    /// before what service records declare.
    pub fn descriptors(mut self, encoded: &[u8]) -> Self {
        self.descriptors.push(encoded.to_owned());
        self
    }

    /// How calls to one service are balanced, repeated and bounded. Given again, it is replaced. A field outside its range is
    /// [`build`](Self::build)'s to refuse, with everything else that is wrong.
    pub fn policy(mut self, service: impl Into<String>, policy: Policy) -> Self {
        self.policies.insert(PolicyScope::Service(service.into()), policy);
        self
    }

    /// The policy of every service without one of its own; [`Policy::default`] without it.
    pub fn default_policy(mut self, policy: Policy) -> Self {
        self.policies.insert(PolicyScope::Default, policy);
        self
    }

    /// How long a call waits while no endpoint is READY, unless it says `wait_for_ready`. It goes before the default
    /// policy's [`failfast`](Policy::failfast), holds for the registry itself too, and leaves a service's own policy alone.
    pub fn failfast(mut self, failfast: Duration) -> Self {
        self.failfast = Some(failfast);
        self
    }

    /// Where this process runs, up to 63 bytes: endpoints of the same zone go before others where a policy says
    /// [`zone_first`](Policy::zone_first). Empty is unknown, as without it.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Keeps what is known of each service in this folder, so that a process that starts while the registry is away finds
    /// its services all the same: as they were when the registry was heard last, for up to a day, and until it is heard
    /// again. Off without it, and with `None`, as of a flag that was not given.
    ///
    /// The folder is made, with mode 700, by [`build`](Self::build), which refuses one that others own or write. Processes
    /// of one user and one mesh may share it.
    pub fn state_dir(mut self, path: impl Into<Option<PathBuf>>) -> Self {
        self.state_dir = path.into();
        self
    }

    /// How byte streams are opened: by the operating system's sockets without it.
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = connector;
        self
    }

    /// Draws picks, jitter and ids from a sequence that this seed repeats. For simulations: two processes with one seed
    /// would take the same ids.
    pub fn seed(mut self, seed: u64) -> Self {
        self.entropy = Some(seed);
        self
    }

    /// Makes the mesh. It waits for nobody, and needs no runtime yet.
    pub fn build(self) -> Result<Mesh, ConfigError> {
        if self.registries.len() > REGISTRIES_MAX {
            return Err(ConfigError::TooManyRegistries { given: self.registries.len() });
        }
        let registries = self.registries.iter().map(|url| RegistryAddress::parse(url)).collect::<Result<_, _>>()?;
        if !super::is_service_name(&self.namespace) || self.namespace.len() > 63 || self.namespace.contains('.') {
            return Err(ConfigError::Namespace(self.namespace));
        }
        if self.zone.len() > 63 || self.zone.contains(char::is_control) {
            return Err(ConfigError::Zone(self.zone));
        }
        let mut statics: BTreeMap<_, _> =
            self.statics.into_iter().map(|(service, addresses)| (service, Static::Addresses(addresses))).collect();
        for (service, hosts) in self.hosts {
            statics.insert(service, Static::Hosts(hosts_of(&hosts)?));
        }
        let policies = Policies::new(self.policies, self.failfast)?;
        let mut methods = MethodLevels::default();
        for encoded in &self.descriptors {
            methods.extend(MethodLevels::from_descriptor_set(encoded)?);
        }
        let state = self.state_dir.map(|path| match StateFolder::open(&path) {
            Ok(folder) => Ok(Arc::new(folder)),
            Err(reason) => Err(ConfigError::StateDir { path, reason }),
        });
        let inner = Inner {
            namespace: self.namespace.into(),
            registries,
            statics,
            methods: Arc::new(methods),
            connector: self.connector,
            policies,
            zone: self.zone.into(),
            state: state.transpose()?,
            entropy: self.entropy.map_or_else(Entropy::from_os, Entropy::seeded),
            stores: Arc::default(),
            watcher: OnceLock::new(),
            targets: parking_lot::Mutex::default(),
            tools: parking_lot::Mutex::default(),
        };
        Ok(Mesh { inner: Arc::new(inner) })
    }
}

fn hosts_of(given: &[String]) -> Result<Vec<HostPort>, ConfigError> {
    if given.len() > HOSTS_MAX {
        return Err(ConfigError::TooManyHosts { given: given.len() });
    }
    let host = |given: &String| match RegistryAddress::parse(given) {
        Ok(address) => Ok(address.host),
        Err(ConfigError::RegistryUrl { url, reason }) => Err(ConfigError::Host { host: url, reason }),
        Err(other) => Err(other),
    };
    given.iter().map(host).collect()
}

/// The policies of a mesh, all of them sound.
#[derive(Debug)]
pub(super) struct Policies {
    own: BTreeMap<String, Policy>,
    others: Policy,
    /// Of calls to the registry itself: nobody balances or bounds those by accident.
    registry: Policy,
}

impl Policies {
    fn new(given: BTreeMap<PolicyScope, Policy>, failfast: Option<Duration>) -> Result<Self, ConfigError> {
        let failfast = |policy: Policy| Policy { failfast: failfast.unwrap_or(policy.failfast), ..policy };
        let registry = failfast(Policy::default());
        let (mut own, mut others) = (BTreeMap::new(), registry.clone());
        let mut faults = Vec::new();
        for (scope, policy) in given {
            let policy = if scope == PolicyScope::Default { failfast(policy) } else { policy };
            let wrong = faults_of(&policy);
            match scope {
                scope if !wrong.is_empty() => faults.push((scope, wrong)),
                PolicyScope::Default => others = policy,
                PolicyScope::Service(service) => drop(own.insert(service, policy)),
            }
        }
        let wrong = faults_of(&registry);
        if faults.is_empty() && !wrong.is_empty() {
            faults.push((PolicyScope::Default, wrong));
        }
        if faults.is_empty() { Ok(Self { own, others, registry }) } else { Err(ConfigError::Policy(faults)) }
    }

    pub(super) fn of(&self, service: &str) -> &Policy {
        self.own.get(service).unwrap_or(&self.others)
    }

    pub(super) fn of_registry(&self) -> &Policy {
        &self.registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_its_own_policy_or_the_default_one_and_the_registry_neither() {
        let waiting = |waiting_max| Policy { waiting_max, ..Policy::default() };
        let long = Duration::from_secs(9);
        let mesh = Mesh::builder().failfast(long).default_policy(waiting(7)).policy("user-svc", waiting(8));
        let mesh = mesh.build().unwrap();
        let policies = &mesh.inner.policies;
        assert_eq!(*policies.of("user-svc"), waiting(8));
        assert_eq!(*policies.of("order-svc"), Policy { failfast: long, ..waiting(7) });
        assert_eq!(*policies.of_registry(), Policy { failfast: long, ..Policy::default() });
    }

    #[test]
    fn every_unsound_policy_is_named_with_all_its_faults() {
        let unsound = Policy { subset_max: Some(0), in_flight_max: 0, ..Policy::default() };
        let refused = Mesh::builder().policy("user-svc", unsound.clone()).default_policy(unsound).build().unwrap_err();
        let faults = "subset_max is 0, 1 to 65535 is taken; in_flight_max is 0, at least 1 is taken";
        assert_eq!(refused.to_string(), format!("default policy: {faults} | policy of user-svc: {faults}"));
        assert!(Mesh::builder().failfast(Duration::MAX).build().is_err());
    }

    #[test]
    fn only_a_malformed_configuration_is_an_error() {
        assert!(Mesh::new(["127.0.0.1:1", "http://nowhere.invalid:7400"]).is_ok());
        assert!(Mesh::new(Vec::<String>::new()).is_ok());
        assert!(matches!(Mesh::new(["https://x"]), Err(ConfigError::RegistryUrl { .. })));
        let many = vec!["127.0.0.1:1"; REGISTRIES_MAX + 1];
        assert!(matches!(Mesh::new(many), Err(ConfigError::TooManyRegistries { given: 17 })));
        assert!(matches!(Mesh::builder().host_service("a", ["nowhere"]).build(), Err(ConfigError::Host { .. })));
        let many = vec!["a:1"; HOSTS_MAX + 1];
        assert!(matches!(Mesh::builder().host_service("a", many).build(), Err(ConfigError::TooManyHosts { .. })));
        assert!(matches!(Mesh::builder().zone("z".repeat(64)).build(), Err(ConfigError::Zone(_))));
        assert!(matches!(Mesh::builder().namespace("No").build(), Err(ConfigError::Namespace(_))));
        assert!(matches!(Mesh::builder().descriptors(&[0xff]).build(), Err(ConfigError::Descriptors(_))));
    }
}
