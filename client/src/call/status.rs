//! What callers are told: every failure of the data path as a gRPC status.

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::Address;
use crate::conn::StreamError;
use crate::target::Outlook;

/// Domain of the error details that this house's servers send.
const DOMAIN: &str = "meshwork";
/// A server's refusal of a call that names another service in `:authority`.
const WRONG_SERVICE: &str = "WRONG_SERVICE";

/// HTTP/2 error codes that say more than "it broke" (RFC 9113 section 7).
mod reset {
    pub(super) const NO_ERROR: u32 = 0x0;
    pub(super) const CANCEL: u32 = 0x8;
    pub(super) const ENHANCE_YOUR_CALM: u32 = 0xb;
    pub(super) const INADEQUATE_SECURITY: u32 = 0xc;
}

/// A stream failed, after gRPC's table of HTTP/2 error codes (PROTOCOL-HTTP2). A connection that is gone is UNAVAILABLE.
pub(super) fn of_stream(error: &StreamError, address: Option<&Address>) -> Status {
    let code = match error {
        StreamError::Unprocessed(_) | StreamError::Lost(_) => Code::Unavailable,
        StreamError::Reset { code: reset::CANCEL } => Code::Cancelled,
        StreamError::Reset { code: reset::ENHANCE_YOUR_CALM } => Code::ResourceExhausted,
        StreamError::Reset { code: reset::INADEQUATE_SECURITY } => Code::PermissionDenied,
        StreamError::Reset { code: reset::NO_ERROR | _ } | StreamError::Protocol(_) => Code::Internal,
    };
    let message = match address {
        Some(address) => format!("{address}: {error}"),
        None => error.to_string(),
    };
    Status::new(code, message)
}

/// Nobody could be picked in time.
pub(super) fn nobody(service: &str, outlook: &Outlook) -> Status {
    Status::unavailable(format!("{service}: {outlook}"))
}

/// Too many calls wait already.
pub(super) fn queue_full(service: &str, max: usize) -> Status {
    Status::resource_exhausted(format!("{service}: {max} calls are waiting for an endpoint already"))
}

/// As many calls are in flight as the policy allows.
pub(super) fn capped(service: &str, max: u32) -> Status {
    Status::unavailable(format!("{service}: {max} calls are in flight already"))
}

/// The call's own deadline passed.
pub(super) fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("deadline exceeded")
}

/// An answer that has only a head, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadOnly {
    /// UNAVAILABLE; the server may or may not have done something.
    Unavailable,
    /// The server refused the call before any handler, since it serves another service.
    WrongService,
    /// Any other status: the call's outcome.
    Final,
}

/// Reads the head of an answer; `None` when messages follow it.
pub(super) fn head_only(headers: &HeaderMap) -> Option<HeadOnly> {
    let code = Code::from_bytes(headers.get(Status::GRPC_STATUS)?.as_bytes());
    if code != Code::Unavailable {
        return Some(HeadOnly::Final);
    }
    let reason = Status::from_header_map(headers).and_then(|status| status.get_details_error_info());
    match reason {
        Some(info) if info.domain == DOMAIN && info.reason == WRONG_SERVICE => Some(HeadOnly::WrongService),
        _ => Some(HeadOnly::Unavailable),
    }
}
