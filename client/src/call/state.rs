//! A call, and what its attempts have in common.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response};
use tonic::{Code, Status};

use super::attempt::{Answer, Attempt, Failed};
use super::entry::Entry;
use super::head::{Head, Opening};
use super::response::ResponseBody;
use super::status::{self, Stage};
use super::upload::RequestBody;
use super::{HashKey, WaitForReady};
use crate::clock::Stamp;
use crate::conn::{Conn, Wire};
use crate::context;
use crate::endpoint::Endpoint;
use crate::policy::{Attempts, Balancer, Patience};
use crate::target::{InFlight, Target, Unplaced, Wanted};

/// A call and what its attempts have in common. It is moved a few times before it is sent, so it is kept small.
pub(super) struct Call {
    pub(super) target: Arc<Target>,
    pub(super) head: Head,
    pub(super) body: RequestBody,
    pub(super) readiness: Readiness,
    pub(super) attempts: Attempts,
    /// Endpoints that have failed this call, or have it under way, and are still there.
    pub(super) tried: Vec<Arc<Endpoint>>,
    key: Option<u64>,
    entry: Entry,
}

/// What only the first attempt has, if it is made at once: the caller's own headers, and the timeout that stands in them.
#[derive(Default)]
pub(super) struct First {
    headers: HeaderMap,
    timeout: Option<Duration>,
    /// What there is of the deadline.
    left: Option<Duration>,
}

/// What a call does while nothing is READY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It fails after the channel's failfast time.
    Failfast,
    /// It waits.
    Wait,
}

/// What a call came to.
pub(super) enum Reply {
    /// Messages follow, or trailers.
    Begun(Attempt, Response<<Wire as Conn>::Download>),
    /// A status and nothing else.
    Whole(Response<()>, Code),
}

impl Reply {
    pub(super) fn new(attempt: Attempt, answer: Answer) -> Self {
        match answer {
            Answer::Begun(response) => Self::Begun(attempt, response),
            Answer::Whole(response, code) => Self::Whole(response, code),
        }
    }
}

impl Call {
    /// Reads what the request and its surroundings say about the call that begins at `now`, and about its `first` attempt.
    pub(super) fn new(
        target: Arc<Target>,
        request: http::Request<tonic::body::Body>,
        now: Stamp,
        first: &mut First,
    ) -> Self {
        let inherited = context::current();
        let trace = inherited.trace.map(|trace| trace.child(&target.config().entropy));
        let (parts, body) = request.into_parts();
        let readiness = match parts.extensions.get::<WaitForReady>() {
            None => Readiness::Failfast,
            Some(WaitForReady) => Readiness::Wait,
        };
        let key = key(&target.policy().balancer, &parts);
        first.headers = parts.headers;
        let Opening { head, timeout } = Opening::new(parts.uri, &mut first.headers, trace);
        let own = timeout.map(|timeout| now.after(timeout));
        let inherited = inherited.deadline.map(|at| target.ledger().stamp(at));
        let (deadline, left) = match (own, inherited) {
            (Some(own), inherited) if inherited.is_none_or(|inherited| own <= inherited) => (Some(own), timeout),
            (_, Some(inherited)) => (Some(inherited), Some(inherited.since(now))),
            (_, None) => (None, None),
        };
        let patience = match deadline {
            None if readiness == Readiness::Failfast => Patience::For(target.policy().failfast),
            _ => Patience::Whole,
        };
        let entry = Entry::new(target.ledger().clone(), head.method_path(), now, deadline);
        (first.timeout, first.left) = (timeout, left);
        Self {
            target,
            head,
            body: RequestBody::new(body),
            readiness,
            attempts: Attempts::new(patience),
            tried: Vec::new(),
            key,
            entry,
        }
    }

    /// What time it is.
    pub(super) fn now(&self) -> Stamp {
        self.target.ledger().now()
    }

    /// Asks for a place, unless somebody who waits for one has been told of it.
    pub(super) fn pick_in_turn(&self, now: Stamp) -> Result<InFlight, Unplaced> {
        if self.target.queue().is_owed() { Err(Unplaced::Wait) } else { self.pick(now) }
    }

    /// Asks for a place.
    pub(super) fn pick(&self, now: Stamp) -> Result<InFlight, Unplaced> {
        self.target.pick(&self.wanted(now))
    }

    /// Asks for a place where the call has not been.
    pub(super) fn pick_untried(&self, now: Stamp) -> Option<InFlight> {
        if self.target.queue().is_owed() { None } else { self.target.pick_untried(&self.wanted(now)) }
    }

    #[inline]
    fn wanted(&self, now: Stamp) -> Wanted<'_> {
        Wanted {
            now,
            tried: &self.tried,
            key: self.key,
            method: self.head.method_path(),
            metric: self.entry.method(),
            deadline: self.entry.deadline(),
        }
    }

    /// Opens the first attempt, at the moment the call begins.
    pub(super) fn open_first(&self, in_flight: InFlight, first: First) -> Result<Attempt, Failed> {
        let First { headers, timeout, left } = first;
        Attempt::open(in_flight, self.head.first(&self.target.config().authority, headers, timeout, left))
    }

    /// Opens a later attempt.
    pub(super) fn open(&self, in_flight: InFlight, now: Stamp) -> Result<Attempt, Failed> {
        Attempt::open(in_flight, self.next_head(now))
    }

    /// What a later attempt says that is made now.
    pub(super) fn next_head(&self, now: Stamp) -> http::Request<()> {
        let left = self.deadline().map(|at| at.since(now));
        self.head.again(&self.target.config().authority, left, self.attempts.previous())
    }

    /// Asked before a place is taken: past the deadline nobody waits for an answer any more, and a write that was sent now
    /// would be done behind the caller's back.
    pub(super) fn check_deadline(&self, now: Stamp) -> Result<(), Status> {
        if self.has_expired(now) { Err(self.expired(Stage::Unsent, now)) } else { Ok(()) }
    }

    /// Notes an endpoint that the next attempt had better not go to.
    pub(super) fn has_tried(&mut self, endpoint: &Arc<Endpoint>) {
        if !self.tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint)) {
            self.tried.push(endpoint.clone());
        }
    }

    /// Notes for the statistics that the call is repeated.
    pub(super) fn is_repeated(&mut self) {
        self.entry.repeated(&self.attempts);
    }

    /// When the call must be over.
    pub(super) fn deadline(&self) -> Option<Stamp> {
        self.entry.deadline()
    }

    pub(super) fn has_expired(&self, now: Stamp) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }

    pub(super) fn begun(&self) -> Stamp {
        self.entry.begun()
    }

    /// The call is over as far as it is this one's: this is what its caller gets.
    pub(super) fn end(&mut self, reply: Result<Reply, Status>) -> Result<Response<ResponseBody>, Status> {
        match reply {
            Ok(Reply::Begun(attempt, response)) => Ok(self.answered(attempt, response)),
            Ok(Reply::Whole(response, code)) => Ok(self.answered_whole(response, code)),
            Err(status) => Err(self.failed(status)),
        }
    }

    /// An answer has begun; its body sees to the rest.
    pub(super) fn answered(
        &mut self,
        attempt: Attempt,
        response: Response<<Wire as Conn>::Download>,
    ) -> Response<ResponseBody> {
        let (in_flight, rest) = attempt.into_rest(&mut self.body, self.entry.deadline());
        let entry = self.entry.hand_over();
        response.map(|stream| ResponseBody::new(stream, in_flight, rest, entry))
    }

    pub(super) fn answered_whole(&mut self, response: Response<()>, code: Code) -> Response<ResponseBody> {
        self.entry.end(code, self.target.ledger().now());
        response.map(|()| ResponseBody::empty())
    }

    pub(super) fn failed(&mut self, status: Status) -> Status {
        self.entry.end(status.code(), self.target.ledger().now());
        status
    }

    pub(super) fn capped(&self) -> Status {
        status::capped(self.target.service(), self.target.policy().in_flight_max)
    }

    pub(super) fn expired(&self, stage: Stage<'_>, now: Stamp) -> Status {
        status::expired(self.target.service(), self.entry.lasted(now), stage)
    }
}

/// Where the call belongs on a ring, if its service has one.
fn key(balancer: &Balancer, parts: &http::request::Parts) -> Option<u64> {
    let Balancer::RingHash(ring) = balancer else { return None };
    match parts.extensions.get::<HashKey>() {
        Some(HashKey(key)) => Some(*key),
        None => {
            let value = parts.headers.get(ring.key_header.as_ref()?)?;
            Some(HashKey::of(value.as_bytes()).0)
        }
    }
}
