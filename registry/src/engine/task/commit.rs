//! From commands to commits: decide a group, hand it in, apply what comes back.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rand::Rng;
use rand::rngs::StdRng;

use super::{HandedIn, RETRY, Task};
use crate::catalog::{
    Answer, CatalogError, Command, Context, Decision, Granted, Lapse, OpId, Overlay, Proposal, Report, Revision,
    ServiceKey, Timestamp, decide,
};
use crate::engine::audit;
use crate::engine::error::EngineError;
use crate::engine::feed::News;
use crate::engine::pending::{Pending, Sent, Waiter, refuse};
use crate::storage::{Loaded, Outcome};

/// Commands decided together, which is also all that one turn decides: some milliseconds, for so long a heartbeat waits.
const GROUP_MAX: usize = 256;

/// How often a command is decided before its caller is told that others were faster.
const ATTEMPTS_MAX: u32 = 5;

/// How often a proposal of unknown outcome is handed in again before its caller is told so.
const UNKNOWN_MAX: u32 = 5;

/// How long until the first time; twice as long each time after.
const HAND_IN_AGAIN: Duration = Duration::from_millis(50);

/// What share of the time that the store took for a group the next one is gathered for, if that group was one of several
/// commands: whoever was just answered is about to ask again, and comes into this group rather than the one after it. A
/// command that comes alone never waits for others.
const GATHERED_SHARE: u32 = 4;

/// How long that is at most, and at least: below, timers are not that fine, and the store takes no time worth sharing.
const GATHERED: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(5);

/// How long a store may take for a group before its outcome counts as unknown.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

impl Task {
    /// Decides what waits and hands it to the store, unless the store has something in its hands: what is decided rests
    /// on what is applied, and on what stands before it in the same group.
    pub(super) fn hand_in(&mut self, now: Timestamp) {
        self.gathering = self.gathering.filter(|until| *until > now);
        let busy = self.in_flight.is_some() || self.gathering.is_some();
        if busy || self.state.position().revision < self.catch_up {
            return;
        }
        if !self.sent.is_empty() {
            return self.hand_in_unknown(now);
        }
        // The feed may have told what the store did not.
        self.hand_in_again = None;
        self.decide_group(now);
        let proposals: Vec<Arc<Proposal>> = self.sent.values().map(|sent| sent.proposal.clone()).collect();
        self.commit(proposals);
    }

    /// Proposals of unknown outcome go in again as they are, and alone: their op ids tell what became of them.
    fn hand_in_unknown(&mut self, now: Timestamp) {
        if self.hand_in_again.is_none_or(|at| at > now) {
            return;
        }
        self.hand_in_again = None;
        let unknown = self.sent.values().filter(|sent| sent.committed.is_none());
        let proposals = unknown.map(|sent| sent.proposal.clone()).collect();
        self.commit(proposals);
    }

    fn commit(&mut self, mut proposals: Vec<Arc<Proposal>>) {
        if proposals.is_empty() {
            return;
        }
        self.handed_in = HandedIn { at: self.clock.now(), commands: proposals.len() };
        proposals.sort_by_key(|proposal| self.sent.get(&proposal.op).map(|sent| sent.order));
        let ops: Vec<OpId> = proposals.iter().map(|proposal| proposal.op).collect();
        let store = self.store.clone();
        let group = async move {
            let outcomes = tokio::time::timeout(COMMIT_TIMEOUT, store.commit(proposals)).await.unwrap_or_default();
            let unanswered = std::iter::repeat(Outcome::Unknown);
            ops.into_iter().zip(outcomes.into_iter().chain(unanswered)).collect()
        };
        self.in_flight = Some(group.boxed());
    }

    /// The store is done with a group: the next one waits for a moment if that one was not of one command.
    pub(super) fn gather(&mut self) {
        let now = self.clock.now();
        let HandedIn { at, commands } = self.handed_in;
        let time = now.since(at) / GATHERED_SHARE;
        if commands > 1 && time >= *GATHERED.start() {
            self.gathering = Some(now.after(time.min(*GATHERED.end())));
        }
    }

    /// Decides the first commands that wait, each on top of those before it.
    fn decide_group(&mut self, now: Timestamp) {
        let (mut overlay, node) = (Overlay::new(&self.state), self.ownership.node());
        let mut depends = Vec::new();
        let mut ready = Vec::new();
        for (order, pending) in self.waiting.take(GROUP_MAX).into_iter().enumerate() {
            if pending.waiter.has_left() {
                continue;
            }
            let op = draw_op(&mut self.rng);
            let (limits, default_ttl) = (self.settings.limits, self.settings.default_ttl);
            let on = |overlay: &Overlay<'_>| {
                decide(overlay, &pending.command, Context { now, op, limits, default_ttl, node })
            };
            match on(&overlay) {
                Ok(Decision { proposal: Some(proposal), answer }) => {
                    overlay.add(&proposal);
                    let proposal = Arc::new(proposal);
                    self.sent.insert(op, Sent { pending, proposal, answer, order, committed: None, unknown: 0 });
                }
                // What is refused or needs nothing on top of changes that may fail is so, whatever becomes of them, if it
                // is so without them too: it stands before them. Otherwise it is decided again once that is known.
                on_top => match on(&Overlay::new(&self.state)) {
                    Ok(Decision { proposal: None, answer }) if stands_without(&on_top, &answer) => {
                        ready.push((pending, Ok(answer)));
                    }
                    Err(error) if on_top.is_err() => ready.push((pending, Err(error))),
                    _ => depends.push(pending),
                },
            }
        }
        self.waiting.put_back(depends);
        for (pending, decided) in ready {
            match decided {
                Ok(answer) => self.done(pending, answer, now),
                Err(error) => {
                    audit::refused(&pending.command, &error);
                    self.events.refused(&pending.command, &error, self.state.position());
                    self.failed(pending, EngineError::Catalog(error), now);
                }
            }
        }
    }

    /// Takes in what the store says became of a group. Committed changes are applied when they come by the feed.
    pub(super) fn settle(&mut self, outcomes: Vec<(OpId, Outcome)>) {
        let now = self.clock.now();
        let mut again = Vec::new();
        for (op, outcome) in outcomes {
            self.count_commit(&outcome);
            // Not there any more where the feed was faster.
            let Some(mut sent) = self.sent.remove(&op) else { continue };
            match outcome {
                Outcome::Committed(revision) if revision <= self.state.position().revision => {
                    self.done(sent.pending, sent.answer, now);
                }
                Outcome::Committed(revision) => {
                    sent.committed = Some(revision);
                    self.sent.insert(op, sent);
                }
                Outcome::Conflict(seen) => {
                    self.catch_up = self.catch_up.max(seen);
                    again.push(sent);
                }
                // What the store refuses to look at again may have been made the first time.
                Outcome::Refused(reason) if sent.unknown == 0 => {
                    self.failed(sent.pending, EngineError::StoreRefused { reason }, now)
                }
                Outcome::Unknown | Outcome::Refused(_) if sent.unknown >= UNKNOWN_MAX => {
                    self.failed(sent.pending, EngineError::OutcomeUnknown, now);
                }
                Outcome::Unknown | Outcome::Refused(_) => {
                    let pause = HAND_IN_AGAIN * 2_u32.pow(sent.unknown);
                    sent.unknown += 1;
                    self.sent.insert(op, sent);
                    self.hand_in_again = self.hand_in_again.max(Some(now.after(pause)));
                }
            }
        }
        again.sort_by_key(|sent| sent.order);
        let mut back = Vec::new();
        for Sent { mut pending, .. } in again {
            if let Waiter::Lapse(lapse) = &pending.waiter {
                // Whether it may go is asked anew, with what others have done in view.
                self.leases.stays(lapse, now);
                continue;
            }
            pending.attempts += 1;
            match pending.attempts {
                ATTEMPTS_MAX.. => self.failed(pending, EngineError::Aborted { attempts: ATTEMPTS_MAX }, now),
                _ => back.push(pending),
            }
        }
        self.waiting.put_back(back);
    }

    /// Takes in what was committed, by whomever.
    pub(super) fn news(&mut self, news: News) {
        let now = self.clock.now();
        match news {
            News::Committed(committed) => {
                let lapse = |sent: &Sent| matches!(sent.pending.waiter, Waiter::Lapse(_));
                let let_go_here = self.sent.get(&committed.op).is_some_and(lapse);
                for change in self.state.apply(&committed) {
                    for removal in change.gone.iter().filter(|removal| committed.forgets(removal, now)) {
                        audit::unremembered(&change.service, removal);
                        self.metrics.removals_unremembered.inc();
                    }
                    self.leases.follow(&change, now);
                    if !let_go_here && !change.gone.is_empty() {
                        self.ask_anew(&change.service, now);
                    }
                    self.ownership.changed(&change, now);
                    if !change.silent {
                        self.publisher.changed(change);
                    }
                }
                self.publisher.reached(self.state.position());
                if let Some(sent) = self.sent.remove(&committed.op) {
                    self.done(sent.pending, sent.answer, now);
                }
            }
            News::Reloaded(loaded) => self.reload(loaded, now),
        }
    }

    /// A service has become smaller otherwise than by the leases let go here: those that still wait to be decided were let go
    /// in view of a larger one, and whether they may is asked anew.
    fn ask_anew(&mut self, service: &ServiceKey, now: Timestamp) {
        let state = &self.state;
        let in_it = |lapse: &Lapse| {
            lapse.identity.namespace == service.namespace && state.instance(service, lapse.identity.id).is_some()
        };
        for lapse in self.waiting.take_lapses(in_it) {
            self.leases.stays(&lapse, now);
        }
    }

    fn reload(&mut self, loaded: Loaded, now: Timestamp) {
        self.metrics.resyncs.inc();
        let restored = !loaded.position.is_of(self.state.position());
        self.state = loaded.into_state();
        self.leases.reconcile(&self.state, now);
        for lapse in self.waiting.take_lapses(|_| true) {
            self.leases.stays(&lapse, now);
        }
        self.ownership.survey(&self.state, now);
        self.publisher.reloaded(&self.state);
        self.publisher.reached(self.state.position());
        if restored {
            return self.forget_before(now);
        }
        let position = self.state.position().revision;
        let included = |sent: &Sent| sent.committed.is_some_and(|revision| revision <= position);
        let ops: Vec<OpId> = self.sent.iter().filter(|(_, sent)| included(sent)).map(|(op, _)| *op).collect();
        for sent in ops.into_iter().filter_map(|op| self.sent.remove(&op)).collect::<Vec<_>>() {
            self.done(sent.pending, sent.answer, now);
        }
        // What was lost with the commits that are missing is asked for by its op id.
        if self.sent.values().any(|sent| sent.committed.is_none()) && self.in_flight.is_none() {
            self.hand_in_again.get_or_insert(now);
        }
    }

    /// The store is another than before, or was put back to an earlier state: what was handed to it, what it said and how
    /// far it was count something else. What is loaded may or may not have what is not told yet.
    fn forget_before(&mut self, now: Timestamp) {
        tracing::warn!(position = ?self.state.position(), "the store was replaced or restored: starting from what it has now");
        self.catch_up = Revision::ZERO;
        self.hand_in_again = None;
        // Its outcomes come no more.
        self.in_flight = None;
        for sent in std::mem::take(&mut self.sent).into_values() {
            self.failed(sent.pending, EngineError::OutcomeUnknown, now);
        }
        for (waiter, _) in std::mem::take(&mut self.answers) {
            refuse(waiter, EngineError::OutcomeUnknown);
        }
    }

    /// A command is done. Who waits for it hears of it once readers see it.
    fn done(&mut self, pending: Pending, answer: Answer, now: Timestamp) {
        match pending.waiter {
            Waiter::Beat(batch) => self.settled_beat(batch),
            Waiter::Lapse(lapse) => {
                self.metrics.expirations("removed").inc();
                // Changes nothing where the lease has ended, as it has unless somebody else was first.
                self.leases.stays(&lapse, now);
            }
            Waiter::Register(_) => {
                if let Answer::Granted { lease, incarnation, .. } = answer {
                    // A registration is a sign of life like a heartbeat.
                    let _ = self.leases.renew(lease, incarnation, None, None, now);
                }
                self.answers.push((pending.waiter, answer));
            }
            Waiter::Done(_) | Waiter::Rule(_) => self.answers.push((pending.waiter, answer)),
            Waiter::Claim { identity, errand, .. } => {
                self.ownership.claimed(&identity);
                if let Some(errand) = errand {
                    self.claimed(*errand, now);
                }
            }
            Waiter::Adoption => {
                self.metrics.adoptions.inc();
                self.ownership.adopted();
            }
            Waiter::Wish | Waiter::Time => {}
        }
    }

    /// Tells those who wait for what has just been published.
    pub(super) fn answer(&mut self) {
        let position = self.state.position().clone();
        for (waiter, answer) in std::mem::take(&mut self.answers) {
            // A caller that has gone away misses nothing.
            match (waiter, answer) {
                (Waiter::Register(reply), Answer::Granted { lease, incarnation, ttl }) => {
                    _ = reply.send(Ok(Granted { lease, incarnation, ttl, position: position.clone() }));
                }
                (Waiter::Rule(reply), Answer::Selected(selected)) => _ = reply.send(Ok((position.clone(), selected))),
                (Waiter::Done(reply), Answer::Done) => _ = reply.send(Ok(position.clone())),
                // `decide` gives each command its own kind of answer.
                (waiter, _) => refuse(waiter, EngineError::Stopped),
            }
        }
    }

    /// A command will not be done.
    pub(super) fn failed(&mut self, pending: Pending, error: EngineError, now: Timestamp) {
        match (pending.waiter, pending.command) {
            (Waiter::Beat(batch), Command::Report(report)) => {
                self.wish(report, now);
                self.settled_beat(batch);
            }
            (Waiter::Wish, Command::Report(report)) => self.wish(report, now),
            (Waiter::Lapse(lapse), _) => {
                tracing::warn!(instance = %lapse.identity, %error, "a lease ran out, but its removal could not be written");
                self.leases.stays(&lapse, now);
            }
            (Waiter::Claim { identity, lease, errand }, _) => {
                self.ownership.wish(identity, lease, now);
                if let Some(errand) = errand {
                    self.settled_errand(*errand, None);
                }
            }
            (Waiter::Adoption, _) => self.ownership.not_adopted(&error, now),
            (waiter, _) => refuse(waiter, error),
        }
    }

    pub(super) fn wish(&mut self, report: Report, now: Timestamp) {
        self.wishes.add(report);
        self.retry_at.get_or_insert(now.after(RETRY));
    }

    fn count_commit(&self, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Committed(_) => "committed",
            Outcome::Conflict(_) => "conflict",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown => "unknown",
        };
        self.metrics.commits(outcome).inc();
    }
}

/// Whether what is answered without the changes before it in its group is also right on top of them, where it needs
/// nothing either. A lease may have ended and been granted anew there: who asks for it must not get the one that ends.
fn stands_without(on_top: &Result<Decision, CatalogError>, answer: &Answer) -> bool {
    match (on_top, answer) {
        (Ok(on_top), Answer::Granted { .. }) => on_top.answer == *answer,
        (Ok(_), Answer::Selected(_) | Answer::Done) => true,
        (Err(_), _) => false,
    }
}

fn draw_op(rng: &mut StdRng) -> OpId {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    OpId(bytes)
}
