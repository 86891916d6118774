//! An open-loop load of echoes: calls start at their time whatever becomes of the ones before them, each has one right
//! answer, and every one is kept.
//!
//! Failed is: another status than OK, another text than the one sent, or no answer by the deadline and 50 ms, counted from
//! the moment the client has the call. Nothing is tried twice here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;
use mesh_client::{Address, EndpointHandle, Mesh, MeshBuilder, MeshChannel, Policy};
use mesh_runtime::clock;
use prost::Message;
use prost_types::method_options::IdempotencyLevel;
use prost_types::{
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, MethodOptions, ServiceDescriptorProto,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::fleet::{self, Server};
use crate::harness::{LONG, until};
use crate::serve::USUAL;
use crate::wire::Manners;

/// Calls per second: some are in flight at every moment, and an unoptimised client, three servers and whatever else runs
/// have two cores.
pub(crate) const RATE: u32 = 150;

/// Deadline of every call, as the promises have it (`research/reliability.md` §0.1).
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

/// How much later than its deadline an answer may come before it counts as none.
const GRACE: Duration = Duration::from_millis(50);

/// The service, as the mesh knows it.
pub(crate) const SERVICE: &str = "echo";

/// A method that may be repeated.
pub(crate) const REPEATABLE: &str = "/story.v1.EchoService/Read";

/// One that may not.
pub(crate) const ONCE: &str = "/story.v1.EchoService/Write";

/// A mesh in which this list of addresses is the service.
pub(crate) fn static_mesh(seed: u64, addresses: Vec<Address>) -> MeshBuilder {
    Mesh::builder().seed(seed).static_service(SERVICE, addresses).descriptors(&descriptors())
}

/// What a proto file would say: one of the two methods may be repeated.
pub(crate) fn descriptors() -> Vec<u8> {
    let method = |name: &str, level| MethodDescriptorProto {
        name: Some(name.to_owned()),
        options: Some(MethodOptions { idempotency_level: Some(i32::from(level)), ..Default::default() }),
        ..Default::default()
    };
    let service = ServiceDescriptorProto {
        name: Some("EchoService".to_owned()),
        method: vec![
            method("Read", IdempotencyLevel::NoSideEffects),
            method("Write", IdempotencyLevel::IdempotencyUnknown),
        ],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("story/v1/echo.proto".to_owned()),
        package: Some("story.v1".to_owned()),
        service: vec![service],
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

/// One echo.
pub(crate) async fn echo(
    channel: MeshChannel,
    method: &'static str,
    text: String,
    deadline: Duration,
) -> Result<(), String> {
    let mut request = Request::new(text.clone());
    request.set_timeout(deadline);
    let said = |status: Status| format!("{}: {}", mesh_runtime::code_name(status.code()), status.message());
    let answer = ask(channel, method, request).await.map_err(said)?;
    if *answer.get_ref() == text { Ok(()) } else { Err(format!("{:?} came back for {text:?}", answer.get_ref())) }
}

/// One call, whatever it is answered.
pub(crate) async fn ask(
    channel: MeshChannel,
    method: &'static str,
    request: Request<String>,
) -> Result<Response<String>, Status> {
    let mut stub = tonic::client::Grpc::new(channel);
    stub.ready().await?;
    stub.unary(request, PathAndQuery::from_static(method), ProstCodec::default()).await
}

/// When calls start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Calls per second.
    pub(crate) rate: u32,
    /// How many of them start at once.
    pub(crate) burst: u32,
}

/// One after the other at the usual rate.
pub(crate) const STEADY: Pace = Pace { rate: RATE, burst: 1 };

/// A running load. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Load {
    book: Arc<Mutex<Vec<Call>>>,
    pace: Pace,
    stop: CancellationToken,
    tracker: TaskTracker,
    scheduler: JoinHandle<()>,
}

/// What became of one call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// When it was to start.
    pub(crate) due: Instant,
    /// From then to its end.
    pub(crate) took: Duration,
    /// What was wrong with its answer.
    pub(crate) outcome: Result<(), String>,
}

impl Load {
    /// Echoes by `method` from now on.
    pub(crate) fn start(channel: &MeshChannel, method: &'static str, pace: Pace, seed: u64) -> Load {
        let book: Arc<Mutex<Vec<Call>>> = Arc::default();
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let schedule = {
            let (book, tracker, channel) = (book.clone(), tracker.clone(), channel.clone());
            async move {
                let mut due = clock::now();
                for number in 0_u64.. {
                    if number % u64::from(pace.burst) == 0 {
                        tokio::time::sleep_until(due).await;
                    }
                    let (book, text) = (book.clone(), format!("{seed:x}-{number}"));
                    let calling = echo(channel.clone(), method, text, DEADLINE);
                    tracker.spawn(async move {
                        let answer = tokio::time::timeout(DEADLINE + GRACE, calling).await;
                        let outcome = answer.unwrap_or_else(|_| Err("no answer by the deadline and 50 ms".to_owned()));
                        let call = Call { due, took: clock::now().saturating_duration_since(due), outcome };
                        lock(&book).push(call);
                    });
                    if (number + 1) % u64::from(pace.burst) == 0 {
                        due += Duration::from_secs(1) * pace.burst / pace.rate;
                    }
                }
            }
        };
        let stopped = stop.clone();
        let scheduler = tokio::spawn(async move {
            stopped.run_until_cancelled(schedule).await;
        });
        Load { book, pace, stop, tracker, scheduler }
    }

    /// Waits until it has gone well for a second: 95 % of what was due is answered, and nothing failed, ever. The row is void
    /// otherwise.
    pub(crate) async fn healthy(&self) {
        let wanted = self.pace.rate as usize * 95 / 100;
        let second = || {
            let since = clock::now() - Duration::from_secs(1);
            self.book().iter().filter(|call| call.due >= since && call.outcome.is_ok()).count()
        };
        until("a healthy second before the fault", || second() >= wanted).await;
        let failures = words(&self.book());
        assert!(failures.is_empty(), "void: calls failed before anything happened: {failures:?}");
    }

    /// Waits for so many answers, from now on. What a rate makes of it in time is the machine's affair.
    pub(crate) async fn calls(&self, count: usize) {
        let before = self.book().len();
        until("the load to go on", || self.book().len() >= before + count).await;
    }

    /// Everything that is known so far.
    pub(crate) fn book(&self) -> MutexGuard<'_, Vec<Call>> {
        lock(&self.book)
    }

    /// Stops, waits for the calls in flight, and answers with all of them.
    pub(crate) async fn stop(mut self) -> Vec<Call> {
        self.stop.cancel();
        (&mut self.scheduler).await.expect("the scheduler does not panic");
        self.tracker.close();
        tokio::time::timeout(LONG, self.tracker.wait()).await.expect("every call ends");
        let mut calls = std::mem::take(&mut *self.book());
        calls.sort_by_key(|call| call.due);
        calls
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A call that panicked is not in the book; the others are all right.
fn lock(book: &Mutex<Vec<Call>>) -> MutexGuard<'_, Vec<Call>> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often each failure happened, in words.
pub(crate) fn words(calls: &[Call]) -> BTreeMap<String, usize> {
    let mut words = BTreeMap::new();
    for failure in calls.iter().filter_map(|call| call.outcome.as_ref().err()) {
        *words.entry(failure.clone()).or_default() += 1;
    }
    words
}

/// The latency that this share of the calls did not exceed.
pub(crate) fn quantile<'a>(calls: impl IntoIterator<Item = &'a Call>, share: f64) -> Duration {
    let mut took: Vec<Duration> = calls.into_iter().map(|call| call.took).collect();
    took.sort_unstable();
    let place = ((took.len() as f64 * share).ceil() as usize).saturating_sub(1);
    took.get(place).copied().unwrap_or_default()
}

/// Servers behind one channel, under a load that has been healthy for a second.
pub(crate) struct Stage {
    pub(crate) servers: Vec<Server>,
    pub(crate) channel: MeshChannel,
    pub(crate) load: Load,
}

/// What a stage is set with.
pub(crate) struct Cast {
    pub(crate) servers: Vec<Server>,
    /// Addresses beside those of the servers.
    pub(crate) others: Vec<Address>,
    pub(crate) policy: Policy,
    pub(crate) method: &'static str,
}

impl Cast {
    /// These servers alone, called by who may repeat, under the default policy.
    pub(crate) fn of(servers: Vec<Server>) -> Cast {
        Cast { servers, others: Vec::new(), policy: Policy::default(), method: REPEATABLE }
    }

    /// So many servers that are well.
    pub(crate) async fn well(count: usize) -> Cast {
        Cast::of(Server::several(count, Manners::echo(USUAL)).await)
    }
}

impl Stage {
    /// Sets it up, with calls at the usual rate.
    pub(crate) async fn set(seed: u64, Cast { servers, others, policy, method }: Cast) -> Stage {
        let addresses = [fleet::addresses(&servers), others].concat();
        let mesh = static_mesh(seed, addresses).policy(SERVICE, policy);
        let channel = mesh.build().expect("the configuration is one").channel(SERVICE);
        let load = Load::start(&channel, method, STEADY, seed);
        load.healthy().await;
        Stage { servers, channel, load }
    }

    /// The client's view of one server.
    pub(crate) fn endpoint(&self, server: usize) -> EndpointHandle {
        endpoint(&self.channel, self.servers[server].address().into())
    }
}

/// The client's view of what is at an address.
pub(crate) fn endpoint(channel: &MeshChannel, address: Address) -> EndpointHandle {
    let found = channel.endpoints().into_iter().find(|endpoint| *endpoint.address() == address);
    found.expect("the client knows it")
}
