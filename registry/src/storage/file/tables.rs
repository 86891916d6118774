//! The tables of a store file, and the only code that knows redb.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition, WriteTransaction,
};

use super::disk::{Disk, Held};
use super::head::Head;
use super::overlay::Overlay;
use crate::catalog::{Committed, Expected, Key, OpId, Proposal, Revision, Write};
use crate::storage::codec::{self, FORMAT};
use crate::storage::log::{Log, deletes};
use crate::storage::{Completeness, Entry, Outcome};

/// Keys and values as the codec writes them.
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// `format`: the format's number, four bytes, little end first. `head`: where the store stands.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const HEAD_KEY: &str = "head";

/// Most memory that pages of the file take.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Op ids of the last group that are remembered; an engine hands in fewer at once.
const LAST_GROUP_MAX: usize = 1_024;

/// What a store file cannot do, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// There is no room.
    #[error("the disk is full")]
    Full,
    /// The system says no.
    #[error("{0}")]
    Io(String),
    /// It is no store, or one that was changed by something else than a registry.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// A later registry has written it.
    #[error("it is in format {found}, and this registry knows formats up to {FORMAT}")]
    Newer {
        /// The format that it is in.
        found: u32,
    },
}

impl Fault {
    fn damaged(what: impl ToString) -> Self {
        Self::Damaged(what.to_string())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::Full,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
                Self::damaged(error)
            }
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::other(fault)
    }
}

/// redb's many errors, as what there is to do about them.
fn fault(error: impl Into<redb::Error>) -> Fault {
    match error.into() {
        redb::Error::Io(error) => error.into(),
        error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_)) => {
            Fault::Io(error.to_string())
        }
        error => Fault::damaged(error),
    }
}

/// What a group of proposals became.
#[derive(Debug)]
pub(super) struct Group {
    /// Where the store stands with it.
    pub(super) head: Head,
    /// Per proposal.
    pub(super) outcomes: Vec<Outcome>,
    /// What was committed, in order.
    pub(super) commits: Vec<Arc<Committed>>,
}

/// Why a group was not committed, or may not have been.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) fault: Fault,
    /// What may have been made nevertheless.
    pub(super) limbo: Option<Box<Group>>,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { fault, limbo: None }
    }
}

/// An open store file.
#[derive(Debug)]
pub(in crate::storage) struct Tables {
    database: Database,
    held: Held,
}

impl Tables {
    /// Looks at a file with everything that opening it does, and changes nothing of it: what may not be opened is told
    /// before anything is written.
    pub(in crate::storage) fn inspect(file: Box<dyn StorageBackend>) -> Result<(Head, Vec<Entry>), Fault> {
        // An empty file would be taken for a new database.
        if file.len()? == 0 {
            return Err(Fault::damaged("the file is empty"));
        }
        let look = || {
            let overlay = Held::new(Box::new(Overlay::over(file)?));
            let (mut database, clean) = open(overlay.clone())?;
            // One that was not closed was checked as it was opened.
            if clean && !database.check_integrity().map_err(fault)? {
                return Err(Fault::damaged("a page is not what was written"));
            }
            let tables = Self { database, held: overlay };
            tables.check_format()?;
            let (head, entries) = tables.read()?;
            if let Some(late) = entries.iter().find(|entry| entry.revision > head.position.revision) {
                return Err(Fault::damaged(format!("{} is newer than the store", codec::encode_key(&late.key))));
            }
            Ok((head, entries))
        };
        guarded(look)
    }

    /// Where the store in a file stands, as opening it would find. Changes nothing of it.
    pub(super) fn peek(file: Box<dyn StorageBackend>) -> Result<Head, Fault> {
        guarded(|| {
            let overlay = Held::new(Box::new(Overlay::over(file)?));
            let (database, _) = open(overlay.clone())?;
            Self { database, held: overlay }.head()
        })
    }

    /// Opens a file that was looked at. What is read of it from then on is on the disk.
    pub(super) fn open(file: Box<dyn StorageBackend>) -> Result<Self, Fault> {
        if file.len()? == 0 {
            return Err(Fault::damaged("the file is empty"));
        }
        let held = Held::new(file);
        let (database, _) = guarded(|| open(held.clone()))?;
        // A process that was killed may have left what was never synced.
        held.sync_data()?;
        Ok(Self { database, held })
    }

    /// Writes a new file with these values and puts it in the place of the store's.
    pub(in crate::storage) fn create(
        disk: &dyn Disk,
        head: &Head,
        values: impl IntoIterator<Item = Result<(Vec<u8>, Vec<u8>), Fault>>,
    ) -> Result<Self, Fault> {
        let held = Held::new(disk.fresh()?);
        let (database, _) = open(held.clone())?;
        let transaction = database.begin_write().map_err(fault)?;
        {
            let mut records = transaction.open_table(RECORDS).map_err(fault)?;
            for value in values {
                let (key, value) = value?;
                records.insert(key.as_slice(), value.as_slice()).map_err(fault)?;
            }
            let mut meta = transaction.open_table(META).map_err(fault)?;
            meta.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice()).map_err(fault)?;
            meta.insert(HEAD_KEY, head.encode().as_slice()).map_err(fault)?;
        }
        transaction.commit().map_err(fault)?;
        disk.adopt()?;
        Ok(Self { database, held })
    }

    /// Everything of this file in a new one, in its place: the way out where nobody knows what of a file is on the disk.
    pub(super) fn renew(&self, disk: &dyn Disk, head: &Head) -> Result<Self, Fault> {
        guarded(|| {
            let transaction = self.database.begin_read().map_err(fault)?;
            let records = transaction.open_table(RECORDS).map_err(fault)?;
            let values = records.iter().map_err(fault)?.map(|entry| {
                let (key, value) = entry.map_err(fault)?;
                Ok((key.value().to_vec(), value.value().to_vec()))
            });
            Self::create(disk, head, values)
        })
    }

    fn check_format(&self) -> Result<(), Fault> {
        let transaction = self.database.begin_read().map_err(fault)?;
        let meta = transaction.open_table(META).map_err(fault)?;
        let format = meta.get(FORMAT_KEY).map_err(fault)?.ok_or_else(|| Fault::damaged("it says no format"))?;
        let format = format.value().try_into().map(u32::from_le_bytes);
        match format.map_err(|_| Fault::damaged("its format is no number"))? {
            FORMAT => Ok(()),
            0 => Err(Fault::damaged("it is in format 0, which there never was")),
            found => Err(Fault::Newer { found }),
        }
    }

    /// Where the store stands.
    pub(super) fn head(&self) -> Result<Head, Fault> {
        guarded(|| {
            let transaction = self.database.begin_read().map_err(fault)?;
            let meta = transaction.open_table(META).map_err(fault)?;
            let head = meta.get(HEAD_KEY).map_err(fault)?.and_then(|head| Head::decode(head.value()));
            head.ok_or_else(|| Fault::damaged("it does not say where it stands"))
        })
    }

    /// Everything, as of one moment.
    pub(super) fn read(&self) -> Result<(Head, Vec<Entry>), Fault> {
        let begin = |head: &Head| Ok((head.clone(), Vec::new()));
        self.scan(begin, |(_, entries), key, value| match codec::decode_entry(key, value) {
            Ok(entry) => {
                entries.push(entry);
                Ok(())
            }
            Err(error) => Err(Fault::damaged(format!("the record {:?}: {error}", String::from_utf8_lossy(key)))),
        })
    }

    /// Goes through every key and value as of one moment, in the order of the keys; what `begin` makes of where the store
    /// stands then takes them in.
    pub(in crate::storage) fn scan<T, E: From<Fault>>(
        &self,
        begin: impl FnOnce(&Head) -> Result<T, E>,
        mut each: impl FnMut(&mut T, &[u8], &[u8]) -> Result<(), E>,
    ) -> Result<T, E> {
        let transaction = self.database.begin_read().map_err(fault)?;
        let meta = transaction.open_table(META).map_err(fault)?;
        let head = meta.get(HEAD_KEY).map_err(fault)?.and_then(|head| Head::decode(head.value()));
        let mut taken = begin(&head.ok_or_else(|| Fault::damaged("it does not say where it stands"))?)?;
        let records = transaction.open_table(RECORDS).map_err(fault)?;
        for entry in records.iter().map_err(fault)? {
            let (key, value) = entry.map_err(fault)?;
            each(&mut taken, key.value(), value.value())?;
        }
        Ok(taken)
    }

    /// Tries proposals in order, all of them in one transaction, and makes what is as expected durable with one sync.
    pub(super) fn commit(
        &self,
        head: &Head,
        completeness: Completeness,
        proposals: &[Arc<Proposal>],
        log: &Log,
    ) -> Result<Group, Failed> {
        let (transaction, group) = guarded(|| self.prepare(head, completeness, proposals, log))?;
        let Some(transaction) = transaction else { return Ok(group) };
        match guarded(|| transaction.commit().map_err(fault)) {
            Ok(()) => Ok(group),
            Err(fault) => Err(Failed { fault, limbo: Some(Box::new(group)) }),
        }
    }

    /// Tries proposals; the transaction that would make what is as expected, `None` if nothing is.
    fn prepare(
        &self,
        head: &Head,
        completeness: Completeness,
        proposals: &[Arc<Proposal>],
        log: &Log,
    ) -> Result<(Option<WriteTransaction>, Group), Fault> {
        let transaction = self.database.begin_write().map_err(fault)?;
        let mut position = head.position.clone();
        let mut commits: Vec<Arc<Committed>> = Vec::new();
        let mut outcomes = Vec::with_capacity(proposals.len());
        {
            let mut records = transaction.open_table(RECORDS).map_err(fault)?;
            for proposal in proposals {
                let made = commits.iter().find(|made| made.op == proposal.op).map(|made| made.revision);
                if let Some(made) = made.or_else(|| log.became(proposal.op)).or_else(|| head.became(proposal.op)) {
                    outcomes.push(Outcome::Committed(made));
                    continue;
                }
                let mut as_expected = true;
                for (key, expected) in &proposal.expected {
                    as_expected = as_expected && is_as(&records, key, *expected, &commits, log)?;
                }
                if !as_expected {
                    outcomes.push(Outcome::Conflict(position.revision));
                    continue;
                }
                position.revision = position.revision.next();
                write(&mut records, proposal, position.revision)?;
                outcomes.push(Outcome::Committed(position.revision));
                commits.push(Arc::new(Committed {
                    revision: position.revision,
                    op: proposal.op,
                    writes: proposal.writes.clone(),
                }));
            }
        }
        if commits.is_empty() {
            transaction.abort().map_err(fault)?;
            return Ok((None, Group { head: head.clone(), outcomes, commits }));
        }
        let last = commits.iter().rev().take(LAST_GROUP_MAX).rev();
        let last_group = last.map(|committed| (committed.op, committed.revision)).collect();
        let group = Group { head: Head { position, last_group, completeness }, outcomes, commits };
        write_head(&transaction, &group.head)?;
        Ok((Some(transaction), group))
    }

    /// Leaves the file to whoever opens it next; whether what was written to it last is on the disk is known.
    pub(super) fn give_up(&self) -> Trust {
        self.held.give_up();
        if self.held.sync_failed() { Trust::Lost } else { Trust::Kept }
    }
}

/// Whether what is read of a file is what is on the disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Trust {
    /// It is, once it is synced.
    Kept,
    /// Nobody knows: a sync has failed.
    Lost,
}

/// A page can be wrong in ways that redb does not expect: its panic is a fault of the file. What it had in its hands is not
/// used again, but opened anew.
fn guarded<T>(access: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(access)).unwrap_or_else(|_| Err(Fault::damaged("it cannot be read")))
}

fn open(held: Held) -> Result<(Database, bool), Fault> {
    let repaired = Arc::new(AtomicBool::new(false));
    let saw = Arc::clone(&repaired);
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_repair_callback(move |_| saw.store(true, Ordering::Relaxed));
    let database = builder.create_with_backend(held).map_err(fault)?;
    Ok((database, !repaired.load(Ordering::Relaxed)))
}

fn write_head(transaction: &WriteTransaction, head: &Head) -> Result<(), Fault> {
    let mut meta = transaction.open_table(META).map_err(fault)?;
    meta.insert(HEAD_KEY, head.encode().as_slice()).map_err(fault)?;
    Ok(())
}

type Records<'a> = Table<'a, &'static [u8], &'static [u8]>;

fn write(records: &mut Records<'_>, proposal: &Proposal, revision: Revision) -> Result<(), Fault> {
    for write in &proposal.writes {
        match write {
            Write::Put(key, record) => {
                let value = codec::encode_value(record, revision, proposal.op);
                records.insert(codec::encode_key(key).as_bytes(), value.as_slice()).map_err(fault)?;
            }
            Write::Delete(key) => {
                records.remove(codec::encode_key(key).as_bytes()).map_err(fault)?;
            }
        }
    }
    Ok(())
}

fn is_as(
    records: &Records<'_>,
    key: &Key,
    expected: Expected,
    commits: &[Arc<Committed>],
    log: &Log,
) -> Result<bool, Fault> {
    let kept = records.get(codec::encode_key(key).as_bytes()).map_err(fault)?;
    let kept = kept.map(|value| codec::decode_stamp(value.value()).map_err(Fault::damaged)).transpose()?;
    Ok(match (kept, expected) {
        (None, Expected::Absent) => true,
        (Some((revision, _)), Expected::At(at)) => revision == at,
        (Some((_, op)), Expected::By(by)) => op == by,
        (None, Expected::By(by)) => deleted_by(by, key, commits) || log.deleted_by(by, key),
        (None, Expected::At(_)) | (Some(_), Expected::Absent) => false,
    })
}

fn deleted_by(op: OpId, key: &Key, commits: &[Arc<Committed>]) -> bool {
    commits.iter().any(|made| made.op == op && deletes(&made.writes, key))
}
