//! The way out, the same for every server (DESIGN §4): NOT_SERVING and DRAINING; keep answering; GOAWAY; end watches;
//! finish streams until the deadline; gone.

use std::time::Duration;

use tokio::time::{sleep_until, timeout, timeout_at};
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
    no_more: CancellationToken,
    goaway: CancellationToken,
    cut: CancellationToken,
}

/// Held by a connection until its GOAWAY is written.
pub(crate) struct Untold {
    _token: TaskTrackerToken,
}

impl Connections {
    /// Cancelled when no further connection is taken.
    pub(crate) fn no_more(&self) -> CancellationToken {
        self.no_more.clone()
    }

    /// Runs something that belongs to the port, until it ends or is cut.
    pub(crate) fn spawn<Fut>(&self, task: Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(self.cut.clone().run_until_cancelled_owned(task));
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
    async fn finish(&self, deadline: tokio::time::Instant) {
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
        tracing::info!(took_ms = (clock::now() - begun).as_millis(), "drained");
    }
}
