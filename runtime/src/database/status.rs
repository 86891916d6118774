//! Errors of the shared parts as gRPC statuses, each with its reason.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::ErrorDetails;

use super::error::{DatabaseError, ResourceError};
use super::request::Violations;
use crate::status::{refusal, refusal_with};

/// When to come back to a database that was busy; its writes take a few milliseconds each.
const RETRY_AFTER: Duration = Duration::from_millis(50);

impl From<Violations> for Status {
    fn from(violations: Violations) -> Self {
        let message = violations.to_string();
        let details = ErrorDetails::with_bad_request(violations.into_field_violations());
        refusal_with(Code::InvalidArgument, "INVALID_ARGUMENT", message, details)
    }
}

impl From<ResourceError> for Status {
    fn from(error: ResourceError) -> Self {
        let message = error.to_string();
        match error {
            ResourceError::RequestIdReused => refusal(Code::AlreadyExists, "REQUEST_ID_REUSED", message),
            ResourceError::NotFound { kind, id } => {
                let details = ErrorDetails::with_resource_info(kind, id.to_string(), "", message.as_str());
                refusal_with(Code::NotFound, "NOT_FOUND", message, details)
            }
            ResourceError::EtagMismatch { .. } => refusal(Code::Aborted, "ETAG_MISMATCH", message),
        }
    }
}

impl From<DatabaseError> for Status {
    fn from(error: DatabaseError) -> Self {
        let message = error.to_string();
        let later = || ErrorDetails::with_retry_info(Some(RETRY_AFTER));
        match error {
            DatabaseError::Busy => refusal_with(Code::Unavailable, "DATABASE_BUSY", message, later()),
            DatabaseError::QueueFull => refusal_with(Code::ResourceExhausted, "WRITE_QUEUE_FULL", message, later()),
            DatabaseError::LedgerFull => refusal_with(Code::ResourceExhausted, "LEDGER_FULL", message, later()),
            DatabaseError::NotUnique => refusal(Code::AlreadyExists, "NOT_UNIQUE", message),
            DatabaseError::Unreadable { .. } | DatabaseError::Failed(_) => {
                // What the database says is for the operator: paths and SQL do not leave the process.
                tracing::error!(error = %message, "database call failed");
                refusal(Code::Internal, "DATABASE_FAILED", "the database failed")
            }
        }
    }
}
