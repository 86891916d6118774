//! Which store is believed when.

use super::*;

fn now() -> Instant {
    crate::clock::now().into_std()
}

fn strange(ours: &str, first: bool) -> Whose {
    Whose::Strange { ours: ours.into(), first }
}

/// The registry `name` of `doors`; a handful of names in all.
fn door(name: &str, doors: usize) -> Asked<'static> {
    Asked { registry: Box::leak(Box::new(name.into())), doors }
}

fn one() -> Asked<'static> {
    door("x", 1)
}

fn two() -> Asked<'static> {
    door("x", 2)
}

fn moved(from: &str, before: bool) -> Whose {
    Whose::Moved { from: from.into(), before }
}

#[test]
fn the_first_answer_decides_and_a_second_store_stays_a_stranger_while_the_own_one_is_heard() {
    let (mut home, mut now) = (Home::default(), now());
    assert_eq!(home.answered("a", two(), now), Whose::Ours);
    for round in 0..100 {
        now += PATIENCE - Duration::from_secs(1);
        assert_eq!(home.answered("b", two(), now), strange("a", round == 0));
        assert_eq!(home.answered("a", two(), now), Whose::Ours);
    }
}

#[test]
fn another_store_is_taken_once_the_own_one_was_not_heard_for_long() {
    let (mut home, begun) = (Home::default(), now());
    home.answered("a", two(), begun);
    let almost = begun + PATIENCE - Duration::from_millis(1);
    assert_eq!(home.answered("b", two(), almost), strange("a", true));
    assert_eq!(home.answered("b", two(), begun + PATIENCE), moved("a", false));
    assert_eq!(home.answered("a", two(), begun + PATIENCE), strange("b", true));
}

#[test]
fn with_one_registry_another_store_is_its_restart() {
    let (mut home, now) = (Home::default(), now());
    home.answered("a", one(), now);
    assert_eq!(home.answered("b", one(), now), moved("a", false));
    assert_eq!(home.answered("c", one(), now), moved("b", false));
}

#[test]
fn a_store_that_comes_back_gives_away_that_there_are_two() {
    let (mut home, now) = (Home::default(), now());
    for (store, whose) in
        [("a", Whose::Ours), ("b", moved("a", false)), ("a", moved("b", true)), ("b", moved("a", true))]
    {
        assert_eq!(home.answered(store, one(), now), whose);
    }
    for n in 0..100 {
        home.answered(&n.to_string(), one(), now);
    }
    assert_eq!(home.left.len(), LEFT_MAX);
}

#[test]
fn another_store_is_believed_at_once_where_every_registry_has_shown_it_or_nobody() {
    let (mut home, now) = (Home::default(), now());
    let (x, y) = (door("x", 2), door("y", 2));
    home.answered("a", x, now);
    home.silent(y.registry);
    assert_eq!(home.answered("a", x, now), Whose::Ours, "what was seen before the own store was heard is void");
    assert_eq!(home.answered("b", x, now), strange("a", true));
    assert_eq!(home.answered("b", x, now), strange("a", false), "one registry alone is not a round");
    home.silent(y.registry);
    assert_eq!(home.answered("b", x, now), moved("a", false));
    // Two strangers are not one.
    assert_eq!(home.answered("c", x, now), strange("b", true));
    assert_eq!(home.answered("d", y, now), strange("b", true));
    assert_eq!(home.answered("c", y, now), moved("b", false));
}
