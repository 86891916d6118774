//! Who is in, who is out, and why: one line per change and per refusal that an operator may have to explain later, each
//! with the revision at which it holds.

use super::events::EventKind;
use crate::catalog::{CatalogError, Command, Presence, Removal, RemovalHold, ServiceChange, ServiceKey, ServiceView};

/// Records what a commit changed in a service.
pub(super) fn changed(before: &ServiceView, change: &ServiceChange) {
    let (service, revision) = (&change.service, change.revision.get());
    for instance in &change.upserts {
        let was = before.instances().get(&instance.id());
        let kind = EventKind::of(was.map(|was| &**was), instance);
        let (id, incarnation, what) = (instance.id(), instance.incarnation().get(), kind.as_str());
        // Every start of every instance would be a line; the latest of them are to be had as events.
        match kind {
            EventKind::TakenOver | EventKind::Admin => tracing::info!(%service, instance = %id, incarnation, revision,
                what, serving = ?instance.serving(), admin = ?instance.admin(), "instance changed"),
            _ => tracing::debug!(%service, instance = %id, incarnation, revision,
                what, serving = ?instance.serving(), admin = ?instance.admin(), "instance changed"),
        }
    }
    for removal in &change.gone {
        tracing::info!(%service, instance = %removal.id, incarnation = removal.incarnation.get(), revision,
            reason = removal.reason.as_str(), "instance removed");
    }
    if change.presence != before.presence() && change.presence != Presence::Populated {
        tracing::info!(%service, revision, presence = ?change.presence, "service without instances");
    }
}

/// Records that a removal cannot be remembered for its ten minutes: until the tombstones are fewer, nothing keeps that
/// start from coming back, and a reader that resumes later may miss that it is gone.
pub(super) fn unremembered(service: &ServiceKey, removal: &Removal) {
    tracing::warn!(%service, instance = %removal.id, incarnation = removal.incarnation.get(),
        "too many tombstones: this removal is told once and forgotten");
}

/// Records that a service began or ceased to hold removals back.
pub(super) fn held(service: &ServiceKey, before: Option<RemovalHold>, after: Option<RemovalHold>) {
    match (before.map(|hold| hold.reason), after) {
        (was, Some(hold)) if was != Some(hold.reason) => {
            tracing::warn!(%service, reason = ?hold.reason, held = hold.held, "removals by silence are held back");
        }
        (Some(was), None) => tracing::info!(%service, reason = ?was, "removals by silence are no longer held back"),
        _ => {}
    }
}

/// Records a refusal. Those that say something about who fights for an id are for operators, the rest for debugging: a
/// caller that sends nonsense must not fill the log.
pub(super) fn refused(command: &Command, error: &CatalogError) {
    match (command, error) {
        (Command::Register { request, .. }, CatalogError::Fenced { by }) => {
            tracing::info!(service = %request.service, instance = %request.id, by = by.get(), "registration fenced");
        }
        (Command::Register { request, .. }, CatalogError::Departed { .. }) => {
            tracing::info!(service = %request.service, instance = %request.id, "registration after goodbye refused");
        }
        (_, error) => tracing::debug!(%error, "command refused"),
    }
}
