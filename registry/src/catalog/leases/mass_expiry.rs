//! How many instances of a service may go by silence (DESIGN §4, mass expiry). Many leases that run out together are far
//! more often a fault of what carries heartbeats than the death of as many processes.

use std::time::Duration;

use crate::catalog::{RemovalHoldReason, Timestamp};

/// (a) Share of a service that goes by silence in one window, in percent, rounded up.
const SHARE_PERCENT: usize = 15;

/// (c) Smallest service that a silent majority says something about.
const MAJORITY_OF: usize = 4;

/// (c) How long a silent majority is held back at most.
const MAJORITY_HOLD: Duration = Duration::from_secs(600);

/// A service as it is when a removal is asked for. Draining instances are in none of the numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Census {
    /// Instances, the silent ones included.
    pub(super) instances: usize,
    /// How many of them are past their deadline.
    pub(super) silent: usize,
    /// Longest TTL among them: the length of a window that opens now.
    pub(super) longest_ttl: Duration,
}

/// Whether the instance that has been silent longest may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ruling {
    Go,
    Hold { reason: RemovalHoldReason, until: Timestamp },
}

/// Names a window of one service by its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WindowEnd(Timestamp);

/// One window of rule (a).
#[derive(Clone, Copy, Debug)]
struct Window {
    ends: Timestamp,
    /// Instances when it opened.
    instances: usize,
    /// How many went by silence since.
    removed: usize,
}

impl Window {
    fn opened(census: Census, now: Timestamp) -> Self {
        Self { ends: now.after(census.longest_ttl), instances: census.instances, removed: 0 }
    }

    fn budget(&self) -> usize {
        (self.instances * SHARE_PERCENT).div_ceil(100).max(1)
    }
}

/// Rule (c).
#[derive(Clone, Copy, Debug, Default)]
enum Majority {
    /// Not more than half is silent.
    #[default]
    Present,
    /// More than half fell silent: nothing goes.
    Missing { since: Timestamp },
    /// More than half has been silent for as long as it is held back: rule (a) applies until it is less.
    GivenUp,
}

/// The rules' memory in one service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MassExpiry {
    window: Option<Window>,
    majority: Majority,
}

impl MassExpiry {
    /// Nobody is silent any more.
    pub(super) fn nobody_silent(&mut self) {
        self.majority = Majority::Present;
    }

    /// Whether the longest silent one may go. `last_until` is how long it would be kept as the last of its service.
    pub(super) fn ask(&mut self, census: Census, last_until: Timestamp, now: Timestamp) -> Ruling {
        let window = self.open(now).unwrap_or_else(|| Window::opened(census, now));
        self.window = Some(window);
        self.majority = self.majority.after(census, window, now);

        if let Majority::Missing { since } = self.majority {
            return Ruling::Hold { reason: RemovalHoldReason::MajoritySilent, until: since.after(MAJORITY_HOLD) };
        }
        if census.instances <= 1 && now < last_until {
            return Ruling::Hold { reason: RemovalHoldReason::LastInstance, until: last_until };
        }
        if window.removed >= window.budget() {
            return Ruling::Hold { reason: RemovalHoldReason::Rate, until: window.ends };
        }
        Ruling::Go
    }

    /// The window that is open now.
    fn open(&self, now: Timestamp) -> Option<Window> {
        self.window.filter(|window| now < window.ends)
    }

    /// Another node let one go: that counts here too. `census` is of before it went.
    pub(super) fn went_elsewhere(&mut self, census: impl FnOnce() -> Census, now: Timestamp) {
        let mut window = self.open(now).unwrap_or_else(|| Window::opened(census(), now));
        window.removed += 1;
        self.window = Some(window);
    }

    /// The one that was asked for goes. It counts against the window that let it go.
    pub(super) fn went(&mut self, now: Timestamp) -> WindowEnd {
        let Some(window) = &mut self.window else { return WindowEnd(now) };
        window.removed += 1;
        WindowEnd(window.ends)
    }

    /// One that went is still there: the store did not take its removal.
    pub(super) fn returned(&mut self, from: WindowEnd) {
        if let Some(window) = self.window.as_mut().filter(|window| WindowEnd(window.ends) == from) {
            window.removed = window.removed.saturating_sub(1);
        }
    }
}

impl Majority {
    fn after(self, census: Census, window: Window, now: Timestamp) -> Self {
        let few = census.silent * 100 <= census.instances * SHARE_PERCENT;
        // Those that went in this window were silent too; without them a majority could leave in slices.
        let most = (census.silent + window.removed) * 2 > window.instances;
        match self {
            Self::Missing { .. } if few => Self::Present,
            Self::Missing { since } if now >= since.after(MAJORITY_HOLD) => Self::GivenUp,
            Self::GivenUp if !most => Self::Present,
            Self::Present if most && window.instances >= MAJORITY_OF => Self::Missing { since: now },
            same => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::since_epoch(Duration::from_secs(1_000 + seconds))
    }

    fn census(instances: usize, silent: usize) -> Census {
        Census { instances, silent, longest_ttl: TTL }
    }

    /// How many of `silent` go at one moment, and what holds the rest.
    fn go(rules: &mut MassExpiry, mut instances: usize, mut silent: usize, now: u64) -> (usize, Option<Ruling>) {
        let mut gone = 0;
        while silent > 0 {
            match rules.ask(census(instances, silent), at(now + 3_600), at(now)) {
                Ruling::Go => _ = rules.went(at(now)),
                held @ Ruling::Hold { .. } => return (gone, Some(held)),
            }
            (gone, silent, instances) = (gone + 1, silent - 1, instances - 1);
        }
        (gone, None)
    }

    #[test]
    fn one_silent_instance_of_several_goes_at_once() {
        assert_eq!(go(&mut MassExpiry::default(), 2, 1, 0), (1, None));
        assert_eq!(go(&mut MassExpiry::default(), 3, 1, 0), (1, None));
        assert_eq!(go(&mut MassExpiry::default(), 1_000, 1, 0), (1, None));
    }

    #[test]
    fn a_window_lets_fifteen_percent_go_rounded_up() {
        let held = Some(Ruling::Hold { reason: RemovalHoldReason::Rate, until: at(10) });
        assert_eq!(go(&mut MassExpiry::default(), 20, 8, 0), (3, held));
        assert_eq!(go(&mut MassExpiry::default(), 21, 8, 0), (4, held));
    }

    #[test]
    fn the_next_window_lets_its_own_share_go() {
        let mut rules = MassExpiry::default();
        assert_eq!(go(&mut rules, 20, 8, 0).0, 3);
        assert_eq!(go(&mut rules, 17, 5, 9).0, 0, "the window is still open");
        assert_eq!(go(&mut rules, 17, 5, 10).0, 3, "15 % of 17 is 2.55");
    }

    #[test]
    fn a_silent_majority_is_held_for_ten_minutes_and_then_metered() {
        let mut rules = MassExpiry::default();
        let held = Some(Ruling::Hold { reason: RemovalHoldReason::MajoritySilent, until: at(600) });
        assert_eq!(go(&mut rules, 10, 6, 0), (0, held));
        assert_eq!(go(&mut rules, 10, 6, 599), (0, held));
        assert_eq!(go(&mut rules, 10, 6, 600).0, 2);
        assert_eq!(go(&mut rules, 8, 4, 610).0, 2);
    }

    #[test]
    fn a_held_majority_is_let_go_of_when_few_are_silent() {
        let mut rules = MassExpiry::default();
        assert_eq!(go(&mut rules, 10, 6, 0).0, 0);
        assert_eq!(go(&mut rules, 10, 2, 20).0, 0, "a fifth is still silent");
        assert_eq!(go(&mut rules, 10, 1, 40), (1, None));
    }

    #[test]
    fn those_that_went_in_the_window_count_to_the_majority() {
        let mut rules = MassExpiry::default();
        assert_eq!(go(&mut rules, 5, 1, 0), (1, None));
        assert!(matches!(go(&mut rules, 4, 1, 1), (0, Some(Ruling::Hold { reason: RemovalHoldReason::Rate, .. }))));
        let majority = RemovalHoldReason::MajoritySilent;
        assert!(matches!(go(&mut rules, 4, 2, 2), (0, Some(Ruling::Hold { reason, .. })) if reason == majority));
    }

    #[test]
    fn a_majority_that_falls_silent_again_is_held_again() {
        let mut rules = MassExpiry::default();
        assert_eq!(go(&mut rules, 10, 6, 0).0, 0);
        assert_eq!(go(&mut rules, 10, 6, 600).0, 2);
        assert_eq!(go(&mut rules, 8, 4, 610).0, 2, "half is not more than half");
        assert_eq!(go(&mut rules, 6, 5, 630).0, 0);
        let mut rules = MassExpiry::default();
        assert_eq!(go(&mut rules, 10, 6, 0).0, 0);
        assert_eq!(go(&mut rules, 10, 6, 600).0, 2);
        rules.nobody_silent();
        assert_eq!(go(&mut rules, 8, 8, 700).0, 0);
    }

    #[test]
    fn below_four_instances_there_is_no_majority() {
        assert_eq!(go(&mut MassExpiry::default(), 3, 2, 0).0, 1);
    }

    #[test]
    fn the_last_one_is_held_for_its_hour() {
        let mut rules = MassExpiry::default();
        let ask = |rules: &mut MassExpiry, now| rules.ask(census(1, 1), at(3_600), at(now));
        assert_eq!(ask(&mut rules, 0), Ruling::Hold { reason: RemovalHoldReason::LastInstance, until: at(3_600) });
        assert_eq!(ask(&mut rules, 3_600), Ruling::Go);
    }

    #[test]
    fn a_removal_that_failed_gives_its_share_back() {
        let mut rules = MassExpiry::default();
        assert_eq!(rules.ask(census(3, 1), at(3_600), at(0)), Ruling::Go);
        let window = rules.went(at(0));
        assert!(matches!(rules.ask(census(2, 1), at(3_600), at(1)), Ruling::Hold { .. }));
        rules.returned(window);
        assert_eq!(rules.ask(census(3, 1), at(3_600), at(1)), Ruling::Go);
    }
}
