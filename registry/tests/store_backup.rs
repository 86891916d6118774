//! Backups: of a store that nobody has open, of one that serves, restored, verified; and what is damaged is told.

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use registry::catalog::StoreId;
use registry::storage::{Completeness, FileStore, Loaded};
use registry::store::{BackupError, Summary, backup, restore, verify};
use registry::{Settings, StorePlace};
use support::{Door, lease_of, register, registration, resolve, settings};

fn on_file(dir: &Path) -> Settings {
    Settings { store: StorePlace::File(dir.to_owned()), ..settings() }
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("backup-").tempdir().expect("a temporary folder")
}

/// What a store holds that nobody has open.
fn load(dir: &Path) -> Loaded {
    let store = FileStore::open(dir, StoreId::parse("new").expect("an id")).expect("it opens");
    store.try_load().expect("it can be read")
}

/// A store with ten instances, two goodbyes and a rule.
async fn fill(door: &Door) {
    use mesh_api::registry::v1 as pb;
    let mut client = door.client().await;
    for number in 1..=10 {
        let granted = register(&mut client, registration(number)).await;
        if number <= 2 {
            let target = Some(pb::deregister_request::Target::Lease(lease_of(&granted)));
            client.deregister(pb::DeregisterRequest { target }).await.expect("gone");
        }
    }
    let by = Some(pb::selector::By::Zone("eu-1a".to_owned()));
    let rule = pb::SetAdminStateRequest {
        service: "user-svc".to_owned(),
        selector: Some(pb::Selector { by }),
        state: pb::AdminState::Draining.into(),
        ..pb::SetAdminStateRequest::default()
    };
    client.set_admin_state(rule).await.expect("a rule");
}

fn expect_counts(summary: &Summary) {
    assert_eq!((summary.services, summary.instances, summary.removals, summary.rules), (1, 8, 2, 1), "{summary:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_registry_restored_into_an_empty_folder_is_equal() {
    let folder = folder();
    let (dir, file, copy) = (folder.path().join("a"), folder.path().join("a.backup"), folder.path().join("b"));
    let door = Door::open_with(on_file(&dir)).await;
    fill(&door).await;

    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("control.sock"))), (0o700, 0o600));
    let (of, to) = (dir.clone(), file.clone());
    let (taken, seen) = tokio::task::spawn_blocking(move || (backup(&of, &to), verify(&of))).await.expect("no panic");
    let (taken, seen) = (taken.expect("a backup"), seen.expect("sound"));
    expect_counts(&taken);
    assert_eq!(Summary { taken_at: None, ..taken.clone() }, Summary { taken_at: None, ..seen });
    assert_eq!(mode(&file), 0o600);
    let mut client = door.client().await;
    assert_eq!(resolve(&mut client, "user-svc").await.expect("it serves on").instances.len(), 8);
    drop(client);
    door.registry.shutdown().await;

    let again = verify(&file).expect("sound");
    assert_eq!(again, taken);
    let restored = restore(&file, &copy).expect("an empty folder");
    expect_counts(&restored);
    let (was, is) = (load(&dir), load(&copy));
    assert_eq!(was.entries, is.entries, "record for record");
    assert_eq!(was.position.store, is.position.store);
    assert!(is.position.generation > was.position.generation && is.position.revision > was.position.revision);
    assert_eq!(is.position.includes(&was.position), Some(true));
    assert_eq!(is.completeness, Completeness::Fresh, "who came after the backup is missing, and may live");

    // The registry on it goes on: the lease of before is good.
    let door = Door::open_with(on_file(&copy)).await;
    let mut client = door.client().await;
    assert_eq!(resolve(&mut client, "user-svc").await.expect("known").instances.len(), 8);
    let granted = register(&mut client, registration(11)).await;
    assert!(granted.incarnation > restored.position.revision.get(), "no incarnation comes twice");
    drop(client);
    door.registry.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_store_is_backed_up_and_what_is_in_the_way_is_told() {
    let folder = folder();
    let (dir, file) = (folder.path().join("a"), folder.path().join("a.backup"));
    assert!(matches!(backup(&dir, &file), Err(BackupError::NoStore(_))), "and no folder is made");
    assert!(matches!(verify(&folder.path().join("none")), Err(BackupError::Io { .. })));
    assert!(!dir.exists());

    let door = Door::open_with(on_file(&dir)).await;
    fill(&door).await;
    door.registry.shutdown().await;
    assert!(!dir.join("control.sock").exists(), "it goes with the registry");
    expect_counts(&backup(&dir, &file).expect("a backup"));
    expect_counts(&verify(&dir).expect("sound"));
    assert!(matches!(backup(&dir, &file), Err(BackupError::Exists(_))));
    assert!(matches!(restore(&file, &dir), Err(BackupError::NotEmpty(_))));
    assert!(!folder.path().join("a.backup.part").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_not_what_it_was_is_refused_whole() {
    let folder = folder();
    let (dir, file) = (folder.path().join("a"), folder.path().join("a.backup"));
    let door = Door::open_with(on_file(&dir)).await;
    fill(&door).await;
    door.registry.shutdown().await;
    backup(&dir, &file).expect("a backup");
    let sound = fs::read(&file).expect("it is there");

    let copy = folder.path().join("b");
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).expect("written");
        assert!(matches!(verify(&file), Err(BackupError::Unsound { .. })), "{what}");
        assert!(matches!(restore(&file, &copy), Err(BackupError::Unsound { .. })), "{what}");
        assert!(!copy.exists(), "{what}: nothing was begun");
    };
    for at in (0..sound.len()).step_by(7) {
        refused(&sound[..at], &format!("cut at {at}"));
        let mut flipped = sound.clone();
        flipped[at] ^= 0x04;
        refused(&flipped, &format!("flipped at {at}"));
    }
    refused(&[&sound[..], b"x"].concat(), "something behind it");
}
