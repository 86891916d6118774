//! Texts and lists that a hundred thousand instances hold, in one word each.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A short text that many may share. An `Arc<str>` is two words, and an instance holds a dozen of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Text(
    /// `None` is the empty text, and nothing else is.
    Option<Arc<Box<str>>>,
);

impl Text {
    /// Takes an equal text from there.
    pub(super) fn share(&mut self, its: &Self) {
        if self == its {
            self.clone_from(its);
        }
    }

    /// Whether both are the same memory, not just equal.
    pub(super) fn shares(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(mine), Some(its)) => Arc::ptr_eq(mine, its),
            (mine, its) => mine.is_none() && its.is_none(),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self((!text.is_empty()).then(|| Arc::new(text.into())))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_deref().map_or("", |text| text)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A list that is nearly always empty.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Few<T>(
    /// `None` is the empty list, and nothing else is.
    Option<Arc<Vec<T>>>,
);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Few<T> {
    /// Puts an entry to the end.
    pub fn push(&mut self, entry: T) {
        Arc::make_mut(self.0.get_or_insert_default()).push(entry);
    }

    /// Drops the entries that are not wanted.
    pub fn retain(&mut self, wanted: impl FnMut(&T) -> bool) {
        self.change(|list| list.retain(wanted));
    }

    /// Drops the first ones, up to the last so many.
    pub fn keep_last(&mut self, max: usize) {
        self.change(|list| drop(list.drain(..list.len().saturating_sub(max))));
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<T>)) {
        let Some(list) = &mut self.0 else { return };
        let list = Arc::make_mut(list);
        change(list);
        if list.is_empty() {
            self.0 = None;
        }
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |list| list)
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(list: Vec<T>) -> Self {
        Self((!list.is_empty()).then(|| Arc::new(list)))
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        entries.into_iter().collect::<Vec<T>>().into()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_takes_no_memory_however_it_came_to_be() {
        let mut few = Few::from(vec![1, 2, 3]);
        few.keep_last(2);
        assert_eq!(*few, [2, 3]);
        few.retain(|entry| *entry != 2);
        few.push(4);
        few.retain(|entry| *entry > 4);
        assert!(few.0.is_none() && few == Few::default());
        assert!(Few::<u8>::from(Vec::new()).0.is_none());
        assert!(Text::from("").0.is_none() && Text::from("") == Text::default());
    }

    #[test]
    fn equal_texts_are_one_after_they_were_shared() {
        let (mut mine, its, other) = (Text::from("eu-1a"), Text::from("eu-1a"), Text::from("eu-1b"));
        mine.share(&other);
        assert!(!mine.shares(&its) && *mine == *"eu-1a");
        mine.share(&its);
        assert!(mine.shares(&its) && !mine.shares(&other));
    }
}
