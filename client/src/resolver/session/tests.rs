use super::*;
use crate::clock;
use crate::resolver::news::{Chunk, Completeness, Delta, Epoch, Presence};

fn at(revision: u64) -> Position {
    Position { epoch: Epoch { store: "a".into(), generation: 0 }, revision }
}

fn snapshot(service: &str, revision: u64, presence: Presence) -> News {
    let chunk = Chunk { index: 0, last: true, presence, entries: vec![], removals: vec![] };
    News { position: at(revision), completeness: Completeness::Complete, event: Event::Snapshot(service.into(), chunk) }
}

fn gap(service: &str) -> News {
    let delta = Delta { base: 90, presence: Presence::Populated, entries: vec![], removals: vec![] };
    News { position: at(91), completeness: Completeness::Complete, event: Event::Delta(service.into(), delta) }
}

fn refusal(service: &str) -> News {
    refused(service, RefusalOutlook::Lasting)
}

fn refused(service: &str, outlook: RefusalOutlook) -> News {
    let event = Event::Refused(service.into(), Refusal { reason: "no (WHY)".into(), outlook });
    News { position: at(0), completeness: Completeness::Complete, event }
}

fn start() -> Instant {
    clock::now().into_std()
}

/// A session on a stream on which user-svc was asked for and answered at revision 10.
fn following(now: Instant) -> Session {
    let mut session = Session::default();
    session.follow("user-svc".into(), now);
    session.opened(now);
    assert!(session.next_request(now).is_some());
    session.received(snapshot("user-svc", 10, Presence::Emptied), now);
    session
}

#[test]
fn a_new_stream_resumes_where_the_last_one_was() {
    let now = start();
    let mut session = following(now);
    assert_eq!(session.next_request(now), None);
    session.opened(now);
    let request = session.next_request(now).unwrap();
    assert_eq!(request.subscribe, [("user-svc".into(), Some(at(10)))]);
}

#[test]
fn a_gap_is_asked_about_once_a_second_at_most() {
    let now = start();
    let mut session = following(now);
    let later = now + Duration::from_secs(5);
    session.received(gap("user-svc"), later);
    assert_eq!(session.next_request(later).unwrap().subscribe, [("user-svc".into(), Some(at(10)))]);
    session.received(gap("user-svc"), later);
    assert_eq!(session.next_request(later), None);
    assert_eq!(session.next_request_at(later), Some(later + RESYNC_INTERVAL));
    assert!(session.next_request(later + RESYNC_INTERVAL).is_some());
    assert_eq!(session.counters().gaps, 2);
}

#[test]
fn a_gap_that_closes_by_itself_is_not_asked_about() {
    let now = start();
    let mut session = following(now);
    session.received(gap("user-svc"), now);
    session.received(snapshot("user-svc", 91, Presence::Emptied), now);
    assert_eq!(session.next_request_at(now), None);
}

#[test]
fn a_refused_name_says_why_and_is_tried_again() {
    let now = start();
    let mut session = Session::default();
    session.follow("user-svc".into(), now);
    session.follow("order-svc".into(), now);
    session.opened(now);
    session.next_request(now);
    let published = session.received(refusal("user-svc"), now);
    assert_eq!(published[0].1.status, ResolutionStatus::Refused("no (WHY)".into()));
    assert_eq!(session.next_request_at(now), Some(now + REFUSED_INTERVAL));
    let published = session.received(snapshot("user-svc", 1, Presence::Emptied), now);
    assert_eq!(published[0].1.status, ResolutionStatus::Empty);
}

#[test]
fn a_registry_that_is_behind_is_asked_again_soon() {
    let now = start();
    let mut session = following(now);
    assert_eq!(session.received(refused("user-svc", RefusalOutlook::Passing), now), []);
    assert_eq!(session.next_request_at(now), Some(now + RESYNC_INTERVAL));
}

#[test]
fn a_refusal_takes_nothing_away() {
    let now = start();
    let mut session = following(now);
    assert_eq!(session.received(refusal("user-svc"), now), []);
}

#[test]
fn a_released_service_is_unsubscribed_and_its_news_passed_over() {
    let now = start();
    let mut session = following(now);
    session.release(&"user-svc".into());
    assert_eq!(session.received(snapshot("user-svc", 11, Presence::Unknown), now), []);
    let request = session.next_request(now).unwrap();
    assert_eq!(request.unsubscribe, ["user-svc".into()]);
    assert!(session.is_empty() && request.subscribe.is_empty());
}

#[test]
fn a_service_that_is_wanted_again_is_not_unsubscribed() {
    let now = start();
    let mut session = following(now);
    session.release(&"user-svc".into());
    session.follow("user-svc".into(), now);
    let request = session.next_request(now).unwrap();
    assert_eq!(request.subscribe, [("user-svc".into(), None)]);
    assert!(request.unsubscribe.is_empty());
}

#[test]
fn requests_are_bounded_and_leave_nobody_out() {
    let now = start();
    let mut session = Session::default();
    for n in 0..REQUEST_SUBSCRIPTIONS_MAX + 1 {
        session.follow(format!("svc-{n}").into(), now);
    }
    session.opened(now);
    let sizes: Vec<usize> = std::iter::from_fn(|| session.next_request(now)).map(|r| r.subscribe.len()).collect();
    assert_eq!(sizes, [REQUEST_SUBSCRIPTIONS_MAX, 1]);
}

#[test]
fn only_what_differs_is_published() {
    let now = start();
    let mut session = following(now);
    assert_eq!(session.received(snapshot("user-svc", 12, Presence::Emptied), now), []);
    let bookmark = News { position: at(12), completeness: Completeness::Warming, event: Event::Bookmark };
    let published = session.received(bookmark, now);
    assert_eq!(published[0].1.status, ResolutionStatus::Unresolved);
}

#[test]
fn a_bookmark_speaks_for_what_was_answered_on_its_stream_alone() {
    let now = start();
    let mut session = following(now);
    let bookmark =
        |revision| News { position: at(revision), completeness: Completeness::Complete, event: Event::Bookmark };
    let known = |session: &Session| session.known("user-svc").unwrap().0;
    session.received(bookmark(20), now);
    assert_eq!(known(&session), at(20));
    assert_eq!(session.vouched_for().count(), 1);
    session.received(gap("user-svc"), now);
    session.received(bookmark(91), now);
    assert_eq!(known(&session), at(20), "what is missing is not said to be there");

    session.received(refused("user-svc", RefusalOutlook::Passing), now);

    // The next stream resumes at what was applied; a bookmark may be under way before it knows what is asked.
    session.opened(now);
    assert_eq!(session.next_request(now).unwrap().subscribe, [("user-svc".into(), Some(at(10)))]);
    session.received(bookmark(95), now);
    assert_eq!((known(&session), session.vouched_for().count()), (at(20), 0));
    let soft = Event::Soft("user-svc".into(), vec![]);
    session.received(News { position: at(95), completeness: Completeness::Complete, event: soft }, now);
    session.received(bookmark(96), now);
    assert_eq!((known(&session), session.vouched_for().count()), (at(96), 1));

    // Of another store nothing counts on.
    let other = Position { epoch: Epoch { store: "b".into(), generation: 0 }, revision: 3 };
    session.received(News { position: other.clone(), ..snapshot("user-svc", 3, Presence::Emptied) }, now);
    assert_eq!(known(&session), other);
}

#[test]
fn what_is_older_is_counted() {
    let now = start();
    let mut session = following(now);
    session.received(snapshot("user-svc", 9, Presence::Emptied), now);
    session.malformed();
    let counters = session.counters();
    assert_eq!((counters.older_ignored, counters.malformed), (1, 1));
}

#[test]
fn what_changed_is_to_be_saved_once_it_is_complete_and_what_is_refused_is_not_vouched_for() {
    let now = start();
    let mut session = following(now);
    let unsaved = |session: &mut Session| session.take_unsaved().len();
    session.take_unsaved();
    session.received(snapshot("user-svc", 11, Presence::Populated), now);
    assert_eq!((unsaved(&mut session), unsaved(&mut session)), (1, 0));
    assert_eq!(session.known("user-svc").unwrap().0, at(11));
    let bookmark = |completeness| News { position: at(11), completeness, event: Event::Bookmark };
    session.received(bookmark(Completeness::Complete), now);
    assert_eq!(unsaved(&mut session), 0);
    session.received(bookmark(Completeness::Warming), now);
    assert_eq!((unsaved(&mut session), session.known("user-svc")), (1, None));
    assert_eq!(session.vouched_for().count(), 1);
    session.received(refusal("user-svc"), now);
    assert_eq!(session.vouched_for().count(), 0);
}
