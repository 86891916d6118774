//! Records in etcd, shared by several registry processes.
//!
//! What etcd is asked to do is little: one transaction per change, and one watch per process. Heartbeats never reach it.
//!
//! ```text
//! layout       which keys there are            identity   which store this is, and whether etcd was restored
//! transaction  PURE: a proposal as a request, and what the answer says      plan   PURE: who may go out at the same time
//! commit       sending them in bounded time    history    what became of one that nothing was heard of
//! follow       the watch as commits            watch      one watch, and whether it is alive
//! load         all of it as of one revision    recent     op ids and what became of them
//! link         the mesh client's channels      open       the first contact     version   which etcd is sound
//! ```
//!
//! # What holds
//!
//! - A proposal is made at most once, however often its request is sent: every key it writes is one whose mod revision it
//!   compares, and what has to be absent is fenced against deletions after it was first sent.
//! - A request is repeated only under that guard, and nothing is called failed that may have been made.
//! - Nothing is compacted: whoever runs etcd decides how much history it keeps (`--auto-compaction-retention`), because
//!   others may use it too. Too little costs a reload.
//! - Everything ends by itself: a commit after 2 s, a page after 5 s, a silent watch after 3 s. Waits between attempts are
//!   drawn from spans that grow to a second.

mod backoff;
mod commit;
mod fault;
mod follow;
mod history;
mod identity;
mod layout;
mod link;
mod load;
mod open;
mod plan;
mod recent;
mod transaction;
mod version;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use mesh_api::etcd::etcdserverpb::RangeRequest;
use parking_lot::Mutex;
use tonic::Status;

use super::{FollowError, Loaded, Outcome, Store, StoreError};
use crate::catalog::{Committed, OpId, Proposal, Revision, StoreId};
use identity::Identity;
use layout::PREFIX;
use recent::{Made, Recent};
use transaction::revision;

pub(crate) use backoff::Backoff;
pub(crate) use layout::Layout;
pub(crate) use link::{Link, led, led_within, members};
pub(crate) use watch::Watching;

/// How long the head may take to be read.
const HEAD_TIME_MAX: Duration = Duration::from_secs(2);

/// Longest wait before a load or a watch is tried again.
const READS_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Where etcd is, and which of its keys are ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdAddress {
    members: Vec<String>,
    prefix: String,
}

impl EtcdAddress {
    /// What stands behind `--store etcd:`: URLs of members of one cluster, with commas between them.
    pub fn parse(urls: &str) -> Result<Self, String> {
        Ok(Self { members: members(urls)?, prefix: PREFIX.to_owned() })
    }

    /// The same etcd, with the keys below another prefix, which ends in a slash: another store.
    #[must_use]
    pub fn below(self, prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), ..self }
    }
}

/// A store in etcd. Clones share it.
#[derive(Clone)]
pub struct EtcdStore {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    layout: Layout,
    /// As it was last read; [`open`] has read it.
    identity: Mutex<Identity>,
    /// The highest revision of a commit that this process knows of.
    seen: AtomicU64,
    recent: Mutex<Recent>,
    /// Of loads and watches.
    reads: Backoff,
}

/// The last commit, as of a revision of etcd's.
struct Head {
    /// When it was.
    head: Revision,
    /// The newest revision of etcd, whoever used it and for what.
    as_of: Revision,
    cluster: u64,
}

impl EtcdStore {
    /// Its identity, as it was last read.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.inner.identity.lock().store.clone()
    }

    /// The way to etcd, and where nodes tell of themselves there.
    pub(crate) fn parts(&self) -> (Link, Layout) {
        (self.inner.link.clone(), self.inner.layout.clone())
    }
}

impl Inner {
    fn seen(&self) -> Revision {
        Revision::new(self.seen.load(Ordering::Acquire))
    }

    fn saw(&self, revision: Revision) {
        self.seen.fetch_max(revision.get(), Ordering::AcqRel);
    }

    /// A proposal was committed, by this process or another one.
    fn made(&self, op: OpId, made: Made) {
        self.saw(made.revision);
        self.recent.lock().add(op, made);
    }

    fn is_cluster(&self, cluster: u64) -> bool {
        self.identity.lock().cluster == cluster
    }

    /// The last commit, agreed on by the cluster.
    async fn head(&self) -> Result<Head, Status> {
        let request = RangeRequest { key: self.layout.head(), keys_only: true, ..RangeRequest::default() };
        let answer = self.link.kv().range(led_within(HEAD_TIME_MAX, request)).await?.into_inner();
        let header = answer.header.unwrap_or_default();
        let head = answer.kvs.first().map_or(0, |head| head.mod_revision);
        Ok(Head { head: revision(head), as_of: revision(header.revision), cluster: header.cluster_id })
    }
}

impl Store for EtcdStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        load::load(&self.inner).boxed()
    }

    fn commit(&self, proposals: Vec<Arc<Proposal>>) -> BoxFuture<'_, Vec<Outcome>> {
        commit::commit(&self.inner, proposals).boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'static, Result<Arc<Committed>, FollowError>> {
        follow::follow(self.inner.clone(), after)
    }
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.inner.layout.prefix();
        f.debug_struct("EtcdStore").field("prefix", &prefix).field("seen", &self.inner.seen()).finish_non_exhaustive()
    }
}
