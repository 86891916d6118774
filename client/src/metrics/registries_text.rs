//! What the registries that a mesh talks to gave away about themselves.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::registries::Stores;

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, stores: &Stores) -> fmt::Result {
    let help = "Answers out of a second store behind the configured registries; of a stranger nothing is taken.";
    let name = "mesh_client_registry_second_store_answers";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    family.encode_counter::<NoLabelSet, u64, f64>(&stores.seconds(), None)
}
