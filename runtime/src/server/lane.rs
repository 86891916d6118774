//! Calls that wait in line, so that a storm of them does not stand before everybody else's in the runtime's queue.
//!
//! A call is a task, and tasks run in the order in which they became ready: ten thousand reads that came at once would run
//! before the one heartbeat that came after them. Of a lane's calls only so many run at once; the others sleep in the line,
//! and so many of them are let go each time the runtime has had a look at what else is ready.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::clock;

/// Most calls that wait in line. Far more than callers that wait for their answers have in flight.
const LINE_MAX: usize = 16_384;

/// Calls that come within this time come at once. Long enough for what a few calls cost, and far too short for anybody to
/// be late for it.
const AT_ONCE: Duration = Duration::from_millis(1);

/// The methods that share a lane, and its line. Without methods nobody waits.
#[derive(Debug, Clone)]
pub(super) struct Lane(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    paths: Vec<String>,
    at_once: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many went by since then without waiting.
    passed: usize,
    since: Instant,
    /// At most [`LINE_MAX`]; whoever is not there any more is passed over when its turn comes.
    line: VecDeque<oneshot::Sender<()>>,
}

/// The line is as long as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// Where a call stands.
#[derive(Debug)]
pub(super) enum Turn {
    /// It may run.
    Now,
    /// It waits in line.
    Later(oneshot::Receiver<()>),
}

impl Default for Lane {
    fn default() -> Self {
        Self::new(Vec::new(), 1)
    }
}

impl Lane {
    /// A lane of these paths, of whose calls `at_once` run at once.
    pub(super) fn new(paths: Vec<String>, at_once: usize) -> Self {
        let state = State { passed: 0, since: clock::now(), line: VecDeque::new() };
        Self(Arc::new(Shared { paths, at_once: at_once.max(1), state: Mutex::new(state) }))
    }

    /// The turn of a call that has just come.
    pub(super) fn enter(&self, path: &str) -> Result<Turn, Full> {
        if !self.0.paths.iter().any(|of| of == path) {
            return Ok(Turn::Now);
        }
        let mut state = self.0.state();
        if state.line.is_empty() {
            if state.passed >= self.0.at_once {
                // The clock is read once for so many calls.
                let now = clock::now();
                if now - state.since >= AT_ONCE {
                    (state.passed, state.since) = (0, now);
                }
            }
            if state.passed < self.0.at_once {
                state.passed += 1;
                return Ok(Turn::Now);
            }
            let lane = Arc::clone(&self.0);
            tokio::spawn(async move { lane.let_go().await });
        }
        if state.line.len() >= LINE_MAX {
            return Err(Full);
        }
        let (go, turn) = oneshot::channel();
        state.line.push_back(go);
        Ok(Turn::Later(turn))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the line go, so many at a time. There is one such task while there is a line, and it ends with it.
    async fn let_go(&self) {
        loop {
            // Comes back once the runtime has looked at its timers, its sockets and whoever is ready by then.
            yield_now().await;
            let mut state = self.state();
            let mut gone = 0;
            while gone < self.at_once {
                let Some(go) = state.line.pop_front() else { break };
                gone += usize::from(go.send(()).is_ok());
            }
            if state.line.is_empty() {
                (state.passed, state.since) = (gone, clock::now());
                return;
            }
        }
    }
}

impl Turn {
    /// Ready when it is this call's turn.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Later(turn) = self {
            // The other end goes only by a panic in the line's task; then nobody is to wait for ever.
            let _ = ready!(std::pin::Pin::new(turn).poll(cx));
            *self = Self::Now;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use super::*;

    const READ: &str = "/test.v1.Probe/Read";

    fn may_run(turn: &mut Turn) -> bool {
        turn.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_run_at_once_and_the_others_in_the_order_of_arrival() {
        let lane = Lane::new(vec![READ.to_owned()], 2);
        let mut turns: Vec<Turn> = (0..6).map(|_| lane.enter(READ).expect("room")).collect();
        assert!(may_run(&mut lane.enter("/test.v1.Probe/Beat").expect("it has no lane")));
        let running = |turns: &mut Vec<Turn>| turns.iter_mut().map(may_run).collect::<Vec<_>>();
        assert_eq!(running(&mut turns), [true, true, false, false, false, false]);
        poll_fn(|cx| turns[2].poll(cx)).await;
        assert_eq!(running(&mut turns), [true, true, true, true, false, false]);
        // Who has gone takes nobody's turn.
        drop(turns.remove(4));
        poll_fn(|cx| turns[4].poll(cx)).await;
        yield_now().await;
        assert!(lane.0.state().line.is_empty());
        assert!(matches!(lane.enter(READ), Ok(Turn::Now)), "one of two went last");
        assert!(matches!(lane.enter(READ), Ok(Turn::Later(_))), "and that was the other");
        tokio::time::sleep(2 * AT_ONCE).await;
        assert!(matches!(lane.enter(READ), Ok(Turn::Now)), "a moment later they are two again");
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_bounded() {
        let lane = Lane::new(vec![READ.to_owned()], 1);
        let _held: Vec<Turn> = (0..=LINE_MAX).map(|_| lane.enter(READ).expect("room")).collect();
        assert_eq!(lane.enter(READ).err(), Some(Full));
    }
}
