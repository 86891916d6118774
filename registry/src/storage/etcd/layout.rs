//! Which etcd keys there are.
//!
//! | key below the prefix | value | changed by |
//! |---|---|---|
//! | `store` | which store this is, see [`Identity`](super::identity::Identity) | who finds none, and who finds that etcd was restored |
//! | `head` | the op id of the last commit: its mod revision is the position | every commit |
//! | `deleted` | the op id of the last commit that deleted records | such a commit |
//! | `r/KEY` | a record, see [`codec`] | commits |
//! | `n/NODE` | where a registry answers the others; goes with its lease | [`EtcdCluster`](crate::cluster::EtcdCluster) |

use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::{Key, NodeId};
use crate::storage::codec::{self, CodecError};

/// Where the house's keys begin, with the version of the layout.
pub(super) const PREFIX: &str = "/meshwork/v1/";

/// The keys of one store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    prefix: Arc<str>,
}

impl Layout {
    /// The keys below this prefix.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn store(&self) -> Bytes {
        self.at("store")
    }

    pub(super) fn head(&self) -> Bytes {
        self.at("head")
    }

    pub(super) fn deleted(&self) -> Bytes {
        self.at("deleted")
    }

    pub(super) fn record(&self, key: &Key) -> Bytes {
        self.at(&format!("r/{}", codec::encode_key(key)))
    }

    /// The record key that an etcd key is; `None` if it is none at all.
    pub(super) fn record_key(&self, key: &[u8]) -> Option<Result<Key, CodecError>> {
        let below = key.strip_prefix(self.prefix.as_bytes())?;
        below.strip_prefix(b"r/").map(codec::decode_key)
    }

    pub(crate) fn node(&self, node: NodeId) -> Bytes {
        self.at(&format!("n/{node}"))
    }

    /// The node that a presence key is about.
    pub(crate) fn node_of(&self, key: &[u8]) -> Option<NodeId> {
        let below = key.strip_prefix(self.prefix.as_bytes())?.strip_prefix(b"n/")?;
        Some(NodeId::new(std::str::from_utf8(below).ok()?.parse().ok()?))
    }

    /// First key of everything, and the first that is beyond.
    pub(super) fn everything(&self) -> (Bytes, Bytes) {
        range(self.prefix.as_bytes())
    }

    /// First key of all records, and the first that is beyond.
    pub(super) fn records(&self) -> (Bytes, Bytes) {
        range(&self.at("r/"))
    }

    /// First key of all nodes, and the first that is beyond.
    pub(crate) fn nodes(&self) -> (Bytes, Bytes) {
        range(&self.at("n/"))
    }

    fn at(&self, below: &str) -> Bytes {
        format!("{}{below}", self.prefix).into()
    }
}

/// Every key that begins with `prefix`, which ends in a slash: the last byte plus one is the end.
fn range(prefix: &[u8]) -> (Bytes, Bytes) {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    (Bytes::copy_from_slice(prefix), end.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::kit::service;

    #[test]
    fn keys_are_what_they_were_made_of() {
        let layout = Layout::new(PREFIX);
        let key = Key::Service(service("user-svc"));
        let stored = layout.record(&key);
        assert_eq!(stored, "/meshwork/v1/r/service/default/user-svc");
        assert_eq!(layout.record_key(&stored), Some(Ok(key)));
        assert_eq!(layout.record_key(b"/meshwork/v1/head"), None);
        assert!(matches!(layout.record_key(b"/meshwork/v1/r/nonsense"), Some(Err(_))));

        let node = NodeId::new(uuid::Uuid::from_u128(7));
        assert_eq!(layout.node_of(&layout.node(node)), Some(node));
        assert_eq!(layout.node_of(b"/meshwork/v1/n/me"), None);
        assert_eq!(layout.records(), ("/meshwork/v1/r/".into(), "/meshwork/v1/r0".into()));
    }
}
