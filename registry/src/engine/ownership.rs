//! Which instances this node keeps, and whether it may act on it (DESIGN §5).
//!
//! What a node owns stands in the store, and changes by commits alone. Here is what comes before a commit: wishes to claim,
//! orphans and since when they are known, beats on their way to other nodes, and whether this node still holds its lease in
//! the store. A node that is not sure of that expires nobody, adopts nobody and writes nothing; it goes on to answer beats,
//! and what beats on a stream here it claims when it is sure again. Only where no other node hears of those beats either it
//! refuses them: what it keeps the others take over, and what they keep runs out there, so its instances have to beat
//! elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::error::EngineError;
use super::pending::BatchId;
use crate::catalog::{IdentityKey, Instance, LeaseId, NodeId, Orphan, ServiceChange, State, StreamId, Timestamp};
use crate::cluster::{
    Authority, Board, Company, Heard, Listening, Member, Membership, RelayedBeat, Relays, Settled, winner,
};

/// How long after a node is sure again it adopts nobody: the TTL of a node's lease, within which every node that lives is
/// back among the members.
const NODE_LEASE: Duration = Duration::from_secs(10);

/// How soon a claim or an adoption that came to nothing is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Most that an adoption writes, in bytes of memory that its records take: the records are written whole, some are 64 KiB,
/// and etcd refuses transactions above 1.5 MiB. One record alone is adopted whatever its size.
const ADOPTED_BYTES_MAX: usize = 512 * 1024;

/// Claims that were wished for are not asked for while so many goodbyes and claims wait: a sixteenth of what may wait.
const WISHES_MAX: usize = 256;

/// How often the orphans are looked through for those that are due.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A beat whose answer waits for another node or for the store.
#[derive(Debug)]
pub(super) struct Errand {
    /// Whose lease.
    pub(super) identity: IdentityKey,
    /// The beat.
    pub(super) beat: RelayedBeat,
    /// The stream that it came on, if it did.
    pub(super) via: Option<StreamId>,
    /// Which answer of which message waits for it; `None` where nobody waits.
    pub(super) awaited: Option<(BatchId, usize)>,
}

/// What comes from other nodes.
pub(super) enum OwnershipNews {
    /// Who is there may have changed.
    Members,
    /// What became of relayed beats.
    Relayed(Vec<Settled<Errand>>),
    /// What another node says of the leases that it keeps.
    Heard(Heard),
}

/// Whether a claim is under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Claim {
    /// It waits to be decided, or is in the store's hands.
    Asked,
    /// It is to be asked for when this node may, and not before.
    Wished(Timestamp),
}

/// An orphan, and when it may be adopted.
#[derive(Clone, Debug)]
struct Ownerless {
    orphan: Orphan,
    due: Timestamp,
    /// About how large its record is.
    bytes: usize,
    /// Whether the store has something else under its key than what is known here, and keeps having it: a record that only a
    /// newer registry understands. It is left out until a commit tells of it that is understood.
    left_out: bool,
}

/// An adoption that is under way.
#[derive(Clone, Debug)]
struct Adopting {
    /// Who is adopted if it is one.
    first: IdentityKey,
    orphans: usize,
}

/// What this node knows of ownership beside the records.
pub(super) struct Ownership {
    node: Option<NodeId>,
    membership: watch::Receiver<Arc<Membership>>,
    known: Arc<Membership>,
    /// Since when this node is not sure.
    unsure: Option<Timestamp>,
    /// Until when beats are passed on to everybody: this node was not sure of itself lately, and its records may not have
    /// caught up.
    telling_until: Option<Timestamp>,
    /// Other nodes that failed to take the last beats passed on to them, since this node is not sure of itself. At most one a
    /// member.
    deaf: BTreeSet<NodeId>,
    /// Whether this node was cut off when it was looked at last.
    cut_off: bool,
    /// Nobody is adopted before.
    adopt_after: Timestamp,
    /// At most one a live instance.
    orphans: BTreeMap<IdentityKey, Ownerless>,
    /// An adoption is under way. One at a time, of at most [`Orphan::ADOPTED_MAX`] and [`ADOPTED_BYTES_MAX`].
    adopting: Option<Adopting>,
    /// Most orphans of the next adoption. All of one are adopted or none: where none was, fewer are tried, down to the one that
    /// cannot be.
    adopted_max: usize,
    /// At most one a live instance; dropped once the instance is owned here or gone.
    claims: BTreeMap<IdentityKey, (LeaseId, Claim)>,
    /// When wishes to claim are tried again.
    claim_at: Option<Timestamp>,
    pub(super) relays: Relays<Errand>,
    listening: Listening,
    pub(super) board: Board,
}

impl Ownership {
    pub(super) fn new(company: &Company, now: Timestamp) -> Self {
        let (node, mut membership) = (company.cluster.node(), company.cluster.membership());
        let known = Arc::clone(&membership.borrow_and_update());
        // Looked at in the first turn, like any change of it.
        membership.mark_changed();
        Self {
            node,
            membership,
            known,
            unsure: None,
            telling_until: None,
            deaf: BTreeSet::new(),
            cut_off: false,
            adopt_after: now,
            orphans: BTreeMap::new(),
            adopting: None,
            adopted_max: Orphan::ADOPTED_MAX,
            claims: BTreeMap::new(),
            claim_at: None,
            relays: Relays::new(company.peers.clone()),
            listening: Listening::new(company.peers.clone(), node),
            board: Board::default(),
        }
    }

    /// This node; `None` where it is the only one.
    pub(super) fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Since when this node does not know whether it still holds its lease.
    pub(super) fn unsure(&self) -> Option<Timestamp> {
        self.unsure
    }

    /// The next news from other nodes; never, where there are none. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> OwnershipNews {
        if self.node.is_none() {
            return std::future::pending().await;
        }
        tokio::select! {
            biased;
            changed = self.membership.changed() => match changed {
                Ok(()) => {
                    // Left for the next turn to look at.
                    self.membership.mark_changed();
                    OwnershipNews::Members
                }
                // Whoever knew of members is gone, as in a process that ends.
                Err(_) => std::future::pending().await,
            },
            settled = self.relays.next() => OwnershipNews::Relayed(settled),
            heard = self.listening.next() => OwnershipNews::Heard(heard),
        }
    }

    /// What has been heard already of relayed beats and of leases kept elsewhere.
    pub(super) fn try_next(&mut self) -> Option<OwnershipNews> {
        use futures_util::FutureExt as _;
        let settled = self.relays.next().now_or_never().map(OwnershipNews::Relayed);
        settled.or_else(|| self.listening.try_next().map(OwnershipNews::Heard))
    }

    /// Looks at who is there. `None` where nothing has changed.
    pub(super) fn look(&mut self, now: Timestamp) -> Option<Look> {
        if self.node.is_none() || !self.membership.has_changed().unwrap_or(false) {
            return None;
        }
        let membership = Arc::clone(&self.membership.borrow_and_update());
        let members_changed = membership.members != self.known.members;
        self.known = membership;
        let authority = match (self.unsure, self.known.authority) {
            (None, Authority::Unsure) => {
                self.unsure = Some(now);
                self.deaf.clear();
                Turn::Lost
            }
            (Some(_), Authority::Sure) => {
                self.unsure = None;
                self.adopt_after = now.after(NODE_LEASE);
                self.telling_until = Some(now.after(NODE_LEASE));
                self.claim_at = Some(now);
                Turn::Regained
            }
            _ => Turn::Same,
        };
        // What an unsure node is told of members may be old; it goes on with those that it has.
        let silenced = if self.unsure.is_none() { self.listening.attend(&self.known.members) } else { Vec::new() };
        Some(Look { authority, members_changed, silenced })
    }

    /// The node that keeps an instance, if it can be asked.
    pub(super) fn keeper(&self, owner: Option<NodeId>) -> Option<Member> {
        self.known.members.get(&owner?).filter(|member| Some(member.node) != self.node).copied()
    }

    /// Whether beats are passed on to everybody, whoever is thought to keep the leases.
    pub(super) fn tells_all(&self, now: Timestamp) -> bool {
        self.unsure.is_some() || self.telling_until.is_some_and(|until| now < until)
    }

    /// Passes a beat on to every other node that was there last. A node that is not sure of itself does not learn who adopts
    /// what it kept; whoever does hears of it this way, and nobody's answer is waited for.
    pub(super) fn tell_all(&mut self, identity: &IdentityKey, beat: &RelayedBeat) {
        let others = self.known.members.values().filter(|member| Some(member.node) != self.node);
        for other in others {
            let errand = Errand { identity: identity.clone(), beat: beat.clone(), via: None, awaited: None };
            // Where enough is to be told already, the next beat may find a place.
            let _ = self.relays.tell(*other, beat.clone(), errand);
        }
    }

    /// Another node took beats that were passed on to it, or did not.
    pub(super) fn taken(&mut self, by: NodeId, taken: bool) {
        if taken {
            self.deaf.remove(&by);
        } else if self.known.members.contains_key(&by) {
            self.deaf.insert(by);
        }
    }

    /// Whether this node has neither the store nor another node to tell of beats: it is not sure of itself, and every other one
    /// that it knows failed to take the last that were passed on. Not for a node's lease or so: what the others keep, or have
    /// claimed without this node learning of it, runs out there meanwhile. With no other known nobody takes anything over.
    pub(super) fn is_cut_off(&mut self) -> bool {
        let mut others = self.known.members.keys().filter(|node| Some(**node) != self.node).peekable();
        let cut_off = self.unsure.is_some() && others.peek().is_some() && others.all(|node| self.deaf.contains(node));
        match (self.cut_off, cut_off) {
            (false, true) => {
                tracing::warn!(
                    "neither the store nor another node is reached: heartbeats are refused, to go elsewhere"
                );
            }
            (true, false) => tracing::info!("heartbeats are answered again"),
            _ => {}
        }
        self.cut_off = cut_off;
        cut_off
    }

    /// Whether nobody who is there owns it.
    fn is_orphan(&self, owner: Option<NodeId>) -> bool {
        owner != self.node && owner.is_none_or(|owner| !self.known.members.contains_key(&owner))
    }

    /// Looks through everybody for orphans: the members are others.
    pub(super) fn survey(&mut self, state: &State, now: Timestamp) {
        if self.node.is_none() {
            return;
        }
        let before = std::mem::take(&mut self.orphans);
        for instance in state.instances() {
            self.see(instance, now);
        }
        // Who was one before has been one for longer.
        for (identity, known) in before {
            if let Some(still) = self.orphans.get_mut(&identity).filter(|still| still.orphan == known.orphan) {
                (still.due, still.left_out) = (known.due, known.left_out);
            }
        }
        let live = |identity: &IdentityKey, lease: LeaseId| state.lease_holder(lease) == Some(identity);
        self.claims.retain(|identity, (lease, _)| live(identity, *lease));
    }

    /// Takes in what a commit changed.
    pub(super) fn changed(&mut self, change: &ServiceChange, now: Timestamp) {
        if self.node.is_none() {
            return;
        }
        for removal in &change.gone {
            let identity = IdentityKey { namespace: change.service.namespace.clone(), id: removal.id };
            self.orphans.remove(&identity);
            self.claims.remove(&identity);
        }
        for instance in change.upserts.iter().chain(&change.owned) {
            self.see(instance, now);
        }
    }

    fn see(&mut self, instance: &Instance, now: Timestamp) {
        let orphan = instance.as_orphan();
        if !self.is_orphan(orphan.of) {
            self.orphans.remove(&orphan.identity);
            return;
        }
        match self.orphans.get_mut(&orphan.identity).filter(|known| known.orphan == orphan) {
            Some(known) => known.left_out = false,
            None => {
                let due = now.after(instance.ttl().get() / 2);
                let bytes = instance.spec().bytes();
                self.orphans.insert(orphan.identity.clone(), Ownerless { orphan, due, bytes, left_out: false });
            }
        }
    }

    /// The orphans that this node is to adopt now.
    pub(super) fn adopt(&mut self, now: Timestamp) -> Vec<Orphan> {
        if self.adopting.is_some() || self.unsure.is_some() || now < self.adopt_after {
            return Vec::new();
        }
        let nodes = || self.known.members.keys().copied();
        let due = self.orphans.values().filter(|ownerless| ownerless.due <= now && !ownerless.left_out);
        let mine = due.filter(|ownerless| winner(nodes(), &ownerless.orphan.identity) == self.node);
        let adopted = together(mine.take(self.adopted_max));
        self.adopting = adopted.first().map(|first| Adopting { first: first.identity.clone(), orphans: adopted.len() });
        if self.adopting.is_none() && !self.orphans.is_empty() {
            self.adopt_after = now.after(LOOK_AGAIN);
        }
        adopted
    }

    /// An adoption is over.
    pub(super) fn adopted(&mut self) {
        self.adopting = None;
        self.adopted_max = (self.adopted_max * 2).min(Orphan::ADOPTED_MAX);
    }

    /// An adoption came to nothing, whatever was tried: because the store has other records than are known here, or because it
    /// takes none.
    pub(super) fn not_adopted(&mut self, error: &EngineError, now: Timestamp) {
        let Some(Adopting { first, orphans }) = self.adopting.take() else { return };
        if !matches!(error, EngineError::Aborted { .. }) {
            self.adopt_after = self.adopt_after.max(now.after(AGAIN));
            return;
        }
        self.adopted_max = (orphans / 2).max(1);
        if orphans == 1
            && let Some(orphan) = self.orphans.get_mut(&first)
        {
            orphan.left_out = true;
            tracing::warn!(instance = %first, "an instance whose registry is gone cannot be adopted: the store has a record \
                of it that this registry does not understand; it is left alone until that changes");
        }
    }

    /// Whether a claim is to be asked for; not where it is under way, and only wished for by a node that is not sure.
    pub(super) fn asks(&mut self, identity: &IdentityKey, lease: LeaseId, now: Timestamp) -> bool {
        let claim = self.claims.get(identity).filter(|(of, _)| *of == lease).map(|(_, claim)| *claim);
        if claim == Some(Claim::Asked) {
            return false;
        }
        if self.unsure.is_some() {
            self.wish(identity.clone(), lease, now);
            return false;
        }
        self.claims.insert(identity.clone(), (lease, Claim::Asked));
        true
    }

    /// A claim is made, or there is nothing to claim any more.
    pub(super) fn claimed(&mut self, identity: &IdentityKey) {
        self.claims.remove(identity);
    }

    /// A claim is to be tried again later: after a while, or as soon as a node is sure of itself that is not now.
    pub(super) fn wish(&mut self, identity: IdentityKey, lease: LeaseId, now: Timestamp) {
        let at = if self.unsure.is_some() { now } else { now.after(AGAIN) };
        self.claims.insert(identity, (lease, Claim::Wished(at)));
        self.claim_at = Some(self.claim_at.map_or(at, |before| before.min(at)));
    }

    /// The claims to ask for now: as many as there is room for where `waiting` goodbyes and claims wait already, so that the
    /// wishes of a node that is sure again leave room for goodbyes. The others have their turn when these are decided.
    pub(super) fn wishes(&mut self, waiting: usize, now: Timestamp) -> Vec<(IdentityKey, LeaseId)> {
        let room = WISHES_MAX.saturating_sub(waiting);
        if room == 0 || self.unsure.is_some() || self.claim_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let mut asked = Vec::new();
        self.claim_at = None;
        for (identity, (lease, claim)) in &mut self.claims {
            let Claim::Wished(at) = *claim else { continue };
            if at <= now && asked.len() < room {
                *claim = Claim::Asked;
                asked.push((identity.clone(), *lease));
            } else {
                self.claim_at = Some(self.claim_at.map_or(at, |before| before.min(at)));
            }
        }
        asked
    }

    /// When [`adopt`](Self::adopt) or [`wishes`](Self::wishes) may have something, where so much waits already.
    pub(super) fn next_wake(&self, waiting: usize) -> Option<Timestamp> {
        // Where there is no room for wishes, the loop turns when something is decided.
        if self.unsure.is_some() || waiting >= WISHES_MAX {
            return None;
        }
        // Which of the orphans are this node's is not worth asking before each sleep: the loop turns often enough.
        self.claim_at
    }
}

/// The first of these, as many as fit into one proposal; one at least.
fn together<'a>(due: impl Iterator<Item = &'a Ownerless>) -> Vec<Orphan> {
    let mut bytes = 0;
    let fits = due.enumerate().take_while(|(index, ownerless)| {
        bytes += ownerless.bytes;
        *index == 0 || bytes <= ADOPTED_BYTES_MAX
    });
    fits.map(|(_, ownerless)| ownerless.orphan.clone()).collect()
}

/// What a look at the members showed.
pub(super) struct Look {
    pub(super) authority: Turn,
    /// Whether others are there now.
    pub(super) members_changed: bool,
    /// Nodes that are not listened to any more.
    pub(super) silenced: Vec<NodeId>,
}

/// How this node's authority has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    Same,
    Lost,
    Regained,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::kit::identity;

    fn ownerless(number: u8, bytes: usize) -> Ownerless {
        let orphan = Orphan { identity: identity(number.into()), lease: LeaseId::new([number; 16]), of: None };
        Ownerless { orphan, due: Timestamp::since_epoch(Duration::ZERO), bytes, left_out: false }
    }

    fn ownership() -> Ownership {
        let company = Company::default();
        Ownership::new(&company, Timestamp::since_epoch(Duration::ZERO))
    }

    #[test]
    fn large_orphans_are_adopted_few_at_a_time_and_one_always() {
        let large: Vec<_> = (1..=100).map(|number| ownerless(number, 64 * 1024)).collect();
        assert_eq!(together(large.iter()).len(), 8);
        let small: Vec<_> = (1..=100).map(|number| ownerless(number, 1_024)).collect();
        assert_eq!(together(small.iter()).len(), 100);
        let huge = [ownerless(1, 2 * ADOPTED_BYTES_MAX), ownerless(2, 1)];
        assert_eq!(together(huge.iter()), [huge[0].orphan.clone()]);
    }

    /// One that the store does not let go of keeps nobody else from being adopted.
    #[test]
    fn an_orphan_that_cannot_be_adopted_is_found_and_left_out() {
        let now = Timestamp::since_epoch(Duration::from_secs(100));
        for bad in [1, 2, 57, 100, 130, 200] {
            let mut ownership = ownership();
            for number in 1..=200 {
                ownership.orphans.insert(identity(number.into()), ownerless(number, 100));
            }
            let (mut adopted, mut conflicts) = (0, 0);
            loop {
                let orphans = ownership.adopt(now);
                if orphans.is_empty() {
                    break;
                }
                if orphans.iter().any(|orphan| orphan.identity == identity(bad)) {
                    conflicts += 1;
                    ownership.not_adopted(&EngineError::Aborted { attempts: 5 }, now);
                } else {
                    adopted += orphans.len();
                    orphans.iter().for_each(|orphan| drop(ownership.orphans.remove(&orphan.identity)));
                    ownership.adopted();
                }
            }
            assert_eq!(adopted, 199, "all but {bad}");
            assert!(conflicts <= 30, "{conflicts} for {bad}");
            let left: Vec<_> = ownership.orphans.values().map(|orphan| orphan.left_out).collect();
            assert_eq!(left, [true]);
        }
    }

    #[test]
    fn a_store_that_takes_nothing_is_asked_again_for_all_of_them() {
        let now = Timestamp::since_epoch(Duration::from_secs(100));
        let mut ownership = ownership();
        for number in 1..=3 {
            ownership.orphans.insert(identity(number.into()), ownerless(number, 100));
        }
        assert_eq!(ownership.adopt(now).len(), 3);
        ownership.not_adopted(&EngineError::OutcomeUnknown, now);
        assert!(ownership.adopt(now).is_empty(), "not at once");
        assert_eq!(ownership.adopt(now.after(AGAIN)).len(), 3);
    }

    #[test]
    fn wishes_are_asked_for_few_at_a_time_and_failed_ones_wait_behind_the_others() {
        let now = Timestamp::since_epoch(Duration::from_secs(100));
        let mut ownership = ownership();
        ownership.unsure = Some(now);
        for number in 1..=1_000 {
            ownership.wish(identity(number), LeaseId::new([1; 16]), now);
        }
        assert!(ownership.wishes(0, now).is_empty(), "not while this node is not sure of itself");
        ownership.unsure = None;
        assert_eq!(ownership.next_wake(0), Some(now));
        let first = ownership.wishes(0, now);
        assert_eq!(first.len(), WISHES_MAX);
        assert_eq!(ownership.next_wake(0), Some(now), "more remain");
        assert_eq!((ownership.wishes(WISHES_MAX, now).len(), ownership.next_wake(WISHES_MAX)), (0, None));
        for (identity, lease) in first {
            ownership.wish(identity, lease, now);
        }
        let mut asked = 0;
        while let more @ 1.. = ownership.wishes(100, now).len() {
            assert!(more <= WISHES_MAX - 100);
            asked += more;
        }
        assert_eq!(asked, 1_000 - WISHES_MAX);
        assert_eq!(ownership.next_wake(0), Some(now.after(AGAIN)));
        assert_eq!(ownership.wishes(0, now.after(AGAIN)).len(), WISHES_MAX);
        assert_eq!(ownership.next_wake(0), None);
    }
}
