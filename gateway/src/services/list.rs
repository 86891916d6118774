//! Which services there are, as the registry lists them, again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::{ListServicesRequest, ServicePresence};
use mesh_client::{Mesh, MeshChannel};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::{Request, Status};

/// How often the registry is asked. A service that nobody has seen before is reachable in this time and what it takes to
/// read its descriptors.
const EVERY: Duration = Duration::from_millis(500);

/// Longest wait for a page.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Most pages of one list: 20 000 services are the most that a registry knows unless it is told otherwise.
const PAGES_MAX: usize = 20;

/// Services of a namespace that have instances.
pub(super) type Listed = BTreeSet<String>;

/// Lists the services until nobody listens. A registry that is away changes nothing: no list is sent.
pub(super) async fn run(mesh: Mesh, told: mpsc::Sender<Listed>) {
    let registry = mesh.registry();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        ticks.tick().await;
        match list(registry.clone(), mesh.namespace()).await {
            Ok(listed) => {
                if std::mem::take(&mut away) {
                    tracing::info!(services = listed.len(), "the registry lists its services again");
                }
                if told.send(listed).await.is_err() {
                    return;
                }
            }
            Err(status) if !away => {
                away = true;
                tracing::warn!(%status, "the registry does not list its services; those that are known stay");
            }
            Err(_) => {}
        }
    }
}

async fn list(mut registry: RegistryServiceClient<MeshChannel>, namespace: &str) -> Result<Listed, Status> {
    let (mut listed, mut page_token) = (Listed::new(), String::new());
    for _ in 0..PAGES_MAX {
        let mut ask = Request::new(ListServicesRequest { namespace: namespace.to_owned(), page_size: 0, page_token });
        ask.set_timeout(ANSWER_MAX);
        let page = registry.list_services(ask).await?.into_inner();
        let populated = page.services.into_iter().filter(|one| one.presence() == ServicePresence::Populated);
        listed.extend(populated.map(|one| one.service));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(listed)
}
