//! What the loop does for the sake of other nodes.

use super::Task;
use crate::catalog::{AdminState, BeatOutcome, Command, Keeper, Timestamp};
use crate::cluster::{Heard, Relayed, RelayedBeat, Settled};
use crate::engine::error::EngineError;
use crate::engine::ownership::{Errand, Look, OwnershipNews, Turn};
use crate::engine::pending::{BatchId, Pending, Waiter};

impl Task {
    /// Looks at who is there, and draws the conclusions.
    pub(super) fn look_around(&mut self, now: Timestamp) {
        let Some(Look { authority, members_changed, silenced }) = self.ownership.look(now) else { return };
        for node in silenced {
            self.leases.untold(node, now);
        }
        match authority {
            Turn::Same => {}
            Turn::Lost => {
                tracing::warn!(
                    "not sure of the lease in the store: nobody expires, nothing is written, reads may be stale"
                );
                self.metrics.unsure.set(1);
                self.publisher.unsure(Some(now));
            }
            Turn::Regained => {
                tracing::info!(
                    leases = self.leases.len(),
                    "sure of the lease in the store again: every lease gets a full TTL"
                );
                self.metrics.unsure.set(0);
                self.publisher.unsure(None);
                // Whoever beat elsewhere meanwhile, or could not, gets the time to be heard.
                self.extend_all(now);
            }
        }
        if members_changed || authority == Turn::Regained {
            self.ownership.survey(&self.state, now);
        }
    }

    /// Asks for what is to be owned here. Where this node may not write, nothing waits for it.
    pub(super) fn look_after_ownership(&mut self, now: Timestamp) {
        if self.ownership.unsure().is_some() {
            for pending in self.waiting.take(usize::MAX) {
                self.failed(pending, EngineError::StoreUnavailable, now);
            }
            return;
        }
        for (identity, lease) in self.ownership.wishes(self.waiting.departures(), now) {
            // What was said by the beats that brought the wish about is over: the lease gets a full TTL by being claimed.
            let claim = Command::Claim { identity: identity.clone(), lease };
            self.waiting.push(Pending::new(claim, Waiter::Claim { identity, lease, errand: None }));
        }
        let orphans = self.ownership.adopt(now);
        if !orphans.is_empty() {
            self.waiting.push(Pending::new(Command::Adopt(orphans), Waiter::Adoption));
        }
    }

    /// Takes in what comes from other nodes.
    pub(super) fn ownership_news(&mut self, news: OwnershipNews) {
        let now = self.clock.now();
        match news {
            OwnershipNews::Members => {}
            OwnershipNews::Relayed(settled) => {
                for settled in settled {
                    self.relayed(settled, now);
                }
            }
            OwnershipNews::Heard(Heard::Told(node, told)) => {
                self.leases.told(node, &told.service, &told.instances, now);
            }
            OwnershipNews::Heard(Heard::Lost(node)) => self.leases.untold(node, now),
        }
    }

    /// A beat came for a lease that another node keeps. One on a stream claims it; another is that node's to hear of, and is
    /// a claim only where that node is not there.
    pub(super) fn elsewhere(&mut self, errand: Errand, keeper: Keeper, now: Timestamp) {
        let Keeper::Elsewhere(owner) = keeper else { return };
        match self.ownership.keeper(owner) {
            Some(peer) if errand.via.is_none() => {
                let beat = errand.beat.clone();
                if let Err(errand) = self.ownership.relays.push(peer, beat, errand) {
                    self.claim(errand, now);
                }
            }
            _ => self.claim(errand, now),
        }
    }

    fn claim(&mut self, errand: Errand, now: Timestamp) {
        let (identity, lease) = (errand.identity.clone(), errand.beat.lease);
        if !self.ownership.asks(&identity, lease, now) {
            return self.settled_errand(errand, None);
        }
        self.metrics.claims.inc();
        let claim = Command::Claim { identity: identity.clone(), lease };
        let waiter = Waiter::Claim { identity, lease, errand: Some(Box::new(errand)) };
        self.waiting.push(Pending::new(claim, waiter));
    }

    /// What became of a beat that was relayed.
    fn relayed(&mut self, settled: Settled<Errand>, now: Timestamp) {
        let Settled { ticket: errand, asked, outcome } = settled;
        self.ownership.taken(asked, outcome.is_some());
        match outcome {
            Some(Relayed::Renewed) => {
                self.metrics.relayed("renewed").inc();
                self.settled_errand(errand, None);
            }
            // Who has it now will be known by the next beat.
            Some(Relayed::Elsewhere) => {
                self.metrics.relayed("elsewhere").inc();
                self.settled_errand(errand, None);
            }
            Some(Relayed::Gone) => {
                self.metrics.relayed("gone").inc();
                let outcome = self.absent(&errand.beat);
                self.settled_errand(errand, Some(outcome));
            }
            None => {
                self.metrics.relayed("unreached").inc();
                // What was told to everybody by a node that was not sure of itself asks for nothing.
                if errand.awaited.is_some() {
                    self.claim(errand, now);
                }
            }
        }
    }

    /// A claim is committed, or there was nothing to claim.
    pub(super) fn claimed(&mut self, errand: Errand, now: Timestamp) {
        let RelayedBeat { lease, incarnation, load } = errand.beat.clone();
        let renewed = self.leases.renew(lease, incarnation, errand.via, load, now).is_some();
        let outcome = if renewed { None } else { Some(self.absent(&errand.beat)) };
        self.settled_errand(errand, outcome);
    }

    /// What a beat for a lease that is not here is answered.
    fn absent(&self, beat: &RelayedBeat) -> BeatOutcome {
        if self.state.is_fenced(beat.lease) { BeatOutcome::Fenced } else { BeatOutcome::UnknownLease }
    }

    /// An errand is done: whoever waits for it is told this, or what was said of it at first.
    pub(super) fn settled_errand(&mut self, errand: Errand, outcome: Option<BeatOutcome>) {
        let Some((batch, index)) = errand.awaited else { return };
        if let Some(outcome) = outcome {
            self.answer_otherwise(batch, index, outcome);
        }
        self.settled_beat(batch);
    }

    fn answer_otherwise(&mut self, batch: BatchId, index: usize, outcome: BeatOutcome) {
        let Some(beaten) = self.batches.get_mut(&batch).and_then(|batch| batch.answers.get_mut(index)) else { return };
        beaten.outcome = outcome;
        if outcome != BeatOutcome::Renewed {
            beaten.admin = AdminState::Enabled;
            beaten.interval = None;
        }
    }

    /// Beats that another node passed on.
    pub(super) fn renew_for_peer(&mut self, beats: Vec<RelayedBeat>) -> Vec<Relayed> {
        let now = self.clock.now();
        let renewed = beats.into_iter().map(|RelayedBeat { lease, incarnation, load }| {
            match self.leases.renew(lease, incarnation, None, load, now).map(|renewal| renewal.keeper) {
                Some(Keeper::Here) => Relayed::Renewed,
                Some(Keeper::Elsewhere(_)) => Relayed::Elsewhere,
                None => Relayed::Gone,
            }
        });
        renewed.collect()
    }
}
