//! What a server's request hands on to the calls made while it is served: how long there is, and which trace it is part of.
//!
//! [`ContextLayer`] on the server reads both from the incoming request; every [`MeshChannel`](crate::MeshChannel) call made
//! within is bound by the one and labelled with the other. Tasks of their own leave that scope; [`spawn`] takes it along.

use std::fmt;
use std::future::Future;
use std::task::{Context as TaskContext, Poll};

use http::header::HeaderName;
use http::{HeaderValue, Request};
use tokio::task::JoinHandle;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::clock;
use crate::entropy::Entropy;
use crate::policy::decode_timeout;

/// The W3C trace context header.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

tokio::task_local! {
    static CURRENT: Context;
}

/// What calls inherit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// When the work must be over, on tokio's clock.
    pub deadline: Option<Instant>,
    /// The span that the work is part of.
    pub trace: Option<TraceContext>,
}

impl Context {
    /// What the code that asks is running under; empty outside of every request.
    pub fn current() -> Self {
        current()
    }

    /// Runs `work` under this context.
    pub fn scope<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, work)
    }
}

/// What the code that asks is running under; empty outside of every request.
pub(crate) fn current() -> Context {
    CURRENT.try_get().unwrap_or_default()
}

/// `tokio::spawn` for work that still belongs to the request: it keeps its deadline and its trace.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(current().scope(work))
}

/// One span of a trace, as W3C's `traceparent` (version 00) carries it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` when it is not one. Later versions are read as far as this one goes.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.splitn(5, '-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let trace_id: [u8; 16] = hex(parts.next()?)?;
        let span_id: [u8; 8] = hex(parts.next()?)?;
        let [flags]: [u8; 1] = hex(parts.next()?)?;
        let well_formed = match version {
            [0] => parts.next().is_none(),
            [0xff] => false,
            _ => true,
        };
        let valid = well_formed && trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(Self { trace_id, span_id, flags })
    }

    /// A new trace, not sampled.
    pub(crate) fn root(entropy: &Entropy) -> Self {
        Self { trace_id: entropy.bytes(), span_id: entropy.next().max(1).to_be_bytes(), flags: 0 }
    }

    /// A span within this one.
    pub(crate) fn child(self, entropy: &Entropy) -> Self {
        Self { span_id: entropy.next().max(1).to_be_bytes(), ..self }
    }

    /// The trace's id.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span's id.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// As a header value.
    pub(crate) fn to_header(self) -> HeaderValue {
        let mut text = [b'-'; 55];
        text[..2].copy_from_slice(b"00");
        write_hex(&self.trace_id, &mut text[3..35]);
        write_hex(&self.span_id, &mut text[36..52]);
        write_hex(&[self.flags], &mut text[53..]);
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are a header value")
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace_id = u128::from_be_bytes(self.trace_id);
        let span_id = u64::from_be_bytes(self.span_id);
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

/// Exactly `N` bytes of lower-case hexadecimal digits, as the standard demands.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Two lower-case digits for each byte. Every call of a traced request writes one, and formatting is slow for that.
fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
    }
}

/// Puts every request of a server under the [`Context`] that its headers give: `grpc-timeout`, counted from now, and a
/// span within `traceparent`, or a new trace where there is none.
#[derive(Clone, Debug)]
pub struct ContextLayer {
    entropy: Entropy,
}

impl ContextLayer {
    /// The layer, with its own source of trace ids.
    pub fn new() -> Self {
        Self { entropy: Entropy::from_os() }
    }
}

impl Default for ContextLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ContextService { inner, entropy: self.entropy.clone() }
    }
}

/// What [`ContextLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct ContextService<S> {
    inner: S,
    entropy: Entropy,
}

impl<S, B> Service<Request<B>> for ContextService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<Context, S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let headers = request.headers();
        let timeout = headers.get(GRPC_TIMEOUT).and_then(decode_timeout);
        let parent = headers.get(TRACEPARENT).and_then(|header| TraceContext::parse(header.to_str().ok()?));
        let context = Context {
            deadline: timeout.and_then(|timeout| clock::now().checked_add(timeout)),
            trace: Some(parent.map_or_else(|| TraceContext::root(&self.entropy), |parent| parent.child(&self.entropy))),
        };
        // The service starts its work in `call` or when first polled; both see the context.
        let work = CURRENT.sync_scope(context, || self.inner.call(request));
        context.scope(work)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use tower::{ServiceExt, service_fn};

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    async fn served(request: http::request::Builder) -> Context {
        let seen = service_fn(|_: Request<()>| async {
            // The work of a task of its own is still the request's work.
            Ok::<_, Infallible>(spawn(async { Context::current() }).await.unwrap())
        });
        ContextLayer::new().layer(seen).oneshot(request.body(()).unwrap()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_served_under_its_deadline_and_within_its_trace() {
        let context = served(Request::builder().header("grpc-timeout", "2S").header("traceparent", PARENT)).await;
        assert_eq!(context.deadline, Some(clock::now() + Duration::from_secs(2)));
        let (parent, span) = (TraceContext::parse(PARENT).unwrap(), context.trace.unwrap());
        assert_eq!(span.trace_id(), parent.trace_id());
        assert_ne!(span.span_id(), parent.span_id());
    }

    #[tokio::test]
    async fn a_request_without_either_starts_a_trace_and_has_no_deadline() {
        let context = served(Request::builder()).await;
        assert_eq!(context.deadline, None);
        assert!(context.trace.is_some());
        assert_eq!(Context::current(), Context::default());
    }

    #[test]
    fn a_traceparent_is_written_as_it_was_read() {
        let trace = TraceContext::parse(PARENT).unwrap();
        assert_eq!((trace.to_string().as_str(), trace.to_header().to_str().unwrap()), (PARENT, PARENT));
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        for header in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
        assert!(TraceContext::parse(&PARENT.replacen("00", "01", 1)).is_some());
    }
}
