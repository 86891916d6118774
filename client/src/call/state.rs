//! A call, and what its attempts have in common.

use std::sync::Arc;

use http::Response;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::attempt::{Answer, Attempt, Failed};
use super::entry::Entry;
use super::head::Head;
use super::response::ResponseBody;
use super::status::{self, Stage};
use super::upload::RequestBody;
use super::{HashKey, WaitForReady};
use crate::clock;
use crate::conn::{Conn, Wire};
use crate::context;
use crate::endpoint::Endpoint;
use crate::policy::{Attempts, Balancer, Deadline, Patience};
use crate::target::{InFlight, Target, Unplaced, Wanted};

/// A call and what its attempts have in common.
pub(super) struct Call {
    pub(super) target: Arc<Target>,
    pub(super) head: Head,
    pub(super) body: RequestBody,
    pub(super) deadline: Option<Instant>,
    pub(super) readiness: Readiness,
    pub(super) attempts: Attempts,
    /// Endpoints that have failed this call, or have it under way, and are still there.
    pub(super) tried: Vec<Arc<Endpoint>>,
    key: Option<u64>,
    entry: Entry,
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
    /// Reads what the request and its surroundings say about the call that begins at `now`.
    pub(super) fn new(target: Arc<Target>, request: http::Request<tonic::body::Body>, now: Instant) -> Self {
        let inherited = context::current();
        let trace = inherited.trace.map(|trace| trace.child(&target.config().entropy));
        let (parts, body) = request.into_parts();
        let readiness = match parts.extensions.get::<WaitForReady>() {
            None => Readiness::Failfast,
            Some(WaitForReady) => Readiness::Wait,
        };
        let key = key(&target.policy().balancer, &parts);
        let head = Head::new(parts.method, parts.uri, parts.headers, trace);
        let own = head.timeout().and_then(|timeout| now.checked_add(timeout));
        let deadline = Deadline::earlier(own, inherited.deadline);
        let patience = match deadline {
            None if readiness == Readiness::Failfast => Patience::For(target.policy().failfast),
            _ => Patience::Whole,
        };
        let entry = Entry::new(target.ledger().clone(), head.method_path(), now, deadline);
        Self {
            target,
            head,
            body: RequestBody::new(body),
            deadline,
            readiness,
            attempts: Attempts::new(patience),
            tried: Vec::new(),
            key,
            entry,
        }
    }

    /// Asks for a place.
    pub(super) fn pick(&self, now: Instant) -> Result<InFlight, Unplaced> {
        self.target.pick(&Wanted {
            now,
            tried: &self.tried,
            key: self.key,
            method: self.head.method_path(),
            metric: self.entry.method(),
            deadline: self.deadline,
        })
    }

    /// Opens the next attempt. The outer error ends the call.
    pub(super) fn open(&mut self, in_flight: InFlight, now: Instant) -> Result<Result<Attempt, Failed>, Status> {
        let head = self.next_head(now)?;
        Ok(Attempt::open(in_flight, head))
    }

    /// The head of an attempt that is made now. Past the deadline there is none: nobody waits for its answer any more, and a
    /// write that was sent now would be done behind the caller's back.
    pub(super) fn next_head(&mut self, now: Instant) -> Result<http::Request<()>, Status> {
        let left = self.deadline.map(|at| at.saturating_duration_since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(self.expired(Stage::Unsent, now));
        }
        Ok(self.head.attempt(&self.target.config().authority, left, self.attempts.previous()))
    }

    /// Notes an endpoint that the next attempt had better not go to.
    pub(super) fn has_tried(&mut self, endpoint: &Arc<Endpoint>) {
        if !self.tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint)) {
            self.tried.push(endpoint.clone());
        }
    }

    pub(super) fn has_expired(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|at| at <= now)
    }

    /// The call is over, and this is what its caller gets.
    pub(super) fn end(mut self, reply: Result<Reply, Status>) -> Result<Response<ResponseBody>, Status> {
        self.entry.repeated(&self.attempts);
        match reply {
            Ok(Reply::Begun(attempt, response)) => {
                let (in_flight, rest) = attempt.into_rest(self.body);
                let (entry, deadline) = (self.entry, self.deadline);
                Ok(response.map(|stream| ResponseBody::new(stream, in_flight, rest, entry, deadline)))
            }
            Ok(Reply::Whole(response, code)) => {
                self.entry.end(code, clock::now());
                Ok(response.map(|()| ResponseBody::empty()))
            }
            Err(status) => {
                self.entry.end(status.code(), clock::now());
                Err(status)
            }
        }
    }

    pub(super) fn begun(&self) -> Instant {
        self.entry.begun()
    }

    pub(super) fn capped(&self) -> Status {
        status::capped(self.target.service(), self.target.policy().in_flight_max)
    }

    pub(super) fn expired(&self, stage: Stage<'_>, now: Instant) -> Status {
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
