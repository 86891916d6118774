//! What a connection's handle has its driver do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::Waker;

/// Shared by the handle and the driver. Two flags and not a channel: the driver looks with every byte that moves, and finds
/// nothing nearly always.
#[derive(Debug, Default)]
pub(super) struct Orders {
    probe: AtomicBool,
    release: AtomicBool,
    /// The driver is a task by itself from its first poll to its last, so its waker stays the same.
    driver: OnceLock<Waker>,
}

impl Orders {
    /// Send a PING. One that is under way answers for all that are asked for meanwhile.
    pub(super) fn probe(&self) {
        self.probe.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// No more calls will be made. That the last handle is gone would not by itself wake a parked connection.
    pub(super) fn release(&self) {
        self.release.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Has whatever is ordered from now on wake the driver. Called before looking.
    pub(super) fn listen(&self, driver: &Waker) {
        if self.driver.get().is_none() {
            // Nobody else sets it.
            let _ = self.driver.set(driver.clone());
            fence(Ordering::SeqCst);
        }
    }

    fn wake(&self) {
        // Before the first poll there is nobody to wake, and that poll will look: of the two fences one is first, so the flag is
        // seen there or the driver is seen here.
        fence(Ordering::SeqCst);
        if let Some(driver) = self.driver.get() {
            driver.wake_by_ref();
        }
    }

    /// Whether a PING is wanted; takes the order.
    pub(super) fn take_probe(&self) -> bool {
        // A look first: it does not write to a line that is shared with the handle.
        self.probe.load(Ordering::Relaxed) && self.probe.swap(false, Ordering::Relaxed)
    }

    pub(super) fn is_released(&self) -> bool {
        self.release.load(Ordering::Relaxed)
    }
}
