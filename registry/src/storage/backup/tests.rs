//! Where a backup is written, and what cannot be restored.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::catalog::StoreId;
use crate::storage::FileStore;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("backup-").tempdir().unwrap()
}

fn id() -> StoreId {
    StoreId::parse("first").unwrap()
}

#[test]
fn what_lies_in_the_way_of_the_part_is_not_written_to() {
    let folder = folder();
    let dir = folder.path().join("a");
    drop(FileStore::open(&dir, id()).unwrap());
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    for (name, link) in [("linked", true), ("wide", false)] {
        let (file, part) = (folder.path().join(name), folder.path().join(format!("{name}.part")));
        if link {
            symlink(&elsewhere, &part).unwrap();
        } else {
            fs::write(&part, "left").unwrap();
            fs::set_permissions(&part, fs::Permissions::from_mode(0o666)).unwrap();
        }
        backup(&dir, &file).unwrap();
        let written = fs::symlink_metadata(&file).unwrap();
        assert!(written.is_file() && written.permissions().mode() & 0o777 == 0o600, "{name}: {written:?}");
        assert!(!part.exists(), "{name}");
    }
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
}

#[test]
fn a_file_that_came_meanwhile_is_not_replaced() {
    let folder = folder();
    let (part, file) = (folder.path().join("a.part"), folder.path().join("a"));
    fs::write(&part, "new").unwrap();
    fs::write(&file, "mine").unwrap();
    assert_eq!(put_in_place(&part, &file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    fs::remove_file(&file).unwrap();
    put_in_place(&part, &file).unwrap();
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), part.exists()), ("new", false));
}

#[test]
fn a_backup_that_nothing_can_follow_is_refused() {
    let folder = folder();
    let (file, dir) = (folder.path().join("a"), folder.path().join("b"));
    for (generation, revision) in [(u64::MAX, 1), (1, u64::MAX), (1, u64::MAX - RESTORED_GAP + 1)] {
        let position = Position { store: id(), generation: Generation(generation), revision: Revision::new(revision) };
        Writer::begin(File::create(&file).unwrap(), &position, SystemTime::UNIX_EPOCH).unwrap().end().unwrap();
        let error = restore(&file, &dir).unwrap_err();
        assert!(matches!(error, BackupError::Unsound { .. }), "{error}");
        assert!(error.to_string().contains(&format!("generation {generation} and revision {revision}")), "{error}");
        assert!(!dir.exists(), "nothing was begun");
    }
}
