//! Where one watcher sits: pulled by the transport from one side, and taken away by the hub from the other.
//!
//! A transport whose far end takes nothing asks for nothing, so a watcher that has to go cannot be told by itself: the hub
//! looks at the bell of each, and takes the watcher out of the seat of one that rings unheard for too long. What the
//! watcher held is free then, whatever becomes of its connection.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::HeaderMap;
use http_body::Frame;
use mesh_api::encoded::Encoded;
use mesh_runtime::{Straight, clock};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};
use tonic::{Response, Status};

use super::framed::Framed;
use super::watcher::Watcher;
use crate::engine::Bell;

/// One watch stream, seen by the hub.
pub(super) struct Seat {
    bell: Arc<Bell>,
    sitting: Mutex<Sitting>,
    /// Messages taken.
    taken: AtomicU64,
    progress: Mutex<Progress>,
}

/// When the hub last saw that the watcher had taken something, or had nothing to take.
struct Progress {
    taken: u64,
    at: Instant,
}

/// Messages that stand ready are put together up to this length.
const GATHERED_BYTES: usize = 16 * 1024;

enum Sitting {
    Watcher(Box<Watcher>),
    /// Nobody any more; this is the last thing to be said.
    Nobody(Option<Status>),
}

impl Seat {
    pub(super) fn of(watcher: Watcher) -> Arc<Self> {
        Arc::new(Self {
            bell: watcher.bell(),
            sitting: Mutex::new(Sitting::Watcher(Box::new(watcher))),
            taken: AtomicU64::new(0),
            progress: Mutex::new(Progress { taken: 0, at: clock::now() }),
        })
    }

    /// For how long something has waited for the watcher that it did not take.
    pub(super) fn stalled(&self, now: Instant) -> Duration {
        let taken = self.taken.load(Ordering::Relaxed);
        let mut progress = self.progress.lock();
        match self.bell.unheard_since() {
            Some(since) if taken == progress.taken => now.saturating_duration_since(since.max(progress.at)),
            _ => {
                *progress = Progress { taken, at: now };
                Duration::ZERO
            }
        }
    }

    /// Takes the watcher away; its stream ends with this status, or plainly. Whether it was still there.
    pub(super) fn vacate(&self, last: Option<Status>) -> bool {
        let mut sitting = self.sitting.lock();
        let was_there = matches!(*sitting, Sitting::Watcher(_));
        if was_there {
            let gone = std::mem::replace(&mut *sitting, Sitting::Nobody(last));
            drop(sitting);
            drop(gone);
            // Who is asleep in its transport reads the end now.
            self.bell.ring();
        }
        was_there
    }

    /// The next message, and whether there is another one.
    fn pull(&self, context: &mut Context<'_>) -> Poll<Option<Result<(Framed, bool), Status>>> {
        let mut sitting = self.sitting.lock();
        let (pulled, ended) = match &mut *sitting {
            Sitting::Nobody(last) => return Poll::Ready(last.take().map(Err)),
            Sitting::Watcher(watcher) => match watcher.pull(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => {
                    // Written under the lock alone.
                    self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    return Poll::Ready(Some(Ok((message, watcher.has_more()))));
                }
                Poll::Ready(Some(Err(status))) => (Poll::Ready(Some(Err(status))), Sitting::Nobody(None)),
                Poll::Ready(None) => (Poll::Ready(None), Sitting::Nobody(None)),
            },
        };
        let gone = std::mem::replace(&mut *sitting, ended);
        drop(sitting);
        drop(gone);
        pulled
    }
}

/// The answers that the transport pulls: dropping them is how a watcher hangs up.
pub(crate) struct Pull {
    pub(super) seat: Arc<Seat>,
}

impl Pull {
    /// The answer to a call: a stream of messages, and beside it, for the server that knows about it, a body that is framed
    /// already. Whichever is taken, the other one is dropped, and the watcher sits until both are.
    pub(crate) fn response(self) -> Response<Self> {
        let body = Body { seat: Arc::clone(&self.seat), pieces: VecDeque::new(), end: None };
        let mut response = Response::new(self);
        response.extensions_mut().insert(Straight::new(body));
        response
    }
}

impl Stream for Pull {
    type Item = Result<Encoded, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let pulled = ready!(self.seat.pull(context));
        Poll::Ready(pulled.map(|pulled| pulled.map(|(message, _)| message.unframed())))
    }
}

/// The answers as bytes.
struct Body {
    seat: Arc<Seat>,
    /// What is pulled and not taken: two messages at most, of two pieces each.
    pieces: VecDeque<Bytes>,
    /// What ends it; `None` while it goes on.
    end: Option<End>,
}

/// How a body ends.
enum End {
    /// By this status, which is still to be said.
    Saying(Status),
    Said,
}

impl Body {
    /// A message with those that stand ready behind it, as long as they are short: a caller that begins to follow a thousand
    /// services is told of all of them.
    fn gather(&mut self, first: Framed, context: &mut Context<'_>) -> Bytes {
        let [first, rest] = first.into_pieces();
        if !rest.is_empty() || first.len() >= GATHERED_BYTES {
            self.pieces.push_back(rest);
            return first;
        }
        let mut gathered = BytesMut::with_capacity(2 * first.len());
        gathered.extend_from_slice(&first);
        while let Poll::Ready(pulled) = self.seat.pull(context) {
            match pulled {
                Some(Ok((message, more))) => {
                    let long = gathered.len() + message.len() > GATHERED_BYTES;
                    let pieces = message.into_pieces();
                    if long {
                        self.pieces.extend(pieces);
                    } else {
                        pieces.iter().for_each(|piece| gathered.extend_from_slice(piece));
                    }
                    if long || !more {
                        break;
                    }
                }
                ended => {
                    self.end = Some(End::of(ended.and_then(Result::err)));
                    break;
                }
            }
        }
        gathered.freeze()
    }
}

impl End {
    fn of(last: Option<Status>) -> Self {
        Self::Saying(last.unwrap_or_else(|| Status::ok("")))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        while let Some(piece) = this.pieces.pop_front() {
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
        if this.end.is_none() {
            match ready!(this.seat.pull(context)) {
                Some(Ok((message, true))) => {
                    return Poll::Ready(Some(Ok(Frame::data(this.gather(message, context)))));
                }
                Some(Ok((message, false))) => {
                    let [first, rest] = message.into_pieces();
                    if !rest.is_empty() {
                        this.pieces.push_back(rest);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(first))));
                }
                ended => this.end = Some(End::of(ended.and_then(Result::err))),
            }
        }
        match this.end.replace(End::Said) {
            Some(End::Saying(status)) => {
                let mut trailers = HeaderMap::new();
                Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
            }
            _ => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, Some(End::Said))
    }
}
