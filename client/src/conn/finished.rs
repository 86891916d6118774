//! A stream that is over, until letting go of it costs nothing.

use h2::RecvStream;
use parking_lot::Mutex;

/// The stream of a connection that finished last.
///
/// When the last handle of a closed stream goes, h2 wakes the connection's task, since it might have been the last thing that
/// kept the connection open. Nearly always it was not, and the task is polled for nothing, a thousand instructions long.
/// Let go of right behind the next request, which has woken the task anyway, the handle costs nothing.
///
/// There is one place: where two streams finish between two requests, there is enough going on to keep the task awake. A
/// closed stream counts against no limit. But it does keep the connection open, so only what does so itself may share this:
/// the handle and its streams, not the task.
#[derive(Debug, Default)]
pub(super) struct Finished(Mutex<Option<RecvStream>>);

impl Finished {
    /// Keeps a stream that is over in both directions, and lets go of the one before.
    pub(super) fn keep(&self, stream: RecvStream) {
        // h2 takes a lock of its own for it, which is not to be waited for within this one.
        let before = self.0.lock().replace(stream);
        drop(before);
    }

    /// Lets go of the stream. To be called when a request has just been queued.
    pub(super) fn release(&self) {
        let stream = self.0.lock().take();
        drop(stream);
    }
}
