//! One call from its request to its trailers.

mod attempt;
mod head;
mod response;
mod run;
mod status;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

pub use response::ResponseBody;
use tonic::Status;

use crate::clock;
use crate::context;
use crate::policy::Deadline;
use crate::target::Target;

/// Ask on a request (`request.extensions_mut().insert(WaitForReady)`) to wait for a READY endpoint until the call's own
/// deadline instead of the channel's failfast time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitForReady;

/// Where a call belongs on the ring of a service that is balanced by [`RingHash`](crate::RingHash): ask with
/// `request.extensions_mut().insert(HashKey::of(b"customer-7"))`. Equal keys go to the same endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashKey(pub u64);

impl HashKey {
    /// Hashes whatever tells callers apart, as the ring does (xxHash64).
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh64::xxh64(bytes, 0))
    }
}

type Run = Pin<Box<dyn Future<Output = Result<http::Response<ResponseBody>, Status>> + Send>>;

/// A call under way. Dropping it cancels the call: a waiting one leaves the queue, one that was sent is reset.
pub struct CallFuture {
    /// `None` once it is over.
    run: Option<Run>,
    deadline: Deadline,
}

impl CallFuture {
    /// Starts the clock of a call. What it inherits is read here, on the caller's own task.
    pub(crate) fn start(target: Arc<Target>, request: http::Request<tonic::body::Body>) -> Self {
        let now = clock::now();
        let inherited = context::current();
        let trace = inherited.trace.map(|trace| trace.child(&target.config().entropy));
        let (mut parts, body) = request.into_parts();
        let wait_for_ready = parts.extensions.remove::<WaitForReady>().is_some();
        let head = head::Head::new(parts, trace);
        let own = head.timeout().and_then(|timeout| now.checked_add(timeout));
        let deadline = Deadline::earliest(own, inherited.deadline);

        target.budget().deposit(now);
        let call = run::Call::new(target, head, body, deadline.at(), wait_for_ready);
        Self { run: Some(Box::pin(call.run(now))), deadline }
    }
}

impl Future for CallFuture {
    type Output = Result<http::Response<ResponseBody>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(run) = &mut this.run else {
            return Poll::Ready(Err(Status::internal("the call was polled after its end")));
        };
        let outcome = match run.as_mut().poll(cx) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => match this.deadline.poll_expired(cx) {
                Poll::Ready(()) => Err(status::deadline_exceeded()),
                Poll::Pending => return Poll::Pending,
            },
        };
        // Dropped here and not with the future: an expired call is reset now.
        this.run = None;
        Poll::Ready(outcome.map(|mut response| {
            response.body_mut().until(std::mem::take(&mut this.deadline));
            response
        }))
    }
}

impl fmt::Debug for CallFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
