//! What a watch promises, held against everything that happened: many watchers that are cut, resume, dawdle and begin anew
//! while the registry changes, and a resume from every position of every small history after its removals are forgotten.
//!
//! `cargo test --release -p registry --test watch_guarantees -- --ignored` runs the long version of the first.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use pb::deregister_request::Target;
use pb::watch_response::Event;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{Client, Door, beat_of, lease_of, register, registration};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Watchers of the first test.
const WATCHERS: u64 = 50;

/// Its changes: what fits a minute unoptimised on two busy processors.
const EVENTS: usize = 1_000;

/// Instances of its service.
const INSTANCES: u8 = 12;

/// What is to be seen of a service: per instance its incarnation, version and admin state.
type Seen = BTreeMap<String, (u64, String, i32)>;

fn seen(instance: &pb::Instance) -> (String, (u64, String, i32)) {
    (instance.instance_id.clone(), (instance.incarnation, instance.version.clone(), instance.admin_state))
}

/// What a watcher holds after a message, and what kind of message it was.
struct Sighting {
    revision: u64,
    held: Seen,
    kind: &'static str,
}

/// One watcher over all of its streams.
#[derive(Default)]
struct Watcher {
    held: Seen,
    position: Option<pb::Position>,
    sightings: Vec<Sighting>,
}

impl Watcher {
    fn revision(&self) -> u64 {
        self.position.as_ref().map_or(0, |position| position.revision)
    }

    /// Takes a message and checks what can be checked at once: ordered, unique, no gap.
    fn take(&mut self, response: pb::WatchResponse) -> &'static str {
        let (held, position) = (self.revision(), response.position.expect("a position"));
        let revision = position.revision;
        assert!(revision >= held, "ordered: {revision} after {held}");
        let kind = match response.event.expect("an event") {
            Event::Snapshot(chunk) => {
                assert!(chunk.index == 0 && chunk.last, "a small service is one chunk");
                self.held = chunk.instances.iter().map(seen).collect();
                "snapshot"
            }
            Event::Delta(delta) => {
                assert!(delta.base_revision <= held, "a gap: {} builds on more than {held}", delta.base_revision);
                assert!(revision > held, "unique: {revision} is told twice");
                for removal in &delta.removals {
                    let gone = self.held.get(&removal.instance_id);
                    if gone.is_some_and(|(incarnation, ..)| *incarnation <= removal.incarnation) {
                        self.held.remove(&removal.instance_id);
                    }
                }
                self.held.extend(delta.upserts.iter().map(seen));
                "delta"
            }
            Event::SoftState(_) => "soft state",
            Event::Bookmark(_) => "bookmark",
            Event::Error(error) => panic!("refused: {error:?}"),
        };
        self.position = Some(position);
        self.sightings.push(Sighting { revision, held: self.held.clone(), kind });
        kind
    }
}

struct Stream {
    responses: Streaming<pb::WatchResponse>,
    _requests: mpsc::Sender<pb::WatchRequest>,
}

impl Stream {
    async fn open(client: &mut Client, service: &str, after: Option<pb::Position>) -> Self {
        let (requests, inbound) = mpsc::channel(1);
        let subscription = pb::Subscription { service: service.to_owned(), after, ..pb::Subscription::default() };
        let request = pb::WatchRequest { subscribe: vec![subscription], unsubscribe: Vec::new() };
        requests.send(request).await.expect("there is room");
        let responses = client.watch(ReceiverStream::new(inbound)).await.expect("open").into_inner();
        Self { responses, _requests: requests }
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.responses.message().await.expect("open").expect("a message")
    }
}

/// A registration that outlasts any test, of a start that nobody has seen.
fn start(number: u8, starts: u64, version: usize) -> pb::RegisterRequest {
    let ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    let zone = if number.is_multiple_of(2) { "even" } else { "odd" };
    pb::RegisterRequest {
        ttl,
        start_nonce: u128::from(starts).to_be_bytes().to_vec().into(),
        version: version.to_string(),
        zone: zone.to_owned(),
        ..registration(number)
    }
}

async fn deregister(client: &mut Client, granted: &pb::RegisterResponse) -> u64 {
    let target = Some(Target::Lease(lease_of(granted)));
    let gone = client.deregister(pb::DeregisterRequest { target }).await.expect("gone").into_inner();
    gone.position.expect("a position").revision
}

/// Follows the service through everything until it holds the revision that `until` comes to name.
async fn watch(mut client: Client, seed: u64, until: tokio::sync::watch::Receiver<Option<u64>>) -> Watcher {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut watcher = Watcher::default();
    let reached = |watcher: &Watcher| until.borrow().is_some_and(|last| watcher.revision() >= last);
    while !reached(&watcher) {
        // Now and then everything is forgotten, as by a caller that starts anew.
        if rng.random_ratio(1, 6) {
            (watcher.held, watcher.position) = (Seen::new(), None);
        }
        let resumes = watcher.position.clone();
        let mut stream = Stream::open(&mut client, "user-svc", resumes.clone()).await;
        let mut first = resumes.is_some();
        let patience = rng.random_range(1..60);
        let dawdles = rng.random_ratio(1, 3);
        for _ in 0..patience {
            let Ok(response) = timeout(Duration::from_secs(6), stream.next()).await else {
                panic!("a stream is never silent for longer than a bookmark takes");
            };
            let kind = watcher.take(response);
            if std::mem::take(&mut first) {
                assert_ne!(kind, "snapshot", "resumable: nothing was forgotten since {resumes:?}");
            }
            if reached(&watcher) {
                break;
            }
            if dawdles {
                sleep(Duration::from_millis(rng.random_range(0..400))).await;
            }
        }
    }
    watcher
}

#[tokio::test(start_paused = true)]
async fn watch_six_guarantees() {
    six_guarantees(EVENTS).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "minutes, unless optimised"]
async fn watch_six_guarantees_of_twenty_thousand_events() {
    six_guarantees(20_000).await;
}

async fn six_guarantees(events: usize) {
    let door = Door::open().await;
    let mut client = door.client().await;
    sleep(Duration::from_secs(11)).await;
    let (end, until) = tokio::sync::watch::channel(None);
    let mut watchers = Vec::new();
    for seed in 0..WATCHERS {
        watchers.push(tokio::spawn(watch(door.client().await, seed, until.clone())));
    }

    let mut rng = StdRng::seed_from_u64(14);
    let mut history: BTreeMap<u64, Seen> = BTreeMap::from([(0, Seen::new())]);
    let mut live: BTreeMap<u8, (pb::RegisterResponse, u64)> = BTreeMap::new();
    let (mut now, mut draining, mut starts) = (Seen::new(), [false; 2], 0);
    for version in 0..events {
        let number = rng.random_range(0..INSTANCES);
        let parity = usize::from(number % 2);
        let id = registration(number).instance_id;
        let admin = |draining| i32::from(if draining { pb::AdminState::Draining } else { pb::AdminState::Enabled });
        let revision = match (rng.random_range(0..10), live.get(&number).cloned()) {
            // Several instances change in one commit: a watcher sees all of them changed or none.
            (0, Some(_)) => {
                draining[parity] = !draining[parity];
                let zone = start(number, 0, 0).zone;
                let selector = Some(pb::Selector { by: Some(pb::selector::By::Zone(zone)) });
                let request = pb::SetAdminStateRequest {
                    service: "user-svc".to_owned(),
                    selector,
                    state: admin(draining[parity]),
                    ..pb::SetAdminStateRequest::default()
                };
                for number in live.keys().filter(|number| usize::from(*number % 2) == parity) {
                    let entry = now.get_mut(&registration(*number).instance_id).expect("it lives");
                    entry.2 = admin(draining[parity]);
                }
                let answer = client.set_admin_state(request).await.expect("set").into_inner();
                answer.position.expect("a position").revision
            }
            (1..=3, Some((granted, _))) => {
                live.remove(&number);
                now.remove(&id);
                deregister(&mut client, &granted).await
            }
            (choice, held) => {
                let new = choice < 7 || held.is_none();
                starts += u64::from(new);
                let start_of = held.filter(|_| !new).map_or(starts, |(_, start)| start);
                let granted = register(&mut client, start(number, start_of, version)).await;
                now.insert(id, (granted.incarnation, version.to_string(), admin(draining[parity])));
                let revision = granted.position.as_ref().expect("a position").revision;
                live.insert(number, (granted, start_of));
                revision
            }
        };
        history.insert(revision, now.clone());
        // Bursts, and now and then the quiet in which bookmarks come.
        let quiet = if version % 100 == 99 { 6_000 } else { rng.random_range(0..25) };
        sleep(Duration::from_millis(quiet)).await;
    }
    let last = *history.last_key_value().expect("it began").0;
    end.send_replace(Some(last));

    let (mut messages, mut kinds) = (0, BTreeMap::<&str, usize>::new());
    for (number, watcher) in watchers.into_iter().enumerate() {
        let watcher =
            timeout(Duration::from_secs(60), watcher).await.expect("reliable: it gets there").expect("no panic");
        assert_eq!(watcher.held, now, "reliable: watcher {number} ends where the registry is");
        for sighting in &watcher.sightings {
            let (at, truth) = history.range(..=sighting.revision).next_back().expect("it began with nothing");
            if sighting.kind == "delta" {
                assert_eq!(*at, sighting.revision, "atomic: a delta ends at a commit");
            }
            // Atomic for what comes with a change, and bookmarkable for what only names a position.
            assert_eq!(&sighting.held, truth, "watcher {number}: {} at {}", sighting.kind, sighting.revision);
            *kinds.entry(sighting.kind).or_default() += 1;
        }
        messages += watcher.sightings.len();
    }
    println!("{events} events, {WATCHERS} watchers, {messages} messages: {kinds:?}");
    assert!(["snapshot", "delta", "soft state", "bookmark"].iter().all(|kind| kinds.contains_key(kind)), "{kinds:?}");
}

/// What happens to an instance in a small history.
#[derive(Clone, Copy, Debug)]
enum Act {
    Start(u8),
    Leave(u8),
}

/// Every sequence of so many acts on two instances.
fn histories(length: u32) -> impl Iterator<Item = Vec<Act>> {
    (0..4_u32.pow(length)).map(move |number| {
        let act = |at| match number >> (2 * at) & 3 {
            0 => Act::Start(0),
            1 => Act::Start(1),
            2 => Act::Leave(0),
            _ => Act::Leave(1),
        };
        (0..length).map(act).collect()
    })
}

/// One small history and how the service looked at each of its revisions.
struct Story {
    service: String,
    /// Position and state after each act, the beginning first.
    chapters: Vec<(pb::Position, Seen)>,
    /// Revision of the last removal that is not taken back by a later start.
    removed_last: u64,
    live: Vec<pb::RegisterResponse>,
}

/// Plays one history with instances of its own.
async fn play(client: &mut Client, number: usize, acts: &[Act], starts: &mut u64) -> Story {
    let service = format!("s{number}");
    let id = |instance: u8| format!("00000000-0000-7000-8000-{:012x}", 2 * number + usize::from(instance) + 1);
    let mut granted: [Option<pb::RegisterResponse>; 2] = [None, None];
    let mut removed = [0; 2];
    let mut now = Seen::new();
    let begin = client.list_services(pb::ListServicesRequest::default()).await.expect("a page").into_inner();
    let mut chapters = vec![(begin.position.expect("a position"), now.clone())];
    for act in acts {
        let position = match *act {
            Act::Start(instance) => {
                *starts += 1;
                let request = pb::RegisterRequest {
                    service: service.clone(),
                    instance_id: id(instance),
                    ..start(instance, *starts, 0)
                };
                let grant = register(client, request).await;
                let enabled = i32::from(pb::AdminState::Enabled);
                now.insert(id(instance), (grant.incarnation, "0".to_owned(), enabled));
                removed[usize::from(instance)] = 0;
                let position = grant.position.clone();
                granted[usize::from(instance)] = Some(grant);
                position.expect("a position")
            }
            Act::Leave(instance) => {
                let Some(grant) = granted[usize::from(instance)].take() else { continue };
                now.remove(&id(instance));
                let revision = deregister(client, &grant).await;
                removed[usize::from(instance)] = revision;
                pb::Position { revision, ..chapters[0].0.clone() }
            }
        };
        chapters.push((position, now.clone()));
    }
    let live = granted.into_iter().flatten().collect();
    Story { service, chapters, removed_last: removed.into_iter().max().unwrap_or(0), live }
}

#[tokio::test(start_paused = true)]
async fn watch_compacted_resume() {
    let door = Door::open().await;
    let mut client = door.client().await;
    sleep(Duration::from_secs(11)).await;
    // What was told up to here may have been told before the state was whole.
    let mut starts = 1;
    let other = pb::RegisterRequest { service: "other".to_owned(), ..start(100, starts, 0) };
    register(&mut client, other).await;
    let mut stories = Vec::new();
    for (number, acts) in (1..=4).flat_map(histories).enumerate() {
        stories.push(play(&mut client, number, &acts, &mut starts).await);
    }
    // Every removal is forgotten; who lives beats.
    let live: Vec<_> = stories.iter().flat_map(|story| &story.live).collect();
    for _ in 0..7 {
        sleep(Duration::from_secs(100)).await;
        for some in live.chunks(500) {
            let beats = some.iter().map(|granted| beat_of(granted)).collect();
            client.heartbeat(pb::HeartbeatRequest { beats }).await.expect("beaten");
        }
    }
    let (mut snapshots, mut deltas) = (0, 0);
    for story in &stories {
        let (_, now) = story.chapters.last().expect("a beginning");
        let changed_last = story.chapters.last().map_or(0, |(position, _)| position.revision);
        for (position, held) in &story.chapters {
            let mut watcher = Watcher { held: held.clone(), position: Some(position.clone()), ..Watcher::default() };
            let mut stream = Stream::open(&mut client, &story.service, Some(position.clone())).await;
            let mut kinds = Vec::new();
            while kinds.last() != Some(&"soft state") {
                kinds.push(watcher.take(stream.next().await));
            }
            assert_eq!(&watcher.held, now, "{} from {position:?}: {kinds:?}", story.service);
            // Who holds exactly the revision of the last removal has seen it.
            if story.chapters.len() > 1 && position.revision < story.removed_last {
                assert_eq!(kinds, ["snapshot", "soft state"], "{} from {position:?}", story.service);
                snapshots += 1;
            } else if !now.is_empty() && position.revision < changed_last {
                assert_eq!(kinds, ["delta", "soft state"], "{} from {position:?}", story.service);
                deltas += 1;
            }
        }
    }
    println!("{} histories, {snapshots} resumes by snapshot, {deltas} by delta", stories.len());
    assert!(snapshots > 100 && deltas > 100, "{snapshots} and {deltas}");
}
