//! How an instance leaves, and how long that is remembered.

use std::sync::Arc;

use super::own::may_expire;
use super::{Context, Decision, Draft, REMEMBERED};
use crate::catalog::{
    Answer, CatalogError, Identity, IdentityKey, Incarnation, InstanceId, Key, LeaseId, Overlay, Record, Registration,
    RemovalReason, ServiceKey, ServiceRecord, Tombstone,
};

/// Services of at most so many instances lose one a window by silence (15 %, rounded up), and no more however many nodes keep
/// them.
const FEW: usize = 6;

/// An instance says goodbye. Gone already is fine; a start that lost the id removes nobody.
pub(super) fn deregister(
    on: &Overlay<'_>,
    lease: LeaseId,
    incarnation: Incarnation,
    context: Context,
) -> Result<Decision, CatalogError> {
    let Some((key, identity)) = on.lease_holder(lease).and_then(|key| Some((key, on.identity(key)?))) else {
        return Ok(Decision::nothing(Answer::Done));
    };
    match &identity.live {
        Some(live) if live.lease == lease && live.incarnation == incarnation => {
            Ok(remove(on, key, identity, live, RemovalReason::Deregistered, context))
        }
        // Its own lease under another incarnation is a mistake of the caller's: "done" would tell it that it is gone.
        Some(live) if live.lease == lease || identity.past.iter().any(|past| past.lease == lease) => {
            Err(CatalogError::Fenced { by: live.incarnation })
        }
        _ => Ok(Decision::nothing(Answer::Done)),
    }
}

/// An operator removes whoever holds the id in this service.
pub(super) fn by_operator(on: &Overlay<'_>, service: &ServiceKey, id: InstanceId, context: Context) -> Decision {
    let key = IdentityKey { namespace: service.namespace.clone(), id };
    match on.identity(&key).and_then(|identity| Some((identity, identity.live.as_ref()?))) {
        Some((identity, live)) if live.service == *service => {
            remove(on, &key, identity, live, RemovalReason::Operator, context)
        }
        _ => Decision::nothing(Answer::Done),
    }
}

/// A lease ran out. Whoever has registered anew since then has another one, and whoever's deadline another node keeps by
/// now is that node's to judge.
///
/// In a service of few it rests on the others that count: of two nodes that each let one of the last two go at the same moment,
/// one finds the other's removal there, and has to ask anew whether its own may go.
pub(super) fn expire(on: &Overlay<'_>, key: &IdentityKey, lease: LeaseId, context: Context) -> Decision {
    match on.identity(key).and_then(|identity| Some((identity, identity.live.as_ref()?))) {
        Some((identity, live)) if live.lease == lease && may_expire(live, context) => {
            remove(on, key, identity, live, RemovalReason::Expired, context)
        }
        _ => Decision::nothing(Answer::Done),
    }
}

fn remove(
    on: &Overlay<'_>,
    key: &IdentityKey,
    identity: &Identity,
    live: &Arc<Registration>,
    reason: RemovalReason,
    context: Context,
) -> Decision {
    let limits = context.limits;
    let full = on.tombstones_in(&live.service) >= limits.tombstones_per_service || on.tombstones() >= limits.tombstones;
    let mut tombstones = identity.tombstones.clone();
    tombstones.push(Tombstone {
        service: live.service.clone(),
        incarnation: live.incarnation,
        nonce: live.nonce,
        lease: live.lease,
        reason,
        until: if full { context.now } else { context.now.after(REMEMBERED) },
    });
    tombstones.keep_last(Identity::TOMBSTONES_MAX);

    let mut draft = Draft::new(on);
    draft.put_identity(key, Identity { live: None, tombstones, past: identity.past.clone() });
    if reason == RemovalReason::Expired {
        let counted = on.few_that_count(&live.service, FEW).filter(|counted| counted.contains(&key.id));
        for id in counted.unwrap_or_default() {
            draft.reads(Key::Identity(IdentityKey { namespace: key.namespace.clone(), id }));
        }
    }
    if on.live_in(&live.service) == 1 {
        let record = ServiceRecord { emptiness: reason.leaves() };
        draft.put(Key::Service(live.service.clone()), Record::Service(record));
    }
    Decision { proposal: draft.proposal(context), answer: Answer::Done }
}

/// Forgets what is remembered of these ids beyond its time.
pub(super) fn forget(on: &Overlay<'_>, identities: &[IdentityKey], context: Context) -> Decision {
    let mut draft = Draft::new(on);
    for key in identities {
        let Some(identity) = on.identity(key) else { continue };
        let mut kept = identity.clone();
        kept.tombstones.retain(|stone| stone.until > context.now);
        kept.past.retain(|past| past.until > context.now);
        if kept != *identity {
            draft.put_identity(key, kept);
        }
    }
    Decision { proposal: draft.proposal(context), answer: Answer::Done }
}
