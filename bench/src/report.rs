//! Results: rows for people, and a JSON file for programs.

use std::fs;
use std::path::Path;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// One figure beside its peer's.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    /// `null` in JSON where there is nobody to compare with.
    pub(crate) peer: Option<f64>,
    pub(crate) peer_name: Option<String>,
    /// Ours over the peer's; there is none over zero, and JSON says `null`.
    pub(crate) ratio: Option<f64>,
}

impl Record {
    pub(crate) fn new(
        name: impl Into<String>,
        unit: &'static str,
        ours: f64,
        peer: f64,
        peer_name: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            unit,
            ours: rounded(ours),
            peer: Some(rounded(peer)),
            peer_name: Some(peer_name.into()),
            ratio: ratio(ours / peer),
        }
    }

    /// A figure with nobody's beside it.
    pub(crate) fn alone(name: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self { name: name.into(), unit, ours: rounded(ours), peer: None, peer_name: None, ratio: None }
    }
}

/// To three digits after the point: more would be noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// As a record has it.
pub(crate) fn ratio(ratio: f64) -> Option<f64> {
    ratio.is_finite().then(|| rounded(ratio))
}

/// The value in the middle; of an even number of them, the upper one. Zero for none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Writes the records as a JSON list.
pub(crate) fn write_json(path: &Path, records: &[Record]) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(records).expect("texts and numbers are JSON");
    fs::write(path, text + "\n").map_err(Failure::io(format!("write {}", path.display())))
}

/// A table in Markdown, as `BENCHMARKS.md` takes it: names to the left, figures to the right.
pub(crate) fn table(title: &str, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().copied())
        .add_rows(rows);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    format!("\n### {title}\n\n{table}\n")
}

/// A whole number with its thousands apart.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    if value < -0.5 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(grouped(0.4), "0");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(56_742.4), "56 742");
        assert_eq!(grouped(-1_234_567.0), "-1 234 567");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn a_ratio_is_ours_over_the_peers() {
        let record = Record::new("call_instructions", "instructions", 35_000.0, 50_000.0, "tonic channel");
        assert_eq!(record.ratio, Some(0.7));
        assert_eq!(Record::new("call_failed", "calls", 1.0, 0.0, "tonic channel").ratio, None);
    }
}
