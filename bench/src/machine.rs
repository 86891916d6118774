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

/// What was compiled.
const LOCK: &str = include_str!("../../Cargo.lock");

/// The versions of both sides, as they were built into this binary.
pub(crate) fn versions() -> String {
    let version = |package: &str| {
        let entry = LOCK.split("[[package]]").find(|entry| entry.contains(&format!("\nname = \"{package}\"\n")))?;
        let version = entry.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))?;
        Some(format!("{package} {version}"))
    };
    let peer = cfg!(feature = "peers").then_some("tonic-xds");
    let packages = ["mesh-client", "tonic", "hyper", "h2", "tokio"].into_iter().chain(peer);
    packages.filter_map(version).collect::<Vec<_>>().join(", ")
}

/// Whether a program is there to be run.
pub(crate) fn has(program: &str) -> bool {
    first_line(program, &["--version"]).is_some()
}

/// Where the two sides run, so that neither takes the other's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpus {
    pub(crate) server: Option<u16>,
    pub(crate) driver: Option<u16>,
}

impl Cpus {
    /// Wherever the kernel likes: for what is counted and not timed.
    pub(crate) const ANY: Self = Self { server: None, driver: None };

    /// The first two that this process may use, or wherever the kernel likes if there is but one, or no `taskset`.
    pub(crate) fn choose() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let mut cpus = first_cpus(list.trim());
        match (cpus.next(), cpus.next()) {
            (Some(driver), Some(server)) if has("taskset") => Self { server: Some(server), driver: Some(driver) },
            _ => Self::ANY,
        }
    }

    /// In words.
    pub(crate) fn describe(self) -> String {
        match (self.driver, self.server) {
            (Some(driver), Some(server)) => format!("client on CPU {driver}, server on CPU {server}"),
            _ => "client and server wherever the kernel puts them: there are no two CPUs, or no taskset".to_owned(),
        }
    }
}

/// The CPUs of a list as the kernel writes it: `0-3,8`.
fn first_cpus(list: &str) -> impl Iterator<Item = u16> {
    list.split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) => first..last.saturating_add(1),
            _ => 0..0,
        }
    })
}

fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_of_both_sides_are_known() {
        for package in ["mesh-client ", "tonic ", "h2 "] {
            assert!(versions().contains(package), "{}", versions());
        }
    }

    #[test]
    fn a_list_of_cpus_is_read() {
        assert_eq!(first_cpus("0-2,5").collect::<Vec<_>>(), [0, 1, 2, 5]);
        assert_eq!(first_cpus("").count(), 0);
    }
}
