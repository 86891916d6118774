//! Whether what clients were answered can have happened one after the other.

mod checker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use checker::{Done, Op, Outcome, linearizable};
use mesh_api::registry::v1 as pb;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::crowd::{Client, client_from};
use crate::process::{Process, now};

/// Clients, each with one operation under way.
const CLIENTS: u64 = 8;

/// Operations at CI size, and in the full form.
const OPERATIONS: usize = 2_000;
const OPERATIONS_FULL: usize = 16_000;

/// Operations between two kills.
const KILL_EVERY: usize = 250;

/// Operations on one name before the next one: what a kill left unknown is carried by few.
const OPERATIONS_OF_NAME: usize = 60;

/// Instances that the clients fight over in each service.
const INSTANCES: u8 = 3;

/// Names at a time.
const NAMES: usize = 2;

/// Longest wait for one answer; after it, nobody knows.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// T21 `registry_linearizable`: eight clients register, remove and resolve the same instances while the registry is killed
/// again and again on its file. Every service's history must be one that an order explains.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registry_linearizable() {
    let seed = std::env::var_os("MESH_SIM_SEED").and_then(|seed| seed.to_str()?.parse().ok());
    let seed: u64 = seed.unwrap_or_else(mesh_runtime::entropy::seed);
    let full = std::env::var_os("MESH_STORY").is_some_and(|story| story == "full");
    let operations = if full { OPERATIONS_FULL } else { OPERATIONS };
    println!("T21: seed {seed}");
    let folder = crate::process::folder("linearizable");
    let store = format!("file:{}", folder.path().display());
    let flags = ["--store", &store, "--default-ttl", "5m"];
    let mut registry = Process::start(None, &flags);
    let place = registry.place();

    let begun = Arc::new(AtomicUsize::new(0));
    let book: Arc<Mutex<BTreeMap<usize, Vec<Done>>>> = Arc::default();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (begun, book, at) = (begun.clone(), book.clone(), registry.grpc);
        clients.spawn(client(at, StdRng::seed_from_u64(seed ^ number), begun, book, operations));
    }
    let mut kills = 0;
    while begun.load(Ordering::Relaxed) < operations {
        if begun.load(Ordering::Relaxed) >= (kills + 1) * KILL_EVERY {
            registry.kill();
            registry = Process::start(place, &flags);
            kills += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        // They end when all is begun; earlier, one has panicked.
        if let Some(ended) = clients.try_join_next() {
            ended.expect("a client does not panic");
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client does not panic");
    }
    let book = std::mem::take(&mut *book.lock());
    let all: usize = book.values().map(Vec::len).sum();
    let unknown = book.values().flatten().filter(|done| done.outcome == Outcome::Unknown).count();
    let checked = now();
    let mut steps = 0;
    for (name, history) in &book {
        match linearizable(history) {
            Ok(taken) => steps += taken,
            Err(stuck) => panic!("svc-{name} is no history of one registry (seed {seed}): {stuck}\n{history:#?}"),
        }
    }
    println!(
        "T21: {all} operations of {CLIENTS} clients on {} services, {kills} kills, {unknown} of unknown outcome: linearizable, \
         in {steps} steps and {:?}",
        book.len(),
        checked.elapsed(),
    );
    assert!(kills * KILL_EVERY + 2 * KILL_EVERY >= operations, "{kills} kills");
    let reads = book.values().flatten().filter(|done| matches!(&done.outcome, Outcome::Read(held) if !held.is_empty()));
    assert!(reads.count() * 10 >= all, "hardly anybody ever saw an instance");
}

/// One client: one operation after the other, and what became of it.
async fn client(
    at: SocketAddr,
    mut rng: StdRng,
    begun: Arc<AtomicUsize>,
    book: Arc<Mutex<BTreeMap<usize, Vec<Done>>>>,
    operations: usize,
) {
    let mut registry = client_from(at, 2).await;
    loop {
        let number = begun.fetch_add(1, Ordering::Relaxed);
        if number >= operations {
            return;
        }
        let name = number / (NAMES * OPERATIONS_OF_NAME) * NAMES + rng.random_range(0..NAMES);
        let instance = rng.random_range(0..INSTANCES);
        let op = match rng.random_range(0..10) {
            0..4 => Op::Register(instance, number as u64),
            4..6 => Op::Remove(instance),
            _ => Op::Resolve,
        };
        let call_at = now();
        let outcome = match tokio::time::timeout(ANSWER_MAX, perform(&mut registry, name, op, &mut rng)).await {
            Ok(Some(outcome)) => outcome,
            // Lost on the way there or back: a read has changed nothing, and nobody knows of a write.
            Ok(None) | Err(_) => Outcome::Unknown,
        };
        let answered_at = now();
        if outcome == Outcome::Unknown {
            registry = again(at).await;
            if op == Op::Resolve {
                continue;
            }
        }
        book.lock().entry(name).or_default().push(Done { op, call_at, answered_at, outcome });
    }
}

/// A connection to the registry, once it is back.
async fn again(at: SocketAddr) -> Client {
    loop {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{at}")).expect("an address is a URL");
        if let Ok(channel) = endpoint.connect().await {
            return Client::new(channel);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn id_of(name: usize, instance: u8) -> String {
    uuid::Uuid::from_u128((name as u128 + 1) << 16 | u128::from(instance)).to_string()
}

/// One operation; nothing where nobody knows what became of it.
async fn perform(registry: &mut Client, name: usize, op: Op, rng: &mut StdRng) -> Option<Outcome> {
    let service = format!("svc-{name}");
    match op {
        Op::Register(instance, version) => {
            let request = pb::RegisterRequest {
                service,
                instance_id: id_of(name, instance),
                // A start of its own each time, which takes the id over.
                start_nonce: rng.random::<[u8; 16]>().to_vec().into(),
                endpoints: vec![pb::Endpoint {
                    name: "grpc".to_owned(),
                    protocol: pb::Protocol::Grpc.into(),
                    ip: "127.0.0.1".to_owned(),
                    port: 7410,
                }],
                version: version.to_string(),
                ..pb::RegisterRequest::default()
            };
            outcome(registry.register(request).await, |_| Outcome::Done)
        }
        Op::Remove(instance) => {
            let name = pb::InstanceName { service, instance_id: id_of(name, instance), ..pb::InstanceName::default() };
            let target = Some(pb::deregister_request::Target::Instance(name));
            outcome(registry.deregister(pb::DeregisterRequest { target }).await, |_| Outcome::Done)
        }
        Op::Resolve => {
            let request = pb::ResolveRequest { service, ..pb::ResolveRequest::default() };
            outcome(registry.resolve(request).await, |answer| {
                let held = answer.instances.into_iter().map(|instance| {
                    let id = uuid::Uuid::parse_str(&instance.instance_id).expect("an id").as_u128();
                    ((id & 0xff) as u8, instance.version.parse().expect("a number was registered"))
                });
                Outcome::Read(held.collect())
            })
        }
    }
}

fn outcome<T>(answer: Result<tonic::Response<T>, Status>, of: impl FnOnce(T) -> Outcome) -> Option<Outcome> {
    match answer {
        Ok(answer) => Some(of(answer.into_inner())),
        Err(status) if status.code() == Code::NotFound => Some(Outcome::Absent),
        Err(status) => {
            let lost = matches!(
                status.code(),
                Code::Unavailable
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Internal
                    | Code::Aborted
            );
            assert!(lost, "refused: {status:?}");
            None
        }
    }
}
