//! One attempt of a call on one connection.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use http::Response;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::response::ResponseBody;
use super::status::{HeadOnly, head_only};
use super::upload::{RequestBody, UploadError};
use crate::conn::{Conn, Ending, StreamError, Upload, Wire};
use crate::target::InFlight;

/// How an attempt ended that the caller does not get to see as it is.
pub(super) enum Failed {
    /// The stream failed.
    Stream(StreamError),
    /// The server answered UNAVAILABLE and nothing else: this is the answer, should it stand.
    Unavailable(Response<ResponseBody>),
    /// The server serves another service and did not look at the call.
    WrongService(Response<ResponseBody>),
    /// The caller's own stream of messages failed.
    Body(Status),
}

/// Sends the request and waits for the head of its answer. That is the commit point: an answer with messages to come is
/// the caller's, whatever happens to it later.
///
/// The body is sent from here, so a unary call needs no task; only when the answer begins before the request has ended does
/// the rest go to one, which the answer's body owns.
pub(super) async fn attempt(
    in_flight: InFlight,
    head: http::Request<()>,
    body: &mut Option<RequestBody>,
) -> Result<Response<ResponseBody>, Failed> {
    let (mut answer, mut upload) = in_flight.conn().open(head).map_err(Failed::Stream)?;
    let sending = body.as_mut().expect("an attempt takes the body away only with its success");
    let mut sending_over = false;
    let response = poll_fn(|cx| {
        if !sending_over && let Poll::Ready(sent) = sending.poll_send(cx, &mut upload) {
            sending_over = true;
            if let Err(UploadError::Body(status)) = sent {
                upload.cancel();
                return Poll::Ready(Err(Failed::Body(status)));
            }
            // Where the stream failed, the answer below says why.
        }
        Pin::new(&mut answer).poll(cx).map_err(Failed::Stream)
    })
    .await?;

    match head_only(response.headers()) {
        Some(HeadOnly::WrongService) => {
            in_flight.conn().vitals().retire(Ending::Misdirected);
            Err(Failed::WrongService(response.map(|stream| ResponseBody::new(stream, in_flight, None))))
        }
        Some(HeadOnly::Unavailable) => {
            Err(Failed::Unavailable(response.map(|stream| ResponseBody::new(stream, in_flight, None))))
        }
        Some(HeadOnly::Final) | None => {
            let rest = body.take().filter(|body| !body.is_done() && !sending_over);
            let rest = rest.map(|body| send_rest(body, upload));
            Ok(response.map(|stream| ResponseBody::new(stream, in_flight, rest)))
        }
    }
}

fn send_rest(mut body: RequestBody, upload: <Wire as Conn>::Upload) -> AbortOnDropHandle<()> {
    body.commit();
    AbortOnDropHandle::new(tokio::spawn(body.send_rest(upload)))
}
