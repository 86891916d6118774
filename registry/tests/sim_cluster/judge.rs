//! Reads everything that is committed, in order, and says what must not be.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use parking_lot::Mutex;
use registry::catalog::{Identity, IdentityKey, Key, Record, RemovalReason, Revision, Write};
use registry::storage::{MemoryStore, Store};
use tokio::time::Instant;

use crate::instance::{Lives, TTL};
use crate::nodes::Net;

/// What happened, in virtual time: the same seed gives the same lines.
#[derive(Clone)]
pub(crate) struct Trace {
    began: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { began: mesh_runtime::clock::now(), lines: Arc::default() }
    }

    pub(crate) fn note(&self, what: impl AsRef<str>) {
        let at = mesh_runtime::clock::now().duration_since(self.began);
        self.lines.lock().push(format!("{:>9.3} {}", at.as_secs_f64(), what.as_ref()));
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }
}

/// Judges until it is dropped.
pub(crate) async fn judge(truth: MemoryStore, net: Net, lives: Lives, trace: Trace, wrong: Arc<Mutex<Vec<String>>>) {
    let mut commits = truth.follow(Revision::ZERO);
    let mut known: BTreeMap<IdentityKey, Identity> = BTreeMap::new();
    let mut issued: BTreeMap<IdentityKey, u64> = BTreeMap::new();
    while let Some(Ok(committed)) = commits.next().await {
        let author = net.author(committed.op);
        for write in &committed.writes {
            let Write::Put(Key::Identity(key), Record::Identity(after)) = write else { continue };
            let before = known.insert(key.clone(), after.clone()).unwrap_or_default();
            let fault = |what: String| {
                trace.note(format!("WRONG {what}"));
                wrong.lock().push(what);
            };
            match (&before.live, &after.live) {
                (Some(was), None) => {
                    let reason = after.tombstones.last().map(|stone| stone.reason);
                    trace.note(format!("{} {} gone: {reason:?} by {author:?}", committed.revision.get(), key.id));
                    if reason != Some(RemovalReason::Expired) {
                        continue;
                    }
                    if was.owner != author {
                        fault(format!("{} of {:?} was let expire by {author:?}", key.id, was.owner));
                    }
                    let life = lives.lock()[&key.id];
                    let heard = life.heard.map(|at| at.elapsed());
                    if life.dead.is_none() && heard.is_some_and(|heard| heard < TTL) {
                        fault(format!("{} was removed {heard:?} after it was told that it is renewed", key.id));
                    }
                }
                (was, Some(is)) => {
                    let last = issued.insert(key.clone(), is.incarnation.get()).unwrap_or(0);
                    if is.incarnation.get() < last {
                        fault(format!("{} went from incarnation {last} to {}", key.id, is.incarnation));
                    }
                    if was.as_ref().is_none_or(|was| was.owner != is.owner || was.incarnation != is.incarnation) {
                        let revision = committed.revision.get();
                        trace.note(format!("{revision} {} {} is {:?}'s", key.id, is.incarnation, is.owner));
                    }
                    if is.owner != author && was.as_ref().is_none_or(|was| was.owner != is.owner) {
                        fault(format!("{author:?} gave {} to {:?}", key.id, is.owner));
                    }
                }
                (None, None) => {}
            }
        }
    }
}
