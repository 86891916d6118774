//! A failure two hops away.

use std::time::Duration;

use futures_util::future::join_all;
use tonic::Code;

use super::Scene;
use crate::fleet::{Server, called};
use crate::load::{Cast, Stage};
use crate::report::{Finding, span};
use crate::serve::USUAL;
use crate::wire::{Answer, Manners};

/// Servers in the middle, each with a client, and so with a reserve of attempts, of its own.
const MIDDLE: usize = 2;

/// How long: some thousand attempts.
const UNAVAILABLE: Duration = Duration::from_secs(6);

/// The last hop answers UNAVAILABLE at once; both hops before it may try again, and attempts could multiply (T34).
pub(super) async fn unavailable(scene: Scene) -> Finding {
    let mut last = Server::several(3, Manners::echo(USUAL)).await;
    let middle = (1..=MIDDLE as u64).map(|number| Server::start_middle(scene.seed.wrapping_add(number), &last));
    let middle = join_all(middle).await;
    let stage = Stage::set(scene.seed, Cast::of(middle)).await;
    let bad = Manners::quick(Answer::Status(Code::Unavailable));
    join_all(last.iter_mut().map(|server| server.behave(bad))).await;
    tokio::time::sleep(UNAVAILABLE).await;
    let calls = stage.load.stop().await;

    let mut finding = Finding::of(&calls);
    let (first_hop, over) = (called(&stage.servers), span(&calls));
    finding.attempts(first_hop, over);
    finding.attempts_behind(MIDDLE, called(&last), over);
    finding
        .converged(format!("{:.3} attempts per call at the first hop", first_hop as f64 / calls.len().max(1) as f64));
    let failed = calls.iter().filter(|call| call.outcome.is_err()).count();
    finding.must(failed * 2 > calls.len(), || format!("void: only {failed} calls failed"));
    finding
}
