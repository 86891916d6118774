//! The caller's own process stands still, as it does on a machine with too much to do.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures_util::future::join_all;
use mesh_runtime::clock;

use super::Scene;
use crate::fleet::called;
use crate::load::{Call, Cast, RATE, Stage, words};
use crate::report::{Finding, span};

/// How long nothing of it runs: twice what the silence of a peer may last.
const STALL: Duration = Duration::from_secs(3);

/// Calls that are watched when what had piled up is gone.
const AFTERMATH: usize = 2 * RATE as usize;

pub(super) async fn caller(scene: Scene) -> Finding {
    let stage = Stage::set(scene.seed, Cast::well(3).await).await;
    let connections = || stage.servers.iter().map(|server| server.told().connected.len()).sum::<usize>();
    let before = connections();
    stall().await;
    stage.load.calls(STALL.as_secs() as usize * RATE as usize).await;
    let caught_up = clock::now();
    stage.load.calls(AFTERMATH).await;
    let given_up = connections() - before;
    let calls = stage.load.stop().await;

    let mut finding = Finding::of(&calls);
    finding.attempts(called(&stage.servers), span(&calls));
    finding.converged(format!("{given_up} connections given up"));
    finding.must(given_up == 0, || format!("{given_up} connections were given up for a stall of this side"));
    // Those that were due meanwhile all begin at once; whether they end within a second is up to the machine.
    let wronged =
        |call: &&Call| call.outcome.as_ref().is_err_and(|text| call.due > caught_up || !ran_out_of_time(text));
    let failed = calls.iter().filter(wronged).count();
    finding.must(failed == 0, || format!("{failed} failed that had all of their time: {:?}", words(&calls)));
    finding
}

fn ran_out_of_time(failure: &str) -> bool {
    failure.starts_with("DEADLINE_EXCEEDED") || failure.starts_with("no answer by the deadline")
}

/// Holds every thread of the runtime, all at once.
async fn stall() {
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let together = Arc::new(Barrier::new(workers));
    let blocked = (0..workers).map(|_| {
        let together = together.clone();
        tokio::spawn(async move {
            together.wait();
            std::thread::sleep(STALL);
        })
    });
    join_all(blocked.collect::<Vec<_>>()).await.into_iter().for_each(|held| held.expect("it only sleeps"));
}
