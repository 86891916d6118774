//! One timer for a call: taken from those that earlier calls are done with, and given back.
//!
//! Nearly every call with a deadline is answered long before it. Making a timer for each, putting it among the others and
//! taking it out again costs about as much as the pick; a timer that is there already, and set for earlier, is only told
//! a later time.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep, sleep_until};

/// Timers that one thread keeps. Until its old time comes, or it is used again, each holds what is left of the task that
/// waited for it last.
const SPARE_MAX: usize = 64;

thread_local! {
    /// The timers that this thread has to spare, all of one runtime: a timer is of no use to another one. Ids of runtimes
    /// are counted up, so that one that is gone is not taken for a new one.
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { runtime: None, timers: Vec::new() }) };
}

struct Spare {
    runtime: Option<Id>,
    timers: Vec<Pin<Box<Sleep>>>,
}

/// A timer, taken when somebody first has to wait.
#[derive(Default)]
pub(crate) struct Alarm {
    timer: Option<Timer>,
}

struct Timer {
    runtime: Id,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    /// Ready once `at` has passed.
    pub(crate) fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = &mut self.timer.get_or_insert_with(|| Timer::take(at)).sleep;
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.give_back();
        }
    }
}

impl Timer {
    /// One that somebody has given back, or else a new one.
    fn take(at: Instant) -> Self {
        let runtime = Handle::current().id();
        let spare = with_spare(|spare| if spare.runtime == Some(runtime) { spare.timers.pop() } else { None });
        Self { runtime, sleep: spare.flatten().unwrap_or_else(|| Box::pin(sleep_until(at))) }
    }

    fn give_back(self) {
        let Self { runtime, sleep } = self;
        // What is not kept is freed outside: a timer may hold the last of a task, whose end may be that of another call.
        let _freed = with_spare(|spare| {
            let strangers = if spare.runtime == Some(runtime) { Vec::new() } else { std::mem::take(&mut spare.timers) };
            spare.runtime = Some(runtime);
            if spare.timers.len() < SPARE_MAX {
                spare.timers.push(sleep);
                return (strangers, None);
            }
            (strangers, Some(sleep))
        });
    }
}

/// `None` when the thread is ending, or in the middle of this already.
fn with_spare<T>(work: impl FnOnce(&mut Spare) -> T) -> Option<T> {
    SPARE.try_with(|spare| spare.try_borrow_mut().ok().map(|mut spare| work(&mut spare))).ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn spare() -> usize {
        with_spare(|spare| spare.timers.len()).unwrap()
    }

    /// Takes a timer that has not rung.
    fn waiting(pause: Duration) -> Alarm {
        let mut alarm = Alarm::default();
        assert!(alarm.poll(clock::now() + pause, &mut Context::from_waker(Waker::noop())).is_pending());
        alarm
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_given_back_rings_at_its_new_time() {
        for (former, latter) in [(1, 2), (3_600, 1), (1, 1)] {
            drop(waiting(Duration::from_secs(former)));
            assert_eq!(spare(), 1);
            let (begun, mut alarm) = (clock::now(), Alarm::default());
            poll_fn(|cx| alarm.poll(begun + Duration::from_secs(latter), cx)).await;
            assert_eq!((spare(), clock::now() - begun), (0, Duration::from_secs(latter)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_has_rung_in_its_rest_serves_again() {
        drop(waiting(Duration::from_secs(1)));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (begun, mut alarm) = (clock::now(), Alarm::default());
        poll_fn(|cx| alarm.poll(begun + Duration::from_millis(10), cx)).await;
        assert_eq!(clock::now() - begun, Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_kept_than_may_be() {
        let many: Vec<Alarm> = (0..2 * SPARE_MAX).map(|_| waiting(Duration::from_secs(1))).collect();
        drop(many);
        assert_eq!(spare(), SPARE_MAX);
    }

    #[test]
    fn a_timer_is_not_carried_from_one_runtime_to_another() {
        let run = || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let (begun, mut alarm) = (clock::now(), Alarm::default());
                poll_fn(|cx| alarm.poll(begun + Duration::from_secs(1), cx)).await;
            });
        };
        run();
        run();
        assert_eq!(spare(), 1);
    }
}
