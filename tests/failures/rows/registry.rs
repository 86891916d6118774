//! A registry that says what no registry should.

use std::net::SocketAddr;

use mesh_api::registry::v1::ServicePresence;
use mesh_client::Mesh;

use super::Scene;
use crate::fleet::{Server, called};
use crate::harness::until;
use crate::load::{Load, RATE, REPEATABLE, SERVICE, STEADY, descriptors, endpoint};
use crate::report::{Finding, span};
use crate::serve::USUAL;
use crate::wire::{Manners, Push, Spoil};

fn push(store: &str, revision: u64, presence: ServicePresence, listed: &[SocketAddr]) -> Push {
    Push { store: store.to_owned(), generation: 0, revision, presence, spoil: Spoil::Whole, listed: listed.to_vec() }
}

/// The snapshots that nobody sends who is well: too short, too old, or of somewhere else.
pub(super) async fn empty_push(scene: Scene) -> Finding {
    // Nobody of those listed has said goodbye, and no operator took them out.
    lied_to(scene, 3, |listed| {
        vec![
            push("first", 11, ServicePresence::Populated, &[]),
            push("first", 12, ServicePresence::Lapsed, &[]),
            push("first", 13, ServicePresence::Unknown, &[]),
            push("first", 14, ServicePresence::Populated, &listed[..1]),
            push("first", 3, ServicePresence::Emptied, &[]),
            push("second", 1, ServicePresence::Unknown, &[]),
            push("second", 2, ServicePresence::Populated, &listed[..1]),
        ]
    })
    .await
}

/// T20 `hostile_push` (P18): what a broken or hostile registry may say, one after the other.
pub(super) async fn hostile_push(scene: Scene) -> Finding {
    lied_to(scene, 5, |listed| {
        let populated = ServicePresence::Populated;
        let restored = |revision, spoil| Push { generation: 1, spoil, ..push("first", revision, populated, listed) };
        vec![
            push("first", 11, populated, &[]),
            // A fifth is left.
            push("first", 12, populated, &listed[..1]),
            Push { spoil: Spoil::Null, ..push("first", 13, populated, listed) },
            Push { spoil: Spoil::Blank, ..push("first", 14, populated, listed) },
            push("first", 13, ServicePresence::Emptied, &[]),
            push("first", 0, ServicePresence::Emptied, &[]),
            // Another generation, and back.
            Push { listed: Vec::new(), presence: ServicePresence::Unknown, ..restored(1, Spoil::Whole) },
            push("first", 99, ServicePresence::Emptied, &[]),
            restored(2, Spoil::Twice),
            restored(3, Spoil::Megabyte),
            restored(4, Spoil::BadPorts),
            restored(4, Spoil::Twice),
            push("second", 1, populated, &[]),
            Push { spoil: Spoil::BadPorts, ..push("second", 2, populated, listed) },
        ]
    })
    .await
}

/// Seconds' worth of calls in which everybody has to be called again.
const CALLED_AGAIN_MAX: usize = 20;

/// Servers under load, listed by a registry that then says all this; nobody may notice, and nobody may be called no more.
async fn lied_to(scene: Scene, count: usize, lies: impl FnOnce(&[SocketAddr]) -> Vec<Push>) -> Finding {
    let mut registry = Server::start_registry().await;
    let servers = Server::several(count, Manners::echo(USUAL)).await;
    let late = Server::start(Manners::echo(USUAL)).await;
    let listed: Vec<_> = servers.iter().map(Server::address).collect();
    registry.behave(push("first", 10, ServicePresence::Populated, &listed)).await;
    let mesh = Mesh::builder().seed(scene.seed).registry([registry.address().to_string()]).descriptors(&descriptors());
    let channel = mesh.build().expect("the configuration is one").channel(SERVICE);
    let load = Load::start(&channel, REPEATABLE, STEADY, scene.seed);
    load.healthy().await;

    let lies = lies(&listed);
    let told = lies.len();
    for lie in lies {
        registry.behave(lie).await;
        load.calls(RATE as usize / 3).await;
    }
    // When this one has been heard, so have all before it.
    let everybody = [&listed[..], &[late.address()]].concat();
    registry.behave(push("second", 3, ServicePresence::Populated, &everybody)).await;
    until("one more endpoint", || channel.endpoints().len() == everybody.len()).await;
    let picks = || -> Vec<u64> { listed.iter().map(|&address| endpoint(&channel, address.into()).picks()).collect() };
    let before = picks();
    let mut after = before.clone();
    // One that stood still for a moment on a busy machine counts as slow for some seconds, and is called less.
    for _ in 0..CALLED_AGAIN_MAX {
        load.calls(RATE as usize).await;
        after = picks();
        if after.iter().zip(&before).all(|(after, before)| after > before) {
            break;
        }
    }
    let calls = load.stop().await;

    let mut finding = Finding::nobody_noticed(&calls);
    finding.attempts(called(&servers) + late.told().called, span(&calls));
    finding.converged(format!("{told} pushes that took nobody away"));
    finding.must(after.iter().zip(&before).all(|(after, before)| after > before), || {
        format!("somebody is not called any more: {before:?}, then {after:?}")
    });
    finding
}
