//! Calls that wait for an endpoint.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// The waiting calls of one target: bounded, and told in the order they came that it is worth looking for a place.
///
/// Nothing is told to nobody. A call takes its [`Ticket`] and falls asleep ([`Ticket::rest`]) before it looks for a place once
/// more; whoever frees a place frees it first and then looks for tickets. These are sequentially consistent, or under the
/// lock, so at least one of the two sees the other. A call that is dropped after it was told passes it on.
///
/// Nobody is overtaken. A call that looked in vain keeps its number. One that comes while another has been told and has not
/// looked yet ([`WaitQueue::is_owed`]) takes a ticket first.
#[derive(Debug)]
pub(crate) struct WaitQueue {
    /// Tickets there are.
    waiting: AtomicUsize,
    /// Times that a ticket was told, and has not looked since.
    owed: AtomicUsize,
    sleepers: Mutex<Sleepers>,
    max: usize,
}

/// Tickets that were not told since they last looked, by number. No more than there are tickets.
#[derive(Debug, Default)]
struct Sleepers {
    next: u64,
    asleep: BTreeMap<u64, Option<Waker>>,
}

/// As many calls wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// One call's place in the queue.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    queue: &'a WaitQueue,
    number: u64,
    /// It was told, and has not said yet that it has looked.
    looks: bool,
}

impl WaitQueue {
    pub(super) fn new(max: usize) -> Self {
        Self { waiting: AtomicUsize::new(0), owed: AtomicUsize::new(0), sleepers: Mutex::default(), max }
    }

    /// Takes a ticket, asleep.
    pub(crate) fn join(&self) -> Result<Ticket<'_>, Full> {
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= self.max {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(Full);
        }
        let mut sleepers = self.sleepers.lock();
        let number = sleepers.next;
        sleepers.next += 1;
        sleepers.asleep.insert(number, None);
        Ok(Ticket { queue: self, number, looks: false })
    }

    /// Whether somebody who waits is about to look for the place that is free.
    #[inline]
    pub(crate) fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Relaxed) > 0
    }

    /// One place is free.
    #[inline]
    pub(super) fn wake_one(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.tell_first();
        }
    }

    #[cold]
    fn tell_first(&self) {
        let first = {
            let mut sleepers = self.sleepers.lock();
            let first = sleepers.asleep.pop_first();
            self.owed.fetch_add(usize::from(first.is_some()), Ordering::Relaxed);
            first
        };
        if let Some((_, Some(waker))) = first {
            waker.wake();
        }
    }

    /// Everything may be different.
    pub(super) fn wake_all(&self) {
        let all = {
            let mut sleepers = self.sleepers.lock();
            self.owed.fetch_add(sleepers.asleep.len(), Ordering::Relaxed);
            std::mem::take(&mut sleepers.asleep)
        };
        all.into_values().flatten().for_each(Waker::wake);
    }

    /// How many calls wait now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl Ticket<'_> {
    /// Falls asleep again, to look once more; the number is kept.
    pub(crate) fn rest(&mut self) {
        let was_told = self.queue.sleepers.lock().asleep.insert(self.number, None).is_none();
        if was_told && std::mem::replace(&mut self.looks, true) {
            // Told twice for one look.
            self.queue.owed.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// It has looked in vain.
    pub(crate) fn has_looked(&mut self) {
        if std::mem::take(&mut self.looks) {
            self.queue.owed.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Ready once it is worth looking again.
    pub(crate) async fn told(&self) {
        poll_fn(|cx| self.poll_told(cx)).await;
    }

    fn poll_told(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.queue.sleepers.lock().asleep.get_mut(&self.number) {
            None => Poll::Ready(()),
            Some(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.has_looked();
        self.queue.waiting.fetch_sub(1, Ordering::SeqCst);
        let was_asleep = self.queue.sleepers.lock().asleep.remove(&self.number).is_some();
        if !was_asleep {
            self.queue.owed.fetch_sub(1, Ordering::Relaxed);
            self.queue.wake_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_told(ticket: &Ticket<'_>) -> bool {
        ticket.told().now_or_never().is_some()
    }

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

    #[test]
    fn whoever_looked_in_vain_keeps_its_turn() {
        let queue = WaitQueue::new(2);
        let (mut first, second) = (queue.join().unwrap(), queue.join().unwrap());
        for _ in 0..3 {
            queue.wake_one();
            assert!(is_told(&first) && !is_told(&second) && queue.is_owed());
            first.rest();
            assert!(queue.is_owed(), "it has not looked yet");
            first.has_looked();
            assert!(!queue.is_owed() && !is_told(&first));
        }
    }

    #[test]
    fn what_a_call_was_told_and_has_no_use_for_is_passed_on() {
        let queue = WaitQueue::new(3);
        let (first, mut second, third) = (queue.join().unwrap(), queue.join().unwrap(), queue.join().unwrap());
        queue.wake_one();
        drop(first);
        assert!(is_told(&second) && !is_told(&third));
        second.rest();
        // Told again while it looks: there are two places, and it takes one of them.
        queue.wake_one();
        drop(second);
        assert!(is_told(&third));
        drop(third);
        assert_eq!((queue.waiting(), queue.is_owed()), (0, false));
    }

    #[test]
    fn everybody_is_told_and_owed_one_look() {
        let queue = WaitQueue::new(3);
        let mut tickets = [queue.join().unwrap(), queue.join().unwrap(), queue.join().unwrap()];
        queue.wake_all();
        queue.wake_one();
        for ticket in &mut tickets {
            assert!(queue.is_owed() && is_told(ticket));
            ticket.rest();
            ticket.has_looked();
        }
        assert!(!queue.is_owed() && !tickets.iter().any(is_told));
    }
}
