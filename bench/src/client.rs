//! `bench client`: the order of a run.

use std::fs;

use crate::args::{ClientArgs, Section};
use crate::child::EchoServer;
use crate::contestant::Contestant;
use crate::failure::Failure;
use crate::instructions::{self, Depth};
use crate::{gate, machine, profile, report};

/// Measures what was asked for, prints it, and writes it down.
pub(crate) async fn client(args: &ClientArgs) -> Result<(), Failure> {
    fs::create_dir_all(&args.out).map_err(Failure::io(format!("make {}", args.out.display())))?;
    let depth = if args.quick { Depth::QUICK } else { Depth::FULL };
    let ports = Contestant::ALL.iter().map(|contestant| contestant.endpoints()).max().unwrap_or(1);
    let server = EchoServer::start(ports).await?;

    if let Some(contestant) = args.profile {
        let path = profile::profile(&server, contestant, depth, &args.out).await?;
        println!("{}", path.display());
        return Ok(());
    }
    println!("{}", machine::describe().join("\n"));
    if args.check {
        let payloads = [instructions::SMALL_BYTES];
        let costs = instructions::measure(&server, &gate::CONTESTANTS, &payloads, depth, &args.out).await?;
        println!("{}", instructions::report(&costs).0);
        gate::judge(&costs)?.iter().for_each(|line| println!("{line}"));
        return Ok(());
    }

    let mut records = Vec::new();
    if args.wants(Section::Instructions) {
        if machine::has("valgrind") {
            let payloads = instructions::PAYLOADS;
            let costs = instructions::measure(&server, &Contestant::ALL, &payloads, depth, &args.out).await?;
            let (table, measured) = instructions::report(&costs);
            println!("{table}");
            records.extend(measured);
        } else {
            println!("instructions are left out: valgrind is not here");
        }
    }
    report::write_json(&args.out.join("client.json"), &records)
}
