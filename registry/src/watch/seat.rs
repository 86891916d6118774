//! Where one watcher sits: pulled by the transport from one side, and taken away by the hub from the other.
//!
//! A transport whose far end takes nothing asks for nothing, so a watcher that has to go cannot be told by itself: the hub
//! looks at the bell of each, and takes the watcher out of the seat of one that rings unheard for too long. What the
//! watcher held is free then, whatever becomes of its connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::Stream;
use mesh_api::encoded::Encoded;
use mesh_runtime::clock;
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};
use tonic::Status;

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

    fn pull(&self, context: &mut Context<'_>) -> Poll<Option<Result<Encoded, Status>>> {
        let mut sitting = self.sitting.lock();
        let (pulled, ended) = match &mut *sitting {
            Sitting::Nobody(last) => return Poll::Ready(last.take().map(Err)),
            Sitting::Watcher(watcher) => match watcher.pull(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    return Poll::Ready(Some(Ok(message)));
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

/// The response stream that the transport pulls; dropping it is how a watcher hangs up.
pub(crate) struct Pull {
    pub(super) seat: Arc<Seat>,
}

impl Stream for Pull {
    type Item = Result<Encoded, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.seat.pull(context)
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        self.seat.vacate(None);
    }
}
