//! What time it is, as logins are told it: in a test it stands still until the test moves it.

use std::time::SystemTime;

#[cfg(not(test))]
use mesh_runtime::clock;
use tokio::time::Instant;

/// The clock of one instance; in a test, of as many as share it.
#[cfg(not(test))]
#[derive(Clone, Debug)]
pub(crate) struct Clock;

#[cfg(not(test))]
impl Clock {
    pub(crate) fn start() -> Self {
        Self
    }

    /// For measuring.
    pub(crate) fn now(&self) -> Instant {
        clock::now()
    }

    /// For what is stored and signed.
    pub(crate) fn wall(&self) -> SystemTime {
        clock::wall()
    }
}

#[cfg(test)]
pub(crate) use standing::Clock;

#[cfg(test)]
mod standing {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use mesh_runtime::clock;

    use super::{Instant, SystemTime};

    #[derive(Clone, Debug)]
    pub(crate) struct Clock {
        begun: (Instant, SystemTime),
        ahead_ms: Arc<AtomicU64>,
    }

    impl Clock {
        pub(crate) fn start() -> Self {
            Self { begun: (clock::now(), clock::wall()), ahead_ms: Arc::default() }
        }

        pub(crate) fn now(&self) -> Instant {
            self.begun.0 + self.ahead()
        }

        pub(crate) fn wall(&self) -> SystemTime {
            self.begun.1 + self.ahead()
        }

        pub(crate) fn advance(&self, time: Duration) {
            let millis = u64::try_from(time.as_millis()).expect("tests take less than an age");
            self.ahead_ms.fetch_add(millis, Ordering::Relaxed);
        }

        fn ahead(&self) -> Duration {
            Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed))
        }
    }
}
