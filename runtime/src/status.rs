//! How every refusal of the mesh looks on the wire.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of every reason that Meshwork gives.
pub const DOMAIN: &str = "meshwork";

/// A status with its `ErrorInfo`.
pub fn refusal(code: Code, reason: &str, message: impl Into<String>) -> Status {
    refusal_with(code, reason, message, ErrorDetails::new())
}

/// A status with its `ErrorInfo` beside other details.
pub fn refusal_with(code: Code, reason: &str, message: impl Into<String>, mut details: ErrorDetails) -> Status {
    details.set_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}
