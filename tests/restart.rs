//! Every process is restarted, one after the other, and no call fails.

mod harness;

use harness::{LONG, Story, nobody_noticed};
use meshctl::{Follower, LocalMesh, Member};

/// Restarts each member as a deployment would: asks it to end, starts its successor at the same address, and goes on when
/// that one is listed.
async fn roll(mesh: &mut LocalMesh, members: Vec<Member>, news: &mut Follower) -> Vec<Member> {
    let mut successors = Vec::new();
    for mut member in members {
        let before = member.id.to_string();
        member.process.drain().await.expect("it drains and ends with 0");
        news.until("its goodbye", LONG, |view| !view.lists(&before)).await.expect("it says goodbye");
        let successor = mesh.rejoin(member).await.expect("its successor starts");
        let after = successor.id.to_string();
        news.until("its successor", LONG, |view| view.lists(&after)).await.expect("its successor registers");
        successors.push(successor);
    }
    successors
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_everything_fails_no_call() {
    let mut story = Story::begin(3, 2).await;
    let load = story.under_load().await;

    story.users = roll(&mut story.mesh, story.users, &mut story.user_news).await;
    story.orders = roll(&mut story.mesh, story.orders, &mut story.order_news).await;

    let store_before = story.user_news.view().store_id().to_owned();
    story.mesh.drain_registry().await.expect("the registry drains and ends with 0");
    story.mesh.start_registry().await.expect("it starts again");
    let anew = story.user_news.until("a new store", LONG, |view| view.store_id() != store_before && view.complete());
    anew.await.expect("the watch comes back");
    story.everybody_listed().await;

    nobody_noticed(load).await;
}
