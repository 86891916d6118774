//! Bad input gets a clear answer, and loses nothing.

mod harness;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use harness::{Ran, Story, folder, nobody_there, run, run_with_input};
use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::{
    Beat, BeatOutcome, DeleteServiceRequest, Endpoint, HeartbeatRequest, Protocol, RegisterRequest, ResolveRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

/// A mistake is told in one line on stderr that names it, with nothing on stdout, and exit code 2.
fn refused(ran: &Ran, naming: &str) {
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
    assert!(ran.stderr.contains(naming), "{naming:?} is not named: {ran:?}");
    assert!(!ran.stderr.contains("panicked"), "{ran:?}");
}

#[tokio::test]
async fn a_taken_port_is_refused_before_anything_is_written() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let folder = folder();
    let database = folder.path().join("user.db");
    let flag = format!("sqlite:{}", database.display());

    let ran = run(["serve", "user-svc", "--listen", &at, "--admin-listen", "127.0.0.1:0", "--database", &flag]).await;
    refused(&ran, &at);
    assert_eq!(ran.stderr.trim().lines().count(), 1, "one line: {}", ran.stderr);
    assert!(!database.exists(), "no database was made");

    let ran = run(["serve", "registry", "--listen", "127.0.0.1:0", "--admin-listen", &at]).await;
    refused(&ran, &at);
}

#[tokio::test]
async fn a_corrupt_database_is_refused_and_left_as_it_is() {
    let folder = folder();
    let database = folder.path().join("user.db");
    let garbage = b"this was a database once, and somebody may still want to save it".repeat(100);
    std::fs::write(&database, &garbage).unwrap();
    let flag = format!("sqlite:{}", database.display());

    let ran =
        run(["serve", "user-svc", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--database", &flag])
            .await;
    refused(&ran, "user.db");
    assert_eq!(std::fs::read(&database).unwrap(), garbage);
}

#[tokio::test]
async fn bad_flags_of_servers_are_named() {
    refused(&run(["serve", "user-svc", "--weight", "0"]).await, "--weight");
    refused(&run(["serve", "user-svc", "--registry", "https://127.0.0.1:7400"]).await, "--registry");
    refused(&run(["serve", "user-svc", "--instance-id", "seven"]).await, "--instance-id");
    refused(&run(["serve", "user-svc", "--database", "mongodb://x"]).await, "--database");
    refused(&run(["serve", "registry", "--default-ttl", "1s"]).await, "--default-ttl");
    refused(&run(["serve", "registry", "--store", "disk:somewhere"]).await, "--store");
    refused(&run(["serve", "registry", "--listen", "0.0.0.0:0"]).await, "--insecure-plaintext");
    refused(&run(["serve", "order-svc", "--no-such-flag"]).await, "--no-such-flag");
    refused(&run(["serve", "mail-svc"]).await, "mail-svc");
    refused(&run(["-o", "json", "serve", "registry"]).await, "after its name");
}

#[tokio::test]
async fn bad_commands_are_named() {
    refused(&run(["--registry", "https://127.0.0.1:7400", "services"]).await, "https");
    refused(&run(["--timeout", "soon", "services"]).await, "--timeout");
    refused(&run(["completions", "klingon"]).await, "klingon");
    refused(&run(["instances"]).await, "SERVICE");
    refused(&run(["demo", "--rate", "1"]).await, "--rate");
    refused(&run([]).await, "Usage");
}

/// Whoever else has the default port, or this test itself: it is taken.
#[tokio::test]
async fn a_mesh_does_not_come_up_beside_another_one() {
    let _taken = TcpListener::bind("127.0.0.1:7400");
    let folder = folder();
    let ran = run(["up", "--data-dir", &folder.path().display().to_string()]).await;
    refused(&ran, "127.0.0.1:7400");
    assert_eq!(ran.stderr.trim().lines().count(), 1, "one line: {}", ran.stderr);
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named_with_what_to_do() {
    let nobody = nobody_there().to_string();
    for command in [vec!["services"], vec!["instances", "user-svc"], vec!["watch", "user-svc"], vec!["drain", "abc"]] {
        let mut child = harness::command();
        let output = child.args(["--registry", &nobody]).args(&command).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains(&nobody) && said.contains("connection refused") && said.contains("meshctl up"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_made_says_why() {
    let story = Story::begin(1, 1).await;
    let registry = story.mesh.registry_url().to_string();
    let at = registry.as_str();

    let ran = run(["--registry", at, "instances", "mail-svc"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("mail-svc") && ran.stderr.contains("user-svc"), "it says what there is: {ran:?}");

    refused(&run(["--registry", at, "call", "user-svc", "GetUsr", "{}"]).await, "GetUser");
    refused(&run(["--registry", at, "call", "user-svc", "mail.v1.Mail/Send"]).await, "shop.user.v1.UserService");
    refused(&run(["--registry", at, "call", "user-svc", "GetUser", r#"{"name":"ada"}"#]).await, "userId");
    refused(&run_with_input(["--registry", at, "call", "user-svc", "GetUser", "-"], "{").await, "GetUserRequest");
    refused(&run(["--registry", at, "call", "user-svc", "grpc.health.v1.Health/Watch"]).await, "stream");
    refused(&run(["--registry", at, "drain", "not-an-id"]).await, "not-an-id");

    let ran = run(["--registry", at, "drain", "00000000"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let ran = story.run(["call", "user-svc", "GetUser", r#"{"userId":"ada"}"#]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.starts_with("error: INVALID_ARGUMENT: "), "{ran:?}");
    assert!(ran.stderr.contains("user_id: "), "the details are shown: {ran:?}");
}

fn a_registration(service: &str) -> RegisterRequest {
    RegisterRequest {
        service: service.to_owned(),
        instance_id: Uuid::from_u128(7).to_string(),
        start_nonce: vec![1; 16].into(),
        endpoints: vec![Endpoint {
            name: "grpc".to_owned(),
            protocol: Protocol::Grpc.into(),
            ip: "127.0.0.1".to_owned(),
            port: 9,
        }],
        weight: 100,
        ..Default::default()
    }
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("every error has a reason");
    assert_eq!(info.domain, "meshwork");
    info.reason
}

async fn instances(stubs: &mut RegistryServiceClient<Channel>, service: &str) -> usize {
    let ask = ResolveRequest { service: service.to_owned(), ..Default::default() };
    stubs.resolve(ask).await.expect("it is known").into_inner().instances.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_refuses_changes_nothing() {
    let story = Story::begin(1, 1).await;
    let mut stubs = RegistryServiceClient::connect(format!("http://{}", story.mesh.registry_url())).await.unwrap();

    let address = |ip: &str, port| {
        let mut bad = a_registration("bad-svc");
        (bad.endpoints[0].ip, bad.endpoints[0].port) = (ip.to_owned(), port);
        bad
    };
    let ttl = |seconds| RegisterRequest {
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..a_registration("bad-svc")
    };
    let metadata = |keys: usize, bytes: usize| RegisterRequest {
        metadata: (0..keys).map(|key| (key.to_string(), "x".repeat(bytes))).collect::<BTreeMap<_, _>>(),
        ..a_registration("bad-svc")
    };
    let faulty = [
        ("a TTL below 2 s", ttl(1)),
        ("a TTL above 5 min", ttl(301)),
        ("a host name", address("localhost", 9)),
        ("no address", address("", 9)),
        ("no port", address("127.0.0.1", 0)),
        ("a port that is none", address("127.0.0.1", 65_536)),
        ("33 labels", metadata(33, 1)),
        ("labels of more than 8 KiB", metadata(9, 1000)),
        ("a name with capitals", a_registration("Bad_Svc")),
        ("an id that is none", RegisterRequest { instance_id: "seven".to_owned(), ..a_registration("bad-svc") }),
        ("half a nonce", RegisterRequest { start_nonce: vec![1; 8].into(), ..a_registration("bad-svc") }),
        ("nowhere to call", RegisterRequest { endpoints: vec![], ..a_registration("bad-svc") }),
    ];
    for (what, request) in faulty {
        let status = stubs.register(request).await.expect_err(what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        println!("{what}: {} {}", reason(&status), status.message());
    }
    let unknown = stubs.resolve(ResolveRequest { service: "bad-svc".to_owned(), ..Default::default() }).await;
    assert_eq!(unknown.expect_err("nothing of it was taken").code(), Code::NotFound);

    let refused =
        stubs.delete_service(DeleteServiceRequest { service: "user-svc".to_owned(), ..Default::default() }).await;
    assert_eq!(refused.expect_err("it has instances").code(), Code::FailedPrecondition);
    assert_eq!(instances(&mut stubs, "user-svc").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_on_an_id_fences_the_first() {
    let story = Story::begin(1, 1).await;
    let mut stubs = RegistryServiceClient::connect(format!("http://{}", story.mesh.registry_url())).await.unwrap();

    let first = stubs.register(a_registration("twin-svc")).await.expect("it is valid").into_inner();
    let newer = RegisterRequest { start_nonce: vec![2; 16].into(), ..a_registration("twin-svc") };
    let second = stubs.register(newer).await.expect("the newer start wins").into_inner();
    assert!(second.incarnation > first.incarnation);

    let beat =
        |lease_id, incarnation| HeartbeatRequest { beats: vec![Beat { lease_id, incarnation, ..Default::default() }] };
    let answer =
        stubs.heartbeat(beat(first.lease_id, first.incarnation)).await.expect("the call itself is OK").into_inner();
    assert_eq!(answer.results[0].outcome(), BeatOutcome::Fenced);
    let held = RegisterRequest { held_incarnation: first.incarnation, ..a_registration("twin-svc") };
    let status = stubs.register(held).await.expect_err("the older start is fenced");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "FENCED"));

    let answer =
        stubs.heartbeat(beat(second.lease_id, second.incarnation)).await.expect("the call itself is OK").into_inner();
    assert_eq!(answer.results[0].outcome(), BeatOutcome::Renewed, "the newer start lost nothing");
    assert_eq!(instances(&mut stubs, "twin-svc").await, 1);
}

/// A second process on the same id is the same case as seen from outside: the first gives way and takes another id.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_with_one_id_end_up_with_two() {
    let mut story = Story::begin(1, 1).await;
    let id = story.users[0].id.to_string();
    let database = format!("sqlite:{}", story.folder.path().join("user.db").display());
    let registry = story.mesh.registry_url().to_string();
    let _second = harness::command()
        .args(["serve", "user-svc", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--instance-id", &id, "--registry", &registry, "--database", &database])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let both = |view: &meshctl::ServiceView| view.lists(&id) && view.instances().len() == 2;
    story.user_news.until("both of them", Duration::from_secs(30), both).await.expect("the first takes a new id");
}
