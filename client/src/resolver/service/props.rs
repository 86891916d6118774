//! Properties against a naive model. The model of a well-behaved registry is its whole history, one complete state per
//! revision; whatever is delivered in whatever order, the client must hold exactly the state of the position it claims.
//! The model of a hostile registry is one sentence: nothing goes unless somebody said so.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::{at, epoch, instance};
use super::*;
use crate::clock;

/// The truth at each revision, and what changed with it.
struct Registry {
    /// State by revision; the state of an id is its incarnation and the revision of its last change.
    history: Vec<BTreeMap<u16, (u64, u64)>>,
    removals: Vec<Removal>,
    incarnations: u64,
}

#[derive(Clone, Debug)]
enum Step {
    /// An instance registers, or does so again.
    Register(u16),
    /// One leaves, if it is there.
    Leave(u16),
    /// Everything after the client's position reaches it as one change.
    CatchUp,
    /// A change from one point of the history to another arrives, numbered back from now.
    Change { back: usize, length: usize },
    /// A snapshot of the state so many revisions ago arrives, in chunks of so many instances.
    Snapshot { back: usize, chunk: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..12_u16).prop_map(Step::Register),
        2 => (1..12_u16).prop_map(Step::Leave),
        2 => Just(Step::CatchUp),
        2 => (0..8_usize, 1..8_usize).prop_map(|(back, length)| Step::Change { back, length }),
        2 => (0..8_usize, 1..6_usize).prop_map(|(back, chunk)| Step::Snapshot { back, chunk }),
    ]
}

impl Registry {
    fn new() -> Self {
        Self { history: vec![BTreeMap::new()], removals: Vec::new(), incarnations: 0 }
    }

    fn now(&self) -> usize {
        self.history.len() - 1
    }

    fn register(&mut self, n: u16) {
        self.incarnations += 1;
        let revision = self.history.len() as u64;
        let mut state = self.history[self.now()].clone();
        state.insert(n, (self.incarnations, revision));
        self.history.push(state);
    }

    fn leave(&mut self, n: u16) {
        let mut state = self.history[self.now()].clone();
        if let Some((incarnation, _)) = state.remove(&n) {
            let revision = self.history.len() as u64;
            self.removals.push(Removal { id: Uuid::from_u128(n.into()), incarnation, revision, cause: Cause::Told });
            self.history.push(state);
        }
    }

    fn change(&self, from: usize, to: usize) -> Delta {
        let (from_revision, to_revision) = (from as u64, to as u64);
        let within = |revision: u64| revision > from_revision && revision <= to_revision;
        let entries = self.entries(to).into_iter().filter(|(revision, _)| within(*revision));
        Delta {
            base: from_revision,
            presence: self.presence(to),
            entries: entries.map(|(_, entry)| entry).collect(),
            removals: self.removals.iter().filter(|removal| within(removal.revision)).cloned().collect(),
        }
    }

    fn entries(&self, at: usize) -> Vec<(u64, Entry)> {
        let entry = |(&n, &(incarnation, revision)): (&u16, &(u64, u64))| {
            (revision, Entry::Good(instance(n, incarnation, revision)))
        };
        self.history[at].iter().map(entry).collect()
    }

    fn presence(&self, at: usize) -> Presence {
        if self.history[at].is_empty() { Presence::Emptied } else { Presence::Populated }
    }

    fn chunks(&self, at: usize, size: usize) -> Vec<Chunk> {
        let entries: Vec<Entry> = self.entries(at).into_iter().map(|(_, entry)| entry).collect();
        let mut parts: Vec<Vec<Entry>> = entries.chunks(size).map(<[Entry]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len() - 1;
        let chunk = |(index, entries)| Chunk {
            index: index as u32,
            last: index == last,
            presence: self.presence(at),
            entries,
            removals: Vec::new(),
        };
        parts.into_iter().enumerate().map(chunk).collect()
    }
}

fn listed(state: &ServiceState) -> BTreeMap<u16, u64> {
    let alive = state.held.values().filter(|held| held.listing == Listing::Listed);
    alive.map(|held| (held.instance.id.as_u128() as u16, held.instance.incarnation)).collect()
}

proptest! {
    #[test]
    fn what_is_held_is_the_state_of_the_position_claimed(steps in prop::collection::vec(step(), 1..80)) {
        let mut registry = Registry::new();
        let mut state = ServiceState::new();
        let now = clock::now().into_std();
        for step in steps {
            let before = state.position().map(|position| position.revision);
            match step {
                Step::Register(n) => registry.register(n),
                Step::Leave(n) => registry.leave(n),
                Step::CatchUp => if let Some(from) = before {
                    let to = registry.now();
                    let delta = registry.change(from as usize, to);
                    let verdict = state.delta(&at("a", to as u64), Completeness::Complete, delta, now);
                    let taken = Verdict::Applied { entries_rejected: 0 };
                    prop_assert!(verdict == Verdict::Older || verdict == taken);
                    prop_assert_eq!(state.position(), Some(&at("a", to as u64)));
                }
                Step::Change { back, length } => {
                    let to = registry.now().saturating_sub(back);
                    let delta = registry.change(to.saturating_sub(length), to);
                    let unseen = before.is_none_or(|before| delta.base > before);
                    let verdict = state.delta(&at("a", to as u64), Completeness::Complete, delta, now);
                    prop_assert_eq!(verdict == Verdict::Gap, unseen);
                }
                Step::Snapshot { back, chunk } => {
                    let at_revision = registry.now().saturating_sub(back);
                    for chunk in registry.chunks(at_revision, chunk) {
                        state.chunk(&at("a", at_revision as u64), Completeness::Complete, chunk, now);
                    }
                }
            }
            let after = state.position().map(|position| position.revision);
            prop_assert!(after >= before, "the position went back");
            if let Some(revision) = after {
                let truth: BTreeMap<u16, u64> =
                    registry.history[revision as usize].iter().map(|(&n, &(incarnation, _))| (n, incarnation)).collect();
                prop_assert_eq!(listed(&state), truth);
            }
        }
    }
}

/// Anything that can be put on the wire.
#[derive(Clone, Debug)]
enum Push {
    Chunk(Position, Completeness, Chunk),
    Delta(Position, Completeness, Delta),
    Soft(Position, Vec<SoftEntry>),
    Bookmark(Position, Completeness),
}

fn push() -> impl Strategy<Value = Push> {
    let position = (prop::sample::select(vec!["a", "b"]), 0..2_u64, 0..12_u64)
        .prop_map(|(store, generation, revision)| Position { epoch: Epoch { generation, ..epoch(store) }, revision });
    let completeness = prop::sample::select(vec![Completeness::Complete, Completeness::Warming]);
    let presence =
        prop::sample::select(vec![Presence::Unknown, Presence::Populated, Presence::Emptied, Presence::Lapsed]);
    let entry = (0..8_u16, 1..4_u64, 0..12_u64).prop_map(|(n, incarnation, revision)| match n {
        0 => Entry::Bad(Some(Uuid::from_u128(1))),
        _ => Entry::Good(instance(n, incarnation, revision)),
    });
    let cause = prop::sample::select(vec![Cause::Told, Cause::Silence]);
    let removal = (1..8_u128, 1..4_u64, 0..12_u64, cause).prop_map(|(n, incarnation, revision, cause)| Removal {
        id: Uuid::from_u128(n),
        incarnation,
        revision,
        cause,
    });
    let body = (presence, prop::collection::vec(entry, 0..6), prop::collection::vec(removal, 0..2));
    let liveness = prop::sample::select(vec![Liveness::Alive, Liveness::Suspect, Liveness::Stale]);
    let soft = (1..8_u128, 1..4_u64, liveness).prop_map(|(n, incarnation, liveness)| SoftEntry {
        id: Uuid::from_u128(n),
        incarnation,
        liveness,
        load: None,
    });
    let chunk = (0..2_u32, any::<bool>(), body.clone())
        .prop_map(|(index, last, (presence, entries, removals))| Chunk { index, last, presence, entries, removals });
    let delta =
        (0..12_u64, body).prop_map(|(base, (presence, entries, removals))| Delta { base, presence, entries, removals });
    prop_oneof![
        (position.clone(), completeness.clone(), chunk).prop_map(|(p, c, chunk)| Push::Chunk(p, c, chunk)),
        (position.clone(), completeness.clone(), delta).prop_map(|(p, c, delta)| Push::Delta(p, c, delta)),
        (position.clone(), prop::collection::vec(soft, 0..4)).prop_map(|(p, soft)| Push::Soft(p, soft)),
        (position, completeness).prop_map(|(p, c)| Push::Bookmark(p, c)),
    ]
}

proptest! {
    #[test]
    fn nothing_goes_unless_somebody_said_so(pushes in prop::collection::vec(push(), 1..60)) {
        let mut state = ServiceState::new();
        let now = clock::now().into_std();
        let mut removed_by_chunks: BTreeSet<Uuid> = BTreeSet::new();
        for push in pushes {
            let before: BTreeSet<Uuid> = state.held.keys().copied().collect();
            let position = state.position().cloned();
            let mut named: BTreeSet<Uuid> = BTreeSet::new();
            match push {
                Push::Chunk(p, c, chunk) => {
                    if chunk.index == 0 {
                        removed_by_chunks.clear();
                    }
                    removed_by_chunks.extend(chunk.removals.iter().map(|removal| removal.id));
                    named.clone_from(&removed_by_chunks);
                    state.chunk(&p, c, chunk, now);
                }
                Push::Delta(p, c, delta) => {
                    named.extend(delta.removals.iter().map(|removal| removal.id));
                    state.delta(&p, c, delta, now);
                }
                Push::Soft(p, soft) => { state.soft(&p, soft, now); }
                Push::Bookmark(p, c) => { state.bookmark(&p, c, now); }
            }
            let emptied = state.presence == Presence::Emptied && state.completeness == Completeness::Complete;
            for id in &before {
                prop_assert!(state.held.contains_key(id) || named.contains(id) || emptied, "{id} went without a word");
            }
            if let (Some(before), Some(after)) = (position, state.position()) {
                prop_assert!(!after.is_before(&before), "the position went back");
            }
        }
    }
}
