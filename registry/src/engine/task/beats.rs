//! Heartbeats: renewals at once, changed statuses by way of the store.

use super::{REPORTS_MAX, Task};
use crate::catalog::{AdminState, Beat, BeatOutcome, Beaten, Command, Report, StreamId, Timestamp};
use crate::engine::handle::BeatRequest;
use crate::engine::pending::{Batch, BatchId, Pending, Waiter};

impl Task {
    pub(super) fn beat(&mut self, request: BeatRequest) {
        let BeatRequest { beats, via, reply } = request;
        let now = self.clock.now();
        let mut reports = Vec::new();
        let answers: Vec<Beaten> = beats.into_iter().map(|beat| self.renew(beat, via, now, &mut reports)).collect();
        self.count(&answers);
        if self.waiting.len() >= REPORTS_MAX {
            for report in reports.drain(..) {
                self.wish(report, now);
            }
        }
        if reports.is_empty() {
            // A caller that has gone away misses nothing.
            let _ = reply.send(Ok(answers));
            return;
        }
        let batch = self.next_batch;
        self.next_batch = BatchId(batch.0 + 1);
        self.batches.insert(batch, Batch { answers, unsettled: reports.len(), reply });
        let reports = reports.into_iter().map(|report| Pending::new(Command::Report(report), Waiter::Beat(batch)));
        self.waiting.extend(reports);
    }

    /// Renews one lease. What it says that is not known yet is added to the reports.
    fn renew(&mut self, beat: Beat, via: Option<StreamId>, now: Timestamp, reports: &mut Vec<Report>) -> Beaten {
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
            reports.push(self.wishes.complete(Report { identity, lease, serving, services }));
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
            && let Some(Batch { answers, reply, .. }) = self.batches.remove(&batch)
        {
            // A caller that has gone away misses nothing.
            let _ = reply.send(Ok(answers));
        }
    }
}
