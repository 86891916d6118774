//! The course of a call that does not go straight on: waiting for a place, trying again, and a second attempt beside the
//! first. Boxed, and away from the path that most calls take.

use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use http::Response;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout_at};
use tonic::Status;

use super::attempt::{Attempt, Cause, Failed};
use super::response::ResponseBody;
use super::state::{Call, Readiness, Reply};
use super::status;
use crate::clock;
use crate::conn::StreamError;
use crate::endpoint::ConnectivityState;
use crate::policy::{Failure, Pushback, Verdict};
use crate::target::{Full, InFlight, Unplaced};

/// Ceiling of the first pause before a call goes back to an endpoint that has just refused it; it doubles each time. A
/// refusal means that the endpoint is full or leaving, which takes it moments.
const REFUSED_PAUSE: Duration = Duration::from_millis(2);
/// Where the doubling ends.
const REFUSED_PAUSE_MAX: Duration = Duration::from_millis(100);

/// Where a call leaves the straight path.
pub(super) enum Turn {
    /// Nobody could take it.
    Unplaced,
    /// Its attempt failed.
    Failed(Failed),
    /// Its attempt has not been answered in time, and another one is beside it.
    Hedge(Box<[Attempt; 2]>),
}

/// What happens after a failed attempt.
type Judged = ControlFlow<Result<Reply, Status>, Pause>;

/// What passes before the next attempt.
enum Pause {
    None,
    For(Duration),
}

impl Call {
    /// Runs the call to the head of its answer. The deadline is watched from outside: this future is dropped when it passes.
    pub(super) async fn run(mut self, turn: Turn) -> Result<Response<ResponseBody>, Status> {
        let reply = self.reply(turn).await;
        self.end(reply)
    }

    async fn reply(&mut self, turn: Turn) -> Result<Reply, Status> {
        let mut tried = match turn {
            Turn::Unplaced => self.attempt().await?,
            Turn::Failed(failed) => Err(failed),
            Turn::Hedge(both) => self.race(*both).await,
        };
        loop {
            let failed = match tried {
                Ok(reply) => return Ok(reply),
                Err(failed) => failed,
            };
            match self.judge(failed) {
                ControlFlow::Break(outcome) => return outcome,
                ControlFlow::Continue(Pause::None) => {}
                ControlFlow::Continue(Pause::For(pause)) => sleep(pause).await,
            }
            tried = self.attempt().await?;
        }
    }

    /// One attempt from its place to the head of its answer, with a second one beside it where that is allowed. The outer
    /// error ends the call.
    async fn attempt(&mut self) -> Result<Result<Reply, Failed>, Status> {
        self.check_deadline(self.now())?;
        let in_flight = match self.pick_in_turn(self.now()) {
            Ok(place) => place,
            Err(Unplaced::Wait) => self.wait().await?,
            Err(Unplaced::Capped) => return Err(self.capped()),
        };
        let now = self.now();
        let mut attempt = match self.open(in_flight, now) {
            Ok(attempt) => attempt,
            Err(failed) => return Ok(Err(failed)),
        };
        let hedge_at = self.target.hedge_delay(now).map(|delay| self.target.ledger().instant(now.after(delay)));
        let head = attempt.answer(&mut self.body, &self.target);
        let in_time = match hedge_at {
            None => Some(head.await),
            Some(at) => timeout_at(at, head).await.ok(),
        };
        let answered = match in_time {
            Some(answered) => answered,
            None => match self.second(&attempt) {
                Some(second) => return Ok(self.race([attempt, second]).await),
                None => attempt.answer(&mut self.body, &self.target).await,
            },
        };
        Ok(answered.map(|answer| Reply::new(attempt, answer)))
    }

    /// Waits for a place: until the deadline, and while nothing is READY no longer than failfast allows.
    async fn wait(&mut self) -> Result<InFlight, Status> {
        let target = &*self.target;
        let policy = target.policy();
        let queue = target.queue();
        let mut ticket = queue.join().map_err(|Full| status::queue_full(target.service(), policy.waiting_max))?;
        if queue.is_owed() {
            // Whoever has been told looks first. This call looks once all the same: what those may not take, it perhaps may.
            yield_now().await;
        }
        let mut patience = pin!(sleep(policy.failfast));
        let mut was_ready = false;
        loop {
            // Asleep before the look: a place that becomes free between the two wakes this call.
            ticket.rest();
            self.check_deadline(self.now())?;
            match self.pick(self.now()) {
                Ok(place) => return Ok(place),
                Err(Unplaced::Wait) => {}
                Err(Unplaced::Capped) => return Err(self.capped()),
            }
            ticket.has_looked();
            if self.readiness == Readiness::Wait {
                ticket.told().await;
                continue;
            }
            if let outlook = target.outlook()
                && outlook.is_settled(target.config().outage)
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
                () = ticket.told() => {}
                () = patience.as_mut() => {
                    if !target.has_ready() {
                        return Err(status::nobody(target.service(), &target.outlook()));
                    }
                }
            }
        }
    }

    /// Decides about a failed attempt: what the caller is told, or what passes before the next one.
    fn judge(&mut self, failed: Failed) -> Judged {
        let now = self.now();
        let Failed { endpoint, cause } = failed;
        // However long the call lasts, the list does not outgrow the service.
        self.tried.retain(|tried| tried.state() != ConnectivityState::Shutdown);
        self.has_tried(&endpoint);
        let failure = match &cause {
            Cause::Stream(StreamError::Unprocessed(_) | StreamError::Refused(_)) | Cause::WrongService => {
                Failure::Unprocessed
            }
            Cause::Stream(StreamError::Protocol(_)) | Cause::Body(_) => Failure::Final,
            Cause::Stream(error) => {
                Failure::Processed { code: status::stream_code(error), pushback: Pushback::default() }
            }
            Cause::Answered { code, pushback, .. } => Failure::Processed { code: *code, pushback: *pushback },
        };
        let (target, path) = (&self.target, self.head.method_path());
        let verdict = self.attempts.judge(
            failure,
            self.body.replay(),
            &target.policy().retry,
            now,
            || target.idempotency(path, &endpoint).repeatable(),
            || target.budget().withdraw(now),
        );
        let pause = match verdict {
            Verdict::RePick => self.refused_pause(),
            Verdict::Retry { after: Some(wait) } => Pause::For(wait),
            Verdict::Retry { after: None } => self.backoff(),
            Verdict::GiveUp(why) => {
                return ControlFlow::Break(match cause {
                    Cause::Stream(error) => Err(status::of_stream(&error, target.service(), &endpoint.address, why)),
                    Cause::Answered { response, code, .. } => Ok(Reply::Whole(*response, code)),
                    Cause::WrongService => Err(status::of_stranger(target.service(), &endpoint.address, why)),
                    Cause::Body(status) => Err(status),
                });
            }
        };
        self.is_repeated();
        self.body.rewind();
        ControlFlow::Continue(pause)
    }

    /// Before a retry, when everybody there is has failed this call: full jitter under a ceiling that doubles.
    fn backoff(&self) -> Pause {
        if self.target.has_untried(&self.tried) {
            return Pause::None;
        }
        let policy = &self.target.policy().retry;
        let doublings = self.attempts.retries().saturating_sub(1).min(16);
        self.jittered(policy.backoff_base.saturating_mul(1 << doublings).min(policy.backoff_max))
    }

    /// Before a repetition that is free, when everybody there is has refused this call before.
    fn refused_pause(&self) -> Pause {
        let refusals = self.attempts.re_picks();
        if refusals <= 1 || self.target.has_untried(&self.tried) {
            return Pause::None;
        }
        self.jittered((REFUSED_PAUSE * (1 << refusals.min(16))).min(REFUSED_PAUSE_MAX))
    }

    fn jittered(&self, ceiling: Duration) -> Pause {
        Pause::For(self.target.config().entropy.up_to(ceiling))
    }
}
