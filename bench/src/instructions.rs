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
use crate::echo::Stub;
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
    /// Repeats within two percent.
    pub(crate) const FULL: Self = Self { warm_up: 500, calls: 2000 };
    /// Repeats within a few.
    pub(crate) const QUICK: Self = Self { warm_up: 200, calls: 500 };
}

/// What is the same for all that is counted in a run.
#[derive(Clone, Copy)]
pub(crate) struct Counter<'a> {
    pub(crate) server: &'a EchoServer,
    pub(crate) depth: Depth,
    /// Where callgrind writes.
    pub(crate) out: &'a Path,
}

/// What one call costs one contestant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) contestant: Contestant,
    pub(crate) stub: Stub,
    pub(crate) payload_bytes: usize,
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

/// Every size that is measured where there is time.
pub(crate) const PAYLOADS: [usize; 2] = [SMALL_BYTES, LARGE_BYTES];

impl Counter<'_> {
    /// Measures each contestant with each message.
    pub(crate) async fn measure(
        self,
        stub: Stub,
        contestants: &[Contestant],
        payloads: &[usize],
    ) -> Result<Vec<Cost>, Failure> {
        let mut costs = Vec::new();
        for &payload_bytes in payloads {
            for &contestant in contestants {
                eprintln!("instructions of {contestant}, {payload_bytes} B, {} stub ...", stub.name());
                let profile = self.out.join(format!("{contestant}.callgrind"));
                costs.push(self.cost(stub, contestant, payload_bytes, &profile).await?);
                fs::remove_file(&profile).map_err(Failure::io(format!("remove {}", profile.display())))?;
            }
        }
        Ok(costs)
    }

    /// Measures one. What callgrind wrote stays in `profile`.
    pub(crate) async fn cost(
        self,
        stub: Stub,
        contestant: Contestant,
        payload_bytes: usize,
        profile: &Path,
    ) -> Result<Cost, Failure> {
        let Depth { warm_up, calls } = self.depth;
        let args = DriveArgs {
            contestant,
            servers: self.server.addresses(contestant.endpoints()),
            pids: vec![self.server.pid()],
            payload_bytes,
            plan: Plan::Sequence(SequencePlan { warm_up, calls, stub }),
        };
        child::drive_under_callgrind::<Counts>(&args, profile).await?;
        let counts: Counts = child::drive(&args, Cpus::ANY).await?;
        let per_call = |total: u64| total as f64 / f64::from(calls);
        Ok(Cost {
            contestant,
            stub,
            payload_bytes,
            instructions: per_call(collected(profile)?),
            allocations: per_call(counts.allocations),
            bytes: per_call(counts.bytes),
        })
    }
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

/// A table for each stub, and the same as records.
pub(crate) fn report(costs: &[Cost]) -> (String, Vec<Record>) {
    let (mut tables, mut records) = (String::new(), Vec::new());
    for (stub, title) in [
        (Stub::Bare, "Instructions and allocations"),
        (Stub::Generated, "Instructions and allocations, as a generated stub sends it"),
    ] {
        let costs: Vec<&Cost> = costs.iter().filter(|cost| cost.stub == stub).collect();
        if !costs.is_empty() {
            tables += &table(title, &costs);
            records.extend(records_of(stub, &costs));
        }
    }
    (tables, records)
}

fn table(title: &str, costs: &[&Cost]) -> String {
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
    report::table(title, &header, rows)
}

/// The mesh beside everybody else.
fn records_of(stub: Stub, costs: &[&Cost]) -> Vec<Record> {
    let stub = match stub {
        Stub::Bare => "",
        Stub::Generated => "_generated_stub",
    };
    let mut records = Vec::new();
    for cost in costs.iter().filter(|cost| cost.contestant.is_mesh()) {
        let size = if cost.payload_bytes == SMALL_BYTES { String::new() } else { format!("_{}b", cost.payload_bytes) };
        let endpoints = cost.contestant.endpoints_suffix();
        for peer in costs.iter().filter(|peer| !peer.contestant.is_mesh() && peer.payload_bytes == cost.payload_bytes) {
            let over = peer.contestant.peer_suffix();
            let record = |what, unit, ours, theirs| {
                Record::new(format!("{what}{stub}{endpoints}{size}{over}"), unit, ours, theirs, peer.contestant.title())
            };
            records.push(record("call_instructions", "instructions", cost.instructions, peer.instructions));
            records.push(record("call_allocations", "allocations", cost.allocations, peer.allocations));
            records.push(record("call_bytes", "bytes", cost.bytes, peer.bytes));
        }
    }
    records
}
