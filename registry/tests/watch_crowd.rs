//! Many watchers at once: half of them read nothing and cost what is bounded, and one change reaches all.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use mesh_runtime::clock;
use pb::watch_response::Event;
use registry::catalog::Ttl;
use support::{Client, Door, register, registration, settings};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Streams of one connection; the server takes a hundred.
const STREAMS_PER_CONNECTION: usize = 50;

/// One open stream, with the end of its requests that keeps them open.
type Stream = (Streaming<pb::WatchResponse>, mpsc::Sender<pb::WatchRequest>);

async fn open(client: &mut Client) -> Stream {
    let (requests, inbound) = mpsc::channel(1);
    let subscription = pb::Subscription { service: "user-svc".to_owned(), ..pb::Subscription::default() };
    let request = pb::WatchRequest { subscribe: vec![subscription], unsubscribe: Vec::new() };
    requests.send(request).await.expect("there is room");
    (client.watch(ReceiverStream::new(inbound)).await.expect("open").into_inner(), requests)
}

/// A change of the one instance that outlasts any test.
fn change(version: usize, label_bytes: usize) -> pb::RegisterRequest {
    let ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    let metadata = BTreeMap::from([("label".to_owned(), "x".repeat(label_bytes))]);
    pb::RegisterRequest { ttl, metadata, version: version.to_string(), ..registration(1) }
}

/// Reads a metric without labels.
fn metric(door: &Door, name: &str) -> usize {
    let text = door.metrics();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.split(' ').nth(1).expect("a value").parse::<f64>().expect("a number") as usize
}

/// The version that a message tells of, if it tells of any.
fn version(response: &pb::WatchResponse) -> Option<usize> {
    let instances = match response.event.as_ref()? {
        Event::Snapshot(chunk) => &chunk.instances,
        Event::Delta(delta) => &delta.upserts,
        _ => return None,
    };
    instances.first()?.version.parse().ok()
}

/// P16 with 100 streams that read and 100 that do not; five hundred of each take minutes unoptimised, and show no more:
/// every stream is bounded for itself.
#[tokio::test(start_paused = true)]
async fn slow_watcher_bounded() {
    const EACH: usize = 100;
    const CHANGES: usize = 60;
    const LABEL_BYTES: usize = 8_000;
    // What a stream's window and the buffers below it take before a transport asks for no more, in messages.
    const TAKEN_MAX: usize = (65_535 + 64 * 1024 + 16 * 1024) / LABEL_BYTES + 4;

    let door = Door::open().await;
    let mut client = door.client().await;
    sleep(Duration::from_secs(11)).await;
    register(&mut client, change(0, LABEL_BYTES)).await;

    let (mut stalled, mut readers) = (Vec::new(), Vec::new());
    for number in 0..EACH {
        if number % STREAMS_PER_CONNECTION == 0 {
            // Half of those who do not read have some room, the others none at all.
            client = door.narrow_client(if number == 0 { 0 } else { 65_535 }).await;
        }
        stalled.push(open(&mut client).await);
    }
    for number in 0..EACH {
        if number % STREAMS_PER_CONNECTION == 0 {
            client = door.client().await;
        }
        let (mut responses, requests) = open(&mut client).await;
        readers.push(tokio::spawn(async move {
            let _requests = requests;
            let mut seen = Vec::new();
            while seen.last().is_none_or(|(version, _)| *version < CHANGES) {
                let response = responses.message().await.expect("open").expect("a message");
                seen.extend(version(&response).map(|version| (version, clock::now())));
            }
            (responses, seen)
        }));
    }
    let mut writer = door.client().await;
    sleep(Duration::from_secs(1)).await;
    let mut made = Vec::new();
    for version in 1..=CHANGES {
        made.push(clock::now());
        register(&mut writer, change(version, LABEL_BYTES)).await;
        sleep(Duration::from_millis(200)).await;
    }

    let mut streams = Vec::new();
    for reader in readers {
        let (responses, seen) = timeout(Duration::from_secs(5), reader).await.expect("it reads on").expect("no panic");
        let versions: Vec<usize> = seen.iter().map(|(version, _)| *version).collect();
        assert_eq!(versions, (0..=CHANGES).collect::<Vec<_>>(), "who reads gets every change");
        for (version, at) in seen.iter().skip(1) {
            let late = *at - made[*version - 1];
            assert!(late <= Duration::from_millis(25), "{version} came after {late:?}");
        }
        streams.push(responses);
    }
    let sent = metric(&door, "registry_watch_messages_total");
    // A snapshot, a soft state, and a bookmark every four seconds.
    let to_readers = EACH * (CHANGES + 2 + 10);
    assert!(sent <= to_readers + EACH * TAKEN_MAX, "who does not read is sent little: {sent} in all");

    // Each of them is cut, 30 s after it took something last, and what it held is free.
    sleep(Duration::from_secs(40)).await;
    assert_eq!(metric(&door, "registry_watch_cuts_total"), EACH);
    assert_eq!(metric(&door, "registry_watch_streams"), EACH);
    assert_eq!(metric(&door, "registry_watch_subscriptions"), EACH);
    println!("{sent} messages to {EACH} readers and {EACH} that read nothing, all of which were cut");
}

/// A registry that is whole after two seconds: time is real here.
async fn brisk() -> Door {
    let mut settings = settings();
    settings.engine.default_ttl = Ttl::new(Duration::from_secs(2)).expect("the shortest there is");
    Door::open_with(settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_fanout_latency() {
    const STREAMS: usize = 2_000;
    const CHANGES: usize = 4;

    let door = brisk().await;
    let mut writer = door.client().await;
    register(&mut writer, change(0, 0)).await;
    sleep(Duration::from_secs(3)).await;
    let (told, mut tellings) = mpsc::channel::<(usize, Instant)>(STREAMS * 2);
    let mut client = door.client().await;
    let mut readers = Vec::new();
    for number in 0..STREAMS {
        if number % STREAMS_PER_CONNECTION == 0 {
            let host = u8::try_from(number / STREAMS_PER_CONNECTION + 1).expect("few connections");
            client = door.client_from(Some(([10, 0, 0, host], 40_000).into())).await;
        }
        let (mut responses, requests) = open(&mut client).await;
        let told = told.clone();
        readers.push(tokio::spawn(async move {
            let _requests = requests;
            while let Ok(Some(response)) = responses.message().await {
                if let Some(version) = version(&response)
                    && told.send((version, clock::now())).await.is_err()
                {
                    return;
                }
            }
        }));
    }
    // Everybody has the beginning.
    for _ in 0..STREAMS {
        assert_eq!(tellings.recv().await.expect("open").0, 0);
    }
    let mut late = Vec::new();
    for version in 1..=CHANGES {
        sleep(Duration::from_millis(100)).await;
        let made = clock::now();
        register(&mut writer, change(version, 0)).await;
        for _ in 0..STREAMS {
            let telling = timeout(Duration::from_secs(20), tellings.recv()).await;
            let (told, at) = telling.expect("everybody is told").expect("open");
            assert_eq!(told, version, "once each");
            late.push(at - made);
        }
    }
    sleep(Duration::from_millis(200)).await;
    assert!(tellings.try_recv().is_err(), "once each");
    late.sort();
    println!(
        "one change to the last of {STREAMS} streams: p50 {:?}, p99 {:?}, most {:?}",
        late[late.len() / 2],
        late[late.len() * 99 / 100],
        late[late.len() - 1]
    );
    readers.iter().for_each(tokio::task::JoinHandle::abort);
}
