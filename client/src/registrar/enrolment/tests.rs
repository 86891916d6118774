use super::*;
use crate::clock;

fn enrolled(ttl: Duration) -> (Enrolment, Entropy, Instant) {
    let now = clock::now().into_std();
    let mut enrolment = Enrolment::new(Identity { id: Uuid::from_u128(1), nonce: [1; 16] }, now);
    enrolment.granted(grant(Some(ttl), None), ServingStatus::Serving, now);
    enrolment.stream_begun(now);
    (enrolment, Entropy::seeded(9), now)
}

fn grant(ttl: Option<Duration>, interval: Option<Duration>) -> Grant {
    Grant { lease_id: Bytes::from_static(&[1; 16]), incarnation: 1, store_id: "a".into(), ttl, interval }
}

#[test]
fn a_registry_that_gives_no_interval_is_beaten_three_times_in_a_ttl() {
    let (mut enrolment, entropy, now) = enrolled(Duration::from_secs(9));
    enrolment.beaten(now, &entropy);
    let wait = enrolment.beat_at().unwrap() - now;
    assert!((Duration::from_millis(2_700)..Duration::from_millis(3_300)).contains(&wait), "{wait:?}");
}

#[test]
fn patience_is_half_a_ttl_and_5_s_at_most() {
    assert_eq!(enrolled(Duration::from_secs(2)).0.patience(), Duration::from_secs(1));
    assert_eq!(enrolled(Duration::from_secs(300)).0.patience(), Duration::from_secs(5));
}

#[test]
fn an_interval_of_nothing_does_not_make_a_tight_loop() {
    let (mut enrolment, entropy, now) = enrolled(Duration::from_secs(9));
    enrolment.granted(grant(None, Some(Duration::ZERO)), ServingStatus::Serving, now);
    enrolment.beaten(now, &entropy);
    assert!(enrolment.beat_at().unwrap() - now >= INTERVAL_MIN.mul_f64(0.9));
}

#[test]
fn unanswered_beats_are_bounded() {
    let (mut enrolment, entropy, now) = enrolled(Duration::from_secs(9));
    while enrolment.beat_at().is_some() {
        enrolment.beaten(now, &entropy);
    }
    assert_eq!(enrolment.unanswered.len(), UNANSWERED_MAX);
    assert_eq!(enrolment.overdue_at(), Some(now + enrolment.patience()));
    assert_eq!(enrolment.answered(Outcome::Renewed, None, &entropy), Next::Beat);
    assert!(enrolment.beat_at().is_some());
}

#[test]
fn what_is_announced_is_what_the_answered_beat_said() {
    let (mut enrolment, entropy, now) = enrolled(Duration::from_secs(9));
    enrolment.beaten(now, &entropy);
    enrolment.serve(ServingStatus::Draining, now);
    assert_eq!(enrolment.beat_at(), Some(now));
    enrolment.beaten(now, &entropy);
    enrolment.answered(Outcome::Renewed, None, &entropy);
    assert_eq!(enrolment.announced(), Some(ServingStatus::Serving));
    enrolment.answered(Outcome::Renewed, None, &entropy);
    assert_eq!(enrolment.announced(), Some(ServingStatus::Draining));
}

#[test]
fn a_lost_lease_keeps_the_incarnation_and_a_lost_id_does_not() {
    let (mut enrolment, entropy, now) = enrolled(Duration::from_secs(9));
    enrolment.beaten(now, &entropy);
    assert_eq!(enrolment.answered(Outcome::UnknownLease, None, &entropy), Next::Register);
    assert_eq!((enrolment.lease(), enrolment.held()), (None, Some((1, "a"))));
    assert_eq!(enrolment.answered(Outcome::Fenced, None, &entropy), Next::RegisterAnew);
    enrolment.become_another(Identity { id: Uuid::from_u128(2), nonce: [2; 16] });
    assert_eq!((enrolment.lease(), enrolment.held()), (None, None));
}
