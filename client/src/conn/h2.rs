//! HTTP/2 through the `h2` crate, without a dispatcher in between: a call opens its stream by itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::finished::Finished;
use super::hygiene::{in_words, leave_out_unreadable};
use super::orders::Orders;
use super::traffic::Traffic;
use super::{Conn, Download, End, Ending, StreamError, Upload, Vitals};

/// Read bytes of an answer for which the peer gets room again at once: far below its window, so it never waits for them, and
/// far above most answers, which are over before. What they took h2 gives back with the stream.
const GIVEN_BACK_BYTES_MIN: usize = 32 << 10;

/// A connection's handle. When it is dropped the connection ends, once its last stream has.
pub(crate) struct H2Conn {
    sender: SendRequest<Bytes>,
    vitals: Arc<Vitals>,
    orders: Arc<Orders>,
    shared: Arc<Shared>,
}

/// What the handle and its streams have in common, and the driver has not.
#[derive(Debug)]
struct Shared {
    traffic: Traffic,
    finished: Finished,
}

impl H2Conn {
    pub(super) fn new(sender: SendRequest<Bytes>, vitals: Arc<Vitals>, orders: Arc<Orders>, traffic: Traffic) -> Self {
        let shared = Arc::new(Shared { traffic, finished: Finished::default() });
        Self { sender, vitals, orders, shared }
    }
}

impl Drop for H2Conn {
    fn drop(&mut self) {
        self.orders.release();
    }
}

impl fmt::Debug for H2Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("H2Conn").field(&self.vitals).finish()
    }
}

impl Conn for H2Conn {
    type Answer = H2Answer;
    type Upload = H2Upload;
    type Download = H2Download;

    fn open(&self, head: http::Request<()>) -> Result<(H2Answer, H2Upload), StreamError> {
        // Looked at before the request can be anywhere: what it counts later is at most this request's.
        let written = self.shared.traffic.written();
        let mut sender = self.sender.clone();
        match sender.send_request(head, false) {
            Ok((answer, upload)) => {
                self.shared.finished.release();
                Ok((H2Answer { answer, shared: self.shared.clone(), written }, H2Upload(upload)))
            }
            Err(error) if takes_no_more(&mut sender) => {
                self.vitals.retire(Ending::GoAway);
                Err(StreamError::Unprocessed(in_words(&error)))
            }
            // The request's own fault: nobody would take it, and other calls are well here.
            Err(error) => Err(StreamError::Protocol(in_words(&error))),
        }
    }

    fn probe(&self) {
        // Where the driver has ended nobody listens, and `vitals` says so.
        self.orders.probe();
    }

    fn vitals(&self) -> &Vitals {
        &self.vitals
    }
}

/// The head of an answer under way.
pub(crate) struct H2Answer {
    answer: ResponseFuture,
    shared: Arc<Shared>,
    /// What had been written when the stream was opened.
    written: u64,
}

impl H2Answer {
    /// What an error means. A connection that died before one more byte was written on it took nothing of this request along.
    fn failed(&self, error: &h2::Error) -> StreamError {
        match classify(error) {
            StreamError::Lost(why) if self.shared.traffic.written() == self.written => StreamError::Unprocessed(why),
            other => other,
        }
    }
}

impl Future for H2Answer {
    type Output = Result<http::Response<H2Download>, StreamError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| match answer {
            Ok(mut response) => {
                leave_out_unreadable(response.headers_mut());
                Ok(response.map(|stream| H2Download { stream, read: 0, shared: self.shared.clone() }))
            }
            Err(error) => Err(self.failed(&error)),
        })
    }
}

/// The request's body on its way.
pub(crate) struct H2Upload(SendStream<Bytes>);

impl Upload for H2Upload {
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        // One byte of room is enough: h2 takes a whole message and cuts it to the window.
        self.0.reserve_capacity(1);
        while self.0.capacity() == 0 {
            match ready!(self.0.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(classify(&error))),
                None => return Poll::Ready(Err(StreamError::Lost("the stream is closed".to_owned()))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, data: Bytes, end: End) -> Result<(), StreamError> {
        self.0.send_data(data, end == End::Here).map_err(|error| classify(&error))
    }

    fn cancel(&mut self) {
        self.0.send_reset(Reason::CANCEL);
    }
}

/// The answer's body on its way.
#[derive(Debug)]
pub(crate) struct H2Download {
    stream: RecvStream,
    /// Bytes that were read and not given back yet.
    read: usize,
    shared: Arc<Shared>,
}

impl H2Download {
    /// Read is read: the peer may send as much again.
    fn give_back(&mut self, bytes: usize) {
        self.read += bytes;
        if self.read >= GIVEN_BACK_BYTES_MIN {
            // It fails only on a stream that is already closed.
            let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.read));
        }
    }
}

impl Download for H2Download {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        self.stream
            .poll_data(cx)
            .map(|data| Some(data?.map_err(|error| classify(&error)).inspect(|data| self.give_back(data.len()))))
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, StreamError>> {
        self.stream.poll_trailers(cx).map(|trailers| match trailers {
            Ok(mut trailers) => {
                trailers.iter_mut().for_each(leave_out_unreadable);
                Ok(trailers)
            }
            Err(error) => Err(classify(&error)),
        })
    }

    fn finish(self) {
        self.shared.finished.keep(self.stream);
    }
}

/// Whether the connection is over for new streams: a GOAWAY that the driver has not seen yet, a connection that just
/// died, or stream ids used up. The connection is asked, since h2 does not tell its errors about requests apart.
fn takes_no_more(sender: &mut SendRequest<Bytes>) -> bool {
    matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
}

/// What an error on a stream means for the call on it.
fn classify(error: &h2::Error) -> StreamError {
    let text = in_words(error);
    match error.reason() {
        // Streams up to the GOAWAY's last id go on undisturbed; only those beyond see it as their error.
        _ if error.is_go_away() && error.is_remote() => StreamError::Unprocessed(text),
        _ if error.is_go_away() || error.is_io() => StreamError::Lost(text),
        Some(Reason::REFUSED_STREAM) if error.is_remote() => StreamError::Refused(text),
        Some(reason) if error.is_remote() => StreamError::Reset { code: reason.into() },
        _ => StreamError::Protocol(text),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::conn::{Calm, ConnSettings, dial};
    use crate::rig::{Net, Server, address, ok};

    #[tokio::test(start_paused = true)]
    async fn a_request_that_cannot_be_sent_fails_alone_and_its_connection_goes_on() {
        let net = Net::default();
        let _server = Server::start(&net, 1, ok);
        let conn =
            dial(Arc::new(net), &address(1), ConnSettings::default(), Calm::default(), Arc::default()).await.unwrap();
        let malformed = Request::post("http://user-svc/a/b").header("keep-alive", "1").body(()).unwrap();
        assert!(matches!(conn.open(malformed), Err(StreamError::Protocol(_))));
        assert_eq!(conn.vitals().ending(), None);

        let sound = Request::post("http://user-svc/a/b").body(()).unwrap();
        let (answer, _upload) = conn.open(sound).map_err(drop).unwrap();
        assert!(answer.await.is_ok());
    }
}
