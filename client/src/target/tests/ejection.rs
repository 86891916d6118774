//! Who fails is left alone, and comes back by a call that tries.

use tonic::Code;

use super::*;
use crate::ConnectivityState::Ready;
use crate::policy::Percent;
use crate::resolver::{ResolvedEndpoint, Standing};
use crate::rig::{CREATE, Frozen, endpoint};

const FIVE_SECONDS: Duration = Duration::from_secs(5);

fn sick_at(sick: u16) -> impl Fn(u16) -> Outcome {
    move |port| if port == sick { SICK } else { WELL }
}

/// The first endpoint fails until it is ejected, within so few attempts that a rule which never ejects is noticed.
async fn eject_first(rig: &Rig) {
    for _ in 0..20 {
        attempt(rig, sick_at(1)).await;
        if handle(rig, 1).ejections() > 0 {
            return;
        }
    }
    panic!("it was not ejected: {:?}", verdict(rig, 1));
}

/// Two replicas, of which the first has just been ejected.
async fn one_of_two_ejected() -> (Net, Vec<Server>, Rig, Instant) {
    let (net, servers, rig) = rig_of(2, in_turn).await;
    eject_first(&rig).await;
    let Verdict::Ejected { remaining } = verdict(&rig, 1) else { panic!("{:?}", verdict(&rig, 1)) };
    (net, servers, rig, clock::now() + remaining)
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_eject_one_of_two_replicas() {
    let (_net, _servers, rig) = rig_of(2, in_turn).await;
    for _ in 0..8 {
        attempt(&rig, sick_at(1)).await;
    }
    assert_eq!((verdict(&rig, 1), handle(&rig, 1).failures_in_a_row()), (Verdict::Picked, 4));
    for _ in 0..2 {
        attempt(&rig, sick_at(1)).await;
    }
    assert!(matches!(verdict(&rig, 1), Verdict::Ejected { remaining } if remaining <= FIVE_SECONDS));
    assert_eq!(share_of(&rig, 2, 50).await, 50);
    assert_eq!((handle(&rig, 1).ejections(), handle(&rig, 1).failures()), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_between_starts_the_count_over() {
    let (_net, _servers, rig) = rig_of(2, in_turn).await;
    for turn in 0..80 {
        // One in five of its own turns, which are every second one.
        let outcome = if turn / 2 % 5 == 4 { Outcome::Code(Code::NotFound) } else { SICK };
        attempt(&rig, |port| if port == 1 { outcome } else { WELL }).await;
    }
    assert_eq!(verdict(&rig, 1), Verdict::Picked);
}

#[tokio::test(start_paused = true)]
async fn the_last_one_is_never_ejected_however_it_fails() {
    let (_net, _servers, rig) = rig_of(2, in_turn).await;
    for _ in 0..100 {
        attempt(&rig, |_| SICK).await;
    }
    assert_eq!(handle(&rig, 1).ejections() + handle(&rig, 2).ejections(), 1);
    let (_net, _servers, alone) = rig_of(1, in_turn).await;
    for _ in 0..100 {
        attempt(&alone, |_| SICK).await;
    }
    assert_eq!((verdict(&alone, 1), handle(&alone, 1).ejections()), (Verdict::Picked, 0));
}

/// Otherwise a service whose fault is a common one would be without endpoints.
#[tokio::test(start_paused = true)]
async fn no_more_than_the_share_is_ejected() {
    let (_net, _servers, rig) = rig_of(4, in_turn).await;
    for _ in 0..100 {
        attempt(&rig, |_| SICK).await;
    }
    let ejected = (1..=4).filter(|port| matches!(verdict(&rig, *port), Verdict::Ejected { .. })).count();
    assert_eq!(ejected, 2);
}

/// The other one goes while one is out: better one that failed than nobody.
#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_is_picked_when_nobody_else_is_left() {
    for threshold in [50, 0] {
        let (net, mut servers, rig) = rig_of(2, |config| {
            in_turn(config);
            config.policy.panic_threshold = Percent::new(threshold).unwrap();
        })
        .await;
        eject_first(&rig).await;
        drop(servers.pop());
        crate::rig::eventually(|| handle(&rig, 2).state() != Ready).await;
        assert_eq!(share_of(&rig, 1, 10).await, 10);
        assert!(matches!(verdict(&rig, 1), Verdict::Panic { despite } if matches!(*despite, Verdict::Ejected { .. })));
        drop(net);
    }
}

/// On trial it would take one call at a time, and the others would wait for that one.
#[tokio::test(start_paused = true)]
async fn an_endpoint_on_trial_takes_every_call_when_nobody_else_is_left() {
    let (_net, mut servers, rig, over) = one_of_two_ejected().await;
    until(over).await;
    drop(servers.pop());
    crate::rig::eventually(|| handle(&rig, 2).state() != Ready).await;
    let held: Vec<InFlight> = (0..10).map(|_| place(&rig)).collect();
    assert!(held.iter().all(|place| port(place) == 1));
    assert_eq!(verdict(&rig, 1), Verdict::Panic { despite: Box::new(Verdict::OnTrial) });
}

#[tokio::test(start_paused = true)]
async fn an_ejection_ends_with_one_call_and_its_success_brings_the_endpoint_back() {
    let (_net, _servers, rig, over) = one_of_two_ejected().await;
    until(over - Duration::from_millis(10)).await;
    assert_eq!(share_of(&rig, 2, 5).await, 5);
    until(over).await;
    assert_eq!(verdict(&rig, 1), Verdict::OnTrial);
    let mut trial = place(&rig);
    assert_eq!(port(&trial), 1);
    for _ in 0..20 {
        assert_eq!(port(&place(&rig)), 2, "one at a time");
    }
    trial.end(WELL, trial.now());
    drop(trial);
    settled().await;
    assert_eq!((verdict(&rig, 1), handle(&rig, 1).failures_in_a_row()), (Verdict::Picked, 0));
    assert_eq!(share_of(&rig, 1, 20).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_failed_trial_ejects_for_twice_as_long() {
    let (_net, _servers, rig, over) = one_of_two_ejected().await;
    until(over).await;
    assert_eq!(attempt(&rig, sick_at(1)).await, 1);
    let Verdict::Ejected { remaining } = verdict(&rig, 1) else { panic!("{:?}", verdict(&rig, 1)) };
    assert!(remaining > FIVE_SECONDS && remaining <= FIVE_SECONDS * 2, "{remaining:?}");
    assert_eq!(share_of(&rig, 2, 20).await, 20);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_repeated_tries_only_when_no_other_has_for_a_second() {
    let (_net, _servers, rig, over) = one_of_two_ejected().await;
    until(over).await;
    assert_eq!(port(&place_for(&rig, CREATE).unwrap()), 2);
    until(over + Duration::from_millis(990)).await;
    assert_eq!(port(&place_for(&rig, CREATE).unwrap()), 2);
    until(over + Duration::from_millis(1_010)).await;
    assert_eq!(port(&place_for(&rig, CREATE).unwrap()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_its_caller_gave_up_is_followed_by_another_a_second_later() {
    let (_net, _servers, rig, over) = one_of_two_ejected().await;
    until(over).await;
    let given_up = place(&rig);
    assert_eq!(port(&given_up), 1);
    drop(given_up);
    settled().await;
    assert_eq!(share_of(&rig, 2, 20).await, 20);
    until(clock::now() + Duration::from_secs(1)).await;
    assert_eq!(port(&place(&rig)), 1);
}

#[tokio::test(start_paused = true)]
async fn a_trial_without_an_answer_for_five_seconds_does_not_keep_others_from_trying() {
    let (_net, _servers, rig, over) = one_of_two_ejected().await;
    until(over).await;
    let hanging = place(&rig);
    until(over + Duration::from_millis(4_900)).await;
    assert_eq!(port(&place(&rig)), 2);
    until(over + Duration::from_millis(5_100)).await;
    let mut second = place(&rig);
    assert_eq!((port(&hanging), port(&second)), (1, 1));
    second.end(WELL, second.now());
    drop(second);
    settled().await;
    assert_eq!(verdict(&rig, 1), Verdict::Picked);
    // Its late end changes nothing any more.
    drop(hanging);
    settled().await;
    assert_eq!(verdict(&rig, 1), Verdict::Picked);
}

/// A stream may be open for hours.
#[tokio::test(start_paused = true)]
async fn a_stream_passes_a_trial_a_second_after_its_answer_began() {
    let (_net, _servers, rig, over) = one_of_two_ejected().await;
    until(over).await;
    let mut stream = place(&rig);
    assert_eq!(port(&stream), 1);
    stream.answered(stream.now());
    crate::rig::eventually(|| verdict(&rig, 1) == Verdict::Picked).await;
    assert!((1..=3).contains(&(clock::now() - over).as_secs()));
}

#[tokio::test(start_paused = true)]
async fn an_ejection_outlives_the_endpoints_absence_from_the_list() {
    let (_net, _servers, rig, _) = one_of_two_ejected().await;
    rig.resolve([endpoint(2)]);
    settled().await;
    rig.resolve([endpoint(1), endpoint(2)]);
    ready(&rig, 2).await;
    // A new connection is worth a try, even of the same process; after a failed one time must pass.
    assert_eq!(verdict(&rig, 1), Verdict::OnTrial);
    assert_eq!(attempt(&rig, sick_at(1)).await, 1);
    rig.resolve([endpoint(2)]);
    settled().await;
    rig.resolve([endpoint(1), endpoint(2)]);
    ready(&rig, 2).await;
    assert!(matches!(verdict(&rig, 1), Verdict::Ejected { .. }));

    rig.resolve([endpoint(2)]);
    settled().await;
    rig.resolve([ResolvedEndpoint { incarnation: 2, ..endpoint(1) }, endpoint(2)]);
    ready(&rig, 2).await;
    assert_eq!(verdict(&rig, 1), Verdict::Picked, "another process under the same id");
}

#[tokio::test(start_paused = true)]
async fn a_new_incarnation_may_try_at_once() {
    let (_net, _servers, rig, _) = one_of_two_ejected().await;
    rig.resolve([ResolvedEndpoint { incarnation: 2, ..endpoint(1) }, endpoint(2)]);
    settled().await;
    assert_eq!(verdict(&rig, 1), Verdict::OnTrial);
}

#[tokio::test(start_paused = true)]
async fn only_what_the_endpoint_did_counts_against_it() {
    let counts = async |outcome: Outcome| {
        let (_net, _servers, rig) = rig_of(2, in_turn).await;
        for _ in 0..20 {
            attempt(&rig, |port| if port == 1 { outcome } else { WELL }).await;
        }
        handle(&rig, 1).ejections() > 0
    };
    for code in [Code::Unavailable, Code::Internal, Code::Unknown, Code::DataLoss] {
        assert!(counts(Outcome::Code(code)).await, "{code:?}");
    }
    assert!(counts(Outcome::Lost).await && counts(Outcome::Broken(Code::Internal)).await);
    for code in [Code::NotFound, Code::DeadlineExceeded, Code::ResourceExhausted, Code::Cancelled, Code::Aborted] {
        assert!(!counts(Outcome::Code(code)).await, "{code:?}");
    }
    for outcome in [Outcome::Unprocessed, Outcome::Refused, Outcome::Cancelled, Outcome::Expired] {
        assert!(!counts(outcome).await, "{outcome:?}");
    }
    for outcome in [Outcome::Malformed, Outcome::Broken(Code::ResourceExhausted)] {
        assert!(!counts(outcome).await, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_rule_nobody_is_ejected() {
    let (_net, _servers, rig) = rig_of(2, |config| {
        in_turn(config);
        config.policy.ejection = None;
    })
    .await;
    for _ in 0..100 {
        attempt(&rig, sick_at(1)).await;
    }
    assert_eq!((verdict(&rig, 1), handle(&rig, 1).failures_in_a_row()), (Verdict::Picked, 50));
}

#[tokio::test(start_paused = true)]
async fn in_a_panic_whoever_is_connected_is_picked() {
    for (threshold, picked) in [(50, true), (0, false)] {
        let net = Net::default();
        let frozen = [Frozen::start(&net, 1), Frozen::start(&net, 2)];
        let _server = Server::start(&net, 3, ok);
        let rig = Rig::with(&net, 1..=3, |config| {
            in_turn(config);
            config.policy.panic_threshold = Percent::new(threshold).unwrap();
        });
        rig.all(Ready).await;
        frozen.iter().for_each(Frozen::freeze);
        let suspect = |port| ResolvedEndpoint { standing: Standing::Suspect, ..endpoint(port) };
        rig.resolve([suspect(1), suspect(2), endpoint(3)]);
        // Longer than they have for an answer to the PING.
        sleep(Duration::from_millis(300)).await;
        assert_eq!(share_of(&rig, 1, 30).await == 10, picked, "one in three doubted at {threshold} %");
        let expected = if picked { Verdict::Panic { despite: Box::new(Verdict::Doubted) } } else { Verdict::Doubted };
        assert_eq!(verdict(&rig, 1), expected);
    }
}

/// A call that may not be repeated cannot try at first. When it may, nothing else tells it so.
#[tokio::test(start_paused = true)]
async fn a_call_that_waits_is_told_when_it_may_try() {
    let net = Net::default();
    let tried = Server::start(&net, 1, ok);
    let _full = Server::with_manners(&net, 2, crate::rig::Manners { streams_max: Some(1) }, ok);
    let rig = Rig::with(&net, [1, 2], |config| {
        in_turn(config);
        config.policy.connections_per_endpoint = std::num::NonZeroU8::MIN;
    });
    rig.all(Ready).await;
    eject_first(&rig).await;
    let Verdict::Ejected { remaining } = verdict(&rig, 1) else { panic!("{:?}", verdict(&rig, 1)) };
    let over = clock::now() + remaining;
    until(over).await;
    let _held = place_for(&rig, CREATE).unwrap();
    let waiting = tokio::spawn({
        let channel = rig.channel.clone();
        let mut request = crate::rig::request(CREATE);
        request.extensions_mut().insert(crate::WaitForReady);
        async move { crate::rig::send(&channel, request).await }
    });
    crate::rig::eventually(|| waiting.is_finished()).await;
    waiting.await.unwrap().unwrap();
    assert_eq!(tried.seen(), 1);
    assert!((1_000..1_100).contains(&(clock::now() - over).as_millis()), "{:?}", clock::now() - over);
}

/// There the calls are the trial: otherwise the judgement would outlive what it was passed for, and keep others from being
/// judged.
#[tokio::test(start_paused = true)]
async fn in_a_panic_a_success_of_one_on_trial_brings_it_back() {
    let (net, mut servers, rig) = rig_of(4, in_turn).await;
    let sick = |port| if port <= 2 { SICK } else { WELL };
    for _ in 0..30 {
        attempt(&rig, sick).await;
    }
    assert_eq!([1, 2].map(|port| handle(&rig, port).ejections()), [1, 1]);
    servers.truncate(2);
    rig.resolve([endpoint(1), endpoint(2)]);
    sleep(FIVE_SECONDS).await;
    let panic = Verdict::Panic { despite: Box::new(Verdict::OnTrial) };
    for _ in 0..4 {
        assert!((1..=2).all(|port| verdict(&rig, port) == panic));
        attempt(&rig, |_| SICK).await;
    }
    // One in two is enough for the judgement to be believed: the other one has a trial as usual.
    let well = attempt(&rig, |_| WELL).await;
    let other = 3 - well;
    assert_eq!([well, other].map(|port| verdict(&rig, port)), [Verdict::Picked, Verdict::OnTrial]);
    assert_eq!(attempt(&rig, |_| WELL).await, other);
    assert_eq!([1, 2].map(|port| verdict(&rig, port)), [Verdict::Picked, Verdict::Picked]);

    let _sick = Server::start(&net, 5, ok);
    rig.resolve([endpoint(1), endpoint(2), endpoint(5)]);
    ready(&rig, 3).await;
    for _ in 0..15 {
        attempt(&rig, sick_at(5)).await;
    }
    assert!(matches!(verdict(&rig, 5), Verdict::Ejected { .. }));
}

/// Breaks the connections to `servers` under six calls each, and says so.
async fn kill(rig: &Rig, servers: Vec<Server>) {
    let ports: Vec<u16> = servers.iter().map(|server| server.address.tcp().unwrap().port()).collect();
    let mut open: Vec<InFlight> = Vec::new();
    while ports.iter().any(|wanted| open.iter().filter(|place| port(place) == *wanted).count() < 6) {
        open.push(place(rig));
    }
    drop(servers);
    crate::rig::eventually(|| ports.iter().all(|port| handle(rig, *port).state() != Ready)).await;
    for mut place in open {
        if ports.contains(&port(&place)) {
            place.end(Outcome::Lost, place.now());
        }
    }
    settled().await;
}

/// Nobody calls it anyway.
#[tokio::test(start_paused = true)]
async fn who_is_gone_takes_no_part_of_the_share_and_comes_back_like_a_new_one() {
    let (net, mut servers, rig) = rig_of(4, in_turn).await;
    for _ in 0..8 {
        let mut served = place(&rig);
        served.answered(served.now());
        served.end(WELL, served.now());
    }
    let _living = servers.split_off(2);
    kill(&rig, servers).await;
    assert_eq!([1, 2].map(|port| handle(&rig, port).ejections()), [0, 0]);
    for _ in 0..10 {
        attempt(&rig, sick_at(3)).await;
    }
    assert!(matches!(verdict(&rig, 3), Verdict::Ejected { .. }), "{:?}", verdict(&rig, 3));

    let _back = [Server::start(&net, 1, ok), Server::start(&net, 2, ok)];
    rig.all(Ready).await;
    assert_eq!([1, 2].map(|port| verdict(&rig, port)), [Verdict::Picked, Verdict::Picked]);
    assert_eq!([1, 2].map(|port| handle(&rig, port).failures_in_a_row()), [0, 0]);
}

/// Otherwise each of its connections would cost calls.
#[tokio::test(start_paused = true)]
async fn who_breaks_connections_without_an_answer_on_them_is_ejected_when_it_is_back() {
    let (net, mut servers, rig) = rig_of(4, in_turn).await;
    let _others = servers.split_off(1);
    kill(&rig, servers).await;
    assert_eq!(handle(&rig, 1).ejections(), 0);
    let _back = Server::start(&net, 1, ok);
    rig.all(Ready).await;
    assert!(matches!(verdict(&rig, 1), Verdict::Ejected { .. }), "{:?}", verdict(&rig, 1));
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_that_is_gone_does_not_keep_another_one_from_being_ejected() {
    let (_net, mut servers, rig) = rig_of(4, in_turn).await;
    for _ in 0..30 {
        attempt(&rig, |port| if port <= 2 { SICK } else { WELL }).await;
    }
    let _living = servers.split_off(2);
    drop(servers);
    crate::rig::eventually(|| (1..=2).all(|port| handle(&rig, port).state() != Ready)).await;
    for _ in 0..10 {
        attempt(&rig, sick_at(3)).await;
    }
    assert!(matches!(verdict(&rig, 3), Verdict::Ejected { .. }), "{:?}", verdict(&rig, 3));
}

#[tokio::test(start_paused = true)]
async fn a_new_incarnation_is_not_blamed_for_the_failures_of_the_former() {
    let (_net, _servers, rig) = rig_of(2, in_turn).await;
    for _ in 0..8 {
        attempt(&rig, sick_at(1)).await;
    }
    assert_eq!(handle(&rig, 1).failures_in_a_row(), 4);
    rig.resolve([ResolvedEndpoint { incarnation: 2, ..endpoint(1) }, endpoint(2)]);
    settled().await;
    assert_eq!(handle(&rig, 1).failures_in_a_row(), 0);
}
