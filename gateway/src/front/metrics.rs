//! What is measured of requests: by the route's template, never by the path that a client made up.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use http::{Method, StatusCode};
use mesh_runtime::{Slot, clock};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

/// Upper bounds of the latency buckets, in seconds.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0];

/// Most routes with series of their own, over the life of the process; those of services that come later are `other`.
const ROUTES_MAX: usize = 1_024;
/// The label of what has none of its own.
const OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    route: String,
    method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    method: &'static str,
    status: u16,
}

/// The families of a gateway. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Metrics(Arc<Families>);

#[derive(Debug)]
struct Families {
    requests: Family<Answered, Counter>,
    duration: Family<Asked, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    received: Counter,
    sent: Counter,
    routes: RwLock<HashSet<Arc<str>>>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self(Arc::new(Families {
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            in_flight: Gauge::default(),
            received: Counter::default(),
            sent: Counter::default(),
            routes: RwLock::default(),
        }))
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let it = &self.0;
        registry.register(
            "gateway_http_requests",
            "Requests that were answered, given up or failed",
            it.requests.clone(),
        );
        registry.register_with_unit(
            "gateway_http_request_duration",
            "Time from a request's head to the last byte of its answer",
            Unit::Seconds,
            it.duration.clone(),
        );
        registry.register(
            "gateway_http_requests_in_flight",
            "Requests that are open, streams included",
            it.in_flight.clone(),
        );
        let help = "Bytes of the bodies of requests";
        registry.register_with_unit("gateway_http_request_body", help, Unit::Bytes, it.received.clone());
        let help = "Bytes of the bodies of answers";
        registry.register_with_unit("gateway_http_response_body", help, Unit::Bytes, it.sent.clone());
    }

    /// A request begins.
    pub(super) fn begin(&self, method: &Method) -> Open {
        self.0.in_flight.inc();
        Open {
            metrics: self.clone(),
            begun: clock::now(),
            method: known(method),
            route: None,
            status: None,
            sent: 0,
            _slot: None,
        }
    }

    /// The body of a request came.
    pub(super) fn received(&self, bytes: usize) {
        self.0.received.inc_by(bytes as u64);
    }

    fn label(&self, route: Option<&Arc<str>>) -> String {
        let Some(route) = route else { return OTHER.to_owned() };
        let is_known = |routes: &HashSet<Arc<str>>| routes.contains(route);
        if !is_known(&self.0.routes.read().unwrap_or_else(PoisonError::into_inner)) {
            let mut routes = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
            if routes.len() >= ROUTES_MAX && !is_known(&routes) {
                return OTHER.to_owned();
            }
            routes.insert(Arc::clone(route));
        }
        route.as_ref().to_owned()
    }
}

/// Methods that are labels; a client can make up others.
fn known(method: &Method) -> &'static str {
    for known in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS]
    {
        if *method == known {
            return match known {
                Method::GET => "GET",
                Method::POST => "POST",
                Method::PUT => "PUT",
                Method::PATCH => "PATCH",
                Method::DELETE => "DELETE",
                Method::HEAD => "HEAD",
                _ => "OPTIONS",
            };
        }
    }
    OTHER
}

/// One open request; it is measured when this goes.
pub(super) struct Open {
    metrics: Metrics,
    begun: Instant,
    method: &'static str,
    route: Option<Arc<str>>,
    status: Option<StatusCode>,
    sent: u64,
    _slot: Option<Slot>,
}

impl Open {
    /// It has a place among those that may be open.
    pub(super) fn hold(&mut self, slot: Slot) {
        self._slot = Some(slot);
    }

    /// Its answer has begun.
    pub(super) fn answered(&mut self, route: Option<Arc<str>>, status: StatusCode) {
        self.route = route;
        self.status = Some(status);
    }

    /// Bytes of its answer were taken.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        /// nginx's number for a client that went away before it was answered.
        const GIVEN_UP: u16 = 499;
        let families = &self.metrics.0;
        families.in_flight.dec();
        families.sent.inc_by(self.sent);
        let asked = Asked { route: self.metrics.label(self.route.as_ref()), method: self.method };
        families.duration.get_or_create(&asked).observe((clock::now() - self.begun).as_secs_f64());
        let status = self.status.map_or(GIVEN_UP, |status| status.as_u16());
        families.requests.get_or_create(&Answered { route: asked.route, method: self.method, status }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_beyond_the_bound_share_one_label() {
        let metrics = Metrics::new();
        for index in 0..ROUTES_MAX + 10 {
            let label = metrics.label(Some(&Arc::from(format!("/v1/{index}"))));
            assert_eq!(label == OTHER, index >= ROUTES_MAX);
        }
        assert_eq!(metrics.label(Some(&Arc::from("/v1/0"))), "/v1/0");
        assert_eq!(metrics.label(None), OTHER);
    }

    #[test]
    fn methods_are_few() {
        assert_eq!(known(&Method::PATCH), "PATCH");
        assert_eq!(known(&Method::from_bytes(b"MADEUP").unwrap()), OTHER);
    }
}
