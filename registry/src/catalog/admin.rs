//! What operators want, kept apart from what instances say.

use super::{Instance, InstanceId, Timestamp, Version, Zone};

/// What an operator wants of an instance. Ordered by strictness: of several rules the strictest holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum AdminState {
    /// No operator has objected.
    #[default]
    Enabled,
    /// Callers finish their streams and pick it no more.
    Draining,
    /// Not to be called at all.
    Disabled,
}

/// Which instances of a service a rule means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Selector {
    /// One instance, whatever starts under its id.
    Instance(InstanceId),
    /// All in a zone.
    Zone(Zone),
    /// All of a version.
    Version(Version),
}

impl Selector {
    /// Whether the rule means this instance.
    #[must_use]
    pub fn selects(&self, instance: &Instance) -> bool {
        match self {
            Self::Instance(id) => *id == instance.id(),
            Self::Zone(zone) => *zone == instance.spec().zone,
            Self::Version(version) => *version == instance.spec().version,
        }
    }
}

/// One rule of a service; its selector is its key, so a second rule for the same selector replaces the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AdminRule {
    /// What is wanted; never [`AdminState::Enabled`], which is the absence of a rule.
    pub state: AdminState,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}
