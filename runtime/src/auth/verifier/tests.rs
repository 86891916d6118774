//! What is refused, one thing at a time, and how keys come and go.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use base64ct::{Base64UrlUnpadded, Encoding};
use mesh_api::access::Role;
use parts::{forged, signed};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{KeySource, TokenError, Verifier, clock};
use crate::auth::{Claims, Jwk, SigningKey, TrustedKey, USER_ISSUER, lifetime_max, mint, trust};

const ADA: &str = "0199a7d0-0000-7000-8000-000000000ada";
const MINUTE: Duration = Duration::from_secs(60);

/// Tokens as no honest signer makes them.
mod parts {
    use jsonwebtoken::crypto::sign;
    use serde_json::Value;

    use super::{Base64UrlUnpadded, Encoding, SigningKey};
    use crate::auth::claims::ALGORITHM;

    fn encoded(part: &Value) -> String {
        Base64UrlUnpadded::encode_string(part.to_string().as_bytes())
    }

    /// A header and claims with some signature.
    pub(super) fn forged(header: &Value, claims: &Value, sign: impl FnOnce(&str) -> String) -> String {
        let message = format!("{}.{}", encoded(header), encoded(claims));
        let signature = sign(&message);
        format!("{message}.{signature}")
    }

    /// Any header and claims, really signed.
    pub(super) fn signed(key: &SigningKey, header: &Value, claims: &Value) -> String {
        forged(header, claims, |message| sign(message.as_bytes(), key.encoding(), ALGORITHM).unwrap())
    }
}

/// user-svc, its key, and a key that is trusted for the program "order-svc" and one for the operator "ops".
struct World {
    _folder: TempDir,
    users: SigningKey,
    service: SigningKey,
    admin: SigningKey,
    verifier: Verifier,
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let [users, service, admin] = [(); 3].map(|()| SigningKey::generate().unwrap());
        let path = folder.path().join("trusted.json");
        trust(&path, trusted(&service, "order-svc", &["service"])).unwrap();
        trust(&path, trusted(&admin, "ops", &["admin"])).unwrap();
        let source = answering(vec![users.public_jwk().clone()]);
        let verifier = Verifier::start("user-svc", &[path], source).unwrap();
        verifier.learn().await;
        Self { _folder: folder, users, service, admin, verifier }
    }

    /// A token of Ada's, with one claim put in another's place.
    fn with(&self, claim: &str, value: Value) -> String {
        let mut claims = json!(user());
        claims[claim] = value;
        signed(&self.users, &header(&self.users), &claims)
    }

    fn refused(&self, token: &str) -> TokenError {
        self.verifier.verify_at_once(token).expect_err(token)
    }
}

fn answering(keys: Vec<Jwk>) -> KeySource {
    KeySource::new(move || std::future::ready(Ok::<_, String>(keys.clone())))
}

fn trusted(key: &SigningKey, iss: &str, roles: &[&str]) -> TrustedKey {
    let roles = roles.iter().map(|role| role.to_string()).collect();
    TrustedKey { key: key.public_jwk().clone(), iss: iss.to_owned(), roles }
}

fn header(key: &SigningKey) -> Value {
    json!({"typ": "JWT", "alg": "EdDSA", "kid": key.kid()})
}

fn user() -> Claims {
    Claims::new(USER_ISSUER, Role::User, ADA, ["meshwork"], clock::wall(), 15 * MINUTE)
}

fn named(issuer: &str, role: Role) -> Claims {
    Claims::new(issuer, role, issuer, ["user-svc"], clock::wall(), 5 * MINUTE)
}

fn token(key: &SigningKey, claims: &Claims) -> String {
    mint(key, claims).expose().to_owned()
}

#[tokio::test]
async fn a_token_speaks_for_whom_its_key_may_sign() {
    let world = World::new().await;
    let ada = world.verifier.verify(&token(&world.users, &user())).await.unwrap();
    assert_eq!((ada.role(), ada.subject(), ada.issuer()), (Role::User, ADA, "user-svc"));
    assert_eq!(ada.owner(), Some(ADA.parse().unwrap()));
    let program = world.verifier.verify(&token(&world.service, &named("order-svc", Role::Service))).await.unwrap();
    assert_eq!((program.role(), program.subject(), program.owner()), (Role::Service, "order-svc", None));
    let operator = world.verifier.verify(&token(&world.admin, &named("ops", Role::Admin))).await.unwrap();
    assert_eq!((operator.role(), operator.owner()), (Role::Admin, None));

    for (key, claims) in [
        (&world.users, named("ops", Role::Admin)),
        (&world.users, Claims { role: Role::Admin, ..user() }),
        (&world.users, Claims { role: Role::Service, ..user() }),
        (&world.users, Claims { iss: "order-svc".to_owned(), ..user() }),
        (&world.service, named("order-svc", Role::Admin)),
        (&world.service, named("ops", Role::Service)),
        (&world.service, user()),
        (&world.admin, named("ops", Role::Service)),
        (&world.admin, user()),
        (&world.admin, Claims { iss: "ops".to_owned(), ..user() }),
    ] {
        assert_eq!(world.refused(&token(key, &claims)), TokenError::NotGranted, "{claims:?}");
    }
    let nobody = Claims { sub: "ada".to_owned(), ..user() };
    assert!(matches!(world.refused(&token(&world.users, &nobody)), TokenError::Malformed(_)));
}

#[tokio::test]
async fn the_algorithm_is_ours_and_not_the_tokens() {
    let world = World::new().await;
    let (claims, kid) = (json!(user()), world.users.kid());
    let unsigned = |_: &str| String::new();
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let token = forged(&json!({"alg": alg, "kid": kid}), &claims, unsigned);
        assert!(matches!(world.refused(&token), TokenError::Malformed(_)), "{alg}");
    }
    // The public key as the secret of an HMAC, in each form that somebody might hand to a careless library.
    let x = &world.users.public_jwk().x;
    let raw = Base64UrlUnpadded::decode_vec(x).unwrap();
    let jwk = serde_json::to_vec(world.users.public_jwk()).unwrap();
    for secret in [raw.as_slice(), x.as_bytes(), &jwk] {
        let hmac = |message: &str| {
            let key = jsonwebtoken::EncodingKey::from_secret(secret);
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap()
        };
        for alg in ["HS256", "EdDSA"] {
            let token = forged(&json!({"alg": alg, "kid": kid}), &claims, hmac);
            assert!(matches!(world.refused(&token), TokenError::Malformed(_) | TokenError::Signature), "{alg}");
        }
    }
    for alg in ["HS256", "ES256", "RS256", "PS512"] {
        let token = signed(&world.users, &json!({"alg": alg, "kid": kid}), &claims);
        assert_eq!(world.refused(&token), TokenError::Malformed("its alg is not EdDSA"), "a good signature, {alg}");
    }
    let token = signed(&world.users, &json!({"kid": kid}), &claims);
    assert!(matches!(world.refused(&token), TokenError::Malformed(_)), "no alg");
}

#[tokio::test]
async fn a_kid_is_an_index_into_loaded_keys() {
    let world = World::new().await;
    let stranger = SigningKey::generate().unwrap();
    let claims = json!(user());
    for kid in [
        "../../../../etc/passwd",
        "/dev/null",
        "file:///proc/self/environ",
        "http://127.0.0.1:1/jwks.json",
        "x' UNION SELECT 'key",
        "",
        stranger.kid(),
    ] {
        let token = signed(&stranger, &json!({"alg": "EdDSA", "kid": kid}), &claims);
        assert_eq!(world.refused(&token), TokenError::UnknownKey, "{kid}");
    }
    // Keys, and addresses of keys, that a token brings along.
    let brought = json!({
        "alg": "EdDSA",
        "kid": world.users.kid(),
        "jwk": {"kty": "OKP", "crv": "Ed25519", "x": stranger.public_jwk().x},
        "jku": "http://127.0.0.1:1/jwks.json",
        "x5u": "http://127.0.0.1:1/x5u.pem",
    });
    assert_eq!(world.refused(&signed(&stranger, &brought, &claims)), TokenError::Signature);
    for kid in [json!(null), json!(7), json!([world.users.kid()]), json!({"kid": world.users.kid()})] {
        let token = signed(&world.users, &json!({"alg": "EdDSA", "kid": kid}), &claims);
        assert!(matches!(world.refused(&token), TokenError::Malformed(_)), "{kid}");
    }
    let critical = json!({"alg": "EdDSA", "kid": world.users.kid(), "crit": ["b64"], "b64": false});
    assert!(matches!(world.refused(&signed(&world.users, &critical, &claims)), TokenError::Malformed(_)));
}

#[tokio::test]
async fn every_claim_is_there_and_has_its_type() {
    let world = World::new().await;
    let good = json!(user());
    assert!(world.verifier.verify_at_once(&signed(&world.users, &header(&world.users), &good)).is_ok());
    for claim in ["iss", "sub", "aud", "role", "iat", "nbf", "exp", "jti"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(claim);
        let token = signed(&world.users, &header(&world.users), &claims);
        assert!(matches!(world.refused(&token), TokenError::Malformed(_)), "without {claim}");
        for value in [json!(null), json!(true), json!({}), json!([[]]), json!({"$gt": ""}), json!([7])] {
            assert!(
                matches!(world.refused(&world.with(claim, value.clone())), TokenError::Malformed(_)),
                "{claim} {value}"
            );
        }
    }
    for claim in ["iat", "nbf", "exp"] {
        let number = good[claim].as_u64().unwrap();
        for value in [json!(number.to_string()), json!(number as f64 + 0.5), json!(-1), json!([number]), json!(1e300)] {
            assert!(
                matches!(world.refused(&world.with(claim, value.clone())), TokenError::Malformed(_)),
                "{claim} {value}"
            );
        }
    }
    for claim in ["iss", "sub", "role", "jti"] {
        let text = good[claim].clone();
        for value in [json!([text]), json!({"0": text}), json!(7), json!("")] {
            let error = world.refused(&world.with(claim, value.clone()));
            assert!(matches!(error, TokenError::Malformed(_) | TokenError::NotGranted), "{claim} {value}");
        }
    }
    let twice = good.to_string().replacen('{', r#"{"role":"admin","#, 1);
    let twice: Value = Value::String(twice);
    let message = |part: &str| Base64UrlUnpadded::encode_string(part.as_bytes());
    let text = format!("{}.{}", message(&header(&world.users).to_string()), message(twice.as_str().unwrap()));
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), world.users.encoding(), jsonwebtoken::Algorithm::EdDSA);
    let token = format!("{text}.{}", signature.unwrap());
    assert!(matches!(world.refused(&token), TokenError::Malformed(_)), "one claim twice");
}

#[tokio::test]
async fn a_token_is_for_somebody() {
    let world = World::new().await;
    for audience in [json!("meshwork"), json!("user-svc"), json!(["order-svc", "user-svc"])] {
        assert!(world.verifier.verify_at_once(&world.with("aud", audience.clone())).is_ok(), "{audience}");
    }
    for audience in [json!("order-svc"), json!([]), json!(""), json!(["Meshwork"]), json!("meshwork,user-svc")] {
        assert_eq!(world.refused(&world.with("aud", audience.clone())), TokenError::Audience, "{audience}");
    }
    let for_all =
        Claims { aud: vec!["meshwork".to_owned(), "user-svc".to_owned()], ..named("order-svc", Role::Service) };
    assert_eq!(
        world.refused(&token(&world.service, &for_all)),
        TokenError::Audience,
        "a program's own is for one alone"
    );
    let many: Vec<_> = (0..17).map(|_| "meshwork").collect();
    assert!(matches!(world.refused(&world.with("aud", json!(many))), TokenError::Malformed(_)));
}

#[tokio::test]
async fn a_token_holds_for_a_time() {
    let world = World::new().await;
    let verify = |claims: &Claims, at: SystemTime| {
        // Each time another token, so that none is remembered.
        let claims = Claims { jti: crate::entropy::uuid_v4().to_string(), ..claims.clone() };
        world.verifier.verify_at(&token(&world.users, &claims), at)
    };
    let (now, claims) = (clock::wall(), user());
    let seconds = Duration::from_secs;
    assert!(verify(&claims, now + 15 * MINUTE + seconds(29)).is_ok(), "clocks may differ by 30 s");
    assert_eq!(verify(&claims, now + 15 * MINUTE + seconds(31)), Err(TokenError::Expired));
    // The same token, which was verified before: what is remembered of it ends with it.
    let shown = token(&world.users, &claims);
    assert!(world.verifier.verify_at(&shown, now).is_ok());
    assert_eq!(world.verifier.verify_at(&shown, now + 16 * MINUTE), Err(TokenError::Expired));
    assert!(verify(&claims, now - seconds(29)).is_ok());
    assert_eq!(verify(&claims, now - seconds(31)), Err(TokenError::NotYet));
    assert_eq!(verify(&Claims { nbf: claims.nbf + 60, ..claims.clone() }, now), Err(TokenError::NotYet));
    assert!(verify(&Claims { nbf: claims.nbf + 60, ..claims.clone() }, now + MINUTE).is_ok());
    assert!(matches!(verify(&Claims { exp: claims.iat - 1, ..claims.clone() }, now), Err(TokenError::Malformed(_))));
    assert_eq!(verify(&Claims { exp: claims.exp + 1, ..claims.clone() }, now), Err(TokenError::TooLong));
    assert_eq!(verify(&Claims { exp: u64::MAX, ..claims.clone() }, now), Err(TokenError::TooLong));
    assert_eq!(verify(&Claims { exp: u64::MAX, iat: u64::MAX, ..claims }, now), Err(TokenError::NotYet));
    for (key, issuer, role) in [(&world.service, "order-svc", Role::Service), (&world.admin, "ops", Role::Admin)] {
        let claims = |life| Claims::new(issuer, role, issuer, ["user-svc"], now, life);
        let life = lifetime_max(role);
        assert!(world.verifier.verify_at(&token(key, &claims(life)), now).is_ok());
        assert_eq!(world.verifier.verify_at(&token(key, &claims(life + seconds(1))), now), Err(TokenError::TooLong));
    }
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let world = World::new().await;
    let good = token(&world.users, &user());
    for cut in 0..good.len() {
        assert!(world.verifier.verify_at_once(&good[..cut]).is_err(), "the first {cut} bytes");
    }
    let (message, signature) = good.rsplit_once('.').unwrap();
    let other = token(&world.users, &Claims { sub: ADA.replace("ada", "bad"), ..user() });
    let (other, _) = other.rsplit_once('.').unwrap();
    assert_eq!(world.refused(&format!("{other}.{signature}")), TokenError::Signature, "another's signature");
    assert_eq!(world.refused(&format!("{message}.")), TokenError::Signature);
    for text in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "a.b.c.d.e",
        "é.é.é",
        &format!("{good}."),
        &format!("{good}="),
        &format!(" {good}"),
    ] {
        assert!(world.verifier.verify_at_once(text).is_err(), "{text}");
    }
    let long = world.with("padding", json!("x".repeat(4 << 10)));
    assert_eq!(world.refused(&long), TokenError::Malformed("it is longer than 4096 bytes"));
    assert!(world.verifier.verify_at_once(&good).is_ok());
}

/// A source that counts its questions and answers what a test puts into it.
#[derive(Clone, Default)]
struct Told {
    asked: Arc<AtomicUsize>,
    answer: Arc<Mutex<Option<Vec<Jwk>>>>,
}

impl Told {
    fn source(&self) -> KeySource {
        let told = self.clone();
        KeySource::new(move || {
            told.asked.fetch_add(1, Ordering::SeqCst);
            let answer = Arc::clone(&told.answer);
            async move { answer.lock().await.clone().ok_or("nobody answers") }
        })
    }

    async fn now(&self, keys: &[&SigningKey]) {
        *self.answer.lock().await = Some(keys.iter().map(|key| key.public_jwk().clone()).collect());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn without_keys_it_cannot_tell_and_then_it_can() {
    let (told, key) = (Told::default(), SigningKey::generate().unwrap());
    let verifier = Verifier::start("user-svc", &[], told.source()).unwrap();
    let token = token(&key, &user());
    assert_eq!(verifier.verify(&token).await, Err(TokenError::KeysUnavailable));
    assert!(matches!(verifier.verify("nonsense").await, Err(TokenError::Malformed(_))), "which no key would mend");
    told.now(&[]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(verifier.verify(&token).await, Err(TokenError::KeysUnavailable), "an empty answer is none");
    told.now(&[&key]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(verifier.verify(&token).await.is_ok());
    let stranger = SigningKey::generate().unwrap();
    assert_eq!(verifier.verify(mint(&stranger, &user()).expose()).await, Err(TokenError::UnknownKey));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_asked_for_thrice_and_then_once_in_ten_seconds_for_all_who_wait() {
    let (told, first, second) = (Told::default(), SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    told.now(&[&first]).await;
    let verifier = Verifier::start("user-svc", &[], told.source()).unwrap();
    assert!(verifier.verify(&token(&first, &user())).await.is_ok(), "the first answer is waited for");
    assert_eq!(told.asked(), 1);
    let fresh = token(&second, &user());
    for _ in 0..10 {
        assert_eq!(verifier.verify(&fresh).await, Err(TokenError::UnknownKey));
    }
    assert_eq!(told.asked(), 4, "thrice at once");
    tokio::time::sleep(Duration::from_secs(10)).await;
    told.now(&[&first, &second]).await;
    let waiting = (0..100).map(|_| {
        let (verifier, fresh) = (verifier.clone(), fresh.clone());
        tokio::spawn(async move { verifier.verify(&fresh).await })
    });
    for answer in waiting.collect::<Vec<_>>() {
        assert!(answer.await.unwrap().is_ok());
    }
    assert_eq!(told.asked(), 5, "once for all");
    let stranger = token(&SigningKey::generate().unwrap(), &user());
    let begun = clock::now();
    while clock::now() < begun + 10 * MINUTE {
        assert_eq!(verifier.verify(&stranger).await, Err(TokenError::UnknownKey));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked = told.asked() - 5;
    assert!((58..=62).contains(&asked), "asked {asked} times in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn keys_outlive_who_told_them_and_end_when_they_are_withdrawn() {
    let (told, old, new) = (Told::default(), SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    told.now(&[&old]).await;
    let verifier = Verifier::start("user-svc", &[], told.source()).unwrap();
    let claims = user();
    assert!(verifier.verify(&token(&old, &claims)).await.is_ok());
    *told.answer.lock().await = None;
    tokio::time::sleep(60 * MINUTE).await;
    assert!(verifier.verify(&token(&old, &claims)).await.is_ok(), "nobody has answered for an hour");
    let asked = told.asked();
    assert!((300..400).contains(&asked), "asked {asked} times in an hour");
    told.now(&[&new]).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(verifier.verify(&token(&old, &claims)).await, Err(TokenError::UnknownKey), "remembered or not");
    assert!(verifier.verify(&token(&new, &claims)).await.is_ok());
    assert_eq!(Arc::strong_count(&told.asked), 2);
    drop(verifier);
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&told.asked), 1, "its task has ended");
}

#[tokio::test(start_paused = true)]
async fn a_trusted_key_comes_and_goes_without_a_restart() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("trusted.json");
    let [first, second] = [(); 2].map(|()| SigningKey::generate().unwrap());
    trust(&path, trusted(&first, "ops", &["admin"])).unwrap();
    let verifier = Verifier::start("user-svc", std::slice::from_ref(&path), KeySource::none()).unwrap();
    let by = |key: &SigningKey| token(key, &named("ops", Role::Admin));
    assert!(verifier.verify(&by(&first)).await.is_ok());
    assert_eq!(verifier.verify(&by(&second)).await, Err(TokenError::UnknownKey));
    trust(&path, trusted(&second, "ops", &["admin", "service"])).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(verifier.verify(&by(&second)).await.is_ok(), "as soon as it is used");
    assert!(verifier.verify(&by(&first)).await.is_ok());

    std::fs::write(&path, "{").unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(verifier.verify(&by(&first)).await.is_ok(), "a file that cannot be read changes nothing");
    std::fs::write(&path, r#"{"keys": []}"#).unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(verifier.verify(&by(&first)).await, Err(TokenError::KeysUnavailable), "there is no key at all now");
}

#[tokio::test]
async fn what_is_no_set_of_trusted_keys_is_refused_at_the_start() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("trusted.json");
    let key = SigningKey::generate().unwrap();
    let start = |path: &Path| Verifier::start("user-svc", &[path.to_owned()], KeySource::none()).map(drop);
    let entry = json!(trusted(&key, "ops", &["admin"]));
    let with = |member: &str, value: Value| {
        let mut entry = entry.clone();
        entry[member] = value;
        json!({"keys": [entry]}).to_string()
    };
    std::fs::write(&path, with("use", json!("sig"))).unwrap();
    start(&path).unwrap();
    for (what, text) in [
        ("nothing", String::new()),
        ("no set", "[]".to_owned()),
        ("a private key", with("d", json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))),
        ("a user's role", with("roles", json!(["user"]))),
        ("no role", with("roles", json!([]))),
        ("an unknown role", with("roles", json!(["root"]))),
        ("an issuer with a line break", with("iss", json!("ops\n"))),
        ("no issuer", with("iss", json!(""))),
        ("a name of its own", with("kid", json!("ops-1"))),
        ("too much", " ".repeat(300 << 10)),
        ("too many", json!({"keys": vec![entry.clone(); 257]}).to_string()),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = start(&path).expect_err(what).to_string();
        assert!(error.contains("trusted.json"), "{what}: {error}");
    }
    assert!(start(&folder.path().join("none")).is_err());
    std::fs::write(&path, with("use", json!("sig"))).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o664);
    std::fs::set_permissions(&path, open).unwrap();
    assert!(start(&path).is_err(), "everybody may write it");
}
