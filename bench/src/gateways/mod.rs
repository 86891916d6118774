//! `bench gateway`: our gateway beside Envoy's transcoder and a direct gRPC call, on the same descriptors.
//!
//! ```text
//! backend    a service with google.api.http rules that answers from memory    fleet    the processes of a run
//! order      what a process that asks is told to do                           ask/     that process: HTTP/1.1, or gRPC
//! ```
//!
//! What is compared is the CPU time of the process in the middle: all of its threads, kernel included. The backend and the
//! process that asks are the same for everybody.

mod ask;
pub(crate) mod backend;
mod fleet;
mod order;

use std::fs;

pub(crate) use ask::ask;
pub(crate) use order::Order;
use order::{Operation, Way};

use crate::args::GatewayArgs;
use crate::child;
use crate::drive::Times;
use crate::failure::Failure;
use crate::report::{self, Record, median};
use crate::{envoy, machine};
use fleet::Fleet;

/// Requests in flight: one, for the time that one takes, and as many as keep the middle busy.
const IN_FLIGHT: [u16; 2] = [1, 32];

/// One way's rounds of one operation.
struct Entry {
    way: Way,
    rounds: Vec<Times>,
}

/// Measures, prints it, and writes it down.
pub(crate) async fn gateway(args: &GatewayArgs) -> Result<(), Failure> {
    fs::create_dir_all(&args.out).map_err(Failure::io(format!("make {}", args.out.display())))?;
    println!("{}\n{}", machine::describe().join("\n"), machine::versions());
    let envoy = match envoy::installed(&args.out) {
        Some(program) => Some(program),
        None => match envoy::install(&args.out).await {
            Ok(program) => Some(program),
            Err(failure) => {
                println!("Envoy is left out: {failure}");
                None
            }
        },
    };
    let fleet = Fleet::start(args, envoy.as_deref()).await?;
    fleet.lines().iter().for_each(|line| println!("{line}"));

    let (mut records, mut failed) = (Vec::new(), Vec::new());
    for operation in Operation::ALL {
        for in_flight in IN_FLIGHT {
            eprintln!("{}, {in_flight} in flight, {} rounds ...", operation.title(), args.runs());
            let entries = rounds(args, &fleet, operation, in_flight).await?;
            let title = format!("{}, {in_flight} in flight", operation.title());
            println!("{}", table(&title, &entries));
            failed.extend(failures(&title, &entries));
            records.extend(compared(&entries, operation, in_flight));
        }
    }
    report::write_json(&args.out.join("gateway.json"), &records)?;
    if failed.is_empty() { Ok(()) } else { Err(Failure::Calls(failed)) }
}

/// Every round lets each way be asked once, and begins with another one.
async fn rounds(
    args: &GatewayArgs,
    fleet: &Fleet,
    operation: Operation,
    in_flight: u16,
) -> Result<Vec<Entry>, Failure> {
    let mut entries: Vec<Entry> = fleet.ways().into_iter().map(|way| Entry { way, rounds: Vec::new() }).collect();
    let count = entries.len();
    for round in 0..args.runs() {
        for turn in (0..count).map(|turn| (turn + round as usize) % count) {
            let entry = &mut entries[turn];
            let (server, pid) = fleet.at(entry.way);
            let [warm_up_ms, millis] = args.millis();
            let order = Order { way: entry.way, operation, server, pid, in_flight, warm_up_ms, millis };
            entry.rounds.push(child::ask(&order).await?);
        }
    }
    Ok(entries)
}

impl Entry {
    fn median(&self, figure: fn(&Times) -> f64) -> f64 {
        median(self.rounds.iter().map(figure).collect())
    }

    /// The median over rounds of this one's figure over the peer's in the same round.
    fn ratio(&self, peer: &Entry, figure: fn(&Times) -> f64) -> f64 {
        median(self.rounds.iter().zip(&peer.rounds).map(|(ours, theirs)| figure(ours) / figure(theirs)).collect())
    }

    fn failed(&self) -> u64 {
        self.rounds.iter().map(|times| times.failed).sum()
    }
}

fn table(title: &str, entries: &[Entry]) -> String {
    let rows = entries.iter().map(|entry| {
        let micros = |figure: fn(&Times) -> f64| format!("{:.1}", entry.median(figure));
        vec![
            entry.way.title().to_owned(),
            report::grouped(entry.median(|times| times.calls_per_second)),
            micros(|times| times.p50_us),
            micros(|times| times.p99_us),
            if entry.way == Way::Direct { "-".to_owned() } else { micros(|times| times.behind_cpu_us_per_call) },
            micros(|times| times.cpu_us_per_call),
            entry.failed().to_string(),
        ]
    });
    let header = ["", "requests/s", "p50, us", "p99, us", "CPU in the middle, us", "CPU of who asks, us", "failed"];
    report::table(title, &header, rows)
}

fn failures(title: &str, entries: &[Entry]) -> Vec<String> {
    let entries = entries.iter().filter(|entry| entry.failed() > 0);
    entries.map(|entry| format!("{}: {} of its requests ({title})", entry.way.title(), entry.failed())).collect()
}

/// Our gateway beside everybody else; a direct call has nobody in the middle.
fn compared(entries: &[Entry], operation: Operation, in_flight: u16) -> Vec<Record> {
    type Figure = (&'static str, &'static str, fn(&Times) -> f64);
    const FIGURES: [Figure; 4] = [
        ("rate", "requests/s", |times| times.calls_per_second),
        ("p50", "us", |times| times.p50_us),
        ("p99", "us", |times| times.p99_us),
        ("cpu", "us", |times| times.behind_cpu_us_per_call),
    ];
    let mut records = Vec::new();
    let Some(ours) = entries.iter().find(|entry| entry.way == Way::Gateway) else { return records };
    for peer in entries.iter().filter(|entry| entry.way != Way::Gateway) {
        for (name, unit, figure) in FIGURES {
            if name == "cpu" && peer.way == Way::Direct {
                continue;
            }
            let against = if peer.way == Way::Direct { "_over_direct" } else { "" };
            let name = format!("gateway_{name}_{}_in_flight_{in_flight}{against}", operation.name());
            records.push(Record {
                ratio: report::ratio(ours.ratio(peer, figure)),
                ..Record::new(name, unit, ours.median(figure), peer.median(figure), peer.way.title())
            });
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(way: Way, cpu: f64, failed: u64) -> Entry {
        let times = Times {
            calls: 100,
            failed,
            calls_per_second: 100.0,
            cpu_us_per_call: 1.0,
            behind_cpu_us_per_call: cpu,
            p50_us: 1.0,
            p99_us: 1.0,
            p999_us: 1.0,
            by_server: BTreeMap::new(),
        };
        Entry { way, rounds: vec![times] }
    }

    #[test]
    fn the_gateway_is_compared_with_each_of_the_others_and_a_direct_call_has_no_middle() {
        let entries = [entry(Way::Direct, 0.0, 0), entry(Way::Gateway, 30.0, 0), entry(Way::Envoy, 60.0, 0)];
        let records = compared(&entries, Operation::Get, 32);
        let cpu: Vec<_> = records.iter().filter(|record| record.name.contains("_cpu_")).collect();
        assert_eq!(cpu.len(), 1);
        assert_eq!((cpu[0].name.as_str(), cpu[0].ratio), ("gateway_cpu_get_in_flight_32", Some(0.5)));
    }

    #[test]
    fn requests_that_failed_are_told() {
        let entries = [entry(Way::Gateway, 1.0, 0), entry(Way::Envoy, 1.0, 3)];
        assert_eq!(failures("a read", &entries), ["Envoy: 3 of its requests (a read)"]);
    }
}
