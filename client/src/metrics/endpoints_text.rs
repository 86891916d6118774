//! What services and endpoints say of themselves.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::endpoint::EndpointHandle;
use crate::target::Target;

/// One endpoint with its labels.
struct Row {
    service: String,
    instance_id: String,
    address: String,
    endpoint: EndpointHandle,
}

impl Row {
    fn labels(&self) -> [(&str, &str); 3] {
        [("service", &self.service), ("instance_id", &self.instance_id), ("address", &self.address)]
    }
}

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, targets: &[Arc<Target>]) -> fmt::Result {
    services(encoder, targets)?;
    let rows: Vec<_> = targets.iter().flat_map(|target| rows(target)).collect();
    states(encoder, &rows)?;
    gauge(encoder, &rows, "in_flight_calls", "Attempts between their pick and their trailers.", None, |endpoint| {
        Some(endpoint.in_flight())
    })?;
    let help = "What the balancer takes for its latency; absent until its first connection.";
    gauge(encoder, &rows, "latency", help, Some(&Unit::Seconds), |endpoint| {
        endpoint.latency().map(|latency| latency.as_secs_f64())
    })?;
    counter(encoder, &rows, "picks", "Attempts that were given to it.", EndpointHandle::picks)?;
    counter(encoder, &rows, "failures", "Attempts that failed by its doing.", EndpointHandle::failures)?;
    let help = "Times that it was left alone for its failures.";
    counter(encoder, &rows, "ejections", help, EndpointHandle::ejections)
}

fn rows(target: &Target) -> Vec<Row> {
    let row = |endpoint: EndpointHandle| Row {
        service: target.service().to_owned(),
        instance_id: endpoint.instance_id().to_string(),
        address: endpoint.address().to_string(),
        endpoint,
    };
    target.endpoints().into_iter().map(row).collect()
}

fn services(encoder: &mut DescriptorEncoder<'_>, targets: &[Arc<Target>]) -> fmt::Result {
    let help = "1 for the connectivity that calls to the service meet.";
    let mut family = encoder.encode_descriptor("mesh_client_service_state", help, None, MetricType::Gauge)?;
    for target in targets {
        let state = target.state().to_string();
        family.encode_family(&[("service", target.service()), ("state", &state)])?.encode_gauge(&1_u64)?;
    }
    let help = "Calls that wait for an endpoint.";
    let mut family = encoder.encode_descriptor("mesh_client_service_waiting_calls", help, None, MetricType::Gauge)?;
    for target in targets {
        let waiting = target.queue().waiting() as u64;
        family.encode_family(&[("service", target.service())])?.encode_gauge(&waiting)?;
    }
    Ok(())
}

fn states(encoder: &mut DescriptorEncoder<'_>, rows: &[Row]) -> fmt::Result {
    let help = "1 for the connectivity of the endpoint.";
    let mut family = encoder.encode_descriptor("mesh_client_endpoint_state", help, None, MetricType::Gauge)?;
    for row in rows {
        let state = row.endpoint.state().to_string();
        let [service, instance, address] = row.labels();
        family.encode_family(&[service, instance, address, ("state", &state)])?.encode_gauge(&1_u64)?;
    }
    Ok(())
}

fn gauge<V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    rows: &[Row],
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: impl Fn(&EndpointHandle) -> Option<V>,
) -> fmt::Result {
    let name = format!("mesh_client_endpoint_{name}");
    let mut family = encoder.encode_descriptor(&name, help, unit, MetricType::Gauge)?;
    for row in rows {
        if let Some(value) = value(&row.endpoint) {
            family.encode_family(&row.labels())?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    rows: &[Row],
    name: &str,
    help: &str,
    value: impl Fn(&EndpointHandle) -> u64,
) -> fmt::Result {
    let name = format!("mesh_client_endpoint_{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
    for row in rows {
        let value = value(&row.endpoint);
        family.encode_family(&row.labels())?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
    }
    Ok(())
}
