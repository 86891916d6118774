//! Hundreds of seeds on a store that does everything a store may do.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::kit::{Rig, SECOND, memory, settings};
use crate::catalog::kit::{asks, id, nonce, service};
use crate::catalog::{BeatOutcome, Granted, Incarnation, Position, Register, Revision, ServiceView};
use crate::engine::{Departure, EngineError};
use crate::storage::{HostileStore, Hostility};

/// Seeds of each run; the failing one is printed.
const SEEDS: u64 = 150;

/// Instances that register, beat, and leave at random.
const INSTANCES: u128 = 6;

#[tokio::test(start_paused = true)]
async fn no_store_however_hostile_breaks_the_engine() {
    for seed in 0..SEEDS {
        let blame = Blame(seed);
        run(seed, Hostility::HIGH).await;
        blame.none();
    }
}

#[tokio::test(start_paused = true)]
async fn without_foreign_writes_who_beats_in_time_is_never_removed() {
    for seed in 0..SEEDS {
        let blame = Blame(seed);
        run(seed, Hostility { foreign_writes: 0, ..Hostility::HIGH }).await;
        blame.none();
    }
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_trace() {
    for seed in 0..5 {
        let blame = Blame(seed);
        assert_eq!(run(seed, Hostility::HIGH).await, run(seed, Hostility::HIGH).await);
        blame.none();
    }
}

/// Prints the seed when its run panics.
struct Blame(u64);

impl Blame {
    fn none(self) {
        std::mem::forget(self);
    }
}

impl Drop for Blame {
    fn drop(&mut self) {
        eprintln!("failed with seed {}", self.0);
    }
}

/// One life of an engine on a hostile store; what everybody was answered, and what was there in the end.
async fn run(seed: u64, hostility: Hostility) -> Vec<String> {
    let store = HostileStore::new(memory(), seed, hostility);
    let rig = Rig::on(store.clone(), settings(u8::try_from(seed % 251).unwrap())).await;
    let mut watch = Watch::default();

    let lives = (1..=INSTANCES).map(|instance| live(&rig, instance, seed, hostility));
    let mut trace: Vec<String> = join_all(lives).await.into_iter().flatten().collect();
    watch.look(&rig.users());

    // In peace everything settles, and what is published is what is stored.
    store.set_hostility(None);
    tokio::time::sleep(30 * SECOND).await;
    let last_starts = (1..=INSTANCES).map(|instance| Register { nonce: nonce(200), ..asks(instance) });
    for granted in join_all(last_starts.map(|request| rig.try_register(request))).await {
        trace.push(format!("{:?}", granted.unwrap()));
    }
    tokio::time::sleep(SECOND).await;
    let truth = store.truth().snapshot().into_state();
    assert_eq!(rig.engine.view().position().revision, truth.position().revision);
    let published = rig.users();
    watch.look(&published);
    let stored = truth.view(&service("user-svc"));
    assert_eq!(incarnations(&published), incarnations(&stored));
    assert_eq!(published.presence(), stored.presence());
    assert!(published.removals().keys().eq(stored.removals().keys()));
    trace.push(format!("{published:?}"));
    rig.task.stop().await;
    trace
}

/// One process of an instance: registers, beats, starts anew, leaves. Checks what it is promised on the way.
async fn live(rig: &Rig, instance: u128, seed: u64, hostility: Hostility) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed * 1_000 + u64::try_from(instance).unwrap());
    let mut trace = Vec::new();
    let mut start = 1;
    let mut held: Option<Granted> = None;
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..2_000))).await;
        match (&held, rng.random_range(0..10)) {
            (Some(granted), 0) => {
                trace.push(format!("{:?}", rig.try_deregister(granted).await));
                (held, start) = (None, start + 1);
            }
            (Some(_), 1) => (held, start) = (None, start + 1),
            (Some(granted), _) => {
                let outcome = rig.beat(granted).await;
                trace.push(format!("{outcome:?}"));
                if outcome != BeatOutcome::Renewed {
                    assert!(hostility.foreign_writes > 0, "nobody else wrote, and the beat was in time: {outcome:?}");
                    held = None;
                }
                start += u8::from(outcome == BeatOutcome::Fenced);
            }
            (None, _) => {
                let answer = rig.try_register(Register { nonce: nonce(start), ..asks(instance) }).await;
                trace.push(format!("{answer:?}"));
                match answer {
                    Ok(granted) => {
                        let users = rig.users();
                        let shown = users.instances().get(&id(instance)).map(|instance| instance.incarnation());
                        let gone = users.removals().get(&id(instance)).map(|removal| removal.incarnation);
                        // Another node may have been faster than the answer, but never backwards.
                        assert!(shown.max(gone) >= Some(granted.incarnation), "what is granted is published");
                        held = Some(granted);
                    }
                    Err(EngineError::Catalog(_)) => start += 1,
                    Err(
                        EngineError::Aborted { .. } | EngineError::StoreRefused { .. } | EngineError::OutcomeUnknown,
                    ) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    trace
}

impl Rig {
    /// Says goodbye. Where that is refused, lost or aborted the lease runs out.
    async fn try_deregister(&self, granted: &Granted) -> Result<Position, EngineError> {
        let own = Departure::Own { lease: granted.lease, incarnation: granted.incarnation };
        self.engine.deregister(own).await
    }
}

/// What a reader remembers of what it saw.
#[derive(Default)]
struct Watch {
    seen: BTreeMap<u128, Incarnation>,
    revision: Revision,
}

impl Watch {
    fn look(&mut self, view: &ServiceView) {
        assert!(view.revision() >= self.revision, "revisions only rise");
        self.revision = view.revision();
        for (instance, incarnation) in incarnations(view) {
            let before = self.seen.insert(instance, incarnation);
            assert!(before.is_none_or(|before| before <= incarnation), "incarnations only rise");
        }
    }
}

fn incarnations(view: &ServiceView) -> BTreeMap<u128, Incarnation> {
    view.instances().values().map(|instance| (instance.id().uuid().as_u128(), instance.incarnation())).collect()
}
