//! Where a contestant's instructions go: function by function, and what it has more than the floor.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contestant::Contestant;
use crate::echo::Stub;
use crate::failure::Failure;
use crate::instructions::{Counter, SMALL_BYTES};
use crate::report;

/// Lines of each table.
const LINES: usize = 60;

/// Instructions of each function in all counted calls.
type Functions = BTreeMap<String, i64>;

/// Writes the profile of one contestant beside the floor's, and returns the file.
pub(crate) async fn profile(counter: Counter<'_>, contestant: Contestant) -> Result<PathBuf, Failure> {
    let mut text = String::new();
    let (ours, inclusive) = functions(counter, contestant, &mut text).await?;
    let (floor, _) = functions(counter, Contestant::RawH2, &mut text).await?;
    let mut more = ours.clone();
    for (function, instructions) in &floor {
        *more.entry(function.clone()).or_default() -= instructions;
    }
    for (title, functions) in [
        ("more than raw h2, in the function itself", &more),
        ("in the function itself", &ours),
        ("in the function and what it calls", &inclusive),
    ] {
        let _ = writeln!(text, "\nInstructions a call, {title}\n");
        let mut lines: Vec<(&String, &i64)> = functions.iter().collect();
        lines.sort_by_key(|(_, instructions)| -instructions.abs());
        for (function, instructions) in lines.into_iter().take(LINES) {
            let _ = writeln!(text, "{:>9.1}  {function}", *instructions as f64 / f64::from(counter.depth.calls));
        }
    }
    let path = counter.out.join(format!("{contestant}.profile.txt"));
    fs::write(&path, text).map_err(Failure::io(format!("write {}", path.display())))?;
    Ok(path)
}

/// What callgrind says of each function: in itself, and with what it calls.
async fn functions(
    counter: Counter<'_>,
    contestant: Contestant,
    text: &mut String,
) -> Result<(Functions, Functions), Failure> {
    eprintln!("profile of {contestant}, {SMALL_BYTES} B ...");
    let raw = counter.out.join(format!("{contestant}.callgrind"));
    let cost = counter.cost(Stub::Bare, contestant, SMALL_BYTES, &raw).await?;
    let _ = writeln!(
        text,
        "{}, {SMALL_BYTES} B: {} instructions and {:.1} allocations a call ({})",
        contestant.title(),
        report::grouped(cost.instructions),
        cost.allocations,
        raw.display()
    );
    Ok((annotate(&raw, "no")?, annotate(&raw, "yes")?))
}

fn annotate(raw: &Path, inclusive: &str) -> Result<Functions, Failure> {
    let output = Command::new("callgrind_annotate")
        .args(["--auto=no", "--show-percs=no", "--threshold=100"])
        .arg(format!("--inclusive={inclusive}"))
        .arg(raw)
        .output()
        .map_err(Failure::io("start callgrind_annotate"))?;
    let mut functions = Functions::new();
    for (function, instructions) in String::from_utf8_lossy(&output.stdout).lines().filter_map(read_line) {
        *functions.entry(function).or_default() += instructions;
    }
    Ok(functions)
}

/// `1,234  file:function [object]`; the file is unknown, `???`, in a build without debug information.
fn read_line(line: &str) -> Option<(String, i64)> {
    let (instructions, rest) = line.trim_start().split_once("  ")?;
    let instructions = instructions.replace(',', "").parse().ok()?;
    let function = rest.trim_start().split_once(':')?.1;
    let function = function.rsplit_once(" [").map_or(function, |(function, _)| function);
    Some((function.to_owned(), instructions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_callgrind_annotate_is_read() {
        let line = " 9,158,665  ???:h2::hpack::table::Table::index [/x/bench]";
        assert_eq!(read_line(line), Some(("h2::hpack::table::Table::index".to_owned(), 9_158_665)));
        let line = "12  ./malloc/malloc.c:malloc [/usr/lib/libc.so.6]";
        assert_eq!(read_line(line), Some(("malloc".to_owned(), 12)));
        assert_eq!(read_line("Ir  file:function"), None);
        assert_eq!(read_line("--------------------"), None);
    }
}
