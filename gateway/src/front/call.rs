//! The call behind a request: bytes in, messages out, over the mesh client's channel and without a generated stub.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Uri};
use http_body::Body as _;
use http_body_util::Full;
use mesh_client::{MeshChannel, ResponseBody};
use tonic::{Code, Status};
use tower::Service;

use super::fault::Fault;
use super::frames::{Frames, framed};

/// What is called.
pub(super) struct Call<'a> {
    pub(super) channel: MeshChannel,
    pub(super) path: &'a PathAndQuery,
    pub(super) headers: HeaderMap,
    /// Largest message that is taken as an answer.
    pub(super) message_bytes: usize,
}

impl Call<'_> {
    /// Sends one message and returns the answer's.
    pub(super) async fn begin(mut self, message: &[u8]) -> Result<Messages, Fault> {
        let mut request = Request::new(tonic::body::Body::new(Full::new(framed(message))));
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.headers_mut() = self.headers;
        let response = self.channel.call(request).await.map_err(Fault::Mesh)?;
        if let Some(status) = Status::from_header_map(response.headers())
            && status.code() != Code::Ok
        {
            return Err(Fault::Service(status));
        }
        Ok(Messages { body: response.into_body(), frames: Frames::new(self.message_bytes), is_over: false })
    }

    /// Sends one message and returns the one that answers it.
    pub(super) async fn unary(self, message: &[u8]) -> Result<Bytes, Fault> {
        let mut messages = self.begin(message).await?;
        let Some(answer) = messages.next().await? else {
            return Err(Fault::BadAnswer("an answer without a message".to_owned()));
        };
        match messages.next().await? {
            None => Ok(answer),
            Some(_) => Err(Fault::BadAnswer("an answer of more than one message".to_owned())),
        }
    }
}

/// The messages of an answer, one at a time: nothing is read ahead of whoever asks. Dropping it cancels the call.
pub(super) struct Messages {
    body: ResponseBody,
    frames: Frames,
    is_over: bool,
}

impl Messages {
    /// The next message; `None` after the last one of a call that went well.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        loop {
            if let Some(message) = self.frames.next().map_err(|fault| Fault::BadAnswer(fault.to_string()))? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.is_over {
                let end = self.frames.end().map(|()| None);
                return Poll::Ready(end.map_err(|fault| Fault::BadAnswer(fault.to_string())));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.is_over = true,
                Some(Err(status)) => return Poll::Ready(Err(Fault::Mesh(status))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => self.frames.push(piece),
                    Err(frame) => {
                        self.is_over = true;
                        // The channel lets no answer end without a status.
                        let status = frame.trailers_ref().and_then(Status::from_header_map);
                        if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
                            return Poll::Ready(Err(Fault::Service(status)));
                        }
                    }
                },
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}
