use super::*;

const ALIVE: Option<Liveness> = Some(Liveness::Alive);
const SUSPECT: Option<Liveness> = Some(Liveness::Suspect);
const STALE: Option<Liveness> = Some(Liveness::Stale);
const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn a_beat_that_is_late_by_half_an_interval_makes_suspect() {
    let (mut ward, _) = Ward::of(3);
    ward.wait(5 * SECOND - MILLISECOND);
    assert_eq!(ward.liveness(1), ALIVE);
    ward.wait(MILLISECOND);
    assert_eq!(ward.liveness(1), SUSPECT);
}

#[test]
fn a_beat_makes_alive_again_and_gives_a_full_ttl() {
    let (mut ward, grants) = Ward::of(2);
    ward.wait_beating(9 * SECOND, &grants[1..]);
    assert_eq!(ward.liveness(1), SUSPECT);
    assert!(ward.beat(grants[0]));
    assert_eq!(ward.liveness(1), ALIVE);
    ward.wait_beating(10 * SECOND - MILLISECOND, &grants[1..]);
    assert!(ward.world.instance(1).is_some());
    ward.wait(MILLISECOND);
    assert_eq!(ward.world.instance(1), None);
}

#[test]
fn a_stream_that_broke_makes_suspect_after_a_tenth_of_a_second() {
    let (mut ward, grants) = Ward::of(1);
    ward.beat_on(grants[0], StreamId::new(1));
    ward.leases.stream_broke(StreamId::new(1), ward.now());
    ward.wait(99 * MILLISECOND);
    assert_eq!(ward.liveness(1), ALIVE);
    ward.wait(MILLISECOND);
    assert_eq!(ward.liveness(1), SUSPECT);
}

#[test]
fn a_beat_within_a_tenth_of_a_second_makes_good_a_broken_stream() {
    let (mut ward, grants) = Ward::of(1);
    ward.beat_on(grants[0], StreamId::new(1));
    ward.leases.stream_broke(StreamId::new(1), ward.now());
    ward.wait(50 * MILLISECOND);
    ward.beat_on(grants[0], StreamId::new(2));
    ward.wait(SECOND);
    assert_eq!(ward.liveness(1), ALIVE);
}

#[test]
fn a_stream_that_the_registry_ended_says_nothing() {
    let (mut ward, grants) = Ward::of(1);
    ward.beat_on(grants[0], StreamId::new(1));
    ward.leases.stream_ended(StreamId::new(1));
    ward.wait(SECOND);
    assert_eq!(ward.liveness(1), ALIVE);
}

#[test]
fn a_stream_that_a_lease_has_left_says_nothing_about_it() {
    let (mut ward, grants) = Ward::of(1);
    ward.beat_on(grants[0], StreamId::new(1));
    ward.beat_on(grants[0], StreamId::new(2));
    ward.leases.stream_broke(StreamId::new(1), ward.now());
    ward.wait(SECOND);
    assert_eq!(ward.liveness(1), ALIVE);
}

#[test]
fn fifteen_percent_of_a_service_become_suspect_in_a_second() {
    let (mut ward, grants) = Ward::of(20);
    for grant in &grants {
        ward.beat_on(*grant, StreamId::new(1));
    }
    ward.leases.stream_broke(StreamId::new(1), ward.now());
    let mut seen = Vec::new();
    for _ in 0..4 {
        ward.wait(900 * MILLISECOND);
        seen.push(ward.count(Liveness::Suspect));
        ward.wait(100 * MILLISECOND);
    }
    assert_eq!(seen, [3, 6, 9, 12]);
}

#[test]
fn one_instance_of_a_small_service_may_become_suspect_in_a_second() {
    let (mut ward, _) = Ward::of(3);
    ward.wait(5 * SECOND);
    assert_eq!(ward.count(Liveness::Suspect), 1);
    ward.wait(SECOND);
    assert_eq!(ward.count(Liveness::Suspect), 2);
}

#[test]
fn what_cannot_be_written_shows_as_stale_and_is_tried_again() {
    let (mut ward, grants) = Ward::of(2);
    ward.store_refuses = true;
    ward.wait_beating(12 * SECOND, &grants[1..]);
    assert_eq!(ward.liveness(1), STALE);
    ward.store_refuses = false;
    ward.wait(2 * SECOND);
    assert_eq!(ward.gone, [1]);
}

#[test]
fn a_stale_instance_whose_beat_comes_is_alive() {
    let (mut ward, grants) = Ward::of(2);
    ward.store_refuses = true;
    ward.wait_beating(12 * SECOND, &grants[1..]);
    assert!(ward.beat(grants[0]));
    ward.store_refuses = false;
    ward.wait(4 * SECOND);
    assert_eq!(ward.liveness(1), ALIVE);
}

#[test]
fn a_beat_comes_too_late_once_the_removal_is_on_its_way() {
    let (mut ward, grants) = Ward::of(2);
    ward.world.wait(10 * SECOND);
    let lapses = ward.leases.advance(ward.now());
    assert_eq!(lapses.iter().map(|lapse| lapse.lease).collect::<Vec<_>>(), [grants[0].lease]);
    assert!(!ward.beat(grants[0]));
    ward.remove(&lapses[0]);
    assert!(!ward.beat(grants[0]));
}

#[test]
fn a_beat_of_another_incarnation_or_lease_renews_nothing() {
    let (mut ward, grants) = Ward::of(1);
    let [grant] = grants[..] else { panic!("one instance") };
    let other = crate::catalog::kit::incarnation(grant.incarnation.get() + 1);
    assert!(!ward.beat(Grant { incarnation: other, ..grant }));
    assert!(!ward.beat(Grant { lease: LeaseId::new([0xff; 16]), ..grant }));
    assert!(ward.beat(grant));
}

#[test]
fn the_lease_of_an_older_start_renews_nothing() {
    let (mut ward, grants) = Ward::of(1);
    let newer = ward.register(Register { nonce: crate::catalog::kit::nonce(2), ..asks(1) });
    assert!(!ward.beat(grants[0]));
    assert!(ward.beat(newer));
    assert_eq!(ward.leases.len(), 1);
}

#[test]
fn a_registry_that_was_late_itself_gives_everybody_a_full_ttl() {
    let (mut ward, grants) = Ward::of(3);
    ward.world.wait(30 * SECOND);
    ward.leases.extend_all(ward.now());
    assert_eq!(ward.leases.advance(ward.now()), []);
    ward.wait(10 * SECOND - MILLISECOND);
    assert_eq!(ward.gone, [] as [u128; 0]);
    assert!(grants.iter().all(|grant| ward.beat(*grant)));
}

#[test]
fn who_was_stale_is_suspect_after_everybody_got_a_full_ttl() {
    let (mut ward, _) = Ward::of(1);
    ward.wait(10 * SECOND);
    assert_eq!(ward.liveness(1), STALE);
    assert!(ward.hold().is_some());
    ward.leases.extend_all(ward.now());
    assert_eq!(ward.liveness(1), SUSPECT);
    assert_eq!(ward.hold(), None);
    ward.wait(10 * SECOND);
    assert_eq!(ward.liveness(1), STALE);
}

#[test]
fn a_shorter_ttl_counts_from_the_last_beat() {
    let (mut ward, grants) = Ward::of(2);
    let ttl = Some(Ttl::new(2 * SECOND).unwrap());
    assert_eq!(ward.register(Register { ttl, ..asks(1) }).lease, grants[0].lease);
    ward.wait(2 * SECOND);
    assert_eq!(ward.gone, [1]);
}

#[test]
fn load_reports_are_told_once_a_second() {
    let (mut ward, grants) = Ward::of(1);
    ward.leases.take_changed();
    let load = LoadReport { requests_in_flight: 3, cpu_utilization: f64::NAN, ..LoadReport::default() };
    let [grant] = grants[..] else { panic!("one instance") };
    ward.leases.renew(grant.lease, grant.incarnation, None, Some(load), ward.now()).unwrap();
    ward.wait(SECOND - MILLISECOND);
    assert_eq!(ward.leases.take_changed(), []);
    ward.wait(MILLISECOND);
    let changed = ward.leases.take_changed();
    let told = changed[0].1.instances[&id(1)].load.unwrap();
    assert_eq!(told, LoadReport { requests_in_flight: 3, ..LoadReport::default() });
}

#[test]
fn liveness_is_told_at_once() {
    let (mut ward, _) = Ward::of(1);
    ward.leases.take_changed();
    ward.wait(5 * SECOND);
    let changed = ward.leases.take_changed();
    assert_eq!(changed[0].1.instances[&id(1)].liveness, Liveness::Suspect);
}

#[test]
fn a_state_loaded_anew_keeps_the_deadlines_of_leases_that_go_on() {
    let (mut ward, grants) = Ward::of(3);
    ward.wait(4 * SECOND);
    ward.world.deregister(grants[2]).unwrap();
    ward.leases.reconcile(&ward.world.state, ward.world.now);
    assert_eq!(ward.leases.len(), 2);
    ward.wait(6 * SECOND);
    assert_eq!(ward.gone, [1], "ten seconds after it registered, not after the load");
}
