//! Reflection, v1 and v1alpha: what lets `grpcurl` and friends call a server without its proto files.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_reflection::server::Builder;

use crate::error::Error;
use crate::lifecycle::{Lifecycle, Stage};

/// Both versions, as clients name them: older tools only speak v1alpha.
pub(crate) const SERVICES: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// The descriptors of everything that every server serves.
pub(crate) const DESCRIPTORS: [&[u8]; 3] =
    [tonic_health::pb::FILE_DESCRIPTOR_SET, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];

/// Adds both versions to `routes`. `services` are listed; `descriptors` may describe more, and are served as they are
/// encoded, custom options included. Its streams are as long as their callers like, and end with `lifecycle`.
pub(crate) fn add(
    routes: Routes,
    services: &[String],
    descriptors: &[&'static [u8]],
    lifecycle: &Lifecycle,
) -> Result<Routes, Error> {
    let builder = || {
        let mut builder = Builder::configure().include_reflection_service(false);
        for encoded in descriptors {
            builder = builder.register_encoded_file_descriptor_set(encoded);
        }
        services.iter().fold(builder, |builder, name| builder.with_service_name(name))
    };
    let broken = |error| Error::startup(format_args!("the descriptor set cannot be served: {error}"));
    let v1 = builder().build_v1().map_err(broken)?;
    let v1alpha = builder().build_v1alpha().map_err(broken)?;
    let v1 = Ending { service: v1, lifecycle: lifecycle.clone() };
    let v1alpha = Ending { service: v1alpha, lifecycle: lifecycle.clone() };
    Ok(routes.add_service(v1).add_service(v1alpha))
}

/// A service whose requests end, as if their callers had said all, when the server does: a stream that waits for the next
/// question is answered to its end, and does not hold the drain.
#[derive(Clone)]
struct Ending<S> {
    service: S,
    lifecycle: Lifecycle,
}

impl<S: NamedService> NamedService for Ending<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: tower::Service<Request<Body>>> tower::Service<Request<Body>> for Ending<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let mut stages = self.lifecycle.follow();
        let end = Box::pin(async move {
            // No writer left is an end too.
            let _ = stages.wait_for(|&stage| stage == Stage::Ending).await;
        });
        self.service.call(request.map(|body| Body::new(Until { body, end })))
    }
}

/// A body that is over when `end` resolves, if not before.
struct Until {
    body: Body,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        self.end.as_mut().poll(cx).map(|()| None)
    }
}
