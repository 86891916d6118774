//! How long our registry takes to be ready again after it was killed, with what is in its store.

use super::load::{Order, Task, Who};
use super::server::{Recipe, Server};
use crate::args::RegistryArgs;
use crate::child;
use crate::failure::Failure;
use crate::report::{self, Record};

/// Instances in the store.
const INSTANCES: u64 = 10_000;
/// How often it is killed; the median counts.
const KILLS: usize = 3;

/// Fills a registry, kills it, and starts it again on what it left.
pub(super) async fn measure(args: &RegistryArgs, recipe: &Recipe) -> Result<(String, Record), Failure> {
    eprintln!("restart of {} ...", recipe.who.title());
    let mut server = Server::start(recipe, &args.out).await?;
    let task = Task::Fill { first: 0, count: INSTANCES };
    child::load(&Order { who: Who::Ours, server: server.address, pid: server.pid(), task }).await?;
    let mut times = Vec::new();
    for _ in 0..KILLS {
        let (again, took) = server.killed_and_started_again(recipe).await?;
        server = again;
        times.push(took.as_secs_f64() * 1e3);
    }
    server.stop().await;
    times.sort_by(f64::total_cmp);
    let record = Record::alone("restart_10000", "ms", times[KILLS / 2]);
    let row = std::iter::once(report::grouped(INSTANCES as f64)).chain(times.iter().map(|time| report::grouped(*time)));
    let header = ["instances in the store", "fastest, ms", "median, ms", "slowest, ms"];
    Ok((report::table("Start after a kill, until it says that it is ready", &header, [row.collect()]), record))
}
