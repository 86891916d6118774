//! Reads everything that is committed, in order, and says what must not be.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use parking_lot::Mutex;
use registry::catalog::{Identity, IdentityKey, Key, Record, RemovalReason, Revision, Write};
use registry::storage::{MemoryStore, Store};

use crate::instance::{Lives, TTL};
use crate::nodes::Net;
use crate::trace::Trace;

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
