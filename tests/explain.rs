//! Where a call would go, and why nowhere else.

mod harness;

use harness::{LONG, Story, plan, run};
use mesh_api::registry::v1::AdminState;
use meshctl::{Follower, Listen, LocalMesh, LocalMeshPlan, Program};

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_of_every_instance_whether_it_is_picked_and_why() {
    let folder = harness::folder();
    // A lease that outlives the test: to the registry an instance that is killed is alive meanwhile.
    let registry_flags = vec!["--default-ttl".into(), "60s".into()];
    let plan =
        LocalMeshPlan { registry_flags, service_flags: vec!["--zone".into(), "eu-1a".into()], ..plan(folder.path()) };
    let mut mesh = LocalMesh::without_registry(plan).expect("its log folder can be made");
    mesh.start_registry().await.expect("the registry starts");
    let mut users = mesh.join_all(&[(Program::UserSvc, Listen::Free); 3]).await.expect("the services start");
    let mut news = Follower::start(mesh.followed(Program::UserSvc), |_| {});
    let ids: Vec<_> = users.iter().map(|member| member.id.to_string()).collect();
    let listed = news.until("every member", LONG, |view| ids.iter().all(|id| view.lists(id)));
    listed.await.expect("everybody registers");
    let [kept, drained, killed] = [&ids[0], &ids[1], &ids[2]];
    let registry = mesh.registry_url().to_string();
    let at = registry.as_str();

    let ran = run(["--registry", at, "drain", drained]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let draining = |view: &meshctl::ServiceView| view.admin_state(drained) == AdminState::Draining;
    news.until("the drain", LONG, draining).await.expect("it is told");
    users[2].process.kill().await;

    let ran = run(["--registry", at, "--timeout", "20s", "explain", "user-svc"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let line = |id: &str| {
        let line = ran.stdout.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("no {id} in {ran:?}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(ran.stdout.starts_with("user-svc is READY to this caller: 1 of 3 endpoints picked\n"), "{ran:?}");
    assert!(ran.stdout.contains("INSTANCE") && ran.stdout.contains("peak EWMA"), "{ran:?}");
    let address = users[0].process.grpc().to_string();
    assert!(line(kept).starts_with(&format!("{kept} {address} eu-1a 100 READY ")), "{ran:?}");
    assert!(line(kept).ends_with(" 0 yes -"), "{ran:?}");
    assert!(line(drained).ends_with(" no draining"), "{ran:?}");
    assert!(line(killed).contains(" eu-1a 100 TRANSIENT_FAILURE - 0 no not connected: "), "{ran:?}");

    let ran = run(["--registry", at, "--timeout", "20s", "-o", "json", "explain", "user-svc", "--zone", "eu-1b"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let lines: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!((&lines[0]["state"], &lines[0]["endpoints"]), (&"READY".into(), &3.into()), "{ran:?}");
    let object = |id: &str| lines[1..].iter().find(|line| line["instanceId"] == id).expect("each has a line");
    assert_eq!(object(kept)["picked"], true, "{ran:?}");
    assert!(object(kept)["latencySeconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{ran:?}");
    assert_eq!((&object(drained)["verdict"], &object(drained)["picked"]), (&"DRAINING".into(), &false.into()));
    assert_eq!(object(killed)["verdict"], "NOT_CONNECTED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_is_told_from_one_that_is_empty() {
    let mut story = Story::begin(1, 0).await;
    let registry = story.mesh.registry_url().to_string();
    let at = registry.as_str();

    let ran = run(["--registry", at, "explain", "usr-svc"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.stderr.contains("knows no service \"usr-svc\"") && ran.stderr.contains("user-svc"), "{ran:?}");

    story.users[0].process.drain().await.expect("it ends");
    let ran = run(["--registry", at, "explain", "user-svc"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stderr.contains("user-svc is known and has no instances (EMPTIED)"), "{ran:?}");

    let nobody = harness::nobody_there().to_string();
    let ran = run(["--registry", &nobody, "explain", "user-svc"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("no registry answers at"), "{ran:?}");
}
