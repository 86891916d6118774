//! A second attempt beside the first, which is not given up for it: the first answer wins.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::attempt::{Attempt, Cause, Failed};
use super::state::{Call, Reply};
use crate::policy::Pushback;

impl Call {
    /// Whether `first`, which has waited long enough, may have another one beside it: the request is one message that was
    /// sent whole, its method may be repeated and is not known to stream, another endpoint has room, and the budget has one left.
    pub(super) fn may_hedge(&mut self, first: &Attempt) -> bool {
        if self.body.one_message().is_none() {
            return false;
        }
        self.has_tried(first.endpoint());
        let (target, path, now) = (&self.target, self.head.method_path(), self.now());
        let granted = target.has_untried(&self.tried)
            && self.attempts.hedge(
                &target.policy().retry,
                || {
                    target.idempotency(path, first.endpoint()).repeatable()
                        && !target.is_streaming(path, first.endpoint())
                },
                || target.budget().withdraw(now),
            );
        self.is_repeated();
        granted
    }

    /// Sends the request to a second endpoint, and waits for either answer. A failure ends its own attempt and not the
    /// other; when both have failed, the call has.
    pub(super) async fn race(&mut self, first: Attempt) -> Result<Reply, Failed> {
        let mut running = [Some(first), self.second()];
        let mut failure: Option<Failed> = None;
        let (target, body) = (&*self.target, &mut self.body);
        poll_fn(move |cx| {
            for slot in &mut running {
                let Some(attempt) = slot else { continue };
                match attempt.poll(body, target, cx) {
                    Poll::Pending => {}
                    // The other one goes with `running`, and is reset.
                    Poll::Ready(Ok(answer)) => {
                        if let Some(winner) = slot.take() {
                            return Poll::Ready(Ok(Reply::new(winner, answer)));
                        }
                    }
                    Poll::Ready(Err(failed)) => {
                        *slot = None;
                        failure = Some(match failure.take() {
                            Some(former) => weightier(former, failed),
                            None => failed,
                        });
                    }
                }
            }
            match failure.take() {
                Some(failed) if running.iter().all(Option::is_none) => Poll::Ready(Err(failed)),
                failed => {
                    failure = failed;
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The second attempt, unless somebody took the place meanwhile.
    fn second(&mut self) -> Option<Attempt> {
        let message = self.body.one_message()?;
        let now = self.now();
        let in_flight = self.pick(now).ok()?;
        if self.tried.iter().any(|tried| Arc::ptr_eq(tried, in_flight.endpoint())) {
            return None;
        }
        self.has_tried(in_flight.endpoint());
        Attempt::open_with(in_flight, self.next_head(now), message).ok()
    }
}

/// Of two failures the one to judge by: the later, unless a server has said that it wants no more attempts.
fn weightier(former: Failed, later: Failed) -> Failed {
    match former.cause {
        Cause::Answered { pushback: Pushback::Stop, .. } => former,
        _ => later,
    }
}
