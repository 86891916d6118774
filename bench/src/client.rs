//! `bench client`: the order of a run.

use std::fs;
use std::path::Path;

use crate::args::{ClientArgs, Section, ServeArgs};
use crate::child::EchoServer;
use crate::contestant::{Contestant, PEER_ENDPOINTS};
use crate::echo::Stub;
use crate::envoy::{self, Envoy};
use crate::failure::Failure;
use crate::instructions::{self, Counter, Depth};
use crate::machine::Cpus;
use crate::timed::{self, Arena, Rounds};
use crate::{gate, machine, pick, profile, quality, report};

/// Measures what was asked for, prints it, and writes it down.
pub(crate) async fn client(args: &ClientArgs) -> Result<(), Failure> {
    fs::create_dir_all(&args.out).map_err(Failure::io(format!("make {}", args.out.display())))?;
    let depth = if args.quick { Depth::QUICK } else { Depth::FULL };
    let contestants = Contestant::ALL.into_iter().chain(args.profile);
    let ports = contestants.map(Contestant::endpoints).max().unwrap_or(1);
    let cpus = Cpus::choose();
    let server = ServeArgs { ports, service_us: 0, places: 1, first_slower: 1 };
    let server = EchoServer::start(&server, cpus).await?;

    let counter = Counter { server: &server, depth, out: &args.out };
    if let Some(contestant) = args.profile {
        let path = profile::profile(counter, contestant).await?;
        println!("{}", path.display());
        return Ok(());
    }
    println!("{}\n{}", machine::describe().join("\n"), machine::versions());
    println!("server: {}", server.command_line());
    println!(
        "client: bench drive --contestant CONTESTANT --servers … sequence|closed|open, one thread, a process for each run"
    );
    let json = args.out.join("client.json");
    if args.check {
        return check(counter, &json).await;
    }

    if !Contestant::built_in().contains(&Contestant::Xds) {
        println!("tonic-xds is left out: this was built without --features peers");
    }
    let mut records = Vec::new();
    if args.wants(Section::Instructions) {
        if machine::has("valgrind") {
            let payloads = instructions::PAYLOADS;
            let mut costs = counter.measure(Stub::Bare, &Contestant::built_in(), &payloads).await?;
            costs.extend(counter.measure(Stub::Generated, &gate::CONTESTANTS, &[instructions::SMALL_BYTES]).await?);
            let (table, measured) = instructions::report(&costs);
            println!("{table}");
            records.extend(measured);
        } else {
            println!("instructions are left out: valgrind is not here");
        }
    }
    println!("{}", cpus.describe());
    let envoy = envoy(args, &server).await?;
    let arena = Arena {
        server: &server,
        envoy: envoy.as_ref(),
        cpus,
        rounds: if args.quick { Rounds::QUICK } else { Rounds::FULL },
    };
    let mut channel_capacity = None;
    let mut failed = Vec::new();
    if args.wants(Section::Closed) {
        let results = timed::closed(arena).await?;
        println!("{}", results.tables);
        channel_capacity = Some(results.channel_capacity);
        records.extend(results.records);
        failed.extend(results.failed);
    }
    if args.wants(Section::Open) {
        let results = timed::open(arena, channel_capacity).await?;
        println!("{}", results.tables);
        records.extend(results.records);
        failed.extend(results.failed);
    }
    if args.wants(Section::Pick) {
        let (table, measured) = pick::measure(pick::sizes(args.quick), cpus, &args.out).await?;
        println!("{table}");
        records.extend(measured);
    }
    if args.wants(Section::Quality) {
        let quality = quality::measure(cpus, arena.rounds).await?;
        println!("{}", quality.table);
        records.extend(quality.records);
        failed.extend(quality.failed);
    }
    report::write_json(&json, &records)?;
    if failed.is_empty() { Ok(()) } else { Err(Failure::Calls(failed)) }
}

/// Measures what is gated, and judges it once everything is said.
async fn check(counter: Counter<'_>, json: &Path) -> Result<(), Failure> {
    let payloads = [instructions::SMALL_BYTES];
    let mut measured = Vec::new();
    for _round in 0..gate::ROUNDS {
        measured.extend(counter.measure(Stub::Bare, &gate::CONTESTANTS, &payloads).await?);
    }
    let median = |contestant| gate::median(measured.clone(), contestant);
    let judged: Vec<_> = gate::CONTESTANTS.into_iter().filter_map(median).collect();
    let beside = counter.measure(Stub::Generated, &gate::CONTESTANTS, &payloads).await?;
    let verdicts = gate::verdicts(&judged)?;
    let (tables, records) = instructions::report(&[judged, beside].concat());
    println!("{tables}\n{}", gate::block(&verdicts));
    report::write_json(json, &records)?;
    gate::judge(&verdicts)
}

/// An Envoy, where there is one or one is asked for, and something timed is to be measured.
async fn envoy(args: &ClientArgs, server: &EchoServer) -> Result<Option<Envoy>, Failure> {
    if !args.wants(Section::Closed) && !args.wants(Section::Open) {
        return Ok(None);
    }
    let program = match envoy::installed(&args.out) {
        Some(program) => program,
        None if args.envoy => envoy::install(&args.out).await?,
        None => {
            println!("Envoy is left out: it is not installed; --envoy does that");
            return Ok(None);
        }
    };
    let servers = server.addresses(PEER_ENDPOINTS);
    let config = envoy::Config { codec: "HTTP2", servers: &servers, filter: None, workers: 1 };
    let envoy = Envoy::start(&program, config, &args.out).await?;
    println!("{} --concurrency 1, on any CPU", envoy.version());
    Ok(Some(envoy))
}
