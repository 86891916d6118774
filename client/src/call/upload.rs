//! The request's body: sent as it comes, and kept for as long as it may have to be sent again.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

use super::framing::{Framing, is_one_message};
use super::kept::{Kept, POOL};
use crate::conn::{End, StreamError, Upload};
use crate::policy::Replay;

/// Pieces sent before other tasks get their turn.
const PIECES_PER_POLL: usize = 32;

/// Why sending ended early.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// The caller's stream of messages failed.
    Body(Status),
    /// The stream to the server failed; its answer says why.
    Stream,
}

impl From<StreamError> for UploadError {
    fn from(_: StreamError) -> Self {
        Self::Stream
    }
}

/// One request's body. A message is one piece, and a unary call is one message: keeping it is one reference more to the
/// same bytes.
#[derive(Debug)]
pub(crate) struct RequestBody {
    source: tonic::body::Body,
    source_over: bool,
    kept: Kept,
    /// How many of the kept pieces this attempt has taken.
    taken: usize,
    /// The next piece to send. It waits until it is known whether it is the last: END_STREAM then travels with it, and
    /// not in an empty frame of its own.
    next: Option<Bytes>,
    progress: Progress,
    framing: Framing,
    /// Bytes of messages sent that nobody has asked for yet.
    sent: usize,
}

/// How far this attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Untouched,
    Sending,
    Done,
}

impl RequestBody {
    pub(crate) fn new(source: tonic::body::Body) -> Self {
        Self {
            source,
            source_over: false,
            kept: Kept::new(&POOL),
            taken: 0,
            next: None,
            progress: Progress::Untouched,
            framing: Framing::default(),
            sent: 0,
        }
    }

    /// The same body, for whoever sends the rest of it.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(tonic::body::Body::empty()))
    }

    /// Whether all of it was handed to the connection.
    pub(crate) fn is_done(&self) -> bool {
        self.progress == Progress::Done
    }

    /// Whether it can be sent from its beginning.
    pub(crate) fn replay(&self) -> Replay {
        match self.kept.count() {
            Some(_) => Replay::Possible,
            None => Replay::Gone,
        }
    }

    /// Goes back to the beginning, where [`RequestBody::replay`] allows it.
    pub(crate) fn rewind(&mut self) {
        self.taken = 0;
        self.next = None;
        self.progress = Progress::Untouched;
        self.framing = Framing::default();
    }

    /// The request, where it is one message, all of it was sent, and it is still here: what a second attempt beside the
    /// first takes.
    pub(crate) fn one_message(&self) -> Option<Bytes> {
        let whole = self.is_done() && self.kept.count() == Some(1);
        self.kept.piece(0).filter(|message| whole && is_one_message(message)).cloned()
    }

    /// Bytes of messages sent since this was last asked.
    pub(crate) fn take_sent(&mut self) -> usize {
        std::mem::take(&mut self.sent)
    }

    /// No other attempt will follow: what is kept can go.
    pub(crate) fn commit(&mut self) {
        // Pieces kept but not yet taken by this attempt would be lost; a replay stays on until it has caught up.
        if self.kept.count().is_some_and(|count| self.taken >= count) {
            self.kept.let_go();
        }
    }

    /// Sends what is there. Ready when all of it was handed over.
    ///
    /// The look-ahead that puts END_STREAM on the last message asks the source once more than there are messages.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, out: &mut impl Upload) -> Poll<Result<(), UploadError>> {
        for _ in 0..PIECES_PER_POLL {
            if self.progress == Progress::Done {
                return Poll::Ready(Ok(()));
            }
            let Some(piece) = self.next.take() else {
                self.next = ready!(self.poll_piece(cx))?;
                if self.next.is_none() {
                    out.send(Bytes::new(), End::Here)?;
                    self.progress = Progress::Done;
                }
                continue;
            };
            // The first piece goes without asking: it is in memory either way, and nearly always there is room.
            if self.progress == Progress::Sending {
                match out.poll_room(cx) {
                    Poll::Ready(room) => room?,
                    Poll::Pending => {
                        self.next = Some(piece);
                        return Poll::Pending;
                    }
                }
            }
            self.progress = Progress::Sending;
            self.sent += self.framing.message_bytes(&piece);
            match self.poll_piece(cx) {
                Poll::Ready(Ok(None)) => {
                    out.send(piece, End::Here)?;
                    self.progress = Progress::Done;
                }
                Poll::Ready(Ok(next)) => {
                    out.send(piece, End::NotYet)?;
                    self.next = next;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    out.send(piece, End::NotYet)?;
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends the rest until the `deadline`, after the answer has begun, and adds up in `sent` how many bytes of messages that
    /// is. Nobody else watches the deadline while the caller reads nothing.
    pub(crate) async fn send_rest(mut self, mut out: impl Upload, deadline: Option<Instant>, sent: Arc<AtomicUsize>) {
        let all = poll_fn(|cx| {
            let polled = self.poll_send(cx, &mut out);
            sent.fetch_add(self.take_sent(), Ordering::Relaxed);
            polled
        });
        let in_time = match deadline {
            None => Some(all.await),
            Some(at) => timeout_at(at, all).await.ok(),
        };
        if !matches!(in_time, Some(Ok(()))) {
            // The answer's end tells the caller; this tells the server that the request has none.
            out.cancel();
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, UploadError>> {
        if let Some(piece) = self.kept.piece(self.taken) {
            self.taken += 1;
            return Poll::Ready(Ok(Some(piece.clone())));
        }
        while !self.source_over {
            // A body has at most one frame that is no data: its trailers.
            match ready!(Pin::new(&mut self.source).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // A gRPC request has no trailers; other frames are passed over.
                    if let Ok(piece) = frame.into_data() {
                        self.kept.push(&piece);
                        self.taken += 1;
                        return Poll::Ready(Ok(Some(piece)));
                    }
                }
                Some(Err(status)) => return Poll::Ready(Err(UploadError::Body(status))),
                None => self.source_over = true,
            }
        }
        Poll::Ready(Ok(None))
    }
}
