//! The answer's messages and trailers, as they come.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::status;
use crate::conn::{Conn, Download, StreamError, Wire};
use crate::policy::Deadline;
use crate::target::InFlight;

/// The body of an answer. The call is in flight until its trailers were read, it failed, or it was dropped, which
/// cancels it; its deadline holds until then.
pub struct ResponseBody {
    deadline: Deadline,
    live: Option<Live>,
}

/// What a stream holds while it is open. Its place is given back last, when nothing of it is left on the connection.
struct Live {
    stream: <Wire as Conn>::Download,
    /// Sends the rest of the request, where the answer began before its end.
    _upload: Option<AbortOnDropHandle<()>>,
    in_flight: InFlight,
}

impl ResponseBody {
    pub(super) fn new(
        stream: <Wire as Conn>::Download,
        in_flight: InFlight,
        upload: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        let live = (!stream.is_over()).then_some(Live { stream, in_flight, _upload: upload });
        Self { deadline: Deadline::default(), live }
    }

    /// Binds the body to the call's deadline.
    pub(super) fn until(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    fn fail(&mut self, error: &StreamError) -> Status {
        let live = self.live.take();
        status::of_stream(error, live.as_ref().map(|live| &live.in_flight.endpoint().address))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(live) = &mut this.live else { return Poll::Ready(None) };
        let polled = match live.stream.poll_data(cx) {
            // Looked at here too: the timer below is never asked while there is always more to read.
            Poll::Ready(Some(Ok(_))) if this.deadline.has_passed() => {
                this.live = None;
                return Poll::Ready(Some(Err(status::deadline_exceeded())));
            }
            Poll::Ready(Some(Ok(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(None) => live.stream.poll_trailers(cx),
            Poll::Pending => Poll::Pending,
        };
        match polled {
            Poll::Ready(Ok(trailers)) => {
                this.live = None;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(this.fail(&error)))),
            Poll::Pending => this.deadline.poll_expired(cx).map(|()| {
                this.live = None;
                Some(Err(status::deadline_exceeded()))
            }),
        }
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
        f.debug_struct("ResponseBody").field("open", &self.live.is_some()).field("deadline", &self.deadline).finish()
    }
}
