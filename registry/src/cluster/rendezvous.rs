//! Which node takes what nobody owns: the one with the highest score for it. All nodes that see the same members agree
//! without a word, a node that leaves moves only what was its own, and every node gets its share.

use crate::catalog::{IdentityKey, NodeId};

/// The node of these that an instance falls to; `None` where there are none.
pub(crate) fn winner(nodes: impl IntoIterator<Item = NodeId>, identity: &IdentityKey) -> Option<NodeId> {
    nodes.into_iter().max_by_key(|node| (score(*node, identity), *node))
}

fn score(node: NodeId, identity: &IdentityKey) -> u64 {
    let text = identity.namespace.as_str().bytes();
    let bytes = node.as_bytes().iter().copied().chain(identity.id.uuid().into_bytes()).chain(text);
    // FNV-1a, and then a mix: alone it leaves the high bits of similar inputs alike, and the highest score decides.
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::kit::{identity, node};

    #[test]
    fn a_node_that_leaves_moves_only_what_was_its_own() {
        let (all, fewer) = ([node(1), node(2), node(3)], [node(1), node(3)]);
        for instance in 1..=1_000 {
            let (was, is) = (winner(all, &identity(instance)), winner(fewer, &identity(instance)));
            assert!(was == is || was == Some(node(2)), "{instance} moved from {was:?} to {is:?}");
        }
    }

    #[test]
    fn every_node_gets_its_share() {
        let nodes = [node(1), node(2), node(3)];
        for who in nodes {
            let share = (1..=3_000).filter(|instance| winner(nodes, &identity(*instance)) == Some(who)).count();
            assert!((850..=1_150).contains(&share), "{who} got {share} of 3 000");
        }
        assert_eq!(winner([], &identity(1)), None);
    }
}
