//! The command line, as people and programs see it.

mod harness;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::{LONG, Ran, Story, nobody_there, run};
use mesh_api::registry::v1::AdminState;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

fn done(ran: &Ran) -> &str {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout.as_str()
}

/// The columns of a table, in words.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_is_looked_at_and_changed() {
    let mut story = Story::begin(2, 1).await;
    let registry = story.mesh.registry_url().to_string();
    let at = registry.as_str();
    let mut users: Vec<_> =
        story.users.iter().map(|member| (member.id.to_string(), member.process.grpc().to_string())).collect();
    users.sort();
    let (id, address) = users[0].clone();

    let ran = run(["--registry", at, "services"]).await;
    assert_eq!(
        rows(done(&ran)),
        [
            vec!["SERVICE", "INSTANCES", "PICKABLE", "SUSPECT", "STALE", "PRESENCE", "REMOVALS"],
            vec!["order-svc", "1", "1", "0", "0", "POPULATED", "-"],
            vec!["user-svc", "2", "2", "0", "0", "POPULATED", "-"],
        ]
    );
    // Of several registries one is dead, and one takes the connection and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mute_at = mute.local_addr().expect("bound");
    for several in [format!("{},{mute_at},{at}", nobody_there()), format!("{at},{mute_at}")] {
        let ran = run(["--registry", &several, "services"]).await;
        assert_eq!(rows(done(&ran)).len(), 3);
    }
    let ran = run(["services", "-o", "json", "--registry", at]).await;
    let first: serde_json::Value =
        serde_json::from_str(done(&ran).lines().next().expect("a line")).expect("an object a line");
    assert_eq!(
        (&first["service"], &first["instances"], &first["presence"]),
        (&"order-svc".into(), &1.into(), &"SERVICE_PRESENCE_POPULATED".into())
    );
    assert_eq!(ran.stdout.lines().count(), 2);

    let ran = run(["--registry", at, "instances", "user-svc"]).await;
    let table = rows(done(&ran));
    assert_eq!(
        table[0],
        ["INSTANCE", "ADDRESS", "LIVENESS", "SERVING", "ADMIN", "PICKABLE", "ZONE", "WEIGHT", "VERSION"]
    );
    assert_eq!(table[1][..8], [id.as_str(), address.as_str(), "ALIVE", "SERVING", "ENABLED", "yes", "-", "100"]);
    assert_eq!(table.len(), 3);
    let ran = run(["--registry", at, "-o", "json", "instances", "user-svc"]).await;
    let listed: Vec<serde_json::Value> =
        done(&ran).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        (&listed[0]["instanceId"], &listed[0]["liveness"], &listed[0]["pickable"]),
        (&id.as_str().into(), &"LIVENESS_ALIVE".into(), &true.into())
    );

    let ran = run(["--registry", at, "drain", &id, "--expires", "10m"]).await;
    assert_eq!(done(&ran).trim(), format!("user-svc {id} at {address} is DRAINING now"));
    let draining = |view: &meshctl::ServiceView| view.admin_state(&id) == AdminState::Draining;
    story.user_news.until("the drain", LONG, draining).await.expect("it is told");
    let ran = run(["--registry", at, "instances", "user-svc"]).await;
    assert_eq!(rows(done(&ran))[1][2..6], ["ALIVE", "SERVING", "DRAINING", "no"]);

    // The ids are of one moment, so their beginnings are the same; the first that tells them apart is enough.
    let apart =
        id.char_indices().zip(users[1].0.chars()).find(|((_, a), b)| a != b).map_or(id.len(), |((at, _), _)| at + 1);
    let ran = run(["--registry", at, "enable", &id[..apart]]).await;
    assert!(done(&ran).contains("ENABLED"), "{ran:?}");
    let ran = run(["--registry", at, "enable", &id[..apart - 1]]).await;
    assert_eq!(ran.code, Some(2), "a beginning that several share is refused: {ran:?}");
    assert!(ran.stderr.contains(&id) && ran.stderr.contains(&users[1].0), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_called_by_what_they_say_of_themselves() {
    let story = Story::begin(2, 1).await;
    let ada = r#"{"request_id":"a-request-of-cli-rs","email":"ada@shop.test","displayName":"Ada","password":"correct horse"}"#;
    let ran = story.run(["-o", "json", "call", "user-svc", "CreateUser", ada]).await;
    assert_eq!(done(&ran).lines().count(), 1, "{ran:?}");
    let created: serde_json::Value = serde_json::from_str(done(&ran)).expect("JSON");
    let user_id = created["user"]["userId"].as_str().expect("she has an id");
    assert!(ran.stderr.is_empty() && !ran.stdout.contains("correct horse"), "{ran:?}");

    let wanted = format!(r#"{{"userId":"{user_id}"}}"#);
    for method in ["GetUser", "shop.user.v1.UserService/GetUser", "shop.user.v1.UserService.GetUser"] {
        let ran = story.run(["call", "user-svc", method, &wanted]).await;
        let answer: serde_json::Value = serde_json::from_str(done(&ran)).expect("JSON over several lines");
        assert_eq!(answer["user"]["displayName"], "Ada");
    }
    let order = format!(
        r#"{{"requestId":"an-order-of-cli-rs","userId":"{user_id}","items":[{{"sku":"tea","quantity":3,"unitPrice":{{"currencyCode":"EUR","units":"4","nanos":990000000}}}}]}}"#
    );
    let ran = story.run_with_input(["-o", "json", "call", "order-svc", "CreateOrder", "-"], &order).await;
    let placed: serde_json::Value = serde_json::from_str(done(&ran)).expect("JSON");
    assert_eq!(placed["order"]["total"]["units"], "14");

    let ran = story.run(["call", "user-svc", "CreateUser", &ada.replace("a-request", "another")]).await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.starts_with("error: ALREADY_EXISTS: ") && ran.stderr.contains("EMAIL_TAKEN (meshwork)"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn keys_and_tokens_are_made_for_their_owner_alone() {
    let folder = harness::folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (key, jwks) = (path("keys/operator.pem"), path("keys/trusted.jwks.json"));

    let ran = run(["key", "new", &key, "--role", "admin", "--jwks", &jwks]).await;
    assert!(done(&ran).contains("trusted as operator, for callers of role admin"), "{ran:?}");
    let mode = |file: &str| std::fs::metadata(file).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&key), mode(&jwks)), (0o600, 0o644));
    let trusted: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&jwks).expect("it is there")).expect("it is JSON");
    let entry = &trusted["keys"][0];
    assert_eq!((&entry["iss"], &entry["roles"]), (&"operator".into(), &serde_json::json!(["admin"])));
    assert!(entry.get("d").is_none(), "no private half: {entry}");

    let before = std::fs::read(&key).expect("it is there");
    let ran = run(["key", "new", &key, "--role", "service"]).await;
    assert_eq!((ran.code, ran.stderr.contains("never overwritten")), (Some(2), true), "{ran:?}");
    assert_eq!(std::fs::read(&key).expect("it is there"), before);
    let other = path("keys/mail-svc.pem");
    let ran = run(["-o", "json", "key", "new", &other, "--issuer", "mail-svc", "--role", "service"]).await;
    let printed: serde_json::Value = serde_json::from_str(done(&ran)).expect("JSON");
    assert_eq!((&printed["iss"], &printed["kty"]), (&"mail-svc".into(), &"OKP".into()));
    std::fs::write(&jwks, "[]").expect("it can be written");
    let ran = run(["key", "new", &path("third.pem"), "--role", "admin", "--jwks", &jwks]).await;
    assert_eq!((ran.code, ran.stderr.contains("is no set of trusted keys")), (Some(2), true), "{ran:?}");
    assert!(!Path::new(&path("third.pem")).exists(), "a key that nobody can be told of is not made");

    let ran = run(["token", "--key", &key]).await;
    assert_eq!((done(&ran).lines().count(), ran.stderr.as_str()), (1, ""), "the token and nothing else: {ran:?}");
    assert_eq!(ran.stdout.trim_end().split('.').count(), 3);
    let ran = run(["-o", "json", "token", "--key", &key, "--ttl", "5m", "--audience", "user-svc"]).await;
    let told: serde_json::Value = serde_json::from_str(done(&ran)).expect("JSON");
    assert_eq!(
        (&told["issuer"], &told["subject"], &told["role"], &told["audience"], &told["kid"]),
        (&"operator".into(), &"operator".into(), &"admin".into(), &serde_json::json!(["user-svc"]), &entry["kid"])
    );

    for (args, why) in [
        (["--ttl", "25h"], "24h0m, which admin may have"),
        (["--ttl", "500ms"], "not between 1s"),
        (["--role", "user"], "possible values: admin, service"),
        (["--subject", "two words"], "without blanks"),
    ] {
        let [flag, value] = args;
        let ran = run(["token", "--key", &key, flag, value]).await;
        assert_eq!((ran.code, ran.stderr.contains(why)), (Some(2), true), "{args:?}: {ran:?}");
    }
    for mode in [0o644, 0o640, 0o660] {
        std::fs::set_permissions(&key, Permissions::from_mode(mode)).expect("it is ours");
        let ran = run(["token", "--key", &key]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{mode:o}");
        assert!(ran.stderr.contains(&key) && ran.stderr.contains("chmod 600"), "{ran:?}");
    }
    let ran = run(["token", "--key", &path("none.pem")]).await;
    assert_eq!((ran.code, ran.stderr.contains("none.pem")), (Some(2), true), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_is_asked_and_told_what_to_do() {
    let story = Story::begin(1, 1).await;
    let (registry, key) = (story.mesh.registry_url().to_string(), story.mesh.operator_key());
    let (at, key) = (registry.as_str(), key.display().to_string());
    let refused = |ran: &Ran, reason: &str, advice: &str| {
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.contains(reason) && ran.stderr.contains(advice), "{reason}: {ran:?}");
        assert!(ran.stderr.contains("`meshctl token --key FILE"), "{ran:?}");
    };

    let ran = run(["--registry", at, "call", "user-svc", "ListUsers"]).await;
    refused(&ran, "reason TOKEN_MISSING (meshwork)", "no token was sent");
    let nonsense = "nobody.made.this";
    let ran = run(["--registry", at, "call", "user-svc", "ListUsers", "--token", nonsense]).await;
    refused(&ran, "reason TOKEN_INVALID (meshwork)", "is not taken");
    assert!(!ran.stderr.contains(nonsense), "what may be a secret is not repeated: {ran:?}");
    let stranger = story.folder.path().join("operator.pem").display().to_string();
    done(&run(["key", "new", &stranger, "--role", "admin"]).await);
    let forged = run(["token", "--key", &stranger]).await;
    let ran = run(["--registry", at, "call", "user-svc", "ListUsers", "--token", done(&forged).trim()]).await;
    refused(&ran, "reason TOKEN_INVALID (meshwork)", "is not taken");

    let token = story.folder.path().join("token");
    std::fs::write(&token, done(&run(["token", "--key", &key]).await)).expect("it can be written");
    let from_file = format!("@{}", token.display());
    done(&run(["--registry", at, "call", "user-svc", "ListUsers", "--token", &from_file]).await);
    let ran = run(["--registry", at, "call", "user-svc", "ListUsers", "--token", "@/no/such/file"]).await;
    assert_eq!((ran.code, ran.stderr.contains("/no/such/file")), (Some(2), true), "{ran:?}");
    let elsewhere = run(["token", "--key", &key, "--audience", "order-svc"]).await;
    let ran = run(["--registry", at, "call", "user-svc", "ListUsers", "--token", done(&elsewhere).trim()]).await;
    refused(&ran, "reason TOKEN_INVALID (meshwork)", "is not taken");

    let new = |name: &str| {
        format!(
            r#"{{"request_id":"{name}-of-cli-rs-0001","email":"{name}@shop.test","displayName":"{name}","password":"correct horse"}}"#
        )
    };
    let mut ids = Vec::new();
    for name in ["ada", "bob"] {
        let ran = run(["--registry", at, "-o", "json", "call", "user-svc", "CreateUser", &new(name)]).await;
        let created: serde_json::Value = serde_json::from_str(done(&ran)).expect("JSON");
        ids.push(created["user"]["userId"].as_str().expect("an id").to_owned());
    }
    let login = r#"{"email":"ada@shop.test","password":"correct horse"}"#;
    let ran = run(["--registry", at, "-o", "json", "call", "user-svc", "Login", login]).await;
    let login: serde_json::Value = serde_json::from_str(done(&ran)).expect("JSON");
    let ada = login["accessToken"].as_str().expect("a token");
    let get = |id: &str| format!(r#"{{"userId":"{id}"}}"#);
    let ran = run(["--registry", at, "call", "user-svc", "GetUser", &get(&ids[0]), "--token", ada]).await;
    assert!(done(&ran).contains("ada@shop.test"), "{ran:?}");
    let ran = run(["--registry", at, "call", "user-svc", "GetUser", &get(&ids[1]), "--token", ada]).await;
    assert!(ran.stderr.starts_with("error: NOT_FOUND: "), "another's account is none: {ran:?}");
    let ran = run(["--registry", at, "call", "user-svc", "ListUsers", "--token", ada]).await;
    refused(&ran, "reason ROLE_REQUIRED (meshwork)", "but not for this");
}

/// Somebody between callers and the registry who takes half a second for every connection.
async fn slow_way_to(registry: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let at = listener.local_addr().expect("a bound socket has an address").to_string();
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let registry = registry.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let mut registry = TcpStream::connect(registry).await?;
                tokio::io::copy_bidirectional(&mut caller, &mut registry).await
            });
        }
    });
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_of_a_call_covers_all_of_it() {
    let story = Story::begin(1, 1).await;
    let slow = slow_way_to(story.mesh.registry_url().to_string()).await;
    // The name is looked up over one connection, and the call finds its way over another: half a second each.
    let call = |timeout| story.run(["--registry", &slow, "--timeout", timeout, "call", "user-svc", "ListUsers"]);
    let ran = call("900ms").await;
    assert_eq!(ran.code, Some(1), "neither part takes too long, both together do: {ran:?}");
    // On a slow machine the first part alone is too long.
    assert!(ran.stderr.contains("DEADLINE_EXCEEDED") || ran.stderr.contains("within 900ms"), "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
    done(&call("20s").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_is_there_and_what_changes() {
    let mut story = Story::begin(1, 1).await;
    let registry = story.mesh.registry_url().to_string();
    let watch = |format: &str| {
        let mut command = harness::command();
        command
            .args(["--registry", &registry, "-o", format, "watch", "user-svc"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
        (child, lines)
    };
    let (mut people, mut words) = watch("table");
    let (_programs, mut objects) = watch("json");

    let first = words.next_line().await.unwrap().expect("it tells what is there");
    assert!(first.starts_with("joined ") && first.contains(&story.users[0].id.to_string()), "{first}");
    let first: serde_json::Value = serde_json::from_str(&objects.next_line().await.unwrap().expect("a line")).unwrap();
    assert_eq!(first["snapshot"]["instances"][0]["instanceId"], story.users[0].id.to_string());

    let second = story.mesh.join(meshctl::Program::UserSvc, meshctl::Listen::Free).await.expect("it starts");
    let id = second.id.to_string();
    let told = async {
        while !words.next_line().await.unwrap().expect("it goes on").contains(&id) {}
        while !objects.next_line().await.unwrap().expect("it goes on").contains(&id) {}
    };
    tokio::time::timeout(LONG, told).await.expect("the change is told");

    let pid = people.id().and_then(|id| Pid::from_raw(id as i32)).expect("it runs");
    kill_process(pid, Signal::INT).expect("it is ours");
    let status = tokio::time::timeout(LONG, people.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0), "Ctrl-C is how a watch ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_is_not_complained_about() {
    let mut story = Story::begin(1, 1).await;
    // A registry that has only just begun says so; this is about saying nothing.
    let complete = story.user_news.until("the registry to know everything", LONG, meshctl::ServiceView::complete);
    complete.await.expect("it has heard of everybody after a TTL");
    let mut child = harness::command();
    child.args(["--registry", &story.mesh.registry_url().to_string(), "services"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[tokio::test]
async fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(["completions", shell]).await;
        for command in [
            "demo",
            "up",
            "serve",
            "services",
            "instances",
            "watch",
            "events",
            "doctor",
            "explain",
            "call",
            "key",
            "token",
            "drain",
            "enable",
            "registry",
            "completions",
        ] {
            assert!(done(&ran).contains(command), "{shell} does not complete {command}");
        }
        assert!(!ran.stdout.contains("end-with-parent"), "what is not for people is not offered");
    }
}

#[tokio::test]
async fn help_and_version_are_answers() {
    let ran = run(["--help"]).await;
    assert!(done(&ran).contains("meshctl demo") && ran.stderr.is_empty(), "{ran:?}");
    let ran = run(["--version"]).await;
    assert!(done(&ran).starts_with("meshctl "), "{ran:?}");
    for (command, shown) in [
        (vec!["call"], "MESH_TOKEN"),
        (vec!["token"], "export MESH_TOKEN=$(meshctl token --key mesh-data/keys/operator.pem)"),
        (vec!["key", "new"], "--role admin --jwks keys/trusted.jwks.json"),
    ] {
        let output = harness::command().env("MESH_TOKEN", "a.secret.token").args(&command).arg("--help").output().await;
        let said = String::from_utf8(output.expect("it runs").stdout).expect("it prints text");
        assert!(said.contains(shown) && !said.contains("a.secret.token"), "{command:?}: {said}");
    }
    let ran = run(["serve", "user-svc", "--help"]).await;
    assert!(done(&ran).contains("--database"), "a server's own help: {ran:?}");
}
