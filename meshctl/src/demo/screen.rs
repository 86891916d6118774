//! What the demo shows while it runs: the story on stdout, and below it on stderr one live line, where that is a terminal.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mesh_runtime::clock;
use tokio::time::Instant;

use crate::load::LoadReport;
use crate::output::{note, print};

/// How often the line is told anew where there is a terminal.
pub(super) const LIVE_EVERY: Duration = Duration::from_millis(200);

/// How often it is printed where there is none.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// Where everything goes that people are to see. Clones show on the same screen.
#[derive(Clone)]
pub(super) struct Screen {
    live: Arc<ProgressBar>,
    began: Instant,
}

impl Screen {
    pub(super) fn new() -> Screen {
        let live = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        live.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is a valid one"));
        Screen { live: Arc::new(live), began: clock::now() }
    }

    /// Says one line of the story.
    pub(super) fn say(&self, line: impl fmt::Display) {
        let since = self.began.elapsed().as_secs_f64();
        self.print(&format!("{since:5.1}s  {line}"));
    }

    /// Prints as it is. A reader that has left does not end the demo, it only misses the rest.
    pub(super) fn print(&self, text: &str) {
        self.live.suspend(|| {
            let _ = print(text);
        });
    }

    /// The live line goes for good: what is printed from here on stays.
    pub(super) fn rest(&self) {
        self.live.finish_and_clear();
    }

    /// Shows how the load is doing, again and again, until it is dropped.
    pub(super) async fn follow(&self, mut so_far: impl FnMut() -> LoadReport) -> Infallible {
        let plain = self.live.is_hidden();
        let mut ticks = tokio::time::interval(if plain { PLAIN_EVERY } else { LIVE_EVERY });
        let (mut calls_before, mut at_before) = (0, clock::now());
        loop {
            let now = ticks.tick().await;
            let report = so_far();
            let elapsed = now.saturating_duration_since(at_before).as_secs_f64();
            let rate = if elapsed > 0.0 { (report.total.calls - calls_before) as f64 / elapsed } else { 0.0 };
            (calls_before, at_before) = (report.total.calls, now);
            let line = format!(
                "{} calls, {} failed, {rate:.0}/s, p50 {}, p99 {}",
                report.total.calls,
                report.total.failed,
                millis(report.total.p50),
                millis(report.total.p99),
            );
            if plain {
                note(&format!("{:5.1}s  load: {line}", self.began.elapsed().as_secs_f64()));
            } else {
                self.live.set_message(line);
                self.live.tick();
            }
        }
    }
}

/// A latency for people: "0.8 ms", "12.3 ms".
pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
