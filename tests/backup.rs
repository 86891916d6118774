//! `meshctl registry backup|restore|verify` on the stores of real registries.

mod harness;

use std::path::Path;

use harness::{Ran, folder, run};
use mesh_api::registry::v1::registry_service_client::RegistryServiceClient;
use mesh_api::registry::v1::{Endpoint, Protocol, RegisterRequest, ResolveRequest};
use meshctl::{Listen, LocalMesh, LocalMeshPlan};
use serde_json::Value;

/// A registry on a store in `store`.
async fn registry(folder: &Path, store: &Path) -> LocalMesh {
    let flags = vec!["--store".into(), format!("file:{}", store.display()).into()];
    let plan = LocalMeshPlan { registry: Listen::Free, registry_flags: flags, ..harness::plan(folder) };
    let mut mesh = LocalMesh::without_registry(plan).expect("its log folder can be made");
    mesh.start_registry().await.expect("the registry starts");
    mesh
}

fn told(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    serde_json::from_str(&ran.stdout).expect("one object")
}

fn refused(ran: &Ran, code: i32, why: &str) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.stderr.contains(why) && ran.stderr.starts_with("error: "), "{ran:?}");
    assert_eq!(ran.stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_kept_elsewhere_brought_back_and_served_again() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (store, kept, again) = (path("store"), path("kept.backup"), path("again"));
    let mut mesh = registry(folder.path(), Path::new(&store)).await;
    let mut stubs =
        RegistryServiceClient::connect(format!("http://{}", mesh.registry_url())).await.expect("it is there");
    for number in 1..=3_u8 {
        let grpc = Protocol::Grpc.into();
        let endpoint = Endpoint { name: "grpc".into(), protocol: grpc, ip: "127.0.0.1".into(), port: 9000 };
        let asked = RegisterRequest {
            service: "kept-svc".into(),
            instance_id: format!("0190a7b2-0000-7000-8000-0000000000{number:02x}"),
            start_nonce: vec![number; 16].into(),
            endpoints: vec![endpoint],
            ttl: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
            ..RegisterRequest::default()
        };
        stubs.register(asked).await.expect("it is valid");
    }

    // While the registry runs, named as the registry was told it.
    let ran = run(["registry", "backup", &format!("file:{store}"), &kept, "-o", "json"]).await;
    let backup = told(&ran);
    assert_eq!((&backup["services"], &backup["instances"]), (&1.into(), &3.into()), "{backup}");
    assert!(backup["bytes"].as_u64().is_some_and(|bytes| bytes > 100) && backup["takenAt"].is_string(), "{backup}");
    let ran = run(["registry", "verify", &kept]).await;
    println!("{}", ran.stdout);
    assert!(ran.stdout.starts_with(&format!("{kept} is sound: store ")) && ran.code == Some(0), "{ran:?}");
    let ran = run(["registry", "verify", &store, "-o", "json"]).await;
    assert_eq!(told(&ran)["storeId"], backup["storeId"], "a store that is open is looked through too");
    refused(&run(["registry", "backup", &store, &kept]).await, 2, "exists already");
    refused(&run(["registry", "restore", &kept, &store]).await, 2, "is not empty");

    let ran = run(["registry", "restore", &kept, &again]).await;
    println!("{}", ran.stdout);
    assert!(ran.code == Some(0) && ran.stdout.contains("meshctl serve registry --store file:"), "{ran:?}");
    mesh.drain_registry().await.expect("it ends well");
    let second = registry(folder.path(), Path::new(&again)).await;
    let mut stubs =
        RegistryServiceClient::connect(format!("http://{}", second.registry_url())).await.expect("it is there");
    let ask = ResolveRequest { service: "kept-svc".into(), ..ResolveRequest::default() };
    let answer = stubs.resolve(ask).await.expect("it is known").into_inner();
    assert_eq!(answer.instances.len(), 3);
    let position = answer.position.expect("a position");
    assert_eq!(Value::from(position.store_id), backup["storeId"]);
    let before: u64 = backup["generation"].as_str().expect("a number as text").parse().expect("a number");
    assert!(position.generation > before, "{} after {before}", position.generation);
}

#[tokio::test]
async fn what_is_no_store_and_what_is_no_backup_is_said_so() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (nothing, backup) = (path("nothing"), path("x.backup"));
    refused(&run(["registry", "backup", &nothing, &backup]).await, 2, "holds no registry store");
    assert!(!Path::new(&backup).exists() && !Path::new(&nothing).exists(), "nothing is left behind");
    refused(&run(["registry", "verify", &nothing]).await, 1, "No such file");
    let text = path("text");
    std::fs::write(&text, "this is no backup").expect("it can be written");
    refused(&run(["registry", "verify", &text]).await, 1, "is no sound backup");
    refused(&run(["registry", "restore", &text, &nothing]).await, 1, "nothing was written");
    assert!(!Path::new(&nothing).exists());
    let ran = run(["registry", "backup", "etcd:http://127.0.0.1:2379", &backup]).await;
    assert!(ran.code == Some(2) && ran.stderr.contains("etcdctl snapshot save"), "{ran:?}");
}
