//! What a registered instance takes of memory: by how much the server's resident memory grows with them, from when it had
//! been asked a few times.

use std::time::Duration;

use tokio::time::sleep;

use super::load::{Order, Task, Who};
use super::server::{Recipe, Server};
use crate::args::RegistryArgs;
use crate::child;
use crate::failure::Failure;
use crate::report::{self, Record};

/// Registered before the first look, so that what any traffic takes is no instance's.
const WARM_UP: u64 = 500;
/// Instances more at each look after it.
const SIZES: [u64; 2] = [10_000, 100_000];
/// What is still on its way to the disk or back to the system gets this long.
const SETTLE: Duration = Duration::from_secs(2);

/// Each side at each size, once: memory hardly differs from run to run.
pub(super) async fn measure(args: &RegistryArgs, recipes: &[Recipe]) -> Result<(String, Vec<Record>), Failure> {
    let sizes = if args.quick { &SIZES[..1] } else { &SIZES[..] };
    let mut measured: Vec<(Who, Vec<f64>)> = Vec::new();
    for recipe in recipes {
        eprintln!("memory of {} ...", recipe.who.title());
        let server = Server::start(recipe, &args.out).await?;
        let each = fill(recipe.who, &server, sizes).await;
        server.stop().await;
        measured.push((recipe.who, each?));
    }
    let of = |who: Who| measured.iter().find(|(side, _)| *side == who).map(|(_, each)| each);
    let mut records = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        let name = match size {
            100_000 => "memory_per_instance".to_owned(),
            size => format!("memory_per_instance_{size}"),
        };
        let Some(ours) = of(Who::Ours) else { continue };
        records.push(match of(Who::Etcd) {
            Some(etcd) => Record::new(name, "bytes", ours[index], etcd[index], Who::Etcd.title()),
            None => Record::alone(name, "bytes", ours[index]),
        });
    }
    let rows = measured.iter().map(|(who, each)| {
        let figures = each.iter().map(|bytes| report::grouped(*bytes));
        std::iter::once(who.title().to_owned()).chain(figures).collect()
    });
    let header: Vec<String> = sizes.iter().map(|size| report::grouped(*size as f64)).collect();
    let header: Vec<&str> =
        std::iter::once("bytes an instance, instances:").chain(header.iter().map(|size| &**size)).collect();
    Ok((report::table("Memory", &header, rows), records))
}

/// Bytes an instance at each size.
async fn fill(who: Who, server: &Server, sizes: &[u64]) -> Result<Vec<f64>, Failure> {
    let ask = async |first: u64, count: u64| {
        let task = Task::Fill { first, count };
        child::load(&Order { who, server: server.address, pid: server.pid(), task }).await?;
        sleep(SETTLE).await;
        server.resident_bytes()
    };
    // Beyond the largest, so that numbers do not meet.
    let empty = ask(SIZES[1], WARM_UP).await?;
    let (mut each, mut there) = (Vec::new(), 0);
    for &size in sizes {
        let full = ask(there, size - there).await?;
        there = size;
        each.push(full.saturating_sub(empty) as f64 / size as f64);
    }
    Ok(each)
}
