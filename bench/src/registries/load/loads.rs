//! The loads, one after the other on the same server; what one leaves behind is what the next one finds.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::figures::{Figures, Times};
use super::side::{Beats, Read, Side, Watch};
use super::{Depth, Load, Measured, Order, Task, Who, batched};
use crate::clock;
use crate::drive::Span;
use crate::failure::Failure;
use crate::registries::payload::{INSTANCES_PER_SERVICE, Instance, Service};

/// Operations in flight of the loads that go on by themselves.
pub(crate) const IN_FLIGHT: usize = 64;
/// Connections of what only fills a server.
const FILL_CONNECTIONS: usize = 8;
/// How soon after everybody has been told of a change the next one follows at the earliest: past the 20 ms for which ours
/// gathers the changes of a busy service.
const PACE: Duration = Duration::from_millis(30);
/// How long a server may take to be complete: ours takes a TTL of 10 s, in which instances that know it from before would come.
const COMPLETE_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a change may take to reach the last watcher before it counts as missed.
const CHANGE_MAX: Duration = Duration::from_secs(10);

/// Does what is asked for.
pub(super) async fn run<S: Side>(order: &Order) -> Result<Vec<Measured>, Failure> {
    match &order.task {
        Task::Fill { first, count } => {
            let sides = connect::<S>(order.server, FILL_CONNECTIONS).await?;
            register(&sides, *first, *count, order.pid).await?;
            Ok(Vec::new())
        }
        Task::Loads(loads, depth) => {
            let mut bench = Bench::<S>::new(order, *depth).await?;
            bench.measure(loads).await
        }
    }
}

async fn connect<S: Side>(server: SocketAddr, connections: usize) -> Result<Vec<S>, Failure> {
    Ok(channels(server, connections).await?.into_iter().map(S::over).collect())
}

async fn channels(server: SocketAddr, connections: usize) -> Result<Vec<Channel>, Failure> {
    let failed = |error: tonic::transport::Error| Failure::Child(format!("connect to {server}: {error}"));
    let endpoint = Endpoint::from_shared(format!("http://{server}")).map_err(failed)?;
    let mut channels = Vec::new();
    for _ in 0..connections {
        // One after the other: a server that is asked for a thousand at once may have a backlog that is shorter.
        channels.push(endpoint.connect().await.map_err(failed)?);
    }
    Ok(channels)
}

/// One side with what it has been filled with.
struct Bench<S: Side> {
    order: Order,
    depth: Depth,
    sides: Vec<S>,
    /// Of the first instances, by their numbers.
    leases: Vec<S::Lease>,
    registered: Figures,
    /// Heartbeat streams that have done their load. They stay open: the instances whose stream breaks are suspected, and
    /// the loads that follow are not about that.
    open: Vec<Box<dyn Any>>,
}

impl<S: Side> Bench<S> {
    /// Registers what the loads are about, after as many more as warm up what is on the way.
    async fn new(order: &Order, depth: Depth) -> Result<Self, Failure> {
        let sides = connect::<S>(order.server, depth.connections).await?;
        let warm_up = depth.registrations / 10;
        register(&sides, depth.registrations, warm_up, order.pid).await?;
        let (registered, leases) = register(&sides, 0, depth.registrations, order.pid).await?;
        let complete = async {
            while !sides[0].is_complete(Service(0)).await.map_err(Box::new)? {
                sleep(LOOK_EVERY).await;
            }
            Ok::<_, Failure>(())
        };
        timeout(COMPLETE_MAX, complete)
            .await
            .map_err(|_| Failure::Child("the server is never complete".to_owned()))??;
        Ok(Self { order: order.clone(), depth, sides, leases, registered, open: Vec::new() })
    }

    async fn measure(&mut self, loads: &[Load]) -> Result<Vec<Measured>, Failure> {
        let mut measured = Vec::new();
        for &load in loads {
            let figures = match load {
                Load::Register => self.registered,
                Load::Heartbeat => self.heartbeat().await?,
                Load::RenewBatched => match self.renew_batched().await? {
                    Some(figures) => figures,
                    None => continue,
                },
                Load::Resolve => self.resolve(Read::ByDefault).await?,
                // Ours has one way to read.
                Load::ResolveLocal if self.order.who == Who::Ours => continue,
                Load::ResolveLocal => self.resolve(Read::Local).await?,
                Load::Watch => self.watch().await?,
            };
            measured.push(Measured { load, figures });
        }
        Ok(measured)
    }

    /// One lease a message, each stream with leases of its own.
    async fn heartbeat(&mut self) -> Result<Figures, Failure> {
        let streams = IN_FLIGHT.min(self.leases.len());
        let share = self.leases.len() / streams;
        let mut lanes = Vec::new();
        for (stream, leases) in self.leases.chunks_exact(share).take(streams).enumerate() {
            let beats = self.sides[stream % self.sides.len()].beats(&leases[0]).await.map_err(Box::new)?;
            lanes.push(Lane { beats, leases: leases.to_vec(), turn: 0 });
        }
        let closed_loop = self.closed_loop(lanes, |mut lane: Lane<S>| async move {
            lane.turn = (lane.turn + 1) % lane.leases.len();
            lane.beats.beat(&lane.leases[lane.turn]).await?;
            Ok(lane)
        });
        let (figures, lanes) = closed_loop.await?;
        self.open.push(Box::new(lanes));
        Ok(figures)
    }

    /// A thousand leases a message. `None` where the side has no such message.
    async fn renew_batched(&mut self) -> Result<Option<Figures>, Failure> {
        let leases: &dyn Any = &self.leases;
        let Some(leases) = leases.downcast_ref::<Vec<super::ours::Lease>>() else { return Ok(None) };
        let channels = channels(self.order.server, self.depth.connections).await?;
        let [warm_up, length] = [self.depth.warm_up_ms, self.depth.millis].map(Duration::from_millis);
        let renewed = batched::renew(&channels, leases, warm_up, length, self.order.pid).await;
        let (figures, streams) = renewed.map_err(Box::new)?;
        self.open.push(Box::new(streams));
        Ok(Some(figures))
    }

    /// Answers are read whole; the first of each lane is decoded, and any that is not as long as the last one. Decoding a
    /// hundred instances again and again takes the generator longer than the server takes to send them.
    async fn resolve(&self, read: Read) -> Result<Figures, Failure> {
        let count = INSTANCES_PER_SERVICE.min(self.depth.registrations) as usize;
        let lanes = self.sides.iter().cycle().take(IN_FLIGHT).map(|side| (side.clone(), 0)).collect();
        let closed_loop = self.closed_loop(lanes, move |(side, bytes): (S, usize)| async move {
            let answer = side.resolve(Service(0), read).await?;
            let length = answer.len();
            if length == bytes {
                return Ok((side, bytes));
            }
            match S::instances(answer) {
                Ok(instances) if instances == count => Ok((side, length)),
                other => Err(Status::data_loss(format!("asked for {count} instances, answered {other:?}"))),
            }
        });
        Ok(closed_loop.await?.0)
    }

    /// Each lane does one operation after the other, first for the warm-up and then for as long as it is measured; the
    /// lanes come back.
    async fn closed_loop<L, O, F>(&self, mut lanes: Vec<L>, operation: O) -> Result<(Figures, Vec<L>), Failure>
    where
        L: Send + 'static,
        O: Fn(L) -> F + Clone + Send + 'static,
        F: Future<Output = Result<L, Status>> + Send + 'static,
    {
        let pids = [self.order.pid];
        let mut times = Times::new();
        let [warm_up, length] = [self.depth.warm_up_ms, self.depth.millis].map(Duration::from_millis);
        let mut span = Span::begin(&pids);
        for length in [warm_up, length] {
            (times, span) = (Times::new(), Span::begin(&pids));
            let mut tasks = JoinSet::new();
            for lane in lanes.drain(..) {
                tasks.spawn(go_on(lane, operation.clone(), span.at() + length));
            }
            while let Some(done) = tasks.join_next().await {
                let (lane, took) = done.expect("a lane does not panic").map_err(Box::new)?;
                lanes.push(lane);
                took.into_iter().for_each(|time| times.took(time));
            }
        }
        Ok((times.over(times.count(), 0, &span.spent()), lanes))
    }

    /// Changes one instance again and again. Every watcher must be told every change: the next one comes when all have
    /// the last one and a little later, so nothing is left to gather them for.
    async fn watch(&self) -> Result<Figures, Failure> {
        let Depth { watchers, changes, .. } = self.depth;
        let (told, mut news) = watch::channel(Told::default());
        let mut watching = JoinSet::new();
        let sides = connect::<S>(self.order.server, self.depth.watch_connections).await?;
        let opened = (0..watchers as usize).map(|index| sides[index % sides.len()].watch(Service(0)));
        for stream in try_join_all(opened).await.map_err(Box::new)? {
            watching.spawn(follow(stream, watchers.into(), told.clone()));
        }
        let warm_up = changes / 10;
        let pids = [self.order.pid];
        let mut times = Times::new();
        let mut span = Span::begin(&pids);
        for change in 1..=warm_up + changes {
            if change == warm_up + 1 {
                (times, span) = (Times::new(), Span::begin(&pids));
            }
            let due = u64::from(change) * u64::from(watchers);
            let begin = clock::now();
            self.sides[0].change(Instance(0), &self.leases[0], change).await.map_err(Box::new)?;
            let all_told = timeout(CHANGE_MAX, news.wait_for(|told| told.complete >= due)).await;
            if all_told.is_err() {
                // Whoever was left out once is never told all again.
                break;
            }
            times.took(clock::now() - begin);
            sleep(PACE).await;
        }
        let spent = span.spent();
        // A stream that fails is one whose watcher misses everything from there on.
        watching.abort_all();
        let told = told.borrow().all;
        let due = u64::from(warm_up + changes) * u64::from(watchers);
        Ok(times.over(u64::from(changes) * u64::from(watchers), due.saturating_sub(told), &spent))
    }
}

/// A heartbeat stream, and the leases it beats for in turn.
struct Lane<S: Side> {
    beats: S::Beats,
    leases: Vec<S::Lease>,
    turn: usize,
}

/// How many changes watchers were told, over all of them.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    all: u64,
    /// The same, as it was when it last came to as many for each of them.
    complete: u64,
}

/// One watcher. A change that comes without the one before it is not counted: somebody left one out.
async fn follow<W: Watch>(mut stream: W, watchers: u64, told: watch::Sender<Told>) {
    let (mut last, mut changes) = (0, Vec::new());
    while stream.next(&mut changes).await.is_ok() {
        for change in changes.drain(..) {
            if change != last + 1 {
                return;
            }
            last = change;
            told.send_if_modified(|told| {
                told.all += 1;
                let complete = told.all % watchers == 0;
                if complete {
                    told.complete = told.all;
                }
                complete
            });
        }
    }
}

/// One operation after the other until the time is up, and how long each took.
async fn go_on<L, O, F>(mut lane: L, operation: O, end: Instant) -> Result<(L, Vec<Duration>), Status>
where
    O: Fn(L) -> F,
    F: Future<Output = Result<L, Status>>,
{
    let mut times = Vec::new();
    let mut now = clock::now();
    while now < end {
        let start = now;
        lane = operation(lane).await?;
        now = clock::now();
        times.push(now - start);
    }
    Ok((lane, times))
}

/// Registers instances from the first on, so many in flight; what it cost, and the leases by their numbers.
async fn register<S: Side>(sides: &[S], first: u64, count: u64, pid: u32) -> Result<(Figures, Vec<S::Lease>), Failure> {
    let pids = [pid];
    let next = Arc::new(AtomicU64::new(first));
    let span = Span::begin(&pids);
    let mut tasks = JoinSet::new();
    for side in sides.iter().cycle().take(IN_FLIGHT) {
        let (side, next) = (side.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let mut granted = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= first + count {
                    return Ok::<_, Status>(granted);
                }
                let start = clock::now();
                let lease = side.register(Instance(number)).await?;
                granted.push((number, lease, clock::now() - start));
            }
        });
    }
    let mut granted = Vec::new();
    while let Some(done) = tasks.join_next().await {
        granted.extend(done.expect("a lane does not panic").map_err(Box::new)?);
    }
    let spent = span.spent();
    granted.sort_by_key(|(number, ..)| *number);
    let mut times = Times::new();
    granted.iter().for_each(|(_, _, took)| times.took(*took));
    Ok((times.over(count, 0, &spent), granted.into_iter().map(|(_, lease, _)| lease).collect()))
}
