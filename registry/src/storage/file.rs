//! A store in a file: every acknowledged change is on the disk.
//!
//! A group of proposals is one transaction and one sync, off the async threads. Records are not kept in memory a second
//! time: expectations are checked against the file, whose pages are cached up to a bound.
//!
//! After a fault nothing is acknowledged before the file was opened anew and has told what became of the group that was
//! under way. After a failed sync the file itself is not believed: the system may show what is not on the disk, so that
//! everything is written once more, to a new file.

mod disk;
mod head;
mod overlay;
mod places;
mod tables;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use mesh_runtime::clock;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::log::{Bounds, Log};
use super::{Completeness, FollowError, Loaded, Outcome, Store, StoreError};
use crate::catalog::{Committed, Proposal, Revision, StoreId, Ttl};

pub use disk::{Claim, Disk, Folder};
pub(super) use head::Head;
pub use tables::Fault;
pub(super) use tables::Tables;
use tables::{Failed, Group, Trust};

/// What is kept for those who follow.
const BOUNDS: Bounds = Bounds { commits: 1_024, bytes: 4 * 1024 * 1024 };

/// How long nothing is tried after a fault that will not have gone at once. Trying is not free: opening a file that was
/// not closed reads all of it. Short enough that writes are taken again within 5 s of when they can be (P05).
const PAUSE: Duration = Duration::from_secs(1);

/// How long a new store says that it does not know everything: as long as whoever lives needs to say so.
const COMPLETE_AFTER: Duration = Ttl::DEFAULT.get();

/// Records in a file. Clones share them.
#[derive(Clone, Debug)]
pub struct FileStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    log: Arc<Log>,
    opened: Instant,
    keeper: Mutex<Keeper>,
}

/// What changes, in the hands of one thread at a time.
#[derive(Debug)]
struct Keeper {
    /// `None` once the store is closed.
    disk: Option<Box<dyn Disk>>,
    /// Where the store stands: nothing beyond was acknowledged, nothing before may be lost.
    head: Head,
    file: File,
    /// Until when proposals are refused unseen, and why.
    rest: Option<(Instant, Fault)>,
    /// When something went wrong last.
    failed: Option<Instant>,
}

#[derive(Debug)]
enum File {
    Open(Arc<Tables>),
    /// To be opened anew.
    Shut(Shut),
}

#[derive(Debug)]
struct Shut {
    trust: Trust,
    /// What was under way and may have been made.
    limbo: Option<Box<Group>>,
    why: Fault,
    /// Not before this.
    again_at: Instant,
}

/// Why a store cannot be opened, with what there is to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store in {dir} is {holder}: give this registry another folder, or end the other one")]
    Taken {
        /// The folder.
        dir: String,
        /// By whom it is in use.
        holder: String,
    },
    /// A later registry has written it.
    #[error("the store in {dir} cannot be opened: {fault}: run the registry that wrote it, or a later one")]
    Newer {
        /// The folder.
        dir: String,
        /// What it is.
        fault: Fault,
    },
    /// It is none, or not what it was.
    #[error(
        "the store in {dir} cannot be opened: {fault}: restore a backup into an empty folder (meshctl registry restore)"
    )]
    Damaged {
        /// The folder.
        dir: String,
        /// What is wrong.
        fault: Fault,
    },
    /// The system says no.
    #[error("the store in {dir} cannot be opened: {reason}")]
    Io {
        /// The folder.
        dir: String,
        /// In its words.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn claim(dir: &Path, claim: Claim) -> Self {
        let dir = dir.display().to_string();
        match claim {
            claim @ Claim::Taken(_) => Self::Taken { dir, holder: claim.to_string() },
            Claim::Io(error) => Self::Io { dir, reason: error.to_string() },
        }
    }

    pub(super) fn fault(dir: &Path, fault: Fault) -> Self {
        let dir = dir.display().to_string();
        match fault {
            Fault::Newer { .. } => Self::Newer { dir, fault },
            Fault::Damaged(_) => Self::Damaged { dir, fault },
            Fault::Full | Fault::Io(_) => Self::Io { dir, reason: fault.to_string() },
        }
    }
}

impl FileStore {
    /// Opens the store in a folder, or begins one there under this identity.
    pub fn open(dir: &Path, id: StoreId) -> Result<Self, OpenError> {
        let folder = Folder::claim(dir).map_err(|claim| OpenError::claim(dir, claim))?;
        Self::open_on(folder, id).map_err(|fault| OpenError::fault(dir, fault))
    }

    /// Opens the store on a disk, or begins one there under this identity.
    pub fn open_on(disk: impl Disk, id: StoreId) -> Result<Self, Fault> {
        let (tables, head) = match disk.open()? {
            Some(file) => {
                let (head, _) = Tables::inspect(file)?;
                let file = disk.open()?.ok_or_else(|| Fault::Io("it has just been removed".to_owned()))?;
                let tables = Tables::open(file)?;
                (if tables.is_outdated() { upgraded(&tables, &disk, &head)? } else { tables }, head)
            }
            None => {
                let head = Head::new(id);
                (Tables::create(&disk, &head, [])?, head)
            }
        };
        let log = Arc::new(Log::after(head.position.revision, BOUNDS));
        let disk: Option<Box<dyn Disk>> = Some(Box::new(disk));
        let keeper = Keeper { disk, file: File::Open(Arc::new(tables)), rest: None, failed: None, head };
        let opened = clock::now();
        Ok(Self { shared: Arc::new(Shared { log, opened, keeper: Mutex::new(keeper) }) })
    }

    /// The open file, to read all of it as of one moment. Blocks while a group is committed.
    pub(super) fn tables(&self) -> Result<Arc<Tables>, Fault> {
        self.shared.keeper.lock().open(&self.shared)
    }

    /// Closes the file and lets go of the disk, on this thread, once a group that is under way is done; from then on
    /// everything is refused.
    pub fn close(&self) {
        self.shared.keeper.lock().close();
    }

    /// Tries proposals, on this thread.
    pub fn try_commit(&self, proposals: &[Arc<Proposal>]) -> Vec<Outcome> {
        self.shared.keeper.lock().commit(proposals, &self.shared)
    }

    /// What [`Store::load`] answers, on this thread.
    pub fn try_load(&self) -> Result<Loaded, Fault> {
        let (head, mut entries) = self.tables()?.read()?;
        entries.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(Loaded { position: head.position, completeness: head.completeness, entries })
    }
}

impl Keeper {
    fn commit(&mut self, proposals: &[Arc<Proposal>], shared: &Shared) -> Vec<Outcome> {
        let refused = |fault: &Fault| vec![Outcome::Refused(fault.to_string()); proposals.len()];
        if let Some((_, fault)) = self.rest.as_ref().filter(|(until, _)| clock::now() < *until) {
            return refused(fault);
        }
        self.rest = None;
        let tables = match self.open(shared) {
            Ok(tables) => tables,
            Err(fault) => return refused(&fault),
        };
        let complete = clock::now().duration_since(shared.opened) >= COMPLETE_AFTER;
        let completeness = if complete { Completeness::Whole } else { self.head.completeness };
        match tables.commit(&self.head, completeness, proposals, &shared.log) {
            Ok(group) => {
                self.head = group.head;
                shared.log.extend(group.commits);
                group.outcomes
            }
            Err(Failed { fault, limbo }) => {
                let begun = limbo.as_ref().map(|group| group.outcomes.clone());
                self.shut(&tables, fault.clone(), limbo);
                drop(tables);
                let known = self.open(shared).is_ok() || self.was_in_vain();
                let begun = begun.unwrap_or_else(|| refused(&fault));
                let became = proposals.iter().zip(begun).map(|(proposal, outcome)| match outcome {
                    Outcome::Committed(_) if !known => Outcome::Unknown,
                    Outcome::Committed(_) => match shared.log.became(proposal.op).or(self.head.became(proposal.op)) {
                        Some(revision) => Outcome::Committed(revision),
                        None => Outcome::Refused(fault.to_string()),
                    },
                    // It may be with one of this group, that was not made: nobody may wait for a revision that does not come.
                    Outcome::Conflict(at) => Outcome::Conflict(at.min(self.head.position.revision)),
                    outcome => outcome,
                });
                became.collect()
            }
        }
    }

    /// Whether the file, which cannot be opened anew, stands where it stood before the group that was under way: then
    /// opening it later finds nothing of that group either. So who writes to a full disk is told at once.
    fn was_in_vain(&self) -> bool {
        let file = self.disk.as_ref().and_then(|disk| disk.open().ok().flatten());
        file.and_then(|file| Tables::peek(file).ok()).is_some_and(|head| head == self.head)
    }

    /// Closes the file, then lets go of the disk. Who still reads the file, which only a backup does, has it taken away:
    /// what the last to let go of it writes would come after what the next process has written.
    fn close(&mut self) {
        let why = Fault::Io("the store is closed".to_owned());
        let shut = Shut { trust: Trust::Kept, limbo: None, why, again_at: clock::now() };
        if let File::Open(tables) = std::mem::replace(&mut self.file, File::Shut(shut)) {
            match Arc::try_unwrap(tables) {
                Ok(tables) => drop(tables),
                // Before this share of it goes, so that whichever goes last writes nothing.
                Err(shared) => drop(shared.give_up()),
            }
        }
        self.disk = None;
    }

    /// Something went wrong: the file has to be opened anew.
    fn shut(&mut self, tables: &Tables, why: Fault, limbo: Option<Box<Group>>) {
        let now = clock::now();
        tracing::error!(fault = %why, revision = self.head.position.revision.get(), "the store file failed; opening it anew");
        let again = self.failed.replace(now).is_some_and(|failed| now.duration_since(failed) < PAUSE);
        if again || why == Fault::Full {
            self.rest = Some((now + PAUSE, why.clone()));
        }
        self.file = File::Shut(Shut { trust: tables.give_up(), limbo, why, again_at: now });
    }

    /// The open file; opened anew if it has to be.
    fn open(&mut self, shared: &Shared) -> Result<Arc<Tables>, Fault> {
        let shut = match &mut self.file {
            File::Open(tables) => return Ok(Arc::clone(tables)),
            File::Shut(shut) => shut,
        };
        let now = clock::now();
        if now < shut.again_at {
            return Err(shut.why.clone());
        }
        let Some(disk) = &self.disk else { return Err(shut.why.clone()) };
        match reopen(&**disk, &mut shut.trust, &self.head, shut.limbo.as_deref()) {
            Ok((tables, head)) => {
                let tables = Arc::new(tables);
                if let Some(made) = shut.limbo.take().filter(|limbo| limbo.head == head) {
                    shared.log.extend(made.commits);
                }
                tracing::info!(revision = head.position.revision.get(), "the store file is open again");
                self.head = head;
                self.file = File::Open(Arc::clone(&tables));
                Ok(tables)
            }
            Err(fault) => {
                tracing::error!(%fault, "the store file cannot be opened anew; trying again");
                shut.why = fault.clone();
                shut.again_at = now + PAUSE;
                Err(fault)
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.close();
    }
}

/// Opens a file anew. It has to stand where it stood, or where the group that was under way would have brought it.
fn reopen(disk: &dyn Disk, trust: &mut Trust, was: &Head, limbo: Option<&Group>) -> Result<(Tables, Head), Fault> {
    let file = disk.open()?.ok_or_else(|| Fault::Damaged("the file is gone".to_owned()))?;
    let tables = Tables::open(file).inspect_err(|_| *trust = Trust::Lost)?;
    let head = tables.head()?;
    if head != *was && limbo.is_none_or(|limbo| limbo.head != head) {
        return Err(Fault::Damaged("the disk has lost changes that it said it had written".to_owned()));
    }
    match *trust {
        Trust::Kept => Ok((tables, head)),
        Trust::Lost => {
            let renewed = tables.renew(disk, &head)?;
            tables.give_up();
            Ok((renewed, head))
        }
    }
}

/// A file of an older format as a new one, in its place. Until it is there, the older one is left as it is.
fn upgraded(older: &Tables, disk: &dyn Disk, head: &Head) -> Result<Tables, Fault> {
    let tables = older.renew(disk, head)?;
    older.give_up();
    tracing::info!(
        revision = head.position.revision.get(),
        "the store file was written anew in the format of this version"
    );
    Ok(tables)
}

impl Store for FileStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        let store = self.clone();
        async move {
            let loaded = tokio::task::spawn_blocking(move || store.try_load()).await;
            let loaded = loaded.map_err(|error| StoreError { reason: error.to_string() })?;
            loaded.map_err(|fault| StoreError { reason: fault.to_string() })
        }
        .boxed()
    }

    fn commit(&self, proposals: Vec<Arc<Proposal>>) -> BoxFuture<'_, Vec<Outcome>> {
        let store = self.clone();
        // Once begun it runs to its end, whoever still waits for it. Where it has none, which is a bug, nothing is known.
        async move { tokio::task::spawn_blocking(move || store.try_commit(&proposals)).await.unwrap_or_default() }
            .boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'static, Result<Arc<Committed>, FollowError>> {
        Arc::clone(&self.shared.log).follow(after)
    }
}

#[cfg(test)]
mod tests;
