//! Why a request is not answered as it was asked, and what its client is told: `google.rpc.Status` as JSON, or as gRPC has it.
//!
//! What is inside stays inside (S42, S43): where it was not the client's fault, it is told what kind of failure it was, under
//! which id the log has the rest, and when to come back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::answer::Body;
use super::content::Format;
use crate::transcode::{BadInput, Rpc, StatusParts, Violation, status_json};

/// Domain of every `ErrorInfo` of the mesh.
const DOMAIN: &str = "meshwork";
/// When to come back to a gateway that is full, or a service that is not there.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// Why a request failed. A variant for each thing that a client would do differently.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// Nobody serves this path.
    NoRoute,
    /// Nobody serves this gRPC method.
    NoMethod,
    /// Nobody knows yet who serves what.
    NothingKnown,
    /// Somebody serves this path, with these methods.
    OtherMethods(Vec<Method>),
    /// The path and query are too long.
    TargetTooLong { max: usize },
    /// The body is too large.
    BodyTooLarge { max: usize },
    /// The body did not come in time.
    BodySlow,
    /// The body is none, or the connection broke.
    BodyBroken(String),
    /// Two readers could take the length of this request for different ones.
    DoubtfulLength,
    /// The body is not written in JSON.
    NotJson,
    /// The client takes none of what there is.
    NotAcceptable,
    /// `Request-Timeout` is none.
    BadTimeout { max: Duration },
    /// `grpc-timeout` is none.
    BadGrpcTimeout,
    /// The request is not what the route takes: fields, and what is wrong with each.
    BadInput(BadInput),
    /// A token is needed, and there is none.
    TokenMissing,
    /// The token does not hold; why, as far as its bearer may know.
    TokenRefused { reason: &'static str, message: String },
    /// Nobody can tell whether a token holds.
    KeysUnavailable,
    /// More requests are open than may be.
    Overloaded,
    /// More requests of this client are open than may be.
    ClientOverloaded,
    /// The gateway's process ends, and with it this stream.
    Ending,
    /// A service's answer is not what its own description says.
    BadAnswer(String),
    /// Something here panicked.
    Panicked,
    /// What the service says.
    Service(Status),
    /// What the mesh says: the call did not get through, or its answer did not.
    Mesh(Status),
}

/// What stands for one fault in an answer.
struct Told {
    http: Option<StatusCode>,
    code: Code,
    reason: &'static str,
    message: Cow<'static, str>,
}

fn told(http: impl Into<Option<u16>>, code: Code, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Told {
    let http = http.into().and_then(|http| StatusCode::from_u16(http).ok());
    Told { http, code, reason, message: message.into() }
}

impl Fault {
    /// `Err` for what comes with a status of its own.
    fn told(&self) -> Result<Told, &Status> {
        Ok(match self {
            Self::NoRoute => told(404, Code::NotFound, "ROUTE_UNKNOWN", "no service has this path; see /openapi.json"),
            Self::NoMethod => told(404, Code::Unimplemented, "METHOD_UNKNOWN", "no service has this method"),
            Self::NothingKnown => {
                told(503, Code::Unavailable, "SERVICES_UNKNOWN", "the services are not known yet: ask again")
            }
            Self::OtherMethods(methods) => {
                let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
                let message = format!("this path takes {}", methods.join(", "));
                told(405, Code::Unimplemented, "METHOD_NOT_ALLOWED", message)
            }
            Self::TargetTooLong { max } => {
                let message = format!("path and query are longer than {max} bytes");
                told(414, Code::InvalidArgument, "TARGET_TOO_LONG", message)
            }
            Self::BodyTooLarge { max } => {
                told(413, Code::InvalidArgument, "BODY_TOO_LARGE", format!("the body is larger than {max} bytes"))
            }
            Self::BodySlow => told(408, Code::DeadlineExceeded, "BODY_SLOW", "the body did not come in time"),
            Self::BodyBroken(_) => told(400, Code::InvalidArgument, "BODY_BROKEN", "the body did not come whole"),
            Self::DoubtfulLength => {
                let message = "a request has one length: transfer-encoding and content-length exclude each other, and lines end in CR LF";
                told(400, Code::InvalidArgument, "LENGTH_AMBIGUOUS", message)
            }
            Self::NotJson => {
                let message = "a body is JSON in UTF-8, not compressed, and says so: content-type: application/json";
                told(415, Code::InvalidArgument, "CONTENT_TYPE_UNSUPPORTED", message)
            }
            Self::NotAcceptable => {
                let message = "answers are application/json, and streams application/x-ndjson or text/event-stream";
                told(406, Code::InvalidArgument, "NOT_ACCEPTABLE", message)
            }
            Self::BadTimeout { max } => {
                let message = format!("request-timeout is a number of seconds from 0.001 to {}", max.as_secs());
                told(400, Code::InvalidArgument, "TIMEOUT_MALFORMED", message)
            }
            Self::BadGrpcTimeout => {
                let message = "grpc-timeout is up to eight digits and one of H, M, S, m, u, n";
                told(400, Code::InvalidArgument, "TIMEOUT_MALFORMED", message)
            }
            Self::BadInput(bad) => told(400, Code::InvalidArgument, "INVALID_REQUEST", bad.to_string()),
            Self::TokenMissing => {
                let message = "this needs an access token: authorization: Bearer TOKEN";
                told(401, Code::Unauthenticated, "TOKEN_MISSING", message)
            }
            Self::TokenRefused { reason, message } => told(401, Code::Unauthenticated, reason, message.clone()),
            Self::KeysUnavailable => {
                let message = "tokens cannot be verified yet: their keys are not known";
                told(503, Code::Unavailable, "KEYS_UNAVAILABLE", message)
            }
            Self::Overloaded => told(503, Code::Unavailable, "OVERLOADED", "too many requests are open"),
            Self::ClientOverloaded => {
                told(429, Code::ResourceExhausted, "TOO_MANY_REQUESTS", "too many requests of this client are open")
            }
            Self::Ending => told(503, Code::Unavailable, "DRAINING", "this gateway ends: ask again"),
            Self::BadAnswer(_) => told(500, Code::Internal, "ANSWER_MALFORMED", "internal error"),
            Self::Panicked => told(500, Code::Internal, "PANICKED", "internal error"),
            Self::Service(status) | Self::Mesh(status) => return Err(status),
        })
    }

    /// What the log is told beside that.
    fn inside(&self) -> &str {
        match self {
            Self::Service(status) | Self::Mesh(status) => status.message(),
            Self::BodyBroken(what) | Self::BadAnswer(what) => what,
            _ => "",
        }
    }

    /// The status, as it may leave the house, and the HTTP status where the code alone does not say it.
    pub(super) fn status(&self, id: &HeaderValue) -> (Status, Option<StatusCode>) {
        let told = match self.told() {
            Ok(told) => told,
            Err(status) => return (self.outside(status, id), None),
        };
        let mut details = ErrorDetails::with_error_info(told.reason, DOMAIN, HashMap::new());
        if let Self::BadInput(bad) = self {
            for Violation { field, description } in &bad.violations {
                details.add_bad_request_violation(field, description);
            }
        }
        if self.comes_back(told.code) {
            details.set_retry_info(Some(RETRY_SOON));
        }
        if is_ours(told.code) {
            details.set_request_info(id.to_str().unwrap_or_default(), "");
        }
        (Status::with_error_details(told.code, told.message, details), told.http)
    }

    /// What somebody else says, without what is nobody's business: whole where it is the client's fault and the service's
    /// word, else its reason and when to come back.
    fn outside(&self, status: &Status, id: &HeaderValue) -> Status {
        let code = status.code();
        let known = status.get_error_details();
        if matches!(self, Self::Service(_)) && !is_ours(code) && known.debug_info().is_none() {
            // Its metadata stays here: it is made of headers of the inside.
            return Status::with_details(code, status.message(), status.details().to_vec().into());
        }
        let mut details = ErrorDetails::new();
        if let Some(info) = known.error_info() {
            details.set_error_info(&info.reason, &info.domain, HashMap::new());
        } else {
            details.set_error_info(reason_of(code), DOMAIN, HashMap::new());
        }
        match known.retry_info().and_then(|info| info.retry_delay) {
            Some(delay) => drop(details.set_retry_info(Some(delay))),
            None if self.comes_back(code) => drop(details.set_retry_info(Some(RETRY_SOON))),
            None => {}
        }
        let message = if is_ours(code) || matches!(self, Self::Mesh(_)) {
            details.set_request_info(id.to_str().unwrap_or_default(), "");
            message_of(code)
        } else {
            status.message()
        };
        Status::with_error_details(code, message, details)
    }

    /// Whether the same request may well succeed a little later.
    fn comes_back(&self, code: Code) -> bool {
        let refused_here = matches!(self, Self::ClientOverloaded | Self::Mesh(_));
        code == Code::Unavailable || (code == Code::ResourceExhausted && refused_here)
    }

    /// The whole answer, and a line in the log. The method's own descriptors tell what its details say.
    pub(super) fn answer(&self, id: &HeaderValue, rpc: Option<&Rpc>) -> Response<Body> {
        let (status, http) = self.status(id);
        let (mapped, json) = json(&status, rpc);
        let http = http.unwrap_or(mapped);
        self.log(id, &status, http);
        let mut response = Response::new(Body::whole(json));
        *response.status_mut() = http;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(Format::Json.content_type()));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
            // Rounded up: who comes back too early is refused again.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, seconds.max(1).into());
        }
        if http == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(self.challenge()));
        }
        if let Self::OtherMethods(methods) = self {
            headers.insert(ALLOW, allow(methods));
        }
        response
    }

    /// As one object in a stream that has begun.
    pub(super) fn last_word(&self, id: &HeaderValue, rpc: &Rpc) -> Bytes {
        let (status, http) = self.status(id);
        let (mapped, json) = json(&status, Some(rpc));
        self.log(id, &status, http.unwrap_or(mapped));
        json
    }

    /// As gRPC has it: in the headers of an answer without a body.
    pub(super) fn grpc(&self, id: &HeaderValue) -> Response<tonic::body::Body> {
        let (status, http) = self.status(id);
        self.log(id, &status, http.unwrap_or(StatusCode::OK));
        status.into_http()
    }

    fn challenge(&self) -> &'static str {
        match self {
            Self::TokenRefused { .. } => "Bearer realm=\"meshwork\", error=\"invalid_token\"",
            _ => "Bearer realm=\"meshwork\"",
        }
    }

    /// Warned of where it is not the client's fault; else it is for debugging only.
    fn log(&self, id: &HeaderValue, status: &Status, http: StatusCode) {
        let id = id.to_str().unwrap_or_default();
        let (code, message, inside) = (mesh_runtime::code_name(status.code()), status.message(), self.inside());
        let expected = matches!(self, Self::Ending | Self::OtherMethods(_) | Self::NoMethod | Self::BodySlow);
        if is_ours(status.code()) && !expected {
            tracing::warn!(request = id, status = http.as_u16(), code, message, inside, "request failed");
        } else {
            tracing::debug!(request = id, status = http.as_u16(), code, message, inside, "request refused");
        }
    }
}

fn json(status: &Status, rpc: Option<&Rpc>) -> (StatusCode, Bytes) {
    let parts = StatusParts { code: status.code().into(), message: status.message(), details: status.details() };
    status_json(&parts, rpc)
}

/// The methods of a path, as `Allow` lists them.
pub(super) fn allow(methods: &[Method]) -> HeaderValue {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"))
}

/// Whether it is our side that failed, for which HTTP has 5xx.
fn is_ours(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::Internal
            | Code::DataLoss
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Cancelled
    )
}

/// All that a client is told of what is not its fault.
fn message_of(code: Code) -> &'static str {
    match code {
        Code::Unavailable => "the service cannot be reached now: ask again",
        Code::DeadlineExceeded => "the service did not answer in time",
        Code::Unimplemented => "the service does not have this method",
        Code::ResourceExhausted => "the service has too much to do: ask again later",
        Code::Cancelled => "the call was cancelled",
        _ => "internal error",
    }
}

/// Its reason where the service gave none.
fn reason_of(code: Code) -> &'static str {
    mesh_runtime::code_name(code)
}
