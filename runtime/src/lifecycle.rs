//! Where a server is in its life: one value that probes, health and the drain look at.

use tokio::sync::watch;

/// The stages, in order; none comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Bound and serving; the registry may not have heard of it yet.
    Starting,
    /// Serving, and known to others or done waiting for that.
    Ready,
    /// Still serving, and nobody should send anything new.
    Draining,
    /// No new streams; those that would never end by themselves end now.
    Ending,
}

/// The one writer's end and everybody's view of it.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle(watch::Sender<Stage>);

impl Lifecycle {
    pub(crate) fn starting() -> Self {
        Self(watch::Sender::new(Stage::Starting))
    }

    /// Goes on to `stage`, unless it is there or past it.
    pub(crate) fn reach(&self, stage: Stage) {
        self.0.send_if_modified(|current| {
            let later = *current < stage;
            if later {
                *current = stage;
            }
            later
        });
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.0.borrow()
    }

    /// Sees every later stage, the last one at the latest.
    pub(crate) fn follow(&self) -> watch::Receiver<Stage> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stage_comes_back() {
        let lifecycle = Lifecycle::starting();
        lifecycle.reach(Stage::Draining);
        lifecycle.reach(Stage::Ready);
        assert_eq!(lifecycle.stage(), Stage::Draining);
    }
}
