//! The failure table: what the mesh client makes of servers that die, stop, lie, hang or leave, over real processes.
//!
//! Each row is a small story: servers in processes of their own, an open-loop load, a fault, and a promise. The rows run
//! one after the other; then they stand in one table:
//!
//! ```text
//! cargo test -p meshctl --test failures                       all of them, in their short form
//! cargo test -p meshctl --test failures -- killed slow        those whose names contain one of these
//! MESH_STORY=full cargo test -p meshctl --test failures       outages as long as the promises name them
//! ```
//!
//! The program is its own fault server: it runs itself once more with [`SERVE`] as first argument.
//!
//! A row counts only if its load was healthy before the fault: a story told on a mesh that does not work in the first place
//! says nothing, and is a failure. Latency counts from the moment a call was due. Where a promise is about how fast the client
//! learns, it is judged by the calls that went wrong until then: a count holds on a machine that is busy otherwise, a
//! millisecond does not. Times are printed beside it.

#[path = "../harness/mod.rs"]
mod harness;

mod args;
mod fleet;
mod load;
mod proxy;
mod report;
mod rows;
mod serve;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mesh_runtime::clock;

use crate::args::{Args, Length};
use crate::report::{Finding, Table};
use crate::rows::{ROWS, Row, Scene};

/// The first argument of a process that is to be a fault server.
pub(crate) const SERVE: &str = "serve-faults";

/// Longest that a row may take, beside its outage in the full form: only a hung one gets there.
const ROW_MAX: Duration = Duration::from_secs(150);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be started");
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(SERVE) {
        runtime.block_on(serve::serve(words.collect()));
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    let chosen: Vec<&'static Row> = ROWS.iter().filter(|row| args.wants(row.name)).collect();
    if args.list {
        chosen.iter().for_each(|row| println!("{}: test", row.name));
        return ExitCode::SUCCESS;
    }
    runtime.block_on(tell(&args, &chosen))
}

/// Runs the rows, prints each as it ends and the table at the end.
async fn tell(args: &Args, chosen: &[&'static Row]) -> ExitCode {
    println!("\nrunning {} rows", chosen.len());
    let began = clock::now();
    let mut table = Table::default();
    for row in chosen {
        let seed = args.seed.unwrap_or_else(mesh_runtime::entropy::seed);
        let scene = Scene { seed, length: args.length, rate: args.rate };
        println!("{}: seed {}", row.name, scene.seed);
        let begun = clock::now();
        table.add(row, run(row, scene).await, begun.elapsed());
    }
    table.close(ROWS.len() - chosen.len(), began.elapsed())
}

/// One row in a task of its own: a panic is the end of the row, and not of the table.
async fn run(row: &'static Row, scene: Scene) -> Finding {
    let most = ROW_MAX + if scene.length == Length::Full { rows::AWAY_FULL } else { Duration::ZERO };
    let mut telling = tokio::spawn((row.run)(scene));
    match tokio::time::timeout(most, &mut telling).await {
        Ok(Ok(finding)) => finding,
        Ok(Err(ended)) => Finding::void(ended.to_string()),
        Err(_) => {
            telling.abort();
            Finding::void(format!("it hung: no end after {most:?}"))
        }
    }
}
