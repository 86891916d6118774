//! A store for tests that does everything a store is allowed to do, and does it often: other nodes write first, outcomes
//! get lost before or after the commit, commits come late, writes are refused, the feed breaks off and falls behind.
//! What it never does is break a promise of [`Store`]. Everything it does follows from its seed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::{FollowError, Loaded, MemoryStore, Outcome, Store, StoreError};
use crate::catalog::{
    Command, Committed, Context, Identity, Key, LeaseId, Limits, OpId, Overlay, Proposal, Record, Register, Revision,
    StartNonce, State, Timestamp, Ttl, decide,
};

/// How often each thing happens, in percent of the occasions for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hostility {
    /// Another node writes before a group of proposals is looked at.
    pub foreign_writes: u32,
    /// A proposal conflicts though nothing it expects has changed, as where two nodes touch one key and it changes back.
    pub conflicts: u32,
    /// A proposal's outcome is not told. Of these a third was committed, a third was not, a third is committed later.
    pub unknowns: u32,
    /// A proposal is refused, as on a full disk.
    pub refusals: u32,
    /// The feed breaks off at a commit.
    pub broken_feeds: u32,
    /// A feed that is taken up again finds its place compacted away.
    pub compactions: u32,
    /// Longest time that a group or a feed's news takes, in milliseconds.
    pub delay_max_ms: u64,
}

impl Hostility {
    /// As bad as it gets while something still gets through.
    pub const HIGH: Self = Self {
        foreign_writes: 30,
        conflicts: 10,
        unknowns: 15,
        refusals: 5,
        broken_feeds: 10,
        compactions: 30,
        delay_max_ms: 40,
    };

    /// No faults: another node's writes alone.
    pub const COMPANY: Self = Self {
        foreign_writes: 30,
        conflicts: 0,
        unknowns: 0,
        refusals: 0,
        broken_feeds: 0,
        compactions: 0,
        delay_max_ms: 5,
    };
}

/// A hostile store around a memory store, which holds the truth.
#[derive(Clone, Debug)]
pub struct HostileStore {
    truth: MemoryStore,
    mind: Arc<Mutex<Mind>>,
}

#[derive(Debug)]
struct Mind {
    rng: StdRng,
    hostility: Hostility,
    /// Proposals whose commit comes late; at most [`LATE_MAX`].
    late: VecDeque<Arc<Proposal>>,
    /// What the other node counts as the time; far from any deadline of ours.
    foreign_now: Timestamp,
}

/// Late commits kept at once; past it the oldest is made.
const LATE_MAX: usize = 16;

/// What to do with a proposal.
enum Treatment {
    Fair,
    Conflict,
    Refuse,
    CommitAndForget,
    Forget,
    CommitLater,
}

impl HostileStore {
    /// A hostile store around this one.
    #[must_use]
    pub fn new(truth: MemoryStore, seed: u64, hostility: Hostility) -> Self {
        let mind = Mind {
            rng: StdRng::seed_from_u64(seed),
            hostility,
            late: VecDeque::new(),
            foreign_now: Timestamp::since_epoch(Duration::from_secs(1_000_000)),
        };
        Self { truth, mind: Arc::new(Mutex::new(mind)) }
    }

    /// Changes how hostile it is from now on; a test ends in peace to see what remains.
    pub fn set_hostility(&self, hostility: Option<Hostility>) {
        let calm = Hostility { foreign_writes: 0, delay_max_ms: 1, ..Hostility::COMPANY };
        self.mind.lock().hostility = hostility.unwrap_or(calm);
    }

    /// What is really stored.
    #[must_use]
    pub fn truth(&self) -> &MemoryStore {
        &self.truth
    }

    fn delay(&self) -> Duration {
        let mut mind = self.mind.lock();
        let max = mind.hostility.delay_max_ms;
        Duration::from_millis(mind.rng.random_range(0..=max))
    }

    /// Answers one proposal as it pleases.
    fn answer(&self, proposal: &Arc<Proposal>) -> Outcome {
        let treatment = self.mind.lock().treatment();
        match treatment {
            Treatment::Fair => self.truth.try_commit(proposal),
            // Both say that nothing was changed, so neither is said of what was made before or may still be.
            Treatment::Conflict | Treatment::Refuse if self.is_or_may_be(proposal.op) => {
                self.truth.try_commit(proposal)
            }
            Treatment::Conflict => Outcome::Conflict(self.truth.revision()),
            Treatment::Refuse => Outcome::Refused("no space left on device".into()),
            Treatment::CommitAndForget => {
                let _ = self.truth.try_commit(proposal);
                Outcome::Unknown
            }
            Treatment::Forget => Outcome::Unknown,
            Treatment::CommitLater => {
                let overdue = self.mind.lock().postpone(proposal.clone());
                if let Some(overdue) = overdue {
                    let _ = self.truth.try_commit(&overdue);
                }
                Outcome::Unknown
            }
        }
    }

    /// Whether a proposal was committed or waits to be.
    fn is_or_may_be(&self, op: OpId) -> bool {
        self.truth.became(op).is_some() || self.mind.lock().late.iter().any(|late| late.op == op)
    }

    /// Lets another node write and late commits come.
    fn interfere(&self) {
        let (late, foreign) = {
            let mut mind = self.mind.lock();
            let late = if mind.happens(50) { mind.late.pop_front() } else { None };
            let writes = mind.hostility.foreign_writes;
            (late, mind.happens(writes))
        };
        if let Some(late) = late {
            let _ = self.truth.try_commit(&late);
        }
        if foreign {
            let loaded = self.truth.snapshot();
            let identities: Vec<(Key, Identity)> = loaded
                .entries
                .iter()
                .filter_map(|entry| match &entry.record {
                    Record::Identity(identity) => Some((entry.key.clone(), identity.clone())),
                    Record::Service(_) | Record::Rule(_) | Record::History(_) => None,
                })
                .collect();
            let state = loaded.into_state();
            let proposal = self.mind.lock().foreign(&state, &identities);
            if let Some(proposal) = proposal {
                let _ = self.truth.try_commit(&proposal);
            }
        }
    }
}

impl Mind {
    fn happens(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent.min(100), 100)
    }

    fn treatment(&mut self) -> Treatment {
        let Hostility { conflicts, unknowns, refusals, .. } = self.hostility;
        if self.happens(conflicts) {
            Treatment::Conflict
        } else if self.happens(refusals) {
            Treatment::Refuse
        } else if self.happens(unknowns) {
            match self.rng.random_range(0..3) {
                0 => Treatment::CommitAndForget,
                1 => Treatment::Forget,
                _ => Treatment::CommitLater,
            }
        } else {
            Treatment::Fair
        }
    }

    fn postpone(&mut self, proposal: Arc<Proposal>) -> Option<Arc<Proposal>> {
        self.late.push_back(proposal);
        if self.late.len() > LATE_MAX { self.late.pop_front() } else { None }
    }

    fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// What another node does to one of the ids: takes it over for a newer start, removes it, or forgets about it.
    fn foreign(&mut self, state: &State, identities: &[(Key, Identity)]) -> Option<Proposal> {
        if identities.is_empty() {
            return None;
        }
        let (key, identity) = &identities[self.rng.random_range(0..identities.len())];
        let Key::Identity(key) = key else { return None };
        let command = match (&identity.live, self.rng.random_range(0..4)) {
            (Some(live), 0) => Command::Register {
                request: Register {
                    service: live.service.clone(),
                    id: key.id,
                    nonce: StartNonce::new(self.bytes()),
                    held: None,
                    serving: live.serving,
                    ttl: Some(live.ttl),
                    spec: live.spec.clone(),
                },
                fresh: LeaseId::new(self.bytes()),
            },
            (Some(live), 1) => Command::Deregister { lease: live.lease, incarnation: live.incarnation },
            (Some(live), 2) => Command::Expire { identity: key.clone(), lease: live.lease },
            (Some(live), _) => Command::Remove { service: live.service.clone(), id: key.id },
            (None, _) => Command::Forget { identities: vec![key.clone()] },
        };
        let op = OpId(self.bytes());
        let (limits, default_ttl) = (Limits::default(), Ttl::DEFAULT);
        let context = Context { now: self.foreign_now, op, limits, default_ttl, node: None };
        decide(&Overlay::new(state), &command, context).ok()?.proposal
    }
}

impl Store for HostileStore {
    fn load(&self) -> BoxFuture<'_, Result<Loaded, StoreError>> {
        async {
            tokio::time::sleep(self.delay()).await;
            Ok(self.truth.snapshot())
        }
        .boxed()
    }

    fn commit(&self, proposals: Vec<Arc<Proposal>>) -> BoxFuture<'_, Vec<Outcome>> {
        async move {
            tokio::time::sleep(self.delay()).await;
            self.interfere();
            let mut outcomes = Vec::new();
            for proposal in &proposals {
                outcomes.push(self.answer(proposal));
            }
            tokio::time::sleep(self.delay()).await;
            outcomes
        }
        .boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'static, Result<Arc<Committed>, FollowError>> {
        let compacted = {
            let mut mind = self.mind.lock();
            let compactions = mind.hostility.compactions;
            // Only who takes a feed up again can have fallen behind.
            after > Revision::ZERO && mind.happens(compactions)
        };
        if compacted {
            let oldest = self.truth.revision().next();
            return stream::once(async move { Err(FollowError::Compacted { oldest }) }).boxed();
        }
        let from = (self.clone(), self.truth.follow(after), true);
        stream::unfold(from, |(store, mut feed, whole)| async move {
            if !whole {
                return None;
            }
            let news = feed.next().await?;
            tokio::time::sleep(store.delay()).await;
            let breaks = {
                let mut mind = store.mind.lock();
                let broken = mind.hostility.broken_feeds;
                mind.happens(broken)
            };
            if breaks {
                let reason = "connection reset".into();
                return Some((Err(FollowError::Broken { reason }), (store, feed, false)));
            }
            Some((news, (store, feed, true)))
        })
        .boxed()
    }
}
