//! Proposals to etcd: each is one transaction, those that do not touch each other at the same time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout};

use mesh_api::etcd::etcdserverpb::TxnRequest;
use mesh_runtime::clock;

use super::Inner;
use super::backoff::Backoff;
use super::fault::Fault;
use super::history::{self, Search};
use super::link::{FAILFAST, led_within};
use super::plan::Plan;
use super::recent::Made;
use super::transaction::{KEYS_MAX, Verdict, Wanted, transaction, verdict};
use crate::catalog::{Expected, OpId, Proposal, Revision};
use crate::storage::Outcome;

/// How long a group may take; what is not known then is unknown.
const GROUP_MAX: Duration = Duration::from_secs(2);

/// How long one attempt may take before another member is asked. Some hundred times what a commit takes on a sound cluster.
const ATTEMPT_MAX: Duration = Duration::from_millis(900);

/// Transactions under way at once; etcd puts what arrives together into one fsync.
const AT_ONCE_MAX: usize = 64;

/// Longest pause before a transaction that etcd turned away goes out again.
const PAUSE_MAX: Duration = Duration::from_millis(250);

pub(super) async fn commit(inner: &Inner, proposals: Vec<Arc<Proposal>>) -> Vec<Outcome> {
    let until = clock::now() + GROUP_MAX;
    let mut plan = Plan::new(&proposals);
    let mut outcomes: Vec<Option<Outcome>> = vec![None; proposals.len()];
    let mut ready = plan.free();
    ready.reverse();
    let mut under_way = FuturesUnordered::new();
    loop {
        while under_way.len() < AT_ONCE_MAX
            && let Some(index) = ready.pop()
        {
            let proposal = &proposals[index];
            let wanted = want(inner, proposal, |op| {
                plan.index(op).filter(|other| *other < index).map(|other| (&*proposals[other], &outcomes[other]))
            });
            under_way.push(async move {
                match wanted {
                    Ok(wanted) => (index, make(inner, proposal, &wanted, until).await),
                    Err(outcome) => (index, outcome),
                }
            });
        }
        let Some((index, outcome)) = under_way.next().await else { break };
        outcomes[index] = Some(outcome);
        // In order, as far as the bound on what is under way leaves a choice.
        let mut freed = plan.done(index);
        freed.reverse();
        ready.splice(0..0, freed);
    }
    outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Unknown)).collect()
}

/// What the keys of a proposal have to be, or what becomes of it because of another one that it rests on.
fn want<'a, 'b>(
    inner: &Inner,
    proposal: &'a Proposal,
    earlier: impl Fn(OpId) -> Option<(&'b Proposal, &'b Option<Outcome>)>,
) -> Result<Vec<Wanted<'a>>, Outcome> {
    let conflict = || Outcome::Conflict(inner.seen());
    let by = |key, op| {
        let made = match earlier(op) {
            Some((other, Some(Outcome::Committed(revision)))) => Made::new(*revision, &other.writes),
            Some((_, Some(Outcome::Conflict(_)))) => return Err(conflict()),
            Some((_, Some(refused @ Outcome::Refused(_)))) => return Err(refused.clone()),
            // It was not sent, but whether it can be made is not known.
            Some((_, Some(Outcome::Unknown) | None)) => return Err(Outcome::Unknown),
            None => inner.recent.lock().made(op).cloned().ok_or_else(conflict)?,
        };
        Ok(if made.has_deleted(key) { 0 } else { made.revision.get() })
    };
    if proposal.expected.len().max(proposal.writes.len()) > KEYS_MAX {
        return Err(Outcome::Refused(format!("a change of more than {KEYS_MAX} keys at once is more than etcd takes")));
    }
    let wanted = proposal.expected.iter().map(|(key, expected)| match expected {
        Expected::Absent => Ok((key, 0)),
        Expected::At(revision) => Ok((key, revision.get())),
        Expected::By(op) => by(key, *op).map(|at| (key, at)),
    });
    wanted.collect()
}

/// Sends one transaction until it is known what became of it or the time is over.
async fn make(inner: &Inner, proposal: &Proposal, wanted: &[Wanted<'_>], until: Instant) -> Outcome {
    let op = proposal.op;
    let (made, fence) = {
        let recent = inner.recent.lock();
        (recent.made(op).map(|made| made.revision), recent.fence(op))
    };
    if let Some(revision) = made {
        return Outcome::Committed(revision);
    }
    let mut attempt = Attempt { inner, proposal, until, maybe: fence.is_some(), reason: None };
    let mut fence = fence.unwrap_or_else(|| inner.seen());
    let pauses = Backoff::new(PAUSE_MAX);
    loop {
        let request = transaction(&inner.layout, proposal, wanted, fence);
        match attempt.send(request, fence, wanted).await {
            Some(Verdict::Made(revision)) => return attempt.made(revision),
            Some(Verdict::Fenced { now, .. }) if !attempt.maybe && fence < now => {
                fence = now;
                continue;
            }
            Some(Verdict::Conflict { seen } | Verdict::Fenced { seen, .. }) => {
                return attempt.conflict(seen, fence).await;
            }
            None => {}
        }
        pauses.failed();
        let pause = pauses.wait();
        if attempt.is_refused_for_good() || clock::now() + pause + attempt.needs() >= until {
            return attempt.given_up();
        }
        sleep(pause).await;
    }
}

/// One proposal on its way.
struct Attempt<'a> {
    inner: &'a Inner,
    proposal: &'a Proposal,
    until: Instant,
    /// Whether an earlier request may have made it, or may yet.
    maybe: bool,
    /// Why the last one was turned away, and whether the next one would be too.
    reason: Option<(String, Fault)>,
}

impl Attempt<'_> {
    /// Sends it once. `None` where nothing was heard or it was turned away.
    async fn send(&mut self, request: TxnRequest, fence: Revision, wanted: &[Wanted<'_>]) -> Option<Verdict> {
        let (inner, op) = (self.inner, self.proposal.op);
        inner.recent.lock().goes_out(op, fence);
        let time = self.until.saturating_duration_since(clock::now()).min(ATTEMPT_MAX);
        let mut kv = inner.link.kv();
        let answer = timeout(time, kv.txn(led_within(time, request))).await;
        let (reason, fault) = match answer {
            Ok(Ok(answer)) => match verdict(answer.get_ref(), op, wanted) {
                Some(verdict) => return Some(verdict),
                None => ("an answer that etcd does not give".to_owned(), Fault::Unknown),
            },
            Ok(Err(status)) => (status.message().to_owned(), Fault::of(&status)),
            Err(_) => ("no answer in time".to_owned(), Fault::Unknown),
        };
        tracing::debug!(?op, reason, ?fault, "a transaction was not answered");
        match fault {
            Fault::Unknown => self.maybe = true,
            Fault::NotNow | Fault::Unsent | Fault::Never if !self.maybe => inner.recent.lock().came_to_nothing(op),
            Fault::NotNow | Fault::Unsent | Fault::Never => {}
        }
        self.reason = Some((reason, fault));
        None
    }

    fn made(&self, revision: Revision) -> Outcome {
        self.inner.made(self.proposal.op, Made::new(revision, &self.proposal.writes));
        Outcome::Committed(revision)
    }

    /// The keys are not as wanted: by somebody else's hand, or by an earlier request of the same proposal.
    async fn conflict(&self, seen: Revision, fence: Revision) -> Outcome {
        let (inner, op) = (self.inner, self.proposal.op);
        if self.maybe {
            // A record that was put says itself by whom; one that was overwritten or deleted since does not.
            let time = self.until.saturating_duration_since(clock::now()).max(PAUSE_MAX);
            let made = inner.recent.lock().made(op).map(|made| made.revision);
            let found = match made {
                Some(revision) => Search::Found(revision),
                None => timeout(time, history::search(inner, op, fence, seen)).await.unwrap_or(Search::Unfinished),
            };
            match found {
                Search::Found(revision) => return self.made(revision),
                Search::Unfinished => return Outcome::Unknown,
                Search::Nowhere => {}
            }
        }
        inner.recent.lock().came_to_nothing(op);
        Outcome::Conflict(seen)
    }

    fn is_refused_for_good(&self) -> bool {
        matches!(self.reason, Some((_, Fault::Never)))
    }

    /// What is left of the time has to be enough for more than to lose sight of it again: a request that waits for somebody to
    /// be sent to when the time is over may have been sent in the last moment.
    fn needs(&self) -> Duration {
        match self.reason {
            Some((_, Fault::Unsent)) => FAILFAST + FAILFAST / 4,
            _ => Duration::ZERO,
        }
    }

    /// The time is over.
    fn given_up(self) -> Outcome {
        match self.reason {
            Some((reason, Fault::NotNow | Fault::Unsent | Fault::Never)) if !self.maybe => Outcome::Refused(reason),
            _ => Outcome::Unknown,
        }
    }
}
