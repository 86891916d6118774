//! What one watcher holds of one service, and what to send it next.
//!
//! Pure: views and times go in, messages come out. There is no list of events to lose: what has to be sent is always the
//! difference between what the watcher holds and what is true now, so a watcher that is skipped for a while gets the
//! latest state, and a resume is the same thing as keeping up.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use tokio::time::Instant;

use super::framed::Framed;
use super::press::{Complete, Press};
use crate::catalog::{
    Generation, Instance, Liveness, Position, Resume, Revision, ServiceView, ServingStatus, SoftState, StoreId,
    Timestamp,
};
use crate::engine::Published;
use crate::wire::{self, Chunks};

/// How long further changes of a busy service gather after one was sent. Shorter than anybody's reaction to it, and long
/// enough that a rolling restart of hundreds is a few messages.
pub(super) const SETTLE: Duration = Duration::from_millis(20);

/// How long load reports gather: an instance reports every few seconds, and each list replaces the whole last one.
pub(super) const LOADS_SETTLE: Duration = Duration::from_secs(1);

/// How long a subscription waits for a position that this node has not reached.
pub(super) const BEHIND_WAIT: Duration = Duration::from_secs(1);

/// How long a watcher may take over one snapshot, from its first chunk on: as long as it does, it holds all of that
/// snapshot in memory, and what is already encoded of it. 32 MiB go out within it at 4.5 Mbit/s.
pub(super) const SNAPSHOT_MAX: Duration = Duration::from_secs(60);

/// What is true now, as one look at it.
#[derive(Debug)]
pub(super) struct Outlook<'a> {
    /// The service.
    pub(super) view: &'a Arc<Published>,
    /// Where the registry is; read before `view`, which therefore includes it.
    pub(super) here: &'a Position,
    /// Whether the registry's state is whole; read before `view` too.
    pub(super) complete: Complete,
    /// The time, for what is to be held back.
    pub(super) now: Instant,
    /// The same in the catalog's count, for what is told of holds.
    pub(super) moment: Timestamp,
}

/// One service on one stream.
#[derive(Debug)]
pub(super) struct Subscription {
    held: Held,
    /// Whose revisions `held` counts: which store, and which life of it.
    origin: (StoreId, Generation),
    soft: Soft,
    /// Until when changes that can wait do.
    settles: Option<Instant>,
}

/// What the watcher holds of the stored state.
#[derive(Debug)]
enum Held {
    /// Nothing that helps.
    Nothing,
    /// It says it holds a revision that this node has not reached.
    Ahead { asked: Position, until: Instant },
    /// Some chunks of a snapshot.
    Part(Snapshot),
    /// Everything up to this revision, told while the state was as complete as this.
    Until(Revision, Complete),
}

/// A snapshot of which some chunks are sent.
#[derive(Debug, Clone)]
struct Snapshot {
    chunks: Arc<Chunks>,
    /// How many are sent.
    sent: usize,
    /// What holds once the last one is applied.
    revision: Revision,
    /// Whether the state was whole when it began.
    complete: Complete,
    /// When the first chunk was taken.
    began: Instant,
}

/// What the watcher holds of the soft state.
#[derive(Debug)]
enum Soft {
    /// Nothing, or what another stream told it.
    Unsent,
    Sent {
        state: Arc<SoftState>,
        at: Instant,
    },
}

/// When there is something to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Now,
    At(Instant),
    /// Not before the next change.
    Idle,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    Send(Framed),
    /// Nothing is left to send.
    Rest,
    /// The node did not reach the position that the watcher holds: say so, and end the subscription.
    Behind {
        asked: Position,
    },
    /// The watcher takes longer than [`SNAPSHOT_MAX`] over one snapshot: say so, and end the stream.
    Slow {
        taken: Duration,
    },
}

impl Subscription {
    /// A subscription of a watcher that holds `after`, on a node that is `here`; `told` says how complete the state was when
    /// a revision was told.
    pub(super) fn resume(
        after: Option<Position>,
        here: &Position,
        told: impl FnOnce(Revision) -> Complete,
        now: Instant,
    ) -> Self {
        let held = match after {
            // Of another store or another life of it nothing can be said: its revisions count something else.
            Some(after) if after.store == here.store && after.generation == here.generation => {
                if after.revision <= here.revision {
                    Held::Until(after.revision, told(after.revision))
                } else {
                    Held::Ahead { asked: after, until: now + BEHIND_WAIT }
                }
            }
            Some(_) | None => Held::Nothing,
        };
        Self { held, origin: origin(here), soft: Soft::Unsent, settles: None }
    }

    /// What of the stored state helps the watcher here. Under another store, or another life of it, nothing does.
    fn held(&self, here: &Position) -> &Held {
        let same = (&self.origin.0, self.origin.1) == (&here.store, here.generation);
        if same { &self.held } else { &Held::Nothing }
    }

    /// When there is something to send, seen from here.
    pub(super) fn due(&self, outlook: &Outlook<'_>) -> Due {
        match self.held(outlook.here) {
            Held::Nothing | Held::Part(_) => Due::Now,
            Held::Ahead { asked, .. } if asked.revision <= outlook.here.revision => Due::Now,
            Held::Ahead { until, .. } => at(*until, outlook.now),
            Held::Until(_, Complete::Warming) if outlook.complete == Complete::Whole => Due::Now,
            Held::Until(revision, _) => self.changes_due(*revision, outlook).min(self.soft_due(outlook)),
        }
    }

    /// Whether what is due now is the beginning of a snapshot.
    pub(super) fn begins_snapshot(&self, outlook: &Outlook<'_>) -> bool {
        match self.held(outlook.here) {
            Held::Nothing => true,
            Held::Ahead { .. } | Held::Part(_) => false,
            Held::Until(held, complete) => {
                let turned_whole = (*complete, outlook.complete) == (Complete::Warming, Complete::Whole);
                turned_whole || outlook.view.since(*held) == Resume::Snapshot
            }
        }
    }

    fn changes_due(&self, held: Revision, outlook: &Outlook<'_>) -> Due {
        let resume = outlook.view.since(held);
        if resume == Resume::Current {
            return Due::Idle;
        }
        let settles = self.settles.filter(|until| *until > outlook.now);
        // What changed is not looked at where nothing waits anyway.
        match (settles, resume) {
            (Some(until), Resume::Delta) if !cannot_wait(outlook.view, held) => Due::At(until),
            _ => Due::Now,
        }
    }

    fn soft_due(&self, outlook: &Outlook<'_>) -> Due {
        let Soft::Sent { state, at: sent } = &self.soft else { return Due::Now };
        if Arc::ptr_eq(state, outlook.view.soft()) {
            return Due::Idle;
        }
        // Not compared before it could be sent, so that a storm of reports costs a comparison every 20 ms.
        match at(*sent + SETTLE, outlook.now) {
            Due::Now if only_loads_differ(state, outlook.view.soft()) => at(*sent + LOADS_SETTLE, outlook.now),
            due => due,
        }
    }

    /// The next message, whatever could still wait.
    pub(super) fn next(&mut self, outlook: &Outlook<'_>, press: &Press) -> Next {
        if matches!(self.held(outlook.here), Held::Nothing) {
            (self.held, self.origin) = (Held::Nothing, origin(outlook.here));
        }
        if let Held::Ahead { asked, until } = &self.held {
            if asked.revision <= outlook.here.revision {
                self.held = Held::Until(asked.revision, outlook.complete);
            } else if *until <= outlook.now {
                return Next::Behind { asked: asked.clone() };
            } else {
                return Next::Rest;
            }
        }
        if let Held::Until(held, complete) = self.held {
            match outlook.view.since(held) {
                // Callers that have merged so far learn from a whole snapshot what to drop.
                _ if (complete, outlook.complete) == (Complete::Warming, Complete::Whole) => {}
                Resume::Current => return self.next_soft(held, outlook, press),
                Resume::Delta => {
                    let changes = || delta(outlook.view, held);
                    if let Some(delta) = press.delta(outlook.view, held, changes, outlook.here, outlook.complete) {
                        self.held = Held::Until(outlook.view.revision(), outlook.complete);
                        self.settles = Some(outlook.now + SETTLE);
                        return Next::Send(delta);
                    }
                }
                Resume::Snapshot => {}
            }
        }
        self.next_chunk(outlook, press)
    }

    fn next_chunk(&mut self, outlook: &Outlook<'_>, press: &Press) -> Next {
        let mut snapshot = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Part(snapshot) => snapshot,
            Held::Nothing | Held::Ahead { .. } | Held::Until(..) => {
                // The view includes everything up to `here`. Claiming less would make a watcher that has seen a bookmark
                // since take this for an older state.
                let revision = outlook.view.revision().max(outlook.here.revision);
                let of = || Chunks::of(ServiceView::clone(outlook.view));
                let chunks = outlook.view.memo().chunks(&press.shelf, of);
                Snapshot { chunks, sent: 0, revision, complete: outlook.complete, began: outlook.now }
            }
        };
        let taken = outlook.now.saturating_duration_since(snapshot.began);
        if taken > SNAPSHOT_MAX {
            return Next::Slow { taken };
        }
        let chunk = snapshot.chunks.get(snapshot.sent);
        snapshot.sent += 1;
        let (revision, complete) = (snapshot.revision, snapshot.complete);
        let message = Press::chunk(chunk.bytes, revision, outlook.here, complete);
        self.held = if chunk.last {
            self.soft = Soft::Unsent;
            Held::Until(revision, complete)
        } else {
            Held::Part(snapshot)
        };
        Next::Send(message)
    }

    fn next_soft(&mut self, held: Revision, outlook: &Outlook<'_>, press: &Press) -> Next {
        let state = outlook.view.soft();
        if let Soft::Sent { state: sent, .. } = &mut self.soft
            && (Arc::ptr_eq(sent, state) || sent == state)
        {
            *sent = Arc::clone(state);
            return Next::Rest;
        }
        self.soft = Soft::Sent { state: Arc::clone(state), at: outlook.now };
        // All of the stored state up to `here` is sent, and perhaps a bookmark that says so.
        let revision = held.max(outlook.here.revision);
        Next::Send(press.soft_state(outlook.view, revision, outlook.here, outlook.complete, outlook.moment))
    }
}

/// Whether callers lose by waiting for what changed since a revision: somebody is gone, or asks not to be called.
fn cannot_wait(view: &ServiceView, since: Revision) -> bool {
    let shuns = |instance: &Arc<Instance>| instance.is_draining() || instance.serving() != ServingStatus::Serving;
    view.removals().after(since).next().is_some() || view.instances().after(since).any(shuns)
}

/// Everything that changed since a revision, as one change.
fn delta(view: &ServiceView, since: Revision) -> pb::Delta {
    pb::Delta {
        base_revision: since.get(),
        upserts: view.instances().after(since).map(|instance| wire::instance(instance)).collect(),
        removals: view.removals().after(since).map(wire::removal).collect(),
        presence: wire::presence(view.presence()).into(),
    }
}

/// Whether nobody's liveness and no hold changed, so that callers lose little by waiting.
fn only_loads_differ(sent: &SoftState, now: &SoftState) -> bool {
    let judged = |state: &SoftState| -> Vec<_> {
        let ill = state.instances.iter().filter(|(_, health)| health.liveness != Liveness::Alive);
        ill.map(|(id, health)| (*id, health.incarnation, health.liveness)).collect()
    };
    sent.hold == now.hold && judged(sent) == judged(now)
}

fn origin(here: &Position) -> (StoreId, Generation) {
    (here.store.clone(), here.generation)
}

fn at(instant: Instant, now: Instant) -> Due {
    if instant <= now { Due::Now } else { Due::At(instant) }
}

#[cfg(test)]
mod tests;
