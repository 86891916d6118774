//! How busy the process is, for whoever tells others.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use crate::clock;

/// How busy a process was since it was asked last.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Processor time over what the cores that it may use had to give.
    pub cpu_utilization: f64,
    /// Calls finished per second.
    pub requests_per_second: f64,
    /// Of them, those that ended with an error of the server's making.
    pub errors_per_second: f64,
    /// Calls open now.
    pub requests_in_flight: u32,
}

/// Measures the [`Load`] of a server. Clones share the time of the last question, so there is one asker.
#[derive(Debug, Clone)]
pub struct LoadMeter {
    counts: Arc<Counts>,
    last: Arc<Mutex<Sample>>,
}

/// What the calls of a server count up.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    in_flight: AtomicU32,
    finished: AtomicU64,
    errors: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    cpu: Duration,
    finished: u64,
    errors: u64,
    in_flight: u32,
}

impl LoadMeter {
    /// Starts with nothing, now.
    pub(crate) fn start() -> Self {
        let counts = Arc::new(Counts::default());
        let last = Arc::new(Mutex::new(counts.sample()));
        Self { counts, last }
    }

    /// The meter as a closure over std types, for a registrar that knows nothing of this crate: at each call the figures of
    /// [`Load`] in their order there.
    pub fn hook(self) -> impl Fn() -> (f64, f64, f64, u32) + Send + Sync + 'static {
        move || {
            let Load { cpu_utilization, requests_per_second, errors_per_second, requests_in_flight } = self.sample();
            (cpu_utilization, requests_per_second, errors_per_second, requests_in_flight)
        }
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// The load since the last question, or since the start.
    #[must_use]
    pub fn sample(&self) -> Load {
        let now = self.counts.sample();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *last, now);
        // A quota counts, where there is one; where the cores are not known, one is assumed.
        now.since(&before, available_parallelism().map_or(1, usize::from))
    }
}

impl Counts {
    pub(crate) fn begun(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, code: Code) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.finished.fetch_add(1, Ordering::Relaxed);
        if is_servers_fault(code) {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn sample(&self) -> Sample {
        Sample {
            at: clock::now(),
            cpu: clock::cpu(),
            finished: self.finished.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }
}

impl Sample {
    fn since(&self, before: &Self, cores: usize) -> Load {
        let in_flight = Load { requests_in_flight: self.in_flight, ..Load::default() };
        let seconds = self.at.saturating_duration_since(before.at).as_secs_f64();
        if seconds == 0.0 {
            return in_flight;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds and cores are far below 2^53")]
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 cores")]
        let cores = cores as f64;
        Load {
            cpu_utilization: self.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds / cores,
            requests_per_second: rate(self.finished, before.finished),
            errors_per_second: rate(self.errors, before.errors),
            ..in_flight
        }
    }
}

/// The codes that OpenTelemetry's conventions count as a server's errors: the others say something about the request.
fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hook_tells_the_figures_in_their_order() {
        let meter = LoadMeter::start();
        let counts = meter.counts();
        (0..5).for_each(|_| counts.begun());
        [Code::Ok, Code::Internal].into_iter().for_each(|code| counts.ended(code));
        tokio::time::advance(Duration::from_secs(1)).await;
        let (cpu, requests, errors, in_flight) = meter.hook()();
        assert!(cpu.is_finite() && cpu >= 0.0);
        assert_eq!((requests, errors, in_flight), (2.0, 1.0, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn load_is_what_came_since_the_last_question() {
        let meter = LoadMeter::start();
        let counts = meter.counts();
        (0..10).for_each(|_| counts.begun());
        for code in [Code::Ok, Code::NotFound, Code::Cancelled, Code::Internal] {
            counts.ended(code);
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        let load = meter.sample();
        assert_eq!((load.requests_per_second, load.errors_per_second, load.requests_in_flight), (2.0, 0.5, 6));
        let at_once = meter.sample();
        assert_eq!(at_once, Load { requests_in_flight: 6, ..Load::default() });
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(meter.sample().requests_per_second, 0.0);
    }

    #[test]
    fn processor_time_counts_over_all_cores() {
        let before = Counts::default().sample();
        let seconds = Duration::from_secs;
        let after = Sample { at: before.at + seconds(10), cpu: before.cpu + seconds(5), ..before };
        assert_eq!(after.since(&before, 2).cpu_utilization, 0.25);
        assert_eq!(after.since(&before, 1).cpu_utilization, 0.5);
    }
}
