//! Removal by silence, whatever falls silent and comes back: the budgets of DESIGN §4 against a count of what really went.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use registry::catalog::{IdentityKey, InstanceId, Liveness, RemovalHold, RemovalHoldReason, Timestamp};

use crate::harness::{Grant, Harness, LAST_INSTANCE_HOLD, TTL, service};

/// Most instances of the service.
const INSTANCES: u8 = 40;

/// How often an instance that is not silent beats.
const BEAT: Duration = Duration::from_secs(3);

/// Sequences of weather; each is hours of beats.
const CASES: u32 = 300;

/// What happens to the service.
#[derive(Clone, Debug)]
enum Weather {
    /// These fall silent: every instance whose number leaves this rest when divided by the other.
    Silence {
        of: u8,
        rest: u8,
    },
    /// All but so many fall silent.
    Blackout {
        but: u8,
    },
    /// Everybody beats again.
    Heal,
    /// This one comes, or comes back under a new start.
    Join(u8),
    /// This one says goodbye.
    Leave(u8),
    Wait(Duration),
}

fn weather() -> impl Strategy<Value = Vec<Weather>> {
    let wait = prop_oneof![
        4 => (1_u64..15).prop_map(Duration::from_secs),
        1 => (15_u64..120).prop_map(Duration::from_secs),
        1 => (500_u64..700).prop_map(Duration::from_secs),
    ];
    let weather = prop_oneof![
        2 => (1_u8..8, 0_u8..8).prop_map(|(of, rest)| Weather::Silence { of, rest: rest % of }),
        1 => (0_u8..6).prop_map(|but| Weather::Blackout { but }),
        1 => Just(Weather::Heal),
        2 => (0..INSTANCES).prop_map(Weather::Join),
        1 => (0..INSTANCES).prop_map(Weather::Leave),
        6 => wait.prop_map(Weather::Wait),
    ];
    prop::collection::vec(weather, 1..40)
}

/// A service in the weather, and what its removals are held against.
struct Station {
    harness: Harness,
    grants: BTreeMap<u8, Grant>,
    /// When each live instance was renewed last.
    renewed: BTreeMap<u8, Timestamp>,
    silent: Vec<u8>,
    starts: u8,
    /// When somebody was removed, and how many there were before.
    removals: Vec<(Timestamp, usize)>,
}

impl Station {
    fn new(instances: u8) -> Self {
        let mut station = Self {
            harness: Harness::new(),
            grants: BTreeMap::new(),
            renewed: BTreeMap::new(),
            silent: Vec::new(),
            starts: 0,
            removals: Vec::new(),
        };
        (0..instances).for_each(|instance| station.join(instance));
        station
    }

    fn join(&mut self, instance: u8) {
        self.starts = self.starts.wrapping_add(1);
        self.grants.insert(instance, self.harness.start(instance, self.starts));
        self.renewed.insert(instance, self.harness.now);
        self.silent.retain(|silent| *silent != instance);
    }

    fn weather(&mut self, weather: &Weather) -> Result<(), TestCaseError> {
        match weather {
            Weather::Silence { of, rest } => {
                let fallen = self.grants.keys().filter(|instance| *instance % of == *rest);
                self.silent = fallen.copied().collect();
            }
            Weather::Blackout { but } => self.silent = self.grants.keys().copied().skip(usize::from(*but)).collect(),
            Weather::Heal => self.silent.clear(),
            Weather::Join(instance) => self.join(*instance),
            Weather::Leave(instance) => {
                if let Some(grant) = self.grants.remove(instance) {
                    self.renewed.remove(instance);
                    self.harness.goodbye(grant);
                }
            }
            Weather::Wait(duration) => {
                let until = self.harness.now.after(*duration);
                while self.harness.now < until {
                    self.pass(BEAT.min(until.since(self.harness.now)))?;
                    self.beat()?;
                }
            }
        }
        Ok(())
    }

    fn beat(&mut self) -> Result<(), TestCaseError> {
        for (instance, grant) in &self.grants {
            if !self.silent.contains(instance) {
                prop_assert!(self.harness.renew(*grant), "who beats in time is there");
                self.renewed.insert(*instance, self.harness.now);
            }
        }
        Ok(())
    }

    fn pass(&mut self, duration: Duration) -> Result<(), TestCaseError> {
        let until = self.harness.now.after(duration);
        while self.harness.now < until {
            let hold = self.harness.hold();
            for instance in self.harness.next_lapses(until) {
                self.check(instance, hold)?;
            }
        }
        Ok(())
    }

    /// Whether this removal keeps to the rules.
    fn check(&mut self, instance: u8, hold: Option<RemovalHold>) -> Result<(), TestCaseError> {
        let now = self.harness.now;
        let (before, silent) = (self.renewed.len(), self.silent_now());
        let silent_for = now.since(self.renewed.remove(&instance).expect("who goes was there"));
        self.grants.remove(&instance);
        prop_assert!(silent_for >= TTL, "a live lease ran out");
        if before == 1 {
            prop_assert!(silent_for >= TTL + LAST_INSTANCE_HOLD, "the last one went after {:?}", silent_for);
        }
        if let Some(hold) = hold.filter(|hold| hold.reason == RemovalHoldReason::MajoritySilent) {
            let few = silent * 100 <= before * 15;
            prop_assert!(few || now >= hold.until, "{} of {} are silent, and somebody went", silent, before);
        }
        self.removals.push((now, before));

        // Whatever windows there were, an interval of one TTL touches two of them at most.
        let recent = self.removals.iter().rev().take_while(|(at, _)| now.since(*at) < TTL);
        let (count, largest) = recent.fold((0, 0), |(count, largest), (_, size)| (count + 1, largest.max(*size)));
        let budget = (largest * 15).div_ceil(100).max(1);
        prop_assert!(count <= 2 * budget, "{} of {} went within a TTL", count, largest);
        Ok(())
    }

    /// How many are past their deadline.
    fn silent_now(&self) -> usize {
        self.renewed.values().filter(|renewed| self.harness.now.since(**renewed) >= TTL).count()
    }
}

proptest! {
    #![proptest_config(crate::config(CASES))]

    #[test]
    fn removals_by_silence_keep_to_their_budget(instances in 1..INSTANCES, weather in weather()) {
        let mut station = Station::new(instances);
        for weather in weather {
            station.weather(&weather)?;
        }
    }

    #[test]
    fn suspicion_keeps_to_its_budget(instances in 1..INSTANCES, weather in weather()) {
        let mut station = Station::new(instances);
        for weather in weather {
            let Weather::Wait(duration) = weather else {
                station.weather(&weather)?;
                continue;
            };
            for _ in 0..duration.as_secs().min(TTL.as_secs() - 1) {
                let (before, size) = (station.harness.suspects(), station.harness.state.live());
                station.harness.next_lapses(station.harness.now.after(Duration::from_secs(1)));
                let after = station.harness.suspects();
                let fresh = after.iter().filter(|instance| !before.contains(instance)).count();
                prop_assert!(fresh <= (size * 15 / 100).max(1), "{} of {} became SUSPECT in a second", fresh, size);
            }
            station.beat().ok();
        }
    }

    /// Once everybody is back, nobody is missing who did not go before, and nothing is held back.
    #[test]
    fn after_healing_nothing_is_held(instances in 4..INSTANCES, but in 0_u8..2, silence in 10_u64..500) {
        let mut station = Station::new(instances);
        station.weather(&Weather::Blackout { but })?;
        station.weather(&Weather::Wait(Duration::from_secs(silence)))?;
        if silence > 15 {
            let reason = station.harness.hold().map(|hold| hold.reason);
            prop_assert_eq!(reason, Some(RemovalHoldReason::MajoritySilent));
        }
        station.weather(&Weather::Heal)?;
        station.weather(&Weather::Wait(Duration::from_secs(20)))?;
        prop_assert_eq!(station.harness.hold(), None);
        prop_assert!(station.harness.state.live() == usize::from(instances), "all fell silent together: nobody went");
    }
}

impl Harness {
    fn suspects(&self) -> Vec<InstanceId> {
        let soft = self.leases.soft_state(&service(0));
        let suspect = soft.instances.iter().filter(|(_, health)| health.liveness == Liveness::Suspect);
        suspect.map(|(id, _)| *id).collect()
    }

    fn hold(&self) -> Option<RemovalHold> {
        self.leases.soft_state(&service(0)).hold
    }

    fn renew(&mut self, grant: Grant) -> bool {
        self.leases.renew(grant.lease, grant.incarnation, None, None, self.now).is_some()
    }

    /// Goes to the next deadline, but not beyond this time, and tells who was removed.
    fn next_lapses(&mut self, until: Timestamp) -> Vec<u8> {
        let next = [self.leases.next_deadline(), self.state.next_end()].into_iter().flatten().min();
        self.now = next.map_or(until, |next| next.max(self.now).min(until));
        let mut gone = Vec::new();
        for lapse in self.leases.advance(self.now) {
            gone.push(number(&lapse.identity));
            self.expire(lapse);
        }
        self.housekeeping();
        gone
    }
}

fn number(identity: &IdentityKey) -> u8 {
    u8::try_from(identity.id.uuid().as_u128() - 1).expect("ids of this test are small")
}
