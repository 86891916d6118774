//! How much load retries may add, per target.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::Stamp;

/// Over how many seconds calls and retries are counted.
const WINDOW_S: u64 = 10;
/// A retry for every so many calls: 20 %, Finagle's and Envoy's default.
const CALLS_PER_RETRY: u64 = 5;
/// Retries that are always granted within the window: 3 a second, so that a quiet channel survives a lost connection.
const RESERVE: u64 = 3 * WINDOW_S;

/// Grants retries up to max(20 % of the calls of the last ten seconds, 30 in those ten seconds).
///
/// Lock-free: one slot a second. Two threads that turn a slot over at the same moment may lose a few counts of it; a grant
/// is counted before it is compared, so a race denies a retry rather than granting one too many.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    slots: [Slot; WINDOW_S as usize],
}

#[derive(Debug, Default)]
struct Slot {
    second: AtomicU64,
    calls: AtomicU32,
    retries: AtomicU32,
}

impl RetryBudget {
    /// Counts a call, not its repetitions.
    pub(crate) fn deposit(&self, now: Stamp) {
        self.slot(second(now)).calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry, if one is left.
    pub(crate) fn withdraw(&self, now: Stamp) -> bool {
        let second = second(now);
        let slot = self.slot(second);
        slot.retries.fetch_add(1, Ordering::Relaxed);

        let (mut calls, mut retries) = (0_u64, 0_u64);
        let current = |slot: &&Slot| slot.second.load(Ordering::Relaxed) + WINDOW_S > second;
        for slot in self.slots.iter().filter(current) {
            calls += u64::from(slot.calls.load(Ordering::Relaxed));
            retries += u64::from(slot.retries.load(Ordering::Relaxed));
        }
        let granted = retries <= RESERVE.max(calls / CALLS_PER_RETRY);
        if !granted {
            slot.give_back();
        }
        granted
    }

    /// Puts back a retry that was not made, while its moment is not long gone.
    pub(crate) fn give_back(&self, now: Stamp) {
        self.slot(second(now)).give_back();
    }

    fn slot(&self, second: u64) -> &Slot {
        let slot = &self.slots[(second % WINDOW_S) as usize];
        let held = slot.second.load(Ordering::Relaxed);
        let turned = || slot.second.compare_exchange(held, second, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if held < second && turned() {
            slot.calls.store(0, Ordering::Relaxed);
            slot.retries.store(0, Ordering::Relaxed);
        }
        slot
    }
}

impl Slot {
    /// The slot may have been turned over since: then there is nothing to take back.
    fn give_back(&self) {
        let less = |retries: u32| retries.checked_sub(1);
        let _ = self.retries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// Whole seconds since the target's birth.
fn second(now: Stamp) -> u64 {
    now.nanos() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn granted(budget: &RetryBudget, now: Stamp) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn a_quiet_channel_may_retry_thirty_times_in_ten_seconds() {
        let origin = clock::now();
        let (now, budget) = (Stamp::new(origin, origin), RetryBudget::default());
        assert_eq!(granted(&budget, now), 30);
        assert_eq!(granted(&budget, now.after(Duration::from_secs(9))), 0);
        assert_eq!(granted(&budget, now.after(Duration::from_secs(10))), 30);
    }

    /// The turn of a slot between a retry's count and its return.
    #[test]
    fn what_is_given_back_to_a_slot_that_was_turned_over_is_nothing() {
        let origin = clock::now();
        let (now, budget) = (Stamp::new(origin, origin), RetryBudget::default());
        budget.slots[0].give_back();
        assert_eq!(granted(&budget, now), 30);
    }

    #[test]
    fn a_busy_channel_may_retry_a_fifth_of_its_calls() {
        let origin = clock::now();
        let (now, budget) = (Stamp::new(origin, origin), RetryBudget::default());
        for call in 0..1000 {
            budget.deposit(now.after(Duration::from_millis(call * 9)));
        }
        assert_eq!(granted(&budget, now.after(Duration::from_secs(9))), 200);
        // The calls of the first second have left the window, and the retries were all made in the last one.
        assert_eq!(granted(&budget, now.after(Duration::from_secs(10))), 0);
        assert_eq!(granted(&budget, now.after(Duration::from_secs(60))), 30);
    }
}
