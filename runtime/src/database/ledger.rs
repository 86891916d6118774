//! The ledger: which requests were answered, and how.
//!
//! A mutating call names itself by a key (a request id; the etag it was based on; the thing it deletes). Its first
//! success is recorded with a digest of the request and the answer, in the transaction that does the work. Whoever
//! asks again gets the same answer, whichever instance hears it; the same key with another request is told apart.
//! Refusals are not recorded: they changed nothing, and may be different next time.
//!
//! An entry stays for at least [`LEDGER_KEPT`]. Every write forgets up to [`PRUNED_PER_WRITE`] entries that are older, so
//! the ledger shrinks faster than it grows; beyond [`LEDGER_BYTES`] new keys are refused rather than old promises broken.

use std::time::Duration;

use prost::Message;
use sha2::{Digest, Sha256};
use sqlx::Row as _;
use uuid::Uuid;

use super::error::DatabaseError;
use super::handle::{Database, Write};
use super::{Connection, Etag, UnixMillis};

/// How long an answer is kept at least.
pub const LEDGER_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Most bytes of entries. An entry of a user or a small order takes some 300 bytes: this is 160 writes per second, all
/// day.
pub const LEDGER_BYTES: i64 = 4 << 30;

/// Old entries forgotten by each write: more than the one that it adds.
const PRUNED_PER_WRITE: i64 = 8;
/// Bytes of an entry beside its key and result: digest, numbers, and its share of two indexes.
const ENTRY_OVERHEAD_BYTES: usize = 120;

/// A mutating call as the ledger knows it.
#[derive(Clone, Debug)]
pub struct Call {
    method: &'static str,
    key: String,
    digest: [u8; 32],
}

/// A call that has been answered before.
#[derive(Clone, Debug, PartialEq)]
pub enum Answered<M> {
    /// The same request: this was the answer.
    Same(M),
    /// The key was used for another request.
    Otherwise,
}

/// Where a call stands when its write begins.
pub enum Begun<M> {
    /// It is new: do the work, then [`Work::finish`].
    Fresh(Work),
    /// There is nothing to do.
    Answered(Answered<M>),
}

/// A write in progress, and the call that it answers.
pub struct Work {
    write: Write,
    call: Call,
    now: UnixMillis,
}

impl Call {
    /// A call of `method`, named by `key` among the calls of that method. `request` is all that makes it this request
    /// and no other; leave out what must not be digested, such as a password, which a digest would let be guessed.
    pub fn new(method: &'static str, key: impl Into<String>, request: &impl Message) -> Self {
        Self { method, key: key.into(), digest: Sha256::digest(request.encode_to_vec()).into() }
    }

    /// A change of one resource in the state that the etag names: every other change of that state is another request.
    pub fn based_on(method: &'static str, id: Uuid, etag: &Etag, request: &impl Message) -> Self {
        Self::new(method, format!("{id}/{}", etag.as_str()), request)
    }

    /// The call as that of one user, if it is one's: another's call by the same key is another call, and hears nothing of
    /// this one's answer.
    #[must_use]
    pub fn by(mut self, user_id: Option<Uuid>) -> Self {
        if let Some(user_id) = user_id {
            // No other key begins so: they are plain characters without a slash, or begin with a UUID.
            self.key = format!("u:{user_id}/{}", self.key);
        }
        self
    }

    /// What an entry counts for. Never zero, so positions rise.
    fn entry_bytes(&self, result: &[u8]) -> i64 {
        let bytes = self.method.len() + self.key.len() + result.len() + ENTRY_OVERHEAD_BYTES;
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    async fn recall<M: Message + Default>(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<Answered<M>>, DatabaseError> {
        let found = sqlx::query(RECALL).bind(self.method).bind(self.key.as_str()).fetch_optional(connection).await?;
        let Some(row) = found else { return Ok(None) };
        if row.try_get::<Vec<u8>, _>(0)? != self.digest {
            return Ok(Some(Answered::Otherwise));
        }
        let result = M::decode(row.try_get::<Vec<u8>, _>(1)?.as_slice());
        result
            .map(|result| Some(Answered::Same(result)))
            .map_err(|_| DatabaseError::Unreadable { what: "ledger result" })
    }

    async fn record(&self, connection: &mut Connection, result: &[u8], now: UnixMillis) -> Result<(), DatabaseError> {
        let forget_before = now.before(LEDGER_KEPT);
        sqlx::query(PRUNE).bind(PRUNED_PER_WRITE).bind(forget_before.0).execute(&mut *connection).await?;
        let ends = sqlx::query(ENDS).fetch_one(&mut *connection).await?;
        let (first, last) = (ends.try_get::<i64, _>(0)?, ends.try_get::<i64, _>(1)?);
        let position = last.saturating_add(self.entry_bytes(result));
        if position.saturating_sub(first) > LEDGER_BYTES {
            return Err(DatabaseError::LedgerFull);
        }
        let insert = sqlx::query(RECORD).bind(position).bind(self.method).bind(self.key.as_str());
        insert.bind(self.digest.as_slice()).bind(result).bind(now.0).execute(connection).await?;
        Ok(())
    }
}

impl Database {
    /// How a call was answered, if it was. A reader asks: for what should happen before the write, once.
    pub async fn recall<M: Message + Default>(&self, call: &Call) -> Result<Option<Answered<M>>, DatabaseError> {
        call.recall(self.read().await?.connection()).await
    }

    /// Begins the write that answers a call, unless it has been answered.
    pub async fn begin<M: Message + Default>(&self, call: Call) -> Result<Begun<M>, DatabaseError> {
        let mut write = self.write().await?;
        Ok(match call.recall(write.connection()).await? {
            Some(answered) => Begun::Answered(answered),
            None => Begun::Fresh(Work { write, call, now: self.now() }),
        })
    }
}

impl Work {
    /// For queries and changes.
    pub fn connection(&mut self) -> &mut Connection {
        self.write.connection()
    }

    /// The time of this write.
    pub fn now(&self) -> UnixMillis {
        self.now
    }

    /// Records the answer and makes all changes last, together.
    pub async fn finish<M: Message>(mut self, answer: M) -> Result<M, DatabaseError> {
        self.call.record(self.write.connection(), &answer.encode_to_vec(), self.now).await?;
        self.write.commit().await?;
        Ok(answer)
    }
}

pub(super) const RECALL: &str = "SELECT digest, result FROM ledger WHERE method = $1 AND request_key = $2";
pub(super) const ENDS: &str = "SELECT COALESCE((SELECT position FROM ledger ORDER BY position LIMIT 1), 0), \
     COALESCE((SELECT position FROM ledger ORDER BY position DESC LIMIT 1), 0)";
pub(super) const PRUNE: &str = "DELETE FROM ledger WHERE position IN \
     (SELECT position FROM ledger ORDER BY position LIMIT $1) AND recorded_at_ms < $2";
const RECORD: &str = "INSERT INTO ledger (position, method, request_key, digest, result, recorded_at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6)";
