//! `doctor`: what is wrong with this mesh, where, and what to do about it.
//!
//! ```text
//! finding    what a finding is, and how it is shown
//! look       what each registry says of itself and of its services; what is wrong with that (pure)
//! probe      who answers where an instance says it answers
//! ```
//!
//! It asks and changes nothing. Everything it waits for has a limit, and so has the number of things asked at a time.

mod finding;
mod look;
mod probe;

use std::collections::BTreeMap;

use futures_util::StreamExt;
use serde_json::json;

use self::finding::{Finding, Level};
use self::look::{Looked, Registered, Seen};
use crate::args::{Format, Globals};
use crate::failure::Failure;
use crate::output::{columns, note, print, trimmed};

/// Most services asked about at a time, and most registries.
const ASKED_AT_ONCE: usize = 8;
/// Most addresses tried at a time.
const PROBES_AT_ONCE: usize = 32;
/// Most addresses tried in all: at 32 a time and at most 4 s each that is twenty minutes if not one answers.
const PROBES_MAX: usize = 10_000;

/// `meshctl doctor`.
pub(crate) async fn doctor(globals: &Globals) -> Result<(), Failure> {
    let asked = futures_util::stream::iter(&globals.registry)
        .map(|registry| look::look(registry, &globals.namespace, globals.timeout));
    let looked: Vec<Looked> = asked.buffered(ASKED_AT_ONCE).collect().await;
    looked.iter().try_for_each(|looked| show_registry(globals.output, looked))?;

    let mut findings = look::findings(&looked);
    findings.extend(look::behind(&looked, globals.timeout).await);
    // One registry of each store: the others say the same, or are behind, which is a finding already.
    let stores: BTreeMap<&str, &Seen> =
        looked.iter().rev().filter_map(|looked| Some((looked.seen()?.store(), looked.seen()?))).collect();
    let mut registered = Vec::new();
    for seen in stores.values() {
        let services = futures_util::stream::iter(&seen.services)
            .map(|summary| look::instances(seen, &globals.namespace, &summary.service, globals.timeout));
        let mut answers = services.buffered(ASKED_AT_ONCE);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(instances) => registered.extend(instances),
                Err(finding) => findings.push(*finding),
            }
        }
    }
    findings.extend(registered.iter().filter_map(look::liveness));
    findings.extend(look::shared_addresses(&registered));
    let (tried, probed) = probe_all(&registered, globals).await;
    findings.extend(probed);

    findings.sort_by(|a, b| (a.level, a.check, &a.place).cmp(&(b.level, b.check, &b.place)));
    let looked_at = Totals {
        registries: looked.iter().filter(|looked| looked.seen().is_some()).count(),
        services: stores.values().map(|seen| seen.services.len()).sum(),
        instances: registered.len(),
        addresses: tried,
    };
    show(globals.output, &findings, &looked_at)?;
    if findings.is_empty() { Ok(()) } else { Err(Failure::Found) }
}

/// How much was looked at.
struct Totals {
    registries: usize,
    services: usize,
    instances: usize,
    addresses: usize,
}

/// Tries every gRPC address; says how many there were.
async fn probe_all(registered: &[Registered], globals: &Globals) -> (usize, Vec<Finding>) {
    let mut addresses: Vec<(&Registered, std::net::SocketAddr)> =
        registered.iter().flat_map(|instance| instance.grpc_addresses().map(move |at| (instance, at))).collect();
    if addresses.len() > PROBES_MAX {
        note(&format!("note: of {} addresses the first {PROBES_MAX} are tried", addresses.len()));
        addresses.truncate(PROBES_MAX);
    }
    let limit = globals.timeout.min(probe::PATIENCE);
    let probes = futures_util::stream::iter(&addresses).map(|(instance, at)| probe::probe(instance, *at, limit));
    let findings: Vec<Option<Finding>> = probes.buffer_unordered(PROBES_AT_ONCE).collect().await;
    (addresses.len(), findings.into_iter().flatten().collect())
}

fn show_registry(format: Format, looked: &Looked) -> Result<(), Failure> {
    match (format, looked.seen()) {
        // What does not answer is a finding.
        (_, None) => Ok(()),
        (Format::Json, Some(seen)) => print(&json!({ "registry": seen.json(&looked.registry) }).to_string()),
        (Format::Table, Some(seen)) => print(&format!("registry {}: {}", looked.registry, seen.in_words())),
    }
}

fn show(format: Format, findings: &[Finding], totals: &Totals) -> Result<(), Failure> {
    let Totals { registries, services, instances, addresses } = totals;
    if format == Format::Json {
        findings.iter().try_for_each(|finding| print(&json!({ "finding": finding.json() }).to_string()))?;
        let summary = json!({
            "findings": findings.len(), "registries": registries, "services": services, "instances": instances,
            "addresses": addresses,
        });
        return print(&json!({ "summary": summary }).to_string());
    }
    let looked_at = [
        many(*registries, "registry", "registries"),
        many(*services, "service", "services"),
        many(*instances, "instance", "instances"),
        many(*addresses, "address", "addresses"),
    ]
    .join(", ");
    if findings.is_empty() {
        return print(&format!("nothing is wrong; looked at: {looked_at}"));
    }
    let mut table = columns(&["LEVEL", "WHERE", "WHAT", "WHAT TO DO"]);
    for finding in findings {
        table.add_row([finding.level.name(), &finding.place, &finding.what, finding.advice]);
    }
    print(&trimmed(&table))?;
    let errors = findings.iter().filter(|finding| finding.level == Level::Error).count();
    let (errors, warnings) = (many(errors, "error", "errors"), many(findings.len() - errors, "warning", "warnings"));
    note(&format!("{errors} and {warnings}; looked at: {looked_at}"));
    Ok(())
}

fn many(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}
