//! A service's stream as an HTTP body: JSON lines, or server-sent events. A message is asked for when the client takes one, so
//! nothing piles up; and whoever goes away cancels the call, since the body is dropped then.
//!
//! What goes wrong in the middle is the last thing that is said: a line `{"error": Status}`, or an event `error`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::call::Messages;
use super::content::Format;
use super::fault::Fault;
use crate::transcode::Route;

/// A comment goes out when events pause for so long: proxies cut what is silent for a minute, and a client that is gone is
/// found by it.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// The body of a streaming answer.
pub(super) struct Stream {
    messages: Option<Messages>,
    route: Arc<Route>,
    format: Format,
    id: HeaderValue,
    ending: Pin<Box<WaitForCancellationFutureOwned>>,
    comments: Option<Interval>,
}

impl Stream {
    /// The messages of a call of this route, until `ends`.
    pub(super) fn new(
        messages: Messages,
        route: Arc<Route>,
        format: Format,
        id: HeaderValue,
        ends: CancellationToken,
    ) -> Self {
        let comments = (format == Format::Events).then(|| {
            let mut comments = tokio::time::interval(COMMENT_EVERY);
            comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
            comments.reset();
            comments
        });
        Self { messages: Some(messages), route, format, id, ending: Box::pin(ends.cancelled_owned()), comments }
    }

    /// The next piece of the body.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        // Asked first: a stream that always has more would never be waited for.
        if self.ending.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(self.fail(&Fault::Ending)));
        }
        match messages.poll_next(cx) {
            Poll::Ready(Ok(Some(message))) => match self.route.response(&message) {
                Ok(answer) => {
                    if let Some(comments) = &mut self.comments {
                        comments.reset();
                    }
                    Poll::Ready(Some(item(self.format, "", &answer.body)))
                }
                Err(error) => Poll::Ready(Some(self.fail(&Fault::BadAnswer(error.to_string())))),
            },
            Poll::Ready(Ok(None)) => {
                self.messages = None;
                Poll::Ready(None)
            }
            Poll::Ready(Err(fault)) => Poll::Ready(Some(self.fail(&fault))),
            Poll::Pending => {
                let Some(comments) = &mut self.comments else { return Poll::Pending };
                ready!(comments.poll_tick(cx));
                Poll::Ready(Some(Bytes::from_static(b": still here\n\n")))
            }
        }
    }

    /// The last piece. The call is cancelled.
    fn fail(&mut self, fault: &Fault) -> Bytes {
        self.messages = None;
        let status = fault.last_word(&self.id, self.route.rpc());
        match self.format {
            Format::Events => item(self.format, "error", &status),
            Format::Json | Format::Lines => item(self.format, "", &[&b"{\"error\":"[..], &status, b"}"].concat()),
        }
    }
}

/// One item as it is sent. JSON has no line ends of its own; what has them is an event of several lines.
fn item(format: Format, event: &str, body: &[u8]) -> Bytes {
    let mut piece = BytesMut::with_capacity(body.len() + 32);
    match format {
        Format::Json | Format::Lines => {
            piece.put_slice(body);
            piece.put_u8(b'\n');
        }
        Format::Events => {
            if !event.is_empty() {
                piece.put_slice(b"event: ");
                piece.put_slice(event.as_bytes());
                piece.put_u8(b'\n');
            }
            for line in body.split(|byte| *byte == b'\n' || *byte == b'\r') {
                piece.put_slice(b"data: ");
                piece.put_slice(line);
                piece.put_u8(b'\n');
            }
            piece.put_u8(b'\n');
        }
    }
    piece.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_a_line_or_an_event() {
        assert_eq!(item(Format::Lines, "", b"{\"a\":1}"), "{\"a\":1}\n");
        assert_eq!(item(Format::Events, "", b"{\"a\":1}"), "data: {\"a\":1}\n\n");
        assert_eq!(item(Format::Events, "error", b"{}"), "event: error\ndata: {}\n\n");
        assert_eq!(item(Format::Events, "", b"one\ntwo"), "data: one\ndata: two\n\n");
    }
}
