//! What the catalog should do, in the plainest words: everything that ever happened to an id is kept in one list, and
//! each question is answered by looking through it.

use std::collections::BTreeMap;
use std::time::Duration;

use registry::catalog::{Answer, CatalogError, Emptiness, Incarnation, Presence, RemovalReason, Timestamp};

use crate::harness::{Grant, TTL};

/// For how long a goodbye, a removal and a lost id are remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A start of an instance under a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Who {
    pub(crate) id: u8,
    pub(crate) nonce: u8,
    pub(crate) service: u8,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    who: Who,
    incarnation: u64,
    renewed: Timestamp,
}

/// How a holder ceased to be one.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Removed(RemovalReason),
    /// Another start took the id over.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Past {
    holder: Holder,
    end: End,
    at: Timestamp,
}

/// The model. A deaf one agrees with everything, for tests that look at something else.
#[derive(Default)]
pub(crate) struct Model {
    deaf: bool,
    live: BTreeMap<u8, Holder>,
    past: Vec<Past>,
    issued: BTreeMap<u8, u64>,
    emptiness: [Option<Emptiness>; 2],
}

impl Model {
    pub(crate) fn deaf() -> Self {
        Self { deaf: true, ..Self::default() }
    }

    pub(crate) fn members(&self) -> BTreeMap<u8, (u8, u64)> {
        self.live.iter().map(|(id, holder)| (*id, (holder.who.service, holder.incarnation))).collect()
    }

    pub(crate) fn presences(&self) -> [Presence; 2] {
        [0, 1].map(|service| match self.emptiness[usize::from(service)] {
            _ if self.size(service) > 0 => Presence::Populated,
            Some(emptiness) => Presence::Empty(emptiness),
            None => Presence::Unknown,
        })
    }

    pub(crate) fn registered(
        &mut self,
        who: Who,
        held: Option<Incarnation>,
        answer: &Result<Answer, CatalogError>,
        now: Timestamp,
    ) {
        if self.deaf {
            return;
        }
        match (self.expected(who, held, now), answer) {
            (Expected::Same(incarnation), Ok(Answer::Granted { incarnation: granted, .. })) => {
                assert_eq!(granted.get(), incarnation, "the same start keeps its incarnation");
                self.live.get_mut(&who.id).unwrap().renewed = now;
            }
            (Expected::New, Ok(Answer::Granted { incarnation, .. })) => {
                let before = self.issued.insert(who.id, incarnation.get());
                assert!(before < Some(incarnation.get()), "a new incarnation is higher than any before");
                self.hand_over(who, incarnation.get(), now);
            }
            (Expected::Fenced, Err(CatalogError::Fenced { .. })) => {}
            (Expected::Departed(retry_in), Err(CatalogError::Departed { retry_in: said })) => {
                assert_eq!(*said, retry_in);
            }
            (expected, answer) => panic!("{who:?} holding {held:?} expected {expected:?}, got {answer:?}"),
        }
    }

    pub(crate) fn beaten(&mut self, grant: Grant, renewed: bool, fenced: bool, now: Timestamp) {
        if self.deaf {
            return;
        }
        let holds = self.holds(grant);
        assert_eq!(renewed, holds, "the current incarnation renews, no other: {grant:?}");
        if holds {
            self.live.get_mut(&grant.who.id).unwrap().renewed = now;
        }
        if fenced {
            let takers = self.past.iter().map(|past| past.holder).chain(self.live.get(&grant.who.id).copied());
            let mut newer = takers.filter(|holder| holder.who.id == grant.who.id);
            let newer = newer.any(|holder| holder.incarnation > grant.incarnation.get());
            assert!(newer, "who is fenced has lost its id to somebody");
        }
    }

    pub(crate) fn deregistered(&mut self, grant: Grant, answer: &Result<Answer, CatalogError>, now: Timestamp) {
        if self.deaf {
            return;
        }
        if self.holds(grant) {
            assert!(answer.is_ok());
            self.end(grant.who.id, End::Removed(RemovalReason::Deregistered), now);
        } else if let Err(error) = answer {
            assert!(matches!(error, CatalogError::Fenced { .. }));
            assert!(self.live.contains_key(&grant.who.id), "only a newer start fences");
        }
    }

    pub(crate) fn removed(&mut self, id: u8, service: u8, now: Timestamp) {
        if self.live.get(&id).is_some_and(|holder| holder.who.service == service) {
            self.end(id, End::Removed(RemovalReason::Operator), now);
        }
    }

    pub(crate) fn lapsed(&mut self, id: u8, now: Timestamp) {
        if self.deaf {
            return;
        }
        let silent_for = now.since(self.live[&id].renewed);
        assert!(silent_for >= TTL, "{id} was removed after {silent_for:?} of silence");
        self.end(id, End::Removed(RemovalReason::Expired), now);
    }

    pub(crate) fn ruled(&mut self, id: u8, service: u8, answer: &Result<Answer, CatalogError>) {
        if self.deaf {
            return;
        }
        let meant = self.live.get(&id).is_some_and(|holder| holder.who.service == service);
        match answer {
            Ok(Answer::Selected(count)) => assert_eq!(*count, usize::from(meant)),
            Err(CatalogError::UnknownService { .. }) => {
                assert_eq!(self.presences()[usize::from(service)], Presence::Unknown)
            }
            other => panic!("a rule is not answered with {other:?}"),
        }
    }

    pub(crate) fn deleted(&mut self, service: u8, answer: &Result<Answer, CatalogError>) {
        if self.deaf {
            return;
        }
        match answer {
            Ok(_) => {
                assert_eq!(self.size(service), 0);
                self.emptiness[usize::from(service)] = None;
            }
            Err(error) => {
                assert!(
                    matches!(error, CatalogError::ServiceInUse { instances, .. } if *instances == self.size(service))
                );
            }
        }
    }

    /// What a registration should come to.
    fn expected(&self, who: Who, held: Option<Incarnation>, now: Timestamp) -> Expected {
        let recent = |past: &&Past| past.holder.who.id == who.id && now.since(past.at) < REMEMBERED;
        let lost =
            self.past.iter().filter(recent).any(|past| past.holder.who.nonce == who.nonce && past.end == End::Lost);
        let outdated = |by: u64| held.is_some_and(|held| held.get() < by);

        if let Some(holder) = self.live.get(&who.id) {
            if holder.who == who {
                return Expected::Same(holder.incarnation);
            }
            let other_start = holder.who.nonce != who.nonce;
            return if outdated(holder.incarnation) || (lost && other_start) {
                Expected::Fenced
            } else {
                Expected::New
            };
        }
        // What a later registration in the same service has replaced no longer counts as a removal.
        let replaced = |stone: &Past| {
            let later = self.past.iter().map(|past| past.holder).filter(|later| later.who.id == who.id);
            let mut later = later.filter(|later| later.who.service == stone.holder.who.service);
            later.any(|later| later.incarnation > stone.holder.incarnation)
        };
        let is_removal = |past: &&Past| past.end != End::Lost || past.is_move(&self.past, &self.live);
        let stones: Vec<&Past> = self.past.iter().filter(recent).filter(is_removal).filter(|s| !replaced(s)).collect();
        let goodbye = End::Removed(RemovalReason::Deregistered);
        if let Some(stone) = stones.iter().find(|stone| stone.holder.who.nonce == who.nonce && stone.end == goodbye) {
            return Expected::Departed(REMEMBERED - now.since(stone.at));
        }
        match stones.iter().max_by_key(|stone| stone.holder.incarnation) {
            Some(last) if last.holder.who.nonce == who.nonce => Expected::New,
            Some(last) if lost || outdated(last.holder.incarnation) => Expected::Fenced,
            _ => Expected::New,
        }
    }

    fn hand_over(&mut self, who: Who, incarnation: u64, now: Timestamp) {
        let before = self.live.insert(who.id, Holder { who, incarnation, renewed: now });
        match before {
            Some(before) => {
                self.past.push(Past { holder: before, end: End::Lost, at: now });
                self.note_emptiness(before.who.service, Emptiness::Lapsed);
            }
            // The start that was removed last has lost the id from now on, if it was another one.
            None => {
                let of_id = self.past.iter().filter(|past| past.holder.who.id == who.id);
                let recent = of_id.filter(|past| now.since(past.at) < REMEMBERED);
                let last =
                    recent.filter(|past| past.end != End::Lost).max_by_key(|past| past.holder.incarnation).copied();
                if let Some(last) = last.filter(|last| last.holder.who.nonce != who.nonce) {
                    self.past.push(Past { end: End::Lost, at: now, ..last });
                }
                self.past.retain(|past| {
                    past.holder.who.id != who.id || past.holder.who.nonce != who.nonce || past.end != End::Lost
                });
            }
        }
        self.emptiness[usize::from(who.service)].get_or_insert(Emptiness::Lapsed);
        if self.size(who.service) == 1 {
            self.emptiness[usize::from(who.service)] = Some(Emptiness::Lapsed);
        }
    }

    fn end(&mut self, id: u8, end: End, at: Timestamp) {
        if self.deaf {
            return;
        }
        let holder = self.live.remove(&id).unwrap();
        self.past.push(Past { holder, end, at });
        let End::Removed(reason) = end else { return };
        self.note_emptiness(holder.who.service, reason.leaves());
    }

    fn note_emptiness(&mut self, service: u8, emptiness: Emptiness) {
        if self.size(service) == 0 {
            self.emptiness[usize::from(service)] = Some(emptiness);
        }
    }

    fn holds(&self, grant: Grant) -> bool {
        self.live.get(&grant.who.id).is_some_and(|holder| holder.incarnation == grant.incarnation.get())
    }

    fn size(&self, service: u8) -> usize {
        self.live.values().filter(|holder| holder.who.service == service).count()
    }
}

impl Past {
    /// Whether the id went on under another service: that leaves a removal behind where it was.
    fn is_move(&self, past: &[Self], live: &BTreeMap<u8, Holder>) -> bool {
        let later = past.iter().map(|past| past.holder).chain(live.get(&self.holder.who.id).copied());
        let mut later: Vec<_> = later
            .filter(|later| later.who.id == self.holder.who.id && later.incarnation > self.holder.incarnation)
            .collect();
        later.sort_by_key(|later| later.incarnation);
        later.first().is_some_and(|next| next.who.service != self.holder.who.service)
    }
}

/// What a registration should come to.
#[derive(Debug)]
enum Expected {
    Same(u64),
    New,
    Fenced,
    Departed(Duration),
}
