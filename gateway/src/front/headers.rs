//! Which headers pass: of a REST request only those that services are meant to see, of a gRPC-Web request its metadata
//! without what only the inside of the mesh may say (S36).

use std::net::IpAddr;

use http::header::{
    ACCEPT_LANGUAGE, AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use mesh_runtime::auth::ServiceIdentity;

use super::request_id::X_REQUEST_ID;

/// From which address the client came, as the gateway sees it.
pub(super) const X_MESH_CLIENT_ADDRESS: HeaderName = HeaderName::from_static("x-mesh-client-address");
/// The gateway's own token, beside the client's: what makes services believe the address.
pub(super) const X_MESH_SERVICE_AUTHORIZATION: HeaderName = HeaderName::from_static("x-mesh-service-authorization");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What a client cannot say: these name users, peers and the mesh's own facts.
const INTERNAL: [&str; 7] = ["x-user-", "x-mesh-", "x-forwarded-", "forwarded", "x-real-ip", "x-envoy-", "grpc-"];
/// Those of them that belong to the protocol of a gRPC client.
const GRPC: [&str; 6] =
    ["grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "grpc-status", "grpc-message", "grpc-status-details-bin"];
/// What is between the client and us alone.
const OURS: [HeaderName; 10] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    HOST,
    ORIGIN,
    REFERER,
    COOKIE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
/// Headers of a REST request that a service sees. The trace is passed on by the call itself, as a span within it.
const PASSED: [HeaderName; 3] = [AUTHORIZATION, ACCEPT_LANGUAGE, TRACESTATE];

/// Takes out what no client may say, whoever reads the request next. `is_grpc`: its own protocol's headers stay.
pub(super) fn strip(headers: &mut HeaderMap, is_grpc: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let forged = |name: &HeaderName| {
        INTERNAL.iter().any(|prefix| name.as_str().starts_with(prefix)) && !(is_grpc && GRPC.contains(&name.as_str()))
    };
    let removed: Vec<HeaderName> = headers.keys().filter(|name| forged(name)).cloned().collect();
    // A `Connection` that names `authorization` is a trick; what it can do is send no token.
    for name in removed.into_iter().chain(named) {
        headers.remove(name);
    }
}

/// What a service is told beside the request itself.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) id: HeaderValue,
    pub(super) client: IpAddr,
    /// Who the gateway is.
    pub(super) identity: Option<ServiceIdentity>,
}

impl Told {
    /// The headers of a call to this service for a REST request with these.
    pub(super) fn of_rest(&self, request: &HeaderMap, service: &str) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(12);
        for name in PASSED {
            for value in request.get_all(&name) {
                headers.append(name.clone(), value.clone());
            }
        }
        self.tell(&mut headers, service);
        headers
    }

    /// Makes the headers of a gRPC request those of the call to this service for it.
    pub(super) fn of_grpc(&self, headers: &mut HeaderMap, service: &str) {
        for name in OURS {
            headers.remove(name);
        }
        let browsers: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("sec-") || name.as_str().starts_with("access-control-"))
            .cloned()
            .collect();
        browsers.into_iter().for_each(|name| drop(headers.remove(name)));
        // The call writes its own, a span within it.
        headers.remove("traceparent");
        self.tell(headers, service);
    }

    fn tell(&self, headers: &mut HeaderMap, service: &str) {
        headers.insert(X_REQUEST_ID, self.id.clone());
        if let Ok(client) = HeaderValue::from_str(&self.client.to_string()) {
            headers.insert(X_MESH_CLIENT_ADDRESS, client);
        }
        if let Some(identity) = &self.identity {
            headers.insert(X_MESH_SERVICE_AUTHORIZATION, identity.towards(service));
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_runtime::auth::SigningKey;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    fn told() -> Told {
        let identity = Some(ServiceIdentity::new(SigningKey::generate().unwrap(), "gateway"));
        Told { id: HeaderValue::from_static("the-id"), client: [10, 0, 0, 9].into(), identity }
    }

    const FORGED: [(&str, &str); 7] = [
        ("x-user-id", "root"),
        ("x-mesh-client-address", "1.2.3.4"),
        ("x-mesh-service-authorization", "Bearer forged"),
        ("x-forwarded-client-cert", "Subject=admin"),
        ("x-envoy-internal", "true"),
        ("grpc-previous-rpc-attempts", "1"),
        ("grpc-internal-encoding-request", "x"),
    ];

    #[test]
    fn what_is_forged_is_gone_before_anybody_reads_it() {
        let mut request = headers(&FORGED);
        request.extend(headers(&[("authorization", "Bearer a"), ("connection", "close, X-Hop"), ("x-hop", "1")]));
        request.extend(headers(&[("grpc-timeout", "1S")]));
        let mut grpc = request.clone();
        strip(&mut request, false);
        assert_eq!(names(&request), ["authorization", "connection"]);
        strip(&mut grpc, true);
        assert_eq!(names(&grpc), ["authorization", "connection", "grpc-timeout"]);
    }

    #[test]
    fn a_service_sees_what_it_is_meant_to_and_our_word_on_the_client() {
        let mut request = headers(&FORGED);
        request.extend(headers(&[
            ("authorization", "Bearer a"),
            ("cookie", "b"),
            ("x-own", "c"),
            ("accept-language", "de"),
        ]));
        let told = told();
        let passed = told.of_rest(&request, "orders");
        let seen = [
            "accept-language",
            "authorization",
            "x-mesh-client-address",
            "x-mesh-service-authorization",
            "x-request-id",
        ];
        assert_eq!(names(&passed), seen);
        assert_eq!(passed[X_MESH_CLIENT_ADDRESS], "10.0.0.9");
        assert_eq!(
            passed[X_MESH_SERVICE_AUTHORIZATION],
            told.of_rest(&request, "orders")[X_MESH_SERVICE_AUTHORIZATION]
        );
        let elsewhere = told.of_rest(&request, "a-stranger");
        assert_ne!(
            passed[X_MESH_SERVICE_AUTHORIZATION], elsewhere[X_MESH_SERVICE_AUTHORIZATION],
            "good for one service"
        );
    }

    #[test]
    fn metadata_of_grpc_passes_and_what_a_browser_adds_does_not() {
        let mut request = headers(&FORGED);
        request.extend(headers(&[
            ("x-own", "c"),
            ("cookie", "b"),
            ("origin", "https://a"),
            ("sec-fetch-mode", "cors"),
        ]));
        strip(&mut request, true);
        told().of_grpc(&mut request, "orders");
        assert_eq!(names(&request), ["x-mesh-client-address", "x-mesh-service-authorization", "x-own", "x-request-id"]);
        assert_ne!(request[X_MESH_SERVICE_AUTHORIZATION], "Bearer forged");
    }
}
