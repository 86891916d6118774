//! What the services with a database share: one SQLite file, opened safely by many processes at once, and the ledger
//! that makes every mutating call safe to repeat.
//!
//! All instances of one service on one machine share its file and see one truth. What must stay true:
//!
//! - **Opening is exclusive.** Creation, the switch to WAL and migrations run under a lock on a file beside the database
//!   (`open`): sqlx's own migration lock does nothing on SQLite, and the switch to WAL cannot be waited for.
//! - **One writer per process, [`READERS`] readers.** A write transaction begins with `BEGIN IMMEDIATE`, so that it is the
//!   only place where a write can find the database busy (`handle`). How long it waits is bounded by
//!   [`WRITE_WAIT`] and, since the shell drops a handler at its deadline, by the call's own deadline.
//! - **An answer is a promise.** `synchronous=FULL`: what was answered survives a power cut. An entity and its ledger
//!   entry are written in one transaction (`ledger`).
//! - **Nobody works for callers that have gone.** The shell drops a handler at its deadline and when its caller cancels;
//!   its statement then ends at the next row, and its transaction is undone. Between two rows SQLite cannot be stopped
//!   from here, so every query is an index look-up (`unindexed_steps` is how services test theirs), and a write
//!   waits for others inside SQLite for 20 ms at a time.
//! - **A killed process blocks nobody.** Every lock is the operating system's and goes with the process.
//!
//! Beside the database stand the parts of a request that both services check alike: ids, etags, page tokens
//! ([`Violations`] and friends), and the errors any stored resource knows ([`ResourceError`]).

mod error;
mod handle;
mod ledger;
mod location;
mod millis;
mod open;
mod page;
mod request;
mod status;

pub use crate::status::{DOMAIN, refusal, refusal_with};
pub use error::{DatabaseError, OpenError, ResourceError};
pub use handle::{Database, READERS, Read, WRITE_QUEUE, WRITE_WAIT, Write};
pub use ledger::{Answered, Begun, Call, LEDGER_BYTES, LEDGER_KEPT, Work};
pub use location::{DatabaseUrl, DatabaseUrlError};
pub use millis::UnixMillis;
pub use open::Schema;
pub use page::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Page, PageRequest, Scope};
pub use request::{Etag, Fault, Mask, RequestId, Violations, id, is_token_byte};

/// A connection as queries take it.
pub type Connection = sqlx::SqliteConnection;
/// A row as queries give it.
pub type Row = sqlx::sqlite::SqliteRow;

#[cfg(test)]
mod tests;
