//! The answers that the shell gives in place of a handler.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::status::DOMAIN;

/// When who finds a server full should call again, before its own jitter.
const RETRY_SOON: Duration = Duration::from_millis(250);

/// Why a call was answered without its handler, or instead of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal<'a> {
    /// The call is for somebody else; nothing was done, and nothing must be sent here again.
    WrongService { asked: &'a str },
    /// `grpc-timeout` is none. Taking it for no deadline would do the opposite of what was asked.
    MalformedTimeout,
    /// The caller is no longer waiting.
    DeadlineExceeded,
    /// More calls wait for this method than may.
    Overloaded,
    /// The handler panicked. What it said stays in the log.
    Panicked,
}

impl From<Refusal<'_>> for Status {
    fn from(refusal: Refusal<'_>) -> Self {
        let mut metadata = HashMap::new();
        let (code, reason, message) = match refusal {
            Refusal::WrongService { asked } => {
                // Whoever called believes the refusal only when it is of its own call: a handler may pass on one that it got.
                metadata.insert("authority".to_owned(), asked.to_owned());
                (Code::Unavailable, "WRONG_SERVICE", format!("this process does not serve {asked:?}"))
            }
            Refusal::MalformedTimeout => {
                (Code::InvalidArgument, "MALFORMED_TIMEOUT", "grpc-timeout is not 1 to 8 digits and a unit".to_owned())
            }
            Refusal::DeadlineExceeded => {
                (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the deadline of the call has passed".to_owned())
            }
            Refusal::Overloaded => {
                (Code::ResourceExhausted, "OVERLOADED", "too many calls of this kind wait already".to_owned())
            }
            Refusal::Panicked => (Code::Internal, "PANICKED", "internal error".to_owned()),
        };
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        if code == Code::ResourceExhausted {
            details.set_retry_info(Some(RETRY_SOON));
        }
        Status::with_error_details(code, message, details)
    }
}
