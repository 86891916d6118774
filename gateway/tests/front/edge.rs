//! Tokens and origins at the edge.

use std::path::Path;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use gateway::front::{Config, Edge, origin};
use mesh_runtime::auth::{
    AUDIENCE_ALL, Access, Claims, KeySource, Role, ServiceIdentity, SigningKey, TrustedKey, Verifier, mint, trust,
};
use mesh_runtime::clock;

use crate::backend::SERVICE;
use crate::kit::{Rig, config};

/// A thing is for those who are known, making one for everybody, and of watching nothing is said.
fn access(path: &str) -> Option<Access> {
    match path {
        "/test.front.v1.Things/GetThing" => Some(Access::Allowed(&[Role::Admin])),
        "/test.front.v1.Things/CreateThing" => Some(Access::Public),
        _ => None,
    }
}

/// A gateway that trusts one key, and a maker of tokens.
async fn asking(folder: &Path) -> (Rig, SigningKey) {
    let key = SigningKey::generate().unwrap();
    let path = folder.join("trusted.json");
    let trusted = TrustedKey { key: key.public_jwk().clone(), iss: "ops".to_owned(), roles: vec!["admin".to_owned()] };
    trust(&path, trusted).unwrap();
    let verifier = Verifier::start("gateway", &[path], KeySource::none()).unwrap();
    let edge = Edge::new(Some(verifier), access);
    (Rig::with(Config { edge, ..config() }).await, key)
}

fn token(key: &SigningKey, age: Duration) -> String {
    let lifetime = Duration::from_secs(300);
    let claims = Claims::new("ops", Role::Admin, "me", [AUDIENCE_ALL], clock::wall() - age, lifetime);
    format!("Bearer {}", mint(key, &claims).expose())
}

#[tokio::test]
async fn a_token_that_does_not_hold_goes_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let (rig, key) = asking(folder.path()).await;
    let good = token(&key, Duration::ZERO);
    let old = token(&key, Duration::from_secs(3600));
    let strangers = token(&SigningKey::generate().unwrap(), Duration::ZERO);
    let get = async |token: &str| rig.ask("GET", "/v1/things/a", &[("authorization", token)], "").await;

    let got = get(&good).await;
    assert_eq!((got.status, &got.json()["seen"]["authorization"]), (200, &good.clone().into()), "and it is passed on");
    let none = rig.get("/v1/things/a").await;
    assert_eq!((none.status, none.reason().as_str()), (401, "TOKEN_MISSING"));
    assert_eq!(none.header("www-authenticate"), Some("Bearer realm=\"meshwork\""));
    for (bad, reason) in [
        (old.as_str(), "TOKEN_EXPIRED"),
        (strangers.as_str(), "TOKEN_INVALID"),
        ("Bearer nonsense", "TOKEN_INVALID"),
        ("Bearer ", "TOKEN_INVALID"),
        ("Basic YTpi", "TOKEN_INVALID"),
        (&good[..good.len() - 2], "TOKEN_INVALID"),
    ] {
        let refused = get(bad).await;
        assert_eq!((refused.status, refused.reason().as_str()), (401, reason), "{bad}");
        assert!(refused.header("www-authenticate").unwrap().contains("invalid_token"), "{refused:?}");
    }
    let two = rig.ask("GET", "/v1/things/a", &[("authorization", &good), ("authorization", &strangers)], "").await;
    assert_eq!(two.status, 401, "of two tokens none holds");
}

#[tokio::test]
async fn what_is_public_asks_nobody_and_what_is_unknown_asks_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (rig, _key) = asking(folder.path()).await;
    let bad = ("authorization", "Bearer nonsense");
    assert_eq!(rig.ask("POST", "/v1/things", &[], "").await.status, 200);
    assert_eq!(rig.ask("POST", "/v1/things", &[bad], "").await.status, 200, "whoever logs in has an old token still");
    let watch = "/v1/things:watch?count=1";
    assert_eq!(rig.get(watch).await.status, 200);
    assert_eq!(rig.ask("GET", watch, &[("authorization", "Basic YTpi")], "").await.status, 200);
    assert_eq!(rig.ask("GET", watch, &[bad], "").await.status, 401, "a token that is shown holds or does not");
}

#[tokio::test]
async fn without_keys_nobody_knows_who_anybody_is() {
    let users = KeySource::new(|| async { Err::<Vec<_>, _>("nobody answers") });
    let verifier = Verifier::start("gateway", &[], users).unwrap();
    let edge = Edge::new(Some(verifier), access);
    let rig = Rig::with(Config { edge, ..config() }).await;
    let shown = token(&SigningKey::generate().unwrap(), Duration::ZERO);
    let got = rig.ask("GET", "/v1/things/a", &[("authorization", &shown)], "").await;
    assert_eq!((got.status, got.reason().as_str()), (503, "KEYS_UNAVAILABLE"));
    assert_eq!((got.header("retry-after"), got.header("www-authenticate")), (Some("1"), None));
}

#[tokio::test]
async fn the_gateway_shows_a_token_of_its_own_beside_the_clients() {
    let key = SigningKey::generate().unwrap();
    let identity = Some(ServiceIdentity::new(key, "gateway"));
    let rig = Rig::with(Config { identity, ..config() }).await;
    let got = rig.ask("GET", "/v1/things/a", &[("authorization", "Bearer mine")], "").await;
    let seen = got.json()["seen"].clone();
    assert_eq!(seen["authorization"], "Bearer mine");
    // Of which the middle part is the claims: only this service takes it, so it is worth nothing to it elsewhere.
    let token = seen["x-mesh-service-authorization"].as_str().unwrap().strip_prefix("Bearer ").unwrap();
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["iss"], &claims["aud"]), (&"gateway".into(), &serde_json::json!([SERVICE])), "{claims}");
}

#[tokio::test]
async fn other_origins_are_refused_unless_they_are_named() {
    let ours = ("origin", "https://shop.example");
    let preflight =
        [("access-control-request-method", "POST"), ("access-control-request-headers", "authorization, content-type")];
    let closed = Rig::start().await;
    let asked = closed.ask("OPTIONS", "/v1/things", &[ours, preflight[0], preflight[1]], "").await;
    assert_eq!((asked.status, asked.header("access-control-allow-origin")), (204, None));
    assert_eq!(closed.ask("GET", "/v1/things/a", &[ours], "").await.header("access-control-allow-origin"), None);

    let origins = vec![origin("https://shop.example").unwrap()];
    let open = Rig::with(Config { origins, ..config() }).await;
    let asked = open.ask("OPTIONS", "/v1/things", &[ours, preflight[0], preflight[1]], "").await;
    assert_eq!(asked.header("access-control-allow-origin"), Some("https://shop.example"), "{asked:?}");
    assert!(asked.header("access-control-allow-headers").unwrap().contains("authorization"), "{asked:?}");
    assert_eq!(asked.header("access-control-allow-credentials"), None);
    for target in ["/v1/things/a", "/nowhere"] {
        let got = open.ask("GET", target, &[ours], "").await;
        assert_eq!(got.header("access-control-allow-origin"), Some("https://shop.example"), "{got:?}");
        assert!(got.header("access-control-expose-headers").unwrap().contains("x-request-id"));
    }
    for stranger in ["https://evil.example", "https://shop.example.evil", "null"] {
        let got = open.ask("GET", "/v1/things/a", &[("origin", stranger)], "").await;
        assert_eq!(got.header("access-control-allow-origin"), None, "{stranger}");
    }
}
