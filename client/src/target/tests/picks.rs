//! What a pick weighs, and when there is none.

use std::num::NonZeroU8;

use super::*;
use crate::load::{EndpointLoad, LoadReport};
use crate::policy::{RingHash, SlowStart};
use crate::resolver::ResolvedEndpoint;
use crate::rig::endpoint;

/// Makes attempts one after the other, each answered after its endpoint's own time; says how many went to the first.
async fn answered_after(rig: &Rig, attempts: usize, took: impl Fn(u16) -> Duration) -> usize {
    let mut first = 0;
    for _ in 0..attempts {
        let mut place = place(rig);
        sleep(took(port(&place))).await;
        place.answered(place.now());
        place.end(WELL, place.now());
        first += usize::from(port(&place) == 1);
    }
    first
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_gets_few_calls_and_who_fails_at_once_does_too() {
    let (_net, _servers, rig) = rig_of(2, |_| {}).await;
    let slow = |port| Duration::from_millis(if port == 1 { 100 } else { 2 });
    assert!(answered_after(&rig, 200, slow).await <= 10);

    let (_net, _servers, rig) = rig_of(2, |config| config.policy.ejection = None).await;
    answered_after(&rig, 20, |_| Duration::from_millis(2)).await;
    let failing = |port| if port == 1 { SICK } else { WELL };
    let mut fell_for = 0;
    for _ in 0..200 {
        fell_for += usize::from(attempt(&rig, failing).await == 1);
    }
    assert!(fell_for <= 10, "{fell_for}");
}

/// Its latency was that of failures. Believed any longer, it would keep all calls away for a minute.
#[tokio::test(start_paused = true)]
async fn who_has_passed_its_trial_gets_its_share_at_once() {
    let (_net, _servers, rig) = rig_of(2, |_| {}).await;
    let usual = Duration::from_millis(2);
    answered_after(&rig, 20, |_| usual).await;
    // All of them before the manager knows.
    for mut place in (0..40).map(|_| place(&rig)).collect::<Vec<_>>() {
        place.end(if port(&place) == 1 { SICK } else { WELL }, place.now());
    }
    settled().await;
    let Verdict::Ejected { remaining } = verdict(&rig, 1) else { panic!("{:?}", verdict(&rig, 1)) };
    until(clock::now() + remaining).await;
    answered_after(&rig, 1, |_| usual).await;
    settled().await;
    assert_eq!(verdict(&rig, 1), Verdict::Picked);
    let share = answered_after(&rig, 200, |_| usual).await;
    assert!((70..130).contains(&share), "{share}");
}

/// Too few failures for an ejection, and so many that nobody prefers it.
#[tokio::test(start_paused = true)]
async fn who_has_failed_and_is_well_again_is_found_out_within_seconds() {
    let (_net, _servers, rig) = rig_of(2, |_| {}).await;
    let usual = Duration::from_millis(2);
    answered_after(&rig, 20, |_| usual).await;
    // Of calls that are made at once, so that it fails three of them before anybody is put off.
    let mut failed = 0;
    for mut place in (0..20).map(|_| place(&rig)).collect::<Vec<_>>() {
        let fails = port(&place) == 1 && failed < 3;
        failed += u32::from(fails);
        place.end(if fails { SICK } else { Outcome::Cancelled }, place.now());
    }
    assert_eq!((handle(&rig, 1).failures_in_a_row(), verdict(&rig, 1)), (3, Verdict::Picked));
    assert!(answered_after(&rig, 2_000, |_| usual).await < 4, "four seconds");
    // A call that cannot be repeated does not find out.
    sleep(Duration::from_secs(2)).await;
    for _ in 0..200 {
        assert_eq!(port(&place_for(&rig, crate::rig::CREATE).unwrap()), 2);
    }
    let share = answered_after(&rig, 200, |_| usual).await;
    assert!((70..130).contains(&share), "{share}");
}

/// A slow one is asked too, and stays as rarely picked as it was.
#[tokio::test(start_paused = true)]
async fn asking_costs_one_call_in_five_seconds() {
    let (_net, _servers, rig) = rig_of(2, |_| {}).await;
    let slow = |port| Duration::from_millis(if port == 1 { 100 } else { 2 });
    answered_after(&rig, 100, slow).await;
    let begun = clock::now();
    let asked = answered_after(&rig, 10_000, slow).await;
    let seconds = (clock::now() - begun).as_secs() as usize;
    assert!((2..=seconds / 5 + 2).contains(&asked), "{asked} in {seconds} s");
}

/// The dial of a process that was stopped and goes on: its first PONG was long under way.
#[tokio::test(start_paused = true)]
async fn a_slow_first_pong_does_not_keep_calls_away() {
    let (_net, _servers, rig) = rig_of(2, |_| {}).await;
    let usual = Duration::from_millis(5);
    answered_after(&rig, 20, |_| usual).await;
    let first = rig.channel.target().shared.snapshot.load().members[0].endpoint.clone();
    first.seed_latency(Duration::from_secs(4), rig.channel.target().ledger().now());
    let share = answered_after(&rig, 200, |_| usual).await;
    assert!((70..130).contains(&share), "{share}");
}

/// What a stalled endpoint takes is known before it answers, if its callers give up.
#[tokio::test(start_paused = true)]
async fn a_call_that_was_given_up_raises_the_latency_and_never_lowers_it() {
    let (_net, _servers, rig) = rig_of(1, |_| {}).await;
    let given_up_after = async |wait: Duration| {
        let mut place = place(&rig);
        sleep(wait).await;
        place.end(Outcome::Expired, place.now());
        handle(&rig, 1).latency().unwrap()
    };
    assert_eq!(given_up_after(Duration::from_secs(2)).await, Duration::from_secs(2));
    let later = given_up_after(Duration::from_millis(1)).await;
    assert!(later > Duration::from_millis(1_900), "{later:?}");
}

/// The time of a long stream is not the time to an answer.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_stream_is_no_sample() {
    let (_net, _servers, rig) = rig_of(1, |_| {}).await;
    let mut stream = place(&rig);
    stream.answered(stream.now());
    sleep(Duration::from_secs(3600)).await;
    drop(stream);
    assert!(handle(&rig, 1).latency().unwrap() < Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn the_first_pong_is_the_first_guess() {
    let (_net, _servers, rig) = rig_of(1, |_| {}).await;
    assert!(handle(&rig, 1).latency().is_some());
    assert_eq!(handle(&rig, 1).picks(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_call_more_than_the_cap_is_refused_and_the_next_one_that_fits_is_not() {
    let (_net, _servers, rig) = rig_of(2, |config| config.policy.in_flight_max = 2).await;
    let held = [place(&rig), place(&rig)];
    assert_eq!(place_for(&rig, GET).unwrap_err(), Unplaced::Capped);
    assert_eq!(rig.channel.explain().in_flight, 2);
    drop(held);
    let _again = [place(&rig), place(&rig)];
    assert_eq!(place_for(&rig, GET).unwrap_err(), Unplaced::Capped);
}

/// A call that found no place is not in flight.
#[tokio::test(start_paused = true)]
async fn a_pick_that_failed_is_not_counted() {
    let net = Net::default();
    let rig = Rig::with(&net, [1], |config| config.policy.in_flight_max = 1);
    for _ in 0..10 {
        assert_eq!(place_for(&rig, GET).unwrap_err(), Unplaced::Wait);
    }
    assert_eq!(rig.channel.explain().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_was_tried_is_picked_only_when_nobody_else_has_room() {
    let (_net, _servers, rig) = rig_of(2, in_turn).await;
    let tried = [place(&rig).endpoint().clone()];
    let target = rig.channel.target();
    let wanted = Wanted {
        now: target.ledger().now(),
        deadline: None,
        tried: &tried,
        key: None,
        method: GET,
        metric: target.stats().method(GET),
    };
    for _ in 0..20 {
        assert_ne!(target.pick(&wanted).unwrap().endpoint().address, tried[0].address);
    }
    assert!(target.has_untried(&tried));
    let all = [1, 2].map(|port| {
        let snapshot = target.shared.snapshot.load();
        let is_it =
            |candidate: &&crate::target::snapshot::Candidate| candidate.endpoint().address == crate::rig::address(port);
        snapshot.candidates.iter().find(is_it).unwrap().endpoint().clone()
    });
    assert!(!target.has_untried(&all));
    assert!(target.pick(&Wanted { tried: &all, ..wanted }).is_ok());
}

#[tokio::test(start_paused = true)]
async fn equal_keys_go_to_the_same_endpoint() {
    let (_net, _servers, rig) = rig_of(3, |config| {
        config.policy.balancer = Balancer::RingHash(RingHash::default());
        config.policy.connections_per_endpoint = NonZeroU8::MIN;
    })
    .await;
    let target = rig.channel.target();
    let go = |key: u64| {
        let wanted = Wanted {
            now: target.ledger().now(),
            deadline: None,
            tried: &[],
            key: Some(key),
            method: GET,
            metric: target.stats().method(GET),
        };
        port(&target.pick(&wanted).unwrap())
    };
    let spread: std::collections::BTreeSet<u16> = (0..100_u64)
        .map(|number| {
            let key = crate::HashKey::of(&number.to_le_bytes()).0;
            let owner = go(key);
            assert!((0..5).all(|_| go(key) == owner));
            owner
        })
        .collect();
    assert_eq!(spread.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_has_just_become_ready_is_led_up_to_its_share() {
    let net = Net::default();
    let _servers: Vec<Server> = (1..=2).map(|port| Server::start(&net, port, ok)).collect();
    let rig = Rig::with(&net, [2], |config| {
        config.policy.balancer = Balancer::LeastRequest;
        config.policy.slow_start = Some(SlowStart::default());
    });
    rig.all(crate::ConnectivityState::Ready).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(verdict(&rig, 2), Verdict::Picked);
    rig.resolve([endpoint(1), endpoint(2)]);
    ready(&rig, 2).await;
    let share = |ports: Vec<u16>| ports.iter().filter(|port| **port == 1).count();
    let picks = || (0..1000).map(|_| port(&place(&rig))).collect::<Vec<_>>();
    assert!(matches!(verdict(&rig, 1), Verdict::WarmingUp { share } if share < 0.11));
    let cold = share(picks());
    assert!((50..150).contains(&cold), "{cold}");
    sleep(Duration::from_secs(15)).await;
    let half = share(picks());
    assert!((280..390).contains(&half), "{half}");
    sleep(Duration::from_secs(16)).await;
    let warm = share(picks());
    assert!((440..560).contains(&warm), "{warm}");
    assert_eq!(verdict(&rig, 1), Verdict::Picked);
}

#[tokio::test(start_paused = true)]
async fn load_reports_weigh_after_the_blackout_and_until_they_are_old() {
    let (_net, _servers, rig) = rig_of(2, |config| config.policy.balancer = Balancer::WeightedRoundRobin).await;
    let since = clock::now().into_std();
    let loaded = |port: u16, cpu_utilization: f64| {
        let report = LoadReport { cpu_utilization, requests_per_second: 100.0, ..LoadReport::default() };
        ResolvedEndpoint { load: Some(EndpointLoad { report, since }), ..endpoint(port) }
    };
    rig.resolve([loaded(1, 0.25), loaded(2, 0.75)]);
    settled().await;
    assert_eq!(share_of(&rig, 1, 100).await, 50);
    sleep(Duration::from_secs(11)).await;
    let share = share_of(&rig, 1, 100).await;
    assert!((74..=76).contains(&share), "{share}");
    // The registry is silent from here on.
    sleep(Duration::from_secs(180)).await;
    assert_eq!(share_of(&rig, 1, 100).await, 50);
}

#[tokio::test(start_paused = true)]
async fn a_round_goes_on_when_the_candidates_change() {
    let (_net, _servers, rig) = rig_of(3, in_turn).await;
    let mut counts = [0_u32; 3];
    for turn in 0..300 {
        counts[usize::from(attempt(&rig, |_| WELL).await - 1)] += 1;
        // A new snapshot each time: a round that began anew with it would always pick the same one.
        rig.resolve((1..=3).map(|port| ResolvedEndpoint { weight: 100 + turn, ..endpoint(port) }));
        settled().await;
    }
    assert_eq!(counts, [100; 3]);
}

/// What it refused is sent elsewhere, and is no failure. Without a memory of it the fastest to refuse would get the most.
#[tokio::test(start_paused = true)]
async fn who_refuses_every_stream_gets_few_and_is_not_ejected() {
    let net = Net::default();
    let refusing = Server::start(&net, 1, crate::rig::refuse);
    let _slow = Server::start(&net, 2, |request, reply| async {
        sleep(Duration::from_millis(5)).await;
        ok(request, reply).await;
    });
    let rig = Rig::new(&net, [1, 2]);
    rig.all(crate::ConnectivityState::Ready).await;
    for _ in 0..200 {
        crate::rig::call(&rig.channel, GET).await.unwrap();
    }
    assert!(refusing.seen() <= 5, "{}", refusing.seen());
    assert_eq!((handle(&rig, 1).failures(), verdict(&rig, 1)), (0, Verdict::Picked));
}
