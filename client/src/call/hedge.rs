//! A second attempt beside the first, which is not given up for it: the first answer wins.

use std::future::poll_fn;
use std::task::Poll;

use super::attempt::{Attempt, Cause, Failed};
use super::state::{Call, Reply};
use crate::conn::StreamError;
use crate::policy::Pushback;

impl Call {
    /// A second attempt for `first`, which has waited long enough to have one beside it: where the request is one message that
    /// was sent whole, its method may be repeated and is not known to stream, the budget has one left, and another endpoint has
    /// room.
    pub(super) fn second(&mut self, first: &Attempt) -> Option<Attempt> {
        let message = self.body.one_message()?;
        let (target, path, endpoint) = (self.target.clone(), self.head.method_path(), first.endpoint());
        let repeatable = || target.idempotency(path, endpoint).repeatable() && !target.is_streaming(path, endpoint);
        if !self.attempts.may_hedge(&target.policy().retry) || !repeatable() {
            return None;
        }
        self.has_tried(endpoint);
        let now = self.now();
        if !target.has_untried(&self.tried) || !target.budget().withdraw(now) {
            return None;
        }
        let Some(in_flight) = self.pick_untried(now) else {
            target.budget().give_back(now);
            return None;
        };
        self.attempts.hedged();
        self.is_repeated();
        self.has_tried(in_flight.endpoint());
        Attempt::open_with(in_flight, self.next_head(now), message).ok()
    }

    /// Waits for the answer to either of two attempts. A failure ends its own attempt and not the other; when both have failed,
    /// the call has.
    pub(super) async fn race(&mut self, both: [Attempt; 2]) -> Result<Reply, Failed> {
        let mut running = both.map(Some);
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
}

/// Of two failures the one to judge by: the one that may have been processed, then the one whose server asks for more, then the
/// later.
fn weightier(former: Failed, later: Failed) -> Failed {
    if weight(&former.cause) > weight(&later.cause) { former } else { later }
}

/// What a failure asks of the next attempt; `None`: nobody has processed this one.
fn weight(cause: &Cause) -> Option<Pushback> {
    match cause {
        Cause::Stream(StreamError::Unprocessed(_) | StreamError::Refused(_)) | Cause::WrongService => None,
        Cause::Stream(_) | Cause::Body(_) => Some(Pushback::None),
        Cause::Answered { pushback, .. } => Some(*pushback),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Response;
    use tonic::Code;

    use super::*;

    #[test]
    fn what_may_have_been_processed_decides_and_so_does_the_longest_wait() {
        let answered = |pushback| {
            let response = Box::new(Response::new(()));
            weight(&Cause::Answered { response, code: Code::Unavailable, pushback })
        };
        let after = |ms| Pushback::After(Duration::from_millis(ms));
        let unprocessed = weight(&Cause::Stream(StreamError::Unprocessed("gone".to_owned())));
        let lost = weight(&Cause::Stream(StreamError::Lost("broken".to_owned())));
        assert_eq!(unprocessed, weight(&Cause::WrongService));
        assert_eq!(lost, answered(Pushback::None));
        assert!([unprocessed, lost, answered(after(1)), answered(after(2)), answered(Pushback::Stop)].is_sorted());
        assert!(unprocessed < lost && lost < answered(after(1)));
    }
}
