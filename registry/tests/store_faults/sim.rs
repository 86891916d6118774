//! A disk that remembers what was done to it, so that the power can fail anywhere in between, and that fails when told to.
//! What a failed sync was to bring to the disk is not there and is taken for clean: reads show it, a crash loses it.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;
use registry::storage::Disk;

/// Bytes that reach a disk whole.
const SECTOR: usize = 512;

/// What was done.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write {
        file: usize,
        at: u64,
        data: Vec<u8>,
    },
    SetLen {
        file: usize,
        len: u64,
    },
    Sync {
        file: usize,
    },
    FailedSync {
        file: usize,
    },
    Adopt {
        file: usize,
    },
    /// Everything up to this revision was acknowledged.
    Acked(u64),
}

/// When the disk fails; each is a count of calls from now on, beginning with 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    /// These syncs fail.
    pub(crate) syncs: Option<(u64, u64)>,
    /// These writes, or changes of length, fail.
    pub(crate) writes: Option<(u64, u64)>,
    /// They fail because there is no room.
    pub(crate) full: bool,
    /// They do not fail but panic, as redb does where a page is not what it expects.
    pub(crate) panics: bool,
    /// From this sync on, a sync does nothing and says that it did.
    pub(crate) lies_from: Option<u64>,
}

#[derive(Debug, Default)]
struct World {
    /// What reads see.
    files: Vec<Vec<u8>>,
    current: Option<usize>,
    fresh: Option<usize>,
    events: Vec<Event>,
    plan: Plan,
    syncs: u64,
    writes: u64,
}

/// The disk. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sim(Arc<Mutex<World>>);

impl Sim {
    /// One with this file on it, or none.
    pub(crate) fn with(file: Option<Vec<u8>>) -> Self {
        let current = file.as_ref().map(|_| 0);
        Self(Arc::new(Mutex::new(World { files: file.into_iter().collect(), current, ..World::default() })))
    }

    pub(crate) fn plan(&self, plan: Plan) {
        let mut world = self.0.lock();
        (world.plan, world.syncs, world.writes) = (plan, 0, 0);
    }

    pub(crate) fn note(&self, event: Event) {
        self.0.lock().events.push(event);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().events.clone()
    }

    /// How often the plan has struck.
    pub(crate) fn failed_syncs(&self) -> usize {
        self.events().iter().filter(|event| matches!(event, Event::FailedSync { .. })).count()
    }

    /// What is on the disk if the power fails now and nothing but what was synced is there.
    pub(crate) fn after_power_loss(&self) -> Option<Vec<u8>> {
        let mut replay = Replay::default();
        self.events().iter().for_each(|event| replay.take(event));
        replay.image(|_| Fate::Lost)
    }
}

impl Disk for Sim {
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let current = self.0.lock().current;
        Ok(current.map(|file| Box::new(SimFile { sim: self.clone(), file }) as Box<dyn StorageBackend>))
    }

    fn fresh(&self) -> io::Result<Box<dyn StorageBackend>> {
        let mut world = self.0.lock();
        world.files.push(Vec::new());
        let file = world.files.len() - 1;
        world.fresh = Some(file);
        Ok(Box::new(SimFile { sim: self.clone(), file }))
    }

    fn adopt(&self) -> io::Result<()> {
        let mut world = self.0.lock();
        let file = world.fresh.take().ok_or(io::ErrorKind::NotFound)?;
        world.current = Some(file);
        world.events.push(Event::Adopt { file });
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    sim: Sim,
    file: usize,
}

impl SimFile {
    fn change(&self, event: Event) -> io::Result<()> {
        let mut world = self.sim.0.lock();
        world.writes += 1;
        if world.plan.writes.is_some_and(|(first, last)| (first..=last).contains(&world.writes)) {
            if world.plan.panics {
                drop(world);
                panic!("a page is not what was expected");
            }
            return Err(if world.plan.full { io::ErrorKind::StorageFull.into() } else { io::Error::other("EIO") });
        }
        apply(&mut world.files[self.file], &event);
        world.events.push(event);
        Ok(())
    }
}

fn apply(file: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write { at, data, .. } => {
            let at = *at as usize;
            file.resize(file.len().max(at + data.len()), 0);
            file[at..at + data.len()].copy_from_slice(data);
        }
        Event::SetLen { len, .. } => file.resize(*len as usize, 0),
        _ => {}
    }
}

impl StorageBackend for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.sim.0.lock().files[self.file].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let world = self.sim.0.lock();
        let bytes = world.files[self.file].get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Event::SetLen { file: self.file, len })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.sim.0.lock();
        world.syncs += 1;
        if world.plan.syncs.is_some_and(|(first, last)| (first..=last).contains(&world.syncs)) {
            world.events.push(Event::FailedSync { file: self.file });
            return Err(io::Error::other("EIO"));
        }
        if world.plan.lies_from.is_none_or(|from| world.syncs < from) {
            world.events.push(Event::Sync { file: self.file });
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Event::Write { file: self.file, at: offset, data: data.to_vec() })
    }
}

/// What becomes of something that was not synced when the power fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Lost,
    Torn,
    There,
}

/// The disk as its events make it, one by one.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    durable: Vec<Vec<u8>>,
    pending: Vec<(usize, Event)>,
    current: Option<usize>,
}

impl Replay {
    pub(crate) fn take(&mut self, event: &Event) {
        match event {
            Event::Write { file, .. } | Event::SetLen { file, .. } => self.pending.push((*file, event.clone())),
            Event::Sync { file } => {
                self.room(*file);
                for (_, event) in self.pending.extract_if(.., |(of, _)| of == file) {
                    apply(&mut self.durable[*file], &event);
                }
            }
            Event::FailedSync { file } => self.pending.retain(|(of, _)| of != file),
            Event::Adopt { file } => self.current = Some(*file),
            Event::Acked(_) => {}
        }
    }

    fn room(&mut self, file: usize) {
        if self.durable.len() <= file {
            self.durable.resize(file + 1, Vec::new());
        }
    }

    /// How much waits for a sync.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The store's file after a power loss, with the fate of each thing that was not synced, in order.
    pub(crate) fn image(&self, mut fate: impl FnMut(usize) -> Fate) -> Option<Vec<u8>> {
        let current = self.current?;
        let mut file = self.durable.get(current).cloned().unwrap_or_default();
        for (index, (of, event)) in self.pending.iter().enumerate() {
            match (fate(index), event) {
                _ if *of != current => {}
                (Fate::Lost, _) => {}
                (Fate::Torn, Event::Write { at, data, .. }) => {
                    // Some sectors of it, the first or the last.
                    let middle = (data.len() / 2).next_multiple_of(SECTOR).min(data.len());
                    let (first, last) = data.split_at(middle);
                    let (at, data) = if index % 2 == 0 { (*at, first) } else { (*at + middle as u64, last) };
                    apply(&mut file, &Event::Write { file: *of, at, data: data.to_vec() });
                }
                (Fate::Torn | Fate::There, event) => apply(&mut file, event),
            }
        }
        Some(file)
    }
}
