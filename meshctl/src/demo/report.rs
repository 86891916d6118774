//! The end of the demo: what was counted, what the failures took, and whether anybody noticed.

use std::time::Duration;

use tokio::time::Instant;

use super::screen::{Screen, millis};
use crate::commands::words::span;
use crate::failure::Failure;
use crate::load::{CallFailure, LoadReport};
use crate::output::{framed, trimmed};

/// Failed calls that are told in words.
const FAILURES_TOLD: usize = 5;

/// What was done to the mesh, and when.
#[derive(Debug, Default)]
pub(super) struct Timeline(Vec<(Instant, String)>);

impl Timeline {
    pub(super) fn add(&mut self, at: Instant, what: impl Into<String>) {
        self.0.push((at, what.into()));
    }

    /// "0.112 s after user-svc-2 was killed".
    fn place(&self, at: Instant) -> String {
        match self.0.iter().rev().find(|(event, _)| *event <= at) {
            Some((event, what)) => format!("{:.3} s after {what}", at.duration_since(*event).as_secs_f64()),
            None => "before anything happened".to_owned(),
        }
    }
}

/// What a SIGKILL took to be noticed.
#[derive(Debug)]
pub(super) struct Kill {
    /// Of whom.
    pub(super) name: String,
    /// Until the last time that somebody was sent there.
    pub(super) to_last_pick: Duration,
    /// Until the registry told that it is gone.
    pub(super) to_removal: Duration,
}

/// Shows the table, and fails if any call did.
pub(super) fn close(screen: &Screen, report: &LoadReport, timeline: &Timeline, kills: &[Kill]) -> Result<(), Failure> {
    let mut table = framed(&["METHOD", "CALLS", "FAILED", "P50", "P99"]);
    for method in report.methods.iter().chain([&report.total]) {
        table.add_row([
            method.method.clone(),
            method.calls.to_string(),
            method.failed.to_string(),
            millis(method.p50),
            millis(method.p99),
        ]);
    }
    screen.print(&format!("\n{}", trimmed(&table)));
    for kill in kills {
        screen.print(&format!(
            "{} killed: last pick {} later, out of the registry {} later",
            kill.name,
            millis(kill.to_last_pick),
            span(kill.to_removal),
        ));
    }
    let total = &report.total;
    let written = (report.writes * 100).checked_div(total.calls).unwrap_or(0);
    screen.print(&format!("{} of {} calls failed; {written} % of them wrote", total.failed, total.calls));
    if report.late_starts > 0 {
        let late = report.late_starts;
        screen.print(&format!(
            "{late} of them began more than 50 ms late: this machine was busy, which is not the mesh's fault"
        ));
    }
    screen.print("");
    if total.failed == 0 {
        return Ok(());
    }
    for failure in report.failures.iter().take(FAILURES_TOLD) {
        screen.print(&tell(failure, timeline));
    }
    Err(Failure::Failed(format!("{} of {} calls failed", total.failed, total.calls)))
}

fn tell(failure: &CallFailure, timeline: &Timeline) -> String {
    format!(
        "{} failed {} and {} after it was due: {} (expected {})",
        failure.method,
        timeline.place(failure.failed),
        millis(failure.failed.saturating_duration_since(failure.scheduled)),
        failure.outcome,
        failure.expected
    )
}

#[cfg(test)]
mod tests {
    use mesh_runtime::clock;

    use super::*;

    #[test]
    fn a_failure_is_placed_after_the_last_event_before_it() {
        let began = clock::now();
        let mut timeline = Timeline::default();
        timeline.add(began + Duration::from_secs(3), "user-svc-2 was killed");
        timeline.add(began + Duration::from_secs(9), "user-svc-4 joined");
        let failure = CallFailure {
            method: "GetUser",
            scheduled: began + Duration::from_millis(2994),
            failed: began + Duration::from_millis(3012),
            expected: "OK",
            outcome: "UNAVAILABLE: nobody there".to_owned(),
        };
        assert_eq!(
            tell(&failure, &timeline),
            "GetUser failed 0.012 s after user-svc-2 was killed and 18.0 ms after it was due: UNAVAILABLE: nobody there \
             (expected OK)"
        );
        assert_eq!(timeline.place(began), "before anything happened");
    }
}
