//! What became of every call; none is left out.

use std::time::Duration;

use hdrhistogram::Histogram;
use mesh_runtime::clock;
use mesh_runtime::code_name;
use tokio::time::Instant;

use super::shop::{Method, Planned};

/// Failures that are kept in words; more of them say nothing new.
const FAILURES_KEPT: usize = 100;

/// Calls by method, and the failures in words.
#[derive(Debug)]
pub struct Ledger {
    methods: Vec<Entry>,
    failures: Vec<CallFailure>,
    late_starts: u64,
}

#[derive(Debug)]
struct Entry {
    started: u64,
    failed: u64,
    /// Microseconds from the scheduled time to the answer, of the calls that went well.
    latency_us: Histogram<u64>,
}

/// One failed call.
#[derive(Debug, Clone)]
pub struct CallFailure {
    /// Method, such as `GetUser`.
    pub method: &'static str,
    /// When it was due.
    pub scheduled: Instant,
    /// When it was known to have failed.
    pub failed: Instant,
    /// The status that was expected.
    pub expected: &'static str,
    /// What came instead.
    pub outcome: String,
}

/// Everything counted, at one moment.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// Per method, in a fixed order.
    pub methods: Vec<MethodReport>,
    /// The first failures in words.
    pub failures: Vec<CallFailure>,
    /// All methods together.
    pub total: MethodReport,
    /// Calls of methods that write.
    pub writes: u64,
    /// Calls that the load itself started more than 50 ms late. They are judged like all others.
    pub late_starts: u64,
}

/// What was counted of one method.
#[derive(Debug, Clone)]
pub struct MethodReport {
    /// Method, such as `shop.user.v1.UserService/GetUser`.
    pub method: String,
    /// Calls started.
    pub calls: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Half of the calls were faster, from the scheduled time on.
    pub p50: Duration,
    /// 99 % of the calls were faster.
    pub p99: Duration,
    /// The slowest of those that went well.
    pub longest: Duration,
}

impl CallFailure {
    /// It has failed just now.
    pub(super) fn new(planned: &Planned, scheduled: Instant, outcome: String) -> CallFailure {
        let expected = code_name(planned.expected);
        CallFailure { method: planned.method.name(), scheduled, failed: clock::now(), expected, outcome }
    }
}

impl Default for Ledger {
    fn default() -> Self {
        let methods = Method::ALL.iter().map(|_| Entry { started: 0, failed: 0, latency_us: histogram() }).collect();
        Ledger { methods, failures: Vec::new(), late_starts: 0 }
    }
}

/// From 1 us to a minute with three digits, some 150 KiB.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("the bounds are in range")
}

impl Ledger {
    fn entry(&mut self, method: Method) -> &mut Entry {
        &mut self.methods[method as usize]
    }

    pub(super) fn started(&mut self, method: Method) {
        self.entry(method).started += 1;
    }

    pub(super) fn started_late(&mut self) {
        self.late_starts += 1;
    }

    pub(super) fn succeeded(&mut self, method: Method, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.entry(method).latency_us.saturating_record(micros);
    }

    pub(super) fn failed(&mut self, failure: CallFailure) {
        if let Some(method) = Method::ALL.iter().find(|method| method.name() == failure.method) {
            self.entry(*method).failed += 1;
        }
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(failure);
        }
    }

    /// As things stand, with calls in flight neither good nor bad yet.
    pub(super) fn report(&self) -> LoadReport {
        let mut all = Entry { started: 0, failed: 0, latency_us: histogram() };
        let mut methods = Vec::with_capacity(Method::ALL.len());
        let mut writes = 0;
        for (method, entry) in Method::ALL.iter().zip(&self.methods) {
            all.started += entry.started;
            all.failed += entry.failed;
            all.latency_us.add(&entry.latency_us).expect("all histograms have the same bounds");
            if method.writes() {
                writes += entry.started;
            }
            methods.push(entry.report(method.path()));
        }
        LoadReport {
            methods,
            failures: self.failures.clone(),
            total: all.report("all".to_owned()),
            writes,
            late_starts: self.late_starts,
        }
    }

    /// At the end: a call that was started and is neither good nor bad has failed.
    pub(super) fn final_report(&mut self) -> LoadReport {
        for entry in &mut self.methods {
            entry.failed = entry.started.saturating_sub(entry.latency_us.len());
        }
        self.report()
    }
}

impl Entry {
    fn report(&self, method: String) -> MethodReport {
        let at = |quantile| Duration::from_micros(self.latency_us.value_at_quantile(quantile));
        MethodReport {
            method,
            calls: self.started,
            failed: self.failed,
            p50: at(0.50),
            p99: at(0.99),
            longest: at(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_came_back_has_failed() {
        let mut ledger = Ledger::default();
        ledger.started(Method::GetUser);
        ledger.started(Method::GetUser);
        ledger.succeeded(Method::GetUser, Duration::from_millis(3));
        assert_eq!(ledger.report().total.failed, 0, "it may still come");
        let report = ledger.final_report();
        assert_eq!((report.total.calls, report.total.failed), (2, 1));
    }

    #[test]
    fn latencies_are_told_per_method() {
        let mut ledger = Ledger::default();
        for micros in 1..=100 {
            ledger.started(Method::ListOrders);
            ledger.succeeded(Method::ListOrders, Duration::from_micros(micros));
        }
        let report = ledger.final_report();
        let listed = report.methods.iter().find(|method| method.method.ends_with("ListOrders")).expect("it is listed");
        assert_eq!((listed.p50, listed.p99), (Duration::from_micros(50), Duration::from_micros(99)));
        assert_eq!(report.writes, 0);
    }
}
