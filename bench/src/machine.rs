//! What it was measured on.

use std::fs;
use std::process::Command;

/// Lines that say which machine, which compiler and which tools; what cannot be found out is left out.
pub(crate) fn describe() -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned());
    let mut lines = vec![format!(
        "{cores} cores, {}, Linux {}",
        cpu.as_deref().unwrap_or("unknown CPU"),
        kernel.as_deref().unwrap_or("unknown")
    )];
    lines.extend(first_line("rustc", &["--version"]));
    lines.extend(first_line("valgrind", &["--version"]));
    lines
}

/// Whether a program is there to be run.
pub(crate) fn has(program: &str) -> bool {
    first_line(program, &["--version"]).is_some()
}

fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}
