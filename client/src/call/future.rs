//! The call as a future, and the path that most calls take: picked, opened and sent before the first poll, answered in a
//! later one. Nothing is boxed on it and nothing is spawned.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use http::Response;
use tonic::Status;

use super::attempt::{Answer, Attempt, Failed};
use super::response::ResponseBody;
use super::run::Turn;
use super::state::{Call, First};
use super::status::{self, Stage};
use crate::clock::Stamp;
use crate::policy::Alarm;
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
    begun: Stamp,
    deadline: Option<Stamp>,
}

/// When a second attempt may go beside the first.
#[derive(Clone, Copy)]
enum Hedge {
    /// Nobody has had to wait yet, so nobody has asked.
    Unasked,
    At(Stamp),
    Never,
}

impl CallFuture {
    /// Makes a call. What it inherits is read here, on the caller's own task.
    pub(crate) fn start(target: Arc<Target>, request: http::Request<tonic::body::Body>) -> Self {
        let now = target.ledger().now();
        target.budget().deposit(now);
        let mut first = First::default();
        let call = Call::new(target, request, now, &mut first);
        let course = Course::Sent(Sent { call, attempt: None, hedge: Hedge::Unasked });
        // It is not moved any more once it is made: a move costs as much as a look at a header.
        let mut future = Self { course, alarm: Alarm::default() };
        if let Course::Sent(sent) = &mut future.course
            && let Err(detour) = sent.begin(first)
        {
            future.course.leave(detour);
        }
        future
    }
}

/// Why a call does not go straight on.
enum Detour {
    By(Turn),
    Refused(Status),
}

impl Course {
    /// Goes on by another way than the straight one.
    #[cold]
    fn leave(&mut self, detour: Detour) {
        if let Self::Sent(Sent { call, .. }) = std::mem::replace(self, Self::Over) {
            *self = match detour {
                Detour::By(turn) => Self::slow(call, turn),
                Detour::Refused(status) => Self::Refused(call, status),
            };
        }
    }

    fn slow(call: Call, turn: Turn) -> Self {
        let (target, begun, deadline) = (call.target.clone(), call.begun(), call.deadline());
        Self::Slow(Slow { run: Box::pin(call.run(turn)), target, begun, deadline })
    }
}

/// What happens to the first attempt.
enum Event {
    Answered(Answer),
    Failed(Failed),
    /// It has another one beside it.
    Hedge(Box<[Attempt; 2]>),
    Expired,
}

impl Sent {
    /// Takes a place and sends what there is of the request.
    fn begin(&mut self, first: First) -> Result<(), Detour> {
        let call = &mut self.call;
        call.check_deadline(call.begun()).map_err(Detour::Refused)?;
        let in_flight = call.pick_in_turn(call.begun()).map_err(|unplaced| match unplaced {
            Unplaced::Wait => Detour::By(Turn::Unplaced),
            Unplaced::Capped => Detour::Refused(call.capped()),
        })?;
        let failed = |failed| Detour::By(Turn::Failed(failed));
        let attempt = self.attempt.insert(call.open_first(in_flight, first).map_err(failed)?);
        // Nobody is woken by this: the first poll asks again for what was not there yet.
        attempt.poll_send(&mut call.body, &mut Context::from_waker(Waker::noop())).map_err(failed)
    }

    fn poll(&mut self, alarm: &mut Alarm, cx: &mut Context<'_>) -> Poll<Event> {
        let Some(attempt) = &mut self.attempt else { return Poll::Pending };
        if let Poll::Ready(answered) = attempt.poll(&mut self.call.body, &self.call.target, cx) {
            return Poll::Ready(answered.map_or_else(Event::Failed, Event::Answered));
        }
        while let Some(at) = self.alarm() {
            ready!(alarm.poll(self.call.target.ledger().instant(at), cx));
            if self.call.has_expired(self.call.now()) {
                return Poll::Ready(Event::Expired);
            }
            self.hedge = Hedge::Never;
            if let Some(first) = self.attempt.take() {
                match self.call.second(&first) {
                    Some(second) => return Poll::Ready(Event::Hedge(Box::new([first, second]))),
                    None => self.attempt = Some(first),
                }
            }
        }
        Poll::Pending
    }

    fn answered(&mut self, answer: Answer) -> Result<Response<ResponseBody>, Status> {
        match answer {
            Answer::Begun(response) => match self.attempt.take() {
                Some(attempt) => Ok(self.call.answered(attempt, response)),
                None => Err(polled_again()),
            },
            Answer::Whole(response, code) => Ok(self.call.answered_whole(response, code)),
        }
    }

    /// The deadline has passed, and the server has said nothing.
    fn expired(&mut self) -> Status {
        let now = self.call.now();
        let status = match &self.attempt {
            Some(attempt) => self.call.expired(Stage::Sent(&attempt.endpoint().address), now),
            None => self.call.expired(Stage::Unsent, now),
        };
        self.call.failed(status)
    }

    /// When to look again, should nothing have come: the hedge's time or the deadline.
    fn alarm(&mut self) -> Option<Stamp> {
        if let Hedge::Unasked = self.hedge {
            // Counted from the call: it was sent as it was made.
            let begun = self.call.begun();
            self.hedge = match self.call.target.hedge_delay(begun) {
                Some(delay) => Hedge::At(begun.after(delay)),
                None => Hedge::Never,
            };
        }
        let hedge = if let Hedge::At(at) = self.hedge { Some(at) } else { None };
        match (hedge, self.call.deadline()) {
            (Some(hedge), Some(deadline)) => Some(hedge.min(deadline)),
            (hedge, deadline) => hedge.or(deadline),
        }
    }
}

impl Slow {
    fn expired(&self) -> Status {
        let lasted = self.target.ledger().now().since(self.begun);
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
                        Event::Answered(answer) => {
                            let outcome = sent.answered(answer);
                            this.course = Course::Over;
                            return Poll::Ready(outcome);
                        }
                        Event::Expired => {
                            let status = sent.expired();
                            // Reset before the caller hears of it.
                            this.course = Course::Over;
                            return Poll::Ready(Err(status));
                        }
                        Event::Failed(failed) => Turn::Failed(failed),
                        Event::Hedge(both) => Turn::Hedge(both),
                    };
                    this.course.leave(Detour::By(turn));
                }
                Course::Slow(slow) => {
                    let outcome = match slow.run.as_mut().poll(cx) {
                        Poll::Ready(outcome) => outcome,
                        Poll::Pending => {
                            let Some(at) = slow.deadline else { return Poll::Pending };
                            ready!(this.alarm.poll(slow.target.ledger().instant(at), cx));
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
                Course::Over => return Poll::Ready(Err(polled_again())),
            }
        }
    }
}

fn polled_again() -> Status {
    Status::internal("the call was polled after its end")
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
