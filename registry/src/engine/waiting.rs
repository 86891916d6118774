//! Commands that wait to be decided, in lanes by how much depends on them.
//!
//! A goodbye that waits sends callers to an instance that is gone, and the answer to a heartbeat may wait for the status
//! in it; a registration that waits makes its instance known later; everything else can wait for both. So they are
//! decided in that order, and each lane has bounds of its own. Lapses go before all: a registration that was answered on
//! the strength of a lease must not stand before the end of that lease.

use std::collections::VecDeque;

use super::error::Lane;
use super::pending::{Pending, Waiter};
use crate::catalog::{Command, Lapse};

/// Goodbyes that wait in their lane, and again as many, with statuses and claims from heartbeats, to be decided.
pub(super) const DEPARTURES_MAX: usize = 4_096;

/// Registrations that wait in their lane, and again as many that wait to be decided; past both they are refused.
pub(super) const REGISTRATIONS_MAX: usize = 4_096;

/// What operators ask for: so much waits in the lane, and again as much to be decided.
pub(super) const OPERATIONS_MAX: usize = 1_024;

/// Of each group, this many places for each lane in which somebody waits: a lane may be slow, but it moves.
const SHARE: usize = 16;

const LANES: usize = 4;

/// What waits, in order of urgency and within that in order of arrival. Bounded by the lanes' own bounds, by the live
/// leases, and by what time alone asks for in one go.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lapses: VecDeque<Pending>,
    departures: VecDeque<Pending>,
    registrations: VecDeque<Pending>,
    rest: VecDeque<Pending>,
}

impl Waiting {
    /// Adds a command behind those of its kind.
    pub(super) fn push(&mut self, pending: Pending) {
        self.lane(&pending).push_back(pending);
    }

    /// Puts commands back before those of their kind, in their order.
    pub(super) fn put_back(&mut self, commands: Vec<Pending>) {
        for pending in commands.into_iter().rev() {
            self.lane(&pending).push_front(pending);
        }
    }

    /// The commands to decide next, at most so many.
    pub(super) fn take(&mut self, max: usize) -> Vec<Pending> {
        let mut group = Vec::with_capacity(max.min(self.len()));
        let lanes = self.lanes_mut();
        for turn in 0..LANES {
            let behind = lanes[turn + 1..].iter().map(|lane| lane.len().min(SHARE)).sum::<usize>();
            let places = max.saturating_sub(group.len()).saturating_sub(behind).min(lanes[turn].len());
            group.extend(lanes[turn].drain(..places));
        }
        group
    }

    /// Whether a message from this lane can wait here. Where there is no room, registrations and operations go first
    /// whose caller has given up: nobody would learn that they were done. A goodbye is one whoever still listens.
    pub(super) fn has_room(&mut self, lane: Lane) -> bool {
        let (waiting, max) = match lane {
            Lane::Beats => return true,
            Lane::Departures => return self.departures.len() < DEPARTURES_MAX,
            Lane::Registrations => (&mut self.registrations, REGISTRATIONS_MAX),
            Lane::Operations => (&mut self.rest, OPERATIONS_MAX),
        };
        if waiting.len() >= max {
            waiting.retain(|pending| !pending.waiter.has_left());
        }
        waiting.len() < max
    }

    /// How many goodbyes and statuses from heartbeats wait.
    pub(super) fn departures(&self) -> usize {
        self.departures.len()
    }

    /// Whether something waits that time alone asked for.
    pub(super) fn has_timed(&self) -> bool {
        self.rest.iter().any(|pending| matches!(pending.waiter, Waiter::Time))
    }

    /// Takes out these lapses.
    pub(super) fn take_lapses(&mut self, which: impl Fn(&Lapse) -> bool) -> Vec<Lapse> {
        let mut taken = Vec::new();
        for pending in std::mem::take(&mut self.lapses) {
            match pending.waiter {
                Waiter::Lapse(lapse) if which(&lapse) => taken.push(lapse),
                _ => self.lapses.push_back(pending),
            }
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.lapses.len() + self.departures.len() + self.registrations.len() + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lanes_mut(&mut self) -> [&mut VecDeque<Pending>; LANES] {
        [&mut self.lapses, &mut self.departures, &mut self.registrations, &mut self.rest]
    }

    fn lane(&mut self, pending: &Pending) -> &mut VecDeque<Pending> {
        match (&pending.waiter, &pending.command) {
            (Waiter::Lapse(_), _) => &mut self.lapses,
            // All that an instance says of itself in one lane: the last word has to stay the last.
            // And the claims of leases, for which heartbeats wait too.
            (_, Command::Report(_) | Command::Claim { .. } | Command::Deregister { .. } | Command::Remove { .. }) => {
                &mut self.departures
            }
            (_, Command::Register { .. }) => &mut self.registrations,
            _ => &mut self.rest,
        }
    }
}

#[cfg(test)]
mod tests;
