//! Whose an instance's deadline is (DESIGN §5). Ownership moves in two ways: the instance beats on a stream elsewhere, or its
//! owner is gone. Both are guarded by the revision of the instance's key, so that of two nodes that want it at once one gets
//! it, and the other one's proposal changes nothing.

use std::sync::Arc;

use super::{Context, Decision, Draft};
use crate::catalog::{Answer, Identity, IdentityKey, LeaseId, NodeId, Orphan, Overlay, Registration};

/// An instance beats on a stream of this node: it is this node's, whoever's it was.
pub(super) fn claim(on: &Overlay<'_>, key: &IdentityKey, lease: LeaseId, context: Context) -> Decision {
    let mut draft = Draft::new(on);
    if let Some((identity, live)) = live(on, key).filter(|(_, live)| live.lease == lease) {
        take(&mut draft, key, identity, live, context.node);
    }
    Decision { proposal: draft.proposal(context), answer: Answer::Done }
}

/// Takes over from an owner that is gone. Whoever was claimed, moved or removed meanwhile is passed over.
pub(super) fn adopt(on: &Overlay<'_>, orphans: &[Orphan], context: Context) -> Decision {
    let mut draft = Draft::new(on);
    for Orphan { identity: key, lease, of } in orphans {
        let orphan = |live: &Registration| live.lease == *lease && live.owner == *of;
        if let Some((identity, live)) = live(on, key).filter(|(_, live)| orphan(live)) {
            take(&mut draft, key, identity, live, context.node);
        }
    }
    Decision { proposal: draft.proposal(context), answer: Answer::Done }
}

/// Whether this node may let an instance expire. A node that is the only one may, whatever an older record says.
pub(super) fn may_expire(live: &Registration, context: Context) -> bool {
    context.node.is_none() || live.owner == context.node
}

fn live<'a>(on: &'a Overlay<'_>, key: &IdentityKey) -> Option<(&'a Identity, &'a Arc<Registration>)> {
    let identity = on.identity(key)?;
    Some((identity, identity.live.as_ref()?))
}

/// Writes who owns it, if that is somebody else.
fn take(draft: &mut Draft<'_>, key: &IdentityKey, identity: &Identity, live: &Registration, owner: Option<NodeId>) {
    if live.owner != owner {
        let owned = Registration { owner, ..live.clone() };
        draft.put_identity(key, Identity { live: Some(Arc::new(owned)), ..identity.clone() });
    }
}
