//! Keys as text. Namespaces and names hold no slash, and what may hold one stands last.

use super::CodecError;
use crate::catalog::{IdentityKey, InstanceId, Key, Namespace, Selector, ServiceKey, Version, Zone};

/// The one key of its kind.
const HISTORY: &str = "history";

/// The key as a store keeps it.
#[must_use]
pub fn encode_key(key: &Key) -> String {
    let mut text = String::new();
    encode_key_to(&mut text, key);
    text
}

/// The same at the end of a text.
pub(in crate::storage) fn encode_key_to(text: &mut String, key: &Key) {
    let mut path = |words: &[&str]| {
        for (at, word) in words.iter().enumerate() {
            text.push_str(if at == 0 { "" } else { "/" });
            text.push_str(word);
        }
    };
    let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
    match key {
        Key::Service(service) => path(&["service", service.namespace.as_str(), service.name.as_str()]),
        Key::Identity(identity) => {
            let id = &*identity.id.uuid().hyphenated().encode_lower(&mut buffer);
            path(&["identity", identity.namespace.as_str(), id]);
        }
        Key::Rule(service, selector) => {
            let (by, what) = match selector {
                Selector::Instance(id) => ("instance", &*id.uuid().hyphenated().encode_lower(&mut buffer)),
                Selector::Zone(zone) => ("zone", zone.as_str()),
                Selector::Version(version) => ("version", version.as_str()),
            };
            path(&["rule", service.namespace.as_str(), service.name.as_str(), by, what]);
        }
        Key::History => path(&[HISTORY]),
    }
}

/// The key that these bytes are. Only what [`encode_key`] writes is taken, so that no record has two keys.
pub fn decode_key(bytes: &[u8]) -> Result<Key, CodecError> {
    let text = std::str::from_utf8(bytes).ok();
    let key = text.and_then(parse).filter(|key| encode_key(key).as_bytes() == bytes);
    key.ok_or_else(|| CodecError::Key { key: String::from_utf8_lossy(bytes).chars().take(120).collect() })
}

fn parse(text: &str) -> Option<Key> {
    if text == HISTORY {
        return Some(Key::History);
    }
    let mut words = text.splitn(5, '/');
    let (kind, namespace, name) = (words.next()?, words.next()?, words.next()?);
    let selects = words.next().zip(words.next());
    match (kind, selects) {
        ("service", None) => Some(Key::Service(ServiceKey::parse(namespace, name).ok()?)),
        ("identity", None) => {
            let (namespace, id) = (Namespace::parse(namespace).ok()?, InstanceId::parse(name).ok()?);
            Some(Key::Identity(IdentityKey { namespace, id }))
        }
        ("rule", Some((by, what))) => {
            let selector = match by {
                "instance" => Selector::Instance(InstanceId::parse(what).ok()?),
                "zone" => Selector::Zone(Zone::parse(what).ok()?),
                "version" => Selector::Version(Version::parse(what).ok()?),
                _ => return None,
            };
            Some(Key::Rule(ServiceKey::parse(namespace, name).ok()?, selector))
        }
        _ => None,
    }
}
