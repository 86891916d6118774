//! When to look at which lease: a timing wheel.
//!
//! A renewal does not touch it. It moves the lease's own time, and what was filed for the lease stays where it is until
//! its bucket comes up; only then is it filed again, under the time that holds by then. So a lease that beats costs one
//! look per bucket it is found in, not one per beat, and filing costs the same with a thousand leases as with a million.

use std::collections::BTreeSet;

use super::links::{Head, Links};
use super::slab::Slot;
use crate::catalog::Timestamp;

/// Nanoseconds in a tick, as a power of two: 67 ms. Slots of one tick are put in order when it comes up, and waking up
/// for a tick whose slots were all renewed is in vain; both are cheap at this size.
const TICK_BITS: u32 = 26;

/// Ticks in a turn of the wheel: 550 s, so that the longest TTL and all that is concluded from it are within one. What is
/// further away is filed at the end of the turn and again from there.
const BUCKETS: usize = 1 << 13;

/// Buckets of which one word says whether they are empty.
const WORD: usize = u64::BITS as usize;

/// Most slots that are taken out of their buckets in one go: some 2 ms of work, for so long beats wait at most.
const TURN_MAX: usize = 16_384;

/// Where a slot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Nowhere,
    Bucket(u16),
    /// Among those whose tick has come up.
    Near,
}

/// What is filed for a slot.
#[derive(Clone, Copy, Debug)]
struct Filed {
    at: Timestamp,
    place: Place,
}

/// Slots filed under the time at which they are due, each at most once. Slots that are due together come in their own
/// order, which keeps a replay the same. Its memory is that of the buckets, 33 KiB, and 24 bytes for each slot up to the
/// highest that was ever filed.
#[derive(Debug)]
pub(super) struct Wheel {
    filed: Vec<Filed>,
    links: Links,
    buckets: Box<[Head]>,
    /// One bit per bucket: whether anything is in it.
    occupied: Box<[u64]>,
    /// All ticks up to this one have come up. What is filed for them is near.
    reached: u64,
    near: BTreeSet<(Timestamp, Slot)>,
    len: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            filed: Vec::new(),
            links: Links::default(),
            buckets: vec![Head::EMPTY; BUCKETS].into(),
            occupied: vec![0; BUCKETS / WORD].into(),
            reached: 0,
            near: BTreeSet::new(),
            len: 0,
        }
    }
}

/// The tick that a time falls into.
fn tick(at: Timestamp) -> u64 {
    at.as_nanos() >> TICK_BITS
}

fn bucket(tick: u64) -> usize {
    usize::try_from(tick % BUCKETS as u64).expect("a remainder of the number of buckets")
}

impl Wheel {
    /// Files a slot, in place of where it was filed before.
    pub(super) fn file(&mut self, slot: Slot, at: Timestamp) {
        self.unfile(slot);
        if self.filed.len() <= slot.index() {
            self.filed.resize(slot.index() + 1, Filed { at: Timestamp::default(), place: Place::Nowhere });
        }
        if self.len == 0 {
            // Nothing is filed that could be passed over: the wheel stands where this is well within one turn.
            self.reached = self.reached.max(tick(at).saturating_sub(BUCKETS as u64 / 2));
        }
        self.place(slot, at);
        self.len += 1;
    }

    /// Files a slot unless it is filed for an earlier time.
    pub(super) fn file_by(&mut self, slot: Slot, at: Timestamp) {
        if self.filed_at(slot).is_none_or(|filed| filed > at) {
            self.file(slot, at);
        }
    }

    /// Takes a slot out.
    pub(super) fn unfile(&mut self, slot: Slot) {
        let Some(filed) = self.filed.get_mut(slot.index()) else { return };
        let Filed { at, place } = *filed;
        filed.place = Place::Nowhere;
        match place {
            Place::Nowhere => return,
            Place::Near => _ = self.near.remove(&(at, slot)),
            Place::Bucket(number) => {
                let number = usize::from(number);
                self.links.remove(&mut self.buckets[number], slot);
                self.note(number);
            }
        }
        self.len -= 1;
    }

    /// Lets the ticks up to this time come up. `holds` is asked for the time that holds for a slot by now: where that is
    /// later than what was filed the slot is filed again, where there is none any more it is let go of.
    ///
    /// At most [`TURN_MAX`] slots come up in one call; [`next`](Self::next) tells whether more wait.
    pub(super) fn turn(&mut self, now: Timestamp, holds: impl Fn(Slot) -> Option<Timestamp>) {
        let until = tick(now);
        if self.reached >= until {
            return;
        }
        let mut taken = 0;
        while let Some(next) = self.next_occupied().filter(|next| *next <= until) {
            let number = bucket(next);
            // What is filed again must not come back into this bucket, unless it is due in its tick.
            self.reached = next - 1;
            while let Some(slot) = self.links.pop(&mut self.buckets[number]) {
                let filed = &mut self.filed[slot.index()];
                filed.place = Place::Nowhere;
                let before = filed.at;
                match holds(slot) {
                    None => self.len -= 1,
                    Some(at) => self.came_up(slot, before.max(at), next),
                }
                taken += 1;
                if taken >= TURN_MAX {
                    return self.note(number);
                }
            }
            self.note(number);
            self.reached = next;
        }
        self.reached = until;
    }

    /// Takes out the first slot that is due, of those that came up with the last [`turn`](Self::turn).
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Slot> {
        let (at, slot) = *self.near.first().filter(|(at, _)| *at <= now)?;
        self.near.remove(&(at, slot));
        self.filed[slot.index()].place = Place::Nowhere;
        self.len -= 1;
        Some(slot)
    }

    /// A time at which to look: never after the first slot is due, and before that by less than a tick, or by what the
    /// slots there were renewed since they were filed.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let near = self.near.first().map(|(at, _)| *at);
        let bucket = self.next_occupied().map(|tick| Timestamp::from_nanos(tick << TICK_BITS));
        [near, bucket].into_iter().flatten().min()
    }

    /// How many slots are filed.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn filed_at(&self, slot: Slot) -> Option<Timestamp> {
        let filed = self.filed.get(slot.index())?;
        (filed.place != Place::Nowhere).then_some(filed.at)
    }

    /// Puts a slot that is nowhere where it belongs.
    fn place(&mut self, slot: Slot, at: Timestamp) {
        let due = tick(at);
        let place = if due <= self.reached {
            self.near.insert((at, slot));
            Place::Near
        } else {
            let number = bucket(due.min(self.reached + BUCKETS as u64 - 1));
            self.links.push(&mut self.buckets[number], slot);
            self.occupied[number / WORD] |= 1 << (number % WORD);
            Place::Bucket(u16::try_from(number).expect("there are fewer buckets than that"))
        };
        self.filed[slot.index()] = Filed { at, place };
    }

    /// Places a slot whose bucket came up with this tick.
    fn came_up(&mut self, slot: Slot, at: Timestamp, tick_now: u64) {
        if tick(at) <= tick_now {
            self.near.insert((at, slot));
            self.filed[slot.index()] = Filed { at, place: Place::Near };
        } else {
            self.place(slot, at);
        }
    }

    /// Notes whether a bucket is empty.
    fn note(&mut self, number: usize) {
        if self.buckets[number].is_empty() {
            self.occupied[number / WORD] &= !(1 << (number % WORD));
        }
    }

    /// The first tick yet to come up that has a bucket with something in it.
    fn next_occupied(&self) -> Option<u64> {
        let start = bucket(self.reached + 1);
        let words = BUCKETS / WORD;
        for step in 0..=words {
            let word = (start / WORD + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % WORD);
            } else if step == words {
                // Around once: the part of the first word that comes before the start.
                bits &= !(u64::MAX << (start % WORD));
            }
            if bits != 0 {
                let number = word * WORD + bits.trailing_zeros() as usize;
                let ahead = (number + BUCKETS - start) % BUCKETS;
                return Some(self.reached + 1 + ahead as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
