//! The caller's own process stands still, as it does on a machine with too much to do.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures_util::future::join_all;
use mesh_runtime::clock;
use tokio::time::Instant;

use super::Scene;
use crate::fleet::called;
use crate::load::{Cast, RATE, Stage, words};
use crate::report::{Finding, span};

/// How long nothing of it runs: twice what the silence of a peer may last.
const STALL: Duration = Duration::from_secs(3);

pub(super) async fn caller(scene: Scene) -> Finding {
    let stage = Stage::set(scene.seed, Cast::well(3).await).await;
    let connections = || stage.servers.iter().map(|server| server.told().connected.len()).sum::<usize>();
    let before = connections();
    let stalled = stall().await;
    stage.load.calls((STALL.as_secs() as usize + 2) * RATE as usize).await;
    let given_up = connections() - before;
    let calls = stage.load.stop().await;

    let mut finding = Finding::of(&calls);
    finding.attempts(called(&stage.servers), span(&calls));
    finding.converged(format!("{given_up} connections given up"));
    finding.must(given_up == 0, || format!("{given_up} connections were given up for a stall of this side"));
    // Those that were due during the stall begin after it, and have all of their time then.
    let failed = calls.iter().filter(|call| call.outcome.is_err() && call.due > stalled).count();
    finding.must(failed == 0, || format!("{failed} failed that were not under way: {:?}", words(&calls)));
    finding
}

/// Holds every thread of the runtime, all at once. Answers when that began.
async fn stall() -> Instant {
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let together = Arc::new(Barrier::new(workers));
    let blocked = (0..workers).map(|_| {
        let together = together.clone();
        tokio::spawn(async move {
            together.wait();
            let began = clock::now();
            std::thread::sleep(STALL);
            began
        })
    });
    let began = join_all(blocked.collect::<Vec<_>>()).await;
    began.into_iter().filter_map(Result::ok).max().expect("there is a thread")
}
