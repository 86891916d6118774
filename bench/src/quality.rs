//! How well calls are spread when one of eight servers is ten times slower than its siblings.
//!
//! Each server works on a few calls at once and lets others wait, as real ones do; the load is one that an even split makes
//! the slow one just bear. So whoever splits evenly has an eighth of its calls wait there, and whoever looks does not.

use crate::args::ServeArgs;
use crate::child::EchoServer;
use crate::contestant::{Contestant, Rule};
use crate::drive::Times;
use crate::failure::Failure;
use crate::instructions::SMALL_BYTES;
use crate::machine::Cpus;
use crate::report::{self, Record};
use crate::timed::{Arena, Entry, Rounds, failed_record, failures, open_plan};

const SERVERS: u16 = 8;
/// The slow one is the first.
const SLOW: u32 = 1;
const SERVICE_US: u64 = 2_000;
const PLACES: usize = 4;
const SLOWER: u32 = 10;
/// The slow server does 4 places / 20 ms = 200 a second; an even split sends it 150.
const PER_SECOND: f64 = 1_200.0;

/// What came of it.
pub(crate) struct Quality {
    pub(crate) table: String,
    pub(crate) records: Vec<Record>,
    /// Who failed calls: even the slow server bears its even share.
    pub(crate) failed: Vec<String>,
}

/// Runs every balancer, and tonic's.
pub(crate) async fn measure(cpus: Cpus, rounds: Rounds) -> Result<Quality, Failure> {
    let server = ServeArgs { ports: SERVERS, service_us: SERVICE_US, places: PLACES, first_slower: SLOWER };
    let server = EchoServer::start(&server, cpus).await?;
    // Latencies have to be learnt before they can be acted on, and the slow one has a queue to grow.
    let rounds = Rounds { warm_up_ms: rounds.warm_up_ms * 3, millis: rounds.millis * 2, ..rounds };
    let contestants: Vec<Contestant> = std::iter::once(Contestant::BalanceList { endpoints: SERVERS })
        .chain(Rule::ALL.map(|rule| Contestant::MeshBy { endpoints: SERVERS, rule }))
        .collect();
    eprintln!("one slow server of {SERVERS}, {} rounds ...", rounds.count);
    let arena = Arena { server: &server, envoy: None, cpus, rounds };
    let entries = arena.run(&contestants, SMALL_BYTES, open_plan(rounds, PER_SECOND)).await?;

    let rows = entries.iter().map(|entry| {
        let millis = |figure: fn(&Times) -> f64| format!("{:.1}", entry.median(figure) / 1e3);
        vec![
            entry.contestant.title(),
            millis(|times| times.p50_us),
            millis(|times| times.p99_us),
            millis(|times| times.p999_us),
            format!("{:.1} %", entry.median(slow_share) * 100.0),
            entry.failed().to_string(),
        ]
    });
    let title = format!(
        "One of {SERVERS} servers {SLOWER} times slower ({} ms, {PLACES} at once), {} calls a second",
        SERVICE_US / 1000 * u64::from(SLOWER),
        report::grouped(PER_SECOND)
    );
    let table = report::table(&title, &["", "p50, ms", "p99, ms", "p99.9, ms", "to the slow one", "failed"], rows);
    Ok(Quality { table, records: records(&entries), failed: failures(&title, &entries) })
}

fn slow_share(times: &Times) -> f64 {
    let slow = times.by_server.get(&SLOW).copied().unwrap_or_default();
    slow as f64 / (times.calls.max(1) as f64)
}

/// The default balancer beside tonic's.
fn records(entries: &[Entry]) -> Vec<Record> {
    let find = |contestant| entries.iter().find(|entry| entry.contestant == contestant);
    let ours = find(Contestant::MeshBy { endpoints: SERVERS, rule: Rule::PeakEwma });
    let (Some(ours), Some(peer)) = (ours, find(Contestant::BalanceList { endpoints: SERVERS })) else {
        return Vec::new();
    };
    let record = |name, unit, figure: fn(&Times) -> f64| {
        Record::new(name, unit, ours.median(figure), peer.median(figure), peer.contestant.title())
    };
    vec![
        record("slow_server_p50", "us", |times| times.p50_us),
        record("slow_server_p99", "us", |times| times.p99_us),
        record("slow_server_share", "share", slow_share),
        failed_record("_slow_server", ours, peer),
    ]
}
