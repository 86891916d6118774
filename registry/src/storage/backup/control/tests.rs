//! The socket as the registry ends it.

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;

use super::*;
use crate::catalog::kit::service;
use crate::catalog::{Emptiness, Expected, Key, OpId, Proposal, Record, ServiceRecord, StoreId, Write as Change};

/// More records than what lies between two sides that do not read.
const RECORDS: u128 = 20_000;

fn put(number: u128) -> Arc<Proposal> {
    let key = Key::Service(service(&format!("service-{number}")));
    let record = Record::Service(ServiceRecord { emptiness: Emptiness::Lapsed });
    let expected = vec![(key.clone(), Expected::Absent)];
    Arc::new(Proposal { op: OpId(number.to_be_bytes()), expected, writes: vec![Change::Put(key, record)] })
}

/// A backup whose reader has stopped reading ends with the registry, and nothing of the file is held on.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_nobody_reads_ends_with_the_registry() {
    let folder = tempfile::Builder::new().prefix("control-").tempdir().unwrap();
    let store = FileStore::open(folder.path(), StoreId::parse("first").unwrap()).unwrap();
    for first in (0..RECORDS).step_by(1_000) {
        let group: Vec<_> = (first..first + 1_000).map(put).collect();
        store.try_commit(&group);
    }
    let control = Control::listen(folder.path(), store.clone()).unwrap();
    let dir = folder.path().to_owned();
    let stalled = tokio::task::spawn_blocking(move || ask(&dir).map_err(io::Error::other).unwrap()).await.unwrap();
    let file = Arc::downgrade(&store.tables().unwrap());
    assert_eq!(file.strong_count(), 2, "the store's, and the backup's");

    let began = clock::now();
    control.stop().await;
    assert_eq!(file.strong_count(), 1, "the store's");
    assert!(began.elapsed() < STALL / 2, "{:?}", began.elapsed());
    store.close();
    assert_eq!(file.strong_count(), 0);
    drop(stalled);
}

#[tokio::test]
async fn a_socket_is_the_owner_s_alone_and_replaces_what_was_left() {
    let folder = tempfile::Builder::new().prefix("control-").tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let store = FileStore::open(folder.path(), StoreId::parse("first").unwrap()).unwrap();
    let path = folder.path().join(SOCKET);
    drop(StdListener::bind(&path).unwrap());
    fs::create_dir(folder.path().join(PRIVATE)).unwrap();
    drop(StdListener::bind(folder.path().join(PRIVATE).join("s")).unwrap());

    let control = Control::listen(folder.path(), store.clone()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!folder.path().join(PRIVATE).exists());
    let dir = folder.path().to_owned();
    tokio::task::spawn_blocking(move || ask(&dir).map(drop)).await.unwrap().unwrap();
    control.stop().await;
    assert!(!path.exists());
}
