//! What the tests of the store in etcd share.

use std::convert::Infallible;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use mesh_api::etcd::etcdserverpb::kv_client::KvClient;
use mesh_api::etcd::etcdserverpb::{CompactionRequest, PutRequest};
use mesh_client::{Mesh, MeshChannel};
use mesh_runtime::clock::now;
use registry::catalog::{OpId, Proposal, Revision};
use registry::storage::{EtcdAddress, EtcdStore, FollowError, Loaded, Outcome, Store};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::contract;
use crate::etcd::Etcd;

/// One test at a time: three etcd processes are enough for two cores, and processor time is measured.
static TURN: Mutex<()> = Mutex::new(());

/// A cluster, while no other test has one.
pub(crate) struct Turn {
    pub(crate) etcd: Etcd,
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    pub(crate) fn take(test: &str, members: usize) -> Option<Self> {
        Self::take_with(test, members, &[])
    }

    pub(crate) fn take_with(test: &str, members: usize, flags: &[&str]) -> Option<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self { etcd: Etcd::start_with(test, members, flags)?, _turn: turn })
    }
}

pub(crate) async fn open(etcd: &Etcd) -> EtcdStore {
    let address = EtcdAddress::parse(&etcd.urls()).expect("URLs");
    EtcdStore::open(&address).await.expect("etcd is there")
}

/// etcd as any other program sees it.
fn kv(etcd: &Etcd) -> KvClient<MeshChannel> {
    let hosts: Vec<String> = etcd.urls().split(',').map(|url| url.trim_start_matches("http://").to_owned()).collect();
    let mesh = Mesh::builder().host_service("etcd", hosts).build().expect("a mesh");
    KvClient::new(mesh.channel("etcd"))
}

pub(crate) async fn compact(etcd: &Etcd, revision: Revision) {
    let revision = i64::try_from(revision.get()).expect("a revision");
    kv(etcd).compact(CompactionRequest { revision, physical: true }).await.expect("it is compacted");
}

/// Raises etcd's revision by other keys than ours, and says how far.
pub(crate) async fn others_use_etcd(etcd: &Etcd) -> Revision {
    let mut kv = kv(etcd);
    let mut last = 0;
    for _ in 0..10 {
        let put = PutRequest { key: "/others".into(), value: "x".into(), lease: 0, prev_kv: false };
        last = kv.put(put).await.expect("it is put").into_inner().header.expect("a header").revision;
    }
    Revision::new(last.try_into().expect("a revision"))
}

pub(crate) async fn write_identity(etcd: &Etcd, text: &str) {
    let key = "/meshwork/v1/store".into();
    let put = PutRequest { key, value: text.to_owned().into(), lease: 0, prev_kv: false };
    kv(etcd).put(put).await.expect("it is put");
}

/// A commit, and when it was told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) revision: Revision,
    pub(crate) op: OpId,
    pub(crate) at: Instant,
}

/// A follower at work.
pub(crate) struct Follower {
    last: oneshot::Sender<Revision>,
    task: JoinHandle<Vec<Told>>,
}

impl Follower {
    /// Follows everything after a revision, as an engine does: a feed that breaks is taken up where it was.
    pub(crate) fn start(store: &EtcdStore, after: Revision) -> Self {
        let (last, end) = oneshot::channel();
        let told = Arc::new(watch::Sender::new(Vec::new()));
        let following = follow(store.clone(), after, told.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                never = following => match never {},
                () = until(end, told.subscribe()) => {}
            }
            told.send_replace(Vec::new())
        });
        Self { last, task }
    }

    /// Everything that was told until this commit, and whatever comes within another half second.
    pub(crate) async fn up_to(self, last: Revision) -> Vec<Told> {
        self.last.send(last).expect("it follows");
        timeout(Duration::from_secs(30), self.task).await.expect("it is told").expect("no panic")
    }
}

async fn follow(store: EtcdStore, mut after: Revision, told: Arc<watch::Sender<Vec<Told>>>) -> Infallible {
    loop {
        let mut feed = store.follow(after);
        while let Some(news) = feed.next().await {
            match news {
                Ok(committed) => {
                    after = committed.revision;
                    let one = Told { revision: committed.revision, op: committed.op, at: now() };
                    told.send_modify(|told| told.push(one));
                }
                Err(error @ FollowError::Compacted { .. }) => panic!("{error}"),
                Err(FollowError::Broken { .. }) => {}
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn until(end: oneshot::Receiver<Revision>, mut told: watch::Receiver<Vec<Told>>) {
    let Ok(last) = end.await else { return };
    let reached = |told: &Vec<Told>| told.last().is_some_and(|told| told.revision >= last);
    if told.wait_for(reached).await.is_ok() {
        sleep(Duration::from_millis(500)).await;
    }
}

pub(crate) fn longest_gap(told: &[Told]) -> Duration {
    told.windows(2).map(|two| two[1].at - two[0].at).max().unwrap_or_default()
}

/// Hands a proposal in until it is made.
pub(crate) async fn until_made(store: &EtcdStore, proposal: Proposal, patience: Duration) -> Revision {
    let until = now() + patience;
    loop {
        match contract::one(store, proposal.clone()).await {
            Outcome::Committed(revision) => return revision,
            outcome => assert!(now() < until, "{outcome:?} after {patience:?}"),
        }
    }
}

/// Follows until it is told that what it asks for is gone; the oldest revision that is there.
pub(crate) async fn until_compacted(store: &EtcdStore, after: Revision) -> Revision {
    let until = now() + Duration::from_secs(20);
    loop {
        match store.follow(after).next().await {
            Some(Err(FollowError::Compacted { oldest })) => return oldest,
            Some(Err(FollowError::Broken { reason })) => assert!(now() < until, "{reason}"),
            news => panic!("{news:?}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Reads until that works.
pub(crate) async fn until_loaded(store: &EtcdStore) -> Loaded {
    let until = now() + Duration::from_secs(20);
    loop {
        match store.load().await {
            Ok(loaded) => return loaded,
            Err(error) => assert!(now() < until, "{error}"),
        }
    }
}

/// Hands proposals in until of each it is known what became of it.
pub(crate) async fn until_known<const N: usize>(
    store: &EtcdStore,
    proposals: [Proposal; N],
    patience: Duration,
) -> Vec<Outcome> {
    let until = now() + patience;
    loop {
        let outcomes = contract::group(store, proposals.clone()).await;
        if !outcomes.contains(&Outcome::Unknown) {
            return outcomes;
        }
        assert!(now() < until, "{outcomes:?} after {patience:?}");
    }
}

/// Waits until a member says that somebody watches it.
pub(crate) async fn wait_for_watch(etcd: &Etcd) {
    let until = now() + Duration::from_secs(10);
    while !etcd.is_watched() {
        assert!(now() < until, "nobody watches");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Processor time of this process so far.
pub(crate) fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    // After the name, which may hold anything: fields 14 and 15, in hundredths of a second.
    let after = stat.rsplit(") ").next().expect("a name");
    let ticks: u64 = after.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
