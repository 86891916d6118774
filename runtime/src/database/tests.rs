//! The database as several processes and callers meet it: every test opens real files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use prost_types::Timestamp;
use sqlx::Row as _;
use tempfile::TempDir;

use super::{
    Answered, Begun, Call, Database, DatabaseError, DatabaseUrl, LEDGER_BYTES, LEDGER_KEPT, OpenError, READERS, Schema,
    UnixMillis, WRITE_QUEUE, WRITE_WAIT, ledger,
};

const SCHEMA: Schema = Schema {
    owner: "test",
    application_id: 0x7465_7374,
    migrations: &[("notes", "CREATE TABLE notes (id BIGINT NOT NULL PRIMARY KEY, text TEXT NOT NULL UNIQUE)")],
};

fn url(folder: &Path) -> DatabaseUrl {
    format!("sqlite:{}", folder.join("data/notes.db").display()).parse().unwrap()
}

async fn open(folder: &TempDir) -> Database {
    Database::open(&url(folder.path()), &SCHEMA).await.unwrap()
}

/// The simplest message there is: an answer, or a request, told apart by a number.
fn message(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn call(key: &str, request: i64) -> Call {
    Call::new("Note", key, &message(request))
}

/// Writes a note that answers the call.
async fn note(database: &Database, call: Call, id: i64) -> Result<Answered<Timestamp>, DatabaseError> {
    match database.begin(call).await? {
        Begun::Answered(answered) => Ok(answered),
        Begun::Fresh(mut work) => {
            let insert =
                sqlx::query("INSERT INTO notes (id, text) VALUES ($1, $2)").bind(id).bind(format!("note {id}"));
            insert.execute(work.connection()).await?;
            work.finish(message(id)).await.map(Answered::Same)
        }
    }
}

async fn count(database: &Database, table: &'static str) -> i64 {
    let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
    sqlx::query(sql).fetch_one(database.read().await.unwrap().connection()).await.unwrap().get(0)
}

#[tokio::test]
async fn a_connection_is_durable_strict_and_on_a_wal() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder).await;
    for (pragma, expected) in [
        ("PRAGMA journal_mode", "wal"),
        ("PRAGMA synchronous", "2"),
        ("PRAGMA foreign_keys", "1"),
        ("PRAGMA trusted_schema", "0"),
    ] {
        let mut work = match database.begin::<Timestamp>(call(pragma, 1)).await.unwrap() {
            Begun::Fresh(work) => work,
            Begun::Answered(_) => panic!("nothing was asked before"),
        };
        let row = sqlx::query(pragma).fetch_one(work.connection()).await.unwrap();
        let found = row.try_get::<String, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(|number| number.to_string()));
        assert_eq!(found.unwrap(), expected, "{pragma}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().unwrap();
    let database = open(&folder).await;
    note(&database, call("a", 1), 1).await.unwrap();
    for entry in std::fs::read_dir(folder.path().join("data")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", entry.path().display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_openers_of_an_empty_folder_all_succeed() {
    for _ in 0..20 {
        let folder = TempDir::new().unwrap();
        let url = url(folder.path());
        let start = Arc::new(tokio::sync::Barrier::new(5));
        let openers: Vec<_> = (1..=5)
            .map(|id| {
                let (url, start) = (url.clone(), Arc::clone(&start));
                tokio::spawn(async move {
                    start.wait().await;
                    let database = Database::open(&url, &SCHEMA).await.unwrap();
                    note(&database, call(&id.to_string(), id), id).await.unwrap();
                    count(&database, "notes").await
                })
            })
            .collect();
        let mut most = 0;
        for opener in openers {
            most = most.max(opener.await.unwrap());
        }
        assert_eq!(most, 5);
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_kept() {
    let folder = TempDir::new().unwrap();
    let url = url(folder.path());
    std::fs::create_dir_all(url.path().parent().unwrap()).unwrap();
    let text = "these are my notes, not a database\n".repeat(100);
    std::fs::write(url.path(), &text).unwrap();
    let error = Database::open(&url, &SCHEMA).await.unwrap_err();
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);
    assert_eq!(std::fs::read_to_string(url.path()).unwrap(), text);
}

#[tokio::test]
async fn another_programs_database_is_refused_and_kept() {
    let folder = TempDir::new().unwrap();
    open(&folder).await.close().await;
    let before = std::fs::read(url(folder.path()).path()).unwrap();
    let other = Schema { owner: "other", application_id: 1, ..SCHEMA };
    let error = Database::open(&url(folder.path()), &other).await.unwrap_err();
    assert!(matches!(error, OpenError::Foreign { owner: "other", .. }), "{error}");
    assert_eq!(std::fs::read(url(folder.path()).path()).unwrap(), before);
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder).await;
    for id in 0..200 {
        note(&database, call(&format!("key {id}"), id), id).await.unwrap();
    }
    database.close().await;
    let path = url(folder.path()).path().to_owned();
    let whole = std::fs::read(&path).unwrap();
    // Every page but the first, which holds the header.
    let mut scribbled = whole.clone();
    scribbled[4096..].fill(0xa5);
    for damaged in [scribbled, whole[..4096].to_vec()] {
        std::fs::write(&path, &damaged).unwrap();
        let error = Database::open(&url(folder.path()), &SCHEMA).await.unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert_eq!(error.to_string().lines().count(), 1);
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(count(&open(&folder).await, "notes").await, 200);
}

#[tokio::test]
async fn a_schema_from_the_future_is_refused() {
    let folder = TempDir::new().unwrap();
    open(&folder).await.close().await;
    let older = Schema { migrations: &[], ..SCHEMA };
    let error = Database::open(&url(folder.path()), &older).await.unwrap_err();
    assert!(matches!(error, OpenError::Migrate { .. }), "{error}");
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_and_another_is_told_apart() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (open(&folder).await, open(&folder).await);
    assert_eq!(note(&first, call("a", 1), 7).await.unwrap(), Answered::Same(message(7)));
    // Another instance would have written note 8.
    assert_eq!(note(&second, call("a", 1), 8).await.unwrap(), Answered::Same(message(7)));
    assert_eq!(note(&second, call("a", 2), 8).await.unwrap(), Answered::Otherwise);
    assert_eq!(second.recall(&call("a", 1)).await.unwrap(), Some(Answered::Same(message(7))));
    assert_eq!(second.recall::<Timestamp>(&call("b", 1)).await.unwrap(), None);
    assert_eq!(count(&first, "notes").await, 1);
}

#[tokio::test]
async fn a_write_that_is_not_finished_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder).await;
    let Begun::Fresh(mut work) = database.begin::<Timestamp>(call("a", 1)).await.unwrap() else { panic!("fresh") };
    sqlx::query("INSERT INTO notes (id, text) VALUES (1, 'lost')").execute(work.connection()).await.unwrap();
    drop(work);
    assert_eq!(note(&database, call("a", 1), 2).await.unwrap(), Answered::Same(message(2)));
    assert_eq!(count(&database, "notes").await, 1);
}

#[tokio::test]
async fn a_refused_write_is_not_remembered() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder).await;
    note(&database, call("a", 1), 1).await.unwrap();
    assert!(matches!(note(&database, call("b", 1), 1).await, Err(DatabaseError::NotUnique)));
    assert_eq!(count(&database, "ledger").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_each_request_is_done_once() {
    let folder = TempDir::new().unwrap();
    // Three handles stand for three processes: SQLite's locks are between connections.
    let databases = [open(&folder).await, open(&folder).await, open(&folder).await];
    let tasks: Vec<_> = (0..120)
        .map(|index: i64| {
            let database = databases[index as usize % 3].clone();
            let request = index / 6;
            tokio::spawn(async move { note(&database, call(&format!("request {request}"), request), index).await })
        })
        .collect();
    let mut answers = std::collections::BTreeMap::<i64, i64>::new();
    for (index, task) in (0..).zip(tasks) {
        let Answered::Same(answer) = task.await.unwrap().unwrap() else { panic!("the same request") };
        assert_eq!(*answers.entry(index / 6).or_insert(answer.seconds), answer.seconds);
    }
    assert_eq!(count(&databases[0], "notes").await, 20);
}

#[tokio::test]
async fn a_locked_database_is_unavailable_within_the_wait_and_fine_afterwards() {
    let folder = TempDir::new().unwrap();
    let (holder, other) = (open(&folder).await, open(&folder).await);
    let Begun::Fresh(held) = holder.begin::<Timestamp>(call("a", 1)).await.unwrap() else { panic!("fresh") };
    let asked = crate::clock::now();
    assert!(matches!(note(&other, call("b", 1), 1).await, Err(DatabaseError::Busy)));
    let waited = asked.elapsed();
    assert!(waited >= WRITE_WAIT && waited < WRITE_WAIT + Duration::from_millis(500), "{waited:?}");
    assert_eq!(count(&other, "notes").await, 0, "readers are not held up");
    drop(held);
    note(&other, call("b", 1), 1).await.unwrap();
}

#[tokio::test]
async fn calls_that_are_dropped_while_they_wait_leave_the_writer_free() {
    let folder = TempDir::new().unwrap();
    let (holder, other) = (open(&folder).await, open(&folder).await);
    let Begun::Fresh(held) = holder.begin::<Timestamp>(call("a", 1)).await.unwrap() else { panic!("fresh") };
    for index in 0..10 {
        let waiting = note(&other, call("b", index), index);
        assert!(tokio::time::timeout(Duration::from_millis(7), waiting).await.is_err());
    }
    drop(held);
    note(&other, call("c", 1), 1).await.unwrap();
    assert_eq!(count(&other, "notes").await, 1);
}

#[tokio::test]
async fn a_statement_ends_when_its_caller_has_gone() {
    const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let folder = TempDir::new().unwrap();
    let database = open(&folder).await;
    for _ in 0..2 * READERS {
        let mut read = database.read().await.unwrap();
        let mut rows = sqlx::query(ENDLESS).fetch(read.connection());
        assert_eq!(rows.next().await.unwrap().unwrap().get::<i64, _>(0), 1);
    }
    assert_eq!(count(&database, "notes").await, 0);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder).await;
    let Begun::Fresh(held) = database.begin::<Timestamp>(call("held", 1)).await.unwrap() else { panic!("fresh") };
    // The holder has the first place.
    let mut waiting = tokio::task::JoinSet::new();
    for index in 1..=WRITE_QUEUE as i64 {
        let database = database.clone();
        waiting.spawn(async move { note(&database, call(&index.to_string(), 1), index).await });
    }
    let first = waiting.join_next().await.unwrap().unwrap();
    assert!(matches!(first, Err(DatabaseError::QueueFull)), "{first:?}");
    drop(held);
}

/// A day and an hour after whatever the clock says.
fn tomorrow() -> UnixMillis {
    UnixMillis(UnixMillis::now().0 + 25 * 60 * 60 * 1000)
}

#[tokio::test]
async fn the_ledger_forgets_after_a_day_and_not_before() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder).await;
    for id in 0..20 {
        note(&database, call(&format!("old {id}"), id), id).await.unwrap();
    }
    assert_eq!(count(&database, "ledger").await, 20);
    let later = database.clone().with_calendar(tomorrow);
    for id in 20..23 {
        note(&later, call(&format!("new {id}"), id), id).await.unwrap();
    }
    assert_eq!(count(&database, "ledger").await, 3, "each write forgets more than it adds");
    assert_eq!(note(&later, call("new 20", 20), 99).await.unwrap(), Answered::Same(message(20)));
    assert!(LEDGER_KEPT >= Duration::from_secs(24 * 60 * 60));
}

#[tokio::test]
async fn a_full_ledger_refuses_new_keys_until_old_ones_may_go() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder).await;
    note(&database, call("first", 1), 1).await.unwrap();
    note(&database, call("second", 1), 2).await.unwrap();
    let mut write = database.write().await.unwrap();
    // As if the second entry had been of this size.
    let grow =
        sqlx::query("UPDATE ledger SET position = position + $1 WHERE request_key = 'second'").bind(LEDGER_BYTES);
    grow.execute(write.connection()).await.unwrap();
    write.commit().await.unwrap();
    let full = note(&database, call("third", 1), 3).await;
    assert!(matches!(full, Err(DatabaseError::LedgerFull)), "{full:?}");
    assert_eq!(note(&database, call("first", 1), 9).await.unwrap(), Answered::Same(message(1)), "promises are kept");
    note(&database.with_calendar(tomorrow), call("third", 1), 3).await.unwrap();
}

#[tokio::test]
async fn every_query_of_the_ledger_uses_an_index() {
    let folder = TempDir::new().unwrap();
    let database = open(&folder).await;
    assert_eq!(database.unindexed_steps(ledger::RECALL).await.unwrap(), [""; 0]);
    // The two ends of the ledger, and its oldest entries: along the index from one end, up to the LIMIT.
    let in_order = "SCAN ledger USING COVERING INDEX sqlite_autoindex_ledger_1";
    for (bounded, scans, limits) in [(ledger::ENDS, 2, 2), (ledger::PRUNE, 1, 1)] {
        assert_eq!(database.unindexed_steps(bounded).await.unwrap(), vec![in_order; scans], "{bounded}");
        assert_eq!(bounded.matches("ORDER BY position").count(), scans, "{bounded}");
        assert_eq!(bounded.matches("LIMIT").count(), limits, "{bounded}");
    }
    let unindexed =
        database.unindexed_steps("SELECT method FROM ledger WHERE result = $1 ORDER BY digest").await.unwrap();
    assert_eq!(unindexed, ["SCAN ledger", "USE TEMP B-TREE FOR ORDER BY"], "the check sees what it should");
    let whole_index = database.unindexed_steps("SELECT COUNT(*) FROM ledger").await.unwrap();
    assert_eq!(whole_index, [in_order], "an index read from end to end is a whole table too");
}
