//! One call from its headers to the last byte of its answer: measured, bounded by its deadline, and alone with its
//! panics.

use std::convert::Infallible;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};

use super::deadline::Deadline;
use super::lane::Turn;
use super::open_calls::OpenCall;
use super::refusal::Refusal;
use super::straight::Straight;
use crate::clock;
use crate::metrics::{Calls, Measured, MessageBytes, code_name};

/// The ledger of one call; what it came to is measured when this goes.
pub(super) struct Call {
    metrics: Arc<Calls>,
    method: usize,
    begun: Instant,
    code: Option<Code>,
    sent: MessageBytes,
    received_bytes: Arc<AtomicU64>,
    _open: OpenCall,
}

impl Call {
    pub(super) fn begin(metrics: &Arc<Calls>, path: &str, open: OpenCall) -> Self {
        Self {
            method: metrics.started(path),
            metrics: Arc::clone(metrics),
            begun: clock::now(),
            code: None,
            sent: MessageBytes::default(),
            received_bytes: Arc::default(),
            _open: open,
        }
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// Answers without a handler.
    pub(super) fn refuse(self, refusal: Refusal<'_>) -> Answering {
        Answering::Known(Some((self.refusal(refusal), self)))
    }

    /// The answer of a call whose handler did not run.
    fn refusal(&self, refusal: Refusal<'_>) -> Response<Body> {
        if refusal == Refusal::DeadlineExceeded {
            self.metrics.expired_unbegun();
        }
        Status::from(refusal).into_http()
    }

    /// Lets the handler answer.
    pub(super) fn handle(
        self,
        mut routes: Routes,
        request: Request<Incoming>,
        turn: Turn,
        deadline: Option<Deadline>,
    ) -> Answering {
        let received_bytes = Arc::clone(&self.received_bytes);
        let request = request.map(|body| Received { body, bytes: MessageBytes::default(), received_bytes });
        match catch_unwind(AssertUnwindSafe(|| tower::Service::call(&mut routes, request))) {
            Ok(handler) => {
                Answering::Handling { handler, turn, progress: Progress::Unbegun, deadline, call: Some(self) }
            }
            Err(_) => self.refuse(Refusal::Panicked),
        }
    }

    fn answer(mut self, mut response: Response<Body>, deadline: Option<Deadline>) -> Response<Answer> {
        // A refusal, and any error before the first message, has its status in the headers and no body.
        self.code = Status::from_header_map(response.headers()).map(|status| status.code());
        if self.code.is_none() && !response.status().is_success() {
            self.code = Some(Code::Unknown);
        }
        let straight = response.extensions_mut().remove::<Straight>().and_then(|straight| straight.take());
        response.map(|routed| Answer { body: straight.unwrap_or(routed), deadline, call: self })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let measured = Measured {
            method: self.method,
            // An answer that was never finished was given up by its caller.
            code: self.code.unwrap_or(Code::Cancelled),
            took: clock::now() - self.begun,
            sent_bytes: self.sent.counted(),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
        };
        self.metrics.ended(&measured);
        tracing::debug!(
            method = self.metrics.name(measured.method),
            status = code_name(measured.code),
            took_s = measured.took.as_secs_f64(),
            "call ended"
        );
    }
}

/// A call whose answer has not begun.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every call is the large one; a box would cost each an allocation"
)]
pub(super) enum Answering {
    /// The answer is there already.
    Known(Option<(Response<Body>, Call)>),
    /// The handler is at it, or about to begin.
    Handling { handler: Handler, turn: Turn, progress: Progress, deadline: Option<Deadline>, call: Option<Call> },
}

/// How far a handler is. A call waits for its first turn as any task does: on a busy machine that may take longer than its
/// caller waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing of it has run.
    Unbegun,
    /// It runs.
    Begun,
}

type Handler = <Routes as tower::Service<Request<Received>>>::Future;

impl Future for Answering {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (response, call, deadline) = match this {
            Self::Known(known) => {
                let (response, call) = known.take().expect("polled after the answer");
                (response, call, None)
            }
            Self::Handling { handler, turn, progress, deadline, call } => {
                // Asked before every turn of the handler: what it did from here on would be done for nobody.
                let expired = deadline.as_ref().is_some_and(Deadline::has_passed);
                let response = if expired {
                    *deadline = None;
                    match (*progress, &call) {
                        (Progress::Unbegun, Some(call)) => call.refusal(Refusal::DeadlineExceeded),
                        _ => Status::from(Refusal::DeadlineExceeded).into_http(),
                    }
                } else if turn.poll(cx).is_pending() {
                    let Some(waiting) = deadline else { return Poll::Pending };
                    ready!(waiting.poll(cx));
                    *deadline = None;
                    match &call {
                        Some(call) => call.refusal(Refusal::DeadlineExceeded),
                        None => Status::from(Refusal::DeadlineExceeded).into_http(),
                    }
                } else {
                    *progress = Progress::Begun;
                    match catch_unwind(AssertUnwindSafe(|| Pin::new(handler).poll(cx))) {
                        Ok(Poll::Ready(Ok(response))) => response,
                        Ok(Poll::Pending) => {
                            let Some(waiting) = deadline else { return Poll::Pending };
                            ready!(waiting.poll(cx));
                            *deadline = None;
                            Status::from(Refusal::DeadlineExceeded).into_http()
                        }
                        Err(_) => {
                            *deadline = None;
                            Status::from(Refusal::Panicked).into_http()
                        }
                    }
                };
                (response, call.take().expect("polled after the answer"), deadline.take())
            }
        };
        // The handler ends here, not when the last byte of the answer is sent.
        *this = Self::Known(None);
        Poll::Ready(Ok(call.answer(response, deadline)))
    }
}

/// The body of an answer.
pub(super) struct Answer {
    body: Body,
    deadline: Option<Deadline>,
    call: Call,
}

impl Answer {
    /// Ends the answer here, with this status.
    fn end(&mut self, refusal: Refusal<'_>) -> Frame<Bytes> {
        drop(mem::take(&mut self.body));
        self.deadline = None;
        let status = Status::from(refusal);
        self.call.code = Some(status.code());
        let mut trailers = HeaderMap::new();
        // Fails only for bytes that no header can carry; then the stream ends without a status, which callers read as
        // an error too.
        let _ = status.add_header(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        // As with the handler: no turn past the deadline. A stream that always has more would never be waited for either.
        if this.deadline.as_ref().is_some_and(Deadline::has_passed) {
            return Poll::Ready(Some(Ok(this.end(Refusal::DeadlineExceeded))));
        }
        let frame = match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx))) {
            Ok(Poll::Ready(frame)) => frame,
            Ok(Poll::Pending) => {
                let Some(deadline) = &mut this.deadline else { return Poll::Pending };
                ready!(deadline.poll(cx));
                return Poll::Ready(Some(Ok(this.end(Refusal::DeadlineExceeded))));
            }
            Err(_) => return Poll::Ready(Some(Ok(this.end(Refusal::Panicked)))),
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.call.sent.take(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    this.call.code = Some(Status::from_header_map(trailers).map_or(Code::Unknown, |s| s.code()));
                }
            }
            Some(Err(status)) => this.call.code = Some(status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, counted as it is read.
pub(super) struct Received {
    body: Incoming,
    bytes: MessageBytes,
    received_bytes: Arc<AtomicU64>,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes.take(data);
            self.received_bytes.store(self.bytes.counted(), Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
