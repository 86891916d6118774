//! Which methods may be sent twice.

use std::collections::{HashMap, HashSet};

use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::method_options::IdempotencyLevel;

/// Whether a call may be repeated when it may already have been processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// Not declared: never repeated once it may have been processed.
    #[default]
    Unknown,
    /// Reads only.
    NoSideEffects,
    /// Writes, but twice is as good as once.
    Idempotent,
}

impl Idempotency {
    /// Whether a call that may have been processed may be sent again.
    pub fn repeatable(self) -> bool {
        match self {
            Self::Unknown => false,
            Self::NoSideEffects | Self::Idempotent => true,
        }
    }
}

/// The descriptor set handed in is not one.
#[derive(Debug, thiserror::Error)]
#[error("not a protobuf descriptor set: {0}")]
pub struct DescriptorError(#[from] prost::DecodeError);

/// The declared idempotency of methods by their path, e.g. "/shop.user.v1.UserService/GetUser".
///
/// Only declared methods are held; every other path is [`Idempotency::Unknown`]. A descriptor set also tells which methods
/// stream, which a service's record in the registry does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MethodLevels {
    levels: HashMap<Box<str>, Idempotency>,
    streaming: HashSet<Box<str>>,
}

impl MethodLevels {
    /// Reads the `idempotency_level` of every method in an encoded `FileDescriptorSet`.
    pub fn from_descriptor_set(encoded: &[u8]) -> Result<Self, DescriptorError> {
        let set = FileDescriptorSet::decode(encoded)?;
        let mut levels = Self::default();
        for (service, method) in methods_of(&set) {
            levels.declare(&service, method.name(), level_of(method));
            if method.client_streaming() || method.server_streaming() {
                levels.declare_streaming(&service, method.name());
            }
        }
        Ok(levels)
    }

    /// What is declared for the method at `path`, which starts with a slash.
    pub fn level(&self, path: &str) -> Idempotency {
        self.levels.get(path).copied().unwrap_or_default()
    }

    /// Whether nothing is declared.
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Whether the method at `path` is known to take or to answer more than one message.
    pub(crate) fn is_streaming(&self, path: &str) -> bool {
        self.streaming.contains(path)
    }

    /// Every declared method by its path, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Idempotency)> {
        self.levels.iter().map(|(path, level)| (&**path, *level))
    }

    /// Adds what another set declares; where both declare a method, the other one holds.
    pub(crate) fn extend(&mut self, other: Self) {
        self.levels.extend(other.levels);
        self.streaming.extend(other.streaming);
    }

    /// Notes the level of one method; [`Idempotency::Unknown`] is what is not held anyway.
    pub(crate) fn declare(&mut self, service: &str, method: &str, level: Idempotency) {
        if level != Idempotency::Unknown {
            self.levels.insert(path(service, method), level);
        }
    }

    /// Notes that a method takes or answers more than one message.
    pub(crate) fn declare_streaming(&mut self, service: &str, method: &str) {
        self.streaming.insert(path(service, method));
    }
}

impl FromIterator<(String, Idempotency)> for MethodLevels {
    fn from_iter<I: IntoIterator<Item = (String, Idempotency)>>(levels: I) -> Self {
        let declared = levels.into_iter().filter(|(_, level)| *level != Idempotency::Unknown);
        let levels = declared.map(|(path, level)| (path.into_boxed_str(), level)).collect();
        Self { levels, streaming: HashSet::new() }
    }
}

fn path(service: &str, method: &str) -> Box<str> {
    format!("/{service}/{method}").into_boxed_str()
}

/// Every method of a set, beside the full name of its service.
pub(crate) fn methods_of(
    set: &FileDescriptorSet,
) -> impl Iterator<Item = (String, &prost_types::MethodDescriptorProto)> {
    set.file.iter().flat_map(|file| {
        file.service.iter().flat_map(move |service| {
            let name = match file.package() {
                "" => service.name().to_owned(),
                package => format!("{package}.{}", service.name()),
            };
            service.method.iter().map(move |method| (name.clone(), method))
        })
    })
}

/// The declared level of one method.
pub(crate) fn level_of(method: &prost_types::MethodDescriptorProto) -> Idempotency {
    match method.options.as_ref().map(|options| options.idempotency_level()) {
        None | Some(IdempotencyLevel::IdempotencyUnknown) => Idempotency::Unknown,
        Some(IdempotencyLevel::NoSideEffects) => Idempotency::NoSideEffects,
        Some(IdempotencyLevel::Idempotent) => Idempotency::Idempotent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_from_the_descriptor_set() {
        let levels = MethodLevels::from_descriptor_set(mesh_api::FILE_DESCRIPTOR_SET).unwrap();
        let level = |method: &str| levels.level(&format!("/mesh.registry.v1.RegistryService/{method}"));
        assert_eq!(level("Resolve"), Idempotency::NoSideEffects);
        assert_eq!(level("Register"), Idempotency::Idempotent);
        assert_eq!(level("NoSuchMethod"), Idempotency::Unknown);
        let streams = |method: &str| levels.is_streaming(&format!("/mesh.registry.v1.RegistryService/{method}"));
        assert_eq!(["Resolve", "KeepAlive", "Watch"].map(streams), [false, true, true]);
    }

    #[test]
    fn bytes_that_are_no_descriptor_set_are_refused() {
        assert!(MethodLevels::from_descriptor_set(&[0xff, 0xff]).is_err());
    }
}
