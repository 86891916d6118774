//! Backups of a file store: taken while it runs or while it does not, checked, and made a store again.
//!
//! A backup is one file that says what it is, with a checksum over all of it. It holds the secrets that the store holds.

mod control;
mod format;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mesh_runtime::clock;

use super::codec;
use super::file::{Claim, Disk, Fault, Folder, Head, OpenError, Tables};
use super::{Completeness, Entry, Loaded};
use crate::catalog::{Generation, Position, Record, Revision};

pub(crate) use control::Control;
use format::{Reader, Writer};

/// How far a restored store counts on from its backup. What was changed between the backup and the loss is unknown, and its
/// revisions must not come again for something else: incarnations are taken from them. A thousand changes a second
/// for thirty years are fewer.
const RESTORED_GAP: u64 = 1_000_000_000_000;

/// What a store or a backup holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Where it stands.
    pub position: Position,
    /// When the backup was taken; `None` of a store.
    pub taken_at: Option<SystemTime>,
    /// Records of all kinds.
    pub records: usize,
    /// Known services.
    pub services: usize,
    /// Live instances.
    pub instances: usize,
    /// Removals that still hold.
    pub removals: usize,
    /// Rules of operators.
    pub rules: usize,
}

/// Why a backup was not taken, not restored, or is not sound.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// There is none.
    #[error("{0} holds no registry store")]
    NoStore(PathBuf),
    /// There is something already.
    #[error("{0} is not empty: a backup is restored into a folder that does not exist or is empty")]
    NotEmpty(PathBuf),
    /// There is a file already.
    #[error("{0} exists already: nothing is overwritten")]
    Exists(PathBuf),
    /// The system says no.
    #[error("{path}: {reason}")]
    Io {
        /// About what.
        path: PathBuf,
        /// In its words.
        reason: String,
    },
    /// The backup is not one, or not what it was.
    #[error("{path} is no sound backup: {reason}")]
    Unsound {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The registry that has the store does not give one.
    #[error("the registry that has {dir} open gave no backup: {reason}")]
    Refused {
        /// The folder of the store.
        dir: PathBuf,
        /// In its words, or what went wrong on the way.
        reason: String,
    },
}

/// Takes a backup of the store in `dir` and writes it to `file`, which must not exist. A registry that has the store open
/// is asked for it and goes on meanwhile. Blocks.
pub fn backup(dir: &Path, file: &Path) -> Result<Summary, BackupError> {
    if file.exists() {
        return Err(BackupError::Exists(file.to_owned()));
    }
    let part = with_suffix(file, ".part");
    let written = write_backup(dir, &part).and_then(|()| {
        let summary = verify_file(&part)?;
        put_in_place(&part, file).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(file.to_owned()),
            _ => system(file, &error),
        })?;
        let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| system(folder, &error))?;
        Ok(summary)
    });
    written.inspect_err(|_| {
        // What is left of a backup that failed is of no use to anybody.
        let _ = fs::remove_file(&part);
    })
}

/// Makes a store in `dir`, which must be empty or not exist, from the backup in `file`. The store keeps its identity and
/// gets a higher generation, so that nobody takes its positions for old ones. Blocks.
pub fn restore(file: &Path, dir: &Path) -> Result<Summary, BackupError> {
    let mut summary = verify_file(file)?;
    if !is_free(dir).map_err(|error| system(dir, &error))? {
        return Err(BackupError::NotEmpty(dir.to_owned()));
    }
    let was = &summary.position;
    let now = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let next = was.generation.0.checked_add(1).zip(was.revision.get().checked_add(RESTORED_GAP));
    let Some((generation, revision)) = next else {
        let reason = format!("nothing can follow its generation {} and revision {}", was.generation.0, was.revision);
        return Err(BackupError::Unsound { path: file.to_owned(), reason });
    };
    let position = Position {
        store: was.store.clone(),
        // By the calendar, so that two stores made from one backup are two generations.
        generation: Generation(now.max(generation)),
        revision: Revision::new(revision),
    };
    let head = Head { position, last_group: Vec::new(), completeness: Completeness::Fresh };
    let folder = Folder::claim(dir).map_err(|claim| OpenError::claim(dir, claim))?;
    let mut reader = Reader::of(BufReader::new(File::open(file).map_err(|error| system(file, &error))?))
        .map_err(|reason| BackupError::Unsound { path: file.to_owned(), reason })?;
    let values = std::iter::from_fn(|| reader.next().transpose()).map(|item| item.map_err(Fault::Damaged));
    Tables::create(&folder, &head, values).map_err(|fault| OpenError::fault(dir, fault))?;
    summary.position = head.position;
    summary.taken_at = None;
    Ok(summary)
}

/// Reads all of a store, given its folder, or of a backup, given its file: every record is understood, and what they amount
/// to is sound. Changes nothing. Blocks.
pub fn verify(path: &Path) -> Result<Summary, BackupError> {
    if !path.is_dir() {
        return verify_file(path);
    }
    if !Folder::has_store(path) {
        return Err(BackupError::NoStore(path.to_owned()));
    }
    match Folder::claim(path) {
        Ok(folder) => {
            let (head, entries) = look(&folder, path)?;
            let unsound = |reason| OpenError::fault(path, Fault::Damaged(reason)).into();
            summary(head.position, None, entries).map_err(unsound)
        }
        Err(Claim::Taken(_)) => {
            let refused = |reason| BackupError::Refused { dir: path.to_owned(), reason };
            let stream = control::ask(path).map_err(refused)?;
            summary_of(BufReader::new(stream)).map_err(refused)
        }
        Err(claim) => Err(OpenError::claim(path, claim).into()),
    }
}

fn write_backup(dir: &Path, part: &Path) -> Result<(), BackupError> {
    if !Folder::has_store(dir) {
        return Err(BackupError::NoStore(dir.to_owned()));
    }
    let create = || create_anew(part);
    let mut out = match Folder::claim(dir) {
        Ok(folder) => {
            let (head, entries) = look(&folder, dir)?;
            let out = BufWriter::new(create().map_err(|error| system(part, &error))?);
            write_entries(out, &head, &entries).map_err(|error| system(part, &error))?
        }
        Err(Claim::Taken(_)) => {
            let mut stream =
                control::ask(dir).map_err(|reason| BackupError::Refused { dir: dir.to_owned(), reason })?;
            let mut out = BufWriter::new(create().map_err(|error| system(part, &error))?);
            io::copy(&mut stream, &mut out).map_err(|error| system(part, &error))?;
            out
        }
        Err(claim) => return Err(OpenError::claim(dir, claim).into()),
    };
    out.flush().and_then(|()| out.get_ref().sync_all()).map_err(|error| system(part, &error))
}

/// A file for the owner alone, as a backup has secrets: what is there under this name, with a mode of its own or leading
/// elsewhere, is not written to but removed.
fn create_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Gives a file its name, unless another has it meanwhile.
fn put_in_place(part: &Path, file: &Path) -> io::Result<()> {
    match fs::hard_link(part, file) {
        Ok(()) => fs::remove_file(part),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Where there are no links, the name is taken first.
        Err(_) => {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
            fs::rename(part, file).inspect_err(|_| drop(fs::remove_file(file)))
        }
    }
}

fn write_entries(out: BufWriter<File>, head: &Head, entries: &[Entry]) -> io::Result<BufWriter<File>> {
    let mut writer = Writer::begin(out, &head.position, clock::wall())?;
    for entry in entries {
        let value = codec::encode_value(&entry.record, entry.revision, entry.op);
        writer.record(codec::encode_key(&entry.key).as_bytes(), &value)?;
    }
    writer.end()
}

/// Everything of a store that nobody has open.
fn look(folder: &Folder, dir: &Path) -> Result<(Head, Vec<Entry>), BackupError> {
    let file = folder.open().map_err(|error| OpenError::fault(dir, error.into()))?;
    let file = file.ok_or_else(|| BackupError::NoStore(dir.to_owned()))?;
    Ok(Tables::inspect(file).map_err(|fault| OpenError::fault(dir, fault))?)
}

fn verify_file(path: &Path) -> Result<Summary, BackupError> {
    let file = File::open(path).map_err(|error| system(path, &error))?;
    summary_of(BufReader::new(file)).map_err(|reason| BackupError::Unsound { path: path.to_owned(), reason })
}

/// Reads a backup to its end; every record is understood.
fn summary_of(backup: impl Read) -> Result<Summary, String> {
    let mut reader = Reader::of(backup)?;
    let mut entries = Vec::new();
    while let Some((key, value)) = reader.next()? {
        let entry = codec::decode_entry(&key, &value);
        entries.push(entry.map_err(|error| format!("the record {:?}: {error}", String::from_utf8_lossy(&key)))?);
    }
    summary(reader.position, reader.taken_at, entries)
}

/// Counts, and checks that what the records say of each other is true.
fn summary(position: Position, taken_at: Option<SystemTime>, entries: Vec<Entry>) -> Result<Summary, String> {
    let mut summary = Summary {
        position: position.clone(),
        taken_at,
        records: entries.len(),
        services: 0,
        instances: 0,
        removals: 0,
        rules: 0,
    };
    let (mut keys, mut leases) = (BTreeSet::new(), BTreeSet::new());
    for entry in &entries {
        let key = codec::encode_key(&entry.key);
        if entry.revision > position.revision {
            return Err(format!("the record {key:?} is newer than the store"));
        }
        match &entry.record {
            Record::Service(_) => summary.services += 1,
            Record::Rule(_) => summary.rules += 1,
            Record::History(_) => {}
            Record::Identity(identity) => {
                summary.removals += identity.tombstones.len();
                if let Some(live) = &identity.live {
                    summary.instances += 1;
                    if !leases.insert(live.lease) {
                        return Err(format!("the lease of {key:?} is somebody else's too"));
                    }
                    if live.incarnation.get() > position.revision.get() {
                        return Err(format!("the incarnation of {key:?} was never issued"));
                    }
                }
            }
        }
        if !keys.insert(key) {
            return Err(format!("the record {:?} is there twice", codec::encode_key(&entry.key)));
        }
    }
    let state = Loaded { position, completeness: Completeness::Whole, entries }.into_state();
    if state.live() != summary.instances {
        return Err(format!("{} instances are recorded and {} are found", summary.instances, state.live()));
    }
    Ok(summary)
}

/// Whether nothing is in a folder but what an attempt to restore may have left.
fn is_free(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut files) => files.try_fold(true, |free, file| Ok(free && Folder::leaves(&file?.file_name()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn system(path: &Path, error: &io::Error) -> BackupError {
    BackupError::Io { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests;
