//! Everybody who watches comes back at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mesh_api::registry::v1 as pb;
use parking_lot::Mutex;
use pb::watch_response::Event;
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::transport::Channel;

use crate::crowd::{Client, Crowd};
use crate::process::{Process, now, sum_of, until};

/// Streams, and what they share.
const STREAMS: usize = 2_000;
const CONNECTIONS: usize = 50;
const SERVICES: usize = 20;

/// Instances of each service.
const INSTANCES: usize = 5;

/// What full jitter spreads over at most, as a client's does.
const JITTER_MAX: Duration = Duration::from_secs(5);

/// What became of all streams.
#[derive(Default)]
struct Story {
    /// Streams that are open and were told where the service stands.
    following: AtomicUsize,
    /// Of those after the restart: what their first word was.
    first_words: Mutex<BTreeMap<&'static str, usize>>,
    /// When streams were asked for, on connections that were made.
    attempts: Mutex<Vec<Instant>>,
    restarted: AtomicUsize,
    removals: AtomicUsize,
}

/// T19 `watcher_storm` (P17) at CI size: two thousand streams on fifty connections; the registry is killed and starts again on
/// its file. All resume where they were, and the store is read once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watcher_storm() {
    crate::many_files();
    let folder = crate::process::folder("watcher-storm");
    let store = format!("file:{}", folder.path().display());
    let registry = Process::start(None, &["--store", &store]);
    let (ttl, every) = (Duration::from_secs(30), Duration::from_millis(500));
    let names: &'static [String] = Box::leak((0..SERVICES).map(|number| format!("svc-{number}")).collect());
    let mut crowds = Vec::new();
    for name in names {
        crowds.push(Crowd::enter(registry.grpc, name, INSTANCES, ttl, every).await);
    }
    let story = Arc::<Story>::default();
    let mut watchers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let (story, at) = (story.clone(), registry.grpc);
        // Forty streams on one connection, and four hundred from one address.
        watchers.spawn(connection_of_watchers(story, at, connection, names));
    }
    let following = || story.following.load(Ordering::Relaxed);
    until("everybody to follow", || following() == STREAMS).await;
    let (place, steady_kib) = (registry.place(), registry.rss_kib());
    sleep(Duration::from_secs(1)).await;

    story.restarted.store(1, Ordering::Relaxed);
    registry.kill();
    until("the watchers to notice", || following() == 0).await;
    story.attempts.lock().clear();
    let registry = Process::start(place, &["--store", &store]);
    let ready = now();
    let mut peak_kib = 0;
    until("everybody to follow again", || {
        peak_kib = peak_kib.max(registry.rss_kib());
        following() == STREAMS
    })
    .await;
    let all = ready.elapsed();
    let metrics = registry.metrics();
    let mut attempts = std::mem::take(&mut *story.attempts.lock());
    attempts.sort_unstable();
    let bin = Duration::from_millis(100);
    let within = |begin: &Instant| attempts.iter().filter(|at| (*begin..*begin + bin).contains(at)).count();
    let busiest = attempts.iter().map(within).max().unwrap_or(0);
    let first_words = story.first_words.lock().clone();
    println!(
        "T19: {STREAMS} streams on {CONNECTIONS} connections: all resumed {all:?} after ready, {} streams asked for, at most {busiest} in \
         100 ms; first words {first_words:?}; store loaded anew {} times; RSS {steady_kib} KiB, after the storm at most \
         {peak_kib} KiB",
        attempts.len(),
        sum_of(&metrics, "registry_store_resyncs_total"),
    );
    assert_eq!(sum_of(&metrics, "registry_store_resyncs_total"), 0, "the store is read at the start, and that is all");
    assert_eq!(first_words.get("snapshot"), None, "what a watcher has it is not told again");
    assert_eq!(first_words.values().sum::<usize>(), STREAMS);
    assert_eq!(story.removals.load(Ordering::Relaxed), 0);
    assert_eq!(sum_of(&metrics, "registry_removals_total"), 0);
    assert_eq!(sum_of(&metrics, "registry_instances"), (SERVICES * INSTANCES) as u64);
    watchers.shutdown().await;
    for crowd in crowds {
        crowd.leave().await;
    }
}

/// One connection and its streams; when it breaks, another one after a jittered wait.
async fn connection_of_watchers(story: Arc<Story>, at: SocketAddr, number: usize, names: &'static [String]) {
    let mut positions: BTreeMap<usize, pb::Position> = BTreeMap::new();
    let mut span = Duration::from_millis(200);
    loop {
        if let Ok(client) = try_client_from(at, 2 + (number % 5) as u8).await {
            let mut streams = JoinSet::new();
            for stream in (number..STREAMS).step_by(CONNECTIONS) {
                let (story, client, after) = (story.clone(), client.clone(), positions.remove(&stream));
                let name = &names[stream % names.len()];
                streams.spawn(async move { (stream, follow(&story, client, name, after).await) });
            }
            while let Some(Ok((stream, position))) = streams.join_next().await {
                positions.extend(position.map(|position| (stream, position)));
            }
            span = Duration::from_millis(200);
        }
        let part = mesh_runtime::entropy::rng(mesh_runtime::entropy::seed()).random_range(0.0..1.0);
        sleep(span.mul_f64(part)).await;
        span = (span * 2).min(JITTER_MAX);
    }
}

async fn try_client_from(at: SocketAddr, host: u8) -> Result<Client, tonic::transport::Error> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{at}"))?;
    let channel: Channel =
        endpoint.local_address(Some(std::net::Ipv4Addr::new(127, 0, 0, host).into())).connect().await?;
    Ok(Client::new(channel))
}

/// Follows one service until the stream ends; the position that was told last.
async fn follow(story: &Story, mut client: Client, name: &str, after: Option<pb::Position>) -> Option<pb::Position> {
    story.attempts.lock().push(now());
    let subscription = pb::Subscription { service: name.to_owned(), after: after.clone(), ..Default::default() };
    let request = pb::WatchRequest { subscribe: vec![subscription], unsubscribe: Vec::new() };
    let mut position = after;
    let Ok(responses) = client.watch(tokio_stream::once(request)).await else { return position };
    let mut responses = responses.into_inner();
    let mut told = false;
    while let Ok(Some(news)) = responses.message().await {
        let word = match &news.event {
            Some(Event::Snapshot(chunk)) => {
                story.removals.fetch_add(chunk.removals.len(), Ordering::Relaxed);
                "snapshot"
            }
            Some(Event::Delta(delta)) => {
                story.removals.fetch_add(delta.removals.len(), Ordering::Relaxed);
                "delta"
            }
            Some(Event::SoftState(_)) => "nothing new",
            _ => continue,
        };
        if !told {
            told = true;
            story.following.fetch_add(1, Ordering::Relaxed);
            if story.restarted.load(Ordering::Relaxed) > 0 {
                *story.first_words.lock().entry(word).or_default() += 1;
            }
        }
        position = news.position.or(position);
    }
    if told {
        story.following.fetch_sub(1, Ordering::Relaxed);
    }
    position
}
