//! Everything there is, as of one revision.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use mesh_api::etcd::etcdserverpb::{RangeRequest, RangeResponse};
use mesh_api::etcd::mvccpb::KeyValue;
use tokio::time::sleep;
use tonic::Status;

use super::Inner;
use super::fault::is_compacted;
use super::link::led_within;
use super::transaction::{number, revision};
use crate::catalog::{Position, Revision};
use crate::storage::{Completeness, Entry, Loaded, StoreError, codec};

/// How long a page may take.
const PAGE_TIME_MAX: Duration = Duration::from_secs(5);

/// About how large a page is to be, in bytes: etcd builds it in memory, and so is it read.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Records asked for at first, before their size is known, and at most.
const PAGE_FIRST: i64 = 256;
const PAGE_MAX: i64 = 8_192;

/// How often the load begins anew because the revision that it is as of was compacted on the way.
const STARTS_MAX: u32 = 3;

pub(super) async fn load(inner: &Inner) -> Result<Loaded, StoreError> {
    sleep(inner.reads.wait()).await;
    let loaded = load_once(inner).await;
    match &loaded {
        Ok(loaded) => {
            inner.reads.worked();
            inner.saw(loaded.position.revision);
        }
        Err(_) => inner.reads.failed(),
    }
    loaded
}

async fn load_once(inner: &Inner) -> Result<Loaded, StoreError> {
    for _ in 0..STARTS_MAX {
        let identity = inner.identify().await?;
        let head = inner.head().await.map_err(unreadable)?;
        match records(inner, head.as_of).await {
            Ok(entries) => {
                let revision = entries.iter().map(|entry| entry.revision).fold(head.head, Revision::max);
                let position = Position { store: identity.store, generation: identity.generation, revision };
                return Ok(Loaded { position, completeness: Completeness::Whole, entries });
            }
            Err(status) if is_compacted(&status) => tracing::warn!("etcd compacted what was being read: once more"),
            Err(status) => return Err(unreadable(status)),
        }
    }
    Err(StoreError { reason: format!("etcd compacts faster than it is read: {STARTS_MAX} attempts failed") })
}

pub(super) fn unreadable(status: Status) -> StoreError {
    StoreError { reason: format!("etcd: {}", status.message()) }
}

/// All records as of a revision, page by page.
async fn records(inner: &Inner, as_of: Revision) -> Result<Vec<Entry>, Status> {
    let (mut key, range_end) = inner.layout.records();
    let mut limit = PAGE_FIRST;
    let mut entries = Vec::new();
    loop {
        let revision = number(as_of.get());
        let request = RangeRequest { key, range_end: range_end.clone(), limit, revision, ..RangeRequest::default() };
        let RangeResponse { kvs, more, .. } =
            inner.link.kv().range(led_within(PAGE_TIME_MAX, request)).await?.into_inner();
        let bytes: usize = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        let next = kvs.last().map(|last| after(&last.key));
        entries.extend(kvs.iter().filter_map(|kv| entry(inner, kv)));
        key = match next {
            Some(next) if more => next,
            _ => break,
        };
        limit = page(kvs.len(), bytes);
    }
    // etcd's order is that of bytes; the catalog's is that of its types.
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(entries)
}

/// How many records to ask for, going by the size of those that came.
fn page(records: usize, bytes: usize) -> i64 {
    let each = (bytes / records.max(1)).max(1);
    i64::try_from(PAGE_BYTES / each).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX)
}

/// The first key after this one.
fn after(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// A record as it is stored. One that is not understood, as a newer registry may write it, is left out: the others have to
/// be served. A registry that starts does not know its instance, and one that has to read everything again loses it.
fn entry(inner: &Inner, kv: &KeyValue) -> Option<Entry> {
    let key = inner.layout.record_key(&kv.key)?;
    let entry = key.and_then(|key| codec::decode_value(&kv.value)?.at(key));
    match entry {
        Ok(entry) => Some(Entry { revision: revision(kv.mod_revision), ..entry }),
        Err(error) => {
            let key = String::from_utf8_lossy(&kv.key);
            tracing::error!(%key, %error, "a record is not understood: it is left out");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_about_as_large_as_they_should_be() {
        assert_eq!(page(256, 256 * 1_024), 4_096);
        assert_eq!(page(256, 256 * 100), PAGE_MAX);
        assert_eq!(page(1, 50 * 1024 * 1024), 1);
        assert_eq!(page(0, 0), PAGE_MAX);
        assert_eq!(after(b"a"), Bytes::from_static(b"a\0"));
    }
}
