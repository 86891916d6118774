//! Which proposals of a group may go out at the same time. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::{Expected, Key, OpId, Proposal};

/// What each proposal of a group waits for.
#[derive(Debug)]
pub(super) struct Plan {
    /// How many of those before it a proposal still waits for.
    waits: Vec<usize>,
    /// Who waits for it.
    followers: Vec<Vec<usize>>,
    by_op: HashMap<OpId, usize>,
}

#[derive(Default)]
struct Touched {
    /// Who wrote the key last.
    written: Option<usize>,
    /// Who has read it since.
    read: Vec<usize>,
}

impl Plan {
    /// A proposal waits for those before it that it names, that write what it reads or writes, or that read what it writes.
    pub(super) fn new(proposals: &[Arc<Proposal>]) -> Self {
        let mut plan = Self {
            waits: vec![0; proposals.len()],
            followers: vec![Vec::new(); proposals.len()],
            by_op: HashMap::with_capacity(proposals.len()),
        };
        let mut keys: HashMap<&Key, Touched> = HashMap::new();
        for (index, proposal) in proposals.iter().enumerate() {
            let mut after: Vec<usize> = Vec::new();
            for (key, expected) in &proposal.expected {
                if let Expected::By(op) = expected {
                    after.extend(plan.by_op.get(op));
                }
                let touched = keys.entry(key).or_default();
                after.extend(touched.written);
                touched.read.push(index);
            }
            for write in &proposal.writes {
                let touched = keys.entry(write.key()).or_default();
                after.extend(touched.written.replace(index));
                after.append(&mut touched.read);
            }
            after.retain(|other| *other != index);
            after.sort_unstable();
            after.dedup();
            plan.waits[index] = after.len();
            for other in after {
                plan.followers[other].push(index);
            }
            plan.by_op.insert(proposal.op, index);
        }
        plan
    }

    /// Those that wait for nobody.
    pub(super) fn free(&self) -> Vec<usize> {
        (0..self.waits.len()).filter(|index| self.waits[*index] == 0).collect()
    }

    /// One is done: those that waited for nobody else.
    pub(super) fn done(&mut self, index: usize) -> Vec<usize> {
        let followers = std::mem::take(&mut self.followers[index]);
        followers
            .into_iter()
            .filter(|follower| {
                self.waits[*follower] -= 1;
                self.waits[*follower] == 0
            })
            .collect()
    }

    /// The proposal of this group that has this op id.
    pub(super) fn index(&self, op: OpId) -> Option<usize> {
        self.by_op.get(&op).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::kit::service;
    use crate::catalog::{Emptiness, Record, ServiceRecord, Write};

    fn key(name: &str) -> Key {
        Key::Service(service(name))
    }

    fn proposal(op: u128, reads: &[(&str, Expected)], writes: &[&str]) -> Arc<Proposal> {
        let record = Record::Service(ServiceRecord { emptiness: Emptiness::Lapsed });
        Arc::new(Proposal {
            op: OpId(op.to_be_bytes()),
            expected: reads.iter().map(|(name, expected)| (key(name), *expected)).collect(),
            writes: writes.iter().map(|name| Write::Put(key(name), record.clone())).collect(),
        })
    }

    #[test]
    fn who_shares_a_key_that_is_written_keeps_the_order_and_nobody_else() {
        let absent = Expected::Absent;
        let group = [
            proposal(1, &[("a", absent)], &["a"]),
            proposal(2, &[("b", absent), ("s", absent)], &["b"]),
            proposal(3, &[("c", absent), ("s", absent)], &["c"]),
            proposal(4, &[("a", Expected::By(OpId(1_u128.to_be_bytes()))), ("d", absent)], &["d"]),
            proposal(5, &[("s", absent)], &["s"]),
        ];
        let mut plan = Plan::new(&group);
        assert_eq!(plan.free(), [0, 1, 2]);
        assert_eq!(plan.done(0), [3], "what it rests on is done");
        assert_eq!(plan.done(1), Vec::<usize>::new());
        assert_eq!(plan.done(2), [4], "those who read a key are before who writes it");
        assert_eq!(plan.index(OpId(5_u128.to_be_bytes())), Some(4));
        assert_eq!(plan.index(OpId(6_u128.to_be_bytes())), None);
    }

    #[test]
    fn a_chain_goes_out_one_by_one() {
        let group: Vec<_> = (1..=10).map(|op| proposal(op, &[("a", Expected::Absent)], &["a"])).collect();
        let mut plan = Plan::new(&group);
        assert_eq!(plan.free(), [0]);
        for index in 0..9 {
            assert_eq!(plan.done(index), [index + 1]);
        }
    }
}
