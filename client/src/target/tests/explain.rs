//! Every endpoint says why it is or is not picked.

use super::*;
use crate::ConnectivityState::{Connecting, Ready, TransientFailure};
use crate::resolver::{ResolvedEndpoint, Standing};
use crate::rig::{Frozen, address, endpoint, eventually};

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_cannot_be_reached_says_why_and_when_it_is_tried_again() {
    let net = Net::default();
    net.black_hole(&address(2));
    let rig = Rig::new(&net, [1, 2]);
    eventually(|| rig.handles().get(&1).is_some_and(|handle| handle.state() == TransientFailure)).await;
    let Verdict::NotConnected { error: Some(error), next_attempt: Some(next) } = verdict(&rig, 1) else {
        panic!("{:?}", verdict(&rig, 1));
    };
    assert!(error.contains("connection refused") && next < Duration::from_secs(5), "{error} {next:?}");
    assert_eq!(verdict(&rig, 2), Verdict::NotConnected { error: None, next_attempt: None });
    let explanation = rig.channel.explain();
    assert_eq!((explanation.service.as_str(), explanation.state), ("user-svc", Connecting));
    assert_eq!(explanation.endpoints.len(), 2);

    // A success makes it forgotten.
    let server = Server::start(&net, 1, ok);
    eventually(|| verdict(&rig, 1) == Verdict::Picked).await;
    drop(server);
    eventually(|| verdict(&rig, 1) != Verdict::Picked).await;
    let Verdict::NotConnected { error: Some(error), .. } = verdict(&rig, 1) else { panic!("{:?}", verdict(&rig, 1)) };
    assert!(error.contains("connection closed") || error.contains("refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_the_registry_says_is_part_of_the_verdict() {
    let net = Net::default();
    let frozen = Frozen::start(&net, 1);
    let _servers = [Server::start(&net, 2, ok), Server::start(&net, 3, ok)];
    let rig = Rig::new(&net, 1..=3);
    rig.all(Ready).await;
    frozen.freeze();
    let standing = |port, standing| ResolvedEndpoint { standing, ..endpoint(port) };
    rig.resolve([standing(1, Standing::Suspect), standing(2, Standing::Draining), standing(3, Standing::Stale)]);
    sleep(Duration::from_millis(300)).await;
    assert_eq!([1, 2, 3].map(|port| verdict(&rig, port)), [Verdict::Doubted, Verdict::Draining, Verdict::Picked]);
    assert!(!verdict(&rig, 1).is_picked() && verdict(&rig, 3).is_picked());
}

#[tokio::test(start_paused = true)]
async fn the_numbers_are_those_of_the_moment() {
    let (_net, _servers, rig) = rig_of(1, |_| {}).await;
    let _held = [place(&rig), place(&rig)];
    let mut failed = place(&rig);
    failed.end(SICK, failed.now());
    drop(failed);
    let explanation = rig.channel.explain();
    let endpoint = &explanation.endpoints[0];
    assert_eq!((endpoint.in_flight, endpoint.picks, endpoint.failures_in_a_row), (2, 3, 1));
    assert_eq!((explanation.in_flight, explanation.waiting, endpoint.weight), (2, 0, 100));
    assert_eq!((endpoint.connections, endpoint.connectivity, endpoint.standing), (1, Ready, Standing::Alive));
}
