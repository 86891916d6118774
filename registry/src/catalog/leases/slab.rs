//! Values in numbered slots that are used again.

/// The number of a slot. It means its value only until that is removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Slot(u32);

impl Slot {
    pub(super) const fn numbered(number: u32) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> u32 {
        self.0
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Values in slots; a removed one's slot goes to the next value.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<Slot>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> Slot {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot.0 as usize] = Some(value);
                slot
            }
            None => {
                let slot = Slot(u32::try_from(self.slots.len()).expect("the catalog's limits are far below 2^32"));
                self.slots.push(Some(value));
                slot
            }
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<T> {
        let value = self.slots.get_mut(slot.0 as usize)?.take()?;
        self.free.push(slot);
        Some(value)
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&T> {
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.slots.get_mut(slot.0 as usize)?.as_mut()
    }

    /// Every value, in the order of slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        let numbered = (0..).map(Slot).zip(&self.slots);
        numbered.filter_map(|(slot, value)| Some((slot, value.as_ref()?)))
    }
}
