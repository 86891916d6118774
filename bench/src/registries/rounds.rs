//! Interleaved rounds: in each, either side gets a fresh server and every load in turn; each round begins with the other
//! one. Figures are medians over the rounds, ratios medians of the ratios within a round.

use super::load::{self, Depth, Figures, Load, Measured, Order, Task, Who};
use super::server::{Recipe, Server};
use crate::args::{RegistryArgs, Row};
use crate::child;
use crate::failure::Failure;
use crate::report::{self, Record, median};

/// A result.
const FULL: Depth = Depth {
    registrations: 10_000,
    warm_up_ms: 500,
    millis: 2_000,
    connections: 8,
    watchers: 1_000,
    watch_connections: 20,
    changes: 100,
};
/// A look.
const QUICK: Depth = Depth { registrations: 2_000, warm_up_ms: 200, millis: 500, changes: 20, ..FULL };

/// Tables, records, and the loads that are void.
pub(super) struct Results {
    pub(super) tables: String,
    pub(super) records: Vec<Record>,
    pub(super) void: Vec<String>,
}

/// One side under one load, round by round.
struct Entry {
    who: Who,
    load: Load,
    rounds: Vec<Figures>,
}

/// Every load that is wanted, on each side.
pub(super) async fn measure(args: &RegistryArgs, recipes: &[Recipe]) -> Result<Results, Failure> {
    let loads: Vec<Load> = Load::ALL.into_iter().filter(|load| args.wants(row(*load))).collect();
    let depth = if args.quick { QUICK } else { FULL };
    let mut entries: Vec<Entry> = Vec::new();
    if !loads.is_empty() {
        for round in 0..args.runs() {
            for turn in 0..recipes.len() {
                let recipe = &recipes[(turn + round as usize) % recipes.len()];
                eprintln!("round {} of {}: {} ...", round + 1, args.runs(), recipe.who.title());
                for Measured { load, figures } in one(args, recipe, &loads, depth).await? {
                    match entries.iter_mut().find(|entry| entry.who == recipe.who && entry.load == load) {
                        Some(entry) => entry.rounds.push(figures),
                        None => entries.push(Entry { who: recipe.who, load, rounds: vec![figures] }),
                    }
                }
            }
        }
    }
    let ordered = loads.iter().flat_map(|load| entries.iter().filter(|entry| entry.load == *load));
    let ordered: Vec<&Entry> = ordered.collect();
    let void = ordered.iter().filter(|entry| entry.missed() > 0);
    let void = void.map(|entry| format!("{}: {} of {}", entry.who.title(), entry.missed(), entry.load.what()));
    Ok(Results {
        tables: if ordered.is_empty() { String::new() } else { tables(&ordered) },
        records: loads.iter().flat_map(|load| records(*load, &ordered)).collect(),
        void: void.collect(),
    })
}

/// Which row of the command line a load belongs to.
fn row(load: Load) -> Row {
    match load {
        Load::Register => Row::Register,
        Load::Heartbeat => Row::Heartbeat,
        Load::RenewBatched => Row::RenewBatched,
        Load::Resolve | Load::ResolveLocal => Row::Resolve,
        Load::Watch => Row::Watch,
    }
}

/// A fresh server under each load.
async fn one(args: &RegistryArgs, recipe: &Recipe, loads: &[Load], depth: Depth) -> Result<Vec<Measured>, Failure> {
    let server = Server::start(recipe, &args.out).await?;
    let task = Task::Loads(loads.to_vec(), depth);
    let order = Order { who: recipe.who, server: server.address, pid: server.pid(), task };
    let measured = child::load(&order).await;
    server.stop().await;
    measured
}

impl Entry {
    fn median(&self, figure: impl Fn(&Figures) -> f64) -> f64 {
        median(self.rounds.iter().map(figure).collect())
    }

    /// The median over rounds of this one's figure over the peer's in the same round.
    fn ratio(&self, peer: &Self, figure: impl Fn(&Figures) -> f64) -> f64 {
        median(self.rounds.iter().zip(&peer.rounds).map(|(ours, theirs)| figure(ours) / figure(theirs)).collect())
    }

    /// In all rounds.
    fn missed(&self) -> u64 {
        self.rounds.iter().map(|figures| figures.missed).sum()
    }
}

/// Whom ours is compared with under a load: etcd has no other read than its own where only it is asked in two ways.
fn pair<'a>(load: Load, entries: &[&'a Entry]) -> (Option<&'a Entry>, Option<&'a Entry>) {
    let find = |who, load| entries.iter().find(|entry| entry.who == who && entry.load == load).copied();
    let ours = if load == Load::ResolveLocal { Load::Resolve } else { load };
    (find(Who::Ours, ours), find(Who::Etcd, load))
}

fn tables(entries: &[&Entry]) -> String {
    let rows = entries.iter().map(|entry| {
        let figure = |figure: fn(&Figures) -> f64| entry.median(figure);
        let ratio = match pair(entry.load, entries) {
            (Some(ours), Some(etcd)) if entry.who == Who::Etcd => {
                format!("{:.3}", ours.ratio(etcd, |figures| figures.server_cpu_us))
            }
            _ => String::new(),
        };
        let generator = figure(|figures| figures.generator_cpu_us);
        vec![
            entry.load.what().to_owned(),
            entry.who.title().to_owned(),
            micros(figure(|figures| figures.server_cpu_us)),
            ratio,
            if entry.missed() > 0 { "VOID".to_owned() } else { report::grouped(figure(|figures| figures.per_second)) },
            report::grouped(figure(|figures| figures.p50_us)),
            report::grouped(figure(|figures| figures.p99_us)),
            micros(generator),
            report::grouped(1e6 / generator),
        ]
    });
    let header = [
        "one operation",
        "",
        "server CPU, us",
        "ours of it",
        "a second",
        "p50, us",
        "p99, us",
        "generator CPU, us",
        "its ceiling, a second",
    ];
    report::table(&format!("Loads, {} in flight", load::IN_FLIGHT), &header, rows)
}

/// Small figures with more digits.
fn micros(figure: f64) -> String {
    if figure < 10.0 { format!("{figure:.2}") } else { format!("{figure:.1}") }
}

fn records(load: Load, entries: &[&Entry]) -> Vec<Record> {
    type Figure = (&'static str, &'static str, fn(&Figures) -> f64);
    let figures: [Figure; 5] = [
        ("cpu", "us", |figures| figures.server_cpu_us),
        ("rate", "operations/s", |figures| figures.per_second),
        ("p50", "us", |figures| figures.p50_us),
        ("p99", "us", |figures| figures.p99_us),
        ("generator_cpu", "us", |figures| figures.generator_cpu_us),
    ];
    let (Some(ours), etcd) = pair(load, entries) else { return Vec::new() };
    if [Some(ours), etcd].into_iter().flatten().any(|entry| entry.missed() > 0) {
        return Vec::new();
    }
    let record = |(name, unit, figure): Figure| {
        let name = format!("{}_{name}", load.name());
        match etcd {
            Some(etcd) => Record {
                ratio: report::ratio(ours.ratio(etcd, figure)),
                ..Record::new(name, unit, ours.median(figure), etcd.median(figure), Who::Etcd.title())
            },
            None => Record::alone(name, unit, ours.median(figure)),
        }
    };
    figures.into_iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(who: Who, load: Load, server_cpu_us: [f64; 3], missed: u64) -> Entry {
        let figures = |server_cpu_us| Figures {
            operations: 100,
            missed,
            per_second: 10.0,
            server_cpu_us,
            generator_cpu_us: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
        };
        Entry { who, load, rounds: server_cpu_us.map(figures).into() }
    }

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let ours = entry(Who::Ours, Load::Heartbeat, [1.0, 20.0, 3.0], 0);
        let etcd = entry(Who::Etcd, Load::Heartbeat, [10.0, 200.0, 20.0], 0);
        let records = records(Load::Heartbeat, &[&ours, &etcd]);
        assert_eq!((records[0].name.as_str(), records[0].ratio), ("heartbeat_cpu", Some(0.1)));
        assert_eq!((records[0].ours, records[0].peer), (3.0, Some(20.0)));
    }

    #[test]
    fn a_load_with_missed_changes_is_no_result() {
        let ours = entry(Who::Ours, Load::Watch, [1.0; 3], 1);
        let etcd = entry(Who::Etcd, Load::Watch, [10.0; 3], 0);
        assert!(records(Load::Watch, &[&ours, &etcd]).is_empty());
        assert!(tables(&[&ours, &etcd]).contains("VOID"));
    }

    #[test]
    fn ours_alone_is_a_record_without_a_peer() {
        let ours = entry(Who::Ours, Load::RenewBatched, [1.0; 3], 0);
        let records = records(Load::RenewBatched, &[&ours]);
        assert_eq!((records[1].name.as_str(), records[1].peer, records[1].ratio), ("renew_batched_rate", None, None));
    }
}
