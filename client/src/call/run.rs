//! The course of a call: find a place, try, and try again where that is safe.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::attempt::{Failed, attempt};
use super::head::Head;
use super::response::ResponseBody;
use super::status;
use super::upload::RequestBody;
use crate::clock;
use crate::conn::StreamError;
use crate::endpoint::{ConnectivityState, Endpoint};
use crate::metrics::MethodIndex;
use crate::policy::{Attempts, Failure, Patience, Replay, Verdict};
use crate::target::{Full, InFlight, Target, Unplaced, Wanted};

/// Ceiling of the first pause before a call goes back to an endpoint that has just refused it; it doubles each time. A
/// refusal means that the endpoint is full or leaving, which takes it moments.
const REFUSED_PAUSE: Duration = Duration::from_millis(2);
/// Where the doubling ends.
const REFUSED_PAUSE_MAX: Duration = Duration::from_millis(100);

/// A call and what its attempts have in common.
pub(super) struct Call {
    target: Arc<Target>,
    head: Head,
    metric: MethodIndex,
    /// Taken by the attempt that succeeds.
    body: Option<RequestBody>,
    deadline: Option<Instant>,
    wait_for_ready: bool,
    attempts: Attempts,
    /// Endpoints that failed this call and are still there.
    tried: Vec<Arc<Endpoint>>,
}

impl Call {
    pub(super) fn new(
        target: Arc<Target>,
        head: Head,
        body: tonic::body::Body,
        deadline: Option<Instant>,
        wait_for_ready: bool,
    ) -> Self {
        let patience = match deadline {
            None if !wait_for_ready => Patience::For(target.policy().failfast),
            _ => Patience::Whole,
        };
        let metric = target.stats().method(head.method_path());
        Self {
            target,
            head,
            metric,
            body: Some(RequestBody::new(body)),
            deadline,
            wait_for_ready,
            attempts: Attempts::new(patience),
            tried: Vec::new(),
        }
    }

    /// Runs the call, begun at `now`, to the head of its answer. The deadline is watched from outside: this future is
    /// dropped when it passes.
    pub(super) async fn run(mut self, mut now: Instant) -> Result<Response<ResponseBody>, Status> {
        loop {
            let in_flight = match self.target.pick(&self.wanted(now)) {
                Ok(place) => place,
                Err(Unplaced::Wait) => self.wait().await?,
                Err(Unplaced::Capped) => return Err(self.capped()),
            };
            now = clock::now();
            let endpoint = in_flight.endpoint().clone();
            let left = self.deadline.map(|at| at.saturating_duration_since(now));
            if left == Some(Duration::ZERO) {
                // Nobody waits for its answer any more; a write that was sent now would be done behind the caller's back.
                return Err(status::deadline_exceeded());
            }
            let head = self.head.attempt(&self.target.config().authority, left, self.attempts.retries());

            match attempt(in_flight, head, &mut self.body).await {
                Ok(response) => return Ok(response),
                Err(failed) => {
                    now = clock::now();
                    if let Some(outcome) = self.outcome(failed, endpoint, now) {
                        return outcome;
                    }
                    self.pause().await;
                }
            }
        }
    }

    /// What this call asks a place for.
    fn wanted(&self, now: Instant) -> Wanted<'_> {
        Wanted { now, tried: &self.tried, key: None, method: self.head.method_path(), metric: self.metric, deadline: self.deadline }
    }

    fn capped(&self) -> Status {
        status::capped(self.target.service(), self.target.policy().in_flight_max)
    }

    /// Waits for a place: until the deadline, and while nothing is READY no longer than failfast allows.
    async fn wait(&mut self) -> Result<InFlight, Status> {
        let target = &*self.target;
        let policy = target.policy();
        let _ticket = target.queue().join().map_err(|Full| status::queue_full(target.service(), policy.waiting_max))?;
        let mut patience = pin!(sleep(policy.failfast));
        let mut was_ready = false;
        loop {
            // Registered before the look: a place that becomes free between the two wakes this call.
            let mut woken = pin!(target.queue().notified());
            woken.as_mut().enable();
            match target.pick(&self.wanted(clock::now())) {
                Ok(place) => return Ok(place),
                Err(Unplaced::Wait) => {}
                Err(Unplaced::Capped) => return Err(self.capped()),
            }
            if self.wait_for_ready {
                woken.await;
                continue;
            }
            if let outlook = target.outlook()
                && outlook.is_settled()
            {
                return Err(status::nobody(target.service(), &outlook));
            }
            // READY but full is no outage: there the call stands in line until its deadline. Patience runs from when nothing
            // was READY any more, which wakes every call: this is the first turn to see it.
            let is_ready = target.has_ready();
            if is_ready || was_ready {
                patience.as_mut().reset(clock::now() + policy.failfast);
            }
            was_ready = is_ready;
            tokio::select! {
                biased;
                () = woken => {}
                () = patience.as_mut() => {
                    if !target.has_ready() {
                        return Err(status::nobody(target.service(), &target.outlook()));
                    }
                }
            }
        }
    }

    /// What the caller is told about a failed attempt, or `None`: it is repeated.
    fn outcome(
        &mut self,
        failed: Failed,
        endpoint: Arc<Endpoint>,
        now: Instant,
    ) -> Option<Result<Response<ResponseBody>, Status>> {
        // However long the call lasts, the list does not outgrow the service.
        self.tried.retain(|tried| tried.state() != ConnectivityState::Shutdown);
        if !self.tried.iter().any(|tried| Arc::ptr_eq(tried, &endpoint)) {
            self.tried.push(endpoint.clone());
        }
        let target = &self.target;
        let failure = match &failed {
            Failed::Stream(StreamError::Unprocessed(_)) | Failed::WrongService(_) => Failure::Unprocessed,
            Failed::Stream(StreamError::Lost(_)) => Failure::Lost,
            Failed::Unavailable(_) => Failure::Unavailable { elsewhere: target.has_untried(&self.tried) },
            Failed::Stream(StreamError::Reset { .. } | StreamError::Protocol(_)) | Failed::Body(_) => Failure::Final,
        };
        let replay = self.body.as_ref().map_or(Replay::Gone, RequestBody::replay);
        let repeatable = || target.idempotency(self.head.method_path(), &endpoint).repeatable();
        match self.attempts.judge(failure, replay, now, repeatable, || target.budget().withdraw(now)) {
            Verdict::RePick | Verdict::Retry => {
                if let Some(body) = &mut self.body {
                    body.rewind();
                }
                None
            }
            Verdict::GiveUp => Some(match failed {
                Failed::Stream(error) => Err(status::of_stream(&error, Some(&endpoint.address))),
                Failed::Unavailable(response) | Failed::WrongService(response) => Ok(response),
                Failed::Body(status) => Err(status),
            }),
        }
    }

    /// Lets a moment pass when everybody there is has refused this call before.
    async fn pause(&mut self) {
        let refusals = self.attempts.re_picks();
        if refusals > 1 && !self.target.has_untried(&self.tried) {
            let ceiling = (REFUSED_PAUSE * (1 << refusals.min(16))).min(REFUSED_PAUSE_MAX);
            sleep(self.target.config().entropy.up_to(ceiling)).await;
        }
    }
}
