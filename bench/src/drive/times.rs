//! How long calls took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock;

/// Longest time that is told apart: beyond any deadline here, since an open loop counts from when a call was due.
const TIME_MAX: Duration = Duration::from_secs(60);

/// What the measured calls took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    pub(crate) calls_per_second: f64,
    /// CPU time of the driver's thread, kernel included.
    pub(crate) cpu_us_per_call: f64,
    /// CPU time of the server's thread: with the other one, which of the two a rate is bound by.
    pub(crate) server_cpu_us_per_call: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Calls by the server that answered, where servers say who they are.
    pub(crate) by_server: BTreeMap<u32, u64>,
}

/// Times as they come in.
pub(super) struct Recorder {
    nanos: Histogram<u64>,
    failed: u64,
    by_server: BTreeMap<u32, u64>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        // Three digits: 0.1 %.
        let nanos = Histogram::new_with_bounds(100, TIME_MAX.as_nanos() as u64, 3).expect("the bounds are in order");
        Self { nanos, failed: 0, by_server: BTreeMap::new() }
    }

    /// An answered call.
    pub(super) fn answered(&mut self, took: Duration, server: u32) {
        self.nanos.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        if server > 0 {
            *self.by_server.entry(server).or_default() += 1;
        }
    }

    /// A failed one: how soon it failed is nobody's latency.
    pub(super) fn failed(&mut self) {
        self.failed += 1;
    }

    /// What came in within `span`.
    pub(super) fn finish(self, span: &Span) -> Times {
        let calls = self.nanos.len();
        let spent = span.spent();
        let per_call = |cpu: Duration| cpu.as_secs_f64() * 1e6 / (calls.max(1) as f64);
        let micros = |quantile| self.nanos.value_at_quantile(quantile) as f64 / 1e3;
        Times {
            calls,
            failed: self.failed,
            calls_per_second: calls as f64 / spent.time.as_secs_f64(),
            cpu_us_per_call: per_call(spent.cpu),
            server_cpu_us_per_call: per_call(spent.server_cpu),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            by_server: self.by_server,
        }
    }
}

/// A stretch of time and what both sides made of it.
pub(super) struct Span {
    server_pid: u32,
    begun: Spent,
    at: Instant,
}

struct Spent {
    time: Duration,
    cpu: Duration,
    server_cpu: Duration,
}

impl Span {
    /// From now on.
    pub(super) fn begin(server_pid: u32) -> Self {
        Self { server_pid, begun: Spent::so_far(server_pid), at: clock::now() }
    }

    /// When it began.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    fn spent(&self) -> Spent {
        let Spent { cpu, server_cpu, .. } = Spent::so_far(self.server_pid);
        Spent {
            time: clock::now() - self.at,
            cpu: cpu - self.begun.cpu,
            server_cpu: server_cpu - self.begun.server_cpu,
        }
    }
}

impl Spent {
    /// CPU time of this thread and of the server's; zero where the kernel does not say. Both have but one that works.
    fn so_far(server_pid: u32) -> Self {
        let cpu_of = |file: &str| {
            let text = std::fs::read_to_string(file).ok();
            Duration::from_nanos(text.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0))
        };
        Self {
            time: Duration::ZERO,
            cpu: cpu_of("/proc/thread-self/schedstat"),
            server_cpu: cpu_of(&format!("/proc/{server_pid}/schedstat")),
        }
    }
}
