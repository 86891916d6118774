//! Commands on their way to the store, and who waits for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::EngineError;
use super::handle::Reply;
use super::ownership::Errand;
use crate::catalog::{
    Answer, Beaten, Command, Granted, IdentityKey, Lapse, LeaseId, Position, Proposal, Report, Revision,
};

/// A command that is to be decided, perhaps again.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) command: Command,
    pub(super) waiter: Waiter,
    /// How often it was decided in vain.
    pub(super) attempts: u32,
}

impl Pending {
    pub(super) fn new(command: Command, waiter: Waiter) -> Self {
        Self { command, waiter, attempts: 0 }
    }
}

/// Who waits for a command.
#[derive(Debug)]
pub(super) enum Waiter {
    Register(Reply<Granted>),
    /// Deregister and DeleteService, which answer the same.
    Done(Reply<Position>),
    Rule(Reply<(Position, usize)>),
    /// A heartbeat message whose answer waits for this status to be settled.
    Beat(BatchId),
    /// A status that the store did not take before.
    Wish,
    /// A lease that ran out.
    Lapse(Lapse),
    /// A lease of another node's that is to be kept here, and the beat that asked for it, if its answer waits.
    Claim {
        identity: IdentityKey,
        lease: LeaseId,
        errand: Option<Box<Errand>>,
    },
    /// The engine itself: leases whose keeper is gone.
    Adoption,
    /// Nobody: what time alone asks for. It is asked for again if it fails.
    Time,
}

impl Waiter {
    /// Whether it was a caller that gave up, so that nobody would learn what was done. Who says goodbye need not listen.
    pub(super) fn has_left(&self) -> bool {
        match self {
            Self::Register(reply) => reply.is_closed(),
            Self::Rule(reply) => reply.is_closed(),
            _ => false,
        }
    }
}

/// A decided command whose proposal is in the store's hands.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) pending: Pending,
    pub(super) proposal: Arc<Proposal>,
    pub(super) answer: Answer,
    /// Its place in its group.
    pub(super) order: usize,
    /// Set when the store has said so; the change itself comes by the feed.
    pub(super) committed: Option<Revision>,
    /// How often the store did not know what became of it.
    pub(super) unknown: u32,
}

/// Names a heartbeat message that waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct BatchId(pub(super) u64);

/// A heartbeat message that waits for the statuses in it to be settled.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) answers: Vec<Beaten>,
    pub(super) unsettled: usize,
    pub(super) reply: Reply<Vec<Beaten>>,
}

impl Batch {
    /// Answers it.
    pub(super) fn settle(self) {
        // A caller that has gone away misses nothing.
        let _ = self.reply.send(Ok(self.answers));
    }
}

/// What an instance says of itself and the store has not taken yet. The last word on each thing counts.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// At most one per live instance; dropped when its lease is no longer the one that said so.
    by_identity: BTreeMap<IdentityKey, Report>,
}

impl Wishes {
    /// Adds what was said later.
    pub(super) fn add(&mut self, later: Report) {
        match self.by_identity.get_mut(&later.identity) {
            Some(report) if report.lease == later.lease => {
                report.serving = later.serving.or(report.serving);
                report.services.extend(later.services);
            }
            _ => _ = self.by_identity.insert(later.identity.clone(), later),
        }
    }

    /// What is wanted of this lease, completed by what it says now.
    pub(super) fn complete(&mut self, mut now: Report) -> Report {
        if let Some(mut earlier) = self.by_identity.remove(&now.identity).filter(|earlier| earlier.lease == now.lease) {
            now.serving = now.serving.or(earlier.serving);
            earlier.services.append(&mut now.services);
            now.services = earlier.services;
        }
        now
    }

    /// Whether something is wanted of this lease.
    pub(super) fn has(&self, identity: &IdentityKey, lease: LeaseId) -> bool {
        self.by_identity.get(identity).is_some_and(|report| report.lease == lease)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_identity.is_empty()
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = Report> {
        std::mem::take(&mut self.by_identity).into_values()
    }
}

/// Tells a waiter that it will not be done.
pub(super) fn refuse(waiter: Waiter, error: EngineError) {
    // A caller that has gone away misses nothing.
    match waiter {
        Waiter::Register(reply) => _ = reply.send(Err(error)),
        Waiter::Done(reply) => _ = reply.send(Err(error)),
        Waiter::Rule(reply) => _ = reply.send(Err(error)),
        Waiter::Beat(_) | Waiter::Wish | Waiter::Lapse(_) | Waiter::Time => {}
        Waiter::Claim { .. } | Waiter::Adoption => {}
    }
}
