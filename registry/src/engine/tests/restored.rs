//! A store that is put back to an earlier state, or replaced by another, under a running engine.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::kit::{Rig, SECOND, memory, settings};
use crate::catalog::kit::asks;
use crate::catalog::{Committed, Generation, Position, Presence, Proposal, Revision, StoreId};
use crate::engine::EngineError;
use crate::storage::{FollowError, Loaded, MemoryStore, Outcome, Store, StoreError};

/// A memory store that can be replaced.
#[derive(Clone, Debug)]
struct Replaceable {
    inner: Arc<Mutex<MemoryStore>>,
    manner: Arc<Mutex<Manner>>,
    generation: watch::Sender<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Manner {
    Honest,
    /// Commits, and the feed says nothing of it.
    Mute,
    /// Says that others were faster, far ahead of anything that comes by the feed.
    FarAhead,
    /// Neither commits nor answers.
    Hangs,
}

impl Replaceable {
    fn new() -> Self {
        let (inner, manner) = (Arc::new(Mutex::new(memory())), Arc::new(Mutex::new(Manner::Honest)));
        Self { inner, manner, generation: watch::Sender::new(1) }
    }

    fn be(&self, manner: Manner) {
        *self.manner.lock() = manner;
    }

    fn inner(&self) -> MemoryStore {
        self.inner.lock().clone()
    }

    /// Puts this in its place.
    fn restore(&self, inner: MemoryStore, generation: u64) {
        *self.inner.lock() = inner;
        self.be(Manner::Honest);
        self.generation.send_replace(generation);
    }
}

impl Store for Replaceable {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        let loaded = self.inner().snapshot();
        let generation = Generation(*self.generation.borrow());
        let position = Position { generation, ..loaded.position.clone() };
        async move { Ok(Loaded { position, ..loaded }) }.boxed()
    }

    fn commit(&self, proposals: Vec<Arc<Proposal>>) -> BoxFuture<'_, Vec<Outcome>> {
        let manner = *self.manner.lock();
        let inner = self.inner();
        async move {
            if matches!(manner, Manner::Hangs) {
                std::future::pending::<()>().await;
            }
            let ahead = || Outcome::Conflict(Revision::new(1_000));
            let answer = |proposal: &Arc<Proposal>| match manner {
                Manner::FarAhead => ahead(),
                _ => inner.try_commit(proposal),
            };
            proposals.iter().map(answer).collect()
        }
        .boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'static, Result<Arc<Committed>, FollowError>> {
        let manner = Arc::clone(&self.manner);
        let told = self.inner().follow(after).filter(move |_| {
            let mute = matches!(*manner.lock(), Manner::Mute);
            async move { !mute }
        });
        let mut generation = self.generation.subscribe();
        let replaced = stream::once(async move {
            let _ = generation.changed().await;
            Err(FollowError::Compacted { oldest: Revision::ZERO })
        });
        stream::select(told, replaced).boxed()
    }
}

/// What was asked of the engine while the store answered like this, and after it was replaced.
async fn replaced_while(manner: Manner) {
    for (name, generation) in [("memory-1", 2), ("memory-2", 1)] {
        let store = Replaceable::new();
        let rig = Rig::on(store.clone(), settings(1)).await;
        for instance in 1..=5 {
            rig.register(instance).await;
        }
        let seen = rig.engine.view().position().revision;

        store.be(manner);
        let asked = tokio::spawn({
            let engine = rig.engine.clone();
            async move { engine.register(asks(6)).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!asked.is_finished(), "{name}: nobody can know yet");
        let replacement = MemoryStore::new(StoreId::parse(name).unwrap());
        Rig::on(replacement.clone(), settings(2)).await.register(1).await;
        store.restore(replacement, generation);
        let answer = tokio::time::timeout(SECOND, asked).await.expect("an answer").unwrap();
        match manner {
            // Not in anybody's hands: it is decided on what is there now.
            Manner::FarAhead => assert!(answer.is_ok(), "{name}: {answer:?}"),
            _ => assert!(matches!(answer, Err(EngineError::OutcomeUnknown)), "{name}: {answer:?}"),
        }

        tokio::time::sleep(Duration::from_millis(1)).await;
        let here = rig.engine.view().position().clone();
        assert_eq!(here.generation, Generation(generation));
        assert!(rig.users().revision() <= here.revision, "{name}: no revision of the former life");

        let granted = tokio::time::timeout(SECOND, rig.register(7)).await.expect("it goes on");
        assert_eq!(rig.engine.view().position(), &granted.position);
        assert!(granted.position.revision < seen, "{name}: it counts anew");
        assert_eq!(granted.position.generation, Generation(generation));
        assert_eq!(rig.presence(), Presence::Populated);
        let users = rig.users();
        let there = usize::from(matches!(manner, Manner::FarAhead)) + 2;
        assert_eq!(users.instances().values().count(), there, "{name}: what is stored, and no more");
        rig.task.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_store_had_committed_before_it_was_replaced_is_unknown() {
    replaced_while(Manner::Mute).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_store_was_working_on_when_it_was_replaced_is_unknown() {
    replaced_while(Manner::Hangs).await;
}

#[tokio::test(start_paused = true)]
async fn a_revision_of_the_former_store_is_not_waited_for() {
    replaced_while(Manner::FarAhead).await;
}
