use tokio::sync::oneshot;

use super::*;
use crate::catalog::kit::{asks, id, incarnation, service};
use crate::catalog::{Granted, LeaseId, Report};
use crate::engine::error::EngineError;

type Answer<T> = oneshot::Receiver<Result<T, EngineError>>;

fn registers(instance: u128) -> (Pending, Answer<Granted>) {
    let (reply, answer) = oneshot::channel();
    let command = Command::Register { request: asks(instance), fresh: LeaseId::new([0; 16]) };
    (Pending::new(command, Waiter::Register(reply)), answer)
}

fn leaves() -> Pending {
    let command = Command::Deregister { lease: LeaseId::new([0; 16]), incarnation: incarnation(1) };
    Pending::new(command, Waiter::Done(oneshot::channel().0))
}

fn operates() -> Pending {
    let command = Command::DeleteService { service: service("user-svc") };
    Pending::new(command, Waiter::Done(oneshot::channel().0))
}

fn kinds(group: &[Pending]) -> String {
    let kind = |pending: &Pending| match pending.command {
        Command::Deregister { .. } => 'd',
        Command::Register { .. } => 'r',
        Command::DeleteService { .. } => 'o',
        _ => '?',
    };
    group.iter().map(kind).collect()
}

fn number(pending: &Pending) -> Option<u128> {
    match &pending.command {
        Command::Register { request, .. } => Some(request.id.uuid().as_u128()),
        _ => None,
    }
}

#[test]
fn goodbyes_go_before_registrations_and_those_before_the_rest() {
    let mut waiting = Waiting::default();
    let (first, _one) = registers(1);
    let (second, _two) = registers(2);
    for pending in [operates(), first, leaves(), second, leaves()] {
        waiting.push(pending);
    }
    assert_eq!(kinds(&waiting.take(100)), "ddrro");
    assert!(waiting.is_empty());
}

#[test]
fn a_storm_of_goodbyes_leaves_each_lane_its_share() {
    let mut waiting = Waiting::default();
    (0..100).for_each(|_| waiting.push(leaves()));
    let mut answers = Vec::new();
    for instance in 1..=50 {
        let (pending, answer) = registers(instance);
        waiting.push(pending);
        answers.push(answer);
    }
    waiting.push(operates());
    let group = kinds(&waiting.take(64));
    let count = |kind| group.chars().filter(|other| *other == kind).count();
    assert_eq!((count('d'), count('r'), count('o')), (64 - SHARE - 1, SHARE, 1));
}

#[test]
fn what_is_put_back_comes_first_and_in_its_order() {
    let mut waiting = Waiting::default();
    let mut answers = Vec::new();
    for instance in 1..=4 {
        let (pending, answer) = registers(instance);
        waiting.push(pending);
        answers.push(answer);
    }
    let group = waiting.take(2);
    waiting.put_back(group);
    let order: Vec<_> = waiting.take(9).iter().filter_map(number).collect();
    assert_eq!(order, [1, 2, 3, 4]);
}

#[test]
fn a_full_lane_lets_go_of_callers_that_gave_up() {
    let mut waiting = Waiting::default();
    let mut answers = Vec::new();
    for instance in 1..=REGISTRATIONS_MAX as u128 {
        let (pending, answer) = registers(instance);
        waiting.push(pending);
        answers.push(answer);
    }
    assert!(!waiting.has_room(Lane::Registrations));
    assert!(waiting.has_room(Lane::Departures) && waiting.has_room(Lane::Operations));
    answers.truncate(1_000);
    assert!(waiting.has_room(Lane::Registrations));
    assert_eq!(waiting.len(), 1_000);
}

#[test]
fn statuses_and_the_goodbye_after_them_stay_in_order() {
    let mut waiting = Waiting::default();
    let identity = crate::catalog::IdentityKey { namespace: service("user-svc").namespace, id: id(1) };
    let lease = LeaseId::new([0; 16]);
    let report = Report { identity, lease, serving: None, services: Default::default() };
    waiting.push(Pending::new(Command::Report(report), Waiter::Wish));
    waiting.push(leaves());
    assert_eq!(kinds(&waiting.take(9)), "?d");
}
