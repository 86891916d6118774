//! Servers that answer, and badly.

use std::time::Duration;

use mesh_client::{Balancer, Policy};
use mesh_runtime::clock;
use tokio::time::Instant;
use tonic::Code;

use super::Scene;
use crate::fleet::{Server, called};
use crate::harness::until;
use crate::load::{Call, Cast, RATE, Stage, quantile};
use crate::report::{Finding, span};
use crate::serve::USUAL;
use crate::wire::{Answer, Manners};

/// How long a call takes the servers among which one is slow ...
const NORMAL: Duration = Duration::from_millis(10);

/// ... and how long it takes the slow one.
const SLOW: Duration = Duration::from_millis(100);

/// Three seconds of calls, in which the client may learn who is slow. P25 gives it five.
const LEARNING: usize = 3 * RATE as usize;

/// Four seconds of calls: less than the first ejection lasts, so that no trial is among them.
const EJECTED: usize = 4 * RATE as usize;

/// Answers of a bad server: five in a row eject it (P26), and three may be under way meanwhile.
const ERRORS_MAX: u64 = 8;

fn since(calls: &[Call], from: Instant) -> impl Iterator<Item = &Call> {
    calls.iter().filter(move |call| call.due >= from)
}

pub(super) async fn slow(scene: Scene) -> Finding {
    let mut stage = Stage::set(scene.seed, Cast::of(Server::several(3, Manners::echo(NORMAL)).await)).await;
    let usual = quantile(&*stage.load.book(), 0.99);
    let endpoint = stage.endpoint(0);

    stage.servers[0].behave(Manners::echo(SLOW)).await;
    let before = endpoint.picks();
    stage.load.calls(LEARNING).await;
    let learnt = clock::now();
    let (while_learning, at) = (endpoint.picks() - before, called(&stage.servers));
    stage.load.calls(LEARNING).await;
    let (picks, of) = (endpoint.picks() - before - while_learning, called(&stage.servers) - at);

    let share = picks as f64 / of.max(1) as f64;
    let calls = stage.load.stop().await;
    let p99 = quantile(since(&calls, learnt), 0.99);
    let mut finding = Finding::nobody_noticed(&calls);
    finding.attempts(called(&stage.servers), span(&calls));
    finding.converged(format!(
        "{while_learning} picks in 3 s, then {:.1} %; p99 {usual:.0?} before, {p99:.0?} after",
        share * 100.0
    ));
    finding.must(share <= 0.05, || format!("it got {picks} of {of} calls"));
    finding
}

pub(super) async fn unavailable(scene: Scene) -> Finding {
    errors(scene, Answer::Status(Code::Unavailable)).await
}

pub(super) async fn internal(scene: Scene) -> Finding {
    errors(scene, Answer::Status(Code::Internal)).await
}

pub(super) async fn reset(scene: Scene) -> Finding {
    errors(scene, Answer::Reset).await
}

/// One of three is quick to fail, which makes it look idle.
async fn errors(scene: Scene, answer: Answer) -> Finding {
    let mut stage = Stage::set(scene.seed, Cast::well(3).await).await;
    let (errors, last) = one_fails(&mut stage, answer).await;
    let mut finding = left_alone(stage, errors).await;
    finding.converged(format!("{errors} errors, {last:.0?}"));
    finding
}

/// Where nobody looks at latencies, it is the failures in a row that keep calls away from it, for five seconds at first; then
/// one call tries it.
pub(super) async fn ejected(scene: Scene) -> Finding {
    let policy = Policy { balancer: Balancer::RoundRobin, ..Policy::default() };
    let mut stage = Stage::set(scene.seed, Cast { policy, ..Cast::well(3).await }).await;
    let (errors, last) = one_fails(&mut stage, Answer::Status(Code::Unavailable)).await;

    stage.servers[0].behave(Manners::echo(USUAL)).await;
    let (endpoint, well) = (stage.endpoint(0), clock::now());
    let before = endpoint.picks();
    until("it to be picked again", || endpoint.picks() > before + 10).await;
    let back = well.elapsed();
    let mut finding = left_alone(stage, errors).await;
    finding.converged(format!("{errors} errors, {last:.0?}; back {back:.0?} after it was well"));
    finding
}

/// One fails from now on. Answers how often it did within four seconds, and when it was picked last.
async fn one_fails(stage: &mut Stage, answer: Answer) -> (u64, Duration) {
    stage.servers[0].behave(Manners::quick(answer)).await;
    let (before, fault) = (stage.servers[0].told().called, clock::now());
    stage.load.calls(EJECTED).await;
    let last = stage.endpoint(0).last_pick().map_or(Duration::ZERO, |picked| picked.saturating_duration_since(fault));
    (stage.servers[0].told().called - before, last)
}

/// Ends the load: nobody noticed, and whoever failed was left alone soon.
async fn left_alone(stage: Stage, errors: u64) -> Finding {
    let calls = stage.load.stop().await;
    let mut finding = Finding::nobody_noticed(&calls);
    finding.attempts(called(&stage.servers), span(&calls));
    finding.must(errors <= ERRORS_MAX, || format!("it was called {errors} times while it failed"));
    finding.must(errors > 0, || "void: it was never called while it failed".to_owned());
    finding
}

/// Three of five fail, each of them well for a second out of three.
pub(super) async fn majority(scene: Scene) -> Finding {
    const BAD: usize = 3;
    const ROUNDS: usize = 6;
    /// Idempotent calls that may fail (P27).
    const FAILED_MAX: f64 = 0.01;

    let mut stage = Stage::set(scene.seed, Cast::well(5).await).await;
    for round in 0..ROUNDS {
        for (place, server) in stage.servers.iter_mut().take(BAD).enumerate() {
            let well = round % BAD == place;
            let bad = Manners::quick(Answer::Status(Code::Unavailable));
            server.behave(if well { Manners::echo(USUAL) } else { bad }).await;
        }
        stage.load.calls(RATE as usize).await;
    }
    let calls = stage.load.stop().await;
    let mut finding = Finding::of(&calls);
    finding.attempts(called(&stage.servers), span(&calls));
    let failed = calls.iter().filter(|call| call.outcome.is_err()).count();
    let bad: u64 = stage.servers.iter().take(BAD).map(|server| server.told().called).sum();
    finding.converged(format!("{bad} of {} went to the three", called(&stage.servers)));
    finding.must(failed as f64 <= FAILED_MAX * calls.len() as f64, || {
        format!("{failed} failed: {:?}", crate::load::words(&calls))
    });
    finding
}
