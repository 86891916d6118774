//! What the stories share: a mesh of real processes in a folder that goes away, and the commands of meshctl run to
//! their end. The processes themselves are meshctl's own: the demo runs on the same code.

#![allow(dead_code, reason = "each story is a program of its own and uses the part it needs")]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mesh_client::{ConnectivityState, EndpointHandle, Mesh, MeshChannel};
use mesh_runtime::entropy;
use meshctl::{Follower, Listen, Load, LoadPlan, LocalMesh, LocalMeshPlan, Member, Operator, Program, ServiceView};
use rand::RngExt;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use uuid::Uuid;

/// TTL of the registries in stories: the shortest there is.
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// Longest wait for something that should come much sooner: only a hung story gets there.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Calls per second: enough to have some in flight at every moment, and little enough for unoptimised servers that share
/// two cores.
pub(crate) const RATE: u32 = 100;

/// The meshctl that this story tests.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_meshctl"))
}

/// A registry, its services, a client, and watchers of both services.
pub(crate) struct Story {
    /// The registry.
    pub(crate) mesh: LocalMesh,
    /// Instances of user-svc.
    pub(crate) users: Vec<Member>,
    /// Instances of order-svc.
    pub(crate) orders: Vec<Member>,
    /// News of user-svc.
    pub(crate) user_news: Follower,
    /// News of order-svc.
    pub(crate) order_news: Follower,
    /// Way to user-svc.
    pub(crate) user_channel: MeshChannel,
    /// Way to order-svc.
    pub(crate) order_channel: MeshChannel,
    /// Who runs all this, for stubs that call as they do.
    pub(crate) operator: Operator,
    /// Goes last, when the processes that write to it are gone.
    pub(crate) folder: TempDir,
}

/// What a mesh in `folder` is made from.
pub(crate) fn plan(folder: &Path) -> LocalMeshPlan {
    LocalMeshPlan {
        binary: binary(),
        data: folder.to_owned(),
        registry: Listen::Free,
        registry_flags: vec!["--default-ttl".into(), format!("{}s", TTL.as_secs()).into()],
        service_flags: Vec::new(),
        log_filter: None,
    }
}

/// A folder that goes away.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new().prefix("story-").tempdir().expect("a temporary folder can be made")
}

impl Story {
    /// Starts it all, and waits until everybody is registered and connected.
    pub(crate) async fn begin(users: usize, orders: usize) -> Story {
        Story::begin_with(users, orders, &[]).await
    }

    /// The same, with services that have further flags.
    pub(crate) async fn begin_with(users: usize, orders: usize, service_flags: &[&str]) -> Story {
        let folder = folder();
        let service_flags = service_flags.iter().map(Into::into).collect();
        let plan = LocalMeshPlan { service_flags, ..plan(folder.path()) };
        Story::begin_from(users, orders, plan, folder).await
    }

    /// The same, from a plan for this folder.
    pub(crate) async fn begin_from(users: usize, orders: usize, plan: LocalMeshPlan, folder: TempDir) -> Story {
        let mut mesh = LocalMesh::without_registry(plan).expect("its log folder can be made");
        mesh.start_registry().await.expect("the registry starts");
        let wanted =
            [vec![(Program::UserSvc, Listen::Free); users], vec![(Program::OrderSvc, Listen::Free); orders]].concat();
        let members = mesh.join_all(&wanted).await.expect("the services start");
        let (users, orders): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|member| member.service == Program::UserSvc);
        let client = Mesh::new([mesh.registry_url().to_string()]).expect("the registry's URL is one");
        let mut story = Story {
            user_news: Follower::start(mesh.followed(Program::UserSvc), |_| {}),
            order_news: Follower::start(mesh.followed(Program::OrderSvc), |_| {}),
            user_channel: client.channel(Program::UserSvc.name()),
            order_channel: client.channel(Program::OrderSvc.name()),
            operator: mesh.operator(),
            mesh,
            users,
            orders,
            folder,
        };
        story.everybody_listed().await;
        story.everybody_connected().await;
        story
    }

    /// Waits until the registry lists every member.
    pub(crate) async fn everybody_listed(&mut self) {
        for (news, members) in [(&mut self.user_news, &self.users), (&mut self.order_news, &self.orders)] {
            let listed = news
                .until("every member", LONG, |view| members.iter().all(|member| view.lists(&member.id.to_string())));
            listed.await.expect("everybody registers");
        }
    }

    /// Waits until the client has a connection to every member.
    pub(crate) async fn everybody_connected(&self) {
        let ready = |channel: &MeshChannel, members: &[Member]| {
            let endpoints = channel.endpoints();
            members.iter().all(|member| {
                endpoints.iter().any(|held| held.instance_id() == member.id && held.state() == ConnectivityState::Ready)
            })
        };
        until("the client to connect to everybody", || {
            ready(&self.user_channel, &self.users) && ready(&self.order_channel, &self.orders)
        })
        .await;
    }

    /// The load on both services at the usual rate, once it goes well.
    pub(crate) async fn under_load(&self) -> Load {
        under_load(self.load(RATE)).await
    }

    /// A load on both services.
    pub(crate) fn load(&self, rate: u32) -> LoadPlan {
        LoadPlan::new(self.user_channel.clone(), self.order_channel.clone(), self.operator.clone(), rate)
    }

    /// Runs meshctl on this mesh, as whoever runs the mesh.
    pub(crate) async fn run<const N: usize>(&self, args: [&str; N]) -> Ran {
        self.run_with_input(args, "").await
    }

    /// The same with something on its stdin.
    pub(crate) async fn run_with_input<const N: usize>(&self, args: [&str; N], input: &str) -> Ran {
        let mut command = command();
        command
            .env("MESH_REGISTRY", self.mesh.registry_url().to_string())
            .env("MESH_TOKEN", operator_token(&self.mesh).await);
        to_its_end(command.args(args), input).await
    }

    /// Replaces every process as a deployment would, one after the other, the registry last.
    pub(crate) async fn replace_everybody(&mut self) {
        self.users = roll(&mut self.mesh, std::mem::take(&mut self.users), &mut self.user_news).await;
        self.orders = roll(&mut self.mesh, std::mem::take(&mut self.orders), &mut self.order_news).await;

        let streams_before = self.user_news.view().streams();
        self.mesh.drain_registry().await.expect("the registry drains and ends with 0");
        self.mesh.start_registry().await.expect("it starts again");
        let anew = |view: &ServiceView| view.streams() > streams_before && view.complete();
        self.user_news.until("the next registry", LONG, anew).await.expect("the watch comes back");
        self.everybody_listed().await;
    }
}

/// Replaces each member: asks it to end, starts its successor at the same address, and goes on when that one is listed.
pub(crate) async fn roll(mesh: &mut LocalMesh, members: Vec<Member>, news: &mut Follower) -> Vec<Member> {
    let mut successors = Vec::new();
    for mut member in members {
        let before = member.id.to_string();
        member.process.drain().await.expect("it drains and ends with 0");
        news.until("its goodbye", LONG, |view| !view.lists(&before)).await.expect("it says goodbye");
        let successor = mesh.rejoin(member).await.expect("its successor starts");
        let after = successor.id.to_string();
        news.until("its successor", LONG, |view| view.lists(&after)).await.expect("its successor registers");
        successors.push(successor);
    }
    successors
}

/// How often a load is begun before its story is given up.
const WARM_UPS: u32 = 3;

/// Starts a load, and waits until it has been going well for two seconds' worth of calls: a story told on a mesh that does
/// not work in the first place says nothing. A machine that stood still for a second in the middle of that says nothing
/// either, so a load that begins badly is begun again, said aloud, up to [`WARM_UPS`] times in all.
pub(crate) async fn under_load(mut plan: LoadPlan) -> Load {
    let calls = u64::from(2 * plan.rate);
    for warm_up in 1.. {
        println!("load: seed {}", plan.seed);
        let load = Load::start(plan.clone()).await.expect("the first customers are created");
        until("the load to get going", || load.so_far().total.calls >= calls).await;
        let before = load.so_far();
        if before.total.failed == 0 {
            return load;
        }
        assert!(warm_up < WARM_UPS, "before anything happened: {:#?}", before.failures);
        println!("void: {} of {} calls failed before anything happened", before.total.failed, before.total.calls);
        load.stop().await.expect("the load does not panic");
        plan.seed = plan.seed.wrapping_add(1); // other customers than those that are there already
    }
    unreachable!("the last load is returned, or ends the story")
}

/// Ends the load; every call must have gone as expected.
pub(crate) async fn nobody_noticed(load: Load) {
    let report = load.stop().await.expect("the load does not panic");
    let total = &report.total;
    println!("{} calls, {} of them writes, p50 {:?}, p99 {:?}", total.calls, report.writes, total.p50, total.p99);
    println!("{} calls were started late", report.late_starts);
    assert_eq!(total.failed, 0, "{} of {} calls failed: {:#?}", total.failed, total.calls, report.failures);
    assert!(report.writes * 5 >= total.calls, "a fifth writes");
    assert!(report.methods.iter().all(|method| method.calls > 0), "every method was called: {:?}", report.methods);
}

/// The client's view of one instance; it stays readable when the instance is gone.
pub(crate) fn endpoint(channel: &MeshChannel, id: Uuid) -> EndpointHandle {
    let found = channel.endpoints().into_iter().find(|endpoint| endpoint.instance_id() == id);
    found.expect("the client knows it")
}

/// Waits for something that has no event of its own.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, looking).await.unwrap_or_else(|_| panic!("waited {LONG:?} for {what}, in vain"));
}

/// The status and body of a plain GET.
pub(crate) async fn http_get(at: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut connection = TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned());
    Ok((status, body))
}

/// A loopback address that nobody listens on.
pub(crate) fn nobody_there() -> SocketAddr {
    unused_port().local_addr().expect("a bound socket has an address")
}

/// Two of them, where a server is to listen later.
pub(crate) fn nobody_there_yet() -> Listen {
    // Both are held before either is let go, so they differ.
    let (grpc, http) = (unused_port(), unused_port());
    let address = |listener: &TcpListener| listener.local_addr().expect("a bound socket has an address");
    Listen::At { grpc: address(&grpc), http: address(&http) }
}

/// A free port below those that systems lend to outgoing connections (from 32768 or 49152 on): until somebody listens
/// there, no client's own end of a connection turns up at it.
fn unused_port() -> TcpListener {
    const PORTS: std::ops::Range<u16> = 20_000..30_000;
    const ATTEMPTS: usize = 100;
    let mut rng = entropy::rng(entropy::seed());
    let free = (0..ATTEMPTS).find_map(|_| TcpListener::bind(("127.0.0.1", rng.random_range(PORTS))).ok());
    free.expect("one of a hundred ports is free")
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    /// Its answer.
    pub(crate) stdout: String,
    /// What it said beside.
    pub(crate) stderr: String,
}

/// Runs meshctl to its end.
pub(crate) async fn run<const N: usize>(args: [&str; N]) -> Ran {
    run_with_input(args, "").await
}

/// A token of whoever runs the mesh, as they would get it.
pub(crate) async fn operator_token(mesh: &LocalMesh) -> String {
    let key = mesh.operator_key().display().to_string();
    let ran = run(["token", "--key", &key]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    ran.stdout.trim_end().to_owned()
}

/// Runs meshctl to its end with something on its stdin.
pub(crate) async fn run_with_input<const N: usize>(args: [&str; N], input: &str) -> Ran {
    to_its_end(command().args(args), input).await
}

async fn to_its_end(command: &mut Command, input: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("meshctl can be started");
    let mut stdin = child.stdin.take().expect("it was asked for");
    // A command that does not read its stdin may have ended already.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = tokio::time::timeout(LONG, child.wait_with_output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{:?} does not end", command.as_std().get_args()))
        .expect("its output can be read");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// meshctl, as a user without settings of their own would start it.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    command.kill_on_drop(true);
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.as_encoded_bytes().starts_with(b"MESH_")) {
        command.env_remove(key);
    }
    command
}
