//! The file store under real processes: killed at any moment, out of room, restarted with many instances, and asked for by
//! two. The longer version: `MESH_STORY=full`.

#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use parking_lot::Mutex;
use pb::registry_service_client::RegistryServiceClient;
use process::{LONG, Process, folder, nobody_there, now, until};
use registry::storage::FileStore;
use registry::store::{Summary, verify};
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

type Client = RegistryServiceClient<Channel>;

fn full() -> bool {
    std::env::vars_os().any(|(name, value)| name == "MESH_STORY" && value == "full")
}

fn on(dir: &Path) -> String {
    format!("file:{}", dir.display())
}

/// The store, and room for a test's pace.
fn flags(store: &str) -> [&str; 6] {
    let [all, each] = ["--max-registrations-per-second", "--max-registrations-per-second-per-ip"];
    ["--store", store, all, "1000000", each, "1000000"]
}

async fn connect(registry: &Process) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", registry.grpc)).expect("an address");
    RegistryServiceClient::new(endpoint.timeout(LONG).connect().await.expect("it listens"))
}

/// Instance ids of one test, one for each number.
fn instance_id(number: u64) -> String {
    format!("00000000-0000-7000-8000-{number:012x}")
}

fn registration(service: &str, number: u64, ttl: Duration) -> pb::RegisterRequest {
    let ip = format!("10.{}.{}.{}", number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff);
    let grpc = pb::Endpoint { name: "grpc".to_owned(), protocol: pb::Protocol::Grpc.into(), ip, port: 7410 };
    pb::RegisterRequest {
        service: service.to_owned(),
        instance_id: instance_id(number),
        start_nonce: number.to_be_bytes().repeat(2).into(),
        endpoints: vec![grpc],
        ttl: Some(prost_types::Duration { seconds: ttl.as_secs().cast_signed(), nanos: 0 }),
        ..pb::RegisterRequest::default()
    }
}

/// Everything that a service has, whatever the size of an answer.
async fn resolve(client: &mut Client, service: &str) -> Result<pb::ResolveResponse, Status> {
    let request = pb::ResolveRequest { service: service.to_owned(), ..pb::ResolveRequest::default() };
    client.clone().max_decoding_message_size(64 << 20).resolve(request).await.map(tonic::Response::into_inner)
}

/// Kills of one registry under writes; what was acknowledged, and after each start how far the store was.
async fn kill_many(dir: PathBuf, kills: u32, rate: u64, base: u64) -> (u64, u64) {
    let mut acked = BTreeMap::new();
    let (mut last_revision, mut number, mut unacked) = (0, base, 0);
    for round in 0..=kills {
        let registry = Process::start(None, &flags(&on(&dir)));
        let mut client = connect(&registry).await;
        let found = match resolve(&mut client, "user-svc").await {
            Ok(found) => found,
            Err(status) => {
                assert!(status.code() == Code::NotFound && acked.is_empty(), "{status:?}");
                pb::ResolveResponse::default()
            }
        };
        let revision = found.position.as_ref().map_or(0, |position| position.revision);
        assert!(revision >= last_revision, "round {round}: revision {revision} after {last_revision}");
        let ids: BTreeMap<_, _> =
            found.instances.into_iter().map(|instance| (instance.instance_id, instance.incarnation)).collect();
        for (id, incarnation) in &acked {
            assert_eq!(ids.get(id), Some(incarnation), "round {round}: acknowledged and lost");
        }
        if round == kills {
            break;
        }
        // Some hundred milliseconds of writes, then the kill: at whatever the process is doing at that moment.
        let (mut writes, mut tick) = (JoinSet::new(), tokio::time::interval(Duration::from_micros(1_000_000 / rate)));
        let kill_at = now() + Duration::from_micros(20_000 + u64::from(round) * 7_919 % 150_000);
        while now() < kill_at {
            tick.tick().await;
            number += 1;
            let (mut client, request) = (client.clone(), registration("user-svc", number, Duration::from_secs(300)));
            writes.spawn(async move {
                let id = request.instance_id.clone();
                client.register(request).await.map(|granted| (id, granted.into_inner()))
            });
        }
        registry.kill();
        while let Some(done) = writes.join_next().await {
            match done.expect("no panic") {
                Ok((id, granted)) => {
                    last_revision = last_revision.max(granted.position.expect("a position").revision);
                    acked.insert(id, granted.incarnation);
                }
                Err(_) => unacked += 1,
            }
        }
    }
    (acked.len() as u64, unacked)
}

/// T03. SIGKILL at random instants under 200 writes a second: no acknowledged write is lost, revisions never go back.
#[tokio::test(flavor = "multi_thread")]
async fn registry_kill9_durability() {
    let kills = if full() { 600 } else { 150 };
    let folder = folder("kill9-");
    let began = now();
    // Two registries at a time: a machine waits for a process most of the time.
    let runs = (0..2_u64).map(|lane| kill_many(folder.path().join(lane.to_string()), kills / 2, 200, lane << 32));
    let runs = futures_util::future::join_all(runs.map(tokio::spawn)).await;
    let (acked, unacked) =
        runs.into_iter().map(|run| run.expect("no panic")).fold((0, 0), |(a, u), (b, v)| (a + b, u + v));
    println!("T03: {kills} kills, {acked} acknowledged writes, 0 lost, {unacked} cut off, in {:.1?}", began.elapsed());
    assert!(acked > u64::from(kills), "{acked} writes");
    for lane in 0..2 {
        verify(&folder.path().join(lane.to_string())).expect("sound");
    }
}

/// Registers so many, some at a time; how each was answered.
async fn register_many(
    client: &Client,
    service: &'static str,
    numbers: std::ops::Range<u64>,
    ttl: Duration,
) -> Vec<pb::RegisterResponse> {
    let mut all = Vec::new();
    let numbers: Vec<u64> = numbers.collect();
    for some in numbers.chunks(500) {
        let registering = some.iter().map(|number| {
            let (mut client, request) = (client.clone(), registration(service, *number, ttl));
            async move { client.register(request).await.expect("granted").into_inner() }
        });
        all.extend(futures_util::future::join_all(registering).await);
    }
    all
}

async fn try_beat(client: &mut Client, leases: &[pb::RegisterResponse]) -> Result<BTreeMap<i32, usize>, Status> {
    let mut outcomes = BTreeMap::new();
    for some in leases.chunks(1_000) {
        let beat = |granted: &pb::RegisterResponse| pb::Beat {
            lease_id: granted.lease_id.clone(),
            incarnation: granted.incarnation,
            ..pb::Beat::default()
        };
        let beats = some.iter().map(beat).collect();
        for result in client.heartbeat(pb::HeartbeatRequest { beats }).await?.into_inner().results {
            *outcomes.entry(result.outcome).or_default() += 1;
        }
    }
    Ok(outcomes)
}

async fn beat(client: &mut Client, leases: &[pb::RegisterResponse]) -> BTreeMap<i32, usize> {
    try_beat(client, leases).await.expect("an answer")
}

/// Each as large as a service may be.
const SERVICES: [&str; 10] = ["s-0", "s-1", "s-2", "s-3", "s-4", "s-5", "s-6", "s-7", "s-8", "s-9"];

/// A restart with ten thousand instances: all of them are there, as they were, and at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_ten_thousand_instances() {
    let folder = folder("restart-");
    let dir = folder.path().join("registry");
    let store = on(&dir);
    let flags = flags(&store);
    let registry = Process::start(None, &flags);
    let mut client = connect(&registry).await;
    let mut leases = Vec::new();
    for (service, first) in SERVICES.into_iter().zip((0_u64..).step_by(1_000)) {
        leases.extend(register_many(&client, service, first..first + 1_000, Duration::from_secs(300)).await);
    }
    let position = resolve(&mut client, SERVICES[0]).await.expect("known").position.expect("a position");
    registry.kill();

    let mut took = Vec::new();
    for kill in [true, false] {
        let began = now();
        let registry = Process::start(None, &flags);
        took.push(began.elapsed());
        let mut client = connect(&registry).await;
        for service in SERVICES {
            let found = resolve(&mut client, service).await.expect("known");
            assert_eq!(found.instances.len(), 1_000);
            assert_eq!(found.position.as_ref(), Some(&position), "the same store stands where it stood");
        }
        let renewed = beat(&mut client, &leases).await;
        assert_eq!(renewed, BTreeMap::from([(pb::BeatOutcome::Renewed.into(), 10_000)]), "every lease is good");
        if kill {
            registry.kill();
        }
    }
    println!(
        "restart with 10 000 instances: ready after {:.2?} (killed before), {:.2?} (killed again)",
        took[0], took[1]
    );
}

/// Keeps leases alive as their registrars would, whatever becomes of the registry, and remembers what it was answered.
struct Beater {
    told: Arc<Mutex<BTreeMap<i32, usize>>>,
    task: JoinHandle<()>,
}

impl Beater {
    fn start(at: SocketAddr, leases: Vec<pb::RegisterResponse>, every: Duration) -> Self {
        let told = Arc::new(Mutex::new(BTreeMap::new()));
        let tell = Arc::clone(&told);
        let channel = Endpoint::from_shared(format!("http://{at}")).expect("an address").timeout(LONG).connect_lazy();
        let task = tokio::spawn(async move {
            let mut client = RegistryServiceClient::new(channel);
            loop {
                tokio::time::sleep(every).await;
                if let Ok(outcomes) = try_beat(&mut client, &leases).await {
                    let mut told = tell.lock();
                    outcomes.into_iter().for_each(|(outcome, count)| *told.entry(outcome).or_default() += count);
                }
            }
        });
        Self { told, task }
    }

    /// Every answer was that the lease is renewed.
    fn expect_renewed(&self) {
        let told = self.told.lock();
        let renewed = i32::from(pb::BeatOutcome::Renewed);
        assert!(told.len() == 1 && told.contains_key(&renewed), "no live lease ends: {told:?}");
    }
}

impl Drop for Beater {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The removals that a watcher is told who has seen everything up to here: by a delta, not by a snapshot.
async fn missed(client: &mut Client, after: Option<pb::Position>) -> Vec<String> {
    let subscription = pb::Subscription { service: "user-svc".to_owned(), after, ..pb::Subscription::default() };
    let request = pb::WatchRequest { subscribe: vec![subscription], unsubscribe: Vec::new() };
    let answers = client.watch(futures_util::stream::iter([request])).await.expect("a stream");
    let first = answers.into_inner().message().await.expect("no error").expect("an answer");
    match first.event {
        Some(pb::watch_response::Event::Delta(delta)) => {
            assert!(delta.upserts.is_empty(), "{} did not change", delta.upserts.len());
            delta.removals.into_iter().map(|removal| removal.instance_id).collect()
        }
        other => panic!("not a delta: {other:?}"),
    }
}

/// T07. The registry is killed and away for longer than a lease: who lives keeps its lease, who has died meanwhile goes soon.
#[tokio::test(flavor = "multi_thread")]
async fn restart_keeps_leases() {
    const TTL: Duration = Duration::from_secs(3);
    let (live, dead) = if full() { (900, 45) } else { (400, 20) };
    let folder = folder("leases-");
    let store = on(&folder.path().join("registry"));
    let flags = flags(&store);
    let mut registry = Process::start(Some(nobody_there()), &flags);
    let place = registry.place();
    let living = register_many(&connect(&registry).await, "user-svc", 0..live, TTL).await;
    let beater = Beater::start(registry.grpc, living, TTL / 6);
    let mut next = live;
    for away in [TTL / 2, 3 * TTL] {
        let died: BTreeSet<String> = (next..next + dead).map(instance_id).collect();
        // They are alive as the registry is killed, and beat no more.
        register_many(&connect(&registry).await, "user-svc", next..next + dead, TTL).await;
        next += dead;
        let seen = resolve(&mut connect(&registry).await, "user-svc").await.expect("known").position;
        registry.kill();
        tokio::time::sleep(away).await;

        registry = Process::start(place, &flags);
        let ready = now();
        let mut client = connect(&registry).await;
        let mut gone_after = None;
        while gone_after.is_none() || ready.elapsed() < 2 * TTL {
            let found = resolve(&mut client, "user-svc").await.expect("known");
            let listed: BTreeSet<String> = found.instances.into_iter().map(|instance| instance.instance_id).collect();
            assert!((0..live).all(|number| listed.contains(&instance_id(number))), "nobody who lives goes");
            if gone_after.is_none() && listed.is_disjoint(&died) {
                gone_after = Some(ready.elapsed());
            }
            assert!(ready.elapsed() < LONG, "{} of the dead are still there", listed.intersection(&died).count());
            tokio::time::sleep(TTL / 30).await;
        }
        beater.expect_renewed();
        let gone: BTreeSet<String> = missed(&mut client, seen).await.into_iter().collect();
        assert_eq!(gone, died, "who had seen everything is told what has gone since, and nothing else");
        let gone_after = gone_after.expect("set");
        println!(
            "T07: away {away:.1?}: {live} live leases, 0 expired; {dead} dead ones gone {gone_after:.1?} after ready"
        );
        // A registry that was held up gives every lease a full TTL anew: on a busy machine that is right, and later.
        let held_up = registry.metric("registry_clock_gaps_total") > 0;
        assert!(held_up || gone_after <= TTL + Duration::from_secs(1), "the dead are gone after {gone_after:?}");
    }
}

/// A second process on the same folder is refused before it is ready, and the first one serves on.
#[test]
fn a_second_process_is_refused_with_exit_code_2() {
    let folder = folder("second-");
    let dir = folder.path().join("registry");
    let first = Process::start(None, &["--store", &on(&dir)]);
    let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let refused =
        process::command().args(free).args(["--store", &on(&dir)]).stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8(refused.stderr).expect("text");
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(refused.stdout.is_empty());
    let holder = format!("in use by process {}", first.id());
    assert!(said.contains(&holder) && said.lines().count() == 1, "{said}");

    let place = Some((first.grpc, first.http));
    first.kill();
    Process::start(place, &["--store", &on(&dir)]).kill();

    fs::write(dir.join("registry.redb"), b"something else").expect("written");
    let refused =
        process::command().args(free).args(["--store", &on(&dir)]).stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8(refused.stderr).expect("text");
    assert_eq!((refused.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("cannot be opened: it is damaged"), "{said}");
}

/// A small file system of its own; taken down at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).ok()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(at).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// T05. The disk fills up under writes: those are refused at once, nothing else fails, and nothing that was acknowledged is
/// lost; with room again the store goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn disk_full_and_back() {
    let folder = folder("full-");
    let Some(disk) = Tmpfs::mount(&folder.path().join("disk")) else {
        println!("SKIPPED T05: no tmpfs can be mounted here; store_faults has the same on an injected disk");
        return;
    };
    let dir = disk.0.join("registry");
    let registry = Process::start(None, &flags(&on(&dir)));
    let mut client = connect(&registry).await;
    let mut leases = register_many(&client, "user-svc", 0..200, Duration::from_secs(300)).await;
    let filler = disk.0.join("filler");
    fill(&filler);

    // Larger than what the file has left free.
    let labels = |number: u64| (0..8).map(|key| (format!("{number}-{key}"), "x".repeat(900))).collect();
    let large = |number| pb::RegisterRequest {
        metadata: labels(number),
        ..registration("user-svc", number, Duration::from_secs(300))
    };
    let (mut number, mut refused, mut slowest) = (1_000, 0, Duration::ZERO);
    let began = now();
    while refused < 100 {
        assert!(began.elapsed() < LONG, "{refused} refusals, {} acknowledged", leases.len());
        number += 1;
        let asked = now();
        match client.register(large(number)).await {
            Ok(granted) => leases.push(granted.into_inner()),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                refused += 1;
                slowest = slowest.max(asked.elapsed());
            }
        }
        let renewed = beat(&mut client, &leases[..100]).await;
        assert_eq!(
            renewed,
            BTreeMap::from([(pb::BeatOutcome::Renewed.into(), 100)]),
            "heartbeats do not need the disk"
        );
        assert_eq!(resolve(&mut client, "user-svc").await.expect("readable").instances.len(), leases.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    fs::remove_file(&filler).expect("room again");
    let freed = now();
    loop {
        number += 1;
        match client.register(large(number)).await {
            Ok(granted) => break leases.push(granted.into_inner()),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let back = freed.elapsed();
    println!(
        "T05: tmpfs of 8 MiB: {refused} refused, the slowest in {slowest:.0?}; writes again {back:.1?} after there was room"
    );
    assert!(back <= Duration::from_secs(5), "by itself within 5 s");

    registry.kill();
    let registry = Process::start(None, &["--store", &on(&dir)]);
    let found = resolve(&mut connect(&registry).await, "user-svc").await.expect("known");
    assert_eq!(found.instances.len(), leases.len(), "what was acknowledged, and nothing that was refused");
    registry.kill();
}

/// Takes all the room there is.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).expect("a file");
    for piece in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![1; piece]).is_ok() {}
    }
}

/// A store that an earlier commit's registry wrote and was killed over: `.ci/upgrade` says where that registry is. Without
/// it the present one stands in, so that the story is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_an_earlier_registry_goes_on() {
    let named = std::env::vars_os().find(|(name, _)| name == "MESH_EARLIER_REGISTRY");
    let mut earlier = named.as_ref().map_or_else(process::command, |(_, binary)| Command::new(binary));
    println!("written by {}", named.as_ref().map_or("this registry".into(), |(_, binary)| binary.to_string_lossy()));
    earlier.env_clear();
    let folder = folder("upgrade-");
    let store = on(&folder.path().join("registry"));
    let registry = Process::start_with(earlier, None, &["--store", &store]);
    let mut client = connect(&registry).await;
    let leases = register_many(&client, "user-svc", 0..50, Duration::from_secs(300)).await;
    let before = resolve(&mut client, "user-svc").await.expect("known").position.expect("a position");
    registry.kill();

    let registry = Process::start(None, &["--store", &store]);
    let mut client = connect(&registry).await;
    let found = resolve(&mut client, "user-svc").await.expect("known");
    assert_eq!((found.instances.len(), found.position), (50, Some(before)));
    assert_eq!(beat(&mut client, &leases).await, BTreeMap::from([(pb::BeatOutcome::Renewed.into(), 50)]));
    register_many(&client, "user-svc", 50..51, Duration::from_secs(300)).await;
}

/// Opens the file of the first registry that wrote one.
#[test]
fn a_store_of_an_earlier_registry_opens() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1.redb");
    let folder = folder("upgrade-");
    let dir = folder.path().join("registry");
    fs::create_dir(&dir).expect("a folder");
    fs::copy(&fixture, dir.join("registry.redb")).expect("the fixture");
    let Summary { position, services, instances, removals, rules, .. } = verify(&dir).expect("sound");
    assert_eq!((services, instances, removals, rules), (2, 3, 1, 1));
    let store = FileStore::open(&dir, registry::catalog::StoreId::parse("new").expect("an id")).expect("it opens");
    let loaded = store.try_load().expect("it can be read");
    assert_eq!(loaded.position, position);
    assert_ne!(loaded.position.store.as_str(), "new", "it is still that store");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes tests/fixtures/store-v1.redb; only when the format changes, under a new name"]
async fn write_the_fixture() {
    let folder = folder("fixture-");
    let dir = folder.path().join("registry");
    let registry = Process::start(None, &["--store", &on(&dir)]);
    let mut client = connect(&registry).await;
    let mut leases = register_many(&client, "user-svc", 1..4, Duration::from_secs(300)).await;
    leases.extend(register_many(&client, "order-svc", 4..5, Duration::from_secs(300)).await);
    let lease = pb::Lease { lease_id: leases[0].lease_id.clone(), incarnation: leases[0].incarnation };
    let target = Some(pb::deregister_request::Target::Lease(lease));
    client.deregister(pb::DeregisterRequest { target }).await.expect("gone");
    let rule = pb::SetAdminStateRequest {
        service: "user-svc".to_owned(),
        selector: Some(pb::Selector { by: Some(pb::selector::By::Version("1.0".to_owned())) }),
        state: pb::AdminState::Disabled.into(),
        ..Default::default()
    };
    client.set_admin_state(rule).await.expect("a rule");
    registry.signal(rustix::process::Signal::TERM);
    until("the lock to be free", || verify(&dir).is_ok_and(|summary| summary.taken_at.is_none())).await;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::create_dir_all(&fixtures).expect("a folder");
    fs::copy(dir.join("registry.redb"), fixtures.join("store-v1.redb")).expect("written");
}
