//! The call as a future, and the path that most calls take: picked, opened and sent before the first poll, answered in a
//! later one. Nothing is boxed on it and nothing is spawned.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use http::Response;
use tokio::time::Instant;
use tonic::Status;

use super::attempt::{Answer, Attempt, Failed};
use super::response::ResponseBody;
use super::run::Turn;
use super::state::{Call, First};
use super::status::{self, Stage};
use crate::clock;
use crate::policy::{Alarm, Deadline};
use crate::target::{Target, Unplaced};

/// A call under way. It is sent when it is made, where an endpoint is READY. Dropping it cancels the call: a waiting one
/// leaves the queue, one that was sent is reset.
#[must_use = "a call that is dropped is cancelled"]
pub struct CallFuture {
    course: Course,
    alarm: Alarm,
}

/// Where a call is.
enum Course {
    /// Its first attempt is under way.
    Sent(Sent),
    /// It waits, is tried again, or runs beside itself.
    Slow(Slow),
    /// It could not be sent.
    Refused(Call, Status),
    /// It is over.
    Over,
}

struct Sent {
    call: Call,
    /// `None` once it is over, or in other hands.
    attempt: Option<Attempt>,
    hedge: Hedge,
}

struct Slow {
    run: Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Status>> + Send>>,
    target: Arc<Target>,
    begun: Instant,
    deadline: Option<Instant>,
}

/// When a second attempt may go beside the first.
#[derive(Clone, Copy)]
enum Hedge {
    /// Nobody has had to wait yet, so nobody has asked.
    Unasked,
    At(Instant),
    Never,
}

impl CallFuture {
    /// Makes a call. What it inherits is read here, on the caller's own task.
    pub(crate) fn start(target: Arc<Target>, request: http::Request<tonic::body::Body>) -> Self {
        let now = clock::now();
        target.budget().deposit(now);
        let (call, first) = Call::new(target, request, now);
        Self { course: Course::begin(call, first), alarm: Alarm::default() }
    }
}

impl Course {
    fn begin(mut call: Call, first: First) -> Self {
        if let Err(late) = call.check_deadline(call.begun()) {
            return Self::Refused(call, late);
        }
        let in_flight = match call.pick(call.begun()) {
            Ok(in_flight) => in_flight,
            Err(Unplaced::Wait) => return Self::slow(call, Turn::Unplaced),
            Err(Unplaced::Capped) => {
                let status = call.capped();
                return Self::Refused(call, status);
            }
        };
        let sent = call.open_first(in_flight, first).and_then(|mut attempt| {
            // Nobody is woken by this: the first poll asks again for what was not there yet.
            attempt.poll_send(&mut call.body, &mut Context::from_waker(Waker::noop()))?;
            Ok(attempt)
        });
        match sent {
            Ok(attempt) => Self::Sent(Sent { call, attempt: Some(attempt), hedge: Hedge::Unasked }),
            Err(failed) => Self::slow(call, Turn::Failed(failed)),
        }
    }

    #[cold]
    fn slow(call: Call, turn: Turn) -> Self {
        let (target, begun, deadline) = (call.target.clone(), call.begun(), call.deadline());
        Self::Slow(Slow { run: Box::pin(call.run(turn)), target, begun, deadline })
    }
}

/// What happens to the first attempt.
enum Event {
    Answered(Attempt, Answer),
    Failed(Failed),
    /// It may have another one beside it.
    Hedge(Attempt),
    Expired,
}

impl Sent {
    fn poll(&mut self, alarm: &mut Alarm, cx: &mut Context<'_>) -> Poll<Event> {
        let Some(attempt) = &mut self.attempt else { return Poll::Pending };
        let retry = &self.call.target.policy().retry;
        if let Poll::Ready(answered) = attempt.poll(&mut self.call.body, retry, cx) {
            let Some(attempt) = self.attempt.take() else { return Poll::Pending };
            return Poll::Ready(match answered {
                Ok(answer) => Event::Answered(attempt, answer),
                Err(failed) => Event::Failed(failed),
            });
        }
        while let Some(at) = self.alarm() {
            ready!(alarm.poll(at, cx));
            if self.call.has_expired(clock::now()) {
                return Poll::Ready(Event::Expired);
            }
            self.hedge = Hedge::Never;
            if let Some(attempt) = self.attempt.take_if(|attempt| self.call.may_hedge(attempt)) {
                return Poll::Ready(Event::Hedge(attempt));
            }
        }
        Poll::Pending
    }

    /// The deadline has passed, and the server has said nothing.
    fn expired(&mut self) -> Status {
        let now = clock::now();
        let status = match &self.attempt {
            Some(attempt) => self.call.expired(Stage::Sent(&attempt.endpoint().address), now),
            None => self.call.expired(Stage::Unsent, now),
        };
        self.call.failed(status)
    }

    /// When to look again, should nothing have come: the hedge's time or the deadline.
    fn alarm(&mut self) -> Option<Instant> {
        if let Hedge::Unasked = self.hedge {
            // Counted from the call: it was sent as it was made.
            let begun = self.call.begun();
            self.hedge = match self.call.target.hedge_delay(begun) {
                Some(delay) => Hedge::At(begun + delay),
                None => Hedge::Never,
            };
        }
        let hedge = if let Hedge::At(at) = self.hedge { Some(at) } else { None };
        Deadline::earlier(hedge, self.call.deadline())
    }
}

impl Slow {
    fn expired(&self) -> Status {
        let lasted = clock::now().saturating_duration_since(self.begun);
        let outlook = self.target.outlook();
        let stage = if self.target.has_ready() { Stage::InLine } else { Stage::Waiting(&outlook) };
        status::expired(self.target.service(), lasted, stage)
    }
}

impl Future for CallFuture {
    type Output = Result<Response<ResponseBody>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.course {
                Course::Sent(sent) => {
                    let turn = match ready!(sent.poll(&mut this.alarm, cx)) {
                        Event::Answered(attempt, Answer::Begun(response)) => {
                            let response = sent.call.answered(attempt, response);
                            this.course = Course::Over;
                            return Poll::Ready(Ok(response));
                        }
                        Event::Answered(_, Answer::Whole(response, code)) => {
                            let response = sent.call.answered_whole(response, code);
                            this.course = Course::Over;
                            return Poll::Ready(Ok(response));
                        }
                        Event::Expired => {
                            let status = sent.expired();
                            // Reset before the caller hears of it.
                            this.course = Course::Over;
                            return Poll::Ready(Err(status));
                        }
                        Event::Failed(failed) => Turn::Failed(failed),
                        Event::Hedge(attempt) => Turn::Hedge(attempt),
                    };
                    if let Course::Sent(Sent { call, .. }) = std::mem::replace(&mut this.course, Course::Over) {
                        this.course = Course::slow(call, turn);
                    }
                }
                Course::Slow(slow) => {
                    let outcome = match slow.run.as_mut().poll(cx) {
                        Poll::Ready(outcome) => outcome,
                        Poll::Pending => {
                            let Some(at) = slow.deadline else { return Poll::Pending };
                            ready!(this.alarm.poll(at, cx));
                            Err(slow.expired())
                        }
                    };
                    // Dropped here and not with the future: an expired call is reset now.
                    this.course = Course::Over;
                    return Poll::Ready(outcome);
                }
                Course::Refused(call, status) => {
                    let status = call.failed(status.clone());
                    this.course = Course::Over;
                    return Poll::Ready(Err(status));
                }
                Course::Over => return Poll::Ready(Err(Status::internal("the call was polled after its end"))),
            }
        }
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let course = match &self.course {
            Course::Sent(_) => "sent",
            Course::Slow(_) => "waiting or repeated",
            Course::Refused(..) => "refused",
            Course::Over => "over",
        };
        f.debug_struct("CallFuture").field("course", &course).finish_non_exhaustive()
    }
}
