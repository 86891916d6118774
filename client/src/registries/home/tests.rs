//! Which store is believed when.

use super::*;

fn now() -> Instant {
    crate::clock::now().into_std()
}

fn strange(ours: &str) -> Whose {
    Whose::Strange { ours: ours.into() }
}

fn moved(from: &str, before: bool) -> Whose {
    Whose::Moved { from: from.into(), before }
}

#[test]
fn the_first_answer_decides_and_a_second_store_stays_a_stranger_while_the_own_one_is_heard() {
    let (mut home, mut now) = (Home::default(), now());
    assert_eq!(home.answered("a", Neighbours::Some, now), Whose::Ours);
    for _ in 0..100 {
        now += PATIENCE - Duration::from_secs(1);
        assert_eq!(home.answered("b", Neighbours::Some, now), strange("a"));
        assert_eq!(home.answered("a", Neighbours::Some, now), Whose::Ours);
    }
}

#[test]
fn another_store_is_taken_once_the_own_one_was_not_heard_for_long() {
    let (mut home, begun) = (Home::default(), now());
    home.answered("a", Neighbours::Some, begun);
    let almost = begun + PATIENCE - Duration::from_millis(1);
    assert_eq!(home.answered("b", Neighbours::Some, almost), strange("a"));
    assert_eq!(home.answered("b", Neighbours::Some, begun + PATIENCE), moved("a", false));
    assert_eq!(home.answered("a", Neighbours::Some, begun + PATIENCE), strange("b"));
}

#[test]
fn with_one_registry_another_store_is_its_restart() {
    let (mut home, now) = (Home::default(), now());
    home.answered("a", Neighbours::None, now);
    assert_eq!(home.answered("b", Neighbours::None, now), moved("a", false));
    assert_eq!(home.answered("c", Neighbours::None, now), moved("b", false));
}

#[test]
fn a_store_that_comes_back_gives_away_that_there_are_two() {
    let (mut home, now) = (Home::default(), now());
    for (store, whose) in
        [("a", Whose::Ours), ("b", moved("a", false)), ("a", moved("b", true)), ("b", moved("a", true))]
    {
        assert_eq!(home.answered(store, Neighbours::None, now), whose);
    }
    for n in 0..100 {
        home.answered(&n.to_string(), Neighbours::None, now);
    }
    assert_eq!(home.left.len(), LEFT_MAX);
}
