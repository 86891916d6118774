//! What can be said about a mesh before it is used.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::address::RegistryAddress;
use super::{Inner, Mesh};
use crate::Address;
use crate::conn::{Connector, SocketConnector};
use crate::entropy::Entropy;
use crate::policy::Policy;
use crate::resolver::{DescriptorError, MethodLevels};

/// Registries in one list; they are nodes in front of one store, and more than this many is a mistake in a script.
const REGISTRIES_MAX: usize = 16;

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
    /// A namespace that the registry would refuse.
    #[error("namespace {0:?}: 1 to 63 bytes of [a-z0-9-] are taken")]
    Namespace(String),
    /// The descriptors are none.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
}

/// Says what a [`Mesh`] is to be.
#[must_use]
pub struct MeshBuilder {
    registries: Vec<String>,
    namespace: String,
    statics: BTreeMap<String, Vec<Address>>,
    descriptors: Vec<Vec<u8>>,
    connector: Arc<dyn Connector>,
    failfast: Duration,
    entropy: Option<u64>,
}

impl Default for MeshBuilder {
    fn default() -> Self {
        Self {
            registries: Vec::new(),
            namespace: "default".to_owned(),
            statics: BTreeMap::new(),
            descriptors: Vec::new(),
            connector: Arc::new(SocketConnector),
            failfast: Policy::default().failfast,
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
    pub fn static_service(mut self, service: impl Into<String>, addresses: impl IntoIterator<Item = Address>) -> Self {
        self.statics.insert(service.into(), addresses.into_iter().collect());
        self
    }

    /// Adds an encoded `FileDescriptorSet`, from which the idempotency of methods is taken. What is declared here goes
    /// before what service records declare.
    pub fn descriptors(mut self, encoded: &[u8]) -> Self {
        self.descriptors.push(encoded.to_owned());
        self
    }

    /// How long a call waits while no endpoint is READY, unless it says `wait_for_ready`; 3 s without it.
    pub fn failfast(mut self, failfast: Duration) -> Self {
        self.failfast = failfast;
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

    /// Makes the mesh. It does not wait, and needs no runtime yet.
    pub fn build(self) -> Result<Mesh, ConfigError> {
        if self.registries.len() > REGISTRIES_MAX {
            return Err(ConfigError::TooManyRegistries { given: self.registries.len() });
        }
        let registries = self.registries.iter().map(|url| RegistryAddress::parse(url)).collect::<Result<_, _>>()?;
        if !super::is_service_name(&self.namespace) || self.namespace.len() > 63 || self.namespace.contains('.') {
            return Err(ConfigError::Namespace(self.namespace));
        }
        let mut methods = MethodLevels::default();
        for encoded in &self.descriptors {
            methods.extend(MethodLevels::from_descriptor_set(encoded)?);
        }
        let inner = Inner {
            namespace: self.namespace.into(),
            registries,
            statics: self.statics,
            methods: Arc::new(methods),
            connector: self.connector,
            failfast: self.failfast,
            entropy: self.entropy.map_or_else(Entropy::from_os, Entropy::seeded),
            watcher: OnceLock::new(),
            targets: parking_lot::Mutex::default(),
            tools: parking_lot::Mutex::default(),
        };
        Ok(Mesh { inner: Arc::new(inner) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_malformed_configuration_is_an_error() {
        assert!(Mesh::new(["127.0.0.1:1", "http://nowhere.invalid:7400"]).is_ok());
        assert!(Mesh::new(Vec::<String>::new()).is_ok());
        assert!(matches!(Mesh::new(["https://x"]), Err(ConfigError::RegistryUrl { .. })));
        let many = vec!["127.0.0.1:1"; REGISTRIES_MAX + 1];
        assert!(matches!(Mesh::new(many), Err(ConfigError::TooManyRegistries { given: 17 })));
        assert!(matches!(Mesh::builder().namespace("No").build(), Err(ConfigError::Namespace(_))));
        assert!(matches!(Mesh::builder().descriptors(&[0xff]).build(), Err(ConfigError::Descriptors(_))));
    }
}
