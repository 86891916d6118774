//! The gateway in front of real processes: services that it has never seen, accounts and orders over REST, and a whole
//! deployment that is replaced under requests.

#[path = "../harness/mod.rs"]
mod harness;
mod shop;
mod tea;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness::{LONG, Story, folder, http_get, plan, roll};
use http::{Method, StatusCode};
use mesh_runtime::clock;
use meshctl::{Follower, Listen, LocalMesh, Member, Program, RestClient};
use serde_json::{Value, json};
use shop::Shop;
use tea::Tea;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the issue gives a service to be reachable, and to be gone.
const SOON: Duration = Duration::from_secs(2);

/// A registry and a gateway, and no service at all.
struct Bare {
    mesh: LocalMesh,
    gateway: Member,
    rest: RestClient,
    _folder: TempDir,
}

impl Bare {
    async fn begin() -> Bare {
        let folder = folder();
        let mut mesh = LocalMesh::without_registry(plan(folder.path())).expect("its log folder can be made");
        mesh.start_registry().await.expect("the registry starts");
        let gateway = mesh.join(Program::Gateway, Listen::Free).await.expect("the gateway starts");
        let rest = RestClient::new(vec![gateway.process.rest()], None);
        Bare { mesh, gateway, rest, _folder: folder }
    }

    async fn tea(&self) -> (StatusCode, Value) {
        let answer = self.rest.send(Method::GET, "/v1/teas/green?strength=3", None).await.expect("it answers");
        (answer.status, answer.json())
    }

    /// Waits until the tea comes with this status; answers with how long that took, and with what came.
    async fn until_tea(&self, status: StatusCode) -> (Duration, Value) {
        let began = clock::now();
        while began.elapsed() < LONG {
            let (answered, tea) = self.tea().await;
            if answered == status {
                return (began.elapsed(), tea);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited {LONG:?} for {status}, in vain: {:?}", self.tea().await);
    }

    async fn paths(&self) -> Vec<String> {
        let document = self.rest.send(Method::GET, "/openapi.json", None).await.expect("it answers");
        assert_eq!(document.status, StatusCode::OK);
        let paths = document.json()["paths"].as_object().expect("an OpenAPI document has paths").clone();
        paths.into_iter().map(|(path, _)| path).collect()
    }

    /// What the admin port shows of routes.
    async fn routes(&self) -> String {
        let (status, text) = http_get(self.gateway.process.http(), "/routes").await.expect("it answers");
        assert_eq!(status, 200);
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_the_gateway_has_never_seen_comes_and_goes() {
    let bare = Bare::begin().await;
    assert_eq!(bare.tea().await.0, StatusCode::NOT_FOUND);
    assert_eq!(bare.paths().await, Vec::<String>::new());

    let server = Tea::start("tea-svc", bare.mesh.registry_url().to_string()).await;
    let (took, tea) = bare.until_tea(StatusCode::OK).await;
    println!("reachable {took:?} after its start");
    assert!(took < SOON, "it took {took:?}");
    assert_eq!(tea, json!({"kind": "green", "minutesBrewed": 5, "madeBy": "tea-svc"}));
    assert_eq!(bare.paths().await, ["/v1/teas/{kind}"]);
    let unversioned = bare.rest.send(Method::GET, "/teas/black", None).await.expect("it answers");
    assert_eq!((unversioned.status, unversioned.json()["kind"].clone()), (StatusCode::OK, json!("black")));
    assert!(bare.routes().await.contains("/v1/teas/{kind}"));

    server.end().await;
    // For a moment its callers wait for a successor, so the document is what tells.
    let began = clock::now();
    while !bare.paths().await.is_empty() {
        assert!(began.elapsed() < LONG, "it is not gone");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed();
    println!("gone {took:?} after its deregistration");
    assert!(took < SOON, "it took {took:?}");
    let (status, gone) = bare.tea().await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!((gone["code"].clone(), gone["details"][0]["reason"].clone()), (json!(5), json!("ROUTE_UNKNOWN")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_claims_a_route_first_keeps_it_until_it_is_gone() {
    let bare = Bare::begin().await;
    let registry = bare.mesh.registry_url().to_string();
    // By name the second one would come first.
    let first = Tea::start("tea-svc", registry.clone()).await;
    bare.until_tea(StatusCode::OK).await;
    let second = Tea::start("a-tea-svc", registry).await;
    let refused = "refused: GET /v1/teas/{kind} of a-tea-svc: tea-svc keeps it";
    let began = clock::now();
    while !bare.routes().await.contains(refused) {
        assert!(began.elapsed() < LONG, "the claim is not refused: {}", bare.routes().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..20 {
        assert_eq!(bare.tea().await.1["madeBy"], "tea-svc");
    }
    let (_, metrics) = http_get(bare.gateway.process.http(), "/metrics").await.expect("it answers");
    assert!(!metrics.contains("\ngateway_routes_refused 0\n"), "the refused claims are counted");

    first.end().await;
    let began = clock::now();
    while bare.tea().await.1["madeBy"] != "a-tea-svc" {
        assert!(began.elapsed() < LONG, "its route is free, and nobody takes it: {}", bare.routes().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!bare.routes().await.contains("refused:"));
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_orders_are_kept_over_rest() {
    let mut story = Story::begin(1, 1).await;
    let gateway = story.mesh.join(Program::Gateway, Listen::Free).await.expect("the gateway starts");
    let shop = Shop::of(vec![gateway.process.rest()], &story.mesh);
    shop.is_kept().await;

    // Whoever looks at the registry sees the gateway too.
    let ran = story.run(["instances", "gateway"]).await;
    assert!(ran.stdout.contains(&gateway.process.rest().to_string()), "{ran:?}");
}

/// Requests per second while everything is replaced.
const RATE: u32 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_gateways_and_services_are_replaced() {
    let mut story = Story::begin(2, 2).await;
    let wanted = [(Program::Gateway, Listen::Free); 2];
    let gateways = story.mesh.join_all(&wanted).await.expect("the gateways start");
    let mut news = Follower::start(story.mesh.followed(Program::Gateway), |_| {});
    let at: Vec<_> = gateways.iter().map(|gateway| gateway.process.rest()).collect();
    for gateway in &gateways {
        let id = gateway.id.to_string();
        news.until("both gateways", LONG, |view| view.lists(&id)).await.expect("they register");
    }
    let shop = Arc::new(Shop::of(at, &story.mesh));
    let (user, order) = shop.a_customer().await;

    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let (sent, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let load = tokio::spawn({
        let (shop, stop, tracker, sent, failed) =
            (shop.clone(), stop.clone(), tracker.clone(), sent.clone(), failed.clone());
        async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                let (shop, failed, user, order) = (shop.clone(), failed.clone(), user.clone(), order.clone());
                tracker.spawn(async move {
                    let outcome = tokio::time::timeout(LONG, shop.one_request(number, &user, &order)).await;
                    if let Err(fault) = outcome.unwrap_or_else(|_| Err("no answer".to_owned())) {
                        failed.lock().expect("nobody panics with it").push(format!("request {number}: {fault}"));
                    }
                });
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;

    let gateways = roll(&mut story.mesh, gateways, &mut news).await;
    story.users = roll(&mut story.mesh, std::mem::take(&mut story.users), &mut story.user_news).await;
    story.orders = roll(&mut story.mesh, std::mem::take(&mut story.orders), &mut story.order_news).await;

    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    load.await.expect("it does not panic");
    tracker.close();
    tracker.wait().await;
    let failed = failed.lock().expect("nobody panics with it");
    println!("{} requests, {} failed", sent.load(Ordering::Relaxed), failed.len());
    assert_eq!(failed.len(), 0, "{failed:#?}");
    assert!(sent.load(Ordering::Relaxed) > u64::from(RATE) * 10, "the load went on all the time");
    drop(gateways);
}
