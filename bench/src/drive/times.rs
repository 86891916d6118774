//! How long calls took.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
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
    /// CPU time of all that is behind the client: with the other one, which side a rate is bound by.
    pub(crate) behind_cpu_us_per_call: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Calls by the server that answered, where servers say who they are.
    pub(crate) by_server: BTreeMap<u32, u64>,
}

/// Times as they come in.
pub(crate) struct Recorder {
    nanos: Histogram<u64>,
    failed: u64,
    by_server: BTreeMap<u32, u64>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        // Three digits: 0.1 %.
        let nanos = Histogram::new_with_bounds(100, TIME_MAX.as_nanos() as u64, 3).expect("the bounds are in order");
        Self { nanos, failed: 0, by_server: BTreeMap::new() }
    }

    /// An answered call.
    pub(crate) fn answered(&mut self, took: Duration, server: u32) {
        self.nanos.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        if server > 0 {
            *self.by_server.entry(server).or_default() += 1;
        }
    }

    /// A failed one: how soon it failed is nobody's latency.
    pub(crate) fn failed(&mut self) {
        self.failed += 1;
    }

    /// What came in within `span`.
    pub(crate) fn finish(self, span: &Span) -> Times {
        let calls = self.nanos.len();
        let spent = span.spent();
        let per_call = |cpu: Duration| cpu.as_secs_f64() * 1e6 / (calls.max(1) as f64);
        let micros = |quantile| self.nanos.value_at_quantile(quantile) as f64 / 1e3;
        Times {
            calls,
            failed: self.failed,
            calls_per_second: calls as f64 / spent.time.as_secs_f64(),
            cpu_us_per_call: per_call(spent.cpu),
            behind_cpu_us_per_call: per_call(spent.behind_cpu),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            by_server: self.by_server,
        }
    }
}

/// A stretch of time and what both sides made of it.
pub(crate) struct Span<'a> {
    pids: &'a [u32],
    begun: Cpu,
    at: Instant,
}

/// CPU time so far, kernel included; zero where the kernel does not say.
struct Cpu {
    /// Of this thread, the only one that works here.
    client: Duration,
    /// Of all threads of the processes behind the client.
    behind: Duration,
}

/// What a stretch of time took: of the clock, of this thread, and of the processes behind the client.
pub(crate) struct Spent {
    pub(crate) time: Duration,
    pub(crate) cpu: Duration,
    pub(crate) behind_cpu: Duration,
}

impl<'a> Span<'a> {
    /// From now on.
    pub(crate) fn begin(pids: &'a [u32]) -> Self {
        Self { pids, begun: Cpu::so_far(pids), at: clock::now() }
    }

    /// When it began.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    /// What was spent from its beginning until now.
    pub(crate) fn spent(&self) -> Spent {
        let (time, cpu) = (clock::now() - self.at, Cpu::so_far(self.pids));
        Spent {
            time,
            cpu: cpu.client.saturating_sub(self.begun.client),
            behind_cpu: cpu.behind.saturating_sub(self.begun.behind),
        }
    }
}

impl Cpu {
    fn so_far(pids: &[u32]) -> Self {
        let threads = pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten().flatten();
        Self {
            client: of_thread(Path::new("/proc/thread-self")),
            behind: threads.map(|thread| of_thread(&thread.path())).sum(),
        }
    }
}

fn of_thread(thread: &Path) -> Duration {
    let text = fs::read_to_string(thread.join("schedstat")).ok();
    Duration::from_nanos(text.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0))
}
