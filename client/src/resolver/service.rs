//! What is known about one service, and what is made of each piece of news about it. PURE: news and a time in, the
//! state and a verdict out.
//!
//! The rule behind all of it: **an endpoint goes when somebody says so, never because it went missing.** A removal that
//! names it, or a record that says who emptied the service, is believed at once. An instance that merely is not listed
//! any more (an empty push, a registry that lost its disk, a lapse of the last lease) stays as [`Standing::Lapsed`] for
//! the data path to probe.
//!
//! Positions guard the order. Under one store id nothing older than what is applied is taken. Of another store nothing
//! compares; its complete snapshot replaces what is known, its incomplete one is merged in.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use uuid::Uuid;

use super::known::Known;
use super::news::{
    Admin, Cause, Chunk, Completeness, Delta, Entry, Epoch, Instance, Liveness, Position, Presence, Removal, SoftEntry,
};
use super::{Resolution, ResolutionStatus, ResolvedEndpoint, Standing};
use crate::load::EndpointLoad;
use crate::serving::ServingStatus;

/// Instances taken for one service. A snapshot or delta that would pass it is refused as a whole and the last good state
/// stays: past this a push is a fault, and memory must not follow it.
pub(crate) const INSTANCES_MAX: usize = 100_000;

/// Instances kept that the registry no longer lists; past it the longest lapsed goes.
pub(super) const LAPSED_MAX: usize = 1_024;

/// Everything held of one service, listed or not; past it the longest unlisted goes, what has lapsed first.
const HELD_MAX: usize = INSTANCES_MAX + LAPSED_MAX;

/// Removals remembered; past it the oldest is forgotten. They only guard against a listing older than themselves.
pub(super) const TOMBSTONES_MAX: usize = 1_024;

/// Everything known about one service.
#[derive(Debug)]
pub(super) struct ServiceState {
    held: BTreeMap<Uuid, Held>,
    tombstones: Tombstones,
    soft: Option<Soft>,
    /// What the last applied snapshot or delta holds for.
    position: Option<Position>,
    /// The revision up to which that is known to be all, in the same history: the registry says so as time passes, also
    /// where nothing changes.
    current: u64,
    completeness: Completeness,
    presence: Presence,
    unfinished: Option<Unfinished>,
}

/// One instance and where the knowledge of it comes from.
#[derive(Debug)]
struct Held {
    instance: Instance,
    /// The history in which its incarnation and revision count.
    epoch: Epoch,
    listing: Listing,
}

/// Whether the registry stands behind an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    /// The registry lists it.
    Listed,
    /// Known from before; a registry that is still warming up has not listed it yet.
    Carried { since: Instant },
    /// The registry has stopped listing it without saying who removed it.
    Lapsed { since: Instant },
    /// Known from an earlier process alone. What the registry says goes before it in every way.
    Recalled { since: Instant },
}

/// The last soft state and the history that it speaks of.
#[derive(Debug)]
struct Soft {
    epoch: Epoch,
    entries: HashMap<Uuid, SoftHeld>,
}

/// The soft state of one incarnation.
#[derive(Clone, Copy, Debug)]
struct SoftHeld {
    incarnation: u64,
    liveness: Liveness,
    load: Option<EndpointLoad>,
}

/// Chunks of a snapshot whose last one is not there yet.
#[derive(Debug)]
struct Unfinished {
    position: Position,
    next_index: u32,
    entries: Vec<Entry>,
    removals: Vec<Removal>,
}

/// What became of a piece of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Taken, except for this many entries that were not understood or contradict what is known.
    Applied { entries_rejected: usize },
    /// Noted; where the subscription stands is as before: soft state, or a chunk whose snapshot is not whole yet.
    Kept,
    /// Older than what is known.
    Older,
    /// Builds on something that never arrived: subscribe again.
    Gap,
    /// Larger than any service may be.
    TooLarge,
}

impl ServiceState {
    /// Nothing known.
    pub(super) fn new() -> Self {
        Self {
            held: BTreeMap::new(),
            tombstones: Tombstones::default(),
            soft: None,
            position: None,
            current: 0,
            completeness: Completeness::Warming,
            presence: Presence::Unknown,
            unfinished: None,
        }
    }

    /// Takes what an earlier process knew. Nothing is believed of it that the registry has said more about already.
    pub(super) fn recall(&mut self, known: Vec<Known>, now: Instant) {
        if self.position.is_some() && self.completeness == Completeness::Complete {
            return;
        }
        for Known { epoch, instance } in known {
            if !self.tombstones.forbids(&epoch, &instance) {
                let held = self.held.entry(instance.id);
                held.or_insert_with(|| Held { epoch, listing: Listing::Recalled { since: now }, instance });
            }
        }
        self.drop_replaced();
        self.drop_longest_unlisted();
    }

    /// What a later process should know, and how far in the history that is all there is; nothing while the registry does
    /// not know everything itself.
    pub(super) fn known(&self) -> Option<(Position, Vec<Known>)> {
        let applied = self.position.as_ref().filter(|_| self.completeness == Completeness::Complete)?;
        let position = Position { epoch: applied.epoch.clone(), revision: applied.revision.max(self.current) };
        let known = |held: &Held| Known { epoch: held.epoch.clone(), instance: held.instance.clone() };
        Some((position, self.held.values().map(known).collect()))
    }

    /// Where to resume: the last position that was applied.
    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// A new stream begins; what the old one left unfinished will not be finished.
    pub(super) fn forget_unfinished(&mut self) {
        self.unfinished = None;
    }

    /// Takes one chunk of a snapshot, and the snapshot with its last one.
    pub(super) fn chunk(
        &mut self,
        position: &Position,
        completeness: Completeness,
        chunk: Chunk,
        now: Instant,
    ) -> Verdict {
        if self.position.as_ref().is_some_and(|applied| position.is_before(applied)) {
            self.unfinished = None;
            return Verdict::Older;
        }
        let mut unfinished = match self.unfinished.take() {
            _ if chunk.index == 0 => {
                Unfinished { position: position.clone(), next_index: 0, entries: Vec::new(), removals: Vec::new() }
            }
            Some(begun) if begun.next_index == chunk.index && begun.position == *position => begun,
            _ => return Verdict::Gap,
        };
        if unfinished.entries.len() + chunk.entries.len() > INSTANCES_MAX {
            return Verdict::TooLarge;
        }
        unfinished.next_index += 1;
        unfinished.entries.extend(chunk.entries);
        unfinished.removals.extend(chunk.removals);
        if unfinished.removals.len() > INSTANCES_MAX {
            return Verdict::TooLarge;
        }
        if !chunk.last {
            self.unfinished = Some(unfinished);
            return Verdict::Kept;
        }
        for held in self.held.values_mut().filter(|held| held.listing == Listing::Listed) {
            held.listing = Listing::Carried { since: now };
        }
        let Unfinished { entries, removals, .. } = unfinished;
        self.commit(position, completeness, chunk.presence, entries, &removals, now)
    }

    /// Takes a change. One that builds on less than what is applied is whole all the same: its entries are states, not
    /// differences, and those already known only repeat.
    pub(super) fn delta(
        &mut self,
        position: &Position,
        completeness: Completeness,
        delta: Delta,
        now: Instant,
    ) -> Verdict {
        let Some(applied) = self.position.as_ref() else { return Verdict::Gap };
        if position.is_before(applied) || position == applied {
            return Verdict::Older;
        }
        if position.epoch != applied.epoch || delta.base > applied.revision {
            return Verdict::Gap;
        }
        if self.held.len() + delta.entries.len() > HELD_MAX {
            return Verdict::TooLarge;
        }
        self.commit(position, completeness, delta.presence, delta.entries, &delta.removals, now)
    }

    /// Takes the whole soft state.
    pub(super) fn soft(&mut self, position: &Position, entries: Vec<SoftEntry>, now: Instant) -> Verdict {
        if entries.len() > INSTANCES_MAX {
            return Verdict::TooLarge;
        }
        let former = self.soft.take().filter(|soft| soft.epoch == position.epoch);
        let held = |entry: SoftEntry| {
            let SoftEntry { id, incarnation, liveness, load } = entry;
            let former = former.as_ref().and_then(|soft| soft.of(id, incarnation)?.load);
            // What is only repeated keeps its age.
            let since = |report| former.filter(|former| former.report == report).map_or(now, |former| former.since);
            let load = load.map(|report| EndpointLoad { report, since: since(report) });
            (id, SoftHeld { incarnation, liveness, load })
        };
        let entries = entries.into_iter().map(held).collect();
        self.soft = Some(Soft { epoch: position.epoch.clone(), entries });
        Verdict::Kept
    }

    /// The registry that the state comes from says how complete it is; true where that is news.
    pub(super) fn bookmark(&mut self, position: &Position, completeness: Completeness, now: Instant) -> bool {
        let ours = self.position.as_ref().is_some_and(|applied| applied.epoch == position.epoch);
        let news = ours && self.completeness != completeness;
        if news {
            self.completeness = completeness;
            self.settle(now);
        }
        news
    }

    /// Nothing is missing up to here: the registry has answered on this stream and says that it has sent everything.
    pub(super) fn is_current_up_to(&mut self, position: &Position) {
        if self.position.as_ref().is_some_and(|applied| applied.epoch == position.epoch) {
            self.current = self.current.max(position.revision);
        }
    }

    /// What callers are told.
    pub(super) fn resolution(&self) -> Resolution {
        let endpoints: Vec<ResolvedEndpoint> = self.held.values().filter_map(|held| self.endpoint(held)).collect();
        Resolution { endpoints, status: self.status() }
    }

    fn status(&self) -> ResolutionStatus {
        match (self.completeness, self.presence) {
            _ if !self.held.is_empty() => ResolutionStatus::Resolved,
            (Completeness::Complete, Presence::Emptied | Presence::Unknown) => ResolutionStatus::Empty,
            // Nobody said who emptied it: calls wait for somebody to come back.
            (Completeness::Complete, Presence::Populated | Presence::Lapsed) => ResolutionStatus::Unresolved,
            (Completeness::Warming, _) => ResolutionStatus::Unresolved,
        }
    }

    fn endpoint(&self, held: &Held) -> Option<ResolvedEndpoint> {
        let Instance { id, incarnation, address, ref zone, weight, serving, admin, ref methods, descriptors, .. } =
            held.instance;
        let soft = self.soft.as_ref().filter(|soft| soft.epoch == held.epoch);
        let soft = soft.and_then(|soft| soft.of(id, incarnation));
        let liveness = soft.map_or(Liveness::Alive, |soft| soft.liveness);
        let standing = standing(held.listing, liveness, serving, admin)?;
        let (zone, methods) = (zone.clone(), methods.clone());
        Some(ResolvedEndpoint {
            instance_id: id,
            incarnation,
            address: address.into(),
            zone,
            weight,
            standing,
            load: soft.and_then(|soft| soft.load),
            methods,
            descriptor_digest: descriptors,
        })
    }

    fn commit(
        &mut self,
        position: &Position,
        completeness: Completeness,
        presence: Presence,
        entries: Vec<Entry>,
        removals: &[Removal],
        now: Instant,
    ) -> Verdict {
        if self.position.as_ref().is_none_or(|applied| applied.epoch != position.epoch) {
            self.current = 0;
        }
        self.position = Some(position.clone());
        self.completeness = completeness;
        // A record that calls itself emptied and lists somebody contradicts itself; the instances are believed.
        self.presence = if entries.is_empty() { presence } else { Presence::Populated };
        for removal in removals {
            self.remove(&position.epoch, removal, now);
        }
        let mut entries_rejected = 0;
        let contradicted = contradicted(&entries);
        for entry in entries {
            // What is known of it stays; of who is not known the first is taken.
            let entry = match entry {
                Entry::Good(Instance { id, .. }) if contradicted.contains(&id) && self.held.contains_key(&id) => {
                    Entry::Bad(Some(id))
                }
                entry => entry,
            };
            if !self.list(&position.epoch, entry) {
                entries_rejected += 1;
            }
        }
        self.settle(now);
        Verdict::Applied { entries_rejected }
    }

    fn remove(&mut self, epoch: &Epoch, removal: &Removal, now: Instant) {
        self.tombstones.add(epoch, removal);
        let Some(held) = self.held.get_mut(&removal.id) else { return };
        // Of another history nothing compares; there the id alone says who is meant.
        if held.epoch == *epoch && held.instance.incarnation > removal.incarnation {
            return;
        }
        if removal.cause == Cause::Silence && self.presence == Presence::Lapsed {
            held.lapse(now);
        } else {
            self.held.remove(&removal.id);
        }
    }

    /// Lists one instance; false where the entry is not to be believed, and what is known of it then stays.
    fn list(&mut self, epoch: &Epoch, entry: Entry) -> bool {
        let instance = match entry {
            Entry::Good(instance) => instance,
            Entry::Bad(id) => {
                if let Some(held) = id.and_then(|id| self.held.get_mut(&id)) {
                    held.listing = Listing::Listed;
                }
                return false;
            }
        };
        if self.tombstones.forbids(epoch, &instance) {
            return false;
        }
        match self.held.get_mut(&instance.id) {
            Some(held) if held.is_known_newer_than(epoch, &instance) => {
                held.listing = Listing::Listed;
                false
            }
            _ => {
                let held = Held { epoch: epoch.clone(), listing: Listing::Listed, instance };
                self.held.insert(held.instance.id, held);
                true
            }
        }
    }

    /// Draws the conclusions about who is not listed.
    fn settle(&mut self, now: Instant) {
        let nobody_listed = self.held.values().all(|held| held.listing != Listing::Listed);
        if self.completeness == Completeness::Complete {
            if self.presence == Presence::Emptied && nobody_listed {
                self.held.clear();
                return;
            }
            if !nobody_listed {
                self.held.retain(|_, held| !matches!(held.listing, Listing::Recalled { .. }));
            }
            for held in self.held.values_mut().filter(|held| held.listing != Listing::Listed) {
                held.lapse(now);
            }
        }
        self.drop_replaced();
        self.drop_longest_unlisted();
    }

    /// Where a listed instance has the address of one that is not listed any more, the process there is the listed one.
    fn drop_replaced(&mut self) {
        if self.held.values().all(|held| held.listing == Listing::Listed) {
            return;
        }
        let taken: HashSet<SocketAddr> = self
            .held
            .values()
            .filter(|held| held.listing == Listing::Listed)
            .map(|held| held.instance.address)
            .collect();
        self.held.retain(|_, held| held.listing == Listing::Listed || !taken.contains(&held.instance.address));
    }

    /// Keeps two bounds: of what has lapsed, and of everything that is held. What a warming registry has not listed yet
    /// counts towards the second alone: nobody doubts it so far, and a registry that starts empty must not cost a large
    /// service all but [`LAPSED_MAX`] of its instances.
    fn drop_longest_unlisted(&mut self) {
        let mut lapsed = Vec::new();
        let mut carried = Vec::new();
        for (&id, held) in &self.held {
            match held.listing {
                Listing::Listed => {}
                Listing::Recalled { since } | Listing::Carried { since } => carried.push((since, id)),
                Listing::Lapsed { since } => lapsed.push((since, id)),
            }
        }
        let lapsed_over = lapsed.len().saturating_sub(LAPSED_MAX);
        let over = self.held.len().saturating_sub(HELD_MAX).max(lapsed_over);
        if over > 0 {
            lapsed.sort_unstable();
            carried.sort_unstable();
            for (_, id) in lapsed.iter().chain(&carried).take(over) {
                self.held.remove(id);
            }
        }
    }
}

impl Soft {
    fn of(&self, id: Uuid, incarnation: u64) -> Option<SoftHeld> {
        self.entries.get(&id).copied().filter(|held| held.incarnation == incarnation)
    }
}

impl Held {
    /// What an earlier process knew is never held against what the registry lists now.
    fn is_known_newer_than(&self, epoch: &Epoch, listed: &Instance) -> bool {
        let recalled = matches!(self.listing, Listing::Recalled { .. });
        !recalled && self.epoch == *epoch && self.instance.is_newer_than(listed)
    }

    fn lapse(&mut self, now: Instant) {
        if !matches!(self.listing, Listing::Lapsed { .. }) {
            self.listing = Listing::Lapsed { since: now };
        }
    }
}

impl Instance {
    /// Of two listings of one id in one history.
    fn is_newer_than(&self, other: &Self) -> bool {
        (self.incarnation, self.revision) > (other.incarnation, other.revision)
    }
}

/// Ids of which a list says two things at once: the same change of the same start, at two addresses.
fn contradicted(entries: &[Entry]) -> HashSet<Uuid> {
    let mut latest: HashMap<Uuid, &Instance> = HashMap::with_capacity(entries.len());
    let mut contradicted = HashSet::new();
    for entry in entries {
        let Entry::Good(instance) = entry else { continue };
        let known = *latest.entry(instance.id).or_insert(instance);
        if instance.is_newer_than(known) {
            latest.insert(instance.id, instance);
            contradicted.remove(&instance.id);
        } else if !known.is_newer_than(instance) && known.address != instance.address {
            contradicted.insert(instance.id);
        }
    }
    contradicted
}

/// The one place where listing, liveness, serving status and the operators' wish become one answer. `None` is "not to be
/// called at all".
fn standing(listing: Listing, liveness: Liveness, serving: ServingStatus, admin: Admin) -> Option<Standing> {
    match (admin, serving, listing, liveness) {
        (Admin::Disabled, _, _, _) => None,
        (Admin::Draining, _, _, _) | (_, ServingStatus::Draining | ServingStatus::NotServing, _, _) => {
            Some(Standing::Draining)
        }
        (_, _, Listing::Lapsed { .. }, _) => Some(Standing::Lapsed),
        (_, _, Listing::Recalled { .. }, _) => Some(Standing::Stale),
        (_, _, _, Liveness::Alive) => Some(Standing::Alive),
        (_, _, _, Liveness::Suspect) => Some(Standing::Suspect),
        (_, _, _, Liveness::Stale) => Some(Standing::Stale),
    }
}

/// The latest removals of one history.
#[derive(Debug, Default)]
struct Tombstones {
    epoch: Option<Epoch>,
    by_id: HashMap<Uuid, (u64, u64)>,
    order: VecDeque<(Uuid, u64)>,
}

impl Tombstones {
    fn add(&mut self, epoch: &Epoch, removal: &Removal) {
        if self.epoch.as_ref() != Some(epoch) {
            *self = Self { epoch: Some(epoch.clone()), ..Self::default() };
        }
        let known = self.by_id.get(&removal.id).is_some_and(|&(_, revision)| revision >= removal.revision);
        if known {
            return;
        }
        self.by_id.insert(removal.id, (removal.incarnation, removal.revision));
        self.order.push_back((removal.id, removal.revision));
        if self.order.len() > TOMBSTONES_MAX
            && let Some((id, revision)) = self.order.pop_front()
            && self.by_id.get(&id).is_some_and(|&(_, latest)| latest == revision)
        {
            self.by_id.remove(&id);
        }
    }

    /// Whether a listing is older than the removal of the same start.
    fn forbids(&self, epoch: &Epoch, instance: &Instance) -> bool {
        self.epoch.as_ref() == Some(epoch)
            && self.by_id.get(&instance.id).is_some_and(|&(incarnation, revision)| {
                instance.incarnation <= incarnation && instance.revision <= revision
            })
    }
}

#[cfg(test)]
mod props;
#[cfg(test)]
mod tests;
