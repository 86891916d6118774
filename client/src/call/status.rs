//! What callers are told: every failure of the data path as a gRPC status that names the service, the address, what
//! happened, and what can be done.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::Address;
use crate::conn::StreamError;
use crate::policy::{Pushback, Retry};
use crate::target::{Outlook, Target};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Domain of the error details that this house sends.
const DOMAIN: &str = "meshwork";
/// A server's refusal of a call that names another service in `:authority`.
const WRONG_SERVICE: &str = "WRONG_SERVICE";
/// Which `:authority` it refused, in the metadata of its details.
const REFUSED_AUTHORITY: &str = "authority";
/// This client's own refusal of a call beyond [`Policy::in_flight_max`](crate::Policy::in_flight_max).
const TOO_MANY_IN_FLIGHT: &str = "TOO_MANY_IN_FLIGHT";
/// This client's own refusal of a call beyond [`Policy::waiting_max`](crate::Policy::waiting_max).
const TOO_MANY_WAITING: &str = "TOO_MANY_WAITING";

/// This client's own word that a call found nobody to be sent to. One that may not be repeated was then never processed.
const NOBODY_READY: &str = "NOBODY_READY";

/// HTTP/2 error codes that say more than "it broke" (RFC 9113 section 7).
mod reset {
    pub(super) const CANCEL: u32 = 0x8;
    pub(super) const ENHANCE_YOUR_CALM: u32 = 0xb;
    pub(super) const INADEQUATE_SECURITY: u32 = 0xc;
}

/// The status code of a failed stream, after gRPC's table of HTTP/2 error codes (PROTOCOL-HTTP2). A connection that is
/// gone is UNAVAILABLE.
pub(super) fn stream_code(error: &StreamError) -> Code {
    match error {
        StreamError::Unprocessed(_) | StreamError::Refused(_) | StreamError::Lost(_) => Code::Unavailable,
        StreamError::Reset { code: reset::CANCEL } => Code::Cancelled,
        StreamError::Reset { code: reset::ENHANCE_YOUR_CALM } => Code::ResourceExhausted,
        StreamError::Reset { code: reset::INADEQUATE_SECURITY } => Code::PermissionDenied,
        StreamError::Reset { .. } | StreamError::Protocol(_) => Code::Internal,
    }
}

/// A stream failed; `remark` says why that was the end of the call.
pub(super) fn of_stream(error: &StreamError, service: &str, address: &Address, remark: impl fmt::Display) -> Status {
    Status::new(stream_code(error), format!("{service} at {address}: {error}; {remark}"))
}

/// The server refused the call because it serves another service; `remark` says why that was the end of it. The server's own
/// details are left out: whoever passed them on would say that it was refused itself.
pub(super) fn of_stranger(service: &str, address: &Address, remark: impl fmt::Display) -> Status {
    Status::unavailable(format!("{service} at {address}: it serves another service; {remark}"))
}

/// Nobody could be picked in time.
pub(super) fn nobody(service: &str, outlook: &Outlook) -> Status {
    refused(Code::Unavailable, format!("{service}: {outlook}"), NOBODY_READY)
}

/// Too many calls wait already.
pub(super) fn queue_full(service: &str, max: usize) -> Status {
    let message = format!("{service}: {max} calls are waiting for an endpoint already; come back when some are done");
    refused(Code::ResourceExhausted, message, TOO_MANY_WAITING)
}

/// As many calls are in flight as the policy allows. Nobody repeats it: it is there to shed load.
pub(super) fn capped(service: &str, max: u32) -> Status {
    let message = format!("{service}: {max} calls are in flight already, the most its policy allows");
    refused(Code::Unavailable, message, TOO_MANY_IN_FLIGHT)
}

fn refused(code: Code, message: String, reason: &str) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new()))
}

/// How far a call had come when its deadline passed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage<'a> {
    /// It was over before it began.
    Unsent,
    /// Nobody was READY.
    Waiting(&'a Outlook),
    /// It waited for a place among those who were, or was being tried again.
    InLine,
    /// It was sent.
    Sent(&'a Address),
    /// Its answer had begun.
    Answering(&'a Address),
}

impl fmt::Display for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsent => f.write_str("it had passed before the call could be sent"),
            Self::Waiting(outlook) => write!(f, "the call was waiting to be sent: {outlook}"),
            Self::InLine => f.write_str("the call was in line for a free place, or was being tried again"),
            Self::Sent(address) => write!(f, "{address} has not begun to answer"),
            Self::Answering(address) => write!(f, "the answer of {address} has begun, but not ended"),
        }
    }
}

/// The call's own deadline passed.
pub(super) fn expired(service: &str, lasted: Duration, stage: Stage<'_>) -> Status {
    Status::deadline_exceeded(format!("{service}: deadline exceeded after {lasted:.1?}: {stage}"))
}

/// The answer ended without a word on how the call went, which a server never does: something between cut it off.
pub(super) fn no_trailers(service: &str, address: &Address) -> Status {
    Status::unknown(format!("{service} at {address}: the answer ended without a status; it may be incomplete"))
}

/// An answer that has only a head.
pub(super) struct HeadOnly {
    pub(super) code: Code,
    pub(super) meaning: Meaning,
    /// What the caller is given in its place, where it is not gRPC.
    pub(super) instead: Option<Response<()>>,
}

/// What such an answer means to the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A status that the policy tries again.
    Retryable(Pushback),
    /// The server refused the call before any handler, since it serves another service.
    WrongService,
    /// Any other status: the call's outcome.
    Final,
}

/// The status in trailers, or in the head of an answer that has no others.
pub(super) fn code_of(headers: &HeaderMap) -> Option<Code> {
    // There are two or three, which are looked through faster than the name is hashed.
    let said = headers.iter().find(|(name, _)| **name == GRPC_STATUS);
    said.map(|(_, code)| Code::from_bytes(code.as_bytes()))
}

/// Reads the head of an answer; `None` when messages follow it, or the trailers.
pub(super) fn head_only<B>(response: &Response<B>, target: &Target) -> Option<HeadOnly> {
    match code_of(response.headers()) {
        Some(code) => Some(HeadOnly { code, meaning: meaning(code, response.headers(), target), instead: None }),
        None if response.status() == StatusCode::OK => None,
        None => Some(not_grpc(response.status(), &target.policy().retry)),
    }
}

fn meaning(code: Code, headers: &HeaderMap, target: &Target) -> Meaning {
    if code == Code::Unavailable && says_wrong_service(headers, &target.config().authority) {
        Meaning::WrongService
    } else {
        meaning_of_code(code, headers, &target.policy().retry)
    }
}

fn meaning_of_code(code: Code, headers: &HeaderMap, retry: &Retry) -> Meaning {
    if retry.codes.contains(&code) { Meaning::Retryable(Pushback::of(headers)) } else { Meaning::Final }
}

/// Whether this call is the one that was refused. A handler may have called somebody itself, and pass on what it was told:
/// then the refusal names another `asked`, and this call was processed.
fn says_wrong_service(headers: &HeaderMap, asked: &Authority) -> bool {
    let info = Status::from_header_map(headers).and_then(|status| status.get_details_error_info());
    let Some(info) = info.filter(|info| info.domain == DOMAIN && info.reason == WRONG_SERVICE) else { return false };
    info.metadata.get(REFUSED_AUTHORITY).is_some_and(|refused| asked == refused.as_str())
}

/// Something answered that is no gRPC server, such as a proxy on the way: its status by gRPC's table for that
/// (http-grpc-status-mapping).
#[cold]
fn not_grpc(http: StatusCode, retry: &Retry) -> HeadOnly {
    let code = match http {
        StatusCode::BAD_REQUEST => Code::Internal,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
        _ => Code::Unknown,
    };
    let status = Status::new(code, format!("what answered is no gRPC server: HTTP status {http}"));
    let instead = status.into_http::<()>();
    HeadOnly { code, meaning: meaning_of_code(code, instead.headers(), retry), instead: Some(instead) }
}
