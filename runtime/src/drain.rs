//! The way out, the same for every server (DESIGN §4): NOT_SERVING and DRAINING; keep answering; GOAWAY; end watches;
//! finish streams until the deadline; gone.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::clock;
use crate::hooks::Step;
use crate::lifecycle::{Lifecycle, Stage};

/// How long everything is still answered after callers were told to go elsewhere: what is on its way to us when they
/// hear it, and callers who hear it late, still find us.
const LINGER: Duration = Duration::from_secs(2);
/// Longest wait for the GOAWAYs to be written before watches are ended anyway.
const GOAWAY_MAX: Duration = Duration::from_secs(1);
/// Longest time that [`Hooks::gone`](crate::Hooks::gone) may take, after the drain's own deadline if need be.
pub const GONE_MAX: Duration = Duration::from_secs(2);

/// The connections of the gRPC port, and the means to end them: softly, then not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections {
    tasks: TaskTracker,
    untold: TaskTracker,
    leaving: CancellationToken,
    no_more: CancellationToken,
    goaway: CancellationToken,
    cut: CancellationToken,
}

/// Held by a connection until its GOAWAY is written, or whatever says so in its protocol.
pub struct Untold {
    _token: TaskTrackerToken,
}

impl Connections {
    /// Cancelled when the drain begins: everything is still answered, and whoever can be told to come elsewhere the next
    /// time is told.
    pub(crate) fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Cancelled when no further connection is taken.
    pub(crate) fn no_more(&self) -> CancellationToken {
        self.no_more.clone()
    }

    /// Runs something that belongs to the port, until it ends or is cut.
    pub(crate) fn spawn<Fut>(&self, task: Fut) -> JoinHandle<Option<()>>
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(self.cut.clone().run_until_cancelled_owned(task))
    }

    /// For a new connection: the token that asks it to go, and what it drops when its GOAWAY is written.
    pub(crate) fn goodbye(&self) -> (CancellationToken, Untold) {
        (self.goaway.clone(), Untold { _token: self.untold.token() })
    }

    /// Cuts everything when it is dropped, so that nothing outlives the server whichever way that ends.
    pub(crate) fn guard(&self) -> (DropGuard, DropGuard) {
        (self.no_more.clone().drop_guard(), self.cut.clone().drop_guard())
    }

    /// Takes no more, and asks every connection to go. Returns when they all were told.
    async fn say_goodbye(&self) {
        self.no_more.cancel();
        self.goaway.cancel();
        self.untold.close();
        // A peer that does not read must not keep the others' watches open.
        let _ = timeout(GOAWAY_MAX, self.untold.wait()).await;
    }

    /// Waits until the last one has gone; cuts what is left at the deadline.
    async fn finish(&self, deadline: Instant) {
        self.tasks.close();
        if timeout_at(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "the drain's deadline has come: cutting what is left");
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

/// How long each part of the drain may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    linger: Duration,
    whole: Duration,
}

impl Plan {
    /// A drain that has cut everything after `whole`; half of that at the most is spent lingering.
    pub(crate) fn within(whole: Duration) -> Self {
        Self { linger: LINGER.min(whole / 2), whole }
    }

    /// Drains. Takes at most its time and [`GONE_MAX`], whatever peers and hooks do.
    pub(crate) async fn drain(
        self,
        lifecycle: &Lifecycle,
        connections: &Connections,
        watches: &CancellationToken,
        draining: Step,
        gone: Step,
    ) {
        let begun = clock::now();
        lifecycle.reach(Stage::Draining);
        connections.leaving.cancel();
        let telling = tokio::spawn(draining());
        sleep_until(begun + self.linger).await;

        connections.say_goodbye().await;
        lifecycle.reach(Stage::Ending);
        watches.cancel();
        connections.finish(begun + self.whole).await;
        telling.abort();

        if timeout(GONE_MAX, tokio::spawn(gone())).await.is_err() {
            tracing::warn!(waited_s = GONE_MAX.as_secs(), "could not say that this process is gone");
        }
        tracing::info!(took_s = (clock::now() - begun).as_secs_f64(), "drained");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Runs one drain of `whole` seconds with a connection that ignores every wish, and says what came when.
    async fn drained(whole: u64) -> Vec<(u128, &'static str)> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let begun = clock::now();
        let note = {
            let events = Arc::clone(&events);
            move |what| events.lock().unwrap().push(((clock::now() - begun).as_millis(), what))
        };
        let (lifecycle, connections, watches) =
            (Lifecycle::starting(), Connections::default(), CancellationToken::new());
        let (goaway, untold) = connections.goodbye();
        connections.spawn({
            let (note, watches, stages) = (note.clone(), watches.clone(), lifecycle.clone());
            async move {
                goaway.cancelled().await;
                assert_eq!(stages.stage(), Stage::Draining);
                note("goaway");
                drop(untold);
                watches.cancelled().await;
                note("watches end");
                struct Cut<F: Fn(&'static str)>(F);
                impl<F: Fn(&'static str)> Drop for Cut<F> {
                    fn drop(&mut self) {
                        (self.0)("cut");
                    }
                }
                let _cut = Cut(note);
                std::future::pending::<()>().await;
            }
        });
        let (draining, gone) = (note.clone(), note.clone());
        let draining: Step = Box::new(move || Box::pin(async move { draining("draining") }));
        let gone: Step = Box::new(move || {
            gone("gone");
            Box::pin(std::future::pending())
        });
        Plan::within(Duration::from_secs(whole)).drain(&lifecycle, &connections, &watches, draining, gone).await;
        note("ended");
        let events = events.lock().unwrap();
        events.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn the_steps_take_the_time_they_have_and_no_more() {
        let steps = |linger, cut, ended| {
            vec![
                (0, "draining"),
                (linger, "goaway"),
                (linger, "watches end"),
                (cut, "cut"),
                (cut, "gone"),
                (ended, "ended"),
            ]
        };
        assert_eq!(drained(30).await, steps(2_000, 30_000, 32_000));
        assert_eq!(drained(1).await, steps(500, 1_000, 3_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_no_goaway_does_not_keep_the_watches_open() {
        let (connections, watches) = (Connections::default(), CancellationToken::new());
        let (_goaway, _untold) = connections.goodbye();
        let idle = || -> Step { Box::new(|| Box::pin(async {})) };
        let begun = clock::now();
        let plan = Plan::within(Duration::from_secs(30));
        plan.drain(&Lifecycle::starting(), &connections, &watches, idle(), idle()).await;
        assert!(watches.is_cancelled());
        assert_eq!(clock::now() - begun, LINGER + GOAWAY_MAX);
    }
}
