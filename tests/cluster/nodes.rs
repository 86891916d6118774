//! Three registry nodes and services that know all of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_api::registry::v1 as pb;
use mesh_client::{Mesh, MeshChannel};
use mesh_runtime::{clock, entropy};
use meshctl::{Change, Followed, Follower, Listen, LoadPlan, LocalMesh, Member, Program};
use pb::registry_service_client::RegistryServiceClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::harness::{self, LONG, RATE, http_get, nobody_there_yet};

/// Calls per second: as promised where the servers are optimised.
const CALLS: u32 = if cfg!(debug_assertions) { RATE } else { 400 };

/// Longest that a write may take to be refused: a commit is given up after 2 s.
const REFUSED_WITHIN: Duration = Duration::from_millis(2_500);

/// Longest pause that a refusal may ask for (P20).
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// Longest time until a write is taken again: an election takes up to 3 s, and nodes find the new leader.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Who went although nobody ended it: by id, or in a word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Losses(BTreeSet<String>);

/// Everything that a story is about.
pub(crate) struct Cluster<E> {
    /// Goes last but one: the nodes end before it.
    pub(crate) nodes: Vec<LocalMesh>,
    members: Vec<Member>,
    news: Vec<Follower>,
    losses: Arc<Mutex<Losses>>,
    users: MeshChannel,
    orders: MeshChannel,
    written: u64,
    pub(crate) etcd: E,
    _folder: TempDir,
}

impl<E> Cluster<E> {
    /// Starts three nodes on an etcd, three user-svc and two order-svc, and waits until everybody is listed and connected.
    pub(crate) async fn begin(etcd_urls: &str, etcd: E) -> Self {
        let folder = harness::folder();
        let places: Vec<Listen> = (0..3).map(|_| nobody_there_yet()).collect();
        let urls: Vec<String> = places.iter().map(|place| grpc_of(*place)).collect();
        let mut nodes = Vec::new();
        for (number, place) in places.iter().enumerate() {
            let mut plan = harness::plan(&folder.path().join(format!("node-{number}")));
            plan.registry = *place;
            plan.registry_flags.extend(["--store".into(), format!("etcd:{etcd_urls}").into()]);
            // Beside the node's own.
            let others: Vec<&str> = urls.iter().filter(|url| **url != urls[number]).map(String::as_str).collect();
            plan.service_flags.extend(["--registry".into(), others.join(",").into()]);
            let mut node = LocalMesh::without_registry(plan).expect("its log folder can be made");
            node.start_registry().await.unwrap_or_else(|error| panic!("node {number}: {error}"));
            nodes.push(node);
        }
        let wanted = [vec![(Program::UserSvc, Listen::Free); 3], vec![(Program::OrderSvc, Listen::Free); 2]].concat();
        let members = nodes[0].join_all(&wanted).await.expect("the services start");
        let client = Mesh::new(&urls).expect("the registries' URLs are some");
        let losses = Arc::<Mutex<Losses>>::default();
        let news = [Program::UserSvc, Program::OrderSvc].map(|service| {
            let registries = urls.iter().map(|url| url.parse().expect("it is one")).collect();
            let followed = Followed { registries, namespace: "default".to_owned(), service: service.name().to_owned() };
            let losses = losses.clone();
            Follower::start(followed, move |change| {
                if let Change::Left { instance, reason } = change {
                    let lost = format!("{}: {reason:?}", instance.instance_id);
                    losses.lock().unwrap_or_else(PoisonError::into_inner).0.insert(lost);
                }
            })
        });
        let mut cluster = Self {
            nodes,
            members,
            news: news.into(),
            losses,
            users: client.channel(Program::UserSvc.name()),
            orders: client.channel(Program::OrderSvc.name()),
            written: 0,
            etcd,
            _folder: folder,
        };
        cluster.everybody_listed().await;
        cluster
    }

    /// The load that the promises name.
    pub(crate) fn load(&self) -> LoadPlan {
        LoadPlan::new(self.users.clone(), self.orders.clone(), self.nodes[0].operator(), CALLS)
    }

    /// Half of it: what the test matrix asks for where a network is cut (T23), and where much else goes on.
    pub(crate) fn half_the_load(&self) -> LoadPlan {
        LoadPlan { rate: CALLS / 2, ..self.load() }
    }

    /// The nodes' URLs.
    pub(crate) fn registries(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.registry_url().to_string()).collect()
    }

    /// Who is gone so far although nobody ended anybody.
    pub(crate) fn losses(&self) -> Losses {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until every member is listed.
    pub(crate) async fn everybody_listed(&mut self) {
        for (news, program) in self.news.iter_mut().zip([Program::UserSvc, Program::OrderSvc]) {
            let of = self.members.iter().filter(|member| member.service == program);
            let ids: Vec<String> = of.map(|member| member.id.to_string()).collect();
            let listed = news.until("every member", LONG, |view| ids.iter().all(|id| view.lists(id)));
            listed.await.expect("everybody is listed");
        }
    }

    /// Processor time that each node has used.
    pub(crate) fn cpu(&mut self) -> Vec<Duration> {
        let used = |node: &mut LocalMesh| {
            let id = node.registry().and_then(|registry| registry.id()).expect("it runs");
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // Behind the name, which may hold blanks: the 14th and 15th field, in ticks of 10 ms.
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            Duration::from_millis(10 * (ticks(11) + ticks(12)))
        };
        self.nodes.iter_mut().map(used).collect()
    }

    /// A metric of one node, summed over its labels; 0 where it is away.
    pub(crate) async fn metric(&mut self, node: usize, name: &str) -> u64 {
        let Some(registry) = self.nodes[node].registry() else { return 0 };
        let (_, text) = http_get(registry.http(), "/metrics").await.expect("it answers");
        let series = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        text.lines().filter(series).map(value).sum::<f64>() as u64
    }

    /// A write at one node: an instance of a service of its own, which nobody calls.
    async fn write(&mut self, node: usize) -> Result<pb::Position, Status> {
        self.written += 1;
        let mut client = self.client(node).await?;
        let mut request = Request::new(pb::RegisterRequest {
            service: "written-svc".to_owned(),
            instance_id: entropy::uuid_v7().to_string(),
            start_nonce: vec![1; 16].into(),
            endpoints: vec![pb::Endpoint {
                name: "grpc".to_owned(),
                protocol: pb::Protocol::Grpc.into(),
                ip: "127.0.0.1".to_owned(),
                port: 1_000 + (self.written % 60_000) as u32,
            }],
            ttl: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
            ..pb::RegisterRequest::default()
        });
        request.set_timeout(ANSWER_MAX);
        Ok(client.register(request).await?.into_inner().position.unwrap_or_default())
    }

    async fn client(&self, node: usize) -> Result<RegistryServiceClient<Channel>, Status> {
        let url = format!("http://{}", self.nodes[node].registry_url());
        let endpoint = Endpoint::from_shared(url).expect("it is a URL");
        endpoint.connect().await.map(RegistryServiceClient::new).map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Writes at one node after the other until one takes it; how often it was refused until then.
    pub(crate) async fn write_until_taken(&mut self) -> usize {
        let began = clock::now();
        for refusals in 0.. {
            match self.write(refusals % 3).await {
                Ok(_) => return refusals,
                Err(status) => assert!(began.elapsed() < TAKEN_WITHIN, "no write is taken: {status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        unreachable!("it is taken, or the assertion ends it")
    }

    /// Every node refuses a write, soon, saying that it is unavailable and when to come again; how long each took.
    pub(crate) async fn writes_are_refused_clearly(&mut self) -> Vec<Duration> {
        let mut took = Vec::new();
        for node in 0..self.nodes.len() {
            let began = clock::now();
            let status = self.write(node).await.expect_err("there is no quorum");
            took.push(began.elapsed());
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
            assert!(retry.is_some_and(|after| after <= RETRY_AFTER_MAX), "{retry:?} in {status:?}");
            assert!(took[node] <= REFUSED_WITHIN, "{:?}", took[node]);
        }
        took
    }

    /// How many nodes resolve user-svc to all of its instances now.
    pub(crate) async fn resolved_everywhere(&self) -> usize {
        let mut whole = 0;
        for node in 0..self.nodes.len() {
            let mut client = self.client(node).await.expect("it answers");
            let request = pb::ResolveRequest { service: "user-svc".to_owned(), ..pb::ResolveRequest::default() };
            let answer = client.resolve(request).await.expect("reads go on").into_inner();
            whole += usize::from(answer.instances.len() == 3);
        }
        whole
    }

    /// Waits until all nodes have applied the same revision, with a write of now in it.
    pub(crate) async fn revisions_meet(&mut self) -> u64 {
        let began = clock::now();
        loop {
            if let Ok(written) = self.write(0).await {
                let mut revisions = BTreeSet::new();
                for node in 0..3 {
                    revisions.insert(self.metric(node, "registry_revision").await);
                }
                if let (1, Some(&revision)) = (revisions.len(), revisions.first())
                    && revision >= written.revision
                {
                    return revision;
                }
            }
            assert!(began.elapsed() < LONG, "the nodes' views do not meet");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn grpc_of(place: Listen) -> String {
    match place {
        Listen::At { grpc, .. } => grpc.to_string(),
        Listen::Free | Listen::Default => unreachable!("a place was drawn"),
    }
}
