//! The answer's messages and trailers, as they come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::task::coop;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

use super::attempt::outcome_of;
use super::entry::Entry;
use super::framing::Framing;
use super::status::{self, Stage};
use super::upload::RequestBody;
use crate::clock::Stamp;
use crate::conn::{Conn, Download, StreamError, Wire};
use crate::policy::Alarm;
use crate::target::{InFlight, Outcome};

/// The body of an answer. The call is in flight until its trailers were read, it failed, or it was dropped, which
/// cancels it; its deadline holds until then.
pub struct ResponseBody {
    /// Taken when somebody first has to wait, so an answer that is all there never has one.
    alarm: Alarm,
    live: Option<Live>,
}

/// What a stream holds while it is open. Its place is given back last, when the answer's half of it is gone; the half that
/// sends, where there still is one, goes with its task a moment later.
struct Live {
    stream: <Wire as Conn>::Download,
    rest: Option<Rest>,
    framing: Framing,
    /// Whether something was read since the reader last waited.
    reads_on: bool,
    entry: Entry,
    in_flight: InFlight,
}

/// Sends the rest of the request, where the answer began before its end.
pub(super) struct Rest {
    _task: AbortOnDropHandle<()>,
    /// Bytes of messages that it has sent.
    sent: Arc<AtomicUsize>,
}

impl Rest {
    /// Sends what is left of a request until the `deadline`, for as long as somebody has the answer.
    #[cold]
    pub(super) fn spawn(mut body: RequestBody, upload: <Wire as Conn>::Upload, deadline: Option<Instant>) -> Self {
        body.commit();
        let sent = Arc::new(AtomicUsize::new(0));
        let sending = body.send_rest(upload, deadline, sent.clone());
        Self { _task: AbortOnDropHandle::new(tokio::spawn(sending)), sent }
    }
}

impl Live {
    fn has_expired(&self) -> bool {
        self.entry.deadline().is_some_and(|at| at <= self.in_flight.now())
    }

    /// The deadline on the clock of timers.
    fn deadline(&self) -> Option<Instant> {
        self.entry.deadline().map(|at| self.in_flight.instant(at))
    }

    /// Ends the attempt and the call, as the one word of the server or as what stands for it.
    fn end(mut self, outcome: Outcome, code: Code, now: Stamp) {
        self.in_flight.sent(self.rest.as_ref().map_or(0, |rest| rest.sent.load(Ordering::Relaxed)));
        if matches!(outcome, Outcome::Code(_)) && self.rest.is_none() {
            self.stream.finish();
        }
        self.in_flight.end(outcome, now);
        self.entry.end(code, now);
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // What was sent counts, whether or not the answer was read to its end.
        if let Some(Live { rest: Some(rest), in_flight, .. }) = &mut self.live {
            in_flight.sent(rest.sent.load(Ordering::Relaxed));
        }
    }
}

impl ResponseBody {
    /// The body of an answer that was all in its head.
    pub(super) fn empty() -> Self {
        Self { alarm: Alarm::default(), live: None }
    }

    /// The body of an answer that has begun.
    pub(super) fn new(stream: <Wire as Conn>::Download, in_flight: InFlight, rest: Option<Rest>, entry: Entry) -> Self {
        let live = Live { stream, rest, framing: Framing::default(), reads_on: false, entry, in_flight };
        Self { alarm: Alarm::default(), live: Some(live) }
    }

    /// The end of the stream: its trailers say how the call went, and where they do not, that is an error.
    fn finish(&mut self, trailers: Option<HeaderMap>) -> Option<Result<Frame<Bytes>, Status>> {
        let live = self.live.take()?;
        let now = live.in_flight.now();
        if let Some(trailers) = trailers
            && let Some(code) = status::code_of(&trailers)
        {
            live.end(Outcome::Code(code), code, now);
            return Some(Ok(Frame::trailers(trailers)));
        }
        let status = status::no_trailers(live.entry.service(), &live.in_flight.endpoint().address);
        live.end(Outcome::Broken(status.code()), status.code(), now);
        Some(Err(status))
    }

    fn fail(&mut self, error: &StreamError) -> Option<Result<Frame<Bytes>, Status>> {
        let live = self.live.take()?;
        let address = &live.in_flight.endpoint().address;
        let status = status::of_stream(error, live.entry.service(), address, "in the middle of its answer");
        let now = live.in_flight.now();
        live.end(outcome_of(error), status.code(), now);
        Some(Err(status))
    }

    fn expire(&mut self) -> Option<Result<Frame<Bytes>, Status>> {
        let live = self.live.take()?;
        let now = live.in_flight.now();
        let stage = Stage::Answering(&live.in_flight.endpoint().address);
        let status = status::expired(live.entry.service(), live.entry.lasted(now), stage);
        live.end(Outcome::Expired, Code::DeadlineExceeded, now);
        Some(Err(status))
    }
}

/// What tonic's interceptors answer with where they let no call through.
impl Default for ResponseBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(live) = &mut this.live else { return Poll::Ready(None) };
        // Whoever reads on and on lets other tasks have their turn.
        let turn = ready!(coop::poll_proceed(cx));
        match live.stream.poll_data(cx) {
            // The timer below is never asked while there is always more to read.
            Poll::Ready(Some(Ok(_))) if live.reads_on && live.has_expired() => return Poll::Ready(this.expire()),
            Poll::Ready(Some(Ok(data))) => {
                live.reads_on = true;
                turn.made_progress();
                live.in_flight.received(live.framing.message_bytes(&data));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            // Whoever sends the rest of the request resets the stream then.
            Poll::Ready(Some(Err(_))) if live.rest.is_some() && live.has_expired() => {
                return Poll::Ready(this.expire());
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(this.fail(&error)),
            Poll::Ready(None) => match live.stream.poll_trailers(cx) {
                Poll::Ready(Ok(trailers)) => return Poll::Ready(this.finish(trailers)),
                Poll::Ready(Err(error)) => return Poll::Ready(this.fail(&error)),
                Poll::Pending => {}
            },
            Poll::Pending => {}
        }
        drop(turn);
        live.reads_on = false;
        let Some(at) = live.deadline() else { return Poll::Pending };
        ready!(this.alarm.poll(at, cx));
        Poll::Ready(this.expire())
    }

    fn is_end_stream(&self) -> bool {
        self.live.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.live {
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("open", &self.live.is_some()).finish_non_exhaustive()
    }
}
