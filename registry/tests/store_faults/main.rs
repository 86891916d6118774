//! A store on a disk that fails: the power goes at any moment, a sync or a write fails, there is no room, a sync lies.

mod sim;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use registry::catalog::{
    AdminRule, AdminState, Expected, Key, OpId, Proposal, Record, Revision, Selector, ServiceKey, StoreId, Timestamp,
    Write, Zone,
};
use registry::storage::{Fault, FileStore, Outcome};
use sim::{Event, Fate, Plan, Replay, Sim};

type Model = BTreeMap<Key, (Record, Revision)>;

fn open(sim: &Sim) -> Result<FileStore, Fault> {
    FileStore::open_on(sim.clone(), StoreId::parse("sim").expect("an id"))
}

fn contents(store: &FileStore) -> (u64, Model) {
    let loaded = store.try_load().expect("it can be read");
    let entries = loaded.entries.into_iter().map(|entry| (entry.key, (entry.record, entry.revision)));
    (loaded.position.revision.get(), entries.collect())
}

/// A key of a bounded set; long, so that pages split and merge.
fn key(number: u64) -> Key {
    let service = ServiceKey::parse("", "user-svc").expect("a name");
    Key::Rule(service, Selector::Zone(Zone::parse(&format!("zone-{number:050}")).expect("a zone")))
}

fn record(number: u64) -> Record {
    let until = Some(Timestamp::since_epoch(Duration::from_nanos(number)));
    Record::Rule(AdminRule { state: AdminState::Draining, until })
}

fn proposal(op: u64, key: Key, expected: Expected, write: Option<Record>) -> Arc<Proposal> {
    let write = match write {
        Some(record) => Write::Put(key.clone(), record),
        None => Write::Delete(key.clone()),
    };
    Arc::new(Proposal { op: OpId(u128::from(op).to_be_bytes()), expected: vec![(key, expected)], writes: vec![write] })
}

/// What a run leaves behind: what was done to the disk, and what the store held at each revision.
struct Run {
    events: Vec<Event>,
    models: Vec<Model>,
}

/// Puts and deletes in groups of one to eight.
fn run(ops: u64, seed: u64) -> Run {
    let mut rng = StdRng::seed_from_u64(seed);
    let sim = Sim::with(None);
    let store = open(&sim).expect("an empty disk");
    let mut models = vec![Model::new()];
    let mut op = 0;
    while op < ops {
        let mut group = Vec::new();
        let mut model = models.last().expect("the empty one").clone();
        for _ in 0..rng.random_range(1..=8) {
            op += 1;
            let key = key(rng.random_range(0..150));
            let kept = model.get(&key).map(|(_, revision)| *revision);
            // Those of this group have no revision that could be told before it is committed; they rest on their op ids.
            let committed = kept.filter(|revision| revision.get() < models.len() as u64);
            let expected = match (kept, committed) {
                (None, _) if !models.last().is_some_and(|before| before.contains_key(&key)) => Expected::Absent,
                (Some(_), Some(revision)) => Expected::At(revision),
                // Changed in this group already: let it be.
                _ => continue,
            };
            let next = Revision::new(models.len() as u64 + group.len() as u64);
            let write = (kept.is_none() || rng.random_bool(0.6)).then(|| record(op));
            match &write {
                Some(record) => drop(model.insert(key.clone(), (record.clone(), next))),
                None => drop(model.remove(&key)),
            }
            group.push((proposal(op, key, expected, write), model.clone()));
        }
        let (proposals, after): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let outcomes = store.try_commit(&proposals);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Committed(_))), "{outcomes:?}");
        models.extend(after);
        sim.note(Event::Acked(models.len() as u64 - 1));
    }
    Run { events: sim.events(), models }
}

/// T04. The power fails at every write and at every sync of a run, and of what was not synced anything may be there, in any
/// order, the last of it in part. What is found is what there was after some change, and every acknowledged one is in it.
#[test]
fn torn_write_every_boundary() {
    let run = run(500, 4);
    let mut images: Vec<(usize, u64, Option<Vec<u8>>)> = Vec::new();
    let (mut replay, mut acked, mut rng) = (Replay::default(), 0, StdRng::seed_from_u64(4));
    let (tested, found_newer) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let boundaries = run.events.len();
    let flush = |images: &mut Vec<(usize, u64, Option<Vec<u8>>)>| {
        std::thread::scope(|scope| {
            let half = images.len() / 2;
            let (one, other) = images.split_at(half);
            for part in [one, other] {
                let (run, tested, found_newer) = (&run, &tested, &found_newer);
                scope.spawn(move || {
                    for (at, acked, image) in part {
                        let store =
                            open(&Sim::with(image.clone())).unwrap_or_else(|fault| panic!("event {at}: {fault}"));
                        let (revision, found) = contents(&store);
                        assert!(revision >= *acked, "event {at}: {revision} is there and {acked} was acknowledged");
                        assert_eq!(found, run.models[revision as usize], "event {at}");
                        tested.fetch_add(1, Ordering::Relaxed);
                        found_newer.fetch_add(usize::from(revision > *acked), Ordering::Relaxed);
                    }
                });
            }
        });
        images.clear();
    };
    for (at, event) in run.events.iter().enumerate() {
        replay.take(event);
        match event {
            Event::Acked(revision) => {
                acked = *revision;
                images.push((at, acked, replay.image(|_| Fate::Lost)));
            }
            Event::Write { .. } | Event::SetLen { .. } => {
                let last = replay.pending() - 1;
                let torn = replay.image(|index| if index == last { Fate::Torn } else { Fate::There });
                let some = replay.image(|index| match rng.next_u32() % 4 {
                    0 => Fate::Lost,
                    1 if index == last => Fate::Torn,
                    _ => Fate::There,
                });
                images.extend([(at, acked, torn), (at, acked, some)]);
            }
            _ => {}
        }
        if images.len() >= 64 {
            flush(&mut images);
        }
    }
    flush(&mut images);
    let (tested, newer) = (tested.into_inner(), found_newer.into_inner());
    println!("T04: {boundaries} events, {tested} crash images, {newer} with more than was acknowledged, 0 with less");
    assert!(tested > boundaries, "{tested} images of {boundaries} events");
    assert!(newer > 0, "what is complete but not acknowledged is found too");
}

/// Commits one after the other, each handed in again until it is, and checks that none is made twice and that from
/// `check_from` on a crash loses none; how many were not committed the first time.
async fn write_through(plan: Plan, check_from: u64, ops: u64) -> (Sim, u64) {
    let sim = Sim::with(None);
    let store = open(&sim).expect("an empty disk");
    sim.plan(plan);
    let mut failed = 0;
    for op in 1..=ops {
        let proposal = proposal(op, key(op), Expected::Absent, Some(record(op)));
        let mut outcome = store.try_commit(std::slice::from_ref(&proposal)).remove(0);
        failed += u64::from(!matches!(outcome, Outcome::Committed(_)));
        let mut attempts = 0;
        while !matches!(outcome, Outcome::Committed(_)) {
            attempts += 1;
            assert!(attempts <= 5 && !matches!(outcome, Outcome::Conflict(_)), "{plan:?}: op {op}: {outcome:?}");
            // Within 5 s of when it can, it does.
            tokio::time::advance(Duration::from_secs(1)).await;
            outcome = store.try_commit(std::slice::from_ref(&proposal)).remove(0);
        }
        assert_eq!(outcome, Outcome::Committed(Revision::new(op)), "{plan:?}: none is made twice");
        if op < check_from {
            continue;
        }
        // Acknowledged, so that from now on no crash takes it.
        let after =
            open(&Sim::with(sim.after_power_loss())).unwrap_or_else(|fault| panic!("{plan:?}: op {op}: {fault}"));
        let (revision, found) = contents(&after);
        assert!(revision >= op && found.contains_key(&key(op)), "{plan:?}: op {op} was acknowledged and is lost");
    }
    let (revision, found) = contents(&store);
    assert_eq!((revision, found.len() as u64), (ops, ops), "{plan:?}");
    (sim, failed)
}

/// T06. The k-th sync fails once: nothing is acknowledged that is not on the disk, and the store goes on.
#[tokio::test(start_paused = true)]
async fn fsync_eio_once() {
    let (mut struck, mut refused) = (0, 0);
    for k in 1..=50 {
        let (sim, failed) =
            write_through(Plan { syncs: Some((k, k)), ..Plan::default() }, k.saturating_sub(1), k + 3).await;
        struck += sim.failed_syncs();
        refused += failed;
    }
    println!("T06: {struck} failed syncs, {refused} writes not acknowledged at first, 0 acknowledged and lost");
    assert_eq!(struck, 50);
}

/// The next one fails too, and the one after: in the midst of opening the file anew.
#[tokio::test(start_paused = true)]
async fn syncs_that_fail_in_a_row() {
    for (k, more) in (1..=12).flat_map(|k| (1..=3).map(move |more| (k, more))) {
        let (sim, _) =
            write_through(Plan { syncs: Some((k, k + more)), ..Plan::default() }, k.saturating_sub(1), 15).await;
        assert!(sim.failed_syncs() > 1);
    }
}

/// The k-th write fails, and some after it: because of the disk, or because it is full.
#[tokio::test(start_paused = true)]
async fn writes_that_fail() {
    for (k, full) in (1..=20).flat_map(|k| [(k, false), (k, true)]) {
        let plan = Plan { writes: Some((k, k + 2)), full, ..Plan::default() };
        let (_, failed) = write_through(plan, 1, 8).await;
        assert!(failed <= 3, "{plan:?}: {failed} of 8");
    }
}

/// The k-th write, and some after it, end in a panic of what is below: that is a fault as any, in the midst of a group or of
/// opening the file anew.
#[tokio::test(start_paused = true)]
async fn panics_below_are_faults() {
    let mut refused = 0;
    for (k, more) in (1..=20).flat_map(|k| (0..=2).map(move |more| (k, more))) {
        let plan = Plan { writes: Some((k, k + more)), panics: true, ..Plan::default() };
        let (_, failed) = write_through(plan, 1, 8).await;
        assert!(failed <= 3, "{plan:?}: {failed} of 8");
        refused += failed;
    }
    assert!(refused > 0, "{refused}");
}

/// A conflict with a proposal of the same group that fails with it is none with anything that there is: who was told of a
/// revision that does not come would wait for it for ever.
#[tokio::test(start_paused = true)]
async fn a_conflict_in_a_group_that_failed_names_no_revision_that_is_not_there() {
    let put = |op| proposal(op, key(1), Expected::Absent, Some(record(op)));
    let mut in_vain = 0;
    for (k, full) in (1..=8).flat_map(|k| [(k, false), (k, true)]) {
        let sim = Sim::with(None);
        let store = open(&sim).expect("an empty disk");
        sim.plan(Plan { writes: Some((k, k)), full, ..Plan::default() });
        let outcomes = store.try_commit(&[put(1), put(2)]);
        tokio::time::advance(Duration::from_secs(1)).await;
        let (stands_at, _) = contents(&store);
        if let Outcome::Conflict(at) = outcomes[1] {
            assert!(at.get() <= stands_at, "{k}: {outcomes:?}, and the store stands at {stands_at}");
            in_vain += u64::from(stands_at == 0);
        }
    }
    assert!(in_vain > 0, "a group fails after it was tried");
}

/// While there is no room, everything is refused and says why; what is there stays readable. Room again, it goes on by
/// itself.
#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_and_recovers() {
    let sim = Sim::with(None);
    let store = open(&sim).expect("an empty disk");
    let put = |op| proposal(op, key(op), Expected::Absent, Some(record(op)));
    assert_eq!(store.try_commit(&[put(1)]), [Outcome::Committed(Revision::new(1))]);
    sim.plan(Plan { writes: Some((1, u64::MAX)), full: true, ..Plan::default() });
    for op in 2..20 {
        let [outcome] = &store.try_commit(&[put(op)])[..] else { panic!("one answer") };
        assert!(matches!(outcome, Outcome::Refused(why) if why.contains("full")), "{outcome:?}");
        tokio::time::advance(Duration::from_millis(300)).await;
    }
    sim.plan(Plan::default());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(store.try_commit(&[put(20)]), [Outcome::Committed(Revision::new(2))]);
    let (_, found) = contents(&store);
    assert_eq!(found.into_keys().collect::<Vec<_>>(), [key(1), key(20)], "what was refused was not made");
}

/// A disk that says it has synced and has not loses what it lied about; what is found is still what there was once.
#[test]
fn a_sync_that_lies_loses_a_suffix_at_most() {
    for lies_from in 1..=20 {
        let sim = Sim::with(None);
        let store = open(&sim).expect("an empty disk");
        sim.plan(Plan { lies_from: Some(lies_from), ..Plan::default() });
        for op in 1..=30 {
            store.try_commit(&[proposal(op, key(op), Expected::Absent, Some(record(op)))]);
        }
        let (revision, found) = contents(&open(&Sim::with(sim.after_power_loss())).expect("it opens"));
        assert!(revision < 30 && found.len() as u64 == revision, "from {lies_from}: {revision}");
        assert!((1..=revision).all(|op| found.contains_key(&key(op))), "from {lies_from}: a prefix");
    }
}
