//! Nodes on one etcd: each holds a lease there, and a key that goes with it says where it answers.
//!
//! Two tasks. One keeps the lease: etcd's own ending of it is what tells the others, so this node counts from when it *asked*
//! for the last renewal that was answered, and doubts itself well before etcd can have given the lease up. The other follows
//! the keys of all nodes. Both go on for ever, at most once in a jittered second while etcd is away.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mesh_api::etcd::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, RangeRequest, WatchCreateRequest,
};
use mesh_api::etcd::mvccpb::event::EventType;
use mesh_runtime::clock;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Authority, Cluster, Member, Membership};
use crate::catalog::NodeId;
use crate::storage::{Backoff, EtcdStore, Layout, Link, StoreError, Watching, led, led_within};

/// TTL of a node's lease, in seconds: others take over what a dead node owned after that.
const TTL_SECONDS: i64 = 10;

/// The same.
const TTL: Duration = Duration::from_secs(10);

/// How often it is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(2);

/// A node whose last confirmed renewal is so old does not know whether it still holds its lease: two thirds of the TTL.
const SURE_FOR: Duration = Duration::from_nanos(6_666_666_666);

/// How long one question may take, and one renewal.
const ASK_MAX: Duration = Duration::from_secs(2);

/// Longest wait before etcd is asked again.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a node may take to be among the members when it starts.
const START_MAX: Duration = Duration::from_secs(10);

/// This node among the nodes of a store in etcd.
pub struct EtcdCluster {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    link: Link,
    layout: Layout,
    me: Member,
    membership: watch::Sender<Arc<Membership>>,
    /// The lease that is held; 0 is none.
    lease: Mutex<i64>,
    /// Somebody deleted this node's key: it has to be put again.
    vanished: Notify,
}

impl EtcdCluster {
    /// Joins the nodes of this store. Fails where that takes longer than ten seconds. Must be called inside a tokio runtime.
    pub async fn join(store: &EtcdStore, me: Member) -> Result<Self, StoreError> {
        let (link, layout) = store.parts();
        let nobody = Membership { authority: Authority::Unsure, members: BTreeMap::new() };
        let shared = Arc::new(Shared {
            link,
            layout,
            me,
            membership: watch::Sender::new(Arc::new(nobody)),
            lease: Mutex::new(0),
            vanished: Notify::new(),
        });
        let stop = CancellationToken::new();
        let keeps = tokio::spawn(stop.clone().run_until_cancelled_owned(keep(shared.clone())).map(drop));
        let follows = tokio::spawn(stop.clone().run_until_cancelled_owned(follow(shared.clone())).map(drop));
        let cluster = Self { shared, stop, tasks: Mutex::new(vec![keeps, follows]) };

        let mut membership = cluster.membership();
        let joined = membership
            .wait_for(|now| now.authority == Authority::Sure && now.members.contains_key(&me.node))
            .map(|joined| joined.is_ok());
        if timeout(START_MAX, joined).await != Ok(true) {
            cluster.leave().await;
            return Err(StoreError { reason: format!("etcd granted this node no lease within {START_MAX:?}") });
        }
        tracing::info!(node = %me.node, address = %me.address, "this node is one of the store's");
        Ok(cluster)
    }
}

impl Cluster for EtcdCluster {
    fn node(&self) -> Option<NodeId> {
        Some(self.shared.me.node)
    }

    fn membership(&self) -> watch::Receiver<Arc<Membership>> {
        self.shared.membership.subscribe()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        async {
            self.stop.cancel();
            let tasks = std::mem::take(&mut *self.tasks.lock());
            for task in tasks {
                // A panic is logged where it happens.
                let _ = task.await;
            }
            self.shared.set(Authority::Unsure);
            let lease = std::mem::take(&mut *self.shared.lease.lock());
            if lease == 0 {
                return;
            }
            let mut client = self.shared.link.lease();
            let revoked = client.lease_revoke(led_within(ASK_MAX, LeaseRevokeRequest { id: lease })).await;
            if let Err(status) = revoked {
                tracing::info!(%status, "this node's lease was not given up: it ends by itself");
            }
        }
        .boxed()
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for EtcdCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdCluster").field("me", &self.shared.me).finish_non_exhaustive()
    }
}

impl Shared {
    fn set(&self, authority: Authority) -> bool {
        self.membership.send_if_modified(|now| {
            let changes = now.authority != authority;
            if changes {
                *now = Arc::new(Membership { authority, members: now.members.clone() });
            }
            changes
        })
    }

    fn doubt(&self) {
        if self.set(Authority::Unsure) {
            tracing::warn!(node = %self.me.node, "this node no longer knows whether it holds its lease in etcd");
        }
    }

    /// The members are these from now on.
    fn members(&self, change: impl FnOnce(&mut BTreeMap<NodeId, Member>)) {
        self.membership.send_if_modified(|now| {
            let mut members = now.members.clone();
            change(&mut members);
            let changes = members != now.members;
            if changes {
                *now = Arc::new(Membership { authority: now.authority, members });
            }
            changes
        });
    }
}

/// Holds a lease for ever, a new one whenever the last is lost.
async fn keep(shared: Arc<Shared>) {
    let pauses = Backoff::new(PAUSE_MAX);
    loop {
        match hold(&shared, &pauses).await {
            Ok(()) => tracing::warn!(node = %shared.me.node, "this node's lease in etcd has ended: it takes a new one"),
            Err(status) => tracing::debug!(%status, "no lease from etcd"),
        }
        // Lost is lost: what was owned may be another's by now.
        shared.doubt();
        *shared.lease.lock() = 0;
        pauses.failed();
        sleep(pauses.wait()).await;
    }
}

/// Takes a lease and keeps it until it is lost. An error means that none was to be had.
async fn hold(shared: &Shared, pauses: &Backoff) -> Result<(), Status> {
    let asked = clock::now();
    let grant = LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 };
    let granted = shared.link.lease().lease_grant(led_within(ASK_MAX, grant)).await?.into_inner();
    *shared.lease.lock() = granted.id;
    announce(shared, granted.id).await?;
    pauses.worked();

    let mut held = Held { lease: granted.id, confirmed: asked };
    shared.set(Authority::Sure);
    let announcing = stay_announced(shared, granted.id);
    tokio::pin!(announcing);
    loop {
        let ended = tokio::select! {
            renewed = renew(shared, &mut held, pauses) => renewed,
            () = &mut announcing => return Ok(()),
        };
        match ended {
            Ok(()) => return Ok(()),
            Err(status) => tracing::debug!(%status, "renewing this node's lease broke off"),
        }
        if held.confirmed + TTL <= clock::now() {
            // etcd may extend it after an election, but nobody here can count on that.
            return Ok(());
        }
        pauses.failed();
        doubt_in_time(shared, held.confirmed, sleep(pauses.wait())).await;
    }
}

struct Held {
    lease: i64,
    /// When the last renewal that was answered was asked for.
    confirmed: Instant,
}

/// Says where this node answers, for as long as the lease lasts.
async fn announce(shared: &Shared, lease: i64) -> Result<(), Status> {
    let key = shared.layout.node(shared.me.node);
    let value = format!("{} {}", shared.me.node, shared.me.address);
    let put = PutRequest { key, value: value.into(), lease, prev_kv: false };
    shared.link.kv().put(led_within(ASK_MAX, put)).await.map(drop)
}

/// Puts this node's key again whenever it has vanished, until the lease is gone: without it the key cannot be put. Renewals
/// go on beside it, and what etcd refuses or does not answer is tried again, for others take this node for gone until then.
async fn stay_announced(shared: &Shared, lease: i64) {
    let pauses = Backoff::new(PAUSE_MAX);
    loop {
        shared.vanished.notified().await;
        while let Err(status) = announce(shared, lease).await {
            if status.code() == tonic::Code::NotFound {
                return;
            }
            tracing::warn!(node = %shared.me.node, %status, "this node's key in etcd is gone and could not be put again");
            pauses.failed();
            sleep(pauses.wait()).await;
        }
        pauses.worked();
    }
}

/// Renews on one stream until it breaks, which is an error, or the lease is gone.
async fn renew(shared: &Shared, held: &mut Held, pauses: &Backoff) -> Result<(), Status> {
    // One renewal at a time, so that an answer belongs to the last question.
    let (questions, outgoing) = mpsc::channel(1);
    let ask = || questions.try_send(LeaseKeepAliveRequest { id: held.lease });
    let mut asked = clock::now();
    if ask().is_err() {
        return Err(Status::internal("a new queue has room"));
    }
    let lease = held.lease;
    let opening = async move {
        let mut client = shared.link.lease();
        let answers = client.lease_keep_alive(led(ReceiverStream::new(outgoing))).await?;
        Ok::<_, Status>(answers.into_inner())
    };
    let silent = || Status::deadline_exceeded("etcd does not answer a renewal");
    let opened = doubt_in_time(shared, held.confirmed, timeout(ASK_MAX, opening)).await;
    let mut answers = opened.map_err(|_| silent())??;
    loop {
        let answer = doubt_in_time(shared, held.confirmed, timeout(ASK_MAX, answers.message())).await;
        let answer = answer.map_err(|_| silent())??.ok_or_else(|| Status::unavailable("etcd ended the renewals"))?;
        if answer.ttl <= 0 {
            return Ok(());
        }
        held.confirmed = asked;
        pauses.worked();
        if clock::now() < held.confirmed + SURE_FOR {
            shared.set(Authority::Sure);
        }
        doubt_in_time(shared, held.confirmed, sleep_until(asked + RENEW_EVERY)).await;
        asked = clock::now();
        let ask = questions.try_send(LeaseKeepAliveRequest { id: lease });
        ask.map_err(|_| Status::unavailable("etcd does not read renewals"))?;
    }
}

/// Waits, and begins to doubt when the last confirmation gets too old meanwhile.
async fn doubt_in_time<F: Future>(shared: &Shared, confirmed: Instant, waiting: F) -> F::Output {
    tokio::pin!(waiting);
    tokio::select! {
        biased;
        () = sleep_until(confirmed + SURE_FOR) => {
            shared.doubt();
            waiting.await
        }
        output = &mut waiting => output,
    }
}

/// Follows who is there, for ever. While etcd is away the last that was known stays.
async fn follow(shared: Arc<Shared>) {
    let pauses = Backoff::new(PAUSE_MAX);
    loop {
        let Err(status) = follow_once(&shared, &pauses).await;
        tracing::debug!(%status, "following the nodes broke off");
        pauses.failed();
        sleep(pauses.wait()).await;
    }
}

/// Reads who is there and follows it until that breaks.
async fn follow_once(shared: &Shared, pauses: &Backoff) -> Result<std::convert::Infallible, Status> {
    let (key, range_end) = shared.layout.nodes();
    let range = RangeRequest { key: key.clone(), range_end: range_end.clone(), ..RangeRequest::default() };
    let there = shared.link.kv().range(led_within(ASK_MAX, range)).await?.into_inner();
    let found: BTreeMap<NodeId, Member> = there
        .kvs
        .iter()
        .filter_map(|kv| member(&shared.layout, &kv.key, &kv.value))
        .map(|one| (one.node, one))
        .collect();
    let missing = !found.contains_key(&shared.me.node);
    shared.members(|members| *members = found);
    if missing {
        shared.vanished.notify_one();
    }

    let start_revision = there.header.map_or(0, |header| header.revision) + 1;
    let create = WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
    let mut watching = Watching::open(&shared.link, create).await?;
    loop {
        let answer = watching.next().await?.ok_or_else(|| Status::unavailable("etcd ended the watch"))?;
        if answer.canceled {
            return Err(Status::unavailable(format!("etcd ended the watch: {}", answer.cancel_reason)));
        }
        pauses.worked();
        for event in answer.events {
            let deleted = event.r#type() == EventType::Delete;
            let Some(kv) = event.kv else { continue };
            let Some(node) = shared.layout.node_of(&kv.key) else { continue };
            let now = member(&shared.layout, &kv.key, &kv.value).filter(|_| !deleted);
            shared.members(|members| match now {
                Some(now) => _ = members.insert(node, now),
                None => _ = members.remove(&node),
            });
            if now.is_none() && node == shared.me.node {
                shared.vanished.notify_one();
            }
        }
    }
}

/// What a presence key says.
fn member(layout: &Layout, key: &Bytes, value: &Bytes) -> Option<Member> {
    let node = layout.node_of(key)?;
    let (_, address) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let address: SocketAddr = address.parse().ok()?;
    Some(Member { node, address })
}
