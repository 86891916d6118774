//! The body of an answer, and what is measured of it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tonic::Status;

use super::metrics::Open;
use super::stream::Stream;

/// What is sent to a client.
#[derive(Default)]
pub(super) struct Body(Kind);

enum Kind {
    /// All of it.
    Whole(Bytes),
    /// Messages of a service as they come.
    Stream(Box<Stream>),
    /// What a gRPC client is sent.
    Grpc(tonic::body::Body),
}

impl Default for Kind {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl Body {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    pub(super) fn stream(stream: Stream) -> Self {
        Self(Kind::Stream(Box::new(stream)))
    }

    pub(super) fn grpc(body: tonic::body::Body) -> Self {
        Self(Kind::Grpc(body))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.0 {
            Kind::Whole(bytes) if bytes.has_remaining() => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Whole(_) => Poll::Ready(None),
            Kind::Stream(stream) => stream.poll_next(cx).map(|next| next.map(|piece| Ok(Frame::data(piece)))),
            Kind::Grpc(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Stream(_) => false,
            Kind::Grpc(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(_) => SizeHint::default(),
            Kind::Grpc(body) => body.size_hint(),
        }
    }
}

/// A body whose request is open until its last byte is taken, or nobody wants it any more.
pub(super) struct Measured {
    pub(super) body: Body,
    pub(super) open: Open,
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.open.sent(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
