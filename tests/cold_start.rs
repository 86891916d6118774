//! Services start while there is no registry, and register when there is one.

mod harness;

use std::time::Duration;

use harness::{LONG, folder, http_get, nobody_there_yet, plan, until};
use mesh_api::shop::user::v1::ListUsersRequest;
use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use mesh_client::{ConnectivityState, Mesh, MeshChannel};
use mesh_runtime::clock;
use meshctl::{Follower, Listen, LocalMesh, Program};
use tonic::{Code, Request};

/// How long a call waits for a first endpoint when its deadline allows more (DESIGN §6).
const FAILFAST: Duration = Duration::from_secs(3);

async fn list_users(channel: &MeshChannel, deadline: Duration) -> (Option<tonic::Status>, Duration) {
    let mut request = Request::new(ListUsersRequest::default());
    request.set_timeout(deadline);
    let began = clock::now();
    let mut stubs = UserServiceClient::new(channel.clone());
    let answer = tokio::time::timeout(LONG, stubs.list_users(request)).await.expect("a call ends");
    (answer.err(), began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_start_without_a_registry_and_register_once_there_is_one() {
    let folder = folder();
    let mut plan = plan(folder.path());
    plan.registry = nobody_there_yet();
    let mut mesh = LocalMesh::without_registry(plan).expect("its log folder can be made");
    let wanted = [(Program::UserSvc, Listen::Free), (Program::OrderSvc, Listen::Free)];
    let members = mesh.join_all(&wanted).await.expect("they get ready without a registry");

    let client = Mesh::new([mesh.registry_url().to_string()]).expect("the registry's URL is one");
    let channel = client.channel("user-svc");
    // How much longer than this a call took depends on who else is on this machine: that is printed, not judged.
    let deadline = Duration::from_millis(300);
    let (status, took) = list_users(&channel, deadline).await;
    let status = status.expect("nobody can be there");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable), "{status}");
    println!("a call with a deadline of {deadline:?} took {took:?}");
    assert!(took >= deadline, "a call waits for somebody until its deadline, not {took:?}");

    let (status, took) = list_users(&channel, Duration::from_secs(20)).await;
    // DEADLINE_EXCEEDED would say that it waited for all of its 20 s.
    assert_eq!(status.map(|status| status.code()), Some(Code::Unavailable));
    println!("a call with a deadline of 20 s took {took:?}");
    assert!(took >= FAILFAST, "a call waits 3 s for somebody, not {took:?}");

    for member in &members {
        let began = clock::now();
        while http_get(member.process.http(), "/readyz").await.expect("it answers").0 != 200 {
            assert!(began.elapsed() < LONG, "{} is never ready without a registry", member.process.name());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (_, body) = http_get(member.process.http(), "/readyz?verbose").await.expect("it answers");
        println!("{}: {body}", member.process.name());
    }

    mesh.start_registry().await.expect("the registry starts at the place where everybody looks for it");
    let mut news = Follower::start(mesh.followed(Program::UserSvc), |_| {});
    let id = members[0].id.to_string();
    news.until("the late registration", LONG, |view| view.lists(&id)).await.expect("it registers");
    until("the client to connect to it", || channel.state() == ConnectivityState::Ready).await;
    let (status, took) = list_users(&channel, Duration::from_secs(20)).await;
    assert!(status.is_none(), "after {took:?}: {status:?}");
}
