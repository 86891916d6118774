//! The task behind a [`Registrar`](super::Registrar): holds the stream, asks [`Enrolment`] what comes next, publishes how
//! it stands.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::registry::v1 as wire;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt;

use super::enrolment::{Enrolment, Grant, Next, Outcome};
use super::gauge::Gauge;
use super::{RegistrarState, RegistrarStatus, draw_identity};
use crate::clock;
use crate::entropy::Entropy;
use crate::reconnect::{self, Reconnect};
use crate::registries::{Round, Whose};
use crate::serving::ServingStatus;

/// How long one plain call may take. A registry that needs longer is not there; the call is safe to repeat.
const CALL_MAX: Duration = Duration::from_secs(5);

/// How long saying goodbye may take, whatever is in its way.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// Longest wait between two goodbyes, or two registrations that are to be taken back; there are only [`LEAVE_MAX`] in all.
const LEAVE_RETRY: Duration = Duration::from_millis(200);

/// Beats that wait for the stream to take them. The next one is only sent when there is room.
const BEATS_WAITING_MAX: usize = 1;

/// What the process wants of its registrar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// To be registered, with this to say of itself.
    Stay(ServingStatus),
    /// To be deregistered, and an end.
    Leave,
}

/// The task.
pub(super) struct Driver {
    registries: Round,
    record: wire::RegisterRequest,
    enrolment: Enrolment,
    reconnect: Reconnect,
    entropy: Entropy,
    wish: watch::Receiver<Wish>,
    status: watch::Sender<RegistrarStatus>,
    stage: Stage,
    /// Set once the process wants to leave: when it stops to wait for that.
    leave_by: Option<Instant>,
    last_error: Option<Arc<str>>,
    operator_objects: bool,
    /// The last registration got no answer: it may stand, under a lease that nobody here knows.
    in_doubt: bool,
    gauge: Gauge,
}

type Call<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

enum Stage {
    /// Waits for the next attempt, whichever it is then.
    Resting { until: Instant },
    /// Registers, and says this of the process.
    Registering { call: Call<wire::RegisterResponse>, serving: ServingStatus },
    /// Beats, or is about to.
    Beating(Beating),
    /// Says goodbye; the stream stays open beside it, so that no breaking stream is reported before.
    Leaving { call: Call<()>, _beating: Option<Beating> },
    /// Nothing is left to do.
    Gone,
}

struct Beating {
    stream: Stream,
    beats: mpsc::Sender<wire::KeepAliveRequest>,
    /// When the first and the last beat were answered.
    answered: Option<(Instant, Instant)>,
}

enum Stream {
    Opening(Call<Streaming<wire::KeepAliveResponse>>),
    Open(Box<Streaming<wire::KeepAliveResponse>>),
}

enum Happened {
    Rested,
    Registered(Result<wire::RegisterResponse, Status>),
    Opened(Box<Streaming<wire::KeepAliveResponse>>),
    Answered(wire::KeepAliveResponse),
    BeatDue,
    NotOpened(Status),
    Broke(Arc<str>),
    Left(Result<(), Status>),
}

impl Driver {
    /// A registrar at its start: the first step is to register.
    pub(super) fn new(
        registries: Round,
        record: wire::RegisterRequest,
        enrolment: Enrolment,
        entropy: Entropy,
        wish: watch::Receiver<Wish>,
        status: watch::Sender<RegistrarStatus>,
        gauge: Gauge,
    ) -> Self {
        Self {
            reconnect: Reconnect::new(reconnect::CAP, registries.doors()),
            registries,
            record,
            enrolment,
            entropy,
            wish,
            status,
            stage: Stage::Resting { until: clock::now() },
            leave_by: None,
            last_error: None,
            operator_objects: false,
            in_doubt: false,
            gauge,
        }
    }

    /// Runs until the process has left.
    pub(super) async fn run(mut self) {
        self.take_wish();
        while !matches!(self.stage, Stage::Gone) {
            self.publish();
            let leave_by = self.leave_by;
            tokio::select! {
                // Without a sender left there is nobody to stay for.
                changed = self.wish.changed(), if leave_by.is_none() => match changed {
                    Ok(()) => self.take_wish(),
                    Err(_) => self.leave(),
                },
                () = sleep_until(leave_by.unwrap_or_else(clock::now)), if leave_by.is_some() => {
                    tracing::warn!("not deregistered in time; the lease will run out by itself");
                    self.stage = Stage::Gone;
                }
                happened = self.stage.happens(&self.enrolment) => self.take(happened),
            }
        }
        self.publish();
    }

    fn take_wish(&mut self) {
        let wish = *self.wish.borrow_and_update();
        match wish {
            Wish::Stay(serving) => self.enrolment.serve(serving, clock::now().into_std()),
            Wish::Leave => self.leave(),
        }
    }

    fn take(&mut self, happened: Happened) {
        let now = clock::now();
        match happened {
            Happened::Rested => self.attempt(now),
            Happened::Registered(Ok(response)) => self.registered(response, now),
            Happened::Registered(Err(status)) => self.not_registered(&status, now),
            Happened::Opened(stream) => {
                if let Stage::Beating(beating) = &mut self.stage {
                    beating.stream = Stream::Open(stream);
                }
            }
            Happened::BeatDue => self.beat(now),
            Happened::Answered(response) => self.answered(response, now),
            Happened::NotOpened(status) => {
                self.registries.refused(&status);
                self.take(Happened::Broke(explain(&status)));
            }
            Happened::Broke(reason) => {
                let held = match &self.stage {
                    Stage::Beating(Beating { answered: Some((first, last)), .. }) => *last - *first,
                    _ => Duration::ZERO,
                };
                tracing::debug!(registry = %self.registries.name(), %reason, "heartbeat stream ended");
                self.last_error = Some(reason);
                self.registries.go_on();
                self.rest(held, Duration::ZERO, now);
            }
            Happened::Left(Ok(())) => self.stage = Stage::Gone,
            Happened::Left(Err(status)) => {
                tracing::debug!(registry = %self.registries.name(), %status, "goodbye not taken");
                self.registries.go_on();
                let pause = self.entropy.up_to(LEAVE_RETRY);
                self.say_goodbye(pause);
            }
        }
    }

    /// The next attempt: for a lease, or for a stream to keep it.
    fn attempt(&mut self, now: Instant) {
        match self.enrolment.lease() {
            None => self.register(),
            Some(_) => self.open(now),
        }
    }

    fn register(&mut self) {
        let serving = match self.leave_by {
            None => self.enrolment.serving(),
            // Only to learn the lease: nobody is to be sent here any more.
            Some(_) => ServingStatus::Draining,
        };
        let (held_incarnation, held_store_id) = self.enrolment.held().unwrap_or_default();
        let request = wire::RegisterRequest {
            instance_id: self.enrolment.identity().id.to_string(),
            start_nonce: self.enrolment.identity().nonce.to_vec().into(),
            held_incarnation,
            held_store_id: held_store_id.to_owned(),
            serving_status: status_of(serving).into(),
            ..self.record.clone()
        };
        let mut client = self.registries.client();
        let judge = self.registries.judge();
        let call = bounded(async move {
            // A registration in a second store would send that store's callers here; it is asked first whose it is.
            if judge.may_object() {
                let glance = wire::ListServicesRequest {
                    namespace: request.namespace.clone(),
                    page_size: 1,
                    page_token: String::new(),
                };
                let answer = client.list_services(with_timeout(glance)).await?.into_inner();
                let store = answer.position.unwrap_or_default().store_id;
                if let Whose::Strange { ours, .. } = judge.answered(&store, clock::now()) {
                    return Err(Status::not_found(format!("it is of store {store}, and this process goes by {ours}")));
                }
            }
            client.register(with_timeout(request)).await
        });
        self.stage = Stage::Registering { call, serving };
    }

    fn registered(&mut self, response: wire::RegisterResponse, now: Instant) {
        let Stage::Registering { serving, .. } = self.stage else { return };
        let grant = Grant {
            lease_id: response.lease_id,
            incarnation: response.incarnation,
            store_id: response.position.map(|position| position.store_id).unwrap_or_default(),
            ttl: response.ttl.and_then(|ttl| ttl.try_into().ok()),
            interval: response.heartbeat_interval.and_then(|interval| interval.try_into().ok()),
        };
        // Asked beforehand where it could be another one's; what is granted is granted.
        self.registries.judge().answered(&grant.store_id, now);
        self.enrolment.granted(grant, serving, now.into_std());
        self.reconnect.set_cap(self.enrolment.patience());
        self.last_error = None;
        self.in_doubt = false;
        let instance = self.enrolment.identity().id;
        tracing::info!(service = self.record.service, %instance, incarnation = response.incarnation, "registered");
        match self.leave_by {
            Some(_) => self.say_goodbye(Duration::ZERO),
            None => self.open(now),
        }
    }

    fn not_registered(&mut self, status: &Status, now: Instant) {
        let reason: Arc<str> = match self.registries.doors() {
            1 => explain(status),
            _ => format!("{}: {}", self.registries.name(), explain(status)).into(),
        };
        if self.last_error.as_ref() != Some(&reason) {
            tracing::warn!(service = self.record.service, %reason, "not registered; tried again for ever");
        }
        self.last_error = Some(reason);
        self.in_doubt = may_stand(status.code());
        self.registries.refused(status);
        if status.code() != Code::FailedPrecondition {
            self.registries.go_on();
        }
        if self.leave_by.is_some() {
            self.stage = if self.in_doubt {
                Stage::Resting { until: now + self.entropy.up_to(LEAVE_RETRY) }
            } else {
                Stage::Gone
            };
            return;
        }
        let asked = if status.code() == Code::FailedPrecondition {
            // Fenced, or this start has already said goodbye: either way the id is not ours any more. However long that
            // lasts is no matter to another one.
            self.enrolment.become_another(draw_identity(&self.entropy));
            Duration::ZERO
        } else {
            status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default()
        };
        self.rest(Duration::ZERO, asked.min(self.enrolment.patience()), now);
    }

    fn open(&mut self, now: Instant) {
        let (beats, receiver) = mpsc::channel(BEATS_WAITING_MAX);
        self.enrolment.stream_begun(now.into_std());
        let mut client = self.registries.client();
        let opening: Call<_> =
            Box::pin(async move { client.keep_alive(ReceiverStream::new(receiver)).await.map(Response::into_inner) });
        self.stage = Stage::Beating(Beating { stream: Stream::Opening(opening), beats, answered: None });
        // Before the stream is there: a registry may want to see the first beat before it answers at all.
        self.beat(now);
    }

    fn beat(&mut self, now: Instant) {
        let (Stage::Beating(beating), Some(lease)) = (&self.stage, self.enrolment.lease()) else { return };
        // Where there is no room after all the beat stays due, and nothing was sampled for it.
        let Ok(room) = beating.beats.try_reserve() else { return };
        let beat = wire::Beat {
            lease_id: lease.id.clone(),
            incarnation: lease.incarnation,
            serving_status: status_of(self.enrolment.serving()).into(),
            load: self.gauge.read(),
            ..Default::default()
        };
        room.send(wire::KeepAliveRequest { beats: vec![beat] });
        self.enrolment.beaten(now.into_std(), &self.entropy);
    }

    fn answered(&mut self, response: wire::KeepAliveResponse, now: Instant) {
        let Stage::Beating(beating) = &mut self.stage else { return };
        let Some((result, held)) = response.results.first().zip(self.enrolment.lease()) else { return };
        if result.lease_id != held.id {
            return;
        }
        let lease_age = now.into_std().saturating_duration_since(held.granted);
        let outcome = match result.outcome() {
            wire::BeatOutcome::Renewed => Outcome::Renewed,
            wire::BeatOutcome::Fenced => Outcome::Fenced,
            wire::BeatOutcome::UnknownLease | wire::BeatOutcome::Unspecified => Outcome::UnknownLease,
        };
        let (first, _) = *beating.answered.get_or_insert((now, now));
        beating.answered = Some((first, now));
        self.operator_objects = matches!(result.admin_state(), wire::AdminState::Draining | wire::AdminState::Disabled);
        let interval = response.heartbeat_interval.and_then(|interval| interval.try_into().ok());
        match self.enrolment.answered(outcome, interval, &self.entropy) {
            Next::Beat => {
                self.last_error = None;
                // Who renews a lease has its store.
                if let Some((_, store)) = self.enrolment.held() {
                    self.registries.judge().answered(store, now);
                }
            }
            next @ (Next::Register | Next::RegisterAnew) => {
                let instance = self.enrolment.identity().id;
                tracing::info!(service = self.record.service, %instance, ?next, "the lease is gone");
                if next == Next::RegisterAnew {
                    self.enrolment.become_another(draw_identity(&self.entropy));
                }
                self.rest(lease_age, Duration::ZERO, now);
            }
        }
    }

    /// Waits for the next attempt, after something that worked for `held`, and for `at_least` where that was asked for.
    fn rest(&mut self, held: Duration, at_least: Duration, now: Instant) {
        let wait = self.reconnect.wait(held, &self.entropy).max(at_least);
        if wait.is_zero() {
            self.attempt(now);
        } else {
            self.stage = Stage::Resting { until: now + wait };
        }
    }

    fn leave(&mut self) {
        self.leave_by = Some(clock::now() + LEAVE_MAX);
        match (&self.stage, self.enrolment.lease()) {
            // What is granted in the end is given back then.
            (Stage::Registering { .. }, _) => {}
            (_, Some(_)) => self.say_goodbye(Duration::ZERO),
            // Said again, which changes nothing where it stands: the answer names the lease to give back.
            (_, None) if self.in_doubt => self.register(),
            (_, None) => self.stage = Stage::Gone,
        }
    }

    fn say_goodbye(&mut self, pause: Duration) {
        let Some(lease) = self.enrolment.lease() else {
            self.stage = Stage::Gone;
            return;
        };
        let lease = wire::Lease { lease_id: lease.id.clone(), incarnation: lease.incarnation };
        let request = wire::DeregisterRequest { target: Some(wire::deregister_request::Target::Lease(lease)) };
        let mut client = self.registries.client();
        let after = clock::now() + pause;
        let call: Call<()> = Box::pin(async move {
            sleep_until(after).await;
            bounded(async move { client.deregister(with_timeout(request)).await }).await.map(drop)
        });
        let beating = match std::mem::replace(&mut self.stage, Stage::Gone) {
            Stage::Beating(beating) => Some(beating),
            Stage::Leaving { _beating, .. } => _beating,
            Stage::Resting { .. } | Stage::Registering { .. } | Stage::Gone => None,
        };
        self.stage = Stage::Leaving { call, _beating: beating };
    }

    fn publish(&self) {
        let draining = self.enrolment.serving() == ServingStatus::Draining;
        let state = match (&self.stage, self.enrolment.lease()) {
            (Stage::Gone, _) => RegistrarState::Gone,
            (_, None) => RegistrarState::Registering,
            (_, Some(_)) if draining => RegistrarState::Draining,
            (Stage::Resting { .. }, _) => RegistrarState::Reconnecting,
            (Stage::Beating(Beating { answered: None, .. }), _) if self.last_error.is_some() => {
                RegistrarState::Reconnecting
            }
            _ => RegistrarState::Registered,
        };
        let next = RegistrarStatus {
            state,
            instance_id: self.enrolment.identity().id,
            incarnation: self.enrolment.held().map(|(incarnation, _)| incarnation),
            announced: self.enrolment.announced(),
            operator_objects: self.operator_objects,
            last_error: self.last_error.clone(),
        };
        self.status.send_if_modified(|current| {
            let changed = *current != next;
            if changed {
                *current = next;
            }
            changed
        });
    }
}

impl Stage {
    /// Waits for the next thing to happen; dropping the wait loses nothing.
    async fn happens(&mut self, enrolment: &Enrolment) -> Happened {
        match self {
            Self::Resting { until } => {
                sleep_until(*until).await;
                Happened::Rested
            }
            Self::Registering { call, .. } => Happened::Registered(call.await),
            Self::Beating(beating) => beating.happens(enrolment).await,
            Self::Leaving { call, .. } => Happened::Left(call.await),
            Self::Gone => std::future::pending().await,
        }
    }
}

impl Beating {
    async fn happens(&mut self, enrolment: &Enrolment) -> Happened {
        let due = enrolment.beat_at().map(Instant::from_std);
        let overdue = enrolment.overdue_at().map(Instant::from_std);
        let (beats, stream) = (&self.beats, &mut self.stream);
        tokio::select! {
            happened = stream.next() => happened,
            () = room(beats, due), if due.is_some() => Happened::BeatDue,
            () = until(overdue), if overdue.is_some() => Happened::Broke("a beat was not answered in time".into()),
        }
    }
}

impl Stream {
    async fn next(&mut self) -> Happened {
        match self {
            Self::Opening(opening) => match opening.await {
                Ok(stream) => Happened::Opened(Box::new(stream)),
                Err(status) => Happened::NotOpened(status),
            },
            Self::Open(stream) => match stream.message().await {
                Ok(Some(response)) => Happened::Answered(response),
                Ok(None) => Happened::Broke("the registry ended the stream".into()),
                Err(status) => Happened::Broke(explain(&status)),
            },
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits until a beat is due and the stream has room for it; for ever where the stream takes none any more, which the
/// stream itself will say.
async fn room(beats: &mpsc::Sender<wire::KeepAliveRequest>, due: Option<Instant>) {
    until(due).await;
    if beats.reserve().await.is_err() {
        std::future::pending().await
    }
}

fn with_timeout<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_MAX);
    request
}

/// A plain call that ends within [`CALL_MAX`].
fn bounded<T: Send + 'static>(call: impl Future<Output = Result<Response<T>, Status>> + Send + 'static) -> Call<T> {
    Box::pin(async move {
        match timeout(CALL_MAX, call).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("the registry did not answer in time")),
        }
    })
}

fn status_of(serving: ServingStatus) -> wire::ServingStatus {
    match serving {
        ServingStatus::Serving => wire::ServingStatus::Serving,
        ServingStatus::NotServing => wire::ServingStatus::NotServing,
        ServingStatus::Draining => wire::ServingStatus::Draining,
    }
}

/// Whether a registration that ended so may stand: what the registry refuses does not, what got lost may.
fn may_stand(code: Code) -> bool {
    match code {
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => false,
    }
}

fn explain(status: &Status) -> Arc<str> {
    format!("{:?}: {}", status.code(), status.message()).into()
}
