//! One attempt of a call on one connection.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use tonic::{Code, Status};

use super::response::Rest;
use super::status::{self, Meaning};
use super::upload::{RequestBody, UploadError};
use crate::clock::Stamp;
use crate::conn::{Conn, End, Ending, StreamError, Upload, Wire};
use crate::endpoint::Endpoint;
use crate::policy::Pushback;
use crate::target::{InFlight, Outcome, Target};

/// One attempt under way: its stream, and its place until the end of it. Dropping it resets the stream and gives the place
/// back.
pub(super) struct Attempt {
    answer: <Wire as Conn>::Answer,
    /// `None` once the request was sent, or cannot be.
    upload: Option<<Wire as Conn>::Upload>,
    in_flight: InFlight,
}

/// What an attempt came to that has not failed. This is the commit point: an answer with messages to come is the caller's,
/// whatever happens to it later.
pub(super) enum Answer {
    /// Messages follow, or trailers.
    Begun(Response<<Wire as Conn>::Download>),
    /// A status and nothing else.
    Whole(Response<()>, Code),
}

/// An attempt that failed, and is over.
pub(super) struct Failed {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) cause: Cause,
}

/// How an attempt ended that the caller does not get to see as it is, unless it was the last one.
pub(super) enum Cause {
    /// The stream failed.
    Stream(StreamError),
    /// The server answered with a status that may be tried again, and nothing else: this is the answer, should it stand.
    Answered { response: Box<Response<()>>, code: Code, pushback: Pushback },
    /// The server serves another service and did not look at the call.
    WrongService,
    /// The caller's own stream of messages failed.
    Body(Status),
}

impl Attempt {
    /// Opens a stream in the place that was picked. Nothing of the body is sent yet.
    pub(super) fn open(mut in_flight: InFlight, head: Request<()>) -> Result<Self, Failed> {
        match in_flight.conn().open(head) {
            Ok((answer, upload)) => Ok(Self { answer, upload: Some(upload), in_flight }),
            Err(error) => {
                let now = in_flight.now();
                if let StreamError::Protocol(_) = error {
                    // Nothing was sent: the fault is the request's own.
                    in_flight.end(Outcome::Malformed, now);
                }
                Err(fail(&mut in_flight, error, now))
            }
        }
    }

    /// Opens a stream and sends a request that is one message.
    pub(super) fn open_with(in_flight: InFlight, head: Request<()>, message: Bytes) -> Result<Self, Failed> {
        let mut attempt = Self::open(in_flight, head)?;
        if let Some(mut upload) = attempt.upload.take() {
            attempt.in_flight.sent(super::framing::Framing::default().message_bytes(&message));
            // Where the stream has failed already, the answer says why.
            let _ = upload.send(message, End::Here);
        }
        Ok(attempt)
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_flight.endpoint()
    }

    /// Sends what there is of the body. An error is the caller's own stream's.
    pub(super) fn poll_send(&mut self, body: &mut RequestBody, cx: &mut Context<'_>) -> Result<(), Failed> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let polled = body.poll_send(cx, upload);
        self.in_flight.sent(body.take_sent());
        match polled {
            Poll::Pending => {}
            // Where the stream failed, its answer says why.
            Poll::Ready(Ok(()) | Err(UploadError::Stream)) => self.upload = None,
            Poll::Ready(Err(UploadError::Body(status))) => {
                upload.cancel();
                self.in_flight.end(Outcome::Cancelled, self.in_flight.now());
                return Err(Failed { endpoint: self.endpoint().clone(), cause: Cause::Body(status) });
            }
        }
        Ok(())
    }

    /// Sends the body and waits for the head of the answer. Not to be polled after it was ready.
    pub(super) fn poll(
        &mut self,
        body: &mut RequestBody,
        target: &Target,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Answer, Failed>> {
        if let Err(failed) = self.poll_send(body, cx) {
            return Poll::Ready(Err(failed));
        }
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        let now = self.in_flight.now();
        let response = match answer {
            Ok(response) => response,
            Err(error) => return Poll::Ready(Err(fail(&mut self.in_flight, error, now))),
        };
        self.in_flight.answered(now);
        let Some(only) = status::head_only(&response, target) else {
            return Poll::Ready(Ok(Answer::Begun(response)));
        };
        let (code, endpoint) = (only.code, self.endpoint().clone());
        let response = only.instead.unwrap_or_else(|| response.map(drop));
        let cause = match only.meaning {
            Meaning::Final => {
                self.in_flight.end(Outcome::Code(code), now);
                return Poll::Ready(Ok(Answer::Whole(response, code)));
            }
            Meaning::Retryable(pushback) => {
                self.in_flight.end(Outcome::Code(code), now);
                Cause::Answered { response: Box::new(response), code, pushback }
            }
            Meaning::WrongService => {
                self.in_flight.conn().vitals().retire(Ending::Misdirected);
                self.in_flight.end(Outcome::Unprocessed, now);
                Cause::WrongService
            }
        };
        Poll::Ready(Err(Failed { endpoint, cause }))
    }

    /// The head of the answer, as a future.
    pub(super) async fn answer(&mut self, body: &mut RequestBody, target: &Target) -> Result<Answer, Failed> {
        poll_fn(|cx| self.poll(body, target, cx)).await
    }

    /// Gives its place to the answer's body. What is left of the request is sent by a task that the answer's body owns.
    #[inline]
    pub(super) fn into_rest(self, body: &mut RequestBody, deadline: Option<Stamp>) -> (InFlight, Option<Rest>) {
        let Self { in_flight, upload, .. } = self;
        let instant = |at| in_flight.instant(at);
        let rest = upload.map(|upload| Rest::spawn(body.take(), upload, deadline.map(instant)));
        (in_flight, rest)
    }
}

fn fail(in_flight: &mut InFlight, error: StreamError, now: Stamp) -> Failed {
    in_flight.end(outcome_of(&error), now);
    Failed { endpoint: in_flight.endpoint().clone(), cause: Cause::Stream(error) }
}

/// What a failed stream says about the endpoint.
pub(super) fn outcome_of(error: &StreamError) -> Outcome {
    match error {
        StreamError::Unprocessed(_) => Outcome::Unprocessed,
        StreamError::Refused(_) => Outcome::Refused,
        StreamError::Lost(_) => Outcome::Lost,
        StreamError::Reset { .. } | StreamError::Protocol(_) => Outcome::Broken(status::stream_code(error)),
    }
}
