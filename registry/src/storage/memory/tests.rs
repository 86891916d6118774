use std::collections::BTreeSet;

use futures_util::StreamExt;

use super::*;
use crate::catalog::kit::{identity as identity_key, incarnation, nonce, service, spec, store};
use crate::catalog::{
    Emptiness, GrpcService, IdempotencyLevel, Identity, LeaseId, Method, Registration, ServiceRecord, ServingStatus,
    Ttl,
};
use crate::storage::FollowError;

fn op(number: u128) -> OpId {
    OpId(number.to_be_bytes())
}

fn key(name: &str) -> Key {
    Key::Service(service(name))
}

fn record() -> Record {
    Record::Service(ServiceRecord { emptiness: Emptiness::Lapsed })
}

fn put(number: u128, name: &str, expected: Expected) -> Proposal {
    Proposal { op: op(number), expected: vec![(key(name), expected)], writes: vec![Write::Put(key(name), record())] }
}

fn delete(number: u128, name: &str, expected: Expected) -> Proposal {
    Proposal { op: op(number), expected: vec![(key(name), expected)], writes: vec![Write::Delete(key(name))] }
}

fn memory() -> MemoryStore {
    MemoryStore::new(store("memory-1"))
}

fn committed(revision: u64) -> Outcome {
    Outcome::Committed(Revision::new(revision))
}

#[test]
fn a_proposal_is_committed_only_if_every_key_is_as_expected() {
    let store = memory();
    assert_eq!(store.try_commit(&put(1, "a", Expected::Absent)), committed(1));
    assert_eq!(store.try_commit(&put(2, "a", Expected::Absent)), Outcome::Conflict(Revision::new(1)));
    assert_eq!(store.try_commit(&put(3, "a", Expected::At(Revision::new(2)))), Outcome::Conflict(Revision::new(1)));
    let mut both = put(4, "a", Expected::At(Revision::new(1)));
    both.expected.push((key("b"), Expected::At(Revision::new(1))));
    assert_eq!(store.try_commit(&both), Outcome::Conflict(Revision::new(1)), "a key that is only read counts too");
    assert_eq!(store.try_commit(&put(5, "a", Expected::At(Revision::new(1)))), committed(2));
}

#[test]
fn an_op_id_is_committed_once() {
    let store = memory();
    let proposal = put(1, "a", Expected::Absent);
    assert_eq!(store.try_commit(&proposal), committed(1));
    assert_eq!(store.try_commit(&proposal), committed(1));
    assert_eq!(store.revision(), Revision::new(1));
}

#[test]
fn a_proposal_may_rest_on_the_one_before_it() {
    let store = memory();
    assert_eq!(store.try_commit(&put(1, "a", Expected::Absent)), committed(1));
    assert_eq!(store.try_commit(&put(2, "a", Expected::By(op(1)))), committed(2));
    assert_eq!(store.try_commit(&put(3, "a", Expected::By(op(1)))), Outcome::Conflict(Revision::new(2)));
}

#[test]
fn a_proposal_may_rest_on_a_deletion_before_it_but_on_no_other() {
    let store = memory();
    store.try_commit(&put(1, "a", Expected::Absent));
    assert_eq!(store.try_commit(&put(9, "a", Expected::By(op(2)))), Outcome::Conflict(Revision::new(1)));
    store.try_commit(&delete(2, "a", Expected::By(op(1))));
    assert_eq!(store.try_commit(&put(3, "a", Expected::By(op(1)))), Outcome::Conflict(Revision::new(2)));
    assert_eq!(store.try_commit(&put(4, "a", Expected::By(op(2)))), committed(3));
}

#[tokio::test]
async fn a_follower_gets_every_commit_once_and_in_order() {
    let store = memory();
    for number in 1..=3 {
        store.try_commit(&put(number, &format!("s{number}"), Expected::Absent));
    }
    let mut feed = store.follow(Revision::new(1));
    let mut seen = Vec::new();
    for number in 4..=6 {
        seen.push(feed.next().await.unwrap().unwrap().revision.get());
        store.try_commit(&put(number, &format!("s{number}"), Expected::Absent));
    }
    while seen.len() < 5 {
        seen.push(feed.next().await.unwrap().unwrap().revision.get());
    }
    assert_eq!(seen, [2, 3, 4, 5, 6]);
    assert!(feed.next().now_or_never().is_none(), "and then waits");
}

#[tokio::test]
async fn a_follower_that_fell_behind_the_log_is_told() {
    let store = memory();
    for number in 0..BOUNDS.commits as u128 + 10 {
        let expected = match number {
            0 => Expected::Absent,
            _ => Expected::By(op(number - 1)),
        };
        store.try_commit(&put(number, "a", expected));
    }
    let told = store.follow(Revision::new(5)).next().await.unwrap();
    assert_eq!(told, Err(FollowError::Compacted { oldest: Revision::new(11) }));
    assert_eq!(store.follow(Revision::new(10)).next().await.unwrap().unwrap().revision.get(), 11);
    assert_eq!(store.shared.log.kept(), (BOUNDS.commits, BOUNDS.commits));
}

#[tokio::test]
async fn the_log_of_large_records_is_bounded_in_bytes() {
    let store = memory();
    // 32 services of 128 methods with names of 128 bytes: more than half a MiB.
    let methods = vec![Method::new(&"m".repeat(128), IdempotencyLevel::Unknown).unwrap(); 128];
    let grpc = |n| GrpcService::new(&format!("shop.S{n}"), methods.clone(), ServingStatus::Serving).unwrap();
    let large = spec().with_grpc_services((0..32).map(grpc).collect()).unwrap();
    let live = Some(Arc::new(Registration {
        service: service("a"),
        incarnation: incarnation(1),
        nonce: nonce(1),
        lease: LeaseId::new([1; 16]),
        owner: None,
        ttl: Ttl::DEFAULT,
        serving: ServingStatus::Serving,
        spec: large,
    }));
    let identity = Identity { live, ..Identity::default() };
    for number in 0..200 {
        let (op, key) = (op(number), Key::Identity(identity_key(1)));
        let writes = vec![Write::Put(key, Record::Identity(identity.clone()))];
        assert!(matches!(store.try_commit(&Proposal { op, expected: Vec::new(), writes }), Outcome::Committed(_)));
    }
    let (kept, ops) = store.shared.log.kept();
    assert_eq!(kept, ops);
    assert!((64..=128).contains(&kept), "{kept} of half a MiB in 64 MiB");
    let told = store.follow(Revision::new(1)).next().await.unwrap();
    assert_eq!(told, Err(FollowError::Compacted { oldest: Revision::new(201 - kept as u64) }));
}

#[tokio::test]
async fn a_load_is_what_the_commits_amount_to() {
    let store = memory();
    store.try_commit(&put(1, "a", Expected::Absent));
    store.try_commit(&put(2, "b", Expected::Absent));
    store.try_commit(&delete(3, "a", Expected::By(op(1))));
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.position.revision, Revision::new(3));
    assert_eq!(
        loaded.entries.iter().map(|entry| entry.key.clone()).collect::<BTreeSet<_>>(),
        BTreeSet::from([key("b")])
    );
    assert_eq!((loaded.entries[0].revision, loaded.entries[0].op), (Revision::new(2), op(2)));
}
