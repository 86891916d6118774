//! Every commit as it happens: etcd's watch, grouped into commits.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use mesh_api::etcd::etcdserverpb::WatchCreateRequest;
use mesh_api::etcd::mvccpb::Event;
use mesh_api::etcd::mvccpb::event::EventType;
use tokio::time::sleep;

use super::Inner;
use super::layout::Layout;
use super::recent::Made;
use super::transaction::{number, revision};
use super::watch::Watching;
use crate::catalog::{Committed, Key, OpId, Record, Revision, Write};
use crate::storage::{FollowError, codec};

/// The op of a change that no registry made.
const NOBODY: OpId = OpId([0; 16]);

pub(super) fn follow(inner: Arc<Inner>, after: Revision) -> BoxStream<'static, Result<Arc<Committed>, FollowError>> {
    let start = after.next();
    let follower = Follower { inner, after, start, watching: None, commits: Commits::default(), over: false };
    stream::unfold(follower, |mut follower| async move {
        let news = follower.next().await?;
        Some((news, follower))
    })
    .boxed()
}

struct Follower {
    inner: Arc<Inner>,
    /// The last commit that was told.
    after: Revision,
    /// The first revision to ask for: what follows it, or later where nothing was in between.
    start: Revision,
    watching: Option<Watching>,
    commits: Commits,
    over: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Arc<Committed>, FollowError>> {
        loop {
            if let Some(committed) = self.commits.whole.pop_front() {
                self.after = committed.revision;
                self.inner.made(committed.op, Made::new(committed.revision, &committed.writes));
                return Some(Ok(committed));
            }
            if self.over {
                return None;
            }
            if let Err(error) = self.read().await {
                self.over = true;
                if matches!(error, FollowError::Broken { .. }) {
                    self.inner.reads.failed();
                }
                return Some(Err(error));
            }
        }
    }

    /// Takes one answer in.
    async fn read(&mut self) -> Result<(), FollowError> {
        let watching = match &mut self.watching {
            Some(watching) => watching,
            None => {
                sleep(self.inner.reads.wait()).await;
                let watching = open(&self.inner, self.after, self.start).await?;
                self.watching.insert(watching)
            }
        };
        let answer = watching.next().await.map_err(broken)?.ok_or_else(|| broken("etcd ended the watch"))?;
        if answer.canceled {
            self.watching = None;
            if answer.compact_revision == 0 {
                return Err(broken(format!("etcd ended the watch: {}", answer.cancel_reason)));
            }
            // Paced, should etcd compact faster than it answers.
            self.inner.reads.failed();
            self.start = beyond(&self.inner, self.after, revision(answer.compact_revision)).await?;
            return Ok(());
        }
        self.inner.reads.worked();
        self.commits.add(&self.inner.layout, answer.events, answer.fragment, self.after);
        Ok(())
    }
}

fn broken(reason: impl ToString) -> FollowError {
    FollowError::Broken { reason: reason.to_string() }
}

/// Opens a watch from a revision on, on a cluster that has what was told already.
async fn open(inner: &Inner, after: Revision, start: Revision) -> Result<Watching, FollowError> {
    let (key, range_end) = inner.layout.everything();
    let start_revision = number(start.get());
    let create = WatchCreateRequest { key, range_end, start_revision, fragment: true, ..WatchCreateRequest::default() };
    let mut watching = Watching::open(&inner.link, create).await.map_err(broken)?;
    let created = watching.next().await.map_err(broken)?.ok_or_else(|| broken("etcd ended the watch"))?;
    let header = created.header.unwrap_or_default();
    if !inner.is_cluster(header.cluster_id) || revision(header.revision) < after {
        // This member may only be behind. Whether etcd was restored, the cluster as a whole knows.
        let now = inner.head().await.map_err(broken)?;
        if !inner.is_cluster(now.cluster) || now.as_of < after {
            return Err(FollowError::Compacted { oldest: now.as_of.next() });
        }
    }
    Ok(watching)
}

/// Where to go on from after a compaction, if no commit was compacted that was not told: others may have used etcd, and
/// much, while nobody committed.
async fn beyond(inner: &Inner, after: Revision, compacted: Revision) -> Result<Revision, FollowError> {
    let now = inner.head().await.map_err(broken)?;
    if now.head > after { Err(FollowError::Compacted { oldest: compacted }) } else { Ok(now.as_of.next()) }
}

/// Events on their way to being commits.
#[derive(Debug, Default)]
struct Commits {
    whole: VecDeque<Arc<Committed>>,
    /// Events of one revision, while more of them may come: at most those of one transaction.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    revision: Revision,
    op: OpId,
    writes: Vec<Write>,
    /// Whether it is about records at all.
    counts: bool,
}

impl Commits {
    /// Takes the events of one answer. All events of a revision stand together, if not in one answer then in the pieces of
    /// one.
    ///
    /// A record that is not understood is left out, so that the last one that was understood stays: a newer registry may
    /// have written it, as in an upgrade of one after the other, and nothing says that its instance is gone. Nothing is
    /// written over it either: what rests on the last known one is in conflict with what etcd has.
    fn add(&mut self, layout: &Layout, events: Vec<Event>, more_follow: bool, after: Revision) {
        for event in events {
            let deleted = event.r#type() == EventType::Delete;
            let Some(kv) = event.kv else { continue };
            let at = revision(kv.mod_revision);
            if at <= after {
                continue;
            }
            if self.open.as_ref().is_some_and(|open| open.revision != at) {
                self.close();
            }
            let open = self.open.get_or_insert(Open { revision: at, op: NOBODY, writes: Vec::new(), counts: false });
            if kv.key == layout.head() {
                open.op = <[u8; 16]>::try_from(&*kv.value).map_or(NOBODY, OpId);
                open.counts = true;
            } else if let Some(key) = layout.record_key(&kv.key) {
                let read = key.and_then(|key| if deleted { Ok(Write::Delete(key)) } else { put(key, &kv.value) });
                match read {
                    Ok(write) => open.writes.push(write),
                    Err(error) => {
                        let key = String::from_utf8_lossy(&kv.key);
                        tracing::error!(%key, %error, "a record is not understood: what was known before stays");
                    }
                }
                open.counts = true;
            }
        }
        if !more_follow {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some(Open { revision, op, writes, counts: true }) = self.open.take() {
            self.whole.push_back(Arc::new(Committed { revision, op, writes }));
        }
    }
}

fn put(key: Key, value: &[u8]) -> Result<Write, codec::CodecError> {
    let entry = codec::decode_value(value)?.at(key)?;
    let (key, record): (Key, Record) = (entry.key, entry.record);
    Ok(Write::Put(key, record))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use mesh_api::etcd::mvccpb::KeyValue;

    use super::super::layout::PREFIX;
    use super::*;
    use crate::catalog::kit::service;
    use crate::catalog::{Emptiness, ServiceRecord};

    fn layout() -> Layout {
        Layout::new(PREFIX)
    }

    fn key(name: &str) -> Key {
        Key::Service(service(name))
    }

    fn record() -> Record {
        Record::Service(ServiceRecord { emptiness: Emptiness::Lapsed })
    }

    fn event(kind: EventType, key: Bytes, value: Bytes, mod_revision: i64) -> Event {
        let kv = KeyValue { key, value, mod_revision, ..KeyValue::default() };
        Event { r#type: kind.into(), kv: Some(kv), prev_kv: None }
    }

    fn head(op: u8, at: i64) -> Event {
        event(EventType::Put, layout().head(), Bytes::copy_from_slice(&[op; 16]), at)
    }

    fn record_put(name: &str, op: u8, at: i64) -> Event {
        let value = codec::encode_value(&record(), Revision::ZERO, OpId([op; 16]));
        event(EventType::Put, layout().record(&key(name)), value.into(), at)
    }

    fn take(commits: &mut Commits) -> Vec<Committed> {
        commits.whole.drain(..).map(|committed| (*committed).clone()).collect()
    }

    fn committed(revision: u64, op: u8, writes: Vec<Write>) -> Committed {
        Committed { revision: Revision::new(revision), op: OpId([op; 16]), writes }
    }

    #[test]
    fn the_events_of_a_revision_are_one_commit_even_in_pieces() {
        let (mut commits, layout) = (Commits::default(), layout());
        let first = vec![head(1, 5), record_put("a", 1, 5), head(2, 6), record_put("b", 2, 6)];
        commits.add(&layout, first, true, Revision::new(4));
        let a = committed(5, 1, vec![Write::Put(key("a"), record())]);
        assert_eq!(take(&mut commits), [a]);
        let gone = event(EventType::Delete, layout.record(&key("c")), Bytes::new(), 6);
        commits.add(&layout, vec![gone], false, Revision::new(5));
        let b = committed(6, 2, vec![Write::Put(key("b"), record()), Write::Delete(key("c"))]);
        assert_eq!(take(&mut commits), [b]);
    }

    #[test]
    fn what_is_no_record_is_no_commit_and_what_is_old_is_not_told_again() {
        let (mut commits, layout) = (Commits::default(), layout());
        let node = event(EventType::Put, "/meshwork/v1/n/x".into(), Bytes::new(), 7);
        commits.add(&layout, vec![head(1, 5), node, record_put("a", 2, 8)], false, Revision::new(5));
        let by_nobody = committed(8, 0, vec![Write::Put(key("a"), record())]);
        assert_eq!(take(&mut commits), [by_nobody]);
    }

    #[test]
    fn a_record_that_is_not_understood_ends_nobody_and_stops_nothing() {
        let (mut commits, layout) = (Commits::default(), layout());
        let garbage = event(EventType::Put, layout.record(&key("a")), Bytes::from_static(b"\xff\xff"), 5);
        let strange = event(EventType::Put, "/meshwork/v1/r/what".into(), Bytes::new(), 5);
        commits.add(&layout, vec![head(1, 5), garbage, strange, head(2, 6)], false, Revision::ZERO);
        assert_eq!(take(&mut commits), [committed(5, 1, vec![]), committed(6, 2, vec![])]);
    }
}
