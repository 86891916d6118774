//! Which endpoints are candidates at all.

/// How much an endpoint is wanted. Earlier is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    /// Pick it.
    Preferred,
    /// Somebody doubts it: pick it only while no preferred one is there.
    Spare,
    /// Do not pick it.
    Never,
}

/// The endpoints to pick from, by index: all preferred ones, or else all spare ones.
pub fn pickable(preferences: &[Preference]) -> Vec<usize> {
    let best = preferences.iter().copied().min().unwrap_or(Preference::Never);
    let wanted = |preference: Preference| preference == best && best != Preference::Never;
    preferences.iter().enumerate().filter(|(_, preference)| wanted(**preference)).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::Preference::{Never, Preferred, Spare};
    use super::*;

    #[test]
    fn spares_are_picked_only_while_nothing_better_is_there() {
        assert_eq!(pickable(&[Spare, Preferred, Never, Preferred]), [1, 3]);
        assert_eq!(pickable(&[Spare, Never, Spare]), [0, 2]);
        assert!(pickable(&[Never, Never]).is_empty());
        assert!(pickable(&[]).is_empty());
    }
}
