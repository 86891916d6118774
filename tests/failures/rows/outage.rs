//! Nobody is left, for a while.

use std::time::Duration;

use futures_util::future::join_all;
use mesh_runtime::clock;
use tokio::time::Instant;
use tonic::Code;

use super::Scene;
use crate::fleet::{Server, called};
use crate::harness::until;
use crate::load::{Call, Cast, DEADLINE, RATE, Stage, words};
use crate::report::{Finding, span};
use crate::serve::USUAL;
use crate::wire::{Answer, Manners};

/// Longest time from the return of the servers to the last failed call (P28).
const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// Share of the calls of that time that go well (P28).
const GOODPUT_MIN: f64 = 0.95;

/// Calls that are to go well on end before it counts as over.
const WELL: usize = 2 * RATE as usize;

pub(super) async fn all_down(scene: Scene) -> Finding {
    let mut stage = Stage::set(scene.seed, Cast::well(3).await).await;
    let down = clock::now();
    join_all(stage.servers.iter_mut().map(Server::kill)).await;
    let dead = called(&stage.servers);
    tokio::time::sleep(scene.outage()).await;
    let again = stage.servers.iter().map(|server| Server::start_at(server.address(), Manners::echo(USUAL)));
    stage.servers = join_all(again).await;
    recover(stage, down, dead).await
}

/// Each of them answers UNAVAILABLE at once: the way into a retry storm, if there is one.
pub(super) async fn all_unavailable(scene: Scene) -> Finding {
    let mut stage = Stage::set(scene.seed, Cast::well(3).await).await;
    let down = clock::now();
    behave(&mut stage, Manners::quick(Answer::Status(Code::Unavailable))).await;
    tokio::time::sleep(scene.outage()).await;
    behave(&mut stage, Manners::echo(USUAL)).await;
    recover(stage, down, 0).await
}

async fn behave(stage: &mut Stage, manners: Manners) {
    join_all(stage.servers.iter_mut().map(|server| server.behave(manners))).await;
}

/// Everybody is there again, just now. `dead` calls went to servers that are no more.
async fn recover(stage: Stage, down: Instant, dead: u64) -> Finding {
    let up = clock::now();
    until("calls to go well again", || {
        let book = stage.load.book();
        book.len() > WELL && book[book.len() - WELL..].iter().all(|call| call.due > up && call.outcome.is_ok())
    })
    .await;
    tokio::time::sleep_until(up + RECOVERY_MAX).await;
    let calls = stage.load.stop().await;
    let mut finding = Finding::of(&calls);
    finding.attempts(dead + called(&stage.servers), span(&calls));
    let failed = |call: &&Call| call.outcome.is_err();
    let early = calls.iter().filter(failed).filter(|call| call.due + DEADLINE < down).count();
    let lost = calls.iter().filter(failed).map(|call| call.due + call.took).max().unwrap_or(up);
    let recovery = lost.saturating_duration_since(up);
    println!("failures: {:?}", words(&calls));
    let returned = || calls.iter().filter(|call| call.due >= up && call.due < up + RECOVERY_MAX);
    let goodput = 1.0 - returned().filter(failed).count() as f64 / returned().count().max(1) as f64;
    finding.converged(format!(
        "the last failure ended {recovery:.0?} after the return; {:.1} % of those ten seconds went well",
        goodput * 100.0
    ));
    finding
        .must(goodput >= GOODPUT_MIN, || format!("{:.1} % of the calls after the return went well", goodput * 100.0));
    finding.must(early == 0, || format!("{early} calls failed before the outage"));
    finding.must(recovery <= RECOVERY_MAX, || format!("calls failed up to {recovery:?} after the return"));
    finding
}
