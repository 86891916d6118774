//! Why order-svc does not grant a call, and the status that says so.

use mesh_runtime::database::{DatabaseError, ResourceError, Violations, refusal, refusal_with};
use tonic::{Code, Status};
use tonic_types::ErrorDetails;

use crate::directory::DirectoryError;
use crate::order::IllegalStep;

#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    #[error(transparent)]
    Invalid(#[from] Violations),
    #[error(transparent)]
    Resource(#[from] ResourceError),
    #[error("only an admin moves the status of an order; its owner may cancel it, by CancelOrder")]
    NotTheOwners,
    #[error(transparent)]
    IllegalStep(#[from] IllegalStep),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<OrderError> for Status {
    fn from(error: OrderError) -> Self {
        let message = error.to_string();
        match error {
            OrderError::Invalid(violations) => violations.into(),
            OrderError::Resource(error) => error.into(),
            OrderError::NotTheOwners => refusal(Code::PermissionDenied, "ROLE_REQUIRED", message),
            OrderError::IllegalStep(_) => refusal(Code::FailedPrecondition, "ILLEGAL_STATUS", message),
            // Not NOT_FOUND: what the caller asked to make is not what is missing.
            OrderError::Directory(DirectoryError::Unknown(id)) => {
                let details = ErrorDetails::with_resource_info("user", id.to_string(), "", message.as_str());
                refusal_with(Code::FailedPrecondition, "USER_UNKNOWN", message, details)
            }
            OrderError::Directory(DirectoryError::Unavailable(_)) => {
                refusal(Code::Unavailable, "USER_SERVICE_UNAVAILABLE", message)
            }
            // Not UNAVAILABLE: a mesh client repeats that, and neither of these gets better by it.
            OrderError::Directory(DirectoryError::Overloaded) => {
                refusal(Code::ResourceExhausted, "USER_SERVICE_OVERLOADED", message)
            }
            // Not UNAUTHENTICATED: it is not the caller who was refused, and no other token of theirs would help.
            OrderError::Directory(DirectoryError::Refused) => refusal(Code::Internal, "USER_SERVICE_REFUSED", message),
            OrderError::Directory(DirectoryError::Failed(_)) => refusal(Code::Internal, "USER_SERVICE_FAILED", message),
            OrderError::Database(error) => error.into(),
        }
    }
}
