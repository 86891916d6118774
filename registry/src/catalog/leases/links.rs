//! Lists through slots: taking a slot in and out costs the same however long its list is, and no list has memory of its
//! own.

use super::slab::Slot;

/// No neighbour, or the head of an empty list.
const NONE: u32 = u32::MAX;

/// Where a list begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head(u32);

impl Head {
    /// An empty list.
    pub(super) const EMPTY: Self = Self(NONE);

    pub(super) fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    /// The slot that was taken in last.
    pub(super) fn first(self) -> Option<Slot> {
        (!self.is_empty()).then(|| Slot::numbered(self.0))
    }
}

/// The neighbours of a slot.
#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

/// What joins slots to lists. A slot is in one of them at most; who owns the heads knows in which. As large as the
/// highest slot that was ever in a list.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: Vec<Link>,
}

impl Links {
    /// Puts a slot that is in no list to the front of this one.
    pub(super) fn push(&mut self, head: &mut Head, slot: Slot) {
        let index = slot.index();
        if self.links.len() <= index {
            self.links.resize(index + 1, Link { before: NONE, after: NONE });
        }
        self.links[index] = Link { before: NONE, after: head.0 };
        if let Some(next) = head.first() {
            self.links[next.index()].before = slot.number();
        }
        *head = Head(slot.number());
    }

    /// Takes a slot out of this list, which it is in.
    pub(super) fn remove(&mut self, head: &mut Head, slot: Slot) {
        let Link { before, after } = self.links[slot.index()];
        match before {
            NONE => *head = Head(after),
            before => self.links[before as usize].after = after,
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
    }

    /// Takes the first slot out of this list.
    pub(super) fn pop(&mut self, head: &mut Head) -> Option<Slot> {
        let first = head.first()?;
        self.remove(head, first);
        Some(first)
    }
}
