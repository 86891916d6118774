//! The real registry and the real client in one thread, over pipes, under a paused clock, with faults drawn from a seed.
//!
//! A failing run prints its seed; `MESH_SIM_SEED=N cargo test -p registry --test sim_mesh` replays it alone.

mod net;
#[path = "../support/trace.rs"]
mod trace;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_client::{Balancer, LoadReport, Policy};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tonic::Status;

use trace::Trace;
use world::{CALLER, REGISTRY, SERVICE, TTL, World, call, instance_address};

/// Instances at rest. Faults leave at least two of them callable.
const INSTANCES: u8 = 4;
/// Faults in one run.
const FAULTS: u32 = 10;
/// Between two calls.
const CALL_EVERY: Duration = Duration::from_millis(20);
/// Seeds that every run of the suite tries.
const SEEDS: std::ops::Range<u64> = 0..8;

/// What goes wrong next.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// An instance dies without a word, and another start of it comes later.
    Crash { number: u8, away: Duration },
    /// An instance drains, leaves, and another start of it comes later.
    Retire { number: u8, away: Duration },
    /// The registry dies, forgets everything, and comes back.
    Registry { away: Duration },
    /// An instance and the registry do not reach each other.
    Silence { number: u8, long: Duration },
    /// The caller and the registry do not reach each other.
    Deafness { long: Duration },
}

impl Fault {
    fn draw(rng: &mut StdRng) -> Self {
        let number = rng.random_range(0..INSTANCES);
        let away = Duration::from_millis(rng.random_range(100..6_000));
        let long = Duration::from_millis(rng.random_range(100..12_000));
        match rng.random_range(0..5) {
            0 => Self::Crash { number, away },
            1 => Self::Retire { number, away },
            2 => Self::Registry { away },
            3 => Self::Silence { number, long },
            _ => Self::Deafness { long },
        }
    }

    async fn happen(self, world: &mut World) {
        match self {
            Self::Crash { number, away } => {
                world.crash_instance(number);
                sleep(away).await;
                world.start_instance(number);
            }
            Self::Retire { number, away } => {
                world.retire_instance(number).await;
                sleep(away).await;
                world.start_instance(number);
            }
            Self::Registry { away } => {
                world.crash_registry();
                sleep(away).await;
                world.start_registry().await;
            }
            Self::Silence { number, long } => cut(world, instance_address(number), long).await,
            Self::Deafness { long } => cut(world, CALLER, long).await,
        }
    }
}

async fn cut(world: &World, from: std::net::SocketAddr, long: Duration) {
    world.trace.note(format!("cut {from} from the registry"));
    world.net().set_cut(from, REGISTRY, true);
    sleep(long).await;
    world.net().set_cut(from, REGISTRY, false);
    world.trace.note(format!("mended {from}"));
}

/// Everything a run has to show for itself.
struct Outcome {
    trace: Vec<String>,
    calls: usize,
    failed: Vec<String>,
}

/// Calls every [`CALL_EVERY`] until it is dropped; a call ends by its own deadline, so that at most fifty are open.
async fn keep_calling(world_channel: mesh_client::MeshChannel, trace: Trace, tally: Arc<Mutex<(usize, Vec<String>)>>) {
    let mut ticks = interval(CALL_EVERY);
    let mut calls = JoinSet::new();
    let mut answered: Option<Result<String, Status>>;
    loop {
        tokio::select! {
            biased;
            done = calls.join_next(), if !calls.is_empty() => {
                answered = done.map(|joined: Result<_, tokio::task::JoinError>| joined.expect("a call does not panic"));
            }
            _ = ticks.tick() => {
                calls.spawn(call(world_channel.clone()));
                continue;
            }
        }
        let mut tally = tally.lock();
        match answered {
            Some(Ok(by)) => {
                tally.0 += 1;
                trace.note(format!("answered by {by}"));
            }
            Some(Err(status)) => {
                trace.note(format!("FAILED {status}"));
                tally.1.push(status.to_string());
            }
            None => {}
        }
    }
}

/// Runs to its end what happens in one thread and in virtual time.
fn in_simulation<T>(story: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(story)
}

fn simulate(seed: u64) -> Outcome {
    in_simulation(async {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(seed);
        world.start_registry().await;
        for number in 0..INSTANCES {
            world.start_instance(number);
        }
        settle(&world, seed, "at the start").await;

        let tally = Arc::new(Mutex::new((0, Vec::new())));
        let caller = tokio::spawn(keep_calling(world.channel(), world.trace.clone(), tally.clone()));
        for _ in 0..FAULTS {
            Fault::draw(&mut rng).happen(&mut world).await;
            sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
        }
        settle(&world, seed, "at the end").await;
        caller.abort();
        let (calls, failed) = std::mem::take(&mut *tally.lock());
        Outcome { trace: world.trace.lines(), calls, failed }
    })
}

/// Once nothing goes wrong any more, the registry lists who lives and the caller is connected to exactly them.
async fn settle(world: &World, seed: u64, when: &str) {
    let bound = TTL * 10;
    let agreed = timeout(bound, async {
        while world.ready() != world.live() || world.listed().await != world.live() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    if agreed.await.is_err() {
        let listed = world.listed().await;
        let tail: Vec<_> = world.trace.lines().into_iter().filter(|line| !line.contains("answered")).collect();
        panic!(
            "seed {seed}, {when}: after {bound:?} of quiet live = {:?}, ready = {:?}, listed = {listed:?}\n{}",
            world.live(),
            world.ready(),
            tail.join("\n"),
        );
    }
}

fn seeds() -> Vec<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "how a failing seed is replayed alone; nothing but this test reads it"
    )]
    let asked = std::env::var("MESH_SIM_SEED");
    asked.ok().map_or_else(|| SEEDS.collect(), |seed| vec![seed.parse().expect("MESH_SIM_SEED is a number")])
}

#[test]
fn no_single_fault_fails_a_call_and_the_views_agree_afterwards() {
    for seed in seeds() {
        let outcome = simulate(seed);
        println!("seed {seed}: {} calls, {} failed", outcome.calls, outcome.failed.len());
        let events: Vec<_> = outcome.trace.iter().filter(|line| !line.contains("answered")).cloned().collect();
        assert!(outcome.failed.is_empty(), "seed {seed}:\n{}", events.join("\n"));
        assert!(outcome.calls > 100, "seed {seed}: only {} calls were made", outcome.calls);
    }
}

#[test]
fn calls_are_shared_out_by_what_instances_report_of_their_load() {
    /// What gRFC A58 has a caller wait before it goes by the reports of an endpoint that has just become READY, and some.
    const HEEDED: Duration = Duration::from_secs(15);
    /// Calls whose shares are counted: a static stride is off by one round at most.
    const CALLS: usize = 600;
    in_simulation(async {
        let policy = Policy { balancer: Balancer::WeightedRoundRobin, hedging: None, ..Policy::default() };
        let mut world = World::with_caller(1, |caller| caller.policy(SERVICE, policy));
        world.start_registry().await;
        // As many calls a second each, at a tenth, a fifth and three tenths of what they could do: 6 to 3 to 2.
        let utilizations = [0.1, 0.2, 0.3];
        for (number, cpu_utilization) in (0..).zip(utilizations) {
            world.set_load(number, LoadReport { cpu_utilization, requests_per_second: 50.0, ..LoadReport::default() });
            world.start_instance(number);
        }
        settle(&world, 1, "at the start").await;
        sleep(HEEDED).await;
        let mut answered = BTreeMap::<String, usize>::new();
        for _ in 0..CALLS {
            *answered.entry(call(world.channel()).await.expect("nothing is wrong")).or_default() += 1;
        }
        let shares: Vec<usize> = answered.values().map(|count| (count * 11 + CALLS / 2) / CALLS).collect();
        assert_eq!(shares, [6, 3, 2], "{answered:?}");
    });
}

#[test]
fn one_seed_run_twice_gives_one_trace() {
    for seed in seeds().into_iter().take(2) {
        let (once, again) = (simulate(seed).trace, simulate(seed).trace);
        let differs = once.iter().zip(&again).position(|(a, b)| a != b);
        assert_eq!(
            differs,
            None,
            "seed {seed} differs first at {:?} / {:?}",
            differs.map(|n| &once[n]),
            differs.map(|n| &again[n])
        );
        assert_eq!(once.len(), again.len(), "seed {seed}");
    }
}
