//! What every store holds to, asked of each of them. Keys are this contract's own, so that a store may hold others.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use registry::catalog::{
    Committed, Emptiness, Expected, Key, OpId, Proposal, Record, Revision, ServiceKey, ServiceRecord, Write,
};
use registry::storage::{FollowError, Outcome, Store};
use tokio::time::timeout;

/// How long a store may take for anything; a hundred times what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Feed = BoxStream<'static, Result<Arc<Committed>, FollowError>>;

/// Asks it all.
pub(crate) async fn holds(store: &dyn Store) {
    expectations_decide(store).await;
    an_op_id_is_committed_once(store).await;
    a_proposal_may_rest_on_others(store).await;
    one_that_fails_stops_nobody_but_those_who_rest_on_it(store).await;
    who_comes_first_in_a_group_wins(store).await;
    large_groups_are_committed_whole(store).await;
    a_follower_gets_every_commit_once_and_in_order(store).await;
    a_load_is_what_the_commits_amount_to(store).await;
}

pub(crate) fn op(number: u128) -> OpId {
    OpId(number.to_be_bytes())
}

pub(crate) fn key(name: &str) -> Key {
    Key::Service(ServiceKey::parse("", name).expect("a name"))
}

pub(crate) fn record(emptiness: Emptiness) -> Record {
    Record::Service(ServiceRecord { emptiness })
}

pub(crate) fn put(number: u128, name: &str, expected: Expected) -> Proposal {
    let write = Write::Put(key(name), record(Emptiness::Lapsed));
    Proposal { op: op(number), expected: vec![(key(name), expected)], writes: vec![write] }
}

pub(crate) fn delete(number: u128, name: &str, expected: Expected) -> Proposal {
    let write = Write::Delete(key(name));
    Proposal { op: op(number), expected: vec![(key(name), expected)], writes: vec![write] }
}

/// What becomes of proposals that are handed in together.
pub(crate) async fn group(store: &dyn Store, proposals: impl IntoIterator<Item = Proposal>) -> Vec<Outcome> {
    let proposals: Vec<Arc<Proposal>> = proposals.into_iter().map(Arc::new).collect();
    let asked = proposals.len();
    let outcomes = timeout(PATIENCE, store.commit(proposals)).await.expect("an answer");
    assert_eq!(outcomes.len(), asked, "one answer each");
    outcomes
}

/// What becomes of one.
pub(crate) async fn one(store: &dyn Store, proposal: Proposal) -> Outcome {
    group(store, [proposal]).await.remove(0)
}

/// The revision of one that is made.
pub(crate) async fn made(store: &dyn Store, proposal: Proposal) -> Revision {
    revision(&one(store, proposal).await)
}

pub(crate) fn revision(outcome: &Outcome) -> Revision {
    match outcome {
        Outcome::Committed(revision) => *revision,
        other => panic!("{other:?} is not a commit"),
    }
}

pub(crate) async fn next(feed: &mut Feed) -> Arc<Committed> {
    let news = timeout(PATIENCE, feed.next()).await.expect("news").expect("the feed goes on");
    news.expect("the feed is whole")
}

pub(crate) async fn head(store: &dyn Store) -> Revision {
    store.load().await.expect("it can be read").position.revision
}

/// Ops are drawn from ranges, one for each question.
async fn expectations_decide(store: &dyn Store) {
    let (a, b) = ("contract-1a", "contract-1b");
    let first = made(store, put(1_001, a, Expected::Absent)).await;
    for wrong in [Expected::Absent, Expected::At(first.next()), Expected::By(op(1_000))] {
        let outcome = one(store, put(1_002, a, wrong)).await;
        let Outcome::Conflict(seen) = outcome else { panic!("{wrong:?} gave {outcome:?}") };
        assert!(seen <= head(store).await, "who has followed up to it sees why");
        assert!(seen >= first || wrong == Expected::By(op(1_000)));
    }
    let mut both = put(1_003, a, Expected::At(first));
    both.expected.push((key(b), Expected::At(first)));
    assert!(matches!(one(store, both).await, Outcome::Conflict(_)), "a key that is only read counts too");
    let second = made(store, put(1_004, a, Expected::At(first))).await;
    assert!(second > first);
    let gone = made(store, delete(1_005, a, Expected::At(second))).await;
    assert!(gone > second);
    assert!(made(store, put(1_006, a, Expected::Absent)).await > gone);
}

async fn an_op_id_is_committed_once(store: &dyn Store) {
    let name = "contract-2";
    let first = made(store, put(2_001, name, Expected::Absent)).await;
    let before = head(store).await;
    assert_eq!(made(store, put(2_001, name, Expected::Absent)).await, first);
    assert_eq!(head(store).await, before, "nothing was changed");
    // Also once the record says nothing of it any more.
    let gone = made(store, delete(2_002, name, Expected::At(first))).await;
    assert_eq!(made(store, put(2_001, name, Expected::Absent)).await, first);
    assert_eq!(made(store, delete(2_002, name, Expected::At(first))).await, gone);
}

async fn a_proposal_may_rest_on_others(store: &dyn Store) {
    let name = "contract-3";
    let chain = [
        put(3_001, name, Expected::Absent),
        put(3_002, name, Expected::By(op(3_001))),
        delete(3_003, name, Expected::By(op(3_002))),
        put(3_004, name, Expected::By(op(3_003))),
    ];
    let revisions: Vec<Revision> = group(store, chain).await.iter().map(revision).collect();
    assert!(revisions.is_sorted_by(|one, other| one < other), "{revisions:?}");
    // Across groups, and only on the last change.
    assert!(matches!(one(store, put(3_005, name, Expected::By(op(3_002)))).await, Outcome::Conflict(_)));
    assert!(matches!(one(store, put(3_006, name, Expected::By(op(3_003)))).await, Outcome::Conflict(_)));
    made(store, put(3_007, name, Expected::By(op(3_004)))).await;
}

async fn one_that_fails_stops_nobody_but_those_who_rest_on_it(store: &dyn Store) {
    let (a, b) = ("contract-4a", "contract-4b");
    let outcomes = group(
        store,
        [
            put(4_001, a, Expected::At(Revision::new(1))),
            put(4_002, b, Expected::Absent),
            put(4_003, a, Expected::By(op(4_001))),
            put(4_004, b, Expected::By(op(4_002))),
        ],
    )
    .await;
    assert!(matches!(outcomes[0], Outcome::Conflict(_)) && matches!(outcomes[2], Outcome::Conflict(_)), "{outcomes:?}");
    assert!(revision(&outcomes[1]) < revision(&outcomes[3]));
}

async fn who_comes_first_in_a_group_wins(store: &dyn Store) {
    let name = "contract-5";
    let outcomes = group(store, (5_001..=5_020).map(|op| put(op, name, Expected::Absent))).await;
    revision(&outcomes[0]);
    assert!(outcomes[1..].iter().all(|outcome| matches!(outcome, Outcome::Conflict(_))), "{outcomes:?}");
}

async fn large_groups_are_committed_whole(store: &dyn Store) {
    let shared = "contract-6";
    let first = put(6_000, shared, Expected::Absent);
    let others = (1..256_u128).map(|number| {
        let mut proposal = put(6_000 + number, &format!("contract-6-{number}"), Expected::Absent);
        // As registrations do: they read the service that the first of them has made.
        proposal.expected.push((key(shared), Expected::By(op(6_000))));
        proposal
    });
    let outcomes = group(store, std::iter::once(first).chain(others)).await;
    let revisions: BTreeSet<Revision> = outcomes.iter().map(revision).collect();
    assert_eq!(revisions.len(), 256, "a revision of its own each");
    assert_eq!(revisions.first(), Some(&revision(&outcomes[0])));
}

async fn a_follower_gets_every_commit_once_and_in_order(store: &dyn Store) {
    let name = |number: u128| format!("contract-7-{number}");
    let first = made(store, put(7_001, &name(1), Expected::Absent)).await;
    let mut expected = vec![made(store, put(7_002, &name(2), Expected::Absent)).await];
    let mut feed = store.follow(first);
    for number in 3..=5 {
        expected.push(made(store, put(7_000 + number, &name(number), Expected::Absent)).await);
    }
    expected.push(made(store, delete(7_006, &name(3), Expected::By(op(7_003)))).await);
    let mut told = Vec::new();
    for number in [2, 3, 4, 5, 6] {
        let committed = next(&mut feed).await;
        assert_eq!(committed.op, op(7_000 + number));
        told.push(committed.revision);
        let write = match number {
            6 => Write::Delete(key(&name(3))),
            _ => Write::Put(key(&name(number)), record(Emptiness::Lapsed)),
        };
        assert_eq!(committed.writes, [write]);
    }
    assert_eq!(told, expected);
    let quiet = timeout(Duration::from_millis(50), feed.next()).await;
    assert!(quiet.is_err(), "and then waits: {quiet:?}");
}

async fn a_load_is_what_the_commits_amount_to(store: &dyn Store) {
    let (a, b, c) = ("contract-8a", "contract-8b", "contract-8c");
    made(store, put(8_001, a, Expected::Absent)).await;
    let second = made(store, put(8_002, b, Expected::Absent)).await;
    made(store, delete(8_003, a, Expected::By(op(8_001)))).await;
    let last = made(store, put(8_004, c, Expected::Absent)).await;
    let loaded = store.load().await.expect("it can be read");
    assert_eq!(loaded.position.revision, last);
    let keys: Vec<&Key> = loaded.entries.iter().map(|entry| &entry.key).collect();
    assert!(keys.is_sorted());
    assert!(!keys.contains(&&key(a)));
    let entry = loaded.entries.iter().find(|entry| entry.key == key(b)).expect("it was put");
    assert_eq!((entry.revision, entry.op, &entry.record), (second, op(8_002), &record(Emptiness::Lapsed)));
}
