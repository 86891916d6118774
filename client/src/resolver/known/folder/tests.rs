//! Real files in a real folder.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;
use uuid::Uuid;

use super::super::record::Known;
use super::*;
use crate::resolver::news::{Admin, Epoch, Instance, Position};
use crate::serving::ServingStatus;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn folder() -> (TempDir, StateFolder) {
    let parent = tempfile::tempdir().unwrap();
    let folder = StateFolder::open(&parent.path().join("a/state")).unwrap();
    (parent, folder)
}

fn at(hour: u32) -> SystemTime {
    UNIX_EPOCH + HOUR * hour
}

/// What was known at revision `revision` of `store`, an hour old for each.
pub(in crate::resolver::known) fn record(store: &str, revision: u64) -> Record {
    let epoch = Epoch { store: store.into(), generation: 1 };
    let instance = Instance {
        id: Uuid::from_u128(1),
        incarnation: 1,
        revision,
        address: "127.0.0.1:7410".parse().unwrap(),
        zone: "".into(),
        weight: 100,
        serving: ServingStatus::Serving,
        admin: Admin::Enabled,
        methods: Arc::default(),
        descriptors: None,
    };
    Record {
        namespace: "default".into(),
        service: "user-svc".into(),
        position: Position { epoch: epoch.clone(), revision },
        vouched: at(revision as u32),
        instances: vec![Known { epoch, instance }],
    }
}

/// As it is at a time that is later than all others here.
fn save(folder: &StateFolder, record: &Record) -> Result<Saved, SaveError> {
    folder.save(record, at(1_000))
}

fn load(folder: &StateFolder, now: SystemTime) -> Result<Option<Record>, Unusable> {
    folder.load("default", "user-svc", now)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_was_saved_is_loaded_and_nobody_else_can_read_it() {
    let (_parent, folder) = folder();
    assert!(load(&folder, at(1)).unwrap().is_none());
    assert_eq!(save(&folder, &record("a", 1)).unwrap(), Saved::Written);
    assert_eq!(load(&folder, at(2)).unwrap(), Some(record("a", 1)));
    assert_eq!((mode(&folder.path), mode(&folder.file("default", "user-svc"))), (0o700, 0o600));
    assert!(matches!(load(&folder, at(26)), Err(Unusable::TooOld { .. })));
}

#[test]
fn a_file_is_never_replaced_by_older_news_of_the_same_store() {
    let (_parent, folder) = folder();
    save(&folder, &record("a", 5)).unwrap();
    assert_eq!(save(&folder, &record("a", 4)).unwrap(), Saved::NotNeeded);
    let restored = Epoch { store: "a".into(), generation: 0 };
    let older = Record { position: Position { epoch: restored, revision: 99 }, ..record("a", 99) };
    assert_eq!(save(&folder, &older).unwrap(), Saved::NotNeeded);
    assert_eq!(load(&folder, at(6)).unwrap(), Some(record("a", 5)));
    // The same, vouched for later.
    let renewed = Record { vouched: at(6), ..record("a", 5) };
    assert_eq!(save(&folder, &renewed).unwrap(), Saved::Written);
    assert_eq!(save(&folder, &record("a", 5)).unwrap(), Saved::NotNeeded);
}

#[test]
fn of_two_stores_the_one_that_was_heard_last_is_remembered() {
    let (_parent, folder) = folder();
    save(&folder, &record("a", 5)).unwrap();
    assert_eq!(save(&folder, &record("b", 4)).unwrap(), Saved::NotNeeded);
    let later = Record { vouched: at(6), ..record("b", 1) };
    assert_eq!(save(&folder, &later).unwrap(), Saved::Written);
    assert_eq!(load(&folder, at(6)).unwrap(), Some(later));
}

#[test]
fn a_file_that_a_wrong_clock_dated_ahead_does_not_outlast_what_is_heard_now() {
    let (_parent, folder) = folder();
    let ahead = |store| Record { vouched: at(20), ..record(store, 5) };
    for store in ["a", "b"] {
        folder.save(&ahead(store), at(20)).unwrap();
        assert_eq!(folder.save(&record("a", 5), at(5)).unwrap(), Saved::Written, "{store}");
        assert_eq!(load(&folder, at(5)).unwrap(), Some(record("a", 5)));
    }
    assert_eq!(folder.save(&ahead("a"), at(5)).unwrap(), Saved::NotNeeded, "nor is one written");
    let newer = Record { vouched: at(20), ..record("a", 6) };
    assert_eq!(folder.save(&newer, at(5)).unwrap(), Saved::Written, "what is newer is newer by any clock");
}

#[test]
fn an_emptied_service_is_remembered_as_such_where_it_was_known_before() {
    let (_parent, folder) = folder();
    let empty = |revision| Record { instances: vec![], ..record("a", revision) };
    assert_eq!(save(&folder, &empty(1)).unwrap(), Saved::NotNeeded);
    assert!(fs::read_dir(&folder.path).unwrap().next().is_none(), "names that are made up leave nothing behind");
    save(&folder, &record("a", 2)).unwrap();
    assert_eq!(save(&folder, &empty(3)).unwrap(), Saved::Written);
    assert_eq!(load(&folder, at(4)).unwrap(), Some(empty(3)));
}

#[test]
fn a_spoilt_file_is_refused_kept_and_set_aside_by_the_next_write() {
    let (_parent, folder) = folder();
    let path = folder.file("default", "user-svc");
    save(&folder, &record("a", 1)).unwrap();
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for spoilt in [&b""[..], b"rubbish", &good[..good.len() - 1], &flipped] {
        fs::write(&path, spoilt).unwrap();
        assert!(load(&folder, at(1)).is_err());
        assert_eq!(fs::read(&path).unwrap(), spoilt, "reading changes nothing");
        assert_eq!(save(&folder, &record("a", 1)).unwrap(), Saved::Written);
        assert_eq!(fs::read(path.with_extension("refused")).unwrap(), spoilt);
        assert_eq!(load(&folder, at(1)).unwrap(), Some(record("a", 1)));
    }
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let (_parent, folder) = folder();
    let path = folder.file("default", "user-svc");
    save(&folder, &record("a", 1)).unwrap();
    let mut newer = fs::read(&path).unwrap();
    newer[11] = 2;
    fs::write(&path, &newer).unwrap();
    assert!(matches!(load(&folder, at(1)), Err(Unusable::Newer { version: 2 })));
    assert!(matches!(save(&folder, &record("a", 2)), Err(SaveError::Newer { version: 2 })));
    assert_eq!(fs::read(&path).unwrap(), newer);
}

#[test]
fn a_file_of_another_service_is_not_taken_for_this_one() {
    let (_parent, folder) = folder();
    save(&folder, &record("a", 1)).unwrap();
    let other = folder.file("default", "order-svc");
    fs::rename(folder.file("default", "user-svc"), other).unwrap();
    let refused = folder.load("default", "order-svc", at(1)).unwrap_err();
    assert_eq!(refused.to_string(), "it is about user-svc in namespace default");
}

#[test]
fn what_others_could_write_is_not_believed() {
    let (_parent, folder) = folder();
    let path = folder.file("default", "user-svc");
    save(&folder, &record("a", 1)).unwrap();
    for mode in [0o620, 0o602] {
        set_mode(&path, mode);
        assert!(matches!(load(&folder, at(1)), Err(Unusable::WritableByOthers { mode: found }) if found == mode));
    }
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(matches!(load(&folder, at(1)), Err(Unusable::NotAFile)));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(load(&folder, at(1)), Err(Unusable::NotAFile)));
}

#[test]
fn a_file_of_another_user_is_not_believed() {
    let (_parent, folder) = folder();
    save(&folder, &record("a", 1)).unwrap();
    let stranger = StateFolder { owner: folder.owner + 1, ..folder };
    let refused = load(&stranger, at(1)).unwrap_err();
    assert!(matches!(refused, Unusable::OtherOwner { .. }), "{refused}");
}

#[test]
fn a_folder_that_others_could_write_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    for mode in [0o770, 0o707, 0o1777] {
        set_mode(parent.path(), mode);
        let refused = StateFolder::open(parent.path()).unwrap_err();
        assert!(matches!(refused, StateDirError::WritableByOthers { .. }), "{refused}");
    }
    set_mode(parent.path(), 0o755);
    assert!(StateFolder::open(parent.path()).is_ok(), "reading is no harm");
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(StateFolder::open(&file).is_err());
    assert!(StateFolder::open(&file.join("below")).is_err());
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let (_parent, folder) = folder();
    let file = File::create(folder.file("default", "user-svc")).unwrap();
    file.set_len(FILE_MAX as u64 + 1).unwrap();
    set_mode(&folder.file("default", "user-svc"), 0o600);
    assert!(matches!(load(&folder, at(1)), Err(Unusable::TooLarge { .. })));
}

#[test]
fn two_writers_take_turns_and_the_newest_state_wins() {
    let (parent, folder) = folder();
    let path = parent.path().join("a/state");
    let writers: Vec<_> = (0..4_u64)
        .map(|writer| {
            let path = path.clone();
            std::thread::spawn(move || {
                let folder = StateFolder::open(&path).unwrap();
                for round in 0..25 {
                    let record = record("a", round * 4 + writer);
                    while save(&folder, &record).unwrap() == Saved::Busy {
                        std::thread::yield_now();
                    }
                    assert!(folder.load("default", "user-svc", at(100)).is_ok() || round < 19, "never half a file");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(load(&folder, at(99)).unwrap(), Some(record("a", 99)));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
}

#[test]
fn what_a_writer_left_that_died_is_no_obstacle() {
    let (_parent, folder) = folder();
    let path = folder.file("default", "user-svc");
    fs::write(path.with_extension("new"), "half").unwrap();
    assert_eq!(save(&folder, &record("a", 1)).unwrap(), Saved::Written);
    assert_eq!(load(&folder, at(1)).unwrap(), Some(record("a", 1)));
}

#[test]
fn every_name_has_a_file_of_its_own_that_a_file_system_takes() {
    let label = "a".repeat(63);
    let long = [&*label; 3].join(".") + "." + &"b".repeat(61);
    let names =
        [("default", "user-svc"), ("user", "svc"), ("default", &*long), (&*label, &*long), ("default", &long[1..])];
    let stems: Vec<_> = names.iter().map(|(namespace, service)| file_stem(namespace, service)).collect();
    assert_eq!(stems[0], "default_user-svc");
    assert!(stems.iter().all(|stem| stem.len() + ".refused".len() <= 255 && !stem.contains('/')), "{stems:?}");
    let distinct: std::collections::BTreeSet<_> = stems.iter().collect();
    assert_eq!(distinct.len(), stems.len());
}
