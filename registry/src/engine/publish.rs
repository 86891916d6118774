//! What readers see: immutable values, swapped by the engine.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;

use crate::catalog::{Namespace, Position, Presence, ServiceKey, ServiceView};

/// The current value of one service, and who follows it.
pub(super) type Cell = watch::Sender<Arc<ServiceView>>;

/// Everything there is to read. Services are looked up as they are now: at least as new as `position`, each whole.
#[derive(Clone, Debug)]
pub struct View {
    pub(super) position: Position,
    pub(super) complete: bool,
    /// Every known service, and the unknown names that somebody follows. Replaced only when a name comes or goes.
    pub(super) services: Arc<BTreeMap<ServiceKey, Arc<Cell>>>,
}

impl View {
    /// The last change that is included everywhere.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Whether the state is whole; false for one TTL after a start without it. Until then what is missing here may live.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// A service by its name; `None` where nobody registered it and nobody follows it. A view of
    /// [`Presence::Unknown`] means the same.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<Arc<ServiceView>> {
        self.services.get(key).map(|cell| cell.borrow().clone())
    }

    /// The known services of a namespace in the order of their names, from the first one after `after` on.
    pub fn services<'a>(
        &'a self,
        namespace: &'a Namespace,
        after: Option<&'a ServiceKey>,
    ) -> impl Iterator<Item = Arc<ServiceView>> + 'a {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.services
            .range::<ServiceKey, _>((from, Bound::Unbounded))
            .skip_while(|(key, _)| key.namespace < *namespace)
            .take_while(|(key, _)| key.namespace == *namespace)
            .map(|(_, cell)| cell.borrow().clone())
            .filter(|service| service.presence() != Presence::Unknown)
    }

    /// The changes of a service, if it is here.
    pub(super) fn follow(&self, key: &ServiceKey) -> Option<watch::Receiver<Arc<ServiceView>>> {
        self.services.get(key).map(|cell| cell.subscribe())
    }
}
