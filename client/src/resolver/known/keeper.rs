//! When what is known is written and read. The disk is touched on threads for blocking work only: one write at a time, a
//! second after the first change at the earliest, the last state wins.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::{JoinError, JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::folder::{SaveError, Saved, StateFolder};
use super::record::{Known, Record, Unusable};
use crate::clock;
use crate::resolver::news::Position;

/// From the first change to the write: a rolling restart is a few writes, not hundreds.
const SETTLE: Duration = Duration::from_secs(1);

/// Time without writes after each one, in times that it took: large services cost the disk 5 % of its time at most.
const REST_TIMES: u32 = 19;

/// Files read at the same time: a process that follows many services does not take a thread for each.
const READS_MAX: usize = 4;

/// From a write that failed to the next try; and how long it is tried to write what was known of a service that is followed
/// no more, so that it is tried once more.
const RETRY: Duration = Duration::from_secs(60);

/// How often what has not changed is written all the same: its age counts from when the registry vouched for it last.
const REFRESH: Duration = Duration::from_secs(60 * 60);

/// Services whose last words are written, of those that are followed no more and at the end of the process; of the rest the
/// file is as it was a second or so before.
const PARTINGS_MAX: usize = 64;

/// How often the end of the process tries again while another process writes, and how long it waits in between: 100 ms
/// in all.
const LAST_TRIES: u32 = 20;
const LAST_TRY_PAUSE: Duration = Duration::from_millis(5);

/// Keeps what is known of the followed services in a state folder.
#[derive(Debug)]
pub(crate) struct Keeper {
    folder: Arc<StateFolder>,
    namespace: Arc<str>,
    /// Services whose file is behind: some of those that are followed, and [`PARTINGS_MAX`] that are not.
    behind: BTreeMap<Arc<str>, Behind>,
    /// Services whose file is to be read; at most as many as are followed.
    unread: VecDeque<Arc<str>>,
    reading: JoinSet<Read>,
    writing: Option<Writing>,
    /// No write begins before.
    rest_until: Instant,
    refresh_at: Instant,
}

#[derive(Debug)]
struct Behind {
    due: Instant,
    /// What is to be written where nothing newer is known: the service is not followed any more.
    parting: Option<Parting>,
    health: Health,
}

/// The last words about a service that is followed no more.
#[derive(Debug)]
struct Parting {
    record: Record,
    /// A write that fails from here on was the last one.
    until: Instant,
}

#[derive(Debug)]
struct Writing {
    service: Arc<str>,
    begun: Instant,
    /// How long it is tried again, where the service is followed no more; who follows one knows it anew at each try.
    parting_until: Option<Instant>,
    /// How the service's last write went.
    health: Health,
    task: JoinHandle<Written>,
}

/// What became of a record, and the record: it may have to be tried again.
type Written = (Record, Result<Saved, SaveError>);

/// Whether the last write of a service worked: what stays broken is said once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Working,
    Failing,
}

type Read = (Arc<str>, Result<Option<Record>, Unusable>);

/// What the keeper has to say.
#[derive(Debug)]
pub(crate) enum Kept {
    /// This is what was known of a service when the last process ended.
    Known(Arc<str>, Vec<Known>),
    /// It is time to write what is known of a service: [`Keeper::write`].
    Due(Arc<str>),
    /// Nothing that concerns anybody else.
    Nothing,
}

impl Keeper {
    pub(crate) fn new(folder: Arc<StateFolder>, namespace: Arc<str>) -> Self {
        let now = clock::now();
        Self {
            folder,
            namespace,
            behind: BTreeMap::new(),
            unread: VecDeque::new(),
            reading: JoinSet::new(),
            writing: None,
            rest_until: now,
            refresh_at: now + REFRESH,
        }
    }

    /// What is known of a service is wanted.
    pub(crate) fn read(&mut self, service: Arc<str>) {
        self.unread.push_back(service);
        self.read_on();
    }

    fn read_on(&mut self) {
        while self.reading.len() < READS_MAX
            && let Some(service) = self.unread.pop_front()
        {
            let (folder, namespace, now) = (self.folder.clone(), self.namespace.clone(), clock::wall());
            self.reading.spawn_blocking(move || {
                let known = folder.load(&namespace, &service, now);
                (service, known)
            });
        }
    }

    /// What is known of a service has changed.
    pub(crate) fn changed(&mut self, service: Arc<str>, now: Instant) {
        self.behind.entry(service).or_insert(Behind { due: now + SETTLE, parting: None, health: Health::Working });
    }

    /// Whether it is time to write everything anew that the registry still vouches for.
    pub(crate) fn refresh_is_due(&mut self, now: Instant) -> bool {
        let due = now >= self.refresh_at;
        if due {
            self.refresh_at = now + REFRESH;
        }
        due
    }

    /// A service is followed no more; what is known of it may still have to be written.
    pub(crate) fn part(&mut self, service: &str, known: Option<(Position, Vec<Known>)>, vouched: SystemTime) {
        self.unread.retain(|unread| **unread != *service);
        let until = clock::now() + RETRY;
        if let Some(writing) = self.writing.as_mut().filter(|writing| *writing.service == *service) {
            writing.parting_until = Some(until);
        }
        if !self.behind.contains_key(service) {
            return;
        }
        let others =
            self.behind.iter().filter(|(other, behind)| ***other != *service && behind.parting.is_some()).count()
                + usize::from(self.writing.as_ref().is_some_and(|writing| writing.parting_until.is_some()));
        let record = known.map(|known| self.record(service.into(), known, vouched));
        match (record, self.behind.get_mut(service)) {
            (Some(record), Some(behind)) if others < PARTINGS_MAX => behind.parting = Some(Parting { record, until }),
            _ => drop(self.behind.remove(service)),
        }
    }

    /// Waits for the next thing to happen; dropping the wait loses nothing.
    pub(crate) async fn happens(&mut self) -> Kept {
        let due = match &self.writing {
            None => self.behind.iter().map(|(service, behind)| (behind.due.max(self.rest_until), service)).min(),
            Some(_) => None,
        };
        let due = due.map(|(at, service)| (at, service.clone()));
        tokio::select! {
            Some(read) = self.reading.join_next() => {
                self.read_on();
                self.take_read(read)
            }
            written = written(&mut self.writing) => {
                self.take_written(written);
                Kept::Nothing
            }
            service = at(due) => Kept::Due(service),
        }
    }

    /// Begins to write what is known of a service, or what was when it parted.
    pub(crate) fn write(&mut self, service: Arc<str>, known: Option<(Position, Vec<Known>)>, vouched: SystemTime) {
        let (parting, health) =
            self.behind.remove(&service).map_or_else(Default::default, |behind| (behind.parting, behind.health));
        let (record, parting_until) = match (known, parting) {
            (Some(known), _) => (self.record(service.clone(), known, vouched), None),
            (None, Some(Parting { record, until })) => (record, Some(until)),
            (None, None) => return,
        };
        let (folder, now) = (self.folder.clone(), clock::wall());
        let task = spawn_blocking(move || {
            let saved = folder.save(&record, now);
            (record, saved)
        });
        self.writing = Some(Writing { service, begun: clock::now(), parting_until, health, task });
    }

    /// Writes what is behind now, on this thread: the process, or the mesh, ends.
    pub(crate) fn last_words(&mut self, known: impl Fn(&str) -> Option<(Position, Vec<Known>)>, vouched: SystemTime) {
        // A write under way may hold the lock for a while yet.
        let mut tries = LAST_TRIES;
        for (service, behind) in std::mem::take(&mut self.behind).into_iter().take(PARTINGS_MAX) {
            let known = known(&service).map(|known| self.record(service.clone(), known, vouched));
            let Some(record) = known.or(behind.parting.map(|parting| parting.record)) else { continue };
            let mut saved = self.folder.save(&record, clock::wall());
            while matches!(saved, Ok(Saved::Busy)) && tries > 0 {
                tries -= 1;
                std::thread::sleep(LAST_TRY_PAUSE);
                saved = self.folder.save(&record, clock::wall());
            }
            self.judge(&service, behind.health, &saved);
        }
    }

    fn record(&self, service: Arc<str>, (position, instances): (Position, Vec<Known>), vouched: SystemTime) -> Record {
        Record { namespace: self.namespace.clone(), service, position, vouched, instances }
    }

    fn take_read(&mut self, read: Result<Read, JoinError>) -> Kept {
        match read {
            Ok((service, Ok(Some(record)))) => {
                let age_s = clock::wall().duration_since(record.vouched).unwrap_or_default().as_secs();
                tracing::info!(%service, instances = record.instances.len(), age_s, "known from before");
                Kept::Known(service, record.instances)
            }
            Ok((_, Ok(None))) => Kept::Nothing,
            Ok((service, Err(unusable))) => {
                let (file, advice) = (self.folder.file(&self.namespace, &service), unusable.advice());
                let file = file.display();
                tracing::warn!(%service, %file, reason = %unusable, advice, "what was known before is not used");
                Kept::Nothing
            }
            Err(error) => {
                tracing::error!(%error, "reading what was known before ended early");
                Kept::Nothing
            }
        }
    }

    fn take_written(&mut self, written: Result<Written, JoinError>) {
        let Some(Writing { service, begun, parting_until, health, .. }) = self.writing.take() else { return };
        let now = clock::now();
        let (record, saved) = match written {
            Ok((record, saved)) => (Some(record), saved),
            Err(error) => (None, Err(std::io::Error::other(error).into())),
        };
        let health = self.judge(&service, health, &saved);
        self.rest_until = now + (now - begun) * REST_TIMES;
        let again = match saved {
            Ok(Saved::Written | Saved::NotNeeded) => return,
            Ok(Saved::Busy) => now + SETTLE,
            Err(_) => now + RETRY,
        };
        let parting = match (parting_until, record) {
            (Some(until), Some(record)) if now < until => Some(Parting { record, until }),
            (Some(_), _) if !self.behind.contains_key(&service) => return,
            _ => None,
        };
        let behind = self.behind.entry(service).or_insert(Behind { due: again, parting: None, health });
        behind.due = behind.due.max(again);
        behind.health = health;
        behind.parting = behind.parting.take().or(parting);
    }

    /// Says what went wrong, once for as long as it does.
    fn judge(&self, service: &str, before: Health, saved: &Result<Saved, SaveError>) -> Health {
        let error = match saved {
            Ok(Saved::Written | Saved::NotNeeded) => return Health::Working,
            Ok(Saved::Busy) => return before,
            Err(error) => error,
        };
        let file = self.folder.file(&self.namespace, service);
        let file = file.display();
        match before {
            Health::Working => {
                tracing::warn!(%service, %file, %error, "what is known is not written; tried again every minute");
            }
            Health::Failing => tracing::debug!(%service, %file, %error, "what is known is not written"),
        }
        Health::Failing
    }
}

/// The end of the write under way; never, without one.
async fn written(writing: &mut Option<Writing>) -> Result<Written, JoinError> {
    match writing {
        Some(writing) => (&mut writing.task).await,
        None => std::future::pending().await,
    }
}

/// The service, once its time has come; never, without one.
async fn at(due: Option<(Instant, Arc<str>)>) -> Arc<str> {
    match due {
        Some((at, service)) => {
            sleep_until(at).await;
            service
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
