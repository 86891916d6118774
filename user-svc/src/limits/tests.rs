use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::{DELAY_MAX, FREE, Limits, TooOften};
use crate::clock::Clock;
use crate::user::Email;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn account(number: u32) -> Email {
    Email::parse(&format!("user{number}@example.com")).unwrap()
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))
}

/// Seconds to wait, where an attempt is refused.
fn fail(limits: &Limits, account_number: u32, address_number: u32) -> Result<(), u64> {
    let begun = limits.begin(&account(account_number), address(address_number));
    begun.map(|attempt| attempt.failed()).map_err(|TooOften { wait }| wait.as_secs())
}

/// One guesser at one account, from as many addresses as it likes.
fn guess(limits: &Limits, round: u32) -> Result<(), u64> {
    fail(limits, 0, round)
}

#[test]
fn ten_failures_are_free_and_then_the_delay_grows_up_to_a_minute() {
    let clock = Clock::start();
    let limits = Limits::new(clock.clone());
    for round in 0..FREE {
        assert_eq!(guess(&limits, round), Ok(()));
    }
    for delay in [6, 12, 24, 48, 60, 60, 60] {
        for refused in 0..3 {
            assert_eq!(guess(&limits, refused), Err(delay), "what is refused adds nothing");
        }
        clock.advance(SECOND * u32::try_from(delay).unwrap());
        assert_eq!(guess(&limits, 0), Ok(()), "nothing is locked for good");
    }
}

#[test]
fn no_more_than_ten_a_minute_whatever_the_pace() {
    for pause in [Duration::ZERO, SECOND, SECOND * 5, SECOND * 7, SECOND * 20, SECOND * 59] {
        for addresses in [1, 1000] {
            let clock = Clock::start();
            let limits = Limits::new(clock.clone());
            let (mut let_in, mut rounds) = (0, 0);
            // The first ten come at once.
            for _ in 0..FREE {
                guess(&limits, 0).unwrap();
            }
            let mut passed = Duration::ZERO;
            while passed < MINUTE * 60 {
                let step = pause.max(SECOND);
                clock.advance(step);
                passed += step;
                rounds += 1;
                let_in += u32::from(guess(&limits, rounds % addresses).is_ok());
            }
            assert!((1..=10 * 60).contains(&let_in), "{let_in} in an hour, every {pause:?}");
        }
    }
}

#[test]
fn an_address_may_fail_ten_times_a_minute_for_ever() {
    let clock = Clock::start();
    let limits = Limits::new(clock.clone());
    for round in 0..600 {
        assert_eq!(fail(&limits, round, 0), Ok(()));
        clock.advance(SECOND * 6);
    }
    for round in 0..FREE - 1 {
        assert_eq!(fail(&limits, 1000 + round, 0), Ok(()));
    }
    assert_eq!(fail(&limits, 2000, 0), Ok(()), "it is the tenth");
    assert_eq!(fail(&limits, 2001, 0), Err(6));
    assert_eq!(fail(&limits, 2001, 1), Ok(()), "another address is another's");
}

#[test]
fn a_success_ends_the_failures_of_the_account_and_of_no_address() {
    let limits = Limits::new(Clock::start());
    for round in 0..FREE - 1 {
        guess(&limits, round % 2).unwrap();
    }
    limits.begin(&account(0), address(0)).unwrap().succeeded();
    for _ in 0..FREE - 5 {
        guess(&limits, 0).unwrap();
    }
    assert_eq!(guess(&limits, 0), Err(6), "five failed from here before, and five since");
    assert_eq!(guess(&limits, 1), Ok(()));
}

#[test]
fn who_guesses_without_end_keeps_nobody_out_where_they_have_logged_in_before() {
    let clock = Clock::start();
    let limits = Limits::new(clock.clone());
    limits.begin(&account(0), address(1)).unwrap().succeeded();
    for round in 0..20 {
        while guess(&limits, 100 + round).is_ok() {}
        assert!(limits.begin(&account(0), address(2)).is_err(), "at a new place one waits");
        limits.begin(&account(0), address(1)).unwrap().succeeded();
        clock.advance(DELAY_MAX);
    }
    for _ in 0..FREE {
        fail(&limits, 0, 1).unwrap();
    }
    assert_eq!(fail(&limits, 0, 1), Err(6), "and who guesses there waits as anywhere");
    let few = Limits::bounded(Clock::start(), 2);
    for number in 0..10 {
        few.begin(&account(number), address(number)).unwrap().succeeded();
    }
    let held = few.held.lock();
    assert_eq!((held.homes.last.len(), held.homes.by_age.len()), (2, 2));
}

#[test]
fn strangers_do_not_keep_an_owner_out_and_two_guesses_at_once_are_two() {
    let limits = Limits::new(Clock::start());
    let owner = uuid::Uuid::from_u128(1);
    for round in 0..100 {
        let _ = guess(&limits, round);
    }
    for round in 0..FREE / 2 {
        let mut attempt = limits.begin_own(owner, address(1000 + round)).unwrap();
        attempt.count_twice();
        attempt.failed();
    }
    assert!(limits.begin_own(owner, address(2000)).is_err());
}

#[test]
fn many_at_once_are_no_way_round() {
    let clock = Clock::start();
    let limits = Limits::new(clock.clone());
    let begin = |number| limits.begin(&account(0), address(number)).ok();
    let open: Vec<_> = (0..100).filter_map(begin).collect();
    assert_eq!(open.len(), 10);
    drop(open);
    clock.advance(DELAY_MAX);
    assert_eq!((0..100).filter_map(begin).collect::<Vec<_>>().len(), 1);
    // People behind one address are let in together, until too many of them have failed.
    let crowd: Vec<_> = (1..100).filter_map(|number| limits.begin(&account(number), address(1000)).ok()).collect();
    assert_eq!(crowd.len(), 99);
    drop(crowd);
    clock.advance(DELAY_MAX);
    let crowd = (1..100).filter_map(|number| limits.begin(&account(number), address(1000)).ok());
    assert_eq!(crowd.collect::<Vec<_>>().len(), 1);
}

#[test]
fn what_nobody_looked_at_was_no_attempt() {
    let limits = Limits::new(Clock::start());
    for _ in 0..100 {
        limits.begin(&account(0), address(0)).unwrap().undecided();
    }
    let held = limits.held.lock();
    assert_eq!((held.accounts.by_key.len(), held.addresses.by_key.len()), (0, 0));
}

#[test]
fn what_is_forgiven_is_forgotten() {
    let clock = Clock::start();
    let limits = Limits::new(clock.clone());
    for round in 0..100 {
        let _ = guess(&limits, round);
    }
    clock.advance(MINUTE * 15);
    for round in 0..FREE {
        assert_eq!(guess(&limits, round), Ok(()));
    }
    fail(&limits, 1, 0).unwrap();
    clock.advance(MINUTE * 15);
    fail(&limits, 2, 0).unwrap();
    assert_eq!(limits.held.lock().accounts.by_key.len(), 1);
}

#[test]
fn at_the_bound_the_one_that_would_be_forgotten_first_makes_room() {
    let limits = Limits::bounded(Clock::start(), 4);
    for _ in 0..100 {
        let _ = guess(&limits, 0);
    }
    for number in 1..1000 {
        let _ = fail(&limits, number, number);
    }
    let held = limits.held.lock();
    assert_eq!((held.accounts.by_key.len(), held.addresses.by_key.len()), (4, 4));
    assert_eq!((held.accounts.by_end.len(), held.addresses.by_end.len()), (4, 4));
    drop(held);
    assert_eq!(guess(&limits, 5000), Err(6), "who failed most often stays");
}

#[test]
fn an_account_that_nobody_has_is_limited_like_any_other() {
    // There is no word of who exists here; and spelling makes no difference.
    let limits = Limits::new(Clock::start());
    for round in 0..FREE {
        let spelled = if round % 2 == 0 { "ADA@example.com" } else { "ada@Example.com" };
        limits.begin(&Email::parse(spelled).unwrap(), address(round)).unwrap().failed();
    }
    assert!(limits.begin(&Email::parse("ada@example.com").unwrap(), address(99)).is_err());
}
