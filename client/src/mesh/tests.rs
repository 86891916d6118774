//! The whole crate over loopback: channels, registrar and tools against a registry that the test plays by hand.

use std::net::SocketAddr;

use mesh_api::registry::v1 as wire;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use wire::watch_response::Event;

use super::*;
use crate::clock;
use crate::fake_registry::{self, Calls};
use crate::registrar::RegistrarState;

/// Serves a registry that the test plays on a port of its own, or on the one given.
async fn served(at: Option<SocketAddr>) -> (SocketAddr, Calls, JoinHandle<()>) {
    let listener = TcpListener::bind(at.unwrap_or(([127, 0, 0, 1], 0).into())).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (service, calls) = fake_registry::service();
    let serving =
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    let task = tokio::spawn(async move {
        let _ = serving.await;
    });
    (address, calls, task)
}

fn snapshot(address: SocketAddr) -> wire::WatchResponse {
    let endpoint = wire::Endpoint {
        name: "grpc".into(),
        protocol: wire::Protocol::Grpc.into(),
        ip: address.ip().to_string(),
        port: address.port().into(),
    };
    let instance = wire::Instance {
        service: "user-svc".into(),
        instance_id: uuid::Uuid::from_u128(1).to_string(),
        incarnation: 1,
        endpoints: vec![endpoint],
        ..Default::default()
    };
    let chunk = wire::SnapshotChunk { instances: vec![instance], last: true, presence: 2, ..Default::default() };
    wire::WatchResponse {
        service: "user-svc".into(),
        position: Some(wire::Position { store_id: "a".into(), generation: 0, revision: 1 }),
        complete: true,
        event: Some(Event::Snapshot(chunk)),
        ..Default::default()
    }
}

/// One call that needs no more than an answer.
async fn goodbye(channel: MeshChannel) -> Result<(), tonic::Status> {
    RegistryServiceClient::new(channel).deregister(wire::DeregisterRequest::default()).await.map(drop)
}

async fn answer_goodbye(calls: &mut Calls) {
    let (_, answer) = calls.deregister().await;
    answer.send(Ok(wire::DeregisterResponse::default())).unwrap();
}

#[tokio::test]
async fn a_service_is_found_through_the_registry_and_called_where_it_is() {
    let (registry, mut registry_calls, _registry) = served(None).await;
    let (backend, mut backend_calls, _backend) = served(None).await;
    let mesh = Mesh::new([registry.to_string()]).unwrap();
    let call = tokio::spawn(goodbye(mesh.channel("user-svc")));
    let mut watch = registry_calls.watch().await;
    assert_eq!(watch.request().await.subscribe[0].service, "user-svc");
    watch.say(snapshot(backend)).await;
    answer_goodbye(&mut backend_calls).await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_found_is_called_on_without_the_registry() {
    let (registry, mut registry_calls, registry_task) = served(None).await;
    let (backend, mut backend_calls, _backend) = served(None).await;
    let mesh = Mesh::new([registry.to_string()]).unwrap();
    let channel = mesh.channel("user-svc");
    let mut watch = registry_calls.watch().await;
    watch.request().await;
    watch.say(snapshot(backend)).await;
    let call = tokio::spawn(goodbye(channel.clone()));
    answer_goodbye(&mut backend_calls).await;
    call.await.unwrap().unwrap();
    registry_task.abort();
    drop((watch, registry_calls));
    let call = tokio::spawn(goodbye(channel));
    answer_goodbye(&mut backend_calls).await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_static_service_needs_no_registry() {
    let (backend, mut backend_calls, _backend) = served(None).await;
    let mesh = Mesh::builder().static_service("user-svc", [backend.into()]).build().unwrap();
    let call = tokio::spawn(goodbye(mesh.channel("user-svc")));
    answer_goodbye(&mut backend_calls).await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_process_starts_without_a_registry_and_registers_when_it_appears() {
    let (registry, _, gone) = served(None).await;
    gone.abort();
    let _ = gone.await;
    let mesh = Mesh::new([registry.to_string()]).unwrap();
    let registrar = mesh.registrar(InstanceSpec::new("user-svc"));
    let (ready, ..) = registrar.hooks();
    let registered = tokio::spawn(ready(([127, 0, 0, 1], 7410).into(), Some(([127, 0, 0, 1], 7411).into())));
    while registrar.status().state == RegistrarState::Idle {
        tokio::task::yield_now().await;
    }
    let (_, mut calls, _registry) = served(Some(registry)).await;
    let (request, answer) = calls.register().await;
    assert_eq!(request.service, "user-svc");
    let response = wire::RegisterResponse { lease_id: vec![1; 16].into(), incarnation: 1, ..Default::default() };
    answer.send(Ok(response)).unwrap();
    registered.await.unwrap();
    assert_eq!(registrar.status().state, RegistrarState::Registered);
}

#[tokio::test]
async fn tools_reach_the_registry_itself() {
    let (registry, mut calls, _registry) = served(None).await;
    let mesh = Mesh::new([format!("http://{registry}")]).unwrap();
    let mut client = mesh.registry();
    let call = tokio::spawn(async move { client.deregister(wire::DeregisterRequest::default()).await });
    answer_goodbye(&mut calls).await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_unusable_name_fails_with_its_reason() {
    let mesh = Mesh::new(["127.0.0.1:1"]).unwrap();
    let status = goodbye(mesh.channel("No Such Name")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().contains("not a service name"), "{status:?}");
}

#[test]
fn service_names_are_those_that_the_registry_takes() {
    let long = "a".repeat(64);
    for name in ["user-svc", "a", "shop.user.v1"] {
        assert!(is_service_name(name), "{name}");
    }
    for name in ["", "User", "user_svc", "a..b", ".a", "a:1", "a/b", &long] {
        assert!(!is_service_name(name), "{name}");
    }
}

#[tokio::test]
async fn channels_of_one_service_share_a_target_for_as_long_as_one_is_held() {
    let mesh = Mesh::new(["127.0.0.1:1"]).unwrap();
    let (first, second) = (mesh.channel("user-svc"), mesh.channel("user-svc"));
    let weak = mesh.inner.targets.lock()["user-svc"].clone();
    assert_eq!(weak.strong_count(), 2);
    drop((first, second));
    let _other = mesh.channel("order-svc");
    assert_eq!(mesh.inner.targets.lock().len(), 1);
}

#[tokio::test]
async fn one_service_too_many_is_refused_and_room_comes_back() {
    let mesh = Mesh::builder().build().unwrap();
    let mut held: Vec<_> = (0..TARGETS_MAX).map(|n| mesh.channel(&format!("svc-{n}"))).collect();
    let status = goodbye(mesh.channel("user-svc")).await.unwrap_err();
    assert!(status.message().contains("too many services"), "{status:?}");
    assert_eq!(mesh.inner.targets.lock().len(), TARGETS_MAX);
    held.pop();
    let status = goodbye(mesh.channel("user-svc")).await.unwrap_err();
    assert!(status.message().contains("no registry"), "{status:?}");
}

#[tokio::test]
async fn a_service_can_be_where_names_lead() {
    let (backend, mut backend_calls, _backend) = served(None).await;
    let hosts = [format!("localhost:{}", backend.port())];
    let mesh = Mesh::builder().host_service("user-svc", hosts).build().unwrap();
    let call = tokio::spawn(goodbye(mesh.channel("user-svc")));
    answer_goodbye(&mut backend_calls).await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_service_is_explained_by_its_name() {
    let mesh = Mesh::builder().static_service("user-svc", ["127.0.0.1:7410".parse().unwrap()]).build().unwrap();
    let channel = mesh.channel("user-svc");
    while channel.endpoints().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(mesh.explain("user-svc").endpoints[0].address, "127.0.0.1:7410".parse().unwrap());
    assert!(mesh.explain("order-svc").endpoints.is_empty());
}

#[tokio::test]
async fn what_one_mesh_heard_another_one_calls_without_the_registry() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state");
    let (registry, mut registry_calls, registry_task) = served(None).await;
    let (backend, mut backend_calls, _backend) = served(None).await;
    let mesh = || Mesh::builder().registry([registry.to_string()]).state_dir(state.clone()).build().unwrap();
    let first = mesh();
    let call = tokio::spawn(goodbye(first.channel("user-svc")));
    let mut watch = registry_calls.watch().await;
    watch.request().await;
    watch.say(snapshot(backend)).await;
    answer_goodbye(&mut backend_calls).await;
    call.await.unwrap().unwrap();
    drop(first);
    registry_task.abort();
    drop((watch, registry_calls));
    while !state.join("default_user-svc.known").exists() {
        tokio::task::yield_now().await;
    }
    let call = tokio::spawn(goodbye(mesh().channel("user-svc")));
    answer_goodbye(&mut backend_calls).await;
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_mesh_without_a_registry_serves_its_static_services_only() {
    let mesh = Mesh::builder().static_service("user-svc", ["127.0.0.1:7410".parse().unwrap()]).build().unwrap();
    let status = |service: &str| mesh.resolutions(service).borrow().status.clone();
    assert_eq!(status("user-svc"), ResolutionStatus::Resolved);
    assert!(matches!(status("order-svc"), ResolutionStatus::Refused(_)));
    assert!(matches!(status("No Name"), ResolutionStatus::Refused(_)));
    assert!(mesh.watch_status().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_down_is_dialled_again_within_a_second_for_ever() {
    let net = crate::rig::Net::default();
    let mesh = Mesh::builder().registry(["10.0.0.1:1"]).connector(Arc::new(net.clone())).seed(1).build().unwrap();
    let _client = mesh.registry();
    let mut longest = Duration::ZERO;
    for dialled in 0..100 {
        let begun = crate::clock::now();
        crate::rig::eventually(|| net.connects() > dialled).await;
        longest = longest.max(crate::clock::now() - begun);
    }
    assert!((500..=1_001).contains(&longest.as_millis()), "{longest:?}");
}

#[tokio::test]
async fn a_dead_registry_among_several_costs_nothing_and_the_tools_find_the_other() {
    let (dead, _, gone) = served(None).await;
    gone.abort();
    let _ = gone.await;
    let (registry, mut calls, _registry) = served(None).await;
    let (backend, mut backend_calls, _backend) = served(None).await;
    // Each of them begins at a random one: with twenty, some begin at the dead one.
    for _ in 0..20 {
        let mesh = Mesh::new([dead.to_string(), registry.to_string()]).unwrap();
        let begun = clock::now();
        let call = tokio::spawn(goodbye(mesh.channel("user-svc")));
        let mut watch = calls.watch().await;
        watch.request().await;
        watch.say(snapshot(backend)).await;
        answer_goodbye(&mut backend_calls).await;
        call.await.unwrap().unwrap();
        // Failfast, 3 s, is not waited out.
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    }
}
