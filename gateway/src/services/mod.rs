//! Which services exist, what they offer over HTTP, and who keeps a route that two of them claim.
//!
//! | module | job |
//! |---|---|
//! | `list` | asks the registry for its services, every half second |
//! | `follow` | one service: from listed to gone, its descriptors read whenever they change |
//! | `schema` | PURE: which descriptors a service is to be read by while it is upgraded |
//! | `reflection` | what a server says of itself |
//! | `claims` | PURE: in which order services claim routes, and what is shown of them |
//! | `house` | PURE: what no stranger can claim |
//! | `owner` | the one task that all of these tell, and that publishes |
//! | `page` | `/routes` on the admin port |
//!
//! What must stay true: requests read what was [`Published`] last and wait for nobody here; a registry that is away takes
//! nothing away, and neither does a service that cannot be read; a route stays with the service that claimed it first for as
//! long as that service is there.

mod claims;
mod follow;
mod house;
mod list;
mod metrics;
mod owner;
mod page;
mod reflection;
mod schema;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use mesh_client::Mesh;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::published::Published;
use owner::Owner;

/// Most services whose routes are served: as many as a large house has, and a quarter of what one process can follow. Further
/// ones are refused, logged and shown.
pub const SERVICES_MAX: usize = 256;

/// The services that are known, kept up to date until this is dropped.
pub struct Services {
    published: Arc<ArcSwap<Published>>,
    settled: watch::Receiver<bool>,
    owner: JoinHandle<()>,
    stop: CancellationToken,
    _stops: DropGuard,
}

impl Services {
    /// Starts to follow every service of the mesh but `own`, this process itself.
    pub fn follow(mesh: &Mesh, own: &str, metrics: &mut Registry) -> Self {
        let stop = CancellationToken::new();
        let (published, settled) = (Arc::new(ArcSwap::from_pointee(Published::default())), watch::channel(false));
        let owner = Owner::new(mesh.clone(), own, metrics::Metrics::register(metrics), published.clone(), settled.0);
        let owner = tokio::spawn(owner.run(stop.clone()));
        Self { published, settled: settled.1, owner, _stops: stop.clone().drop_guard(), stop }
    }

    /// What requests go by; always the newest.
    pub fn published(&self) -> Arc<ArcSwap<Published>> {
        Arc::clone(&self.published)
    }

    /// `/routes`, for the admin port.
    pub fn page(&self) -> Router {
        page::routes(self.published())
    }

    /// Waits until every service that the registry lists first is known, but no longer than `limit`. A gateway that answered
    /// before would say of paths that there is nothing.
    pub async fn settled(&self, limit: Duration) {
        let mut settled = self.settled.clone();
        if timeout(limit, settled.wait_for(|settled| *settled)).await.is_err() {
            tracing::warn!(waited_s = limit.as_secs(), "not every service is known yet; serving all the same");
        }
    }

    /// Stops, and waits for the task's end.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.owner.await;
    }
}
