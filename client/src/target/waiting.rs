//! Calls that wait for an endpoint.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The waiting calls of one target: bounded, woken in the order they came.
///
/// No wake-up is lost. A call takes its [`Ticket`] and registers ([`WaitQueue::notified`], enabled) before it looks for a
/// place once more; whoever frees a place frees it first and then looks for tickets. All of these are sequentially
/// consistent, so at least one of the two sees the other. A call that is dropped after it was woken passes the wake-up on.
#[derive(Debug)]
pub(crate) struct WaitQueue {
    notify: Notify,
    waiting: AtomicUsize,
    max: usize,
}

/// As many calls wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// One call's place in the queue.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    queue: &'a WaitQueue,
}

impl WaitQueue {
    pub(super) fn new(max: usize) -> Self {
        Self { notify: Notify::new(), waiting: AtomicUsize::new(0), max }
    }

    pub(crate) fn join(&self) -> Result<Ticket<'_>, Full> {
        let ticket = Ticket { queue: self };
        if self.waiting.fetch_add(1, Ordering::SeqCst) < self.max { Ok(ticket) } else { Err(Full) }
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        self.notify.notified()
    }

    /// One place is free.
    pub(super) fn wake_one(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.notify.notify_one();
        }
    }

    /// Everything may be different.
    pub(super) fn wake_all(&self) {
        self.notify.notify_waiters();
    }

    /// How many calls wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_too_many_is_turned_away_and_leaves_no_trace() {
        let queue = WaitQueue::new(2);
        let first = queue.join().unwrap();
        let _second = queue.join().unwrap();
        assert_eq!(queue.join().unwrap_err(), Full);
        assert_eq!(queue.waiting(), 2);
        drop(first);
        assert!(queue.join().is_ok());
    }
}
