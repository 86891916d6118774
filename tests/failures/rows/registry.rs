//! A registry that says what no registry should.

use mesh_api::registry::v1::ServicePresence;
use mesh_client::Mesh;

use super::Scene;
use crate::fleet::{Server, called};
use crate::harness::until;
use crate::load::{Load, RATE, REPEATABLE, SERVICE, STEADY, descriptors, endpoint};
use crate::report::{Finding, span};
use crate::serve::USUAL;
use crate::wire::{Manners, Push};

pub(super) async fn empty_push(scene: Scene) -> Finding {
    let mut registry = Server::start_registry().await;
    let servers = Server::several(3, Manners::echo(USUAL)).await;
    let late = Server::start(Manners::echo(USUAL)).await;
    let listed: Vec<_> = servers.iter().map(Server::address).collect();
    let push = |store: &str, revision, presence, listed: &[_]| Push {
        store: store.to_owned(),
        revision,
        presence,
        listed: listed.to_vec(),
    };
    registry.behave(push("first", 10, ServicePresence::Populated, &listed)).await;
    let mesh = Mesh::builder().seed(scene.seed).registry([registry.address().to_string()]).descriptors(&descriptors());
    let channel = mesh.build().expect("the configuration is one").channel(SERVICE);
    let load = Load::start(&channel, REPEATABLE, STEADY, scene.seed);
    load.healthy().await;

    // Nobody of those listed has said goodbye, and no operator took them out.
    let lies = [
        push("first", 11, ServicePresence::Populated, &[]),
        push("first", 12, ServicePresence::Lapsed, &[]),
        push("first", 13, ServicePresence::Unknown, &[]),
        push("first", 14, ServicePresence::Populated, &listed[..1]),
        push("first", 3, ServicePresence::Emptied, &[]),
        push("second", 1, ServicePresence::Unknown, &[]),
        push("second", 2, ServicePresence::Populated, &listed[..1]),
    ];
    let told = lies.len();
    for lie in lies {
        registry.behave(lie).await;
        load.calls(RATE as usize / 3).await;
    }
    // When this one has been heard, so have all before it.
    let everybody = [&listed[..], &[late.address()]].concat();
    registry.behave(push("second", 3, ServicePresence::Populated, &everybody)).await;
    until("a fourth endpoint", || channel.endpoints().len() == everybody.len()).await;
    let before: Vec<u64> = listed.iter().map(|&address| endpoint(&channel, address.into()).picks()).collect();
    load.calls(RATE as usize).await;
    let after: Vec<u64> = listed.iter().map(|&address| endpoint(&channel, address.into()).picks()).collect();
    let calls = load.stop().await;

    let mut finding = Finding::nobody_noticed(&calls);
    finding.attempts(called(&servers) + late.told().called, span(&calls));
    finding.converged(format!("{told} pushes that took nobody away"));
    finding.must(after.iter().zip(&before).all(|(after, before)| after > before), || {
        format!("somebody is not called any more: {before:?}, then {after:?}")
    });
    finding
}
