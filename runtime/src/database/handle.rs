//! The open database: reads, and one write at a time.

use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{Connection as _, Row as _, Sqlite, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::error::{DatabaseError, OpenError};
use super::location::DatabaseUrl;
use super::open::{self, OpenLock, Schema};
use super::{Connection, UnixMillis};
use crate::clock;

/// Connections that read, per process. Reads are index look-ups of some 50 us: four keep two cores busy.
pub const READERS: u32 = 4;
/// Writes of this process that wait their turn; a further one is refused. At 1 ms each the last would wait most of
/// [`WRITE_WAIT`].
pub const WRITE_QUEUE: usize = 512;
/// Longest time that a write waits for its turn here and for other processes, and a read for a free connection. A call
/// with less time left waits less: the shell drops it at its deadline.
pub const WRITE_WAIT: Duration = Duration::from_secs(1);

/// How long one attempt to begin a write waits inside SQLite, where it cannot be cancelled.
const BUSY_SLICE: Duration = Duration::from_millis(20);
/// Pause between attempts, in case SQLite did not wait at all, as it may not where waiting could deadlock.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// An open database. Clones share it; dropping the last one closes it.
#[derive(Clone, Debug)]
pub struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    /// One permit: whose turn it is to write in this process, first come, first served.
    turn: Arc<Semaphore>,
    /// [`WRITE_QUEUE`] permits: who waits or writes.
    places: Arc<Semaphore>,
    now: fn() -> UnixMillis,
}

/// A consistent view for some reads. Dropping it ends it.
pub struct Read {
    transaction: Transaction<'static, Sqlite>,
}

/// A write transaction: the only one in this database, of all processes. Dropping it undoes it.
pub struct Write {
    transaction: Transaction<'static, Sqlite>,
    // After the transaction: the turn ends when the connection has been given back.
    _turn: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Database {
    /// Opens the database and brings it to today's schema. Bind ports first: this creates files.
    pub async fn open(url: &DatabaseUrl, schema: &Schema) -> Result<Self, OpenError> {
        let lock = OpenLock::acquire(url).await?;
        let preparing = open::prepare(url, schema).await?;
        let failed = |error| open::explain(url.path(), error);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .min_connections(1)
                .max_connections(connections)
                .acquire_timeout(WRITE_WAIT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let options = open::options(url);
        let writer = pool(1).connect_with(options.clone().busy_timeout(BUSY_SLICE)).await.map_err(failed)?;
        let readers = options.busy_timeout(WRITE_WAIT).pragma("query_only", "ON");
        let readers = pool(READERS).connect_with(readers).await.map_err(failed)?;
        preparing.close().await.map_err(failed)?;
        drop(lock);
        let (turn, places) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(WRITE_QUEUE)));
        Ok(Self { writer, readers, turn, places, now: UnixMillis::now })
    }

    /// The same database with another calendar, for tests that let a day pass.
    #[cfg(test)]
    pub(super) fn with_calendar(mut self, now: fn() -> UnixMillis) -> Self {
        self.now = now;
        self
    }

    /// The time that is stored with what is written now.
    pub fn now(&self) -> UnixMillis {
        (self.now)()
    }

    /// Begins a read: all its queries see one state.
    pub async fn read(&self) -> Result<Read, DatabaseError> {
        Ok(Read { transaction: self.readers.begin().await? })
    }

    /// Begins a write, when it is its turn here and among all processes. Of a write without the ledger
    /// ([`begin`](Self::begin)), its own rows must tell whether it has been done.
    pub async fn write(&self) -> Result<Write, DatabaseError> {
        let deadline = clock::now() + WRITE_WAIT;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| DatabaseError::QueueFull)?;
        let turn = timeout_at(deadline, Arc::clone(&self.turn).acquire_owned()).await;
        let turn = turn.map_err(|_| DatabaseError::Busy)?.expect("this semaphore is never closed");
        let transaction = self.begin_immediate(deadline).await?;
        Ok(Write { transaction, _turn: turn, _place: place })
    }

    /// Immediate: a transaction that begins by reading and then wants to write fails at once if another has written
    /// meanwhile, and no waiting helps it.
    async fn begin_immediate(&self, deadline: Instant) -> Result<Transaction<'static, Sqlite>, DatabaseError> {
        loop {
            match self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(DatabaseError::from) {
                Err(DatabaseError::Busy) if clock::now() < deadline => tokio::time::sleep(BUSY_PAUSE).await,
                begun => return begun,
            }
        }
    }

    /// The steps of a query that read a whole table, an index of it from end to end, or sort what they read: none, for every
    /// query that a service makes; its tests ask. What a LIMIT cuts short is among them all the same, since SQLite's plan
    /// does not tell it: whoever has such a query names it. A sort within groups that come in order ("last term") is not.
    pub async fn unindexed_steps(&self, query: &'static str) -> Result<Vec<String>, DatabaseError> {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {query}"));
        let rows = sqlx::query(explain).fetch_all(self.read().await?.connection()).await?;
        let mut steps = rows.iter().map(|row| row.try_get("detail")).collect::<Result<Vec<String>, _>>()?;
        let reads_all = |step: &str| step.starts_with("SCAN") && step != "SCAN CONSTANT ROW";
        steps.retain(|step| reads_all(step) || (step.contains("TEMP B-TREE") && !step.contains("LAST TERM")));
        Ok(steps)
    }

    /// Waits until every connection is closed; calls in flight fail.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

impl Read {
    /// For queries.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.transaction
    }
}

impl Write {
    /// For queries and changes.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.transaction
    }

    /// Makes the changes last. Anything but `Ok` leaves open whether they do: the ledger, or what they changed, tells
    /// at the next try.
    pub async fn commit(self) -> Result<(), DatabaseError> {
        Ok(self.transaction.commit().await?)
    }
}
