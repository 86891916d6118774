//! gRPC-Web for browsers, and gRPC itself over HTTP/2: the same methods, edge and limits, with the bytes passed through as they
//! come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use mesh_client::ResponseBody;
use mesh_runtime::{DoubtfulLength, clock};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status};
use tonic_web::GrpcWebLayer;
use tower::{Layer, Service, ServiceExt, service_fn};

use super::Shared;
use super::answer::Body;
use super::fault::Fault;
use super::headers::{self, Told};
use super::limits::Limits;
use super::rest::{Answered, Label};
use super::timeout;

/// What a gRPC client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Frames and trailers in an HTTP/1.1 or HTTP/2 body.
    Web,
    /// gRPC as it is, which needs HTTP/2.
    Plain,
}

/// What this request speaks, if it is gRPC at all.
pub(super) fn dialect(version: Version, headers: &HeaderMap) -> Option<Dialect> {
    let said = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    match said {
        "application/grpc-web"
        | "application/grpc-web+proto"
        | "application/grpc-web-text"
        | "application/grpc-web-text+proto" => Some(Dialect::Web),
        "application/grpc" | "application/grpc+proto" if version == Version::HTTP_2 => Some(Dialect::Plain),
        _ => None,
    }
}

/// Answers one request.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    told: &Told,
    dialect: Dialect,
    request: Request<Incoming>,
) -> Answered {
    if request.method() != Method::POST {
        return Answered::unknown(Fault::OtherMethods(vec![Method::POST]));
    }
    let label = shared.published.load().table.rpc(request.uri().path()).map(|rpc| Label::from(rpc.grpc_path().path()));
    let (shared, told) = (Arc::clone(shared), told.clone());
    let call = service_fn(move |request: Request<tonic::body::Body>| {
        let (shared, told) = (Arc::clone(&shared), told.clone());
        async move {
            let response = match proxy(&shared, &told, request).await {
                Ok(response) => response,
                Err(fault) => fault.grpc(&told.id),
            };
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let Ok(response) = match dialect {
        Dialect::Web => GrpcWebLayer::new().layer(call).oneshot(request).await,
        Dialect::Plain => call.oneshot(request.map(tonic::body::Body::new)).await,
    };
    Answered::new(label, Ok(response.map(Body::grpc)))
}

/// Passes one call on.
async fn proxy(
    shared: &Shared,
    told: &Told,
    mut request: Request<tonic::body::Body>,
) -> Result<Response<tonic::body::Body>, Fault> {
    if request.extensions().get::<DoubtfulLength>().is_some() {
        return Err(Fault::DoubtfulLength);
    }
    let published = shared.published.load_full();
    let unknown = if published.heard { Fault::NoMethod } else { Fault::NothingKnown };
    let rpc = published.table.rpc(request.uri().path()).ok_or(unknown)?;
    shared.edge.admit(rpc.grpc_path().path(), request.headers()).await?;
    let mut channel = published.channel(rpc.service()).ok_or(Fault::NoMethod)?;
    told.of_grpc(request.headers_mut(), rpc.service());
    let asked = timeout::asked_by_grpc(request.headers(), shared.limits.timeout_max)
        .map_err(|timeout::Malformed| Fault::BadGrpcTimeout)?;
    // As for REST: a stream lasts for as long as somebody listens, unless they say for how long.
    let timeout = if rpc.is_server_streaming() { asked } else { asked.or(Some(shared.limits.timeout)) };
    if let Some(timeout) = timeout {
        request.headers_mut().insert("grpc-timeout", timeout::grpc_timeout(timeout));
    }
    *request.uri_mut() = rpc.grpc_path().clone().into();
    // One message comes at once, as a REST body does; who streams may pause.
    let patience = (!rpc.is_client_streaming()).then(|| Patience::new(&shared.limits));
    let left = shared.limits.body_bytes;
    let request = request.map(|body| tonic::body::Body::new(Bounded { body: Box::pin(body), left, patience }));
    let response = channel.call(request).await.map_err(Fault::Mesh)?;
    if let Some(status) = Status::from_header_map(response.headers())
        && status.code() != Code::Ok
    {
        return Err(Fault::Service(status));
    }
    let ends = rpc.is_server_streaming().then(|| Box::pin(shared.ends_streams.clone().cancelled_owned()));
    let mut response = response.map(|body| Passed { body: Some(body), ends, id: told.id.clone() });
    headers::strip(response.headers_mut(), true);
    Ok(response.map(tonic::body::Body::new))
}

/// A request's body that is as large and takes as long as it may.
struct Bounded {
    body: Pin<Box<tonic::body::Body>>,
    left: usize,
    patience: Option<Patience>,
}

/// How long a body is waited for: so long between two pieces, and so long in all.
struct Patience {
    pause: Duration,
    end: Instant,
    over: Pin<Box<Sleep>>,
}

impl Patience {
    fn new(limits: &Limits) -> Self {
        let now = clock::now();
        let (pause, end) = (limits.body_pause, now + limits.body_time);
        Self { pause, end, over: Box::pin(sleep_until(end.min(now + pause))) }
    }

    /// A piece has come.
    fn renew(&mut self) {
        self.over.as_mut().reset(self.end.min(clock::now() + self.pause));
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match (self.body.as_mut().poll_frame(cx), &mut self.patience) {
            (Poll::Ready(frame), patience) => {
                patience.iter_mut().for_each(Patience::renew);
                frame
            }
            (Poll::Pending, Some(patience)) => {
                ready!(patience.over.as_mut().poll(cx));
                return Poll::Ready(Some(Err(Status::cancelled("the rest of the request did not come in time"))));
            }
            (Poll::Pending, None) => return Poll::Pending,
        };
        if let Some(Ok(frame)) = &frame {
            match self.left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(Status::out_of_range("the request is too large")))),
            }
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

/// An answer's body, with what is told of failures as it may leave the house. A stream ends with the gateway.
struct Passed {
    /// `None` once it is over.
    body: Option<ResponseBody>,
    ends: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    id: HeaderValue,
}

impl Passed {
    /// The last frame of an answer that failed. The call is cancelled, if it is still there.
    fn fail(&mut self, fault: &Fault) -> Frame<Bytes> {
        self.body = None;
        let headers = fault.grpc(&self.id).into_parts().0.headers;
        let trailers = headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
        Frame::trailers(trailers.filter(|(name, _)| name.as_str().starts_with("grpc-")).collect())
    }
}

impl http_body::Body for Passed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if let Some(ends) = &mut this.ends
            && ends.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Ok(this.fail(&Fault::Ending))));
        }
        let frame = match ready!(Pin::new(body).poll_frame(cx)) {
            None => None,
            Some(Err(status)) => Some(this.fail(&Fault::Mesh(status))),
            Some(Ok(frame)) => match frame.trailers_ref().and_then(Status::from_header_map) {
                Some(status) if status.code() != Code::Ok => Some(this.fail(&Fault::Service(status))),
                _ => Some(frame),
            },
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio_stream::StreamExt as _;

    use super::*;

    /// What becomes of a body whose pieces come so far apart, and when.
    async fn trickled(apart: Duration, pieces: u32) -> (Option<Code>, Duration) {
        let pieces = tokio_stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(apart).await;
            Ok::<_, Status>(Frame::data(Bytes::from_static(b".")))
        });
        let body = Box::pin(tonic::body::Body::new(StreamBody::new(pieces)));
        let (begun, patience) = (clock::now(), Some(Patience::new(&Limits::default())));
        let read = Bounded { body, left: 1000, patience }.collect().await;
        (read.err().map(|status| status.code()), clock::now() - begun)
    }

    #[tokio::test(start_paused = true)]
    async fn one_message_is_not_waited_for_without_end() {
        let limits = Limits::default();
        let second = Duration::from_secs(1);
        assert_eq!(trickled(second, 5).await, (None, second * 5));
        assert_eq!(trickled(limits.body_pause + second, 1).await, (Some(Code::Cancelled), limits.body_pause));
        assert_eq!(trickled(second, 1000).await, (Some(Code::Cancelled), limits.body_time));
    }
}
