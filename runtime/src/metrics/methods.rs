//! The methods this process serves: the allow-list of metric labels.

use std::collections::HashMap;

use prost::Message;
use prost_types::FileDescriptorSet;

use crate::error::Error;

/// Every served method by its path. What is not here is [`Methods::OTHER`], so that a caller cannot make up labels.
pub(crate) struct Methods {
    by_path: HashMap<String, usize>,
    names: Vec<String>,
}

impl Methods {
    /// Index of every method that is not served.
    pub(crate) const OTHER: usize = 0;

    /// The methods of `services`, as `descriptors` describe them.
    pub(crate) fn of(services: &[String], descriptors: &[&[u8]]) -> Result<Self, Error> {
        let mut methods = Self::none();
        let mut missing: Vec<&String> = services.iter().collect();
        for encoded in descriptors {
            let set = FileDescriptorSet::decode(*encoded)
                .map_err(|error| Error::startup(format_args!("the descriptor set cannot be read: {error}")))?;
            for file in &set.file {
                for service in &file.service {
                    let full_name = match file.package() {
                        "" => service.name().to_owned(),
                        package => format!("{package}.{}", service.name()),
                    };
                    if services.contains(&full_name) {
                        missing.retain(|name| **name != full_name);
                        service.method.iter().for_each(|method| methods.add(&full_name, method.name()));
                    }
                }
            }
        }
        match missing.first() {
            Some(name) if !descriptors.is_empty() => {
                Err(Error::startup(format_args!("no descriptor describes the service {name}")))
            }
            _ => Ok(methods),
        }
    }

    /// No method at all: everything is `other`.
    pub(crate) fn none() -> Self {
        Self { by_path: HashMap::new(), names: vec!["other".to_owned()] }
    }

    fn add(&mut self, service: &str, method: &str) {
        let name = format!("{service}/{method}");
        self.by_path.entry(format!("/{name}")).or_insert_with(|| {
            self.names.push(name);
            self.names.len() - 1
        });
    }

    /// The index of the method with this path.
    pub(crate) fn index(&self, path: &str) -> usize {
        self.by_path.get(path).copied().unwrap_or(Self::OTHER)
    }

    /// Every label, [`Methods::OTHER`] first: `package.Service/Method`.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTH: &[u8] = tonic_health::pb::FILE_DESCRIPTOR_SET;

    #[test]
    fn only_methods_of_named_services_are_labels() {
        let methods = Methods::of(&["grpc.health.v1.Health".to_owned()], &[HEALTH, HEALTH]).unwrap();
        assert_eq!(methods.names().len(), 1 + 2, "other, and Check and Watch once each: {:?}", methods.names());
        assert_eq!(methods.names()[methods.index("/grpc.health.v1.Health/Check")], "grpc.health.v1.Health/Check");
        for stranger in ["/grpc.health.v1.Health/Guess", "grpc.health.v1.Health/Check", "/", "/a/b/c"] {
            assert_eq!(methods.index(stranger), Methods::OTHER);
        }
        let unnamed = Methods::of(&[], &[HEALTH]).unwrap();
        assert_eq!(unnamed.index("/grpc.health.v1.Health/Check"), Methods::OTHER);
    }

    #[test]
    fn a_service_without_a_descriptor_is_a_fault() {
        assert!(Methods::of(&["shop.user.v1.UserService".to_owned()], &[HEALTH]).is_err());
        assert!(Methods::of(&[], &[b"not a descriptor set"]).is_err());
    }
}
