//! Heartbeats: renewals at once, changed statuses by way of the store.

use super::{REPORTS_MAX, Task};
use crate::catalog::{AdminState, Beat, BeatOutcome, Beaten, Command, Keeper, Report, StreamId, Timestamp};
use crate::cluster::RelayedBeat;
use crate::engine::error::EngineError;
use crate::engine::handle::BeatRequest;
use crate::engine::ownership::Errand;
use crate::engine::pending::{Batch, BatchId, Pending, Waiter};

/// What a beat asks for beside a renewal.
enum Todo {
    /// Its instance says something new of itself.
    Report(Report),
    /// Another node keeps the lease. By its place in the message.
    Elsewhere(usize, Box<Errand>, Keeper),
}

impl Task {
    pub(super) fn beat(&mut self, request: BeatRequest) {
        let BeatRequest { beats, via, reply } = request;
        let now = self.clock.now();
        if self.ownership.is_cut_off() {
            self.pass_on(beats, now);
            // A caller that has gone away misses nothing.
            let _ = reply.send(Err(EngineError::StoreUnavailable));
            return;
        }
        let mut todo = Vec::new();
        let answers: Vec<Beaten> =
            beats.into_iter().enumerate().map(|(index, beat)| self.renew(index, beat, via, now, &mut todo)).collect();
        self.count(&answers);
        if self.waiting.departures() >= REPORTS_MAX {
            for what in std::mem::take(&mut todo) {
                match what {
                    Todo::Report(report) => self.wish(report, now),
                    // The next beat asks again, and a lease that another node keeps is not this node's to end.
                    Todo::Elsewhere(..) => {}
                }
            }
        }
        if todo.is_empty() {
            // A caller that has gone away misses nothing.
            let _ = reply.send(Ok(answers));
            return;
        }
        let id = self.next_batch;
        self.next_batch = BatchId(id.0 + 1);
        self.batches.insert(id, Batch { answers, unsettled: todo.len(), reply });
        for what in todo {
            match what {
                Todo::Report(report) => {
                    self.waiting.push(Pending::new(Command::Report(report), Waiter::Beat(id)));
                }
                Todo::Elsewhere(index, mut errand, keeper) => {
                    errand.awaited = Some((id, index));
                    self.elsewhere(*errand, keeper, now);
                }
            }
        }
    }

    /// Beats that this node does not answer for: it tries whether another one hears of them again. What they say of serving
    /// statuses is said again wherever they go.
    fn pass_on(&mut self, beats: Vec<Beat>, now: Timestamp) {
        self.metrics.heartbeats("refused").inc_by(beats.len() as u64);
        for Beat { lease, incarnation, load, .. } in beats {
            if let Some(renewal) = self.leases.renew(lease, incarnation, None, load, now) {
                self.ownership.tell_all(renewal.identity, &RelayedBeat { lease, incarnation, load });
            }
        }
    }

    /// Renews one lease. What it says that is not known yet is to be reported, and what is kept elsewhere to be told there.
    fn renew(
        &mut self,
        index: usize,
        beat: Beat,
        via: Option<StreamId>,
        now: Timestamp,
        todo: &mut Vec<Todo>,
    ) -> Beaten {
        let Beat { lease, incarnation, serving, services, load } = beat;
        let Some(renewal) = self.leases.renew(lease, incarnation, via, load, now) else {
            let fenced = self.state.is_fenced(lease);
            let outcome = if fenced { BeatOutcome::Fenced } else { BeatOutcome::UnknownLease };
            return Beaten { lease, outcome, admin: AdminState::Enabled, interval: None };
        };
        let differs =
            serving.is_some_and(|said| said != renewal.serving) || self.state.reports_news(renewal.identity, &services);
        // A wish is what an instance said before; whatever it says now is newer.
        let says_something = serving.is_some() || !services.is_empty();
        if differs || (says_something && self.wishes.has(renewal.identity, lease)) {
            let identity = renewal.identity.clone();
            todo.push(Todo::Report(self.wishes.complete(Report { identity, lease, serving, services })));
        }
        if self.ownership.tells_all(now) {
            // Whose it is by now nobody here knows.
            self.ownership.tell_all(renewal.identity, &RelayedBeat { lease, incarnation, load });
        }
        if self.ownership.unsure().is_some() {
            if via.is_some() && renewal.keeper != Keeper::Here {
                self.ownership.wish(renewal.identity.clone(), lease, now);
            }
        } else if renewal.keeper != Keeper::Here {
            let beat = RelayedBeat { lease, incarnation, load };
            let errand = Errand { identity: renewal.identity.clone(), beat, via, awaited: None };
            todo.push(Todo::Elsewhere(index, Box::new(errand), renewal.keeper));
        }
        let interval = Some(renewal.ttl.heartbeat_interval());
        Beaten { lease, outcome: BeatOutcome::Renewed, admin: renewal.admin, interval }
    }

    fn count(&self, answers: &[Beaten]) {
        for (outcome, label) in [
            (BeatOutcome::Renewed, "renewed"),
            (BeatOutcome::UnknownLease, "unknown_lease"),
            (BeatOutcome::Fenced, "fenced"),
        ] {
            let count = answers.iter().filter(|answer| answer.outcome == outcome).count();
            if count > 0 {
                self.metrics.heartbeats(label).inc_by(count as u64);
            }
        }
    }

    /// One status of a heartbeat message is settled; the last one lets the answer go.
    pub(super) fn settled_beat(&mut self, batch: BatchId) {
        let Some(waiting) = self.batches.get_mut(&batch) else { return };
        waiting.unsettled -= 1;
        if waiting.unsettled == 0
            && let Some(batch) = self.batches.remove(&batch)
        {
            batch.settle();
        }
    }
}
