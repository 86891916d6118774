//! `bench registry`: our registry beside etcd, with the same work on both.
//!
//! ```text
//! payload    what is registered, byte for byte the same       server    the two servers, each fresh, and what they hold
//! load/      a process of its own that asks, and is measured  rounds    interleaved rounds of every load on both
//! memory     what an instance takes                           renewals  what a renewal takes, in process
//! restart    how long a start takes with what is in the store
//! budgets    what each figure may be, and whether it is
//! ```

mod budgets;
pub(crate) mod load;
mod memory;
mod payload;
pub(crate) mod renewals;
mod restart;
mod rounds;
mod server;

use std::fs;

use crate::args::{RegistryArgs, Row, StoreArg};
use crate::failure::Failure;
use crate::machine::{self, Cpus};
use crate::{gate, report};
use payload::{INSTANCES_PER_SERVICE, Instance, TTL_SECONDS};
use server::Recipe;

/// Measures what was asked for, prints it, and writes it down.
pub(crate) async fn registry(args: &RegistryArgs) -> Result<(), Failure> {
    fs::create_dir_all(&args.out).map_err(Failure::io(format!("make {}", args.out.display())))?;
    println!("{}\n{}", machine::describe().join("\n"), machine::versions());
    let cpus = Cpus::choose();
    let json = args.out.join("registry.json");
    let (mut records, mut faults, mut gates) = (Vec::new(), Vec::new(), Vec::new());

    if args.measures_servers() {
        let mut recipes = vec![Recipe::ours(args.registry.as_deref(), args.store).await?];
        match Recipe::etcd(&args.etcd).await {
            Some(etcd) => recipes.push(etcd),
            None => println!("etcd is left out: there is no {} that says its version", args.etcd.display()),
        }
        for recipe in &recipes {
            println!("{}: {}\n    durability: {}", recipe.version, recipe.command_line(), recipe.durability());
        }
        println!(
            "each record {} bytes, {INSTANCES_PER_SERVICE} instances a service, leases of {TTL_SECONDS} s; servers and \
             generator wherever the kernel puts them; data of both below {}",
            Instance(0).record(0).len(),
            args.out.display()
        );
        let results = rounds::measure(args, &recipes).await?;
        println!("{}", results.tables);
        records.extend(results.records);
        faults.extend(results.void);
        if args.wants(Row::Memory) {
            let (table, measured) = memory::measure(args, &recipes).await?;
            println!("{table}");
            records.extend(measured);
        }
    }
    if args.wants(Row::Restart) && args.store == StoreArg::File {
        let ours = Recipe::ours(args.registry.as_deref(), args.store).await?;
        let (table, measured) = restart::measure(args, &ours).await?;
        println!("{table}");
        records.push(measured);
    }
    if args.wants(Row::Renewals) {
        let results = renewals::measure(cpus, &args.out).await?;
        println!("{}", results.table);
        records.extend(results.records);
        match results.growth {
            Some(verdict) => gates.push(verdict),
            None => println!("instructions are left out: valgrind is not here"),
        }
    }
    println!("{}", budgets::block(&records));
    println!("{}", gate::lines(&gates));
    report::write_json(&json, &records)?;
    if !faults.is_empty() {
        return Err(Failure::Calls(faults));
    }
    gate::judge(&gates)
}
