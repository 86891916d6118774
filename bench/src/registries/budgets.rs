//! The budgets of DESIGN §8, beside what was measured. They are about times and memory, so they are said and not judged.

use crate::report::{self, Record};

/// What a figure may be at most, or must be at least.
enum Budget {
    /// Ours over the peer's.
    RatioAtMost(f64),
    /// By itself.
    AtMost(f64),
    AtLeast(f64),
}

const BUDGETS: [(&str, Budget); 8] = [
    ("heartbeat_cpu", Budget::RatioAtMost(0.15)),
    ("register_cpu", Budget::RatioAtMost(0.2)),
    ("resolve_cpu", Budget::RatioAtMost(0.1)),
    ("watch_cpu", Budget::RatioAtMost(0.3)),
    ("renew_batched_rate", Budget::AtLeast(1e6)),
    ("memory_per_instance", Budget::AtMost(1024.0)),
    ("restart_10000", Budget::AtMost(2_000.0)),
    // From a change to the last watcher that is told.
    ("watch_p99", Budget::AtMost(100_000.0)),
];

/// A line for each budget whose figure is there.
pub(super) fn block(records: &[Record]) -> String {
    let lines = BUDGETS.iter().filter_map(|(name, budget)| {
        let record = records.iter().find(|record| record.name == *name)?;
        let own = report::grouped(record.ours);
        let (figure, unit, allowed, holds) = match *budget {
            Budget::RatioAtMost(most) => {
                let ratio = record.ratio?;
                (format!("{ratio:.3}x"), "", format!("{most:.2}x"), ratio <= most)
            }
            Budget::AtMost(most) => (own, record.unit, report::grouped(most), record.ours <= most),
            Budget::AtLeast(least) => (own, record.unit, report::grouped(least), record.ours >= least),
        };
        let verdict = if holds { "holds" } else { "DOES NOT HOLD" };
        Some(format!("{name:<20} {figure:>10} {unit:<12}  budget {allowed:>9}: {verdict}\n"))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_said_to_hold_or_not() {
        let cpu = |ours| Record::new("heartbeat_cpu", "us", ours, 10.0, "etcd");
        assert!(block(&[cpu(1.5)]).ends_with("0.15x: holds\n"));
        assert!(block(&[cpu(1.6)]).ends_with("0.15x: DOES NOT HOLD\n"));
        assert!(block(&[Record::alone("renew_batched_rate", "operations/s", 9e5)]).contains("DOES NOT HOLD"));
    }

    #[test]
    fn without_a_peer_no_ratio_is_said() {
        assert_eq!(block(&[Record::alone("heartbeat_cpu", "us", 1.0)]), "");
    }
}
