//! What is served now: the seam between what finds services and what serves requests.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_client::MeshChannel;

use crate::transcode::{Conflict, RouteTable};

/// Every route there is, and the way to each service. Never changes: news are another one, in its place.
#[derive(Default)]
pub struct Published {
    /// The routes.
    pub table: RouteTable,
    /// By the name under which a service is registered; every service that has routes.
    pub channels: HashMap<Arc<str>, MeshChannel>,
    /// Every service that is known, in the order in which they claimed their routes; those that could not be read come last.
    pub services: Vec<Known>,
    /// Claims that were refused because another service had claimed the same before.
    pub refused: Vec<Conflict>,
    /// Whether the registry was ever heard. Until then nobody knows that a path leads nowhere.
    pub heard: bool,
}

/// What is shown of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub service: String,
    /// Which descriptors it is read by; empty where it could not be read yet.
    pub descriptors: String,
    /// What of it is not served, and why not.
    pub faults: Vec<String>,
}

impl Published {
    /// The way to a service.
    #[must_use]
    pub fn channel(&self, service: &str) -> Option<MeshChannel> {
        self.channels.get(service).cloned()
    }
}
