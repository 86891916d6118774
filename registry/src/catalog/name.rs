//! Names and ids. A value that exists is valid; what may stand in one is S27 of the security checklist.

use std::fmt;

use uuid::Uuid;

use super::Invalid;
use super::text::Text;

/// A label of a name: 1 to 63 bytes of `[a-z0-9-]`.
pub(super) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// A namespace: 1 to 63 bytes of `[a-z0-9-]`. Nothing in one namespace touches another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Namespace(Text);

impl Namespace {
    /// What an empty namespace on the wire means.
    pub const DEFAULT: &str = "default";

    /// Takes a namespace; empty is `default`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "" => Ok(Self(Self::DEFAULT.into())),
            _ if is_label(text) => Ok(Self(text.into())),
            _ => Err(Invalid::name("namespace", text, "1 to 63 bytes of [a-z0-9-]")),
        }
    }

    /// The name as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A logical service name such as `order-svc`: dotted labels, 253 bytes in all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceName(Text);

impl ServiceName {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 253;

    /// Takes a name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > Self::BYTES_MAX || !text.split('.').all(is_label) {
            let rule = "dotted labels of 1 to 63 bytes of [a-z0-9-], 253 bytes in all";
            return Err(Invalid::name("service", text, rule));
        }
        Ok(Self(text.into()))
    }

    /// The name as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service within its namespace. Ordered by namespace, then by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceKey {
    /// Where the name is looked up.
    pub namespace: Namespace,
    /// The name.
    pub name: ServiceName,
}

impl ServiceKey {
    /// Takes both names; an empty namespace is `default`.
    pub fn parse(namespace: &str, service: &str) -> Result<Self, Invalid> {
        Ok(Self { namespace: Namespace::parse(namespace)?, name: ServiceName::parse(service)? })
    }
}

impl ServiceKey {
    /// Whether both keys are the same memory, not just equal.
    pub(super) fn shares(&self, other: &Self) -> bool {
        self.name.0.shares(&other.name.0) && self.namespace.0.shares(&other.namespace.0)
    }

    /// Takes both names from a key that is equal.
    pub(super) fn share(&mut self, other: &Self) {
        self.namespace.0.share(&other.namespace.0);
        self.name.0.share(&other.name.0);
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The UUID of an instance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InstanceId(Uuid);

impl InstanceId {
    /// Takes any UUID but the nil one, which is what a forgotten field looks like.
    pub fn new(id: Uuid) -> Result<Self, Invalid> {
        if id.is_nil() {
            return Err(Invalid::name("instance_id", &id.to_string(), "a UUID that is not nil"));
        }
        Ok(Self(id))
    }

    /// Takes the text form of a UUID.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Uuid::try_parse(text).map_err(|_| Invalid::name("instance_id", text, "a UUID")).and_then(Self::new)
    }

    /// The UUID itself.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What an instance is known by: its id within its namespace, whatever service it says it belongs to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IdentityKey {
    /// Where the id counts.
    pub namespace: Namespace,
    /// The id.
    pub id: InstanceId,
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.id)
    }
}
