//! Where the bytes are: a folder with one file, or what a test puts in its place.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

/// A place for one store file, and for its successor while that is written.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// The store's file; `None` where there is none yet.
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// A new, empty file beside it.
    fn fresh(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Puts the file that [`fresh`](Self::fresh) gave last in the place of the store's file, durably.
    fn adopt(&self) -> io::Result<()>;
}

/// A folder that nobody else uses.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held as long as the folder is.
    _lock: File,
}

/// Why a folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Claim {
    /// Another process has it.
    #[error("in use by {0}")]
    Taken(String),
    /// The system says no.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The store's file.
const FILE: &str = "registry.redb";
/// Its successor while it is written.
const FRESH: &str = "registry.redb.new";
/// Holds the lock, and the process id of who holds it.
const LOCK: &str = "lock";

impl Folder {
    /// Takes a folder, made with access for its owner alone where there is none.
    pub fn claim(path: &Path) -> Result<Self, Claim> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let mut lock = private().create(true).truncate(false).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Claim::Taken(holder(&mut lock))),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // For people only, so that its loss is none.
        let _ = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Whether this file is one that is there while there is no store, or no store yet.
    pub(in crate::storage) fn leaves(name: &std::ffi::OsStr) -> bool {
        name == LOCK || name == FRESH
    }

    /// Whether a store is there.
    pub(in crate::storage) fn has_store(path: &Path) -> bool {
        path.join(FILE).exists()
    }
}

fn holder(lock: &mut File) -> String {
    let mut pid = String::new();
    let read = lock.take(20).read_to_string(&mut pid);
    match pid.parse::<u32>() {
        Ok(pid) if read.is_ok() => format!("process {pid}"),
        _ => "another process".to_owned(),
    }
}

/// Read and write, for the owner alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Disk for Folder {
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        match private().open(self.path.join(FILE)) {
            Ok(file) => Ok(Some(Box::new(Bytes(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn fresh(&self) -> io::Result<Box<dyn StorageBackend>> {
        let file = private().create(true).truncate(true).open(self.path.join(FRESH))?;
        Ok(Box::new(Bytes(file)))
    }

    fn adopt(&self) -> io::Result<()> {
        fs::rename(self.path.join(FRESH), self.path.join(FILE))?;
        // A rename is durable once its folder is.
        File::open(&self.path)?.sync_all()
    }
}

/// A file. Its lock is the folder's.
#[derive(Debug)]
struct Bytes(File);

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}

/// A file in the hands of a database, and what became of it. Clones are about the same file.
#[derive(Clone, Debug)]
pub(super) struct Held {
    file: Arc<dyn StorageBackend>,
    fate: Arc<Fate>,
}

#[derive(Debug, Default)]
struct Fate {
    sync_failed: AtomicBool,
    given_up: AtomicBool,
}

impl Held {
    pub(super) fn new(file: Box<dyn StorageBackend>) -> Self {
        Self { file: file.into(), fate: Arc::default() }
    }

    /// Whether a sync has failed. From then on nobody knows what of the file is on the disk, and asking the system again
    /// does not tell: after a failed sync it takes the pages that it could not write for clean.
    pub(super) fn sync_failed(&self) -> bool {
        self.fate.sync_failed.load(Ordering::SeqCst)
    }

    /// From now on every access fails: another handle on the file takes over, and would change what this one still reads.
    pub(super) fn give_up(&self) {
        self.fate.given_up.store(true, Ordering::SeqCst);
    }

    fn there(&self) -> io::Result<()> {
        match self.fate.given_up.load(Ordering::SeqCst) {
            true => Err(io::Error::other("the file was opened anew")),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Held {
    fn len(&self) -> io::Result<u64> {
        self.there()?;
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.there()?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.there()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.there()?;
        self.file.sync_data().inspect_err(|_| self.fate.sync_failed.store(true, Ordering::SeqCst))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.there()?;
        self.file.write(offset, data)
    }
}
