//! Registration: who may hold an id, and under which incarnation.
//!
//! | held by | asked with | answer |
//! |---|---|---|
//! | the same start, same service | anything | the same incarnation and lease; a changed spec is written |
//! | the same start, another service | what it holds, or nothing | it moves: a higher incarnation, SUPERSEDED there |
//! | another start | nothing, or the current incarnation | a takeover: a higher incarnation, the other is fenced |
//! | another start | a lower incarnation, or a nonce that lost the id before | FENCED |
//! | nobody | a nonce that deregistered less than 10 min ago | DEPARTED |
//! | nobody | a lower incarnation than another start's last, or a nonce that lost the id before | FENCED |
//! | nobody | else | a higher incarnation than any before |
//!
//! A start that comes back after its lease ran out falls under the last line: same id, same nonce, higher incarnation, so
//! that a late heartbeat of its old one is told from a new one. A restart that remembers what it held is a takeover like
//! one that remembers nothing: the newer start wins. An incarnation held from another store counts as none.

use std::sync::Arc;

use super::{Context, Decision, Draft, REMEMBERED};
use crate::catalog::{
    Answer, CatalogError, Emptiness, Identity, IdentityKey, Incarnation, Key, LeaseId, Overlay, PastStart, Record,
    Register, Registration, RemovalReason, ServiceKey, ServiceRecord, Tombstone,
};

/// What a registration comes to, given who holds the id.
enum Claim {
    /// The same start holds it in the same service.
    Repeat(Arc<Registration>),
    /// Another start holds it, or the same one in another service.
    Takeover(Arc<Registration>),
    /// Nobody holds it.
    Vacant,
}

pub(super) fn register(
    on: &Overlay<'_>,
    request: &Register,
    fresh: LeaseId,
    context: Context,
) -> Result<Decision, CatalogError> {
    let key = IdentityKey { namespace: request.service.namespace.clone(), id: request.id };
    let known = on.identity(&key).cloned().unwrap_or_default();
    let ttl = request.ttl.unwrap_or(context.default_ttl);

    let claim = claim(on, request, &known, context)?;
    let (incarnation, lease) = match &claim {
        Claim::Repeat(live) => (live.incarnation, live.lease),
        Claim::Takeover(_) | Claim::Vacant => (next_incarnation(on, &known), fresh),
    };
    let mut registration = Registration {
        service: request.service.clone(),
        incarnation,
        nonce: request.nonce,
        lease,
        owner: context.node,
        ttl,
        serving: request.serving,
        spec: request.spec.clone(),
    };
    if let Some(sibling) = on.sibling(&request.service) {
        registration.share(sibling);
    }
    let answer = Answer::Granted { lease, incarnation, ttl };
    if matches!(&claim, Claim::Repeat(live) if **live == registration) {
        return Ok(Decision::nothing(answer));
    }

    let came_from = match &claim {
        Claim::Repeat(live) | Claim::Takeover(live) => Some(&live.service),
        Claim::Vacant => None,
    };
    admit(on, came_from, &request.service, context)?;

    let mut draft = Draft::new(on);
    draft.put_identity(&key, succeed(known, &claim, registration, context));
    draft.reads(Key::Service(request.service.clone()));
    if on.live_in(&request.service) == 0 {
        // Until somebody empties it on purpose, an emptiness is one nobody believes. Written even where it says so
        // already: a deletion that is under way on another node rests on this key and fails.
        let record = ServiceRecord { emptiness: Emptiness::Lapsed };
        draft.put(Key::Service(request.service.clone()), Record::Service(record));
    }
    if let Some(left) = came_from.filter(|left| **left != request.service)
        && on.live_in(left) == 1
    {
        let record = ServiceRecord { emptiness: RemovalReason::Superseded.leaves() };
        draft.put(Key::Service(left.clone()), Record::Service(record));
    }
    Ok(Decision { proposal: draft.proposal(context), answer })
}

/// Whose the id is.
fn claim(on: &Overlay<'_>, request: &Register, known: &Identity, context: Context) -> Result<Claim, CatalogError> {
    let held = request.held.as_ref().filter(|(_, store)| store == on.store()).map(|(incarnation, _)| *incarnation);
    let lost_before = known.past.iter().any(|past| past.nonce == request.nonce);

    if let Some(live) = &known.live {
        let outdated = held.is_some_and(|held| held < live.incarnation);
        if live.nonce == request.nonce && live.service == request.service {
            return Ok(Claim::Repeat(live.clone()));
        }
        // The same start under two services: only the registrar that holds the current incarnation may move, or two of
        // them would take the id from each other for ever.
        let same_start = live.nonce == request.nonce;
        if outdated || (lost_before && !same_start) {
            return Err(CatalogError::Fenced { by: live.incarnation });
        }
        return Ok(Claim::Takeover(live.clone()));
    }

    let departed = known.tombstones.iter().find(|stone| {
        stone.nonce == request.nonce && stone.reason == RemovalReason::Deregistered && stone.until > context.now
    });
    if let Some(stone) = departed {
        return Err(CatalogError::Departed { retry_in: stone.until.since(context.now) });
    }
    match known.tombstones.iter().max_by_key(|stone| stone.incarnation) {
        Some(last) if last.nonce == request.nonce => Ok(Claim::Vacant),
        Some(last) if lost_before || held.is_some_and(|held| held < last.incarnation) => {
            Err(CatalogError::Fenced { by: last.incarnation })
        }
        _ => Ok(Claim::Vacant),
    }
}

fn next_incarnation(on: &Overlay<'_>, known: &Identity) -> Incarnation {
    Incarnation::new(on.issued(known) + 1).expect("one more than an unsigned number is not zero")
}

/// Whether there is room for an instance that comes from another service, or from none.
fn admit(
    on: &Overlay<'_>,
    came_from: Option<&ServiceKey>,
    service: &ServiceKey,
    context: Context,
) -> Result<(), CatalogError> {
    let limits = context.limits;
    if came_from == Some(service) {
        return Ok(());
    }
    if !on.is_known(service) && on.known() >= limits.services {
        return Err(CatalogError::TooManyServices { max: limits.services });
    }
    if on.live_in(service) >= limits.instances_per_service {
        let max = limits.instances_per_service;
        return Err(CatalogError::TooManyInstancesOfService { service: service.clone(), max });
    }
    if came_from.is_none() && on.live() >= limits.instances {
        return Err(CatalogError::TooManyInstances { max: limits.instances });
    }
    Ok(())
}

/// What is known of the id once this registration holds it.
fn succeed(known: Identity, claim: &Claim, registration: Registration, context: Context) -> Identity {
    let Identity { live: _, mut tombstones, mut past } = known;
    let until = context.now.after(REMEMBERED);
    match claim {
        Claim::Repeat(_) => {}
        Claim::Takeover(live) => {
            past.push(PastStart { nonce: live.nonce, lease: live.lease, incarnation: live.incarnation, until });
            if live.service != registration.service {
                tombstones.push(Tombstone {
                    service: live.service.clone(),
                    incarnation: live.incarnation,
                    nonce: live.nonce,
                    lease: live.lease,
                    reason: RemovalReason::Superseded,
                    until,
                });
            }
        }
        Claim::Vacant => {
            // What this start lost under the id before is settled: it holds it now.
            past.retain(|earlier| earlier.nonce != registration.nonce);
            let last = tombstones.iter().max_by_key(|stone| stone.incarnation);
            if let Some(last) = last.filter(|last| last.nonce != registration.nonce) {
                past.push(PastStart { nonce: last.nonce, lease: last.lease, incarnation: last.incarnation, until });
            }
        }
    }
    tombstones.retain(|stone| stone.service != registration.service);
    tombstones.keep_last(Identity::TOMBSTONES_MAX);
    past.keep_last(Identity::PAST_MAX);
    Identity { live: Some(Arc::new(registration)), tombstones, past }
}
