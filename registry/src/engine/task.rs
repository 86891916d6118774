//! The loop: news from the store first, then heartbeats, then notices, then writes, then what time alone asks for.

mod beats;
mod commit;
mod ownership;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::Lane;
use super::events::Events;
use super::feed::{Feed, News};
use super::handle::{BeatRequest, Closed, Departure, Engine, Notice, WriteRequest};
use super::metrics::Metrics;
use super::ownership::{Ownership, OwnershipNews};
use super::pending::{Batch, BatchId, Pending, Sent, Waiter, Wishes};
use super::publish::Publisher;
use super::settings::EngineSettings;
use super::time::Clock;
use super::waiting::{DEPARTURES_MAX, OPERATIONS_MAX, REGISTRATIONS_MAX, Waiting};
use crate::catalog::{Answer, Command, LeaseId, Leases, OpId, Revision, State, Timestamp};
use crate::cluster::Company;
use crate::storage::{Completeness, Outcome, Store, StoreError};

/// Messages of heartbeats that wait, each of at most 1 000 beats.
const BEATS_MAX: usize = 4_096;

/// Messages taken from each lane in one turn, so that none starves another.
const TURN_MAX: usize = 256;

/// How often the loop turns at least, which is how it notices that it did not. An idle turn takes microseconds.
const TICK: Duration = Duration::from_millis(100);

/// A turn that comes so long after the last one means that the registry stalled, and beats wait to be read: nobody is
/// SUSPECT for that. With the shortest TTL a beat that comes as late as its jitter allows is still 0.26 s ahead of
/// being suspicious, so a stall that is not noticed makes nobody SUSPECT.
const STALL: Duration = Duration::from_millis(250);

/// A turn that comes so long after the last one was late. With a TTL of 2 s a lease is at most 0.74 s old when a pause
/// begins; after one that is not noticed 0.26 s are left to read the beats that queued up meanwhile.
const LATE: Duration = Duration::from_secs(1);

/// How often all leases are extended at most because beats were refused. Far below the shortest TTL, so that nobody runs
/// out in between; long enough to get through a lane that is full.
const EXTEND_INTERVAL: Duration = Duration::from_millis(500);

/// How long commands are left in their lanes while the store works on a group: long enough for most groups, and too short
/// for a lane to fill.
const UNDISTURBED: Duration = Duration::from_millis(20);

/// Statuses found in heartbeats that wait to be decided; past this they become wishes, of which an instance has one.
const REPORTS_MAX: usize = 4 * DEPARTURES_MAX;

/// What time alone asks for (ended rules, forgotten ids) in one turn.
const HOUSEKEEPING_MAX: usize = 500;

/// How often a status that the store did not take, or something that time asks for, is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The engine's task, for who has to end it.
#[derive(Debug)]
pub struct EngineTask {
    stop: CancellationToken,
    task: JoinHandle<()>,
    over: CancellationToken,
}

impl EngineTask {
    /// Resolves when the task has ended, whichever way: also when it panicked, after which nobody is told anything.
    pub async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// Ends the task as a bug in it would.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        self.task.abort();
    }

    /// Ends the task. What is in the lanes is answered with [`EngineError::Stopped`](super::EngineError::Stopped); what
    /// is in the store's hands may or may not be made, as with a crash.
    pub async fn stop(self) {
        self.stop.cancel();
        // A panic is logged where it happens, and `ended` tells of it: there is nothing else to tell.
        let _ = self.task.await;
    }
}

impl Engine {
    /// Loads the store and starts the engine on it, as the only one there. Must be called inside a tokio runtime.
    pub async fn start(
        settings: EngineSettings,
        store: Arc<dyn Store>,
        metrics: Metrics,
    ) -> Result<(Self, EngineTask), StoreError> {
        Self::start_in(Company::default(), settings, store, metrics).await
    }

    /// Loads the store and starts the engine on it as one of the nodes of a cluster. Must be called inside a tokio runtime.
    pub async fn start_in(
        company: Company,
        settings: EngineSettings,
        store: Arc<dyn Store>,
        metrics: Metrics,
    ) -> Result<(Self, EngineTask), StoreError> {
        let loaded = store.load().await?;
        let clock = Clock::starting_at(settings.started_at);
        let now = clock.now();
        let completeness = loaded.completeness;
        let state = loaded.into_state();
        let mut ownership = Ownership::new(&company, now);
        let mut leases = Leases::of_node(ownership.node(), settings.last_instance_hold);
        leases.reconcile(&state, now);
        ownership.survey(&state, now);
        let warming = match completeness {
            Completeness::Whole => None,
            Completeness::Fresh => Some(now.after(settings.default_ttl.get())),
        };
        let events = Events::new(clock, ownership.node());
        let publisher = Publisher::new(&state, warming.is_none(), metrics.clone(), events.clone(), now);

        let (beats, beats_in) = mpsc::channel(BEATS_MAX);
        let (departures, departures_in) = mpsc::channel(DEPARTURES_MAX);
        let (registrations, registrations_in) = mpsc::channel(REGISTRATIONS_MAX);
        let (operations, operations_in) = mpsc::channel(OPERATIONS_MAX);
        let (notices, notices_in) = mpsc::unbounded_channel();
        let (view, positions) = (publisher.view(), publisher.positions());
        let (streams, beats_refused) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicBool::new(false)));
        let refused = beats_refused.clone();
        let engine = Self {
            beats,
            departures,
            registrations,
            operations,
            notices,
            view,
            positions,
            streams,
            clock,
            beats_refused: refused,
            events: events.clone(),
            board: ownership.board.clone(),
        };

        let task = Task {
            feed: Feed::new(store.clone(), state.position().revision),
            rng: StdRng::from_seed(settings.seed),
            beats: beats_in,
            departures: departures_in,
            registrations: registrations_in,
            operations: operations_in,
            notices: notices_in,
            settings,
            _company: company,
            ownership,
            store,
            metrics,
            clock,
            state,
            leases,
            publisher,
            events,
            waiting: Waiting::default(),
            sent: BTreeMap::new(),
            in_flight: None,
            handed_in: HandedIn { at: now, commands: 0 },
            gathering: None,
            hand_in_again: None,
            catch_up: Revision::ZERO,
            answers: Vec::new(),
            batches: BTreeMap::new(),
            next_batch: BatchId::default(),
            wishes: Wishes::default(),
            retry_at: None,
            warming,
            turned: now,
            beats_refused,
            extended: now,
        };
        let stop = CancellationToken::new();
        let running = stop.clone().run_until_cancelled_owned(task.run());
        let over = CancellationToken::new();
        let at_the_end = over.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _at_the_end = at_the_end;
            running.await;
        });
        Ok((engine, EngineTask { stop, task, over }))
    }
}

/// Everything the one owner owns.
struct Task {
    settings: EngineSettings,
    /// Kept for as long as the engine runs: without it nobody knows who is there.
    _company: Company,
    ownership: Ownership,
    store: Arc<dyn Store>,
    metrics: Metrics,
    clock: Clock,
    rng: StdRng,

    feed: Feed,
    beats: mpsc::Receiver<BeatRequest>,
    departures: mpsc::Receiver<WriteRequest>,
    registrations: mpsc::Receiver<WriteRequest>,
    operations: mpsc::Receiver<WriteRequest>,
    /// Bounded by the streams that are open and the requests that wait for an answer.
    notices: mpsc::UnboundedReceiver<Notice>,

    state: State,
    leases: Leases,
    publisher: Publisher,
    events: Events,

    /// To be decided. Bounded by its lanes, [`REPORTS_MAX`], a message of beats and the live leases.
    waiting: Waiting,
    /// In the store's hands. Empty whenever the next group is decided, so that decisions rest on what is applied.
    sent: BTreeMap<OpId, Sent>,
    /// The group that the store is working on.
    in_flight: Option<BoxFuture<'static, Vec<(OpId, Outcome)>>>,
    /// What it was given last.
    handed_in: HandedIn,
    /// Until when no group is handed in, because more is on its way.
    gathering: Option<Timestamp>,
    /// When proposals of unknown outcome are handed in again.
    hand_in_again: Option<Timestamp>,
    /// Nothing is decided before this is applied: a conflict showed that the state is behind.
    catch_up: Revision,

    /// Done, to be told once it is published.
    answers: Vec<(Waiter, Answer)>,
    /// Heartbeat messages whose answer waits; at most one per message in the lane and in hand.
    batches: BTreeMap<BatchId, Batch>,
    next_batch: BatchId,
    wishes: Wishes,
    /// When wishes and housekeeping are tried again.
    retry_at: Option<Timestamp>,
    /// Until when the state counts as incomplete.
    warming: Option<Timestamp>,
    /// When the loop turned last.
    turned: Timestamp,
    /// Set by the handles when the lane of heartbeats is full.
    beats_refused: Arc<AtomicBool>,
    /// When every lease got a full TTL last.
    extended: Timestamp,
}

/// A group that was handed in.
#[derive(Clone, Copy)]
struct HandedIn {
    at: Timestamp,
    commands: usize,
}

/// From which lanes of writes the next message is taken as soon as it is there.
struct Room {
    departures: bool,
    registrations: bool,
    operations: bool,
}

impl Room {
    /// From none: what comes stays in its lane, whose messages are taken at every turn, and no turn is made for it.
    const NONE: Self = Self { departures: false, registrations: false, operations: false };

    /// From those where there is a place to wait.
    fn of(waiting: &mut Waiting) -> Self {
        Self {
            departures: waiting.has_room(Lane::Departures),
            registrations: waiting.has_room(Lane::Registrations),
            operations: waiting.has_room(Lane::Operations),
        }
    }
}

/// Why the loop wakes up.
enum Wake {
    News(News),
    Outcomes(Vec<(OpId, Outcome)>),
    Beats(BeatRequest),
    Notice(Notice),
    Write(WriteRequest),
    Ownership(OwnershipNews),
    Time,
    /// Every handle is gone.
    Abandoned,
}

impl Task {
    async fn run(mut self) {
        loop {
            let now = self.turn();
            let wake_at = self.clock.instant(self.next_wake(now));
            if self.undecided() {
                // Whoever brings heartbeats comes first, however much is asked for.
                tokio::task::yield_now().await;
            }
            let room = if self.leaves_lanes(now) { Room::NONE } else { Room::of(&mut self.waiting) };
            let wake = tokio::select! {
                biased;
                news = self.feed.next() => Wake::News(news),
                outcomes = outcomes(&mut self.in_flight) => Wake::Outcomes(outcomes),
                beats = self.beats.recv() => beats.map_or(Wake::Abandoned, Wake::Beats),
                notice = self.notices.recv() => notice.map_or(Wake::Abandoned, Wake::Notice),
                news = self.ownership.next() => Wake::Ownership(news),
                write = self.departures.recv(), if room.departures => write.map_or(Wake::Abandoned, Wake::Write),
                write = self.registrations.recv(), if room.registrations => write.map_or(Wake::Abandoned, Wake::Write),
                write = self.operations.recv(), if room.operations => write.map_or(Wake::Abandoned, Wake::Write),
                () = tokio::time::sleep_until(wake_at) => Wake::Time,
            };
            match wake {
                Wake::News(news) => self.news(news),
                Wake::Outcomes(outcomes) => {
                    self.in_flight = None;
                    self.gather();
                    self.settle(outcomes);
                }
                Wake::Beats(request) => self.beat(request),
                Wake::Notice(notice) => self.notice(notice),
                Wake::Ownership(news) => self.ownership_news(news),
                Wake::Write(request) => self.write(request),
                Wake::Time => {}
                Wake::Abandoned => return,
            }
            self.drain_lanes();
        }
    }

    /// Takes what else is there, so much from each lane.
    fn drain_lanes(&mut self) {
        for _ in 0..TURN_MAX {
            let Some(news) = self.feed.try_next() else { break };
            self.news(news);
        }
        for _ in 0..TURN_MAX {
            let Ok(request) = self.beats.try_recv() else { break };
            self.beat(request);
        }
        for _ in 0..TURN_MAX {
            let Ok(notice) = self.notices.try_recv() else { break };
            self.notice(notice);
        }
        for _ in 0..TURN_MAX {
            let Some(news) = self.ownership.try_next() else { break };
            self.ownership_news(news);
        }
        for lane in [Lane::Departures, Lane::Registrations, Lane::Operations] {
            for _ in 0..TURN_MAX {
                let Some(request) = self.next_of(lane) else { break };
                self.write(request);
            }
        }
    }

    /// What each turn does before it sleeps: conclude from the time, hand a group to the store, publish.
    fn turn(&mut self) -> Timestamp {
        let now = self.clock.now();
        self.allow_for_ourselves(now);
        self.look_around(now);
        for lapse in self.leases.advance(now) {
            if self.ownership.unsure().is_some() {
                self.leases.stays(&lapse, now);
                continue;
            }
            let command = Command::Expire { identity: lapse.identity.clone(), lease: lapse.lease };
            self.waiting.push(Pending::new(command, Waiter::Lapse(lapse)));
        }
        if self.warming.is_some_and(|until| until <= now) {
            self.warming = None;
            self.publisher.completed();
            tracing::info!(leases = self.leases.len(), "the state counts as complete");
        }
        if self.retry_at.is_none_or(|at| at <= now) {
            self.retry_at = None;
            self.ask_for_what_time_asks(now);
        }
        self.look_after_ownership(now);
        self.hand_in(now);

        for (service, soft) in self.leases.take_changed() {
            if self.ownership.node().is_some() {
                self.ownership.board.post(service.clone(), self.leases.kept_health(&service));
            }
            self.publisher.soft(service, soft);
        }
        self.publisher.publish(now);
        self.answer();
        self.metrics.instances.set(self.leases.len().try_into().unwrap_or(i64::MAX));
        self.metrics.services.set(self.state.known().try_into().unwrap_or(i64::MAX));
        now
    }

    /// What the registry was itself the cause of, nobody is held to: a stall makes nobody SUSPECT, and lateness or a
    /// refused beat gives every lease a full TTL anew.
    fn allow_for_ourselves(&mut self, now: Timestamp) {
        let gap = now.since(self.turned);
        self.turned = now;
        if gap > LATE {
            tracing::warn!(
                gap_ms = gap.as_millis(),
                leases = self.leases.len(),
                "the expiry loop was late: every lease gets a full TTL"
            );
            self.metrics.clock_gaps.inc();
            return self.extend_all(now);
        }
        if gap > STALL {
            self.leases.forgive(gap, now);
        }
        // All leases are as good as new within the interval, so that what was refused meanwhile can wait for its end.
        let due = now.since(self.extended) >= EXTEND_INTERVAL;
        if due && self.beats_refused.swap(false, Ordering::Relaxed) {
            tracing::warn!(leases = self.leases.len(), "heartbeats were refused: every lease gets a full TTL");
            self.metrics.beat_refusals.inc();
            self.extend_all(now);
        }
    }

    /// Gives every lease a full TTL, those included whose removal still waits to be decided. What is in the store's hands
    /// cannot be taken back.
    fn extend_all(&mut self, now: Timestamp) {
        self.extended = now;
        self.leases.extend_all(now);
        for lapse in self.waiting.take_lapses(|_| true) {
            self.leases.stays(&lapse, now);
        }
    }

    /// Ended rules, forgotten ids and unfulfilled wishes. Asked for once, and again a second later if that was in vain.
    fn ask_for_what_time_asks(&mut self, now: Timestamp) {
        let due = self.state.next_end().is_some_and(|at| at <= now);
        if !due && self.wishes.is_empty() {
            return;
        }
        self.retry_at = Some(now.after(RETRY));
        // While the last ones wait, as they do when the store hangs, asking again would only fill the queue.
        let sent = self.sent.values().any(|sent| matches!(sent.pending.waiter, Waiter::Time));
        if !sent && !self.waiting.has_timed() {
            let ended = self.state.ended(now, HOUSEKEEPING_MAX);
            for command in ended {
                self.waiting.push(Pending::new(command, Waiter::Time));
            }
        }
        for report in self.wishes.take() {
            self.waiting.push(Pending::new(Command::Report(report), Waiter::Wish));
        }
    }

    fn next_wake(&self, now: Timestamp) -> Timestamp {
        let asked = match self.retry_at {
            Some(at) => Some(at),
            None => self.state.next_end(),
        };
        let idle = self.in_flight.is_none() && self.state.position().revision >= self.catch_up;
        let again = self.hand_in_again.filter(|_| idle);
        let undecided = self.undecided().then_some(now);
        let gathered = self.gathering;
        let disturbed = self.in_flight.as_ref().map(|_| self.handed_in.at.after(UNDISTURBED)).filter(|at| *at > now);
        let wishes = self.ownership.next_wake(self.waiting.departures());
        let times = [self.leases.next_deadline(), self.warming, again, asked, wishes, undecided, gathered, disturbed];
        times.into_iter().flatten().fold(now.after(TICK), Timestamp::min)
    }

    /// Whether no turn is made for a command that comes: it would not be decided while the store works, nor while more is on
    /// its way.
    fn leaves_lanes(&self, now: Timestamp) -> bool {
        self.gathering.is_some() || self.in_flight.is_some() && now < self.handed_in.at.after(UNDISTURBED)
    }

    /// Whether more waits to be decided than one turn decides.
    fn undecided(&self) -> bool {
        let free = self.in_flight.is_none() && self.sent.is_empty() && self.gathering.is_none();
        free && !self.waiting.is_empty() && self.state.position().revision >= self.catch_up
    }

    /// The next message of a lane of writes, if there is one and it has a place to wait.
    fn next_of(&mut self, lane: Lane) -> Option<WriteRequest> {
        if !self.waiting.has_room(lane) {
            return None;
        }
        let queue = match lane {
            Lane::Departures => &mut self.departures,
            Lane::Registrations => &mut self.registrations,
            Lane::Beats | Lane::Operations => &mut self.operations,
        };
        queue.try_recv().ok()
    }

    fn notice(&mut self, notice: Notice) {
        let now = self.clock.now();
        match notice {
            Notice::StreamClosed(stream, Closed::ByPeer) => self.leases.stream_broke(stream, now),
            Notice::StreamClosed(stream, Closed::ByUs) => self.leases.stream_ended(stream),
            Notice::Relayed(beats, reply) => {
                // A caller that has gone away misses nothing.
                let _ = reply.send(Ok(self.renew_for_peer(beats)));
            }
            Notice::Follow(service, bell, number, from, reply) => {
                // A caller that has gone away misses nothing.
                let _ = reply.send(self.publisher.follow(&service, &bell, number, from, now));
            }
        }
    }

    fn write(&mut self, request: WriteRequest) {
        let (command, waiter) = match request {
            WriteRequest::Register(request, reply) => {
                let fresh = LeaseId::new(self.draw());
                (Command::Register { request, fresh }, Waiter::Register(reply))
            }
            WriteRequest::Deregister(Departure::Own { lease, incarnation }, reply) => {
                (Command::Deregister { lease, incarnation }, Waiter::Done(reply))
            }
            WriteRequest::Deregister(Departure::Operator { service, id }, reply) => {
                (Command::Remove { service, id }, Waiter::Done(reply))
            }
            WriteRequest::SetRule(rule, reply) => (Command::SetRule(rule), Waiter::Rule(reply)),
            WriteRequest::DeleteService(service, reply) => (Command::DeleteService { service }, Waiter::Done(reply)),
        };
        self.waiting.push(Pending::new(command, waiter));
    }

    fn draw(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}

/// What became of the group in flight; never, where there is none.
async fn outcomes(in_flight: &mut Option<BoxFuture<'static, Vec<(OpId, Outcome)>>>) -> Vec<(OpId, Outcome)> {
    match in_flight {
        Some(group) => group.await,
        None => std::future::pending().await,
    }
}
