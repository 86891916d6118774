//! One REST request, from its head to its answer: routed, let in, read, called, answered.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use http::request::Parts;
use http::{Method, Response};
use hyper::body::Incoming;
use mesh_runtime::DoubtfulLength;

use super::Shared;
use super::answer::Body;
use super::body;
use super::call::Call;
use super::content::{self, Said};
use super::fault::Fault;
use super::headers::Told;
use super::pages::{self, Which};
use super::stream::Stream;
use super::timeout;
use crate::published::Published;
use crate::transcode::{Found, Matched, Rpc};

/// What a request is of, for the metrics: a template, never a path that a client made up.
pub(super) type Label = Arc<str>;

/// Methods that are taken at all.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// An answer, and what it is the answer of.
pub(super) struct Answered {
    pub(super) label: Option<Label>,
    /// Whose descriptors tell what the details of a failure say.
    pub(super) rpc: Option<Arc<Rpc>>,
    pub(super) outcome: Result<Response<Body>, Fault>,
}

impl Answered {
    pub(super) fn unknown(fault: Fault) -> Self {
        Self::new(None, Err(fault))
    }

    pub(super) fn new(label: Option<Label>, outcome: Result<Response<Body>, Fault>) -> Self {
        Self { label, rpc: None, outcome }
    }
}

/// Answers one request.
pub(super) async fn answer(shared: &Shared, told: &Told, parts: &Parts, mut body: Incoming) -> Answered {
    let answered = route(shared, told, parts, &mut body).await;
    if answered.outcome.is_err() {
        body::let_go(parts, body);
    }
    answered
}

async fn route(shared: &Shared, told: &Told, parts: &Parts, body: &mut Incoming) -> Answered {
    if parts.extensions.get::<DoubtfulLength>().is_some() {
        return Answered::unknown(Fault::DoubtfulLength);
    }
    let max = shared.limits.target_bytes;
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().len() > max) {
        return Answered::unknown(Fault::TargetTooLong { max });
    }
    let published = shared.published.load_full();
    let path = parts.uri.path();
    if let Some(page) = Which::reserved(path) {
        return of_page(shared, page, &published, parts);
    }
    let method = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
    let found = if METHODS.contains(method) { published.table.find(method, path) } else { others(&published, path) };
    match found {
        Found::Route(matched) => {
            let label = Some(Label::from(matched.route.template()));
            let outcome = of_route(shared, told, &published, &matched, parts, body).await;
            Answered { label, rpc: Some(Arc::clone(matched.route.rpc())), outcome }
        }
        Found::Nothing => match Which::unclaimed(path) {
            Some(page) => of_page(shared, page, &published, parts),
            None if !published.heard => Answered::unknown(Fault::NothingKnown),
            None => Answered::unknown(Fault::NoRoute),
        },
        Found::OtherMethods(methods) => {
            let methods = offered(methods);
            let outcome = if parts.method == Method::OPTIONS {
                Ok(pages::options(&methods))
            } else {
                Err(Fault::OtherMethods(methods))
            };
            Answered::new(None, outcome)
        }
    }
}

/// The methods of a path of which a request's own is none.
fn others<'t, 'p>(published: &'t Published, path: &'p str) -> Found<'t, 'p> {
    published.table.find(&Method::OPTIONS, path)
}

/// What a path takes beside what its routes say.
fn offered(mut methods: Vec<Method>) -> Vec<Method> {
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    if !methods.contains(&Method::OPTIONS) {
        methods.push(Method::OPTIONS);
    }
    methods
}

fn of_page(shared: &Shared, page: Which, published: &Arc<Published>, parts: &Parts) -> Answered {
    let outcome = match parts.method {
        Method::GET | Method::HEAD => Ok(shared.pages.answer(page, published, &parts.headers)),
        Method::OPTIONS => Ok(pages::options(&pages::METHODS)),
        _ => Err(Fault::OtherMethods(pages::METHODS.to_vec())),
    };
    Answered::new(Some(page.label().into()), outcome)
}

async fn of_route(
    shared: &Shared,
    told: &Told,
    published: &Published,
    matched: &Matched<'_, '_>,
    parts: &Parts,
    body: &mut Incoming,
) -> Result<Response<Body>, Fault> {
    let Matched { route, captures } = matched;
    let headers = &parts.headers;
    let rpc = route.rpc();
    shared.edge.admit(rpc.grpc_path().path(), headers).await?;
    let said = content::said(headers);
    let has_body = !http_body::Body::is_end_stream(body);
    if said == Said::Other && has_body {
        return Err(Fault::NotJson);
    }
    let format = if rpc.is_server_streaming() { content::stream(headers) } else { content::one(headers) };
    let format = format.ok_or(Fault::NotAcceptable)?;
    let asked = timeout::asked(headers, shared.limits.timeout_max)
        .map_err(|timeout::Malformed| Fault::BadTimeout { max: shared.limits.timeout_max })?;

    let body = body::read(headers, body, &shared.limits).await?;
    shared.metrics.received(body.len());
    if said == Said::Nothing && !body.is_empty() {
        return Err(Fault::NotJson);
    }
    let message = route.request(captures, parts.uri.query(), &body).map_err(Fault::BadInput)?;
    drop(body);

    let channel = published.channel(route.service()).ok_or(Fault::NoRoute)?;
    let mut headers = told.of_rest(headers, route.service());
    // A stream lasts for as long as somebody listens, unless they say for how long.
    let timeout = if rpc.is_server_streaming() { asked } else { asked.or(Some(shared.limits.timeout)) };
    if let Some(timeout) = timeout {
        headers.insert("grpc-timeout", timeout::grpc_timeout(timeout));
    }
    let call = Call { channel, path: rpc.grpc_path(), headers, message_bytes: shared.limits.message_bytes };
    if rpc.is_server_streaming() {
        let messages = call.begin(&message).await?;
        let stream = Stream::new(messages, Arc::clone(route), format, told.id.clone(), shared.ends_streams.clone());
        return Ok(answered(HeaderValue::from_static(format.content_type()), Body::stream(stream)));
    }
    let message = call.unary(&message).await?;
    let answer = route.response(&message).map_err(|error| Fault::BadAnswer(error.to_string()))?;
    Ok(answered(answer.content_type, Body::whole(answer.body)))
}

fn answered(content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    // What one token may read is nobody else's to keep.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept, authorization"));
    response
}
