//! What calls take: rates and latencies, in interleaved rounds. Every round lets each contestant run once, in turn, so that
//! a machine that changes its mind between rounds changes it for all; each round begins with another one, so that nobody is
//! always the first. Figures and ratios are medians over the rounds.

use std::net::SocketAddr;

use crate::args::{ClosedPlan, DriveArgs, OpenPlan, Plan};
use crate::child::{self, EchoServer};
use crate::contestant::Contestant;
use crate::drive::Times;
use crate::envoy::Envoy;
use crate::failure::Failure;
use crate::instructions::{PAYLOADS, SMALL_BYTES};
use crate::machine::Cpus;
use crate::report::{self, Record, median};

/// Calls in flight of the closed loops.
const IN_FLIGHT: [u16; 2] = [1, 64];
/// Rates of the open loops, in percent of what a tonic channel can do.
const LOADS_PERCENT: [u32; 3] = [20, 50, 80];

/// How often and how long each contestant runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    pub(crate) count: u32,
    pub(crate) warm_up_ms: u64,
    pub(crate) millis: u64,
}

impl Rounds {
    /// A result.
    pub(crate) const FULL: Self = Self { count: 5, warm_up_ms: 200, millis: 1000 };
    /// A look.
    pub(crate) const QUICK: Self = Self { count: 3, warm_up_ms: 100, millis: 250 };
}

/// Where contestants meet.
#[derive(Clone, Copy)]
pub(crate) struct Arena<'a> {
    pub(crate) server: &'a EchoServer,
    pub(crate) envoy: Option<&'a Envoy>,
    pub(crate) cpus: Cpus,
    pub(crate) rounds: Rounds,
}

/// One contestant's rounds under one plan.
pub(crate) struct Entry {
    pub(crate) contestant: Contestant,
    rounds: Vec<Times>,
}

/// A table, and the same as records.
pub(crate) struct Results {
    pub(crate) tables: String,
    pub(crate) records: Vec<Record>,
    /// Who failed calls that nobody should fail.
    pub(crate) failed: Vec<String>,
    /// What a tonic channel did in a second with 64 small calls in flight.
    pub(crate) channel_capacity: f64,
}

impl Results {
    fn new(channel_capacity: f64) -> Self {
        Self { tables: String::new(), records: Vec::new(), failed: Vec::new(), channel_capacity }
    }
}

/// So many calls in flight, each size of message.
pub(crate) async fn closed(arena: Arena<'_>) -> Result<Results, Failure> {
    let contestants = arena.with_envoy(Contestant::built_in());
    let mut results = Results::new(0.0);
    for payload_bytes in PAYLOADS {
        for in_flight in IN_FLIGHT {
            eprintln!("{in_flight} in flight, {payload_bytes} B, {} rounds ...", arena.rounds.count);
            let entries = arena.run(&contestants, payload_bytes, closed_plan(arena.rounds, in_flight)).await?;
            if payload_bytes == SMALL_BYTES && in_flight == 64 {
                results.channel_capacity = capacity(&entries);
            }
            let size = if payload_bytes == SMALL_BYTES { String::new() } else { format!("_{payload_bytes}b") };
            let title = format!("{in_flight} in flight, {payload_bytes} B");
            results.tables += &table(&title, &entries);
            results.failed.extend(failures(&title, &entries));
            results.records.extend(records(&entries, &format!("_in_flight_{in_flight}{size}"), true));
        }
    }
    Ok(results)
}

/// Calls at fixed rates.
pub(crate) async fn open(arena: Arena<'_>, channel_capacity: Option<f64>) -> Result<Results, Failure> {
    let channel_capacity = match channel_capacity {
        Some(known) => known,
        None => {
            eprintln!("capacity of a tonic channel ...");
            capacity(&arena.run(&[Contestant::Channel], SMALL_BYTES, closed_plan(arena.rounds, 64)).await?)
        }
    };
    let mut results = Results::new(channel_capacity);
    for percent in LOADS_PERCENT {
        let per_second = (channel_capacity * f64::from(percent) / 100.0).round().max(1.0);
        eprintln!("{per_second} calls a second, {} rounds ...", arena.rounds.count);
        let entries =
            arena.run(&arena.with_envoy(open_contestants()), SMALL_BYTES, open_plan(arena.rounds, per_second)).await?;
        let title = format!(
            "Arriving at {} calls a second, {percent} % of a tonic channel's capacity, {SMALL_BYTES} B",
            report::grouped(per_second)
        );
        results.tables += &table(&title, &entries);
        // Whoever can do less than a channel may be asked for more than it can do.
        let able = entries.iter().filter(|entry| entry.contestant == Contestant::Channel || entry.contestant.is_mesh());
        results.failed.extend(failures(&title, able));
        results.records.extend(records(&entries, &format!("_at_{percent}_percent"), false));
    }
    Ok(results)
}

/// Arrivals at a rate: the same ones for everybody, others in each round.
pub(crate) fn open_plan(rounds: Rounds, per_second: f64) -> impl Fn(u32) -> Plan {
    let Rounds { warm_up_ms, millis, .. } = rounds;
    move |round| Plan::Open(OpenPlan { per_second, seed: u64::from(round), warm_up_ms, millis })
}

/// Those in the open loops: what an application would take.
fn open_contestants() -> Vec<Contestant> {
    let is_floor =
        |contestant: &Contestant| matches!(contestant, Contestant::RawH2 | Contestant::Mesh { endpoints: 100 });
    Contestant::built_in().into_iter().filter(|contestant| !is_floor(contestant)).collect()
}

fn closed_plan(rounds: Rounds, in_flight: u16) -> impl Fn(u32) -> Plan {
    move |_round| Plan::Closed(ClosedPlan { in_flight, warm_up_ms: rounds.warm_up_ms, millis: rounds.millis })
}

impl Arena<'_> {
    /// Lets each contestant run once a round. `plan` is told the round.
    pub(crate) async fn run(
        self,
        contestants: &[Contestant],
        payload_bytes: usize,
        plan: impl Fn(u32) -> Plan,
    ) -> Result<Vec<Entry>, Failure> {
        let mut entries: Vec<Entry> =
            contestants.iter().map(|&contestant| Entry { contestant, rounds: Vec::new() }).collect();
        for round in 0..self.rounds.count {
            for turn in in_turn(round, entries.len()) {
                let entry = &mut entries[turn];
                let args = DriveArgs {
                    contestant: entry.contestant,
                    servers: self.addresses(entry.contestant),
                    pids: self.pids(entry.contestant),
                    payload_bytes,
                    plan: plan(round),
                };
                entry.rounds.push(child::drive(&args, self.cpus).await?);
            }
        }
        Ok(entries)
    }

    /// These, and Envoy where it is.
    fn with_envoy(self, contestants: Vec<Contestant>) -> Vec<Contestant> {
        contestants.into_iter().chain(self.envoy.map(|_| Contestant::Envoy)).collect()
    }

    fn addresses(self, contestant: Contestant) -> Vec<SocketAddr> {
        match (contestant, self.envoy) {
            (Contestant::Envoy, Some(envoy)) => vec![envoy.address()],
            _ => self.server.addresses(contestant.endpoints()),
        }
    }

    fn pids(self, contestant: Contestant) -> Vec<u32> {
        let envoy = self.envoy.filter(|_| contestant == Contestant::Envoy).map(Envoy::pid);
        std::iter::once(self.server.pid()).chain(envoy).collect()
    }
}

impl Entry {
    /// Calls that failed, in all rounds.
    pub(crate) fn failed(&self) -> u64 {
        self.rounds.iter().map(|times| times.failed).sum()
    }

    /// The median over rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Times) -> f64) -> f64 {
        median(self.rounds.iter().map(figure).collect())
    }

    /// The median over rounds of this one's figure over the peer's in the same round.
    fn ratio(&self, peer: &Entry, figure: impl Fn(&Times) -> f64) -> f64 {
        median(self.rounds.iter().zip(&peer.rounds).map(|(ours, theirs)| figure(ours) / figure(theirs)).collect())
    }
}

/// The order of a round: each once, and another one first in each round.
fn in_turn(round: u32, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round as usize) % count)
}

/// A line for each of these that failed calls.
pub(crate) fn failures<'a>(title: &str, entries: impl IntoIterator<Item = &'a Entry>) -> Vec<String> {
    let entries = entries.into_iter().filter(|entry| entry.failed() > 0);
    entries.map(|entry| format!("{}: {} of its calls ({title})", entry.contestant.title(), entry.failed())).collect()
}

fn capacity(entries: &[Entry]) -> f64 {
    let channel = entries.iter().find(|entry| entry.contestant == Contestant::Channel);
    channel.map_or(0.0, |channel| channel.median(|times| times.calls_per_second))
}

fn table(title: &str, entries: &[Entry]) -> String {
    let channel = entries.iter().find(|entry| entry.contestant == Contestant::Channel);
    let rows = entries.iter().map(|entry| {
        let micros = |figure: fn(&Times) -> f64| format!("{:.1}", entry.median(figure));
        vec![
            entry.contestant.title(),
            report::grouped(entry.median(|times| times.calls_per_second)),
            channel
                .map_or_else(String::new, |peer| format!("{:.2}", entry.ratio(peer, |times| times.calls_per_second))),
            micros(|times| times.p50_us),
            micros(|times| times.p99_us),
            micros(|times| times.p999_us),
            micros(|times| times.cpu_us_per_call),
            micros(|times| times.behind_cpu_us_per_call),
            entry.failed().to_string(),
        ]
    });
    let header = [
        "",
        "calls/s",
        "of a channel's",
        "p50, us",
        "p99, us",
        "p99.9, us",
        "client CPU, us",
        "CPU behind it, us",
        "failed",
    ];
    report::table(title, &header, rows)
}

/// Calls that failed, in all rounds.
pub(crate) fn failed_record(suffix: &str, ours: &Entry, peer: &Entry) -> Record {
    let [ours_failed, peers_failed] = [ours, peer].map(|entry| entry.failed() as f64);
    Record::new(format!("call_failed{suffix}"), "calls", ours_failed, peers_failed, peer.contestant.title())
}

/// The mesh beside everybody else. Where calls arrive by themselves, their rate is no result.
fn records(entries: &[Entry], suffix: &str, with_rate: bool) -> Vec<Record> {
    type Figure = (&'static str, &'static str, fn(&Times) -> f64);
    let rate: Figure = ("call_rate", "calls/s", |times| times.calls_per_second);
    let others: [Figure; 4] = [
        ("call_p50", "us", |times| times.p50_us),
        ("call_p99", "us", |times| times.p99_us),
        ("call_p999", "us", |times| times.p999_us),
        ("call_cpu", "us", |times| times.cpu_us_per_call),
    ];
    let figures: Vec<Figure> = with_rate.then_some(rate).into_iter().chain(others).collect();
    let mut records = Vec::new();
    for ours in entries.iter().filter(|entry| entry.contestant.is_mesh()) {
        for peer in entries.iter().filter(|entry| !entry.contestant.is_mesh()) {
            let against = peer.contestant.peer_suffix();
            let endpoints = ours.contestant.endpoints_suffix();
            records.extend(figures.iter().map(|&(name, unit, figure)| Record {
                ratio: report::ratio(ours.ratio(peer, figure)),
                ..Record::new(
                    format!("{name}{endpoints}{suffix}{against}"),
                    unit,
                    ours.median(figure),
                    peer.median(figure),
                    peer.contestant.title(),
                )
            }));
            records.push(failed_record(&format!("{endpoints}{suffix}{against}"), ours, peer));
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(failed: [u64; 2]) -> Entry {
        let times = |failed| Times {
            calls: 100,
            failed,
            calls_per_second: 100.0,
            cpu_us_per_call: 1.0,
            behind_cpu_us_per_call: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            p999_us: 1.0,
            by_server: BTreeMap::new(),
        };
        Entry { contestant: Contestant::Channel, rounds: failed.map(times).into() }
    }

    #[test]
    fn every_round_begins_with_another_one_and_leaves_nobody_out() {
        assert_eq!(in_turn(0, 3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(in_turn(1, 3).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(in_turn(5, 3).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(in_turn(5, 0).count(), 0);
    }

    #[test]
    fn calls_that_failed_in_any_round_are_told_to_people_and_programs() {
        let (well, ill) = (entry([0, 0]), entry([0, 2]));
        assert_eq!(failures("64 in flight", [&well, &ill]), ["tonic channel: 2 of its calls (64 in flight)"]);
        let record = failed_record("_in_flight_64", &ill, &well);
        assert_eq!((record.name.as_str(), record.ours, record.ratio), ("call_failed_in_flight_64", 2.0, None));
    }
}
