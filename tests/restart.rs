//! Every process is restarted, one after the other, and no call fails.

mod harness;

use harness::{Story, nobody_noticed};

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_everything_fails_no_call() {
    let mut story = Story::begin(3, 2).await;
    let load = story.under_load().await;
    story.replace_everybody().await;
    nobody_noticed(load).await;
}
