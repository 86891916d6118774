//! What can go wrong: while opening, with the database, with any stored resource.

use std::path::PathBuf;

use uuid::Uuid;

/// Why a database could not be opened; each is one line for the operator, who has to act.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder could not be made.
    #[error("cannot create the folder of {path}: {source}")]
    Folder {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The lock file could not be opened or locked.
    #[error("cannot lock {path}: {source}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody has been opening the same database for longer than we wait.
    #[error("another process has held {path} for {waited_s} s")]
    LockHeld {
        /// The lock file.
        path: PathBuf,
        /// How long we waited, in seconds.
        waited_s: u64,
    },
    /// Some other file.
    #[error("{path} is not a SQLite database; it was left as it is")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// A database, damaged.
    #[error("{path} is damaged ({detail}); it was left as it is, restore it from a backup")]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// What SQLite found first.
        detail: String,
    },
    /// Somebody else's database.
    #[error("{path} is the database of another program, not of {owner}; it was left as it is")]
    Foreign {
        /// The database file.
        path: PathBuf,
        /// The program that tried to open it.
        owner: &'static str,
    },
    /// The file system cannot hold a write-ahead log, as some network file systems cannot.
    #[error("{path} cannot use a write-ahead log (journal mode is {mode}); put it on a local file system")]
    NoWal {
        /// The database file.
        path: PathBuf,
        /// The mode that SQLite stayed in.
        mode: String,
    },
    /// A SQLite with the WAL-reset bug, which corrupts a database that several connections checkpoint.
    #[error("SQLite {found} is linked; {least} or newer is needed")]
    OldSqlite {
        /// The linked version.
        found: String,
        /// The oldest version we run on.
        least: &'static str,
    },
    /// The schema could not be brought up to date, or a newer version of the program has already moved it on.
    #[error("cannot migrate {path}: {source}")]
    Migrate {
        /// The database file.
        path: PathBuf,
        /// What sqlx said.
        source: sqlx::migrate::MigrateError,
    },
    /// Anything else that SQLite says: no permission, disk full.
    #[error("cannot open {path}: {source}")]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
}

/// What the database answers when it does not answer with rows.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Others held the write lock, or every reader was taken, for as long as we wait. Nothing was done.
    #[error("the database is busy")]
    Busy,
    /// As many writes wait in this process as may. Nothing was done.
    #[error("too many writes are waiting for the database")]
    QueueFull,
    /// The ledger holds as many bytes as it may, and none of them is old enough to forget. Nothing was done.
    #[error("the record of answered requests is full")]
    LedgerFull,
    /// A unique index refused the row.
    #[error("the value is taken")]
    NotUnique,
    /// A stored value that this version cannot read.
    #[error("stored value cannot be read: {what}")]
    Unreadable {
        /// Which one.
        what: &'static str,
    },
    /// The rest: I/O, disk full, a bug in a query.
    #[error("the database failed: {0}")]
    Failed(#[source] sqlx::Error),
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Database(inner) if inner.is_unique_violation() => Self::NotUnique,
            _ if primary_code(&error) == Some(SQLITE_BUSY) => Self::Busy,
            _ => Self::Failed(error),
        }
    }
}

/// What any stored resource answers to a call that it does not grant.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The request id has been used for another request.
    #[error("request_id was used for another request")]
    RequestIdReused,
    /// There is no such thing.
    #[error("no {kind} {id}")]
    NotFound {
        /// Resource type, e.g. "user".
        kind: &'static str,
        /// The id asked for.
        id: Uuid,
    },
    /// The resource has moved on since the caller read it.
    #[error("the {kind} has changed: its etag is {current} now")]
    EtagMismatch {
        /// Resource type.
        kind: &'static str,
        /// Its etag now.
        current: String,
    },
}

/// SQLite result codes (sqlite.org/rescode.html).
pub(super) const SQLITE_BUSY: u32 = 5;
pub(super) const SQLITE_CORRUPT: u32 = 11;
pub(super) const SQLITE_NOTADB: u32 = 26;

/// The primary result code of a SQLite error: the low byte of the extended one that sqlx reports.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    Some(code.parse::<u32>().ok()? & 0xff)
}
