//! When files are written, in paused time.

use std::time::UNIX_EPOCH;

use tempfile::TempDir;

use super::super::folder::tests::record;
use super::*;

fn keeper() -> (TempDir, Arc<StateFolder>, Keeper) {
    let parent = tempfile::tempdir().unwrap();
    let folder = Arc::new(StateFolder::open(&parent.path().join("state")).unwrap());
    (parent, folder.clone(), Keeper::new(folder, "default".into()))
}

fn known(revision: u64) -> Option<(Position, Vec<Known>)> {
    let record = record("a", revision);
    Some((record.position, record.instances))
}

fn revision(folder: &StateFolder) -> Option<u64> {
    folder.load("default", "user-svc", UNIX_EPOCH).unwrap().map(|record| record.position.revision)
}

/// Follows what the keeper says until this service is due.
async fn due(keeper: &mut Keeper) -> Arc<str> {
    loop {
        if let Kept::Due(service) = keeper.happens().await {
            return service;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn changes_of_a_second_are_one_write_of_the_last_state() {
    let (_parent, folder, mut keeper) = keeper();
    let start = clock::now();
    for after_ms in [0, 400, 900] {
        keeper.changed("user-svc".into(), start + Duration::from_millis(after_ms));
    }
    let service = due(&mut keeper).await;
    assert_eq!(clock::now() - start, SETTLE);
    keeper.write(service, known(3), UNIX_EPOCH);
    assert!(matches!(keeper.happens().await, Kept::Nothing));
    assert_eq!(revision(&folder), Some(3));
    assert!(keeper.behind.is_empty() && keeper.writing.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_followed_any_more_is_written_as_it_was() {
    let (_parent, folder, mut keeper) = keeper();
    keeper.part("user-svc", known(1), UNIX_EPOCH);
    assert!(keeper.behind.is_empty(), "what is on disk already is not written again");
    keeper.changed("user-svc".into(), clock::now());
    keeper.part("user-svc", known(2), UNIX_EPOCH);
    let service = due(&mut keeper).await;
    keeper.write(service, None, UNIX_EPOCH);
    keeper.happens().await;
    assert_eq!(revision(&folder), Some(2));
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_at_the_end_is_written_then() {
    let (_parent, folder, mut keeper) = keeper();
    keeper.changed("user-svc".into(), clock::now());
    keeper.last_words(|_| known(4), UNIX_EPOCH);
    assert_eq!(revision(&folder), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_another_process_holds_is_tried_again() {
    let (parent, folder, mut keeper) = keeper();
    let other = std::fs::File::open(parent.path().join("state")).unwrap();
    other.lock().unwrap();
    keeper.write("user-svc".into(), known(1), UNIX_EPOCH);
    keeper.happens().await;
    assert_eq!(revision(&folder), None);
    drop(other);
    let service = due(&mut keeper).await;
    // Also where the service is not followed any more.
    keeper.part(&service, known(1), UNIX_EPOCH);
    keeper.write(service, None, UNIX_EPOCH);
    keeper.happens().await;
    assert_eq!(revision(&folder), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_tried_again_a_minute_later() {
    let (parent, folder, mut keeper) = keeper();
    let state = parent.path().join("state");
    std::fs::rename(&state, parent.path().join("away")).unwrap();
    keeper.write("user-svc".into(), known(1), UNIX_EPOCH);
    keeper.happens().await;
    assert_eq!(keeper.behind["user-svc"].health, Health::Failing);
    std::fs::rename(parent.path().join("away"), &state).unwrap();
    let failed = clock::now();
    let service = due(&mut keeper).await;
    assert_eq!(clock::now() - failed, RETRY);
    keeper.write(service, known(1), UNIX_EPOCH);
    keeper.happens().await;
    assert_eq!((revision(&folder), keeper.behind.len()), (Some(1), 0));
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_a_service_that_is_not_followed_any_more_is_tried_once_more_and_let_go() {
    let (parent, _folder, mut keeper) = keeper();
    std::fs::rename(parent.path().join("state"), parent.path().join("away")).unwrap();
    // Parted before the write, and while it is under way.
    keeper.changed("user-svc".into(), clock::now());
    keeper.part("user-svc", known(1), UNIX_EPOCH);
    for tries in 1..=2 {
        let service = due(&mut keeper).await;
        keeper.write(service, None, UNIX_EPOCH);
        keeper.happens().await;
        assert_eq!(keeper.behind.len(), 2 - tries);
    }
    keeper.write("user-svc".into(), known(1), UNIX_EPOCH);
    keeper.part("user-svc", known(1), UNIX_EPOCH);
    keeper.happens().await;
    let service = due(&mut keeper).await;
    keeper.write(service, None, UNIX_EPOCH);
    keeper.happens().await;
    assert!(keeper.behind.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_works_for_one_service_does_not_end_what_fails_for_another() {
    let (_parent, folder, mut keeper) = keeper();
    let broken = folder.file("default", "user-svc");
    std::fs::create_dir_all(broken.with_extension("refused").join("not-empty")).unwrap();
    std::fs::write(&broken, "rubbish that cannot be set aside").unwrap();
    for service in ["user-svc", "order-svc", "user-svc"] {
        keeper.write(service.into(), known(1), UNIX_EPOCH);
        keeper.happens().await;
        assert_eq!(keeper.behind["user-svc"].health, Health::Failing);
    }
    assert!(folder.load("default", "order-svc", UNIX_EPOCH).unwrap().is_some());
    // A change in the meantime does not make it be said again, nor tried sooner.
    keeper.changed("user-svc".into(), clock::now());
    assert_eq!(keeper.behind["user-svc"].health, Health::Failing);
    let before = clock::now();
    due(&mut keeper).await;
    assert_eq!(clock::now() - before, RETRY);
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_a_service_that_is_followed_is_not_kept_twice() {
    let (parent, _folder, mut keeper) = keeper();
    std::fs::rename(parent.path().join("state"), parent.path().join("away")).unwrap();
    keeper.write("user-svc".into(), known(1), UNIX_EPOCH);
    keeper.happens().await;
    assert!(keeper.behind["user-svc"].parting.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_many_services_leave_behind_is_bounded() {
    let (_parent, _folder, mut keeper) = keeper();
    for n in 0..PARTINGS_MAX + 9 {
        let service = format!("svc-{n}");
        keeper.changed((*service).into(), clock::now());
        keeper.part(&service, known(1), UNIX_EPOCH);
    }
    assert_eq!(keeper.behind.len(), PARTINGS_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_day_without_changes_does_not_make_a_file_too_old() {
    let (_parent, _folder, mut keeper) = keeper();
    let start = clock::now();
    assert!(!keeper.refresh_is_due(start));
    assert!(keeper.refresh_is_due(start + REFRESH));
    assert!(!keeper.refresh_is_due(start + REFRESH + SETTLE));
    assert!(REFRESH * 4 < super::super::record::AGE_MAX);
}

#[tokio::test(start_paused = true)]
async fn many_services_are_read_a_few_at_a_time() {
    let (_parent, folder, mut keeper) = keeper();
    for n in 0..100 {
        let service = format!("svc-{n}");
        folder.save(&Record { service: (*service).into(), ..record("a", 1) }, UNIX_EPOCH).unwrap();
        keeper.read(service.into());
    }
    // By the real time of day, files that were last vouched for in 1970 are too old.
    for _ in 0..100 {
        assert!(keeper.reading.len() <= READS_MAX);
        assert!(matches!(keeper.happens().await, Kept::Nothing));
    }
    assert!(keeper.reading.is_empty() && keeper.unread.is_empty());
}
