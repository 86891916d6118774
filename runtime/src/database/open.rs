//! Opening: from a path to connections on a database that is ours, whole and of today's schema.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Decode, SqlSafeStr, Sqlite, SqliteConnection, Type};
use tokio::time::Instant;

use super::error::{OpenError, SQLITE_CORRUPT, SQLITE_NOTADB, primary_code};
use super::location::DatabaseUrl;
use crate::clock;

/// What a program keeps in its database.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The program, for messages.
    pub owner: &'static str,
    /// Stands in the file's header (`PRAGMA application_id`); a file with another one is left alone.
    pub application_id: u32,
    /// Name and SQL of each step, in order. A step that has been released never changes; a new one goes to the end.
    pub migrations: &'static [(&'static str, &'static str)],
}

/// How long to wait for others that open the same database. Each takes some milliseconds, a long migration more.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// How often to try the lock meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(5);
/// How long a statement of the opening waits for the writes of instances that are already running.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Older ones can corrupt a database in WAL mode when two connections checkpoint at once.
const SQLITE_LEAST: (&str, [u32; 3]) = ("3.51.3", [3, 51, 3]);
/// A check of the whole file reads it all: some 0.2 s for this many bytes. A larger file is opened unchecked.
const CHECKED_BYTES: u64 = 256 << 20;
/// Version of a program's first migration; those below are the runtime's own.
const FIRST_OWN_MIGRATION: i64 = 1000;
/// Tables of the runtime, in every database.
const SHARED_MIGRATIONS: &[(&str, &str)] = &[("ledger", include_str!("migrations/0001_ledger.sql"))];

/// Held while a database is opened; dropping it, or the end of the process, lets the next one in.
pub(super) struct OpenLock {
    _file: File,
}

impl OpenLock {
    /// Makes the database's folder and takes the lock beside it. The lock file stays: to delete it would let two
    /// processes hold two files of one name.
    pub(super) async fn acquire(url: &DatabaseUrl) -> Result<Self, OpenError> {
        if let Some(folder) = url.path().parent() {
            let made = tokio::fs::create_dir_all(folder).await;
            made.map_err(|source| OpenError::Folder { path: url.path().to_owned(), source })?;
        }
        let path = url.lock_path();
        let failed = |source| OpenError::Lock { path: path.clone(), source };
        let file = private(OpenOptions::new().create(true).truncate(false)).write(true).open(&path).map_err(failed)?;
        let deadline = clock::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) if clock::now() < deadline => pause(deadline).await,
                Err(TryLockError::WouldBlock) => {
                    return Err(OpenError::LockHeld { path, waited_s: LOCK_WAIT.as_secs() });
                }
            }
        }
    }
}

async fn pause(deadline: Instant) {
    tokio::time::sleep_until(deadline.min(clock::now() + LOCK_POLL)).await;
}

/// Only the owner may read what holds password hashes.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Brings the file to today's schema and gives the connection that did it: hold it until others are open, so that the
/// write-ahead log does not come and go. Call it with the lock held.
pub(super) async fn prepare(url: &DatabaseUrl, schema: &Schema) -> Result<SqliteConnection, OpenError> {
    let path = url.path();
    match private(OpenOptions::new().write(true).create_new(true)).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(explain(path, sqlx::Error::Io(error)));
        }
        _ => {}
    }
    let connection = options(url).busy_timeout(BUSY_WAIT).connect().await.map_err(|error| explain(path, error))?;
    let mut opening = Opening { connection, path, schema };
    opening.require_version().await?;
    // Nothing is written before the file is known to be ours.
    if opening.is_fresh().await? {
        opening.require_wal().await?;
        opening.claim().await?;
    } else {
        opening.require_ours().await?;
        opening.require_whole().await?;
        opening.require_wal().await?;
    }
    opening.migrate().await?;
    Ok(opening.connection)
}

/// What every connection has in common. The journal mode is not among it: it is a property of the file, set once.
pub(super) fn options(url: &DatabaseUrl) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(url.path())
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full)
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

/// Tells a damaged or foreign file from the rest of what SQLite can say.
pub(super) fn explain(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match primary_code(&error) {
        Some(SQLITE_NOTADB) => OpenError::NotADatabase { path },
        Some(SQLITE_CORRUPT) => OpenError::Damaged { path, detail: error.to_string() },
        _ => OpenError::Sqlite { path, source: error },
    }
}

/// One database on its way to being open.
struct Opening<'a> {
    connection: SqliteConnection,
    path: &'a Path,
    schema: &'a Schema,
}

impl Opening<'_> {
    async fn ask<T>(&mut self, question: &'static str) -> Result<T, OpenError>
    where
        T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + Send + Unpin,
    {
        let answer = sqlx::query_scalar(question).fetch_one(&mut self.connection).await;
        answer.map_err(|error| explain(self.path, error))
    }

    async fn require_version(&mut self) -> Result<(), OpenError> {
        let found: String = self.ask("SELECT sqlite_version()").await?;
        let (least, least_numbers) = SQLITE_LEAST;
        let numbers: Vec<u32> = found.split('.').map_while(|part| part.parse().ok()).collect();
        if numbers.as_slice() >= least_numbers.as_slice() { Ok(()) } else { Err(OpenError::OldSqlite { found, least }) }
    }

    /// Whether the file holds nothing: it was not there, or its creator died before the first page.
    async fn is_fresh(&mut self) -> Result<bool, OpenError> {
        let objects: i64 = self.ask("SELECT COUNT(*) FROM sqlite_schema").await?;
        Ok(objects == 0 && self.application_id().await? == 0)
    }

    async fn application_id(&mut self) -> Result<u32, OpenError> {
        let id: i32 = self.ask("PRAGMA application_id").await?;
        Ok(id.cast_unsigned())
    }

    async fn require_ours(&mut self) -> Result<(), OpenError> {
        if self.application_id().await? == self.schema.application_id {
            Ok(())
        } else {
            Err(OpenError::Foreign { path: self.path.to_owned(), owner: self.schema.owner })
        }
    }

    async fn require_whole(&mut self) -> Result<(), OpenError> {
        let size = std::fs::metadata(self.path).map_err(|error| explain(self.path, sqlx::Error::Io(error)))?.len();
        if size > CHECKED_BYTES {
            tracing::info!(bytes = size, "database opened without a check: it is large");
            return Ok(());
        }
        let found: String = self.ask("PRAGMA quick_check(1)").await?;
        let detail = found.lines().last().unwrap_or_default();
        if detail == "ok" {
            Ok(())
        } else {
            Err(OpenError::Damaged { path: self.path.to_owned(), detail: detail.to_owned() })
        }
    }

    async fn require_wal(&mut self) -> Result<(), OpenError> {
        let mode: String = self.ask("PRAGMA journal_mode = WAL").await?;
        if mode == "wal" { Ok(()) } else { Err(OpenError::NoWal { path: self.path.to_owned(), mode }) }
    }

    async fn claim(&mut self) -> Result<(), OpenError> {
        // A pragma takes no bound parameters; the number comes from the program.
        let claim = AssertSqlSafe(format!("PRAGMA application_id = {}", self.schema.application_id.cast_signed()));
        let claimed = sqlx::query(claim).execute(&mut self.connection).await;
        claimed.map(drop).map_err(|error| explain(self.path, error))
    }

    async fn migrate(&mut self) -> Result<(), OpenError> {
        // As `run`, whose future is not `Send` in every lifetime's eyes.
        let migrator = Migrator::with_migrations(migrations(self.schema));
        let migrated = migrator.run_direct(None, &mut self.connection, false).await;
        migrated.map_err(|source| OpenError::Migrate { path: self.path.to_owned(), source })
    }
}

fn migrations(schema: &Schema) -> Vec<Migration> {
    let shared = (1..).zip(SHARED_MIGRATIONS);
    let own = (FIRST_OWN_MIGRATION..).zip(schema.migrations);
    let migration = |(version, (name, sql)): (i64, &(&'static str, &'static str))| {
        Migration::new(version, (*name).into(), MigrationType::Simple, (*sql).into_sql_str(), false)
    };
    shared.chain(own).map(migration).collect()
}
