//! What the operating system and the program say of themselves, asked at each scrape.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Unit;

use crate::hooks::Standing;
use crate::panics;

/// The conventional `process_*` metrics, the build, and the panics.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) program: &'static str,
    pub(crate) version: &'static str,
    pub(crate) started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let info = Info::new([("program", self.program), ("version", self.version)]);
        info.encode(encoder.encode_descriptor("mesh_process", "What this process is.", None, info.metric_type())?)?;

        let panics = ConstCounter::new(panics::seen());
        let help = "Panics since the start: each is a bug that one call paid for.";
        panics.encode(encoder.encode_descriptor("mesh_panics", help, None, panics.metric_type())?)?;

        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = ConstGauge::new(started.as_secs_f64());
        let help = "Start of the process since the Unix epoch.";
        let unit = Some(&Unit::Seconds);
        started.encode(encoder.encode_descriptor("process_start_time", help, unit, started.metric_type())?)?;

        // The rest is Linux's; elsewhere it is left out, as the conventions allow.
        let Some(usage) = Usage::of_self() else { return Ok(()) };
        let cpu = ConstCounter::new(usage.cpu.as_secs_f64());
        let help = "Time spent in user and system mode.";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, unit, cpu.metric_type())?)?;
        for (name, help, unit, value) in [
            ("process_resident_memory", "Memory in RAM.", Some(&Unit::Bytes), usage.resident_bytes),
            ("process_virtual_memory", "Address space in use.", Some(&Unit::Bytes), usage.virtual_bytes),
            ("process_threads", "Threads of the process.", None, usage.threads),
            ("process_open_fds", "Open file descriptors.", None, usage.open_fds),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// What `/proc/self` says.
#[derive(Debug, PartialEq, Eq)]
struct Usage {
    cpu: Duration,
    threads: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
    open_fds: u64,
}

impl Usage {
    fn of_self() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let open_fds = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        Self::parse(&stat, &status, open_fds)
    }

    /// Field numbers are those of proc(5).
    fn parse(stat: &str, status: &str, open_fds: u64) -> Option<Self> {
        /// `USER_HZ`, which Linux keeps at 100 on every architecture this runs on.
        const TICK: Duration = Duration::from_millis(10);
        // The second field is the command in brackets, which may hold spaces: count from behind it.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let user: u32 = fields.nth(14 - 3)?.parse().ok()?;
        let system: u32 = fields.next()?.parse().ok()?;
        let threads = fields.nth(20 - 16)?.parse().ok()?;
        let virtual_bytes = fields.nth(23 - 21)?.parse().ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        let cpu = TICK.checked_mul(user.checked_add(system)?)?;
        Some(Self { cpu, threads, virtual_bytes, resident_bytes: resident_kib * 1024, open_fds })
    }
}

/// Where the process's registration stands, as whoever registers it says.
pub(crate) struct Registration(pub(crate) Arc<Standing>);

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registration")
    }
}

impl Collector for Registration {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (state, _) = (self.0)();
        let gauge = ConstGauge::new(1_i64);
        let help = "1 for the state that the registration is in.";
        let mut family = encoder.encode_descriptor("mesh_registration_state", help, None, gauge.metric_type())?;
        gauge.encode(family.encode_family(&[("state", state)])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_whatever_the_command_is_called() {
        let stat = "42 (a (odd) name) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 7 0 100 4096000 250 0 0";
        let status = "Name:\ta (odd) name\nVmRSS:\t    1000 kB\nThreads:\t7\n";
        let expected = Usage {
            cpu: Duration::from_secs(2),
            threads: 7,
            virtual_bytes: 4_096_000,
            resident_bytes: 1_024_000,
            open_fds: 9,
        };
        assert_eq!(Usage::parse(stat, status, 9), Some(expected));
        assert_eq!(Usage::parse("", "", 0), None);
    }
}
