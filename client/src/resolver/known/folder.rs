//! The folder of a mesh's state: one file for each service, read and written whole.
//!
//! Several processes may share one. Who writes holds a lock on the folder for as long as that takes, so that what is
//! compared is what is replaced; who reads needs none, because a file is only ever put in place by a rename.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::record::{FILE_MAX, Record, Unusable};

/// Files in one folder; past it no new service gets one. Twice what one process follows, each with a file set aside.
const FILES_MAX: usize = 4_096;

/// Longest name that is spelt out in a file's name. With what is added, file systems take 255 bytes.
const NAME_MAX: usize = 200;

/// Permission bits that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why a folder cannot hold state.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made, read or listed.
    #[error("it cannot be used: {0}")]
    Unusable(#[from] io::Error),
    /// Something else is there.
    #[error("it is no folder")]
    NotAFolder,
    /// Its owner could change at any time what this process believes.
    #[error("it belongs to user {owner}, and this process runs as {ours}; give each user a folder of its own")]
    OtherOwner {
        /// Whose it is.
        owner: u32,
        /// Who runs this process.
        ours: u32,
    },
    /// Others could change at any time what this process believes.
    #[error("others may write it (mode {mode:03o}); chmod it to 700")]
    WritableByOthers {
        /// Its permission bits.
        mode: u32,
    },
}

/// Where what is known outlives the process.
#[derive(Debug)]
pub(crate) struct StateFolder {
    path: PathBuf,
    owner: u32,
}

/// What became of a record that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// It is on disk.
    Written,
    /// It is not needed: what is there is at least as new, or nobody has ever been there.
    NotNeeded,
    /// Another process is writing; it is to be tried again.
    Busy,
}

/// Why a record is not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SaveError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error("a newer version of this software has written a file there (format {version}), and it is left alone")]
    Newer { version: u32 },
    #[error("there are {FILES_MAX} files already")]
    TooMany,
    #[error("it takes {bytes} bytes, more than {FILE_MAX}")]
    TooLarge { bytes: usize },
}

impl StateFolder {
    /// Makes the folder where there is none, readable and writable by its owner alone, and refuses one that others write.
    pub(crate) fn open(path: &Path) -> Result<Self, StateDirError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).or_else(|error| match error.kind() {
            ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
        let found = fs::metadata(path)?;
        let ours = rustix::process::geteuid().as_raw();
        if !found.is_dir() {
            return Err(StateDirError::NotAFolder);
        }
        if found.uid() != ours {
            return Err(StateDirError::OtherOwner { owner: found.uid(), ours });
        }
        if found.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(StateDirError::WritableByOthers { mode: found.mode() & 0o777 });
        }
        // Spelt out, so that a change of the working directory does not move it.
        Ok(Self { path: fs::canonicalize(path)?, owner: ours })
    }

    /// Where the file of a service is, whether or not it exists.
    pub(in crate::resolver) fn file(&self, namespace: &str, service: &str) -> PathBuf {
        self.path.join(format!("{}.known", file_stem(namespace, service)))
    }

    /// What is known of a service, where anything is and it may be used.
    pub(super) fn load(&self, namespace: &str, service: &str, now: SystemTime) -> Result<Option<Record>, Unusable> {
        let Some(record) = self.read(namespace, service)? else { return Ok(None) };
        record.check_age(now)?;
        Ok(Some(record))
    }

    /// Puts a record in place of the one that is there, unless that one is newer. Blocks on the disk, never on a lock.
    pub(super) fn save(&self, record: &Record, now: SystemTime) -> Result<Saved, SaveError> {
        // The lock ends with this handle.
        let folder = File::open(&self.path)?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Saved::Busy),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let path = self.file(&record.namespace, &record.service);
        match self.read(&record.namespace, &record.service) {
            Ok(None) if record.instances.is_empty() => return Ok(Saved::NotNeeded),
            Ok(None) => self.make_room()?,
            Ok(Some(there)) if supersedes(&there, record, now) => return Ok(Saved::NotNeeded),
            Ok(Some(_)) => {}
            Err(Unusable::Newer { version }) => return Err(SaveError::Newer { version }),
            Err(Unusable::Unreadable(error)) => return Err(error.into()),
            // Whoever looks for what went wrong finds it beside; the next one to go wrong takes its place.
            Err(_) => fs::rename(&path, path.with_extension("refused"))?,
        }
        let bytes = record.encode();
        if bytes.len() > FILE_MAX {
            return Err(SaveError::TooLarge { bytes: bytes.len() });
        }
        replace(&path, &bytes)?;
        folder.sync_all()?;
        Ok(Saved::Written)
    }

    fn read(&self, namespace: &str, service: &str) -> Result<Option<Record>, Unusable> {
        let path = self.file(namespace, service);
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !found.is_file() {
            return Err(Unusable::NotAFile);
        }
        if found.uid() != self.owner {
            return Err(Unusable::OtherOwner { owner: found.uid(), ours: self.owner });
        }
        if found.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(Unusable::WritableByOthers { mode: found.mode() & 0o777 });
        }
        if found.len() > FILE_MAX as u64 {
            return Err(Unusable::TooLarge { bytes: found.len() });
        }
        let mut bytes = Vec::with_capacity(found.len() as usize);
        // Nobody else writes here, so it cannot have grown; should it all the same, its length will not fit.
        File::open(&path)?.take(FILE_MAX as u64).read_to_end(&mut bytes)?;
        let record = Record::decode(&bytes)?;
        if *record.namespace != *namespace || *record.service != *service {
            return Err(Unusable::OtherService { namespace: record.namespace, service: record.service });
        }
        Ok(Some(record))
    }

    fn make_room(&self) -> Result<(), SaveError> {
        let files = fs::read_dir(&self.path)?.take(FILES_MAX).count();
        if files < FILES_MAX { Ok(()) } else { Err(SaveError::TooMany) }
    }
}

/// Whether what is there is to stay: it is of the same store, and newer; or the positions do not say which is, and it was
/// vouched for later. A date in the future is no date: a clock was wrong, and is not to win for as long as it was.
fn supersedes(there: &Record, record: &Record, now: SystemTime) -> bool {
    let vouched = |record: &Record| Some(record.vouched).filter(|vouched| *vouched <= now);
    match (record.position.is_before(&there.position), there.position.is_before(&record.position)) {
        (true, _) => true,
        (_, true) => false,
        (false, false) => vouched(record) <= vouched(there),
    }
}

/// Writes beside and renames over, so that nobody ever reads half of it. The folder's own entry is the caller's to sync.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        // Left by a process that died while it wrote; who holds the lock is alone.
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// Names are [a-z0-9.-], so an underscore separates; one that is too long to be spelt out is told by its hash.
fn file_stem(namespace: &str, service: &str) -> String {
    if namespace.len() + service.len() <= NAME_MAX {
        return format!("{namespace}_{service}");
    }
    let digest = Sha256::digest(format!("{namespace}/{service}"));
    let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let start = &service[..service.floor_char_boundary(100)];
    format!("{namespace}_{start}_{digest}")
}

#[cfg(test)]
pub(super) mod tests;
