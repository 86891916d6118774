//! What a row found, and the table of all of them.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, presets};
use meshctl::LoadReport;

use crate::load::{Call, words};
use crate::rows::Row;

/// Attempts per call that a row may need (DESIGN §6: a fifth of the calls may be sent again) ...
const ATTEMPTS_MAX: f64 = 1.2;

/// ... and attempts per second that are always granted beside.
const RESERVE_PER_SECOND: f64 = 3.0;

/// What one row found.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    calls: usize,
    failed: usize,
    longest: Duration,
    /// How soon the client knew, in words.
    converged: String,
    attempts: Option<f64>,
    /// What was promised and is not so.
    broken: Vec<String>,
}

impl Finding {
    /// What became of the calls.
    pub(crate) fn of(calls: &[Call]) -> Finding {
        Finding {
            calls: calls.len(),
            failed: calls.iter().filter(|call| call.outcome.is_err()).count(),
            longest: calls.iter().map(|call| call.took).max().unwrap_or_default(),
            ..Finding::default()
        }
    }

    /// The same, and no call may have failed.
    pub(crate) fn nobody_noticed(calls: &[Call]) -> Finding {
        let mut finding = Finding::of(calls);
        finding.must(finding.failed == 0, || format!("calls failed: {:?}", words(calls)));
        finding
    }

    /// The row could not be told, which is a failure.
    pub(crate) fn void(why: String) -> Finding {
        Finding { broken: vec![format!("void: {why}")], ..Finding::default() }
    }

    /// From the load over the real services: no call may have failed.
    pub(crate) fn of_report(report: &LoadReport) -> Finding {
        let (calls, failed) = (report.total.calls as usize, report.total.failed as usize);
        let mut finding = Finding { calls, failed, longest: report.total.longest, ..Finding::default() };
        finding.must(failed == 0, || format!("calls failed: {:#?}", report.failures));
        finding
    }

    /// Adds the calls of another load.
    pub(crate) fn and(&mut self, other: Finding) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.longest = self.longest.max(other.longest);
        self.broken.extend(other.broken);
    }

    /// A promise: without it, the row fails.
    pub(crate) fn must(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(otherwise());
        }
    }

    /// How soon the client knew.
    pub(crate) fn converged(&mut self, words: impl Into<String>) {
        self.converged = words.into();
    }

    /// How often servers were called, for so many calls in so much time. Every row promises that it is little more than
    /// once per call.
    pub(crate) fn attempts(&mut self, attempts: u64, over: Duration) {
        self.attempts_within(attempts, ATTEMPTS_MAX + self.reserve(over));
    }

    /// The same for the last hop, behind so many servers that ask it for their callers. Each hop adds its fifth, and each
    /// server its reserve.
    pub(crate) fn attempts_behind(&mut self, middle: usize, attempts: u64, over: Duration) {
        let reserve = self.reserve(over);
        self.attempts_within(attempts, (ATTEMPTS_MAX + reserve) * ATTEMPTS_MAX + middle as f64 * reserve);
    }

    /// What the reserve of one client comes to, per call.
    fn reserve(&self, over: Duration) -> f64 {
        RESERVE_PER_SECOND * over.as_secs_f64() / self.calls.max(1) as f64
    }

    fn attempts_within(&mut self, attempts: u64, most: f64) {
        let per_call = attempts as f64 / self.calls.max(1) as f64;
        self.attempts = Some(per_call);
        self.must(per_call <= most, || format!("{per_call:.3} attempts per call, and {most:.3} are allowed"));
    }
}

/// Time from the first call to the end of the last one.
pub(crate) fn span(calls: &[Call]) -> Duration {
    let first = calls.iter().map(|call| call.due).min();
    let last = calls.iter().map(|call| call.due + call.took).max();
    first.zip(last).map(|(first, last)| last.saturating_duration_since(first)).unwrap_or_default()
}

/// All rows that were told.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<(&'static Row, Finding, Duration)>,
}

impl Table {
    /// Adds a row, and says how it went.
    pub(crate) fn add(&mut self, row: &'static Row, finding: Finding, took: Duration) {
        let verdict = if finding.broken.is_empty() { "ok" } else { "FAILED" };
        println!("test {} ... {verdict} ({:.1} s)", row.name, took.as_secs_f64());
        finding.broken.iter().for_each(|broken| println!("  {broken}"));
        self.rows.push((row, finding, took));
    }

    /// Prints the table, and a closing line like libtest's.
    pub(crate) fn close(&self, filtered: usize, took: Duration) -> ExitCode {
        if !self.rows.is_empty() {
            println!();
            self.table().lines().for_each(|line| println!("{}", line.trim_end()));
        }
        let failed: Vec<_> = self.rows.iter().filter(|(_, finding, _)| !finding.broken.is_empty()).collect();
        let mut promises = String::new();
        for (row, finding, _) in &failed {
            let _ = writeln!(promises, "{}: promised is: {}", row.name, row.promise);
            finding.broken.iter().for_each(|broken| {
                let _ = writeln!(promises, "  {broken}");
            });
        }
        print!("{promises}");
        let (word, code) = if failed.is_empty() { ("ok", ExitCode::SUCCESS) } else { ("FAILED", ExitCode::FAILURE) };
        println!(
            "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
            self.rows.len() - failed.len(),
            failed.len(),
            took.as_secs_f64()
        );
        code
    }

    fn table(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["row", "calls", "failed", "longest", "attempts per call", "time to converge", ""]);
        for (row, finding, _) in &self.rows {
            let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
            table.add_row(vec![
                Cell::new(row.name),
                right(finding.calls.to_string()),
                right(finding.failed.to_string()),
                right(format!("{:.0?}", finding.longest)),
                right(finding.attempts.map_or_else(|| "-".to_owned(), |attempts| format!("{attempts:.3}"))),
                Cell::new(&finding.converged),
                Cell::new(if finding.broken.is_empty() { "" } else { "BROKEN" }),
            ]);
        }
        table
    }
}
