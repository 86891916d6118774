//! Wing and Gong's search as Lowe bounds it: take operations in an order that their times allow, and never look twice at the
//! same set of taken ones with the same state (G. Lowe, "Testing for linearizability", 2017).

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

/// What a client asked of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// This version of an instance.
    Register(u8, u64),
    /// Away with an instance.
    Remove(u8),
    /// Who is there?
    Resolve,
}

/// Versions by instance.
pub(super) type Held = BTreeMap<u8, u64>;

/// What it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is so now.
    Done,
    /// There was nothing of the kind.
    Absent,
    /// These are there.
    Read(Held),
    /// Nothing: it may have been done, or be done yet, or never.
    Unknown,
}

/// One operation in a history.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) op: Op,
    pub(super) call_at: Instant,
    pub(super) answered_at: Instant,
    pub(super) outcome: Outcome,
}

impl Done {
    /// What is held after it, if it can have been done on `held` with this answer.
    fn on(&self, held: &Held) -> Option<Held> {
        let mut after = held.clone();
        let fits = match (self.op, &self.outcome) {
            (Op::Register(instance, version), Outcome::Done | Outcome::Unknown) => {
                after.insert(instance, version);
                true
            }
            (Op::Remove(instance), Outcome::Absent) => !held.contains_key(&instance),
            // Who is gone already may be taken away once more.
            (Op::Remove(instance), Outcome::Done | Outcome::Unknown) => {
                after.remove(&instance);
                true
            }
            (Op::Resolve, Outcome::Read(read)) => read == held,
            (Op::Resolve, Outcome::Absent) => held.is_empty(),
            (Op::Register(..), Outcome::Absent | Outcome::Read(_))
            | (Op::Remove(_), Outcome::Read(_))
            | (Op::Resolve, Outcome::Done | Outcome::Unknown) => false,
        };
        fits.then_some(after)
    }
}

/// Steps after which a history counts as too hard: none of this size is, unless the search is broken.
const STEPS_MAX: usize = 5_000_000;

/// Whether one order explains the history; how many steps it took to find it, or where it got stuck.
pub(super) fn linearizable(history: &[Done]) -> Result<usize, String> {
    let mut history: Vec<&Done> = history.iter().collect();
    history.sort_by_key(|done| done.call_at);
    let answered = |done: &Done| done.outcome != Outcome::Unknown;
    let wanted = history.iter().filter(|done| answered(done)).count();
    let mut seen: HashSet<(Vec<u64>, Held)> = HashSet::new();
    let mut taken = vec![0_u64; history.len().div_ceil(64)];
    let (mut held, mut answered_taken, mut steps, mut furthest) = (Held::new(), 0, 0, 0);
    // What was taken, what was held before it, and where to look on if that leads nowhere.
    let mut path: Vec<(usize, Held)> = Vec::new();
    let mut from = 0;
    loop {
        if answered_taken == wanted {
            return Ok(steps);
        }
        // Nobody who was called after somebody not taken yet was answered can come next.
        let bound = (0..history.len())
            .filter(|&index| taken[index / 64] >> (index % 64) & 1 == 0 && answered(history[index]))
            .map(|index| history[index].answered_at)
            .min();
        let next = (from..history.len())
            .take_while(|&index| bound.is_none_or(|bound| history[index].call_at <= bound))
            .filter(|&index| taken[index / 64] >> (index % 64) & 1 == 0)
            .find_map(|index| {
                steps += 1;
                let after = history[index].on(&held)?;
                let mut set = taken.clone();
                set[index / 64] |= 1 << (index % 64);
                seen.insert((set, after.clone())).then_some((index, after))
            });
        if steps > STEPS_MAX {
            return Err(format!("no order found in {STEPS_MAX} steps"));
        }
        match next {
            Some((index, after)) => {
                taken[index / 64] |= 1 << (index % 64);
                answered_taken += usize::from(answered(history[index]));
                furthest = furthest.max(answered_taken);
                path.push((index, std::mem::replace(&mut held, after)));
                from = 0;
            }
            None => {
                let Some((index, before)) = path.pop() else {
                    return Err(format!("no order explains more than {furthest} of its {wanted} answers"));
                };
                taken[index / 64] &= !(1 << (index % 64));
                answered_taken -= usize::from(answered(history[index]));
                held = before;
                from = index + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn history(ops: &[(Op, u64, u64, Outcome)]) -> Vec<Done> {
        let began = crate::process::now();
        let at = |ms| began + Duration::from_millis(ms);
        let done = |(op, call, answer, outcome): &(Op, u64, u64, Outcome)| Done {
            op: *op,
            call_at: at(*call),
            answered_at: at(*answer),
            outcome: outcome.clone(),
        };
        ops.iter().map(done).collect()
    }

    fn read(held: &[(u8, u64)]) -> Outcome {
        Outcome::Read(held.iter().copied().collect())
    }

    #[test]
    fn what_overlaps_may_be_in_either_order_and_what_does_not_may_not() {
        let overlapping = |seen| {
            history(&[
                (Op::Register(1, 1), 0, 10, Outcome::Done),
                (Op::Register(1, 2), 5, 15, Outcome::Done),
                (Op::Resolve, 20, 30, read(&[(1, seen)])),
            ])
        };
        assert!(linearizable(&overlapping(1)).is_ok() && linearizable(&overlapping(2)).is_ok());
        let apart = history(&[
            (Op::Register(1, 1), 0, 10, Outcome::Done),
            (Op::Register(1, 2), 11, 15, Outcome::Done),
            (Op::Resolve, 20, 30, read(&[(1, 1)])),
        ]);
        assert!(linearizable(&apart).is_err());
    }

    #[test]
    fn a_stale_read_a_read_of_nobody_and_a_removal_that_found_nobody_are_found() {
        let registered = (Op::Register(1, 1), 0, 10, Outcome::Done);
        for wrong in [
            (Op::Resolve, 20, 30, Outcome::Absent),
            (Op::Resolve, 20, 30, read(&[(1, 1), (2, 2)])),
            (Op::Remove(1), 20, 30, Outcome::Absent),
        ] {
            assert!(linearizable(&history(&[registered.clone(), wrong])).is_err());
        }
    }

    #[test]
    fn what_nobody_knows_may_be_now_later_or_never_but_not_before_it_was_asked() {
        let unknown = (Op::Register(1, 1), 10, 12, Outcome::Unknown);
        let reads = |before, after, at_last| {
            linearizable(&history(&[
                (Op::Resolve, 0, 5, before),
                unknown.clone(),
                (Op::Resolve, 20, 25, after),
                (Op::Resolve, 30, 35, at_last),
            ]))
            .is_ok()
        };
        let (none, one) = (Outcome::Absent, read(&[(1, 1)]));
        assert!(reads(none.clone(), none.clone(), none.clone()));
        assert!(reads(none.clone(), none.clone(), one.clone()));
        assert!(reads(none.clone(), one.clone(), one.clone()));
        assert!(!reads(none.clone(), one.clone(), none.clone()));
        assert!(!reads(one.clone(), one.clone(), one));
    }
}
