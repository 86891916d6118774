//! The same promises as the other stores', and what a file adds: it is still there.

use super::*;
use crate::catalog::kit::service;
use crate::catalog::{Emptiness, Expected, Key, OpId, Position, Proposal, Record, ServiceRecord, Write};
use futures_util::{FutureExt, StreamExt};

fn op(number: u128) -> OpId {
    OpId(number.to_be_bytes())
}

fn key(name: &str) -> Key {
    Key::Service(service(name))
}

fn put(number: u128, name: &str, expected: Expected) -> Arc<Proposal> {
    let record = Record::Service(ServiceRecord { emptiness: Emptiness::Lapsed });
    let writes = vec![Write::Put(key(name), record)];
    Arc::new(Proposal { op: op(number), expected: vec![(key(name), expected)], writes })
}

fn delete(number: u128, name: &str, expected: Expected) -> Arc<Proposal> {
    Arc::new(Proposal { op: op(number), expected: vec![(key(name), expected)], writes: vec![Write::Delete(key(name))] })
}

fn id(text: &str) -> StoreId {
    StoreId::parse(text).unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("store-").tempdir().unwrap()
}

fn open(dir: &Path) -> FileStore {
    FileStore::open(dir, id("first")).unwrap()
}

fn committed(revision: u64) -> Outcome {
    Outcome::Committed(Revision::new(revision))
}

fn conflict(revision: u64) -> Outcome {
    Outcome::Conflict(Revision::new(revision))
}

#[test]
fn proposals_of_a_group_rest_on_those_before_them() {
    let folder = folder();
    let store = open(folder.path());
    let group = [
        put(1, "a", Expected::Absent),
        put(2, "a", Expected::Absent),
        put(3, "a", Expected::By(op(1))),
        delete(4, "a", Expected::By(op(3))),
        put(5, "a", Expected::By(op(3))),
        put(6, "a", Expected::By(op(4))),
        put(1, "a", Expected::Absent),
        put(7, "b", Expected::At(Revision::new(1))),
    ];
    let outcomes =
        [committed(1), conflict(1), committed(2), committed(3), conflict(3), committed(4), committed(1), conflict(4)];
    assert_eq!(store.try_commit(&group), outcomes);
    assert_eq!(store.try_commit(&[put(8, "a", Expected::At(Revision::new(4)))]), [committed(5)]);
    assert_eq!(store.try_commit(&[put(9, "a", Expected::By(op(4)))]), [conflict(5)], "a later write stands there");
}

#[test]
fn what_was_committed_is_there_after_the_next_start() {
    let folder = folder();
    let before = {
        let store = open(folder.path());
        store.try_commit(&[put(1, "b", Expected::Absent), put(2, "a", Expected::Absent)]);
        store.try_commit(&[delete(3, "b", Expected::By(op(1)))]);
        store.try_load().unwrap()
    };
    let store = FileStore::open(folder.path(), id("second")).unwrap();
    let loaded = store.try_load().unwrap();
    assert_eq!(loaded, before, "and a store keeps its identity");
    let first = Position { store: id("first"), generation: crate::catalog::Generation(1), revision: Revision::new(3) };
    assert_eq!(loaded.position, first);
    let [entry] = &loaded.entries[..] else { panic!("{loaded:?}") };
    assert_eq!((entry.key.clone(), entry.revision, entry.op), (key("a"), Revision::new(2), op(2)));

    assert_eq!(
        store.try_commit(&[delete(3, "b", Expected::By(op(1)))]),
        [committed(3)],
        "the last group is remembered"
    );
    assert_eq!(store.try_commit(&[put(4, "a", Expected::At(Revision::new(2)))]), [committed(4)]);
}

#[tokio::test]
async fn a_follower_gets_every_commit_once_and_in_order() {
    let folder = folder();
    let store = open(folder.path());
    store.commit(vec![put(1, "a", Expected::Absent), put(2, "b", Expected::Absent)]).await;
    let mut feed = store.follow(Revision::new(1));
    store.commit(vec![put(3, "c", Expected::Absent)]).await;
    for expected in [2, 3] {
        assert_eq!(feed.next().await.unwrap().unwrap().revision, Revision::new(expected));
    }
    assert!(feed.next().now_or_never().is_none(), "and then waits");

    drop((feed, store));
    let store = open(folder.path());
    let told = store.follow(Revision::new(2)).next().await.unwrap();
    assert_eq!(
        told,
        Err(FollowError::Compacted { oldest: Revision::new(4) }),
        "the past of another process is not kept"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_store_knows_everything_once_it_has_run_for_a_while() {
    let folder = folder();
    let store = open(folder.path());
    store.try_commit(&[put(1, "a", Expected::Absent)]);
    assert_eq!(store.try_load().unwrap().completeness, Completeness::Fresh);
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.try_load().unwrap().completeness, Completeness::Fresh, "it was ended too early");
    tokio::time::advance(COMPLETE_AFTER).await;
    store.try_commit(&[put(2, "b", Expected::Absent)]);
    drop(store);
    assert_eq!(open(folder.path()).try_load().unwrap().completeness, Completeness::Whole);
}

#[test]
fn a_folder_has_one_store_at_a_time() {
    let folder = folder();
    let store = open(folder.path());
    let second = FileStore::open(folder.path(), id("second")).unwrap_err();
    let said = second.to_string();
    assert!(matches!(second, OpenError::Taken { .. }), "{said}");
    assert!(said.contains(&format!("in use by process {}", std::process::id())), "{said}");
    drop(store);
    open(folder.path());
}

/// Who still reads a file that is closed, and lets go of it later, changes nothing of what the next one has written.
#[test]
fn a_closed_file_is_not_written_by_who_still_reads_it() {
    for dropped in [false, true] {
        let folder = folder();
        let store = open(folder.path());
        store.try_commit(&[put(1, "a", Expected::Absent)]);
        let read = store.tables().unwrap();
        if dropped {
            drop(store)
        } else {
            store.close()
        }

        let path = folder.path().join("registry.redb");
        let next = open(folder.path());
        next.try_commit(&[put(2, "b", Expected::Absent)]);
        let before = std::fs::read(&path).unwrap();
        drop(read);
        assert!(std::fs::read(&path).unwrap() == before, "something was written");
        drop(next);
        assert_eq!(open(folder.path()).try_load().unwrap().position.revision, Revision::new(2));
    }
}

#[test]
fn folder_and_files_are_the_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let dir = folder.path().join("below/registry");
    let _store = open(&dir);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in std::fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() {
    let folder = folder();
    drop(open(folder.path()));
    let path = folder.path().join("registry.redb");
    {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        const META: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("meta");
        transaction.open_table(META).unwrap().insert("format", 9_u32.to_le_bytes().as_slice()).unwrap();
        transaction.commit().unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    let error = FileStore::open(folder.path(), id("x")).unwrap_err();
    assert!(matches!(error, OpenError::Newer { fault: Fault::Newer { found: 9 }, .. }), "{error}");
    assert!(error.to_string().contains("format 9, and this registry knows formats up to 2"), "{error}");
    assert!(std::fs::read(&path).unwrap() == before, "nothing was written");
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_is() {
    for bytes in [Vec::new(), b"hello".to_vec(), vec![0; 100_000], b"redb\x1A\x0A\xA9\x0D\x0A".repeat(1_000)] {
        let folder = folder();
        let path = folder.path().join("registry.redb");
        std::fs::write(&path, &bytes).unwrap();
        let error = FileStore::open(folder.path(), id("x")).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(std::fs::read(&path).unwrap() == bytes, "nothing was written");
    }
}

/// Wherever a byte of a closed file changes, the store is the same as before, or it is refused and left as it is.
#[test]
fn a_damaged_file_is_refused_or_harmlessly_so() {
    let folder = folder();
    let sound = {
        let store = open(folder.path());
        for number in 0..40 {
            store.try_commit(&[put(number, &format!("service-{number}"), Expected::Absent)]);
        }
        store.try_load().unwrap()
    };
    let path = folder.path().join("registry.redb");
    let bytes = std::fs::read(&path).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    for at in (0..256).step_by(4).chain(used.iter().copied().step_by(used.len() / 100 + 1)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        match FileStore::open(folder.path(), id("x")) {
            Ok(store) => {
                assert_eq!(store.try_load().unwrap(), sound, "byte {at}");
                harmless += 1;
            }
            Err(error) => {
                assert!(matches!(error, OpenError::Damaged { .. } | OpenError::Newer { .. }), "byte {at}: {error}");
                assert!(std::fs::read(&path).unwrap() == damaged, "byte {at}: nothing was written");
                refused += 1;
            }
        }
    }
    println!("{refused} refused, {harmless} harmless");
    assert!(refused > 30, "{refused} refused, {harmless} harmless");
}
