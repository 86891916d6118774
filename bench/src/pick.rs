//! What a pick costs, for each balancer and from two endpoints to ten thousand: it must not grow with them.
//!
//! The balancers are those of the mesh; the endpoints are models of its own, each on cache lines of its own as real ones
//! are, with calls in flight and latencies that move as picks do. Nothing is connected to.

mod field;

use std::fs;
use std::path::Path;

use mesh_client::balancer::{Candidates, Member, Picker, Zone};
use serde::{Deserialize, Serialize};

use crate::args::PickArgs;
use crate::child;
use crate::clock;
use crate::contestant::Rule;
use crate::failure::Failure;
use crate::instructions::collected;
use crate::machine::{self, Cpus};
use crate::report::{self, Record};
use field::Field;

/// How many endpoints.
const SIZES: [u32; 6] = [2, 3, 10, 100, 1_000, 10_000];
/// Picks of a timed run: some hundredths of a second.
const PICKS: u32 = 1_000_000;
/// Picks of a run under callgrind.
const COUNTED_PICKS: u32 = 20_000;

/// What the measured picks took together.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Picked {
    pub(crate) nanos: u64,
    /// Of how many endpoints at least one pick came.
    pub(crate) reached: u32,
}

/// Each balancer with each number of endpoints; as records, the most endpoints beside the fewest.
pub(crate) async fn measure(sizes: &[u32], cpus: Cpus, out: &Path) -> Result<(String, Vec<Record>), Failure> {
    let counts = machine::has("valgrind");
    let mut rows = Vec::new();
    let mut records = Vec::new();
    for rule in Rule::ALL.map(Some).into_iter().chain([None]) {
        let title = rule.map_or("the model alone", Rule::title);
        eprintln!("picks by {title} ...");
        let mut row = vec![title.to_owned()];
        let mut instructions = Vec::new();
        for &endpoints in sizes {
            let args = PickArgs { rule, endpoints, picks: PICKS };
            let timed: Picked = child::pick(&args, cpus).await?;
            let nanos = timed.nanos as f64 / f64::from(PICKS);
            if !counts {
                row.push(format!("{nanos:.0} ns"));
                continue;
            }
            let profile = out.join("pick.callgrind");
            let args = PickArgs { picks: COUNTED_PICKS, ..args };
            child::pick_under_callgrind::<Picked>(&args, &profile).await?;
            let counted = collected(&profile)? as f64 / f64::from(COUNTED_PICKS);
            fs::remove_file(&profile).map_err(Failure::io(format!("remove {}", profile.display())))?;
            row.push(format!("{counted:.0} Ir, {nanos:.0} ns"));
            instructions.push(counted);
        }
        rows.push(row);
        if let (Some(rule), [few, .., many]) = (rule, &instructions[..]) {
            let name = format!("pick_growth_{}", rule.name().replace('-', "_"));
            records.push(Record::new(name, "instructions", *many, *few, format!("{} endpoints", sizes[0])));
        }
    }
    let header: Vec<String> = std::iter::once("one pick, endpoints:".to_owned())
        .chain(sizes.iter().map(|&size| report::grouped(size.into())))
        .collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    Ok((report::table("Pick cost, with what the model of the endpoints takes", &header, rows), records))
}

/// Every size, or those at the ends and in the middle.
pub(crate) fn sizes(quick: bool) -> &'static [u32] {
    if quick { &[2, 100, 10_000] } else { &SIZES }
}

/// The child's side: makes picks, and prints [`Picked`] on stdout.
pub(crate) fn pick(args: &PickArgs) -> Result<(), Failure> {
    let names: Vec<String> =
        (0..args.endpoints).map(|index| format!("10.0.{}.{}:80", index / 256, index % 256)).collect();
    let members: Vec<Member<'_>> = names.iter().map(|name| Member { name, weight: 100, zone: Zone::Other }).collect();
    let picker = args.rule.map(|rule| Picker::new(&rule.balancer(), &members, &[], None));
    let picker = picker.as_ref();
    let mut field = Field::new(args.endpoints as usize);
    // Branch predictors and caches learn from a tenth first.
    picks(picker, &mut field, args.picks / 10 + 1);
    let begin = clock::now();
    measured(picker, &mut field, args.picks);
    let nanos = u64::try_from((clock::now() - begin).as_nanos()).unwrap_or(u64::MAX);
    let picked = Picked { nanos, reached: field.reached() };
    println!("{}", serde_json::to_string(&picked).expect("numbers are JSON"));
    Ok(())
}

/// What callgrind collects, by its name; see the driver's function of the same name for what that asks of other names.
#[inline(never)]
fn measured(picker: Option<&Picker>, field: &mut Field, count: u32) {
    picks(picker, field, count);
}

fn picks(picker: Option<&Picker>, field: &mut Field, count: u32) {
    for turn in 0..count as usize {
        let key = field.key();
        let index = match picker {
            Some(picker) => picker.pick(field, Some(key)).expect("every endpoint can take a call"),
            None => turn % field.count(),
        };
        field.picked(index);
    }
}
