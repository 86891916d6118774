//! `services` and `instances`: what the registry knows now.

use crate::args::{Format, Globals};
use crate::commands::words;
use crate::failure::Failure;
use crate::output::{columns, json, note, print, trimmed};
use crate::registry_client::RegistryClient;

/// Said when the registry has only just begun with nothing.
const INCOMPLETE: &str = "note: this registry has just started without its former state; what it has not heard of yet \
                          may be alive all the same";

/// Says that what is shown may be old.
fn note_stale(stale_for: Option<&prost_types::Duration>) {
    if let Some(stale_for) = stale_for {
        note(&format!(
            "note: this registry has not reached its store for {} s; what other registries wrote since is not shown",
            stale_for.seconds
        ));
    }
}

/// `meshctl services`.
pub(crate) async fn services(globals: &Globals) -> Result<(), Failure> {
    let registry = RegistryClient::connect(globals).await?;
    let listing = registry.services().await?;
    if !listing.complete {
        note(INCOMPLETE);
    }
    note_stale(listing.stale_for.as_ref());
    if globals.output == Format::Json {
        return print_all("mesh.registry.v1.ServiceSummary", &listing.services);
    }
    if listing.services.is_empty() {
        note(&format!("no services in namespace {:?}", registry.namespace()));
        return Ok(());
    }
    let mut table = columns(&["SERVICE", "INSTANCES", "PICKABLE", "SUSPECT", "STALE", "PRESENCE", "REMOVALS"]);
    for summary in &listing.services {
        table.add_row([
            words::plain(&summary.service),
            summary.instances.to_string(),
            summary.instances_pickable.to_string(),
            summary.instances_suspect.to_string(),
            summary.instances_stale.to_string(),
            words::presence(summary.presence()).to_owned(),
            summary
                .removal_hold
                .as_ref()
                .map_or_else(|| "-".to_owned(), |hold| format!("held back: {}", words::hold(hold))),
        ]);
    }
    print(&trimmed(&table))
}

/// `meshctl instances SERVICE`.
pub(crate) async fn instances(globals: &Globals, service: &str) -> Result<(), Failure> {
    let registry = RegistryClient::connect(globals).await?;
    let answer = registry.resolve(service).await?;
    if !answer.complete {
        note(INCOMPLETE);
    }
    note_stale(answer.stale_for.as_ref());
    if globals.output == Format::Json {
        return print_all("mesh.registry.v1.Instance", &answer.instances);
    }
    if answer.instances.is_empty() {
        note(&format!("{service} is known and has no instances ({})", words::presence(answer.presence())));
    } else {
        let header = ["INSTANCE", "ADDRESS", "LIVENESS", "SERVING", "ADMIN", "PICKABLE", "ZONE", "WEIGHT", "VERSION"];
        let mut table = columns(&header);
        for instance in &answer.instances {
            table.add_row([
                words::plain(&instance.instance_id),
                words::main_address(instance),
                words::liveness(instance.liveness()).to_owned(),
                words::serving(instance.serving_status()).to_owned(),
                words::admin(instance.admin_state()).to_owned(),
                if instance.pickable { "yes" } else { "no" }.to_owned(),
                words::plain(&instance.zone),
                instance.weight.to_string(),
                words::plain(&instance.version),
            ]);
        }
        print(&trimmed(&table))?;
    }
    match &answer.removal_hold {
        Some(hold) => print(&format!("\nremovals held back: {}", words::hold(hold))),
        None => Ok(()),
    }
}

/// One object a line; all of them, or none.
fn print_all<M: prost::Message>(full_name: &str, messages: &[M]) -> Result<(), Failure> {
    let lines = messages.iter().map(|message| json(full_name, message)).collect::<Result<Vec<_>, _>>()?;
    lines.iter().try_for_each(|line| print(line))
}
