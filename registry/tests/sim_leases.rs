//! Many leases in trouble together: a real registry and generated clients over pipes, under paused time. Only so is the time
//! of every beat and of every removal exact; what a stopped process does is told in `faults.rs`, with real ones.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use mesh_runtime::clock;
use pb::watch_response::Event;
use support::{Client, Door, beat_of, grpc_endpoint};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// The registry's default.
const TTL: Duration = Duration::from_secs(10);

/// Between two beats: what an instance of this TTL is told to do.
const BEAT_EVERY: Duration = Duration::from_millis(3_333);

/// Most beats in one message.
const BEATS_MAX: usize = 1_000;

/// A registration of one of many; `start` tells starts of the same instance apart, and no two services share a number.
fn one_of_many(service: &str, number: u16, start: u8) -> pb::RegisterRequest {
    let [high, low] = number.to_be_bytes();
    pb::RegisterRequest {
        service: service.to_owned(),
        instance_id: id_of(number),
        start_nonce: vec![start; 16].into(),
        endpoints: vec![grpc_endpoint(&format!("10.1.{high}.{low}"), 7410)],
        ..pb::RegisterRequest::default()
    }
}

fn id_of(number: u16) -> String {
    format!("00000000-0000-7000-8000-00000000{number:04x}")
}

/// The instances of one service that beat, by number.
struct Fleet {
    service: &'static str,
    leases: BTreeMap<u16, pb::RegisterResponse>,
}

impl Fleet {
    async fn register(client: &mut Client, service: &'static str, numbers: Range<u16>) -> Self {
        let mut fleet = Self { service, leases: BTreeMap::new() };
        for number in numbers {
            fleet.enter(client, number).await;
        }
        fleet
    }

    async fn enter(&mut self, client: &mut Client, number: u16) {
        let granted = support::register(client, one_of_many(self.service, number, 1)).await;
        self.leases.insert(number, granted);
    }

    /// A beat of everybody but the silent. Who is told that its lease is unknown registers anew; answers how many had to.
    async fn beat(&mut self, client: &mut Client, silent: &BTreeSet<u16>) -> usize {
        let beating: Vec<u16> = self.leases.keys().copied().filter(|number| !silent.contains(number)).collect();
        let mut anew = Vec::new();
        for numbers in beating.chunks(BEATS_MAX) {
            let beats = numbers.iter().map(|number| beat_of(&self.leases[number])).collect();
            let answer = client.heartbeat(pb::HeartbeatRequest { beats }).await.expect("heard").into_inner();
            for (&number, result) in numbers.iter().zip(answer.results) {
                match result.outcome() {
                    pb::BeatOutcome::Renewed => {}
                    pb::BeatOutcome::UnknownLease => anew.push(number),
                    other => panic!("{other:?} to {number} of {}", self.service),
                }
            }
        }
        for &number in &anew {
            self.enter(client, number).await;
        }
        anew.len()
    }
}

/// One service as a watcher sees it, with every removal that it was told of.
struct Follower {
    responses: Streaming<pb::WatchResponse>,
    /// Keeps the subscription.
    _requests: mpsc::Sender<pb::WatchRequest>,
    incarnations: BTreeMap<String, u64>,
    removals: Vec<(Instant, pb::Removal)>,
    soft: BTreeMap<String, i32>,
    hold: Option<pb::RemovalHold>,
}

impl Follower {
    async fn of(client: &mut Client, service: &str) -> Self {
        let (requests, inbound) = mpsc::channel(1);
        let subscription = pb::Subscription { service: service.to_owned(), ..pb::Subscription::default() };
        let first = pb::WatchRequest { subscribe: vec![subscription], unsubscribe: Vec::new() };
        requests.send(first).await.expect("there is room");
        let responses = client.watch(ReceiverStream::new(inbound)).await.expect("open").into_inner();
        let mut follower = Self {
            responses,
            _requests: requests,
            incarnations: BTreeMap::new(),
            removals: Vec::new(),
            soft: BTreeMap::new(),
            hold: None,
        };
        while follower.incarnations.is_empty() {
            follower.hear().await;
        }
        follower.removals.clear();
        follower
    }

    async fn hear(&mut self) {
        let news = self.responses.message().await.expect("open").expect("a message");
        let (removals, upserts) = match news.event.expect("an event") {
            Event::Snapshot(chunk) => (chunk.removals, chunk.instances),
            Event::Delta(delta) => (delta.removals, delta.upserts),
            Event::SoftState(soft) => {
                self.soft = soft.instances.iter().map(|held| (held.instance_id.clone(), held.liveness)).collect();
                self.hold = soft.removal_hold;
                return;
            }
            Event::Bookmark(_) => return,
            Event::Error(error) => panic!("{error:?}"),
        };
        for removal in removals {
            self.incarnations.remove(&removal.instance_id);
            self.removals.push((clock::now(), removal));
        }
        for instance in upserts {
            self.incarnations.insert(instance.instance_id, instance.incarnation);
        }
    }

    /// Hears all that comes until a time.
    async fn until(&mut self, end: Instant) {
        while tokio::time::timeout_at(end, self.hear()).await.is_ok() {}
    }

    fn stale(&self) -> usize {
        self.soft.values().filter(|&&liveness| liveness == i32::from(pb::Liveness::Stale)).count()
    }

    /// Most removals in any span of one TTL.
    fn most_in_a_window(&self) -> usize {
        let begins = self.removals.iter().map(|(at, _)| *at);
        let within = |begin: Instant| self.removals.iter().filter(|(at, _)| (begin..begin + TTL).contains(at)).count();
        begins.map(within).max().unwrap_or(0)
    }
}

/// T10 `mass_heartbeat_loss` (P09), simulated: what carries heartbeats fails for 60 % of a service and 40 % of another, and in
/// a third a single instance dies. The first keeps everybody, the second loses 15 % a window, the dead one goes in time; and
/// with the heartbeats everything comes back.
#[tokio::test(start_paused = true)]
async fn mass_heartbeat_loss() {
    let door = Door::open().await;
    let mut client = door.client().await;
    let mut most = Fleet::register(&mut client, "most-svc", 0..1_000).await;
    let mut some = Fleet::register(&mut client, "some-svc", 1_000..1_100).await;
    let mut well = Fleet::register(&mut client, "well-svc", 2_000..2_050).await;
    let mut watches = [
        Follower::of(&mut client, "most-svc").await,
        Follower::of(&mut client, "some-svc").await,
        Follower::of(&mut client, "well-svc").await,
    ];
    let nobody = BTreeSet::new();
    for _ in 0..6 {
        for fleet in [&mut most, &mut some, &mut well] {
            assert_eq!(fleet.beat(&mut client, &nobody).await, 0);
        }
        sleep(BEAT_EVERY).await;
    }

    let lost = clock::now();
    let (silent_most, silent_some, dead) = ((0..600).collect(), (1_000..1_040).collect(), BTreeSet::from([2_007]));
    for _ in 0..12 {
        assert_eq!(most.beat(&mut client, &silent_most).await, 0, "nobody who beats is removed");
        assert_eq!(some.beat(&mut client, &silent_some).await, 0);
        assert_eq!(well.beat(&mut client, &dead).await, 0);
        let next = clock::now() + BEAT_EVERY;
        let [most, some, well] = &mut watches;
        tokio::join!(most.until(next), some.until(next), well.until(next));
    }
    let span = lost.elapsed();
    let [in_most, in_some, in_well] = &watches;
    println!(
        "T10: in {span:?} {} of 600 silent removed of 1000 ({} stale, hold {:?}); {} of 40 of 100, at most {} in a window; \
         the dead one after {:?}",
        in_most.removals.len(),
        in_most.stale(),
        in_most.hold.as_ref().map(|hold| hold.reason()),
        in_some.removals.len(),
        in_some.most_in_a_window(),
        in_well.removals.first().map(|(at, _)| *at - lost),
    );
    assert_eq!(in_most.removals.len(), 0, "more than half is a fault of what carries heartbeats");
    assert_eq!((in_most.incarnations.len(), in_most.stale()), (1_000, 600));
    let hold = in_most.hold.as_ref().expect("the hold is told");
    assert_eq!(hold.reason(), pb::RemovalHoldReason::MajoritySilent);
    // 15 % of what there is when a window opens.
    assert!(in_some.most_in_a_window() <= 15, "{}", in_some.most_in_a_window());
    assert!((15..=40).contains(&in_some.removals.len()), "{}", in_some.removals.len());
    assert_eq!(in_well.removals.len(), 1);
    let (at, removal) = &in_well.removals[0];
    assert_eq!((removal.instance_id.as_str(), removal.reason()), (id_of(2_007).as_str(), pb::RemovalReason::Expired));
    // Its last beat came an interval before the loss.
    assert!(*at - (lost - BEAT_EVERY) <= TTL + Duration::from_secs(1), "{:?}", *at - lost);

    let healed = clock::now();
    let told: Vec<usize> = watches.iter().map(|watch| watch.removals.len()).collect();
    let mut anew = 0;
    for _ in 0..6 {
        for fleet in [&mut most, &mut some, &mut well] {
            anew += fleet.beat(&mut client, &nobody).await;
        }
        let next = clock::now() + BEAT_EVERY;
        let [most, some, well] = &mut watches;
        tokio::join!(most.until(next), some.until(next), well.until(next));
    }
    println!("T10: {anew} registered again; {:?} after the heal everybody is there", healed.elapsed());
    assert!(healed.elapsed() <= 2 * TTL);
    for (watch, (told, all)) in watches.iter().zip(told.into_iter().zip([1_000, 100, 50])) {
        assert_eq!(watch.removals.len(), told, "nobody goes after the heal");
        assert_eq!((watch.incarnations.len(), watch.stale()), (all, 0));
        assert_eq!(watch.hold, None, "no hold is left");
    }
}

/// T12 `flap_is_silent` (P12), simulated: a hundred processes are killed and start again inside their lease, twice. Of fifty
/// watchers none hears of a removal, and all of them end with the new starts.
#[tokio::test(start_paused = true)]
async fn flap_is_silent() {
    const INSTANCES: u16 = 100;
    let door = Door::open().await;
    let mut client = door.client().await;
    let mut watches = Vec::new();
    let mut streams = BTreeMap::new();
    for start in 1..=3_u8 {
        for number in 0..INSTANCES {
            // The process of before died here: its heartbeat stream broke from its side, and the next start is 40 ms away.
            drop(streams.remove(&number));
            sleep(Duration::from_millis(40)).await;
            let granted = support::register(&mut client, one_of_many("user-svc", number, start)).await;
            let (beats, inbound) = mpsc::channel(1);
            beats.send(pb::KeepAliveRequest { beats: vec![beat_of(&granted)] }).await.expect("there is room");
            let mut answers = client.keep_alive(ReceiverStream::new(inbound)).await.expect("open").into_inner();
            let answer = answers.message().await.expect("open").expect("an answer");
            assert_eq!(answer.results[0].outcome(), pb::BeatOutcome::Renewed);
            streams.insert(number, (beats, answers));
        }
        if watches.is_empty() {
            for _ in 0..50 {
                watches.push(Follower::of(&mut client, "user-svc").await);
            }
        }
    }
    let settled = clock::now() + Duration::from_secs(1);
    for watch in &mut watches {
        watch.until(settled).await;
    }
    let removals: usize = watches.iter().map(|watch| watch.removals.len()).sum();
    println!("T12: {} restarts inside the lease, 50 watchers heard of {removals} removals", 2 * INSTANCES);
    assert_eq!(removals, 0);
    for watch in &watches {
        assert_eq!(watch.incarnations.len(), usize::from(INSTANCES));
        assert!(watch.incarnations.values().all(|&incarnation| incarnation >= 3), "an old start is still listed");
    }
}
