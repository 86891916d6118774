//! The messages on their way to one watcher, bounded in bytes.
//!
//! The feeding side asks for room before it works out the next message, so what waits is at most the budget and one
//! message more. What does not fit is not queued elsewhere: it stays the difference between what was sent and what is
//! true, and shrinks to the latest state while the watcher is busy.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use mesh_api::registry::v1::WatchResponse;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tonic::Status;

use super::message::Message;

/// Bytes in the queue beyond which a watcher is fed no more.
pub(super) const QUEUE_BYTES_MAX: usize = 64 * 1024;

/// The two ends of a new, empty queue.
pub(super) fn queue() -> (Feed, Drain) {
    let shared = Arc::new(Shared { state: Mutex::default(), room: Notify::new() });
    (Feed { shared: Arc::clone(&shared) }, Drain { shared })
}

struct Shared {
    state: Mutex<State>,
    /// Rings when there is room again, and when the watcher went away.
    room: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
    /// Messages the watcher took since the start.
    taken: u64,
    reader: Option<Waker>,
    end: End,
}

/// How far the queue is from its end.
#[derive(Default)]
enum End {
    #[default]
    Open,
    /// Nothing follows what waits but this status; `None` is a plain end.
    Fed(Option<Status>),
    /// The watcher hung up.
    Gone,
}

/// The feeding end; dropping it ends the stream after what waits.
pub(super) struct Feed {
    shared: Arc<Shared>,
}

/// What the feeding end sees of the watcher's appetite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Bytes that wait.
    pub(super) bytes: usize,
    /// Messages taken so far; a change is progress.
    pub(super) taken: u64,
}

impl Backlog {
    pub(super) fn has_room(self) -> bool {
        self.bytes < QUEUE_BYTES_MAX
    }

    pub(super) fn is_empty(self) -> bool {
        self.bytes == 0
    }
}

impl Feed {
    pub(super) fn backlog(&self) -> Backlog {
        let state = self.shared.state.lock();
        Backlog { bytes: state.waiting_bytes, taken: state.taken }
    }

    /// Queues a message; the caller has seen room.
    pub(super) fn push(&self, message: Message) {
        let mut state = self.shared.state.lock();
        if matches!(state.end, End::Open) {
            state.waiting_bytes += message.bytes();
            state.waiting.push_back(message);
            wake(state);
        }
    }

    /// Ends the stream with a status. What waits is dropped: whoever is cut was not reading it.
    pub(super) fn cut(&self, status: Status) {
        let mut state = self.shared.state.lock();
        if matches!(state.end, End::Open) {
            state.waiting.clear();
            state.waiting_bytes = 0;
            state.end = End::Fed(Some(status));
            wake(state);
        }
    }

    /// Resolves when there is room again after there was none, or the watcher hung up.
    pub(super) async fn room(&self) {
        self.shared.room.notified().await;
    }

    pub(super) fn is_abandoned(&self) -> bool {
        matches!(self.shared.state.lock().end, End::Gone)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if matches!(state.end, End::Open) {
            state.end = End::Fed(None);
            wake(state);
        }
    }
}

/// The watcher's end: the response stream that the transport pulls.
pub(crate) struct Drain {
    shared: Arc<Shared>,
}

impl Stream for Drain {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.shared.state.lock();
        if let Some(message) = state.waiting.pop_front() {
            let was_full = state.waiting_bytes >= QUEUE_BYTES_MAX;
            state.waiting_bytes -= message.bytes();
            state.taken += 1;
            let room = was_full && state.waiting_bytes < QUEUE_BYTES_MAX;
            drop(state);
            if room {
                self.shared.room.notify_one();
            }
            return Poll::Ready(Some(Ok(message.into_response())));
        }
        match &mut state.end {
            End::Fed(status) => Poll::Ready(status.take().map(Err)),
            End::Open | End::Gone => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.end = End::Gone;
        state.waiting.clear();
        state.waiting_bytes = 0;
        drop(state);
        self.shared.room.notify_one();
    }
}

/// Wakes the reader after the lock is free.
fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use mesh_api::registry::v1::{Bookmark, watch_response};

    use super::*;

    fn message() -> Message {
        let event = watch_response::Event::Bookmark(Bookmark::default());
        Message::new(WatchResponse { event: Some(event), service: "s".repeat(100), ..WatchResponse::default() })
    }

    #[test]
    fn room_ends_at_the_budget_and_returns_when_the_watcher_takes() {
        let (feed, mut drain) = queue();
        // As many as fit, and no more than would fill it twice over: a queue without a bound fails here and not in memory.
        for _ in 0..=2 * QUEUE_BYTES_MAX / message().bytes() {
            if feed.backlog().has_room() {
                feed.push(message());
            }
        }
        let full = feed.backlog();
        assert!(full.bytes >= QUEUE_BYTES_MAX && full.bytes < QUEUE_BYTES_MAX + message().bytes());

        assert!(feed.room().now_or_never().is_none());
        assert!(drain.next().now_or_never().flatten().is_some());
        assert!(feed.room().now_or_never().is_some());
        assert!(feed.backlog().has_room());
        assert_eq!(feed.backlog().taken, 1);
    }

    #[test]
    fn dropping_the_feed_ends_the_stream_after_what_waits() {
        let (feed, mut drain) = queue();
        feed.push(message());
        drop(feed);
        assert!(drain.next().now_or_never().flatten().is_some());
        assert!(drain.next().now_or_never().expect("the stream has ended").is_none());
    }

    #[test]
    fn a_cut_stream_ends_with_its_status_at_once() {
        let (feed, mut drain) = queue();
        feed.push(message());
        feed.cut(Status::resource_exhausted("slow"));
        drop(feed);
        let last = drain.next().now_or_never().flatten().expect("a status");
        assert_eq!(last.expect_err("cut").code(), tonic::Code::ResourceExhausted);
        assert!(drain.next().now_or_never().expect("the stream has ended").is_none());
    }

    #[test]
    fn a_watcher_that_hangs_up_is_noticed_and_costs_nothing_more() {
        let (feed, drain) = queue();
        feed.push(message());
        drop(drain);
        assert!(feed.room().now_or_never().is_some());
        assert!(feed.is_abandoned());
        feed.push(message());
        assert!(feed.backlog().is_empty());
    }
}
