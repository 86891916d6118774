//! The first contact: is it an etcd, is it one to work with, and which store is in it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mesh_api::etcd::etcdserverpb::{RangeRequest, StatusRequest, StatusResponse, TxnRequest};
use mesh_runtime::{clock, entropy};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout_at};
use tonic::{Code, Status};

use super::backoff::Backoff;
use super::identity::Identity;
use super::layout::Layout;
use super::link::{Link, led_within};
use super::recent::Recent;
use super::transaction::{put, revision, unchanged};
use super::version::EtcdVersion;
use super::{EtcdAddress, EtcdStore, Inner, READS_PAUSE_MAX, load::unreadable};
use crate::catalog::{Generation, Revision, StoreId};
use crate::storage::StoreError;

/// How long etcd may take to be there when a registry starts: longer than an election, shorter than an operator's patience.
const START_MAX: Duration = Duration::from_secs(10);

/// How long one question may take.
const ASK_MAX: Duration = Duration::from_secs(2);

impl EtcdStore {
    /// Finds the store in etcd, or makes it. Fails, after at most ten seconds, where no member answers or what answers is
    /// not an etcd to work with. Must be called inside a tokio runtime.
    pub async fn open(address: &EtcdAddress) -> Result<Self, StoreError> {
        let until = clock::now() + START_MAX;
        greet(&address.members, until).await?;

        let link = Link::new(&address.members).map_err(|error| StoreError { reason: error.to_string() })?;
        let nobody = Identity { store: fresh_id(), generation: Generation(0), cluster: 0 };
        let inner = Inner {
            link,
            layout: Layout::new(&address.prefix),
            identity: Mutex::new(nobody),
            seen: AtomicU64::new(0),
            recent: Mutex::new(Recent::default()),
            reads: Backoff::new(READS_PAUSE_MAX),
        };
        let mut last = None;
        let identified = async {
            loop {
                match inner.identify().await {
                    Ok(identity) => return identity,
                    Err(error) => last = Some(error),
                }
                inner.reads.failed();
                sleep(inner.reads.wait()).await;
            }
        };
        let Ok(identity) = timeout_at(until, identified).await else {
            let reason = last.map_or_else(|| "no answer".to_owned(), |error: StoreError| error.reason);
            let members = address.members.join(",");
            return Err(StoreError {
                reason: format!("etcd at {members} has no leader or does not take a write: {reason}"),
            });
        };
        inner.reads.worked();
        tracing::info!(store = %identity.store, generation = identity.generation.0, "the store in etcd is open");
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Waits for the first member that is an etcd to work with, and warns of those that are not sound.
async fn greet(members: &[String], until: tokio::time::Instant) -> Result<(), StoreError> {
    let mut faults = BTreeSet::new();
    let mut versions = BTreeSet::new();
    let pauses = Backoff::new(READS_PAUSE_MAX);
    while versions.is_empty() {
        let asked = join_all(members.iter().map(|member| version_of(member, until)));
        faults.clear();
        for answer in asked.await {
            match answer {
                Ok(version) => _ = versions.insert(version),
                Err(Refusal::Useless(reason)) => return Err(StoreError { reason }),
                Err(Refusal::Silent(reason)) => _ = faults.insert(reason),
            }
        }
        pauses.failed();
        let pause = pauses.wait();
        if versions.is_empty() && clock::now() + pause >= until {
            let reasons = faults.into_iter().collect::<Vec<_>>().join("; ");
            return Err(StoreError { reason: format!("no etcd answers within {START_MAX:?}: {reasons}") });
        }
        if versions.is_empty() {
            sleep(pause).await;
        }
    }
    for fault in faults {
        tracing::warn!(fault, "an etcd member does not answer");
    }
    for warning in versions.into_iter().filter_map(EtcdVersion::warning) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

enum Refusal {
    /// It cannot be worked with: waiting does not help.
    Useless(String),
    /// It may be there later.
    Silent(String),
}

async fn version_of(member: &String, until: tokio::time::Instant) -> Result<EtcdVersion, Refusal> {
    let silent = |reason: &str| Refusal::Silent(format!("{member}: {reason}"));
    let link = Link::new(std::slice::from_ref(member)).map_err(|error| silent(&error.to_string()))?;
    let time = until.saturating_duration_since(clock::now()).min(ASK_MAX);
    let mut request = tonic::Request::new(StatusRequest {});
    request.set_timeout(time);
    let answer = timeout_at(clock::now() + time, async { link.maintenance().status(request).await }).await;
    match answer {
        Ok(Ok(answer)) => judge(member, &answer.into_inner()).map_err(Refusal::Useless),
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            Err(Refusal::Useless(format!("{member} is no etcd: it does not know etcdserverpb.Maintenance")))
        }
        Ok(Err(status)) => Err(silent(status.message())),
        Err(_) => Err(silent("no answer")),
    }
}

fn judge(member: &str, status: &StatusResponse) -> Result<EtcdVersion, String> {
    let text = &status.version;
    let Some(version) = EtcdVersion::parse(text) else {
        return Err(format!("{member} is no etcd: it says that its version is {text:?}"));
    };
    if version.is_usable() {
        Ok(version)
    } else {
        Err(format!("{member} is etcd {version}: 3.4 or a later 3.x is needed"))
    }
}

fn fresh_id() -> StoreId {
    let id = entropy::uuid_v4().simple().to_string();
    StoreId::parse(&id).expect("32 hexadecimal digits are a store id")
}

impl Inner {
    /// Which store this is: made if there is none, of a new generation if etcd was restored from a backup, which shows in
    /// revisions that were there and are not, or in another cluster.
    pub(super) async fn identify(&self) -> Result<Identity, StoreError> {
        // Whoever changes it first, the next look finds it as it should be.
        for _ in 0..3 {
            let key = self.layout.store();
            let request = RangeRequest { key: key.clone(), ..RangeRequest::default() };
            let answer = self.link.kv().range(led_within(ASK_MAX, request)).await.map_err(unreadable)?.into_inner();
            let header = answer.header.unwrap_or_default();
            let found = answer.kvs.first();
            let identity = match found {
                None => Identity { store: fresh_id(), generation: Generation(1), cluster: header.cluster_id },
                Some(found) => {
                    let found =
                        Identity::parse(&found.value).map_err(|error| StoreError { reason: error.to_string() })?;
                    let gone_back = revision(header.revision) < self.seen() && *self.identity.lock() == found;
                    if found.cluster == header.cluster_id && !gone_back {
                        self.is_now(&found);
                        return Ok(found);
                    }
                    found.restored(header.cluster_id)
                }
            };
            let at = found.map_or(Revision::ZERO, |found| revision(found.mod_revision));
            self.write_identity(at, &identity).await.map_err(unreadable)?;
        }
        Err(StoreError { reason: "others keep changing which store it is".to_owned() })
    }

    fn is_now(&self, found: &Identity) {
        let mut identity = self.identity.lock();
        if *identity != *found {
            // Revisions begin again, and what was known of the old ones says nothing.
            *identity = found.clone();
            self.seen.store(0, Ordering::Release);
            *self.recent.lock() = Recent::default();
        }
    }

    async fn write_identity(&self, at: Revision, identity: &Identity) -> Result<(), Status> {
        tracing::info!(%identity, "writing which store it is");
        // The head exists from the beginning, so that an empty store has a position too.
        let head = bytes::Bytes::from_static(&[0; 16]);
        let request = TxnRequest {
            compare: vec![unchanged(self.layout.store(), at)],
            success: vec![put(self.layout.store(), identity.to_string().into()), put(self.layout.head(), head)],
            failure: Vec::new(),
        };
        self.link.kv().txn(led_within(ASK_MAX, request)).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(version: &str) -> Result<EtcdVersion, String> {
        judge("127.0.0.1:2379", &StatusResponse { version: version.to_owned(), ..StatusResponse::default() })
    }

    #[test]
    fn what_cannot_be_worked_with_is_said_so() {
        assert!(says("3.4.23").is_ok());
        assert_eq!(says("3.3.27").unwrap_err(), "127.0.0.1:2379 is etcd 3.3.27: 3.4 or a later 3.x is needed");
        assert_eq!(says("").unwrap_err(), "127.0.0.1:2379 is no etcd: it says that its version is \"\"");
    }
}
