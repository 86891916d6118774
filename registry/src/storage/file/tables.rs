//! The tables of a store file, and the only code that knows redb.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition, WriteTransaction,
};

use super::disk::{Disk, Held};
use super::head::Head;
use super::overlay::Overlay;
use super::places::{self, Kept, Name, Places};
use crate::catalog::{Committed, Expected, Key, OpId, Proposal, Revision, Write};
use crate::storage::codec;
use crate::storage::log::{Log, deletes};
use crate::storage::{Completeness, Entry, Outcome};

/// Keys and values as the codec writes them, joined, by their [`super::places`].
const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("placed");
/// Values under their keys: where a file of format 1 has its records.
const RECORDS_BY_KEY: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// `format`: the format's number, four bytes, little end first. `head`: where the store stands.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const HEAD_KEY: &str = "head";

/// The format of a file as it is written. One of format 1 is read, and written anew as this when a store opens it.
const FORMAT: u32 = 2;

/// Most memory that pages of the file take. What is read again is the end of the file, and what of a record is expected is
/// known without reading it.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

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
    layout: Layout,
    /// In the hands of who commits. Beyond a commit that failed it is of no use, and neither are these tables.
    places: Mutex<Places>,
}

/// How a file is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    /// Format 1.
    ByKey,
    /// Format 2.
    ByPlace,
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
            let (head, entries) = Self::of(database, overlay)?.read()?;
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
            Self::of(database, overlay)?.head()
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
        guarded(|| {
            let tables = Self::of(database, held)?;
            tables.find_places()?;
            Ok(tables)
        })
    }

    fn of(database: Database, held: Held) -> Result<Self, Fault> {
        let layout = layout(&database)?;
        Ok(Self { database, held, layout, places: Mutex::default() })
    }

    /// Notes where the records stand. In a file of an older format they have none: it is to be renewed before it is written.
    fn find_places(&self) -> Result<(), Fault> {
        if self.layout == Layout::ByKey {
            return Ok(());
        }
        let mut places = self.places.lock();
        let transaction = self.database.begin_read().map_err(fault)?;
        for entry in transaction.open_table(RECORDS).map_err(fault)?.iter().map_err(fault)? {
            let (place, record) = entry.map_err(fault)?;
            let (key, value) = split(record.value())?;
            let (revision, _) = codec::decode_stamp(value).map_err(Fault::damaged)?;
            let name = places.name(key);
            if !places.found(name, Kept { place: place.value(), revision }) {
                return Err(Fault::damaged(format!("the record {:?} is there twice", String::from_utf8_lossy(key))));
            }
        }
        Ok(())
    }

    /// Whether the file is of an older format than the one that is written.
    pub(super) fn is_outdated(&self) -> bool {
        self.layout != Layout::ByPlace
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
            let mut record = Vec::new();
            for (place, value) in (0_u64..).zip(values) {
                let (key, value) = value?;
                places::join(&mut record, &key, |out| out.extend(&value));
                records.insert(place, record.as_slice()).map_err(fault)?;
            }
            let mut meta = transaction.open_table(META).map_err(fault)?;
            meta.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice()).map_err(fault)?;
            meta.insert(HEAD_KEY, head.encode().as_slice()).map_err(fault)?;
        }
        transaction.commit().map_err(fault)?;
        disk.adopt()?;
        let tables = Self::of(database, held)?;
        tables.find_places()?;
        Ok(tables)
    }

    /// Everything of this file in a new one, in its place: the way out where nobody knows what of a file is on the disk.
    pub(super) fn renew(&self, disk: &dyn Disk, head: &Head) -> Result<Self, Fault> {
        guarded(|| {
            let begin = |_: &Head| Ok(Vec::new());
            let values: Vec<_> = self.scan(begin, |values, key, value| {
                values.push(Ok((key.to_vec(), value.to_vec())));
                Ok::<_, Fault>(())
            })?;
            Self::create(disk, head, values)
        })
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

    /// Goes through every key and value as of one moment; what `begin` makes of where the store stands then takes them in.
    pub(in crate::storage) fn scan<T, E: From<Fault>>(
        &self,
        begin: impl FnOnce(&Head) -> Result<T, E>,
        mut each: impl FnMut(&mut T, &[u8], &[u8]) -> Result<(), E>,
    ) -> Result<T, E> {
        let transaction = self.database.begin_read().map_err(fault)?;
        let meta = transaction.open_table(META).map_err(fault)?;
        let head = meta.get(HEAD_KEY).map_err(fault)?.and_then(|head| Head::decode(head.value()));
        let mut taken = begin(&head.ok_or_else(|| Fault::damaged("it does not say where it stands"))?)?;
        match self.layout {
            Layout::ByPlace => {
                for entry in transaction.open_table(RECORDS).map_err(fault)?.iter().map_err(fault)? {
                    let (_, record) = entry.map_err(fault)?;
                    let (key, value) = split(record.value())?;
                    each(&mut taken, key, value)?;
                }
            }
            Layout::ByKey => {
                for entry in transaction.open_table(RECORDS_BY_KEY).map_err(fault)?.iter().map_err(fault)? {
                    let (key, value) = entry.map_err(fault)?;
                    each(&mut taken, key.value(), value.value())?;
                }
            }
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
            let mut places = self.places.lock();
            let table = transaction.open_table(RECORDS).map_err(fault)?;
            let mut records = Records { table, places: &mut places, key: String::new(), record: Vec::new() };
            for proposal in proposals {
                let became = |op: OpId| {
                    let made = commits.iter().find(|made| made.op == op).map(|made| made.revision);
                    made.or_else(|| log.became(op)).or_else(|| head.became(op))
                };
                if let Some(made) = became(proposal.op) {
                    outcomes.push(Outcome::Committed(made));
                    continue;
                }
                let as_expected = |(key, expected): &(Key, Expected)| match (records.kept(key), *expected) {
                    (None, Expected::Absent) => true,
                    (Some(kept), Expected::At(at)) => kept.revision == at,
                    (Some(kept), Expected::By(by)) => became(by) == Some(kept.revision),
                    (None, Expected::By(by)) => deleted_by(by, key, &commits) || log.deleted_by(by, key),
                    (None, Expected::At(_)) | (Some(_), Expected::Absent) => false,
                };
                if !proposal.expected.iter().all(as_expected) {
                    outcomes.push(Outcome::Conflict(position.revision));
                    continue;
                }
                position.revision = position.revision.next();
                for write in &proposal.writes {
                    records.write(write, position.revision, proposal.op)?;
                }
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

/// How a file says that it is laid out.
fn layout(database: &Database) -> Result<Layout, Fault> {
    let transaction = database.begin_read().map_err(fault)?;
    let meta = transaction.open_table(META).map_err(fault)?;
    let format = meta.get(FORMAT_KEY).map_err(fault)?.ok_or_else(|| Fault::damaged("it says no format"))?;
    let format = format.value().try_into().map(u32::from_le_bytes);
    match format.map_err(|_| Fault::damaged("its format is no number"))? {
        FORMAT => Ok(Layout::ByPlace),
        1 => Ok(Layout::ByKey),
        0 => Err(Fault::damaged("it is in format 0, which there never was")),
        found => Err(Fault::Newer { found }),
    }
}

fn split(record: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    places::split(record).ok_or_else(|| Fault::damaged("a record is shorter than it says"))
}

/// The records in a transaction.
struct Records<'a> {
    table: Table<'a, u64, &'static [u8]>,
    places: &'a mut Places,
    /// Used again for each key and record.
    key: String,
    record: Vec<u8>,
}

impl Records<'_> {
    /// What is there under a key.
    fn kept(&mut self, key: &Key) -> Option<Kept> {
        let name = self.name(key);
        self.places.get(name)
    }

    fn write(&mut self, write: &Write, revision: Revision, op: OpId) -> Result<(), Fault> {
        let name = self.name(write.key());
        let left = match write {
            Write::Put(_, record) => {
                let (place, left) = self.places.take(name, revision);
                let value = |out: &mut Vec<u8>| codec::encode_value_to(out, record, revision, op);
                places::join(&mut self.record, self.key.as_bytes(), value);
                self.table.insert(place, self.record.as_slice()).map_err(fault)?;
                left
            }
            Write::Delete(_) => self.places.leave(name),
        };
        let Some(left) = left else { return Ok(()) };
        let was = self.table.remove(left.place).map_err(fault)?;
        let was = was.as_ref().and_then(|was| places::split(was.value()));
        match was {
            Some((key, _)) if key == self.key.as_bytes() => Ok(()),
            _ => Err(Fault::damaged(format!("the record {:?} is not where it was written", self.key))),
        }
    }

    /// What a key goes by; its text stands in `key` then.
    fn name(&mut self, key: &Key) -> Name {
        self.key.clear();
        codec::encode_key_to(&mut self.key, key);
        self.places.name(self.key.as_bytes())
    }
}

fn deleted_by(op: OpId, key: &Key, commits: &[Arc<Committed>]) -> bool {
    commits.iter().any(|made| made.op == op && deletes(&made.writes, key))
}
