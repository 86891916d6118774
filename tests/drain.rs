//! An instance is asked to end while calls are in flight: they finish, nobody new comes, and only then it goes.

mod harness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{LONG, Story};
use http::uri::PathAndQuery;
use mesh_api::registry::v1::{RemovalReason, ServingStatus};
use mesh_api::shop::user::v1::{CreateUserRequest, CreateUserResponse};
use mesh_runtime::clock;
use meshctl::{Change, Follower, Program};
use rustix::process::Signal;
use tokio::sync::oneshot;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Health;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_open_calls_finish_and_says_goodbye_last() {
    let mut story = Story::begin(2, 1).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = told.clone();
    let mut news = Follower::start(story.mesh.followed(Program::UserSvc), move |change: &Change| {
        hear.lock().unwrap().push(change.clone());
    });

    let mut leaving = story.users.remove(0);
    let id = leaving.id.to_string();
    let at = Endpoint::from_shared(format!("http://{}", leaving.process.grpc())).expect("its address is one");
    let channel = at.connect().await.expect("it accepts connections");

    // Somebody watches its health, and has heard that it serves.
    let mut health = HealthClient::new(channel.clone())
        .watch(HealthCheckRequest { service: String::new() })
        .await
        .expect("health can be watched")
        .into_inner();
    let first = health.message().await.expect("it answers").expect("it says how it is");
    assert_eq!(first.status(), Health::Serving);

    // A call that is open for as long as we like: its request is only sent when we say so.
    let (send_request, request) = oneshot::channel::<CreateUserRequest>();
    let body =
        futures_util::StreamExt::filter_map(futures_util::stream::once(request), |request| async { request.ok() });
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("the connection is there");
    let call = tokio::spawn(async move {
        let path = PathAndQuery::from_static("/shop.user.v1.UserService/CreateUser");
        let codec = tonic_prost::ProstCodec::<CreateUserRequest, CreateUserResponse>::default();
        grpc.client_streaming(tonic::Request::new(body), path, codec).await
    });
    tokio::time::timeout(LONG, open_calls(&leaving)).await.expect("the call arrives");

    leaving.process.signal(Signal::TERM);
    let second = health.message().await.expect("the stream lives on").expect("it says how it is");
    assert_eq!(second.status(), Health::NotServing, "health is the first to say so");
    let draining = |view: &meshctl::ServiceView| view.serving_status(&id) == ServingStatus::Draining;
    story.user_news.until("the drain", LONG, draining).await.expect("the registry tells that it drains");

    // Watches end after the GOAWAY; the open call is still open.
    while let Ok(Some(_)) = health.message().await {}
    assert!(!call.is_finished(), "an open call is not cut");
    assert!(story.user_news.view().lists(&id), "it does not say goodbye before its calls are done");

    let created = CreateUserRequest {
        request_id: "sent-while-draining".to_owned(),
        email: "late@shop.test".to_owned(),
        display_name: "Late".to_owned(),
        password: "correct horse".to_owned(),
    };
    send_request.send(created).expect("the call is still open");
    let answer = call.await.expect("it does not panic").expect("the call finishes");
    assert_eq!(answer.into_inner().user.map(|user| user.email).as_deref(), Some("late@shop.test"));

    let status = tokio::time::timeout(LONG, leaving.process.ended()).await.expect("it ends").expect("it is our child");
    assert!(status.success(), "a drain ends with 0, not {status}");
    news.until("its goodbye", LONG, |view| !view.lists(&id)).await.expect("it says goodbye");

    let told = told.lock().unwrap();
    let position = |wanted: &dyn Fn(&Change) -> bool| told.iter().position(wanted);
    let drained = position(
        &|change| matches!(change, Change::Changed(to) if to.instance_id == id && to.serving_status() == ServingStatus::Draining),
    );
    let left = position(
        &|change| matches!(change, Change::Left { instance, reason: RemovalReason::Deregistered } if instance.instance_id == id),
    );
    assert!(drained.is_some() && drained < left, "first DRAINING, then goodbye: {told:#?}");
}

/// An instance that was not picked for this long under load is out of the picks.
const UNPICKED: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_takes_an_instance_out_and_back_in_and_nobody_notices() {
    let story = Story::begin(2, 2).await;
    let load = story.under_load().await;
    let (registry, id) = (story.mesh.registry_url().to_string(), story.users[0].id.to_string());
    let endpoint = harness::endpoint(&story.user_channel, story.users[0].id);

    let ran = harness::run(["--registry", &registry, "drain", &id]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let unpicked = || endpoint.last_pick().is_some_and(|picked| picked.elapsed() >= UNPICKED);
    harness::until("nobody to go there", unpicked).await;
    assert!(story.user_news.view().lists(&id), "it is alive all the same");

    let enabled = clock::now();
    let ran = harness::run(["--registry", &registry, "enable", &id]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let picked_again = || {
        let endpoint = harness::endpoint(&story.user_channel, story.users[0].id);
        endpoint.last_pick().is_some_and(|picked| picked > enabled)
    };
    harness::until("somebody to go there again", picked_again).await;
    harness::nobody_noticed(load).await;
}

/// Waits until the server counts an open CreateUser.
async fn open_calls(member: &meshctl::Member) {
    loop {
        let (_, metrics) = harness::http_get(member.process.http(), "/metrics").await.expect("it answers");
        let started = metrics.lines().any(|line| {
            line.starts_with("grpc_server_call_started_total") && line.contains("CreateUser") && !line.ends_with(" 0")
        });
        if started {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
