//! Where a call belongs on a ring: by what it carries itself, or else by a header.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue};

use crate::rig::{CREATE, Net, Rig, Server, finish, ok, request, send};
use crate::{Balancer, ConnectivityState, HashKey, RingHash};

const TENANT: HeaderName = HeaderName::from_static("x-tenant");

/// The endpoints that ten calls with this key went to.
async fn ten_calls(
    rig: &Rig,
    servers: &[Server],
    key: impl Fn(&mut http::Request<tonic::body::Body>),
) -> BTreeSet<usize> {
    let before: Vec<usize> = servers.iter().map(Server::seen).collect();
    for _ in 0..10 {
        let mut request = request(CREATE);
        key(&mut request);
        finish(send(&rig.channel, request).await.unwrap()).await.unwrap();
    }
    (0..servers.len()).filter(|index| servers[*index].seen() > before[*index]).collect()
}

#[tokio::test(start_paused = true)]
async fn equal_keys_go_to_one_endpoint_and_the_calls_own_key_goes_before_the_header() {
    let net = Net::default();
    let servers: Vec<Server> = (1..=5).map(|port| Server::start(&net, port, ok)).collect();
    let rig = Rig::with(&net, 1..=5, |config| {
        config.policy.balancer = Balancer::RingHash(RingHash { key_header: Some(TENANT), ..RingHash::default() });
    });
    rig.all(ConnectivityState::Ready).await;
    let mut homes = BTreeSet::new();
    for tenant in 0..20 {
        let name = format!("tenant-{tenant}");
        let header = HeaderValue::from_str(&name).unwrap();
        let by_header = ten_calls(&rig, &servers, |request| {
            request.headers_mut().insert(TENANT, header.clone());
        })
        .await;
        assert_eq!(by_header.len(), 1);
        // The same key, said by the call, whatever the header says.
        let by_call = ten_calls(&rig, &servers, |request| {
            request.headers_mut().insert(TENANT, HeaderValue::from_static("somebody else"));
            request.extensions_mut().insert(HashKey::of(name.as_bytes()));
        })
        .await;
        assert_eq!(by_call, by_header);
        homes.extend(by_header);
    }
    assert!(homes.len() > 2, "{homes:?}");
    assert!(ten_calls(&rig, &servers, |_| {}).await.len() > 1, "without a key, anywhere");
}
