//! Registries as programs on one etcd of three: one truth, kept over restarts, and etcd sees changes and nothing else.

#[path = "support/etcd.rs"]
mod etcd;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mesh_api::etcd::etcdserverpb::RangeRequest;
use mesh_api::etcd::etcdserverpb::kv_client::KvClient;
use mesh_api::registry::v1 as pb;
use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_client::{Mesh, MeshChannel};
use mesh_runtime::clock::now;
use tokio::time::{sleep, timeout};

use etcd::Etcd;

/// How long anything may take that takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A registry process; ends with the test.
struct Node {
    process: Child,
    grpc: String,
}

impl Node {
    fn start(etcd: &Etcd) -> Self {
        let flags = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--drain-timeout", "1s"];
        let mut process = Command::new(env!("CARGO_BIN_EXE_registry"))
            .env_clear()
            .args(flags)
            .args(["--store", &etcd.store(), "--log-format", "human"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut ready = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
        let grpc = ready.split_whitespace().find_map(|word| word.strip_prefix("grpc=")).expect(&ready).to_owned();
        Self { process, grpc }
    }

    fn client(&self) -> RegistryServiceClient<MeshChannel> {
        Mesh::new([&self.grpc]).expect("a mesh").registry()
    }

    /// As an operator ends it.
    fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.process.wait().expect("it ends").code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn registration(number: u8) -> pb::RegisterRequest {
    let protocol = pb::Protocol::Grpc.into();
    pb::RegisterRequest {
        service: "user-svc".to_owned(),
        instance_id: format!("00000000-0000-7000-8000-0000000000{number:02x}"),
        start_nonce: vec![number; 16].into(),
        endpoints: vec![pb::Endpoint { name: "grpc".to_owned(), protocol, ip: "10.0.0.1".to_owned(), port: 7_410 }],
        ..pb::RegisterRequest::default()
    }
}

fn beat(granted: &pb::RegisterResponse) -> pb::HeartbeatRequest {
    let beat = pb::Beat { lease_id: granted.lease_id.clone(), incarnation: granted.incarnation, ..pb::Beat::default() };
    pb::HeartbeatRequest { beats: vec![beat] }
}

/// Asks a node until it knows so many instances.
async fn knows(node: &Node, instances: usize) -> pb::ResolveResponse {
    let mut client = node.client();
    let asking = async {
        loop {
            let request = pb::ResolveRequest { service: "user-svc".to_owned(), ..pb::ResolveRequest::default() };
            match client.resolve(request).await {
                Ok(answer) if answer.get_ref().instances.len() == instances => return answer.into_inner(),
                Ok(_) | Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("it is told")
}

/// The newest revision of etcd.
async fn revision(etcd: &Etcd) -> i64 {
    let hosts: Vec<String> = etcd.urls().split(',').map(|url| url.trim_start_matches("http://").to_owned()).collect();
    let mesh = Mesh::builder().host_service("etcd", hosts).build().expect("a mesh");
    let request = RangeRequest { key: "x".into(), ..RangeRequest::default() };
    let answer = KvClient::new(mesh.channel("etcd")).range(request).await.expect("it can be read");
    answer.into_inner().header.expect("a header").revision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registries_on_one_etcd_are_one_registry() {
    let Some(etcd) = Etcd::start("etcd_registries", 3) else { return };
    let begin = now();
    let (mut one, two, three) = (Node::start(&etcd), Node::start(&etcd), Node::start(&etcd));
    println!("three registries are ready after {:.1?}", now() - begin);

    let granted: Vec<pb::RegisterResponse> = {
        let mut granted = Vec::new();
        for number in 1..=20 {
            granted.push(one.client().register(registration(number)).await.expect("registered").into_inner());
        }
        granted
    };
    let begin = now();
    for node in [&one, &two, &three] {
        let answer = knows(node, 20).await;
        assert!(answer.complete && !answer.stale);
        let (here, there) = (answer.position.expect("a position"), granted[19].position.clone().expect("a position"));
        assert_eq!((here.store_id, here.revision), (there.store_id, there.revision));
    }
    println!("known everywhere after {:.1?}", now() - begin);

    // Beats at the node that keeps the lease, and at another one, change nothing that is stored.
    let before = revision(&etcd).await;
    for node in [&one, &two] {
        for granted in &granted {
            let answer = node.client().heartbeat(beat(granted)).await.expect("heard").into_inner();
            assert_eq!(answer.results[0].outcome(), pb::BeatOutcome::Renewed, "{answer:?}");
        }
    }
    let changes = revision(&etcd).await - before;
    println!("40 beats at two nodes: {changes} changes in etcd");
    assert!(changes <= 20, "a node takes an instance over once at most");

    // One says goodbye; who beat there goes on elsewhere and is the same.
    assert_eq!(one.terminate(), Some(0));
    let mut elsewhere = two.client();
    for granted in &granted {
        let answer = elsewhere.heartbeat(beat(granted)).await.expect("heard").into_inner();
        assert_eq!(answer.results[0].outcome(), pb::BeatOutcome::Renewed, "{answer:?}");
    }
    elsewhere.deregister(deregistration(&granted[0])).await.expect("it says goodbye");
    let left = knows(&three, 19).await;

    // All of them end, and what was known is known to the next one.
    drop((one, two, three));
    let begin = now();
    let four = Node::start(&etcd);
    println!("a registry that finds 19 instances is ready after {:.1?}", now() - begin);
    let found = knows(&four, 19).await;
    let (was, is) = (left.position.expect("a position"), found.position.expect("a position"));
    assert_eq!(is.store_id, was.store_id);
    assert!((is.generation, is.revision) >= (was.generation, was.revision), "{is:?} is before {was:?}");
    let again = four.client().heartbeat(beat(&granted[1])).await.expect("heard").into_inner();
    assert_eq!(again.results[0].outcome(), pb::BeatOutcome::Renewed, "{again:?}");
}

fn deregistration(granted: &pb::RegisterResponse) -> pb::DeregisterRequest {
    let lease = pb::Lease { lease_id: granted.lease_id.clone(), incarnation: granted.incarnation };
    pb::DeregisterRequest { target: Some(pb::deregister_request::Target::Lease(lease)) }
}
