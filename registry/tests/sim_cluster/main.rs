//! T22: three registry engines on one store in one thread under a paused clock, with faults drawn from a seed: nodes that
//! crash and come back, nodes cut off from the store, from each other or from both, and a store that conflicts, forgets what it did and
//! falls behind. Instances beat by streams and by calls, and some die.
//!
//! A failing run prints its seed; `MESH_SIM_SEED=N cargo test -p registry --test sim_cluster` replays it alone, and
//! `MESH_STORY=full` tries 300 of them.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod instance;
mod judge;
mod nodes;
#[path = "../support/trace.rs"]
mod trace;
mod world;

use std::time::Instant;

use world::World;

/// Seeds that every run of the suite tries, and those of a full one.
const SEEDS: std::ops::Range<u64> = 0..20;
const SEEDS_FULL: std::ops::Range<u64> = 0..300;

fn run(seed: u64, lonely: bool) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, lonely).await;
        world.live().await;
        world.settle().await
    })
}

/// Runs a seed and says which one it was where it ends badly.
fn try_seed(seed: u64, lonely: bool) -> Vec<String> {
    match std::panic::catch_unwind(|| run(seed, lonely)) {
        Ok(trace) => trace,
        Err(fault) => {
            eprintln!("seed {seed} failed: MESH_SIM_SEED={seed} cargo test -p registry --test sim_cluster");
            std::panic::resume_unwind(fault)
        }
    }
}

/// The seeds to try.
#[expect(
    clippy::disallowed_methods,
    reason = "how a failing seed is replayed alone, and how a full run is asked for; nothing but this test reads it"
)]
fn seeds() -> Vec<u64> {
    match (std::env::var("MESH_SIM_SEED"), std::env::var("MESH_STORY").as_deref()) {
        (Ok(seed), _) => vec![seed.parse().expect("MESH_SIM_SEED is a number")],
        (Err(_), Ok("full")) => SEEDS_FULL.collect(),
        (Err(_), _) => SEEDS.collect(),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it took is printed; the clock of the runs is paused")]
fn cluster_sim_seeds() {
    let begun = Instant::now();
    let seeds = seeds();
    let count = seeds.len();
    let events: usize = seeds.into_iter().map(|seed| try_seed(seed, false).len()).sum();
    eprintln!("T22: {count} seeds, {events} events, {:.1} s", begun.elapsed().as_secs_f64());
}

/// A node that reaches neither the store nor another node sends its instances elsewhere before the others remove them.
#[test]
fn nodes_cut_off_from_everything_lose_nobody() {
    for seed in SEEDS {
        try_seed(seed, true);
    }
}

/// A node that had come back to the store for 80 ms thought itself sure, and of leases that others had adopted it told
/// nobody that they beat.
#[test]
fn a_node_that_comes_back_for_a_moment_does_not_keep_beats_to_itself() {
    try_seed(231, false);
}

#[test]
fn one_seed_gives_one_trace() {
    let (first, second) = (try_seed(1, false), try_seed(1, false));
    for (line, (was, is)) in first.iter().zip(&second).enumerate() {
        assert_eq!(was, is, "line {line}");
    }
    assert_eq!(first.len(), second.len());
    assert_ne!(first, try_seed(2, false));
}
