//! The registry is away for a minute, an instance dies meanwhile, and no call fails.

mod harness;

use std::time::Duration;

use harness::{LONG, Story, http_get, nobody_noticed};
use mesh_runtime::clock;

/// How long the registry stays away: thirty times the TTL.
const AWAY: Duration = Duration::from_secs(60);

/// How often every instance is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_a_registry_fails_no_call_and_makes_nobody_unready() {
    let mut story = Story::begin(3, 2).await;
    let load = story.under_load().await;
    let store_before = story.user_news.view().store_id().to_owned();

    story.mesh.kill_registry().await;
    let gone = clock::now();
    let mut ticks = tokio::time::interval(ASK_EVERY);
    while gone.elapsed() < AWAY {
        ticks.tick().await;
        for member in story.users.iter().chain(&story.orders) {
            let (status, body) = http_get(member.process.http(), "/readyz").await.expect("it answers");
            assert_eq!(status, 200, "{} after {:?}: {body}", member.process.name(), gone.elapsed());
        }
        if gone.elapsed() > AWAY / 2 && story.users.len() == 3 {
            story.users.remove(0).process.kill().await;
        }
    }

    story.mesh.start_registry().await.expect("it starts again");
    let anew = story.user_news.until("a new store", LONG, |view| view.store_id() != store_before && view.complete());
    anew.await.expect("the watch comes back");
    story.everybody_listed().await;

    nobody_noticed(load).await;
}
