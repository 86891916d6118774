//! The watch task against a registry that the test plays by hand, in paused time.

use wire::watch_response::Event;

use super::*;
use crate::fake_registry::{Calls, Stream, registry};
use crate::registries::Stores;
use crate::resolver::{ResolutionStatus, ResolvedEndpoint, Standing};

type Side = Stream<wire::WatchRequest, wire::WatchResponse>;

fn started() -> (Watcher, Calls) {
    let (client, calls) = registry();
    (Watcher::spawn(Round::only(client), "default".into(), None, Entropy::seeded(11)), calls)
}

/// Follows user-svc, and takes the stream on which that is asked.
async fn followed(watcher: &Watcher, calls: &mut Calls) -> (Resolutions, Side) {
    let users = watcher.follow("user-svc").unwrap();
    let mut stream = calls.watch().await;
    stream.request().await;
    (users, stream)
}

fn position(revision: u64) -> wire::Position {
    wire::Position { store_id: "a".into(), generation: 0, revision }
}

fn message(service: &str, revision: u64, event: Event) -> wire::WatchResponse {
    wire::WatchResponse {
        namespace: "default".into(),
        service: service.into(),
        position: Some(position(revision)),
        complete: true,
        event: Some(event),
    }
}

/// A snapshot in which these ports are listed.
fn snapshot(service: &str, revision: u64, ports: &[u16]) -> wire::WatchResponse {
    let instance = |&port: &u16| wire::Instance {
        service: service.into(),
        instance_id: uuid::Uuid::from_u128(port.into()).to_string(),
        incarnation: 1,
        revision,
        endpoints: vec![wire::Endpoint {
            name: "grpc".into(),
            protocol: wire::Protocol::Grpc.into(),
            ip: "127.0.0.1".into(),
            port: port.into(),
        }],
        ..Default::default()
    };
    let chunk = wire::SnapshotChunk {
        instances: ports.iter().map(instance).collect(),
        last: true,
        presence: wire::ServicePresence::Populated.into(),
        ..Default::default()
    };
    message(service, revision, Event::Snapshot(chunk))
}

async fn ports(resolutions: &mut Resolutions) -> Vec<u16> {
    resolutions.changed().await.unwrap();
    resolutions.borrow_and_update().endpoints.iter().map(|endpoint| endpoint.address.tcp().unwrap().port()).collect()
}

async fn subscribed(stream: &mut Side) -> Vec<(String, Option<u64>)> {
    let request = stream.request().await;
    request.subscribe.into_iter().map(|s| (s.service, s.after.map(|after| after.revision))).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_opened_until_something_is_followed() {
    let (watcher, mut calls) = started();
    tokio::task::yield_now().await;
    assert!(calls.is_quiet());
    assert_eq!(watcher.status().state, WatchState::Idle);
    let _held = watcher.follow("user-svc");
    let mut stream = calls.watch().await;
    assert_eq!(subscribed(&mut stream).await, [("user-svc".to_owned(), None)]);
}

#[tokio::test(start_paused = true)]
async fn one_stream_carries_all_services() {
    let (watcher, mut calls) = started();
    let mut users = watcher.follow("user-svc").unwrap();
    let mut stream = calls.watch().await;
    subscribed(&mut stream).await;
    let mut orders = watcher.follow("order-svc").unwrap();
    assert_eq!(subscribed(&mut stream).await, [("order-svc".to_owned(), None)]);
    stream.say(snapshot("user-svc", 5, &[1])).await;
    stream.say(snapshot("order-svc", 5, &[2, 3])).await;
    assert_eq!(ports(&mut users).await, [1]);
    assert_eq!(ports(&mut orders).await, [2, 3]);
    assert_eq!(watcher.status().state, WatchState::Following);
    assert!(calls.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn an_outage_takes_nothing_away_and_the_next_stream_resumes() {
    let (watcher, mut calls) = started();
    let mut users = watcher.follow("user-svc").unwrap();
    let mut stream = calls.watch().await;
    subscribed(&mut stream).await;
    stream.say(snapshot("user-svc", 5, &[1, 2])).await;
    assert_eq!(ports(&mut users).await, [1, 2]);
    stream.fail(Status::unavailable("killed")).await;
    for _ in 0..300 {
        calls.watch().await.fail(Status::unavailable("still down")).await;
    }
    assert!(!users.has_changed().unwrap());
    assert_eq!(users.borrow().status, ResolutionStatus::Resolved);
    assert!(watcher.status().last_error.is_some());
    let mut stream = calls.watch().await;
    assert_eq!(subscribed(&mut stream).await, [("user-svc".to_owned(), Some(5))]);
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_opened_again_at_once_then_within_5_s() {
    let (watcher, mut calls) = started();
    let _held = watcher.follow("user-svc");
    let mut last = clock::now();
    let mut waits = Vec::new();
    for _ in 0..100 {
        drop(calls.watch().await);
        waits.push(clock::now() - last);
        last = clock::now();
    }
    assert_eq!(waits[1], Duration::ZERO);
    assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(5_001)));
    assert!(waits.iter().any(|wait| *wait > Duration::from_secs(4)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_for_15_s_is_dead_and_bookmarks_keep_it_alive() {
    let (watcher, mut calls) = started();
    let _held = watcher.follow("user-svc");
    let mut stream = calls.watch().await;
    subscribed(&mut stream).await;
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(5)).await;
        stream.say(message("", 5, Event::Bookmark(wire::Bookmark::default()))).await;
        while watcher.status().last_heard != Some(clock::now()) {
            tokio::task::yield_now().await;
        }
    }
    assert!(calls.is_quiet());
    let silent_since = clock::now();
    let _next = calls.watch().await;
    let silence = clock::now() - silent_since;
    assert!(silence >= SILENCE_MAX && silence <= SILENCE_MAX + Duration::from_millis(2), "{silence:?}");
    assert!(stream.is_over().await);
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_asked_about_with_the_position_that_holds() {
    let (watcher, mut calls) = started();
    let mut users = watcher.follow("user-svc").unwrap();
    let mut stream = calls.watch().await;
    subscribed(&mut stream).await;
    stream.say(snapshot("user-svc", 5, &[1])).await;
    ports(&mut users).await;
    let delta = wire::Delta { base_revision: 8, presence: 2, ..Default::default() };
    stream.say(message("user-svc", 9, Event::Delta(delta))).await;
    assert_eq!(subscribed(&mut stream).await, [("user-svc".to_owned(), Some(5))]);
    assert_eq!(watcher.status().counters.gaps, 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_holder_that_lets_go_ends_the_subscription_and_the_stream() {
    let (watcher, mut calls) = started();
    let users = watcher.follow("user-svc").unwrap();
    let orders = watcher.follow("order-svc").unwrap();
    let again = watcher.follow("user-svc").unwrap();
    let mut stream = calls.watch().await;
    assert_eq!(subscribed(&mut stream).await.len(), 2);
    drop(users);
    drop(again);
    let request = stream.request().await;
    assert_eq!(request.unsubscribe[0].service, "user-svc");
    drop(orders);
    assert!(stream.is_over().await);
    assert_eq!(watcher.status().state, WatchState::Idle);
    assert!(watcher.shared.services.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn subscriptions_outlive_the_handle_and_the_task_ends_with_the_last() {
    let (watcher, mut calls) = started();
    let mut users = watcher.follow("user-svc").unwrap();
    let shared = Arc::downgrade(&watcher.shared);
    drop(watcher);
    let mut stream = calls.watch().await;
    subscribed(&mut stream).await;
    stream.say(snapshot("user-svc", 5, &[1])).await;
    assert_eq!(ports(&mut users).await, [1]);
    drop(users);
    assert!(stream.is_over().await);
    while shared.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn services_are_bounded() {
    let (watcher, _calls) = started();
    let held: Vec<_> = (0..SERVICES_MAX).map(|n| watcher.follow(&format!("svc-{n}")).unwrap()).collect();
    assert!(watcher.follow("one-more").is_none());
    assert!(watcher.follow("svc-0").is_some());
    assert_eq!(held.len(), SERVICES_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_makes_no_sense_does_not_end_the_stream() {
    let (watcher, mut calls) = started();
    let mut users = watcher.follow("user-svc").unwrap();
    let mut stream = calls.watch().await;
    subscribed(&mut stream).await;
    stream.say(wire::WatchResponse::default()).await;
    stream.say(snapshot("user-svc", 5, &[1])).await;
    assert_eq!(ports(&mut users).await, [1]);
    assert_eq!(watcher.status().counters.malformed, 1);
}

/// Watchers of processes that share a state folder.
struct Kin {
    parent: tempfile::TempDir,
    folder: Arc<StateFolder>,
}

impl Kin {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = Arc::new(StateFolder::open(&parent.path().join("state")).unwrap());
        Self { parent, folder }
    }

    fn started(&self) -> (Watcher, Calls) {
        let (client, calls) = registry();
        (Watcher::spawn(Round::only(client), "default".into(), Some(self.folder.clone()), Entropy::seeded(11)), calls)
    }

    fn written(&self) -> usize {
        std::fs::read_dir(self.parent.path().join("state")).unwrap().count()
    }

    async fn wrote(&self) {
        while !self.folder.file("default", "user-svc").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the file is another one; ten seconds of the test's time are more than a write ever waits.
    async fn rewrote(&self, before: &[u8]) {
        let file = self.folder.file("default", "user-svc");
        for _ in 0..1_000 {
            if std::fs::read(&file).unwrap() != before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the file is as it was");
    }
}

fn standings(resolution: &Resolution) -> Vec<(u16, Standing)> {
    let of = |endpoint: &ResolvedEndpoint| (endpoint.address.tcp().unwrap().port(), endpoint.standing);
    resolution.endpoints.iter().map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn what_one_process_heard_the_next_one_knows_without_the_registry_and_until_it_speaks() {
    let kin = Kin::new();
    let (watcher, mut calls) = kin.started();
    let (mut users, stream) = followed(&watcher, &mut calls).await;
    stream.say(snapshot("user-svc", 5, &[1, 2])).await;
    assert_eq!(ports(&mut users).await, [1, 2]);
    // Long before the write is due.
    drop((users, watcher));
    kin.wrote().await;

    let (watcher, mut calls) = kin.started();
    let mut users = watcher.follow("user-svc").unwrap();
    let mut stream = calls.watch().await;
    assert_eq!(ports(&mut users).await, [1, 2]);
    assert_eq!(standings(&users.borrow()), [(1, Standing::Stale), (2, Standing::Stale)]);
    assert_eq!(subscribed(&mut stream).await, [("user-svc".to_owned(), None)]);
    stream.say(snapshot("user-svc", 6, &[2, 3])).await;
    assert_eq!(ports(&mut users).await, [2, 3]);
    assert_eq!(standings(&users.borrow()), [(2, Standing::Alive), (3, Standing::Alive)]);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_warms_up_writes_nothing() {
    let kin = Kin::new();
    let (watcher, mut calls) = kin.started();
    let (mut users, stream) = followed(&watcher, &mut calls).await;
    stream.say(wire::WatchResponse { complete: false, ..snapshot("user-svc", 5, &[1]) }).await;
    assert_eq!(ports(&mut users).await, [1]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(kin.written(), 0);
    let bookmark = Event::Bookmark(wire::Bookmark::default());
    stream.say(wire::WatchResponse { service: String::new(), ..message("", 5, bookmark) }).await;
    kin.wrote().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_registry_vouches_for_stays_young_and_what_it_does_not_ages() {
    let kin = Kin::new();
    let (watcher, mut calls) = kin.started();
    let (mut users, stream) = followed(&watcher, &mut calls).await;
    stream.say(snapshot("user-svc", 5, &[1])).await;
    ports(&mut users).await;
    kin.wrote().await;
    let file = kin.folder.file("default", "user-svc");
    let first = std::fs::read(&file).unwrap();
    for _ in 0..=(60 * 60 / 5) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stream.say(message("", 5, Event::Bookmark(wire::Bookmark::default()))).await;
    }
    kin.rewrote(&first).await;
    let second = std::fs::read(&file).unwrap();
    drop(stream);
    drop(calls);
    tokio::time::sleep(Duration::from_secs(3 * 60 * 60)).await;
    assert_eq!(std::fs::read(&file).unwrap(), second);
}

/// A process that came later and is gone has left a file with the registry's own position, which the service itself has
/// not moved to in this process's eyes: no change of it came.
#[tokio::test(start_paused = true)]
async fn what_is_kept_current_stays_young_although_a_younger_process_wrote_last() {
    let kin = Kin::new();
    let (older, mut calls) = kin.started();
    let (mut users, stream) = followed(&older, &mut calls).await;
    stream.say(snapshot("user-svc", 5, &[1])).await;
    ports(&mut users).await;
    kin.wrote().await;
    let file = kin.folder.file("default", "user-svc");
    let first = std::fs::read(&file).unwrap();

    let (younger, mut its_calls) = kin.started();
    let (mut its_users, its_stream) = followed(&younger, &mut its_calls).await;
    its_stream.say(snapshot("user-svc", 900, &[1])).await;
    ports(&mut its_users).await;
    kin.rewrote(&first).await;
    let second = std::fs::read(&file).unwrap();
    drop((its_users, younger));

    for _ in 0..=(60 * 60 / 5) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stream.say(message("", 900, Event::Bookmark(wire::Bookmark::default()))).await;
    }
    kin.rewrote(&second).await;
}

#[tokio::test(start_paused = true)]
async fn a_spoilt_file_costs_nothing_but_itself() {
    let kin = Kin::new();
    let file = kin.folder.file("default", "user-svc");
    std::fs::write(&file, "rubbish").unwrap();
    let (watcher, mut calls) = kin.started();
    let (mut users, stream) = followed(&watcher, &mut calls).await;
    stream.say(snapshot("user-svc", 5, &[1])).await;
    assert_eq!(ports(&mut users).await, [1]);
    while kin.written() == 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(std::fs::read(file.with_extension("refused")).unwrap(), b"rubbish");
}

/// A watcher of two registries, in this order, and whose store it goes by.
fn started_with_two() -> (Watcher, [Calls; 2], Arc<Stores>) {
    let ((one, one_calls), (other, other_calls)) = (registry(), registry());
    let stores = Arc::default();
    let round = Round::over(vec![one, other], &stores);
    (Watcher::spawn(round, "default".into(), None, Entropy::seeded(11)), [one_calls, other_calls], stores)
}

/// The same message out of another store.
fn of_store(store: &str, message: wire::WatchResponse) -> wire::WatchResponse {
    let position = message.position.map(|position| wire::Position { store_id: store.into(), ..position });
    wire::WatchResponse { position, ..message }
}

#[tokio::test(start_paused = true)]
async fn the_next_registry_is_asked_at_once_with_the_position_that_was_applied() {
    let (watcher, [mut one, mut other], _) = started_with_two();
    let mut users = watcher.follow("user-svc").unwrap();
    let mut stream = one.watch().await;
    assert_eq!(subscribed(&mut stream).await, [("user-svc".to_owned(), None)]);
    stream.say(snapshot("user-svc", 5, &[1, 2])).await;
    assert_eq!(ports(&mut users).await, [1, 2]);

    let killed = clock::now();
    stream.fail(Status::unavailable("killed")).await;
    let mut stream = other.watch().await;
    assert_eq!(clock::now(), killed);
    assert_eq!(subscribed(&mut stream).await, [("user-svc".to_owned(), Some(5))]);
    let delta = wire::Delta { base_revision: 5, presence: 2, ..Default::default() };
    stream.say(message("user-svc", 6, Event::Delta(delta))).await;
    while watcher.status().streams_opened < 2 {
        tokio::task::yield_now().await;
    }
    assert!(one.is_quiet());
    assert_eq!(standings(&users.borrow()).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_round_in_vain_is_followed_by_a_jittered_wait() {
    let (watcher, [mut one, mut other], _) = started_with_two();
    let _held = watcher.follow("user-svc");
    let mut waits = Vec::new();
    for _ in 0..50 {
        drop(one.watch().await);
        let failed = clock::now();
        drop(other.watch().await);
        assert_eq!(clock::now(), failed, "the other one is asked at once");
        let round = clock::now();
        drop(one.watch().await);
        waits.push(clock::now() - round);
        drop(other.watch().await);
    }
    assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(5_001)));
    assert!(waits.iter().filter(|wait| wait.is_zero()).count() <= 1, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_second_store_is_taken_and_its_registry_is_left() {
    let (watcher, [mut one, mut other], stores) = started_with_two();
    let mut users = watcher.follow("user-svc").unwrap();
    let mut stream = one.watch().await;
    subscribed(&mut stream).await;
    stream.say(snapshot("user-svc", 5, &[1])).await;
    assert_eq!(ports(&mut users).await, [1]);
    stream.fail(Status::unavailable("killed")).await;

    let mut stranger = other.watch().await;
    subscribed(&mut stranger).await;
    stranger.say(of_store("b", snapshot("user-svc", 900, &[2]))).await;
    assert!(stranger.is_over().await);
    assert_eq!(stores.seconds(), 1);
    let mut stream = one.watch().await;
    assert_eq!(subscribed(&mut stream).await, [("user-svc".to_owned(), Some(5))]);
    assert_eq!(standings(&users.borrow()), [(1, Standing::Alive)]);
    let reason = watcher.status().last_error.unwrap();
    assert_eq!(&*reason, "registry-1 answers out of store b, and this process goes by a");
    stream.say(snapshot("user-svc", 6, &[3])).await;
    assert_eq!(ports(&mut users).await[1..], [3], "the first store goes on");
}

#[tokio::test(start_paused = true)]
async fn a_second_store_that_is_all_there_is_replaces_the_first_with_a_complete_snapshot_within_one_round() {
    let (watcher, [mut one, mut other], stores) = started_with_two();
    let mut users = watcher.follow("user-svc").unwrap();
    let mut stream = one.watch().await;
    subscribed(&mut stream).await;
    stream.say(snapshot("user-svc", 5, &[1])).await;
    assert_eq!(ports(&mut users).await, [1]);
    drop((stream, one));
    let gone = clock::now();
    let mut stranger = other.watch().await;
    subscribed(&mut stranger).await;
    stranger.say(of_store("b", snapshot("user-svc", 2, &[2]))).await;
    assert!(stranger.is_over().await, "nobody has looked yet whether the first one is still there");
    assert!(!users.has_changed().unwrap());
    assert_eq!(stores.seconds(), 1);

    let mut stranger = other.watch().await;
    subscribed(&mut stranger).await;
    let asked = clock::now() - gone;
    stranger.say(of_store("b", snapshot("user-svc", 2, &[2]))).await;
    assert_eq!(ports(&mut users).await.len(), 2);
    assert_eq!(standings(&users.borrow()), [(1, Standing::Lapsed), (2, Standing::Alive)]);
    assert!(asked < Duration::from_secs(5), "{asked:?}");
    assert_eq!(stores.seconds(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_only_registry_may_begin_with_another_store() {
    let (watcher, mut calls) = started();
    let (mut users, stream) = followed(&watcher, &mut calls).await;
    stream.say(snapshot("user-svc", 5, &[1])).await;
    assert_eq!(ports(&mut users).await, [1]);
    drop(stream);
    let mut stream = calls.watch().await;
    subscribed(&mut stream).await;
    stream.say(of_store("b", snapshot("user-svc", 1, &[1, 2]))).await;
    assert_eq!(ports(&mut users).await, [1, 2]);
}
