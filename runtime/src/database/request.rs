//! The parts of a request that every service checks alike. A check gives a valid value or a [`Fault`]; [`Violations`]
//! gathers the faults, so that a caller hears of all of them at once.

use std::fmt;

use prost_types::FieldMask;
use tonic_types::FieldViolation;
use uuid::Uuid;

use super::error::ResourceError;

/// What is wrong with one value, for the caller to read: lower case, no full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

impl From<&str> for Fault {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The faults of one request, by field. Bounded by the number of checks made, which is bounded by the limits on lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<(String, Fault)>);

impl Violations {
    /// Takes the value out of a check, or notes its fault under the field's name and gives `None`.
    pub fn check<T, E: Into<Fault>>(&mut self, field: impl Into<String>, checked: Result<T, E>) -> Option<T> {
        checked.map_err(|fault| self.add(field, fault)).ok()
    }

    /// The outcome of a check that is the only one of its request.
    pub fn only<T, E: Into<Fault>>(field: impl Into<String>, checked: Result<T, E>) -> Result<T, Self> {
        checked.map_err(|fault| Self(vec![(field.into(), fault.into())]))
    }

    /// Notes a fault.
    pub fn add(&mut self, field: impl Into<String>, fault: impl Into<Fault>) {
        self.0.push((field.into(), fault.into()));
    }

    /// Whether every check has passed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The field paths at fault, in the order of the checks.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(field, _)| field.as_str())
    }

    pub(super) fn into_field_violations(self) -> Vec<FieldViolation> {
        self.0.into_iter().map(|(field, fault)| FieldViolation::new(field, fault.0)).collect()
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, fault)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{field}: {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// Names one request of one caller: the same id is the same request, however often it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// 16 characters hold enough chance for callers not to meet; 64 hold a UUID with a prefix.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        match text.len() {
            0 => Err("is required".into()),
            16..=64 if text.bytes().all(is_token_byte) => Ok(Self(text.to_owned())),
            16..=64 => Err("may hold only A-Z a-z 0-9 _ . : -".into()),
            length => Err(Fault(format!("must have 16 to 64 characters, not {length}"))),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a byte may stand in a request id, a sku and the like.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-')
}

/// An etag as a caller gives it. Opaque: one that we never issued is a mismatch like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// Anything from 1 to 64 bytes.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        match text.len() {
            0 => Err("is required; read the resource first".into()),
            1..=64 => Ok(Self(text.to_owned())),
            _ => Err("must have at most 64 bytes".into()),
        }
    }

    /// The etag of the state with this version: versions count from 1 with every change of one resource.
    pub fn of_version(version: i64) -> Self {
        Self(format!("{version:x}"))
    }

    /// Fails unless this is the etag of the resource as it is.
    pub fn require(&self, kind: &'static str, current: &Self) -> Result<(), ResourceError> {
        if self == current { Ok(()) } else { Err(ResourceError::EtagMismatch { kind, current: current.0.clone() }) }
    }

    /// The etag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which fields a change is about: those that its mask names or, without a mask, those that are present.
#[derive(Debug)]
pub struct Mask(Vec<String>);

impl Mask {
    /// Takes a mask whose paths are all among the fields that may change.
    pub fn parse(mask: Option<FieldMask>, fields: &[&str]) -> Result<Self, Fault> {
        let paths = mask.unwrap_or_default().paths;
        match paths.iter().find(|path| !fields.contains(&path.as_str())) {
            Some(_) => Err(Fault(format!("may name only {}", fields.join(", ")))),
            None => Ok(Self(paths)),
        }
    }

    /// Whether the change is about this field.
    pub fn names(&self, field: &str, is_present: bool) -> bool {
        if self.0.is_empty() { is_present } else { self.0.iter().any(|path| path == field) }
    }
}

/// A UUID in any of its text forms.
pub fn id(text: &str) -> Result<Uuid, Fault> {
    if text.is_empty() {
        return Err("is required".into());
    }
    Uuid::try_parse(text).map_err(|_| "must be a UUID".into())
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::{Etag, Mask, RequestId, Violations, id};

    #[test]
    fn a_request_id_has_16_to_64_plain_characters() {
        assert!(RequestId::parse("0123456789abcdef").is_ok());
        assert!(RequestId::parse(&"x".repeat(64)).is_ok());
        for refused in ["", "0123456789abcde", "0123456789abcde ", "0123456789abcdé", &"x".repeat(65)] {
            assert!(RequestId::parse(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn etags_differ_by_version() {
        assert_ne!(Etag::of_version(1), Etag::of_version(2));
        assert_eq!(Etag::parse(Etag::of_version(255).as_str()), Ok(Etag::of_version(255)));
        assert!(Etag::parse("").is_err());
        assert!(Etag::parse(&"x".repeat(65)).is_err());
    }

    #[test]
    fn a_mask_chooses_fields_and_its_absence_those_that_are_present() {
        let mask = |paths: &[&str]| {
            let paths = paths.iter().map(|path| path.to_string()).collect();
            Mask::parse(Some(FieldMask { paths }), &["a", "b"])
        };
        let chosen = mask(&["a"]).unwrap();
        assert!(chosen.names("a", false) && !chosen.names("b", true));
        for absent in [mask(&[]).unwrap(), Mask::parse(None, &["a"]).unwrap()] {
            assert!(absent.names("a", true) && !absent.names("a", false));
        }
        assert!(mask(&["a", "c"]).is_err());
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let mut violations = Violations::default();
        assert_eq!(violations.check("user_id", id("")), None);
        assert_eq!(violations.check("order_id", id("nonsense")), None);
        assert!(violations.check("other", id("0199a7d0-0000-7000-8000-000000000000")).is_some());
        assert_eq!(violations.to_string(), "user_id: is required; order_id: must be a UUID");
    }
}
