//! The HTTP side: requests of anybody, over HTTP/1.1 or HTTP/2, to calls of the mesh.
//!
//! | module | job |
//! |---|---|
//! | `rest` | one REST request from its head to its answer: routed, let in, read, called, answered |
//! | `web` | gRPC-Web, and gRPC itself, passed through |
//! | `edge`, `cors`, `headers`, `client` | tokens, other origins, what passes and what is stripped, who the client is |
//! | `content`, `body`, `timeout`, `request_id`, `limits` | what a request says of itself, and how much of it |
//! | `call`, `frames`, `stream` | the call behind it, its messages, and those of a stream as lines or events |
//! | `fault`, `answer`, `metrics` | what a client is told when it fails, what it is sent, what is measured |
//! | `pages`, `html` | `/openapi.json` and the page to read |
//!
//! What must stay true: a request costs no more than [`Limits`]; nothing is read ahead of its client; a client that goes away
//! cancels its call; every failure is a `google.rpc.Status`, and none tells of the inside; what a client cannot say
//! (`x-mesh-*`, `x-user-*`, `grpc-*`) is gone before anybody reads it. Finding, balancing, retrying and
//! draining are the mesh client's.

mod answer;
mod body;
mod call;
mod client;
mod content;
mod cors;
mod edge;
mod fault;
mod frames;
mod headers;
mod html;
mod limits;
mod metrics;
mod pages;
mod request_id;
mod rest;
mod stream;
mod timeout;
mod web;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use mesh_client::context::ContextLayer;
use mesh_runtime::auth::ServiceIdentity;
use mesh_runtime::{BoxFuture, Connection, ConnectionError, DoubtfulLength, Ends, Refused, Slots, serve_web};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;

pub use client::TrustedProxies;
pub use cors::{BadOrigin, origin};
pub use edge::Edge;
pub use limits::Limits;
pub use pages::RESERVED;

use crate::published::Published;
use answer::{Body, Measured};
use fault::Fault;
use headers::Told;
use metrics::Metrics;
use request_id::X_REQUEST_ID;
use rest::{Answered, Label};

/// What an answer may do in a browser that shows it as a page: nothing. The gateway's own page says otherwise for itself.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What a front is made of.
pub struct Config {
    /// What one client and one request may cost.
    pub limits: Limits,
    /// What is asked of tokens.
    pub edge: Edge,
    /// Who the gateway is, which makes services believe what it says of clients.
    pub identity: Option<ServiceIdentity>,
    /// Whose word on their own clients is taken.
    pub proxies: TrustedProxies,
    /// Origins whose pages may call from a browser, each read by [`origin`].
    pub origins: Vec<HeaderValue>,
    /// Cancelled when streams that would never end are to end: by the drain, after the GOAWAY.
    pub ends_streams: CancellationToken,
}

/// Serves the connections of the REST port. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Front(Arc<Shared>);

struct Shared {
    limits: Limits,
    edge: Edge,
    identity: Option<ServiceIdentity>,
    proxies: TrustedProxies,
    cors: Option<CorsLayer>,
    ends_streams: CancellationToken,
    published: Arc<ArcSwap<Published>>,
    pages: pages::Pages,
    metrics: Metrics,
    context: ContextLayer,
    slots: Slots,
}

impl Front {
    /// A front of whatever is published.
    #[must_use]
    pub fn new(config: Config, published: Arc<ArcSwap<Published>>) -> Self {
        let Config { limits, edge, identity, proxies, origins, ends_streams } = config;
        Self(Arc::new(Shared {
            slots: Slots::new(limits.requests, limits.requests_per_client),
            cors: cors::layer(&origins),
            limits,
            edge,
            identity,
            proxies,
            ends_streams,
            published,
            pages: pages::Pages::default(),
            metrics: Metrics::new(),
            context: ContextLayer::new(),
        }))
    }

    /// Shows what is measured here among the families of a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }

    /// Serves one connection, of whatever kind, until it ends. From `leaving` on, answers on HTTP/1 connections say
    /// `connection: close`. Dropping the future cuts the connection.
    pub async fn serve_connection<Io>(
        &self,
        io: Io,
        peer: SocketAddr,
        limits: &mesh_runtime::Limits,
        leaving: CancellationToken,
        ends: Ends<'_>,
        told: impl FnOnce(),
    ) -> Result<(), ConnectionError>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = Connected { shared: Arc::clone(&self.0), peer, leaving };
        serve_web(io, service, limits, ends, told).await
    }
}

impl mesh_runtime::Front for Front {
    fn serve(&self, connection: Connection) -> BoxFuture {
        let front = self.clone();
        Box::pin(async move {
            let Connection { io, peer, limits, age, leaving, goaway, untold } = connection;
            let ends = Ends { goaway: &goaway, age };
            let served = front.serve_connection(io, peer, &limits, leaving, ends, || drop(untold)).await;
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "connection ended");
            }
        })
    }
}

/// [`Front`] for one connection.
struct Connected {
    shared: Arc<Shared>,
    peer: SocketAddr,
    leaving: CancellationToken,
}

impl hyper::service::Service<Request<Incoming>> for Connected {
    type Response = Response<Measured>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Measured>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (shared, peer, leaving) = (Arc::clone(&self.shared), self.peer, self.leaving.clone());
        Box::pin(async move { Ok(shared.serve(request, peer, &leaving).await) })
    }
}

impl Shared {
    /// One request: what holds for all of them, whatever they ask.
    async fn serve(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        leaving: &CancellationToken,
    ) -> Response<Measured> {
        let mut open = self.metrics.begin(request.method());
        let told = Told {
            id: request_id::of(request.headers()),
            client: self.proxies.client(peer, request.headers()),
            identity: self.identity.clone(),
        };
        let (version, is_head) = (request.version(), request.method() == Method::HEAD);
        let is_doubtful = request.extensions().get::<DoubtfulLength>().is_some();
        let dialect = web::dialect(version, request.headers());
        headers::strip(request.headers_mut(), dialect.is_some());

        let id = told.id.clone();
        let mut response = match self.slots.take(told.client) {
            Err(Refused::Total) => Fault::Overloaded.answer(&id, None),
            Err(Refused::PerIp) => Fault::ClientOverloaded.answer(&id, None),
            Ok(slot) => {
                open.hold(slot);
                let answering = AssertUnwindSafe(Arc::clone(&self).answer(told, dialect, request));
                match answering.catch_unwind().await {
                    Ok(response) => response,
                    Err(_) => Fault::Panicked.answer(&id, None),
                }
            }
        };
        open.answered(response.extensions_mut().remove::<Label>(), response.status());
        if version < Version::HTTP_2 && (is_doubtful || leaving.is_cancelled()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        finish(&mut response, id, is_head);
        response.map(|body| Measured { body, open })
    }

    /// Answers within the trace of the request, and as other origins may hear it.
    async fn answer(
        self: Arc<Self>,
        told: Told,
        dialect: Option<web::Dialect>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let shared = Arc::clone(&self);
        let work = service_fn(move |request: Request<Incoming>| {
            let (shared, told) = (Arc::clone(&shared), told.clone());
            async move { Ok::<_, Infallible>(shared.dispatch(&told, dialect, request).await) }
        });
        let within = self.context.layer(work);
        let is_foreign = request.headers().contains_key(http::header::ORIGIN);
        let Ok(response) = match &self.cors {
            Some(cors) if is_foreign => cors.layer(within).oneshot(request).await,
            _ => within.oneshot(request).await,
        };
        response
    }

    async fn dispatch(
        self: &Arc<Self>,
        told: &Told,
        dialect: Option<web::Dialect>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let Answered { label, rpc, outcome } = match dialect {
            Some(dialect) => web::answer(self, told, dialect, request).await,
            None => {
                let (parts, body) = request.into_parts();
                rest::answer(self, told, &parts, body).await
            }
        };
        let mut response = outcome.unwrap_or_else(|fault| fault.answer(&told.id, rpc.as_deref()));
        if let Some(label) = label {
            response.extensions_mut().insert(label);
        }
        response
    }
}

/// What every answer says.
fn finish(response: &mut Response<Body>, id: HeaderValue, is_head: bool) {
    if is_head {
        // As GET would answer, and nothing of it.
        let length = http_body::Body::size_hint(response.body()).exact();
        *response.body_mut() = Body::default();
        if let Some(length) = length {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
    }
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(POLICY);
}
