//! The other half of the client: registers this process, beats for it, and says goodbye.
//!
//! There is no terminal state. A registry that is down, restarts, forgets or refuses is tried again for ever; the process
//! serves all the same, and callers keep what they know of it. What the registrar does when is decided in [`enrolment`],
//! which is pure; [`driver`] is the one task around it.

mod driver;
mod enrolment;
mod gauge;
mod record;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use driver::{Driver, Wish};
use enrolment::{Enrolment, Identity};
use gauge::Gauge;

use crate::clock;
use crate::entropy::Entropy;
use crate::load::LoadReport;
use crate::mesh::Connect;
use crate::serving::ServingStatus;

/// How long the draining hook waits for the registry to take notice. The process keeps answering for 2 s from there on
/// (DESIGN §4), so half of that leaves callers the other half to hear of it.
const DRAINING_MAX: Duration = Duration::from_secs(1);

/// What the registry is told about this process, apart from its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Logical service name, e.g. "user-svc".
    pub service: String,
    /// What its main address speaks: what the registry is told of the first address that the ready hook gets.
    pub speaks: Speaks,
    /// Identity of this process; absent takes a new one at each start.
    pub instance_id: Option<Uuid>,
    /// Where it runs, up to 63 bytes; empty is unknown.
    pub zone: String,
    /// Share of the calls relative to its siblings, at least 1; 100 is the default.
    pub weight: u16,
    /// Version of the software, free text up to 64 bytes.
    pub version: String,
    /// Free labels: at most 32 keys, 8 KiB together.
    pub metadata: BTreeMap<String, String>,
    /// Encoded `FileDescriptorSet` of what it serves: its digest and the idempotency of the methods are registered. May be
    /// empty.
    pub descriptors: &'static [u8],
    /// Full names of the gRPC services it serves, e.g. "shop.user.v1.UserService"; at most 32.
    pub grpc_services: Vec<String>,
    /// Wanted TTL, 2 s to 5 min; absent is the registry's default.
    pub ttl: Option<Duration>,
}

impl InstanceSpec {
    /// A service with defaults for everything else.
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            speaks: Speaks::Grpc,
            instance_id: None,
            zone: String::new(),
            weight: 100,
            version: String::new(),
            metadata: BTreeMap::new(),
            descriptors: &[],
            grpc_services: Vec::new(),
            ttl: None,
        }
    }
}

/// What the main address of a process speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// gRPC: callers find it, balance and call.
    Grpc,
    /// HTTP, as a gateway does: it is listed and watched over, and no channel of the mesh leads there.
    Http,
}

/// How the registration stands.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistrarStatus {
    /// In one word.
    pub state: RegistrarState,
    /// The id in use; another one once a newer start took the first over.
    pub instance_id: Uuid,
    /// The incarnation that was issued last; absent until the first success.
    pub incarnation: Option<u64>,
    /// What the registry has acknowledged of what this process says of itself.
    pub announced: Option<ServingStatus>,
    /// Whether an operator wants callers to stay away.
    pub operator_objects: bool,
    /// What went wrong last, if that is not overcome.
    pub last_error: Option<Arc<str>>,
}

/// What a registrar is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrarState {
    /// Not asked to register yet.
    Idle,
    /// Has no lease and tries for one.
    Registering,
    /// Has a lease and beats.
    Registered,
    /// Has a lease, and no stream to beat on; tries for one.
    Reconnecting,
    /// Beats, and has said that it is on its way out.
    Draining,
    /// Deregistered at its own wish, or out of time for that.
    Gone,
}

impl RegistrarState {
    /// A word for a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Registering => "registering",
            Self::Registered => "registered",
            Self::Reconnecting => "reconnecting",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

impl RegistrarStatus {
    fn idle(instance_id: Uuid) -> Self {
        Self {
            state: RegistrarState::Idle,
            instance_id,
            incarnation: None,
            announced: None,
            operator_objects: false,
            last_error: None,
        }
    }

    /// A line for people.
    pub fn detail(&self) -> String {
        let mut line = format!("{} as {}", self.state.label(), self.instance_id);
        if let Some(incarnation) = self.incarnation {
            line += &format!(", incarnation {incarnation}");
        }
        if self.operator_objects {
            line += ", kept from callers by an operator";
        }
        if let Some(error) = &self.last_error {
            line += &format!(", last error: {error}");
        }
        line
    }
}

/// A future that somebody else runs.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The registrar as closures over std types, in the order in which a process calls them: ready with its gRPC address and
/// its HTTP address, where others reach that; draining, gone; and its status at any time. A process shell takes them
/// without knowing this crate.
pub type RegistrarHooks = (
    Box<dyn FnOnce(SocketAddr, Option<SocketAddr>) -> BoxFuture + Send>,
    Box<dyn FnOnce() -> BoxFuture + Send>,
    Box<dyn FnOnce() -> BoxFuture + Send>,
    Box<dyn Fn() -> (&'static str, String) + Send + Sync>,
);

/// Keeps one process registered. Cheap to clone; when the last clone and the last hook are dropped it deregisters.
#[derive(Clone)]
pub struct Registrar {
    inner: Arc<Inner>,
}

struct Inner {
    wish: watch::Sender<Wish>,
    status: watch::Receiver<RegistrarStatus>,
    gauge: Gauge,
    /// What the task is made of, until it is started.
    plan: Mutex<Option<Plan>>,
}

struct Plan {
    spec: InstanceSpec,
    namespace: Arc<str>,
    connect: Connect,
    entropy: Entropy,
    identity: Identity,
    wish: watch::Receiver<Wish>,
    status: watch::Sender<RegistrarStatus>,
}

impl Registrar {
    pub(crate) fn new(spec: InstanceSpec, namespace: Arc<str>, connect: Connect, entropy: Entropy) -> Self {
        let mut identity = draw_identity(&entropy);
        identity.id = spec.instance_id.unwrap_or(identity.id);
        let (wish, wish_seen) = watch::channel(Wish::Stay(ServingStatus::Serving));
        let (status, status_seen) = watch::channel(RegistrarStatus::idle(identity.id));
        let plan = Plan { spec, namespace, connect, entropy, identity, wish: wish_seen, status };
        let gauge = Gauge::default();
        Self { inner: Arc::new(Inner { wish, status: status_seen, gauge, plan: Mutex::new(Some(plan)) }) }
    }

    /// Starts to register this process, reachable at these addresses, on the current tokio runtime; resolves at the first
    /// success. Going on without waiting is fine: the registrar goes on too. A second call only waits.
    pub async fn register(&self, grpc: SocketAddr, http: Option<SocketAddr>) {
        self.start(grpc, http);
        self.reached(|status| status.incarnation.is_some()).await;
    }

    /// Says that this process is on its way out, and goes on beating. Resolves when the registry knows, or after 1 s.
    pub async fn drain(&self) {
        self.set_serving(ServingStatus::Draining);
        if self.status().state != RegistrarState::Idle {
            let known = self.reached(|status| status.announced == Some(ServingStatus::Draining));
            let _ = timeout(DRAINING_MAX, known).await;
        }
    }

    /// Deregisters, and ends. Resolves when that is done, at the latest after 2 s; the lease then runs out by itself.
    pub async fn leave(&self) {
        self.inner.wish.send_replace(Wish::Leave);
        if self.status().state != RegistrarState::Idle {
            self.reached(|_| false).await;
        }
    }

    /// What this process says of itself; beaten at once. Nothing takes back that it drains or leaves.
    pub fn set_serving(&self, serving: ServingStatus) {
        self.inner.wish.send_if_modified(|wish| match *wish {
            Wish::Leave | Wish::Stay(ServingStatus::Draining) => false,
            Wish::Stay(said) if said == serving => false,
            Wish::Stay(_) => {
                *wish = Wish::Stay(serving);
                true
            }
        });
    }

    /// Has every beat report how busy this process is, which is what weighted balancing goes by: `sample` is called once a
    /// beat, on the registrar's task, and answers for the time since it was called last. It must not block. The first
    /// source holds; without one nothing is reported.
    ///
    /// ```
    /// # use mesh_client::{InstanceSpec, LoadReport, Mesh};
    /// # let mesh = Mesh::new(["127.0.0.1:7400"])?;
    /// let registrar = mesh.registrar(InstanceSpec::new("user-svc"));
    /// registrar.report_load(|| LoadReport { cpu_utilization: 0.4, requests_per_second: 120.0, ..LoadReport::default() });
    /// # Ok::<_, mesh_client::ConfigError>(())
    /// ```
    pub fn report_load<L: Into<LoadReport>>(&self, sample: impl Fn() -> L + Send + Sync + 'static) {
        self.inner.gauge.set(Box::new(move || sample().into()));
    }

    /// How the registration stands.
    pub fn status(&self) -> RegistrarStatus {
        self.inner.status.borrow().clone()
    }

    /// The registrar as closures for a process shell.
    pub fn hooks(&self) -> RegistrarHooks {
        let (ready, draining, gone, status) = (self.clone(), self.clone(), self.clone(), self.clone());
        (
            Box::new(move |grpc, http| {
                ready.start(grpc, http);
                Box::pin(async move { ready.reached(|status| status.incarnation.is_some()).await })
            }),
            Box::new(move || Box::pin(async move { draining.drain().await })),
            Box::new(move || Box::pin(async move { gone.leave().await })),
            Box::new(move || {
                let status = status.status();
                (status.state.label(), status.detail())
            }),
        )
    }

    fn start(&self, grpc: SocketAddr, http: Option<SocketAddr>) {
        let Some(plan) = self.inner.plan.lock().take() else { return };
        let Plan { spec, namespace, connect, entropy, identity, wish, status } = plan;
        let record = record::record(&spec, &namespace, grpc, http);
        let enrolment = Enrolment::new(identity, clock::now().into_std());
        let gauge = self.inner.gauge.clone();
        tokio::spawn(Driver::new(connect(), record, enrolment, entropy, wish, status, gauge).run());
    }

    /// Waits until the status is such, or there will be no other.
    async fn reached(&self, such: impl Fn(&RegistrarStatus) -> bool) {
        let mut status = self.inner.status.clone();
        let _ = status.wait_for(|status| such(status) || status.state == RegistrarState::Gone).await;
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registrar").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// A new identity; ids are in the order of time (version 7).
fn draw_identity(entropy: &Entropy) -> Identity {
    let unix = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut random = [0; 10];
    random.copy_from_slice(&entropy.bytes()[..10]);
    let id = uuid::Builder::from_unix_timestamp_millis(unix.as_millis() as u64, &random).into_uuid();
    Identity { id, nonce: entropy.bytes() }
}

#[cfg(test)]
mod tests;
