//! Services start while there is no registry, and register when there is one. With a state folder they find each other
//! before that.

mod harness;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use harness::{LONG, Story, folder, http_get, nobody_there_yet, plan, until};
use mesh_api::shop::order::v1::order_service_client::OrderServiceClient;
use mesh_api::shop::order::v1::{CreateOrderRequest, Money, OrderItem};
use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use mesh_api::shop::user::v1::{CreateUserRequest, ListUsersRequest};
use mesh_client::{ConnectivityState, Mesh, MeshBuilder, MeshChannel};
use mesh_runtime::{clock, entropy};
use meshctl::{Follower, Listen, LocalMesh, Member, Operator, Program};
use sha2::{Digest, Sha256};
use tonic::{Code, Request, Status};

/// How long a call waits for a first endpoint when its deadline allows more (DESIGN §6).
const FAILFAST: Duration = Duration::from_secs(3);

async fn list_users(
    channel: &MeshChannel,
    operator: &Operator,
    deadline: Duration,
) -> (Option<tonic::Status>, Duration) {
    let mut request = Request::new(ListUsersRequest::default());
    request.set_timeout(deadline);
    let began = clock::now();
    let mut stubs = UserServiceClient::with_interceptor(channel.clone(), operator.clone());
    let answer = tokio::time::timeout(LONG, stubs.list_users(request)).await.expect("a call ends");
    (answer.err(), began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_start_without_a_registry_and_register_once_there_is_one() {
    let folder = folder();
    let mut plan = plan(folder.path());
    plan.registry = nobody_there_yet();
    let mut mesh = LocalMesh::without_registry(plan).expect("its log folder can be made");
    let wanted = [(Program::UserSvc, Listen::Free), (Program::OrderSvc, Listen::Free)];
    let members = mesh.join_all(&wanted).await.expect("they get ready without a registry");

    let client = Mesh::new([mesh.registry_url().to_string()]).expect("the registry's URL is one");
    let (channel, operator) = (client.channel("user-svc"), mesh.operator());
    // How much longer than this a call took depends on who else is on this machine: that is printed, not judged.
    let deadline = Duration::from_millis(300);
    let (status, took) = list_users(&channel, &operator, deadline).await;
    let status = status.expect("nobody can be there");
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable), "{status}");
    println!("a call with a deadline of {deadline:?} took {took:?}");
    assert!(took >= deadline, "a call waits for somebody until its deadline, not {took:?}");

    let (status, took) = list_users(&channel, &operator, Duration::from_secs(20)).await;
    // DEADLINE_EXCEEDED would say that it waited for all of its 20 s.
    assert_eq!(status.map(|status| status.code()), Some(Code::Unavailable));
    println!("a call with a deadline of 20 s took {took:?}");
    assert!(took >= FAILFAST, "a call waits 3 s for somebody, not {took:?}");

    for member in &members {
        let began = clock::now();
        while http_get(member.process.http(), "/readyz").await.expect("it answers").0 != 200 {
            assert!(began.elapsed() < LONG, "{} is never ready without a registry", member.process.name());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (_, body) = http_get(member.process.http(), "/readyz?verbose").await.expect("it answers");
        println!("{}: {body}", member.process.name());
    }

    mesh.start_registry().await.expect("the registry starts at the place where everybody looks for it");
    let mut news = Follower::start(mesh.followed(Program::UserSvc), |_| {});
    let id = members[0].id.to_string();
    news.until("the late registration", LONG, |view| view.lists(&id)).await.expect("it registers");
    until("the client to connect to it", || channel.state() == ConnectivityState::Ready).await;
    let (status, took) = list_users(&channel, &operator, Duration::from_secs(20)).await;
    assert!(status.is_none(), "after {took:?}: {status:?}");
}

/// What a process knows of user-svc, in its state folder.
const FILE: &str = "default_user-svc.known";

/// A client of the story with a state folder.
fn with_state(story: &Story, state: &Path) -> MeshBuilder {
    Mesh::builder().registry([story.mesh.registry_url().to_string()]).state_dir(state.to_owned())
}

/// A client at its start, and its way to user-svc.
fn client(mesh: MeshBuilder) -> (Mesh, MeshChannel) {
    let mesh = mesh.build().expect("the folder can be used");
    let channel = mesh.channel(Program::UserSvc.name());
    (mesh, channel)
}

/// Waits until a process has written down what it knows.
async fn written(state: &Path) -> Vec<u8> {
    let file = state.join(FILE);
    until("what is known to be on disk", || file.exists()).await;
    fs::read(file).expect("it can be read")
}

async fn a_user(channel: &MeshChannel) -> String {
    let request_id = entropy::uuid_v7().to_string();
    let email = format!("{request_id}@shop.test");
    let (display_name, password) = ("Ada".to_owned(), "correct horse battery".to_owned());
    let request = CreateUserRequest { email, display_name, password, request_id };
    let created = UserServiceClient::new(channel.clone()).create_user(request).await.expect("a user is created");
    created.into_inner().user.expect("the answer holds it").user_id
}

/// Creates an order at one instance of order-svc, which asks user-svc about the user.
async fn order(at: &Member, operator: &Operator, user_id: &str) -> Result<(), Status> {
    let unit_price = Some(Money { currency_code: "EUR".to_owned(), units: 5, nanos: 0 });
    let item = OrderItem { sku: "tea".to_owned(), quantity: 1, unit_price };
    let request_id = entropy::uuid_v7().to_string();
    let mut request = Request::new(CreateOrderRequest { request_id, user_id: user_id.to_owned(), items: vec![item] });
    request.set_timeout(LONG);
    let mesh = Mesh::builder().static_service("order-svc", [at.process.grpc().into()]).build().expect("it is sound");
    let mut stubs = OrderServiceClient::with_interceptor(mesh.channel("order-svc"), operator.clone());
    stubs.create_order(request).await.map(drop)
}

/// Ends an instance of order-svc between two instructions, and starts its successor.
async fn restarted(story: &mut Story) -> Member {
    let mut member = story.orders.remove(0);
    member.process.kill().await;
    story.mesh.rejoin(member).await.expect("a service gets ready without the registry")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_starts_without_the_registry_calls_whom_the_last_process_knew() {
    let folders = folder();
    let (of_service, of_client) = (folders.path().join("service"), folders.path().join("client"));
    let mut story = Story::begin_with(2, 1, &["--state-dir", of_service.to_str().expect("a path in text")]).await;
    let user_id = a_user(&story.user_channel).await;
    written(&of_service).await;
    let (mesh, channel) = client(with_state(&story, &of_client));
    assert!(list_users(&channel, &story.operator, LONG).await.0.is_none());
    drop((mesh, channel));
    written(&of_client).await;

    story.mesh.kill_registry().await;
    // Half of what is known is wrong by now.
    story.users.remove(0).process.kill().await;
    let began = clock::now();
    let (_mesh, channel) = client(with_state(&story, &of_client));
    let (status, took) = list_users(&channel, &story.operator, LONG).await;
    println!("a client without the registry: first call after {:?}, of which {took:?} in the call", began.elapsed());
    assert!(status.is_none(), "{status:?}");
    let successor = restarted(&mut story).await;
    let began = clock::now();
    order(&successor, &story.operator, &user_id).await.expect("order-svc finds user-svc");
    println!("a service without the registry: first call after {:?}", began.elapsed());
    story.orders.push(successor);
    let state = of_service.to_str().expect("a path in text");
    for command in [["call", "user-svc", "ListUsers"], ["explain", "user-svc", "--zone="]] {
        let [what, service, more] = command;
        let ran = story.run([what, service, more, "--state-dir", state]).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stderr.contains("no registry answers") && ran.stderr.contains(state), "{ran:?}");
        println!("{}", ran.stdout);
    }

    // What the registry says then goes before what was known.
    story.mesh.start_registry().await.expect("the registry starts where it was");
    story.everybody_listed().await;
    let survivor = story.users[0].id;
    until("the dead one to be forgotten", || {
        let known = channel.endpoints();
        known.len() == 1 && known[0].instance_id() == survivor && known[0].state() == ConnectivityState::Ready
    })
    .await;
    assert!(list_users(&channel, &story.operator, LONG).await.0.is_none());
}

/// One way in which a file can be bad.
type Spoil = fn(&mut Vec<u8>);

/// The same file, as it were if the registry had last vouched for it in 1970. This spells out the format on purpose:
/// magic, version, length, checksum, and a protobuf message whose fifth field is the date.
fn made_old(file: &mut Vec<u8>) {
    const HEAD: usize = 8 + 4;
    const BODY: usize = HEAD + 8 + 32;
    file.extend([5 << 3, 0]); // said twice, the last one holds
    let length = (file.len() - BODY) as u64;
    file[HEAD..HEAD + 8].copy_from_slice(&length.to_be_bytes());
    let checksum = Sha256::new().chain_update(&file[..HEAD + 8]).chain_update(&file[BODY..]).finalize();
    file[HEAD + 8..BODY].copy_from_slice(&checksum);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_refused_with_its_name_and_kept_and_everything_starts_all_the_same() {
    let folders = folder();
    let state = folders.path().join("state");
    let mut story = Story::begin_with(1, 1, &["--state-dir", state.to_str().expect("a path in text")]).await;
    let user_id = a_user(&story.user_channel).await;
    let good = written(&state).await;
    story.mesh.kill_registry().await;

    let spoilt: [(&str, Spoil); 6] = [
        ("empty", Vec::clear),
        ("rubbish", |file| *file = b"no such thing".to_vec()),
        ("cut short", |file| file.truncate(file.len() / 2)),
        ("a bit flipped", |file| *file.last_mut().expect("it is not empty") ^= 1),
        ("of a later version", |file| file[11] = 9),
        ("too old", made_old),
    ];
    for (name, spoil) in spoilt {
        let of_client = folders.path().join(name);
        fs::create_dir(&of_client).expect("a folder can be made");
        fs::set_permissions(&of_client, Permissions::from_mode(0o700)).expect("its mode can be set");
        let mut file = good.clone();
        spoil(&mut file);
        fs::write(of_client.join(FILE), &file).expect("a file can be written");
        fs::set_permissions(of_client.join(FILE), Permissions::from_mode(0o600)).expect("its mode can be set");
        // Nobody is known, and six times 3 s would be spent on that.
        let (_mesh, channel) = client(with_state(&story, &of_client).failfast(Duration::from_millis(500)));
        let (status, _) = list_users(&channel, &story.operator, LONG).await;
        assert_eq!(status.map(|status| status.code()), Some(Code::Unavailable), "{name}");
        assert_eq!(fs::read(of_client.join(FILE)).expect("it is still there"), file, "{name}");
    }

    fs::write(state.join(FILE), "no such thing").expect("a file can be written");
    let successor = restarted(&mut story).await;
    let status = order(&successor, &story.operator, &user_id).await.expect_err("nobody knows where user-svc is");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let log = story.folder.path().join("logs").join(format!("{}.log", successor.process.name()));
    let log = fs::read_to_string(log).expect("it has a log");
    let told = log.lines().find(|line| line.contains("what was known before is not used"));
    let told = told.unwrap_or_else(|| panic!("the log says nothing about it: {log}"));
    println!("{told}");
    assert!(told.contains(FILE) && told.contains("advice"), "{told}");

    story.mesh.start_registry().await.expect("the registry starts where it was");
    story.everybody_listed().await;
    order(&successor, &story.operator, &user_id).await.expect("the registry knows where user-svc is");
    let refused = state.join(FILE).with_extension("refused");
    until("the bad file to be set aside", || refused.exists() && state.join(FILE).exists()).await;
    assert_eq!(fs::read(refused).expect("it can be read"), b"no such thing");
}
