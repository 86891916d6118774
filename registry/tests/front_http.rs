//! One scenario told at the gRPC door, and the same view expected at both.

mod support;

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use mesh_api::registry::v1 as pb;
use pb::deregister_request::Target;
use support::{Client, Door, instance_id, lease_of, register, registration};
use tower::ServiceExt;

async fn page(door: &Door, uri: &str) -> (StatusCode, String) {
    let request = Request::get(uri).body(Body::empty()).expect("a request");
    let response = door.registry.page().oneshot(request).await.expect("an answer");
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a short page");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

/// What the page must say, made from the answers of the gRPC door.
async fn told_by_grpc(client: &mut Client) -> String {
    let lower = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_lowercase().replace('_', "-");
    let list = client.list_services(pb::ListServicesRequest::default()).await.expect("a page").into_inner();
    let position = list.position.expect("a position");
    let state = if list.complete { "complete" } else { "warming" };
    let mut text = format!(
        "registry store={} generation={} revision={} {state}\nnamespace default\n",
        position.store_id, position.generation, position.revision
    );
    for summary in list.services {
        let presence = lower(summary.presence().as_str_name(), "SERVICE_PRESENCE_");
        let (name, instances, pickable) = (&summary.service, summary.instances, summary.instances_pickable);
        text += &format!("{name} {presence} instances={instances} pickable={pickable}\n");
        let resolved = support::resolve(client, name).await.expect("known");
        assert_eq!(resolved.instances.len(), instances as usize);
        for instance in resolved.instances {
            let admin = match instance.admin_state() {
                pb::AdminState::Draining => "admin-draining".to_owned(),
                other => lower(other.as_str_name(), "ADMIN_STATE_"),
            };
            text += &format!(
                "  {} incarnation={} {}:{} {} {} {admin} zone={} weight={} version={:?}\n",
                instance.instance_id,
                instance.incarnation,
                instance.endpoints[0].ip,
                instance.endpoints[0].port,
                lower(instance.liveness().as_str_name(), "LIVENESS_"),
                lower(instance.serving_status().as_str_name(), "SERVING_STATUS_"),
                instance.zone,
                instance.weight,
                instance.version,
            );
        }
    }
    text
}

#[tokio::test(start_paused = true)]
async fn both_doors_show_the_same_view() {
    let door = Door::open().await;
    let mut client = door.client().await;
    assert_eq!(page(&door, "/").await, (StatusCode::OK, told_by_grpc(&mut client).await));

    let first = pb::RegisterRequest { zone: "eu-1a".to_owned(), version: "1.2".to_owned(), ..registration(1) };
    register(&mut client, first).await;
    let second = pb::RegisterRequest { serving_status: pb::ServingStatus::NotServing.into(), ..registration(2) };
    register(&mut client, second).await;
    let order = pb::RegisterRequest { service: "order-svc".to_owned(), ..registration(3) };
    let order = register(&mut client, order).await;
    let rule = pb::SetAdminStateRequest {
        service: "user-svc".to_owned(),
        selector: Some(pb::Selector { by: Some(pb::selector::By::InstanceId(instance_id(1))) }),
        state: pb::AdminState::Draining.into(),
        ..pb::SetAdminStateRequest::default()
    };
    client.set_admin_state(rule).await.expect("set");
    let (_, text) = page(&door, "/").await;
    assert_eq!(text, told_by_grpc(&mut client).await);
    assert!(text.contains("user-svc populated instances=2 pickable=0"), "{text}");
    assert!(text.contains("alive serving admin-draining zone=eu-1a weight=100 version=\"1.2\""), "{text}");

    let target = Some(Target::Lease(lease_of(&order)));
    client.deregister(pb::DeregisterRequest { target }).await.expect("gone");
    // A lapse: both of user-svc fall silent, and what becomes of them shows at both doors. Looked at beside the moments
    // at which the engine concludes something, since the two looks are not one.
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(1013)).await;
        assert_eq!(page(&door, "/").await.1, told_by_grpc(&mut client).await);
    }
    let (_, text) = page(&door, "/").await;
    assert!(text.contains("order-svc emptied instances=0 pickable=0"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_page_shows_one_namespace_and_refuses_what_is_none() {
    let door = Door::open().await;
    let mut client = door.client().await;
    register(&mut client, pb::RegisterRequest { namespace: "staging".to_owned(), ..registration(1) }).await;
    assert!(!page(&door, "/").await.1.contains("user-svc"));
    assert!(page(&door, "/?namespace=staging").await.1.contains("user-svc populated"));
    let (status, text) = page(&door, "/?namespace=No%20Name").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(text, "namespace \"No Name\" is not 1 to 63 bytes of [a-z0-9-]\n");
}
