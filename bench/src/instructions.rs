//! What one call costs in instructions and allocations. Both repeat from run to run, so both can be judged.
//!
//! Instructions are user-side ones of the driver process under callgrind, in one thread, one call after the other, after a
//! warm-up that is not collected; so connecting, growing tables and the like are left out, and timers and pings that fall
//! due meanwhile are in. Allocations are counted without callgrind, in all threads.

use std::fs;
use std::path::Path;

use crate::args::{DriveArgs, Plan, SequencePlan};
use crate::child::{self, EchoServer};
use crate::contestant::Contestant;
use crate::drive::Counts;
use crate::failure::Failure;
use crate::machine::Cpus;
use crate::report::{self, Record};

/// The size of the message that budgets are about.
pub(crate) const SMALL_BYTES: usize = 32;
const LARGE_BYTES: usize = 1024;

/// How many calls are made; callgrind makes each some fifty times slower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth {
    pub(crate) warm_up: u32,
    pub(crate) calls: u32,
}

impl Depth {
    /// Repeats within one percent.
    pub(crate) const FULL: Self = Self { warm_up: 500, calls: 2000 };
    /// Repeats within a few.
    pub(crate) const QUICK: Self = Self { warm_up: 200, calls: 500 };
}

/// What one call costs one contestant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) contestant: Contestant,
    pub(crate) payload_bytes: usize,
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

/// Measures each contestant with each message.
pub(crate) async fn measure(
    server: &EchoServer,
    contestants: &[Contestant],
    payloads: &[usize],
    depth: Depth,
    out: &Path,
) -> Result<Vec<Cost>, Failure> {
    let mut costs = Vec::new();
    for &payload_bytes in payloads {
        for &contestant in contestants {
            eprintln!("instructions of {contestant}, {payload_bytes} B ...");
            let profile = out.join(format!("{contestant}.callgrind"));
            costs.push(cost(server, contestant, payload_bytes, depth, &profile).await?);
            fs::remove_file(&profile).map_err(Failure::io(format!("remove {}", profile.display())))?;
        }
    }
    Ok(costs)
}

/// Every size that is measured where there is time.
pub(crate) const PAYLOADS: [usize; 2] = [SMALL_BYTES, LARGE_BYTES];

/// Measures one. What callgrind wrote stays in `profile`.
pub(crate) async fn cost(
    server: &EchoServer,
    contestant: Contestant,
    payload_bytes: usize,
    depth: Depth,
    profile: &Path,
) -> Result<Cost, Failure> {
    let args = DriveArgs {
        contestant,
        servers: server.addresses(contestant.endpoints()),
        pids: vec![server.pid()],
        payload_bytes,
        plan: Plan::Sequence(SequencePlan { warm_up: depth.warm_up, calls: depth.calls }),
    };
    child::drive_under_callgrind::<Counts>(&args, profile).await?;
    let counts: Counts = child::drive(&args, Cpus::ANY).await?;
    let per_call = |total: u64| total as f64 / f64::from(depth.calls);
    Ok(Cost {
        contestant,
        payload_bytes,
        instructions: per_call(collected(profile)?),
        allocations: per_call(counts.allocations),
        bytes: per_call(counts.bytes),
    })
}

/// The instructions that callgrind collected.
pub(crate) fn collected(profile: &Path) -> Result<u64, Failure> {
    let text = fs::read_to_string(profile).map_err(Failure::io(format!("read {}", profile.display())))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).and_then(|total| total.trim().parse().ok());
    match total {
        Some(total) if total > 0 => Ok(total),
        _ => Err(Failure::Child(format!("callgrind collected nothing in {}", profile.display()))),
    }
}

/// The table, and the same as records.
pub(crate) fn report(costs: &[Cost]) -> (String, Vec<Record>) {
    let find = |contestant, like: &Cost| {
        costs.iter().find(|cost| cost.contestant == contestant && cost.payload_bytes == like.payload_bytes)
    };
    let rows = costs.iter().map(|cost| {
        let ratio = find(Contestant::Channel, cost)
            .map_or_else(String::new, |channel| format!("{:.3}", cost.instructions / channel.instructions));
        let over_floor = find(Contestant::RawH2, cost)
            .map_or_else(String::new, |floor| report::grouped(cost.instructions - floor.instructions));
        vec![
            cost.contestant.title(),
            cost.payload_bytes.to_string(),
            report::grouped(cost.instructions),
            ratio,
            over_floor,
            format!("{:.1}", cost.allocations),
            report::grouped(cost.bytes),
        ]
    });
    let header = ["one call", "message, B", "instructions", "of a channel's", "over raw h2", "allocations", "bytes"];
    let table = report::table("Instructions and allocations", &header, rows);

    let mut records = Vec::new();
    for cost in costs.iter().filter(|cost| cost.contestant.is_mesh()) {
        let size = if cost.payload_bytes == SMALL_BYTES { String::new() } else { format!("_{}b", cost.payload_bytes) };
        let endpoints = cost.contestant.endpoints_suffix();
        for peer in costs.iter().filter(|peer| !peer.contestant.is_mesh() && peer.payload_bytes == cost.payload_bytes) {
            let over = peer.contestant.peer_suffix();
            let record = |what, unit, ours, theirs| {
                Record::new(format!("{what}{endpoints}{size}{over}"), unit, ours, theirs, peer.contestant.title())
            };
            records.push(record("call_instructions", "instructions", cost.instructions, peer.instructions));
            records.push(record("call_allocations", "allocations", cost.allocations, peer.allocations));
            records.push(record("call_bytes", "bytes", cost.bytes, peer.bytes));
        }
    }
    (table, records)
}
