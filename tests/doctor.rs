//! `meshctl events` and `meshctl doctor`: what happened, and what is wrong.

mod harness;

use std::process::Stdio;
use std::time::Duration;

use harness::{LONG, Ran, Story, nobody_there, run};
use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::{Endpoint, Protocol, RegisterRequest};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

fn json_lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// The findings of a doctor that found something, by their check.
fn findings(ran: &Ran) -> Vec<(String, String, String)> {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let text = |finding: &Value, key: &str| finding[key].as_str().expect("a text").to_owned();
    let lines = json_lines(ran);
    let findings = lines.iter().map(|line| &line["finding"]).filter(|finding| finding.is_object());
    findings
        .map(|finding| {
            assert!(!text(finding, "do").is_empty(), "each says what to do: {finding}");
            (text(finding, "check"), text(finding, "where"), text(finding, "what"))
        })
        .collect()
}

fn a_registration(service: &str, number: u8, ip: &str, port: u16) -> RegisterRequest {
    let endpoint =
        Endpoint { name: "grpc".into(), protocol: Protocol::Grpc.into(), ip: ip.to_owned(), port: port.into() };
    RegisterRequest {
        service: service.to_owned(),
        instance_id: format!("0190a7b2-0000-7000-8000-0000000000{number:02x}"),
        start_nonce: vec![number; 16].into(),
        endpoints: vec![endpoint],
        ttl: Some(prost_types::Duration { seconds: 120, nanos: 0 }),
        ..RegisterRequest::default()
    }
}

/// A mesh whose registry has heard of everybody.
async fn calm(users: usize, orders: usize) -> Story {
    let mut story = Story::begin(users, orders).await;
    story.user_news.until("the state to be whole", LONG, meshctl::ServiceView::complete).await.expect("after a TTL");
    story
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_that_is_well_has_no_findings() {
    let story = calm(2, 1).await;
    let at = story.mesh.registry_url().to_string();
    let ran = run(["--registry", &at, "doctor"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    println!("{}", ran.stdout);
    let mut lines = ran.stdout.lines();
    let first = lines.next().expect("a registry is told");
    assert!(first.starts_with(&format!("registry {at}: version ")) && first.contains(", store "), "{first}");
    assert!(first.ends_with(" 2 services, 3 instances"), "{first}");
    assert_eq!(lines.next(), Some("nothing is wrong; looked at: 1 registry, 2 services, 3 instances, 3 addresses"));
    assert_eq!(ran.stderr, "");

    let ran = run(["--registry", &at, "-o", "json", "doctor"]).await;
    let lines = json_lines(&ran);
    assert_eq!(lines[0]["registry"]["complete"], true);
    let ahead = lines[0]["registry"]["clockAheadSeconds"].as_f64().expect("its clock is told");
    assert!(ahead.abs() < 2.0, "it is the same clock: {ahead}");
    assert_eq!(lines[1]["summary"]["findings"], 0);
    assert_eq!(lines.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_found_and_told_with_what_to_do() {
    let story = calm(1, 1).await;
    let at = story.mesh.registry_url().to_string();
    let mut stubs = RegistryServiceClient::connect(format!("http://{at}")).await.expect("it is there");
    let dead = nobody_there();
    let (user, registry) = (story.users[0].process.grpc(), story.mesh.registry_url().to_string());
    let stranger: std::net::SocketAddr = registry.parse().expect("an address");
    for (number, service, to) in [(1, "gone-svc", dead), (2, "odd-svc", stranger), (3, "user-svc", user)] {
        let asked = a_registration(service, number, &to.ip().to_string(), to.port());
        stubs.register(asked).await.expect("it is valid");
    }
    let ran = run(["--registry", &at, "-o", "json", "doctor"]).await;
    let mut found = findings(&ran);
    found.retain(|(check, ..)| check != "suspect");
    let checks: Vec<&str> = found.iter().map(|(check, ..)| check.as_str()).collect();
    assert_eq!(checks, ["no_answer", "wrong_service", "shared_address"], "{ran:?}");
    assert_eq!(found[0].1, format!("gone-svc 0190a7b2-0000-7000-8000-000000000001 at {dead}"));
    assert_eq!(found[0].2, "nobody answers: connection refused");
    assert_eq!(found[1].2, "the process that answers is not odd-svc");
    assert!(found[2].1 == user.to_string() && found[2].2.starts_with("2 instances advertise it"), "{found:?}");

    let ran = run(["--registry", &at, "doctor"]).await;
    assert_eq!(ran.code, Some(1));
    println!("{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stdout.lines().any(|line| line.starts_with("error ") && line.contains("connection refused")),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_store_and_a_registry_that_is_down_are_found() {
    let (one, other) = (Story::begin(1, 1).await, Story::begin(1, 1).await);
    let (one_at, other_at) = (one.mesh.registry_url().to_string(), other.mesh.registry_url().to_string());
    let down = nobody_there();
    let ran = run(["--registry", &format!("{one_at},{other_at},{down}"), "-o", "json", "doctor"]).await;
    let found = findings(&ran);
    let of = |check: &str| found.iter().find(|(found, ..)| found == check).unwrap_or_else(|| panic!("{found:?}"));
    assert!(of("store_id").2.contains(&one_at) && of("store_id").2.contains(&other_at), "{found:?}");
    assert_eq!(of("unreachable").1, format!("registry {down}"));
    assert_eq!(of("unreachable").2, "no registry answers: connection refused");
}

#[tokio::test]
async fn a_doctor_works_without_any_registry() {
    let down = nobody_there().to_string();
    let ran = run(["--registry", &down, "doctor"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    println!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("no registry answers: connection refused"), "{ran:?}");
    let ran = run(["--registry", "nonsense", "doctor"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_told_and_followed() {
    let mut story = Story::begin(1, 1).await;
    let at = story.mesh.registry_url().to_string();
    let id = story.users[0].id.to_string();
    let ran = run(["--registry", &at, "drain", &id]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");

    let ran = run(["--registry", &at, "events", "user-svc"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    println!("{}", ran.stdout);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let address = story.users[0].process.grpc().to_string();
    assert!(lines[0].contains("  registered ") && lines[0].contains(&id) && lines[0].contains(&address), "{ran:?}");
    assert!(lines.iter().any(|line| line.contains("Enabled to Draining")), "{ran:?}");

    let mut following = harness::command();
    following.args(["--registry", &at, "-o", "json", "events", "--follow", "--limit", "1"]);
    let mut following = following.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(following.stdout.take().expect("it was asked for")).lines();
    let mut next = async || -> Value {
        let line = tokio::time::timeout(LONG, lines.next_line()).await.expect("in time").expect("it can be read");
        serde_json::from_str(&line.expect("it goes on")).expect("JSON")
    };
    assert_eq!(next().await["kind"], "EVENT_KIND_ADMIN", "the latest of the past");
    story.users.remove(0).process.drain().await.expect("it drains");
    let removed = async {
        loop {
            let event = next().await;
            if event["kind"] == "EVENT_KIND_REMOVED" {
                break event;
            }
        }
    };
    let removed = tokio::time::timeout(Duration::from_secs(30), removed).await.expect("its goodbye is told");
    assert_eq!((&removed["instanceId"], &removed["detail"]), (&id.as_str().into(), &"it said goodbye".into()));
    assert!(removed["position"]["revision"].as_str().is_some_and(|revision| revision != "0"), "{removed}");

    let ran = run(["--registry", &at, "events", "no-such-svc"]).await;
    assert_eq!((ran.code, &*ran.stdout), (Some(0), ""));
    let ran = run(["--registry", &at, "events", "Not A Name"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
}
