//! The numbers of every service that is called, when somebody scrapes.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{calls_text, endpoints_text, registries_text};
use crate::registries::Stores;
use crate::target::Target;

/// What a [`Mesh`](crate::Mesh) measures: a collector for a `prometheus_client` registry, or for more than one. It reads
/// what is there at each scrape; a service appears with its first channel and its series go with the last one, those of
/// an endpoint with the endpoint.
///
/// The calls are those of gRFC A66 and A96, with `_` for each dot: `grpc_client_attempt_started_total`,
/// `grpc_client_attempt_duration_seconds`, `grpc_client_attempt_sent_total_compressed_message_size_bytes`,
/// `grpc_client_attempt_rcvd_total_compressed_message_size_bytes`, `grpc_client_call_duration_seconds`,
/// `grpc_client_call_retries`, `grpc_client_call_transparent_retries` and `grpc_client_call_hedges`. Their labels are
/// `grpc_target`, the service; `grpc_method`, of which each service has 256 and `other`; and `grpc_status`.
///
/// `mesh_client_service_…` has a label `service`; `mesh_client_endpoint_…` has `service`, `instance_id` and `address`. It is
/// not `instance`, since that is what Prometheus calls the process that it scrapes.
///
/// `mesh_client_registry_second_store_answers_total` is to stay 0: each is an answer out of a second store behind the
/// configured registries, which are to show one.
#[derive(Clone)]
pub struct MeshMetrics {
    targets: Arc<dyn Fn() -> Vec<Arc<Target>> + Send + Sync>,
    stores: Arc<Stores>,
}

impl MeshMetrics {
    /// Of the targets that are there when it is asked, and of the stores behind the registries.
    pub(crate) fn new(targets: impl Fn() -> Vec<Arc<Target>> + Send + Sync + 'static, stores: Arc<Stores>) -> Self {
        Self { targets: Arc::new(targets), stores }
    }
}

impl Collector for MeshMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut targets = (self.targets)();
        targets.sort_by(|one, other| one.service().cmp(other.service()));
        calls_text::encode(&mut encoder, &targets)?;
        endpoints_text::encode(&mut encoder, &targets)?;
        registries_text::encode(&mut encoder, &self.stores)
    }
}

impl fmt::Debug for MeshMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshMetrics").finish_non_exhaustive()
    }
}
