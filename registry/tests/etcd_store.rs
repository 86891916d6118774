//! The store in etcd, against real etcd processes: what every store holds to, and what happens when etcd is hurt.

#[path = "support/store_contract.rs"]
mod contract;
#[path = "support/etcd.rs"]
mod etcd;
#[path = "etcd_store/kit.rs"]
mod kit;
#[path = "etcd_store/proxy.rs"]
mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use registry::catalog::{Emptiness, Expected, OpId, Proposal, Revision, StoreId, Write};
use registry::storage::{EtcdAddress, EtcdStore, FollowError, MemoryStore, Outcome, Store};
use tokio::time::{Instant, sleep, timeout};

use contract::{delete, key, made, one, op, put, record};
use kit::{Follower, Turn, cpu, open, percentile};
use mesh_runtime::clock::now;
use proxy::Proxy;

#[tokio::test]
async fn a_store_in_memory_holds_to_what_stores_hold_to() {
    contract::holds(&MemoryStore::new(StoreId::parse("memory").expect("an id"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_etcd_holds_to_what_stores_hold_to() {
    let Some(turn) = Turn::take("etcd_store contract", 1) else { return };
    contract::holds(&open(&turn.etcd).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_on_three_members_holds_to_what_stores_hold_to() {
    let Some(turn) = Turn::take("etcd_store contract on three", 3) else { return };
    let store = open(&turn.etcd).await;
    contract::holds(&store).await;

    // What a commit takes, and a group of them: printed, not judged.
    let mut times = Vec::new();
    let mut last = made(&store, put(1, "latency", Expected::Absent)).await;
    for number in 2..=200 {
        let begin = now();
        last = made(&store, put(number, "latency", Expected::At(last))).await;
        times.push(now() - begin);
    }
    let begin = now();
    let group = (0..256).map(|number| put(1_000 + number, &format!("group-{number}"), Expected::Absent));
    contract::group(&store, group).await.iter().for_each(|outcome| _ = contract::revision(outcome));
    let group = now() - begin;
    let (half, most) = (percentile(&mut times, 50), percentile(&mut times, 99));
    println!("a commit on three members: p50 {half:.1?}, p99 {most:.1?}; 256 at once: {group:.1?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_see_one_truth() {
    let Some(turn) = Turn::take("etcd_store two nodes", 1) else { return };
    let (here, there) = (open(&turn.etcd).await, open(&turn.etcd).await);
    let start = here.load().await.expect("it can be read");
    assert_eq!(there.load().await.expect("it can be read").position, start.position, "one store, one position");
    let mut feed = there.follow(start.position.revision);
    let first = made(&here, put(1, "a", Expected::Absent)).await;
    assert_eq!(contract::next(&mut feed).await.revision, first);
    assert!(matches!(one(&there, put(2, "a", Expected::Absent)).await, Outcome::Conflict(seen) if seen == first));
    // What another node committed is an op id like any other, once it was followed.
    assert_eq!(made(&there, put(1, "a", Expected::Absent)).await, first);
    let second = made(&there, put(3, "a", Expected::By(op(1)))).await;
    assert!(second > first);

    let elsewhere = EtcdAddress::parse(&turn.etcd.urls()).expect("URLs").below("/elsewhere/");
    let elsewhere = EtcdStore::open(&elsewhere).await.expect("etcd is there").load().await.expect("it can be read");
    assert!(elsewhere.entries.is_empty() && elsewhere.position.store != start.position.store, "another store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_behind_a_compaction_loads_anew_and_loses_no_deletion() {
    let Some(turn) = Turn::take("etcd_store compaction", 1) else { return };
    let store = open(&turn.etcd).await;
    let first = made(&store, put(1, "a", Expected::Absent)).await;
    made(&store, put(2, "b", Expected::Absent)).await;
    let gone = made(&store, delete(3, "a", Expected::At(first))).await;
    let last = made(&store, put(4, "c", Expected::Absent)).await;

    // On the deletion's own revision, and beyond it: both times the deletion may not be missed.
    for compacted in [gone, last] {
        kit::compact(&turn.etcd, compacted).await;
        let told = timeout(Duration::from_secs(10), store.follow(first).next()).await.expect("news");
        assert_eq!(told, Some(Err(FollowError::Compacted { oldest: compacted })));
        let loaded = store.load().await.expect("it can be read");
        assert_eq!(loaded.position.revision, last);
        let keys: BTreeSet<_> = loaded.entries.into_iter().map(|entry| entry.key).collect();
        assert_eq!(keys, BTreeSet::from([key("b"), key("c")]));
    }

    // Who is at the last commit misses nothing, however much others have used etcd and it has compacted since.
    let beyond = kit::others_use_etcd(&turn.etcd).await;
    kit::compact(&turn.etcd, beyond).await;
    let mut feed = store.follow(last);
    let quiet = timeout(Duration::from_millis(500), feed.next()).await;
    assert!(quiet.is_err(), "there is nothing to tell: {quiet:?}");
    let next = made(&store, put(5, "d", Expected::Absent)).await;
    assert_eq!(contract::next(&mut feed).await.revision, next);
}

/// Puts one key again and again, as an engine would: what is unknown or refused goes in again as it is.
async fn write_on(store: EtcdStore, writer: u128, until: Instant) -> BTreeMap<Revision, OpId> {
    let name = format!("writer-{writer}");
    let (mut acked, mut expected, mut number) = (BTreeMap::new(), Expected::Absent, 0);
    while now() < until {
        number += 1;
        let proposal = put(writer * 1_000_000 + number, &name, expected);
        let give_up = now() + Duration::from_secs(30);
        let revision = loop {
            let begin = now();
            let outcome = one(&store, proposal.clone()).await;
            assert!(now() - begin < Duration::from_secs(3), "bounded, whatever happens: {outcome:?}");
            match outcome {
                Outcome::Committed(revision) => break revision,
                Outcome::Conflict(_) => panic!("nobody else writes {name}: {outcome:?} for {proposal:?}"),
                Outcome::Refused(_) | Outcome::Unknown => assert!(now() < give_up, "{outcome:?} for half a minute"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        assert!(acked.last_key_value().is_none_or(|(last, _)| *last < revision), "revisions rise");
        acked.insert(revision, proposal.op);
        expected = Expected::At(revision);
    }
    acked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_under_writes_loses_nothing_that_was_acknowledged() {
    let Some(mut turn) = Turn::take("etcd_store leader kill", 3) else { return };
    let store = open(&turn.etcd).await;
    let start = contract::head(&store).await;
    let begin = now();
    let until = begin + Duration::from_secs(8);
    let writers: Vec<_> = (1..=8).map(|writer| tokio::spawn(write_on(store.clone(), writer, until))).collect();
    let follower = Follower::start(&store, start);

    sleep(Duration::from_secs(3)).await;
    let leader = turn.etcd.wait_for_leader();
    let killed = now();
    turn.etcd.kill(leader);

    let mut acked = BTreeMap::new();
    for writer in writers {
        acked.append(&mut writer.await.expect("a writer"));
    }
    let told = follower.up_to(*acked.last_key_value().expect("a commit").0).await;
    assert!(told.is_sorted_by(|one, other| one.revision < other.revision), "in order");
    let ops: BTreeMap<OpId, Revision> = told.iter().map(|committed| (committed.op, committed.revision)).collect();
    assert_eq!(ops.len(), told.len(), "each commit once, each proposal once");
    let lost: Vec<_> = acked.iter().filter(|(revision, op)| ops.get(op) != Some(revision)).collect();
    assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
    assert!(told.iter().all(|committed| acked.contains_key(&committed.revision)), "nothing that nobody asked for");
    // What is stored is each writer's last word.
    let loaded = store.load().await.expect("it can be read");
    assert!(loaded.entries.iter().all(|entry| acked.get(&entry.revision) == Some(&entry.op)));
    assert_eq!(loaded.entries.len(), 8);

    let resumed = told.iter().filter(|committed| committed.at > killed).map(|committed| committed.at - killed);
    let gap = kit::longest_gap(&told);
    println!(
        "leader killed under writes: {} acknowledged, 0 lost, longest time without a commit {gap:.1?} (first after {:.1?})",
        acked.len(),
        resumed.min().expect("it goes on"),
    );
    assert!(gap < Duration::from_secs(5), "no commit for {gap:?}");

    turn.etcd.restart(leader);
    made(&store, put(9_000_000, "after", Expected::Absent)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_every_answer_comes_in_time_and_the_processor_rests() {
    let Some(turn) = Turn::take("etcd_store quorum", 3) else { return };
    let store = open(&turn.etcd).await;
    let first = made(&store, put(1, "a", Expected::Absent)).await;
    let follower = Follower::start(&store, first);
    // Two of three, the leader among them.
    let leader = turn.etcd.wait_for_leader();
    let other = (0..3).find(|member| *member != leader).expect("another one");
    turn.etcd.freeze(leader);
    turn.etcd.freeze(other);

    let (used, begin) = (cpu(), now());
    let mut slowest = Duration::ZERO;
    let mut outcomes = Vec::new();
    let proposal = put(2, "a", Expected::At(first));
    for number in 0..3 {
        let asked = now();
        let others = (0..50).map(|other| put(100 * (number + 1) + other, &format!("b-{other}"), Expected::Absent));
        outcomes.extend(contract::group(&store, std::iter::once(proposal.clone()).chain(others)).await);
        slowest = slowest.max(now() - asked);
        sleep(Duration::from_millis(500)).await;
    }
    assert!(store.load().await.is_err(), "an old answer is no answer");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Refused(_) | Outcome::Unknown)), "{outcomes:?}");
    assert!(slowest < Duration::from_millis(2_600), "a group took {slowest:?}");
    let share = (cpu() - used).as_secs_f64() / (now() - begin).as_secs_f64();
    println!(
        "without a quorum: a group of 51 is answered after {slowest:.1?} at most, {:.1} % of a core",
        share * 100.0
    );
    assert!(share < 0.30, "{:.0} % of a core", share * 100.0);

    turn.etcd.thaw(leader);
    turn.etcd.thaw(other);
    let back = now();
    let second = kit::until_made(&store, proposal, Duration::from_secs(15)).await;
    println!("with the quorum back: a commit after {:.1?}", now() - back);
    let told = follower.up_to(second).await;
    let hits: Vec<_> = told.iter().filter(|committed| committed.op == op(2)).collect();
    assert_eq!(hits.len(), 1, "made once, however often it was handed in");
    assert_eq!(hits[0].revision, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_gone_is_refused_in_words_and_found_again() {
    let Some(mut turn) = Turn::take("etcd_store gone", 1) else { return };
    let store = open(&turn.etcd).await;
    let first = made(&store, put(1, "a", Expected::Absent)).await;
    let follower = Follower::start(&store, first);
    turn.etcd.kill(0);
    // What was under way when it died is unknown; what comes after certainly went nowhere.
    sleep(Duration::from_secs(2)).await;
    let (used, begin) = (cpu(), now());
    let proposal = put(2, "a", Expected::At(first));
    for _ in 0..2 {
        let outcome = one(&store, proposal.clone()).await;
        assert!(matches!(&outcome, Outcome::Refused(reason) if reason.contains("refused")), "{outcome:?}");
    }
    let (took, share) = (now() - begin, (cpu() - used).as_secs_f64() / (now() - begin).as_secs_f64());
    println!("without an etcd: refused after {:.1?}, {:.1} % of a core", took / 2, share * 100.0);
    assert!(took < Duration::from_millis(5_200) && share < 0.20, "{took:?}, {share}");
    turn.etcd.restart(0);
    let back = now();
    let second = kit::until_made(&store, proposal, Duration::from_secs(20)).await;
    let told = follower.up_to(second).await;
    println!("restarted: a commit and its news after {:.1?}", told.last().expect("the commit").at - back);
    assert_eq!(told.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_watch_is_noticed_and_taken_up_elsewhere() {
    let Some(turn) = Turn::take("etcd_store dead watch", 3) else { return };
    let store = open(&turn.etcd).await;
    let start = contract::head(&store).await;
    let follower = Follower::start(&store, start);
    let mut acked = vec![made(&store, put(1, "a", Expected::Absent)).await];
    kit::wait_for_watch(&turn.etcd).await;
    let watched = turn.etcd.watched();
    turn.etcd.freeze(watched);
    let frozen = now();
    for number in 2..=5 {
        let last = *acked.last().expect("the first");
        acked.push(kit::until_made(&store, put(number, "a", Expected::At(last)), Duration::from_secs(10)).await);
    }
    let told = follower.up_to(*acked.last().expect("the first")).await;
    turn.etcd.thaw(watched);
    assert_eq!(told.iter().map(|committed| committed.revision).collect::<Vec<_>>(), acked, "every commit once");
    let late = told.last().expect("the last").at - frozen;
    println!("the watched member frozen: followed again after {late:.1?}");
    assert!(late < Duration::from_secs(8), "{late:?} without news");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_whose_answer_was_lost_is_made_once_whatever_happened_meanwhile() {
    let Some(turn) = Turn::take("etcd_store lost answers", 1) else { return };
    let proxy = Proxy::start(&turn.etcd.url(0)).await;
    let through = EtcdStore::open(&EtcdAddress::parse(&proxy.url()).expect("a URL")).await.expect("etcd is there");
    let direct = open(&turn.etcd).await;
    let start = contract::head(&direct).await;
    let here = made(&through, put(1, "there", Expected::Absent)).await;

    // Of each the request arrives and is made, and the answer gets lost.
    let both = Proposal {
        op: op(14),
        expected: vec![(key("both"), Expected::Absent), (key("other"), Expected::Absent)],
        writes: vec![
            Write::Put(key("both"), record(Emptiness::Emptied)),
            Write::Put(key("other"), record(Emptiness::Emptied)),
        ],
    };
    let cases = [
        put(11, "put", Expected::Absent),
        put(12, "overwritten", Expected::Absent),
        put(13, "deleted", Expected::Absent),
        both,
    ];
    proxy.mute(true);
    let begin = now();
    let outcomes = contract::group(&through, cases.clone()).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Unknown), "{outcomes:?}");
    assert!(now() - begin < Duration::from_millis(2_600), "it took {:?}", now() - begin);

    let stored: BTreeMap<_, _> = direct
        .load()
        .await
        .expect("it can be read")
        .entries
        .into_iter()
        .map(|entry| (entry.key, entry.revision))
        .collect();
    let of = |name: &str| *stored.get(&key(name)).expect("it was made");
    // Others go on with what was made.
    made(&direct, put(21, "overwritten", Expected::At(of("overwritten")))).await;
    let last = made(&direct, delete(22, "deleted", Expected::At(of("deleted")))).await;

    proxy.mute(false);
    let again = kit::until_known(&through, cases, Duration::from_secs(15)).await;
    // By what the records say, or their history; and what was deleted is not put back.
    let expected = ["put", "overwritten", "deleted", "both"].map(|name| Outcome::Committed(of(name)));
    assert_eq!(again, expected);
    assert_eq!(contract::head(&direct).await, last, "nothing was changed");

    // A deletion leaves nothing that says by whom.
    let deletion = delete(31, "there", Expected::At(here));
    proxy.mute(true);
    assert_eq!(one(&through, deletion.clone()).await, Outcome::Unknown);
    let gone = contract::head(&direct).await;
    let last = made(&direct, put(32, "there", Expected::Absent)).await;
    proxy.mute(false);
    assert_eq!(kit::until_made(&through, deletion, Duration::from_secs(15)).await, gone);
    assert_eq!(contract::head(&direct).await, last, "nothing was changed");

    let told = Follower::start(&direct, start).up_to(last).await;
    let mut ops: Vec<OpId> = told.iter().map(|committed| committed.op).collect();
    ops.sort_unstable();
    assert_eq!(ops, [1, 11, 12, 13, 14, 21, 22, 31, 32].map(op), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_went_nowhere_conflicts_with_what_came_before_it() {
    let Some(turn) = Turn::take("etcd_store lost requests", 1) else { return };
    let proxy = Proxy::start(&turn.etcd.url(0)).await;
    let through = EtcdStore::open(&EtcdAddress::parse(&proxy.url()).expect("a URL")).await.expect("etcd is there");
    let direct = open(&turn.etcd).await;
    proxy.deafen(true);
    let proposal = put(1, "a", Expected::Absent);
    assert_eq!(one(&through, proposal.clone()).await, Outcome::Unknown);
    let first = made(&direct, put(2, "a", Expected::Absent)).await;
    let last = made(&direct, delete(3, "a", Expected::At(first))).await;
    proxy.deafen(false);
    // The key is absent, as wanted, and it would be wrong to put it: the request may still be on its way.
    let again = kit::until_known(&through, [proposal], Duration::from_secs(15)).await;
    assert_eq!(again, [Outcome::Conflict(last)]);
    assert_eq!(contract::head(&direct).await, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lost_its_past_is_of_a_new_generation() {
    let Some(turn) = Turn::take("etcd_store restored", 1) else { return };
    let store = open(&turn.etcd).await;
    made(&store, put(1, "a", Expected::Absent)).await;
    let before = store.load().await.expect("it can be read").position;
    // As a backup that was taken from another cluster would have it.
    kit::write_identity(&turn.etcd, &format!("1 {} 1 123", before.store)).await;
    let told = timeout(Duration::from_secs(10), store.load()).await.expect("in time").expect("it can be read");
    assert_eq!((told.position.store, told.position.generation.0), (before.store.clone(), 2));
    assert_eq!(store.load().await.expect("it can be read").position.generation.0, 2, "once");

    kit::write_identity(&turn.etcd, &format!("2 {} 1 123 and more", before.store)).await;
    let refused = store.load().await.expect_err("it is newer");
    assert!(refused.reason.contains("format 2") && refused.reason.contains("newer registry"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_went_back_to_a_backup_is_noticed_while_the_registry_runs() {
    let Some(mut turn) = Turn::take("etcd_store backup", 1) else { return };
    let store = open(&turn.etcd).await;
    let first = made(&store, put(1, "a", Expected::Absent)).await;
    turn.etcd.back_up(0);
    kit::until_made(&store, put(2, "a", Expected::At(first)), Duration::from_secs(15)).await;
    let before = store.load().await.expect("it can be read").position;
    let mut feed = store.follow(before.revision);
    assert!(timeout(Duration::from_millis(500), feed.next()).await.is_err(), "there is nothing to tell");

    turn.etcd.restore(0);
    let told = kit::until_compacted(&store, before.revision).await;
    assert!(told <= before.revision, "what was there is gone: {told}");
    let after = kit::until_loaded(&store).await;
    assert_eq!(
        (&after.position.store, after.position.generation.0),
        (&before.store, 2),
        "the same store, another life"
    );
    assert_eq!(after.entries[0].revision, first);
    // It goes on from there, with revisions that were there before.
    let mut feed = store.follow(after.position.revision);
    let second = made(&store, put(3, "a", Expected::At(first))).await;
    assert_eq!(contract::next(&mut feed).await.revision, second);
    assert_eq!(store.load().await.expect("it can be read").position.generation.0, 2);

    turn.etcd.wipe(0);
    kit::until_compacted(&store, Revision::new(second.get() + 1_000)).await;
    let empty = kit::until_loaded(&store).await;
    assert!(empty.entries.is_empty() && empty.position.store != before.store, "another store: {:?}", empty.position);
    made(&store, put(4, "a", Expected::Absent)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_refuses_and_says_so() {
    // A quota that a few of the largest records exceed.
    let flags = ["--quota-backend-bytes", "1000000"];
    let Some(turn) = Turn::take_with("etcd_store full", 1, &flags) else { return };
    let store = open(&turn.etcd).await;
    let mut refused = None;
    for number in 1..200 {
        let names = (0..100).map(|name| format!("{}-{number}-{name}", "n".repeat(40)));
        let writes = names.map(|name| Write::Put(key(&name), record(Emptiness::Lapsed))).collect();
        let begin = now();
        match one(&store, Proposal { op: op(number), expected: Vec::new(), writes }).await {
            Outcome::Committed(_) => {}
            outcome => {
                refused = Some((outcome, now() - begin));
                break;
            }
        }
    }
    let (outcome, took) = refused.expect("it is full at some time");
    let Outcome::Refused(reason) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason, "etcdserver: mvcc: database space exceeded");
    assert!(took < Duration::from_millis(500), "it took {took:?}");
    let loaded = store.load().await.expect("it can be read");
    println!("full after {} records, refused after {took:.1?}", loaded.entries.len());

    // What etcd takes in no case is refused before it is asked, or by it.
    let writes: Vec<Write> = (0..200).map(|name| Write::Delete(key(&format!("s{name}")))).collect();
    let outcome = one(&store, Proposal { op: op(1_000), expected: Vec::new(), writes }).await;
    assert!(matches!(&outcome, Outcome::Refused(reason) if reason.contains("more than 120 keys")), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_records_are_read_in_pages_as_of_one_revision() {
    let Some(turn) = Turn::take("etcd_store pages", 1) else { return };
    let store = open(&turn.etcd).await;
    let proposals = (0..100_u128).map(|number| {
        let names = (0..100).map(|name| format!("service-{number}-{name}"));
        let writes = names.map(|name| Write::Put(key(&name), record(Emptiness::Lapsed))).collect();
        Proposal { op: op(number + 1), expected: Vec::new(), writes }
    });
    contract::group(&store, proposals).await.iter().for_each(|outcome| _ = contract::revision(outcome));
    let begin = now();
    let loaded = store.load().await.expect("it can be read");
    println!("10 000 records are read in {:.1?}", now() - begin);
    assert_eq!(loaded.entries.len(), 10_000);
    let keys: BTreeSet<_> = loaded.entries.iter().map(|entry| &entry.key).collect();
    assert_eq!(keys.len(), 10_000, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_etcd_is_the_start_fails_in_time_and_says_why() {
    let begin = now();
    let nobody = EtcdAddress::parse("127.0.0.1:9,127.0.0.1:10").expect("URLs");
    let error = EtcdStore::open(&nobody).await.expect_err("nobody is there").to_string();
    assert!(now() - begin < Duration::from_secs(13), "it took {:?}", now() - begin);
    assert!(error.contains("no etcd answers within 10s") && error.contains("127.0.0.1:9"), "{error}");
}
