use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;

use super::kit::{Rig, SECOND, memory, settings};
use crate::catalog::kit::{asks, id, in_zone, nonce, service};
use crate::catalog::{
    AdminState, BeatOutcome, Committed, Limits, Liveness, Proposal, Register, Revision, RuleSet, Selector,
    ServingStatus,
};
use crate::engine::{EngineError, EngineSettings, Lane};
use crate::storage::{FollowError, Loaded, MemoryStore, Outcome, Store, StoreError};

/// A memory store that answers every proposal as it is told.
#[derive(Clone, Debug)]
struct Told {
    inner: MemoryStore,
    manner: Arc<Mutex<Manner>>,
    feed_delay: Duration,
    groups: Arc<Mutex<Vec<usize>>>,
}

#[derive(Clone, Copy, Debug)]
enum Manner {
    Honest,
    Refuses,
    Conflicts,
    /// Commits and does not say so.
    Forgetful,
    /// Neither commits nor answers.
    Hangs,
    /// Commits a second after it said that it does not know, and refuses to look at it again.
    Slow,
}

impl Told {
    fn new() -> Self {
        let manner = Arc::new(Mutex::new(Manner::Honest));
        Self { inner: memory(), manner, feed_delay: Duration::ZERO, groups: Arc::default() }
    }

    fn be(&self, manner: Manner) {
        *self.manner.lock() = manner;
    }
}

impl Store for Told {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        self.inner.load()
    }

    fn commit(&self, proposals: Vec<Arc<Proposal>>) -> BoxFuture<'_, Vec<Outcome>> {
        let manner = *self.manner.lock();
        self.groups.lock().push(proposals.len());
        let answer = move |proposal: &Arc<Proposal>| match manner {
            Manner::Honest | Manner::Hangs => self.inner.try_commit(proposal),
            Manner::Refuses => Outcome::Refused("no space left on device".into()),
            Manner::Conflicts => Outcome::Conflict(self.inner.revision()),
            Manner::Forgetful => {
                let _ = self.inner.try_commit(proposal);
                Outcome::Unknown
            }
            Manner::Slow if self.groups.lock().len() > 1 => Outcome::Refused("no space left on device".into()),
            Manner::Slow => {
                let (inner, proposal) = (self.inner.clone(), proposal.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(SECOND).await;
                    inner.try_commit(&proposal)
                });
                Outcome::Unknown
            }
        };
        async move {
            if matches!(manner, Manner::Hangs) {
                std::future::pending::<()>().await;
            }
            // Long enough for others to arrive meanwhile.
            tokio::time::sleep(Duration::from_millis(5)).await;
            proposals.iter().map(answer).collect()
        }
        .boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'static, Result<Arc<Committed>, FollowError>> {
        let delay = self.feed_delay;
        let late = move |news| async move {
            tokio::time::sleep(delay).await;
            news
        };
        self.inner.follow(after).then(late).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrives_together_is_committed_together() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    join_all((1..=100).map(|instance| rig.register(instance))).await;
    let groups = store.groups.lock().clone();
    assert_eq!(groups.iter().sum::<usize>(), 100);
    assert!(groups.len() <= 2, "{groups:?}");
}

#[tokio::test(start_paused = true)]
async fn two_starts_in_one_group_leave_one_holder() {
    let rig = Rig::on(Told::new(), settings(1)).await;
    let starts = (1..=5).map(|start| rig.try_register(Register { nonce: nonce(start), ..asks(1) }));
    let granted: Vec<_> = join_all(starts).await.into_iter().map(Result::unwrap).collect();
    let mut renewed = 0;
    for granted in &granted {
        match rig.beat(granted).await {
            BeatOutcome::Renewed => renewed += 1,
            other => assert_eq!(other, BeatOutcome::Fenced),
        }
    }
    assert_eq!(renewed, 1);
    assert!(granted.is_sorted_by(|earlier, later| earlier.incarnation < later.incarnation));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_is_passed_on_and_reads_and_beats_go_on() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    let granted = rig.register(1).await;
    store.be(Manner::Refuses);
    assert!(matches!(rig.try_register(asks(2)).await, Err(EngineError::StoreRefused { .. })));
    assert_eq!(rig.beat(&granted).await, BeatOutcome::Renewed);
    assert_eq!(rig.users().instances().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lapse_that_cannot_be_committed_is_not_announced_and_shows_as_stale() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    rig.register(1).await;
    let other = rig.register(2).await;
    store.be(Manner::Refuses);
    rig.wait_beating(15 * SECOND, &[&other]).await;
    assert_eq!(rig.liveness(1), Some(Liveness::Stale));
    assert!(rig.users().removals().is_empty());
    store.be(Manner::Honest);
    rig.wait_beating(3 * SECOND, &[&other]).await;
    assert_eq!(rig.liveness(1), None);
}

#[tokio::test(start_paused = true)]
async fn a_lapse_that_waits_for_the_store_is_dropped_when_the_registry_was_late() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    let (one, two) = (rig.register(1).await, rig.register(2).await);
    store.be(Manner::Hangs);
    let engine = rig.engine.clone();
    let _hangs = tokio::spawn(async move { engine.register(asks(3)).await });
    rig.wait_beating(11 * SECOND, &[&two]).await;
    assert_eq!(rig.beat(&one).await, BeatOutcome::UnknownLease, "its removal is on its way");
    tokio::time::advance(3 * SECOND).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(rig.beat(&one).await, BeatOutcome::Renewed);
    store.be(Manner::Honest);
    rig.wait_beating(8 * SECOND, &[&one, &two]).await;
    assert_eq!(rig.liveness(1), Some(Liveness::Alive));
}

#[tokio::test(start_paused = true)]
async fn while_the_store_hangs_what_time_asks_for_leaves_room_for_writes() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    for granted in join_all((1..=500).map(|instance| rig.register(instance))).await {
        rig.deregister(&granted).await;
    }
    tokio::time::sleep(crate::catalog::REMEMBERED - 5 * SECOND).await;
    store.be(Manner::Hangs);
    tokio::time::sleep(15 * SECOND).await;
    let mut writes = tokio::task::JoinSet::new();
    for wave in 0..2_u128 {
        for instance in 1..=3_000 {
            let engine = rig.engine.clone();
            writes.spawn(async move { engine.register(asks(wave * 3_000 + instance)).await });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = std::iter::from_fn(|| writes.try_join_next()).count();
    assert_eq!(refused, 0, "4 096 wait to be decided and as many in the lane");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_was_refused_is_written_when_the_store_takes_it() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    let granted = rig.register(1).await;
    store.be(Manner::Refuses);
    assert_eq!(rig.says(&granted, ServingStatus::Draining).await, BeatOutcome::Renewed);
    assert_eq!(rig.users().instances()[&id(1)].serving(), ServingStatus::Serving);
    store.be(Manner::Honest);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(rig.users().instances()[&id(1)].serving(), ServingStatus::Draining);
}

#[tokio::test(start_paused = true)]
async fn of_a_refused_status_and_a_later_one_the_later_counts() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    let granted = rig.register(1).await;
    store.be(Manner::Refuses);
    rig.says(&granted, ServingStatus::NotServing).await;
    rig.says(&granted, ServingStatus::Serving).await;
    store.be(Manner::Honest);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(rig.users().instances()[&id(1)].serving(), ServingStatus::Serving);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_conflicts_five_times_is_aborted() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    store.be(Manner::Conflicts);
    assert_eq!(rig.try_register(asks(1)).await, Err(EngineError::Aborted { attempts: 5 }));
    assert_eq!(*store.groups.lock(), [1; 5]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_nobody_confirms_is_found_in_the_feed() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    store.be(Manner::Forgetful);
    let granted = rig.register(1).await;
    assert_eq!(rig.beat(&granted).await, BeatOutcome::Renewed);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_to_look_again_is_no_answer_to_what_became_of_it() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    store.be(Manner::Slow);
    let granted = rig.register(1).await;
    assert!(store.groups.lock().len() > 1, "it was handed in again");
    assert_eq!(rig.beat(&granted).await, BeatOutcome::Renewed);
}

#[tokio::test(start_paused = true)]
async fn after_a_conflict_the_next_decision_waits_for_what_the_feed_has_to_tell() {
    let store = Told { feed_delay: SECOND, ..Told::new() };
    let rig = Rig::on(store.clone(), settings(1)).await;
    let other_node = Rig::on(store.inner.clone(), settings(2)).await;
    let theirs = other_node.register(1).await;
    let ours = rig.try_register(Register { nonce: nonce(2), ..asks(1) }).await.unwrap();
    assert!(ours.incarnation > theirs.incarnation);
    assert_eq!(store.groups.lock().len(), 2, "decided blindly once, and once in the knowledge of the other");
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_decided_again_stands_behind_the_end_of_its_old_lease() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    let old = rig.register(1).await;
    let other = rig.register(2).await;
    rig.wait_beating(9 * SECOND, &[&other]).await;

    // A commit takes 5 ms: the lease began 5 ms before the waiting did. Its holder registers 3 ms before it runs out,
    // in vain, and that is known 2 ms after.
    tokio::time::sleep(SECOND - Duration::from_millis(5 + 3)).await;
    store.be(Manner::Conflicts);
    let elsewhere = Register { spec: in_zone("eu-1b", "2"), ..asks(1) };
    let honest_soon = async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        store.be(Manner::Honest);
    };
    let (granted, ()) = tokio::join!(rig.try_register(elsewhere), honest_soon);
    let granted = granted.unwrap();
    assert!(granted.incarnation > old.incarnation, "the old lease ended first");
    assert_eq!(rig.beat(&granted).await, BeatOutcome::Renewed);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_ends_in_an_unknown_outcome_and_beats_go_on() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    let granted = rig.register(1).await;
    store.be(Manner::Hangs);
    let alive = [&granted];
    let (lost, ()) = tokio::join!(rig.try_register(asks(2)), rig.wait_beating(40 * SECOND, &alive));
    assert_eq!(lost, Err(EngineError::OutcomeUnknown));
    store.be(Manner::Honest);
    rig.register(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_full_refuses() {
    let store = Told::new();
    let rig = Rig::on(store.clone(), settings(1)).await;
    store.be(Manner::Hangs);
    let mut asked: Vec<_> = (1..=10_000).map(|instance| rig.try_register(asks(instance)).boxed()).collect();
    let refused = std::future::poll_fn(|context| {
        let mut refused = 0;
        for asking in &mut asked {
            if let std::task::Poll::Ready(answer) = asking.poll_unpin(context) {
                assert_eq!(answer, Err(EngineError::Overloaded { lane: Lane::Registrations }));
                refused += 1;
            }
        }
        std::task::Poll::Ready(refused)
    });
    assert_eq!(refused.await, 10_000 - 4_096);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_is_told_so_while_others_keep_the_store_busy() {
    let store = Told::new();
    let two_at_most = Limits { instances: 2, ..Limits::default() };
    let rig = Rig::on(store.clone(), EngineSettings { limits: two_at_most, ..settings(1) }).await;
    let (one, two) = (rig.register(1).await, rig.register(2).await);
    let statuses = async |granted| {
        for _ in 0..100 {
            for serving in [ServingStatus::NotServing, ServingStatus::Serving] {
                assert_eq!(rig.says(granted, serving).await, BeatOutcome::Renewed);
            }
        }
    };
    let later = async {
        // One status is in the store's hands and one waits, from here on.
        tokio::time::sleep(Duration::from_millis(2)).await;
        statuses(&two).await;
    };
    let refused = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let asked = (3..=242).map(|instance| tokio::time::timeout(SECOND / 2, rig.try_register(asks(instance))));
        for answer in join_all(asked).await {
            let answer = answer.expect("an answer while the statuses flow");
            assert!(matches!(answer, Err(EngineError::Catalog(_))), "{answer:?}");
        }
        store.groups.lock().len()
    };
    let (.., groups) = futures_util::join!(statuses(&one), later, refused);
    assert!(groups < 20, "within a few groups: {groups}");
    assert!(store.groups.lock().len() > 300, "the store was never idle");
}

#[tokio::test(start_paused = true)]
async fn a_rule_ends_by_itself() {
    let rig = Rig::new().await;
    let granted = rig.register(1).await;
    let rule = RuleSet {
        service: service("user-svc"),
        selector: Selector::Instance(id(1)),
        state: AdminState::Draining,
        expires_in: Some(5 * SECOND),
    };
    let (position, selected) = rig.engine.set_admin_state(rule).await.unwrap();
    assert_eq!((selected, position.revision), (1, rig.users().revision()));
    assert_eq!(rig.users().instances()[&id(1)].admin(), AdminState::Draining);
    rig.wait_beating(6 * SECOND, &[&granted]).await;
    assert_eq!(rig.users().instances()[&id(1)].admin(), AdminState::Enabled);
}

#[tokio::test(start_paused = true)]
async fn two_nodes_on_one_store_see_each_other_s_writes() {
    let store = memory();
    let (one, two) = (Rig::on(store.clone(), settings(1)).await, Rig::on(store, settings(2)).await);
    one.register(1).await;
    let newer = two.try_register(Register { nonce: nonce(2), ..asks(1) }).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(one.users().instances()[&id(1)].incarnation(), newer.incarnation);
}
