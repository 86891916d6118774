//! What is wrong with a request, as its caller is told: INVALID_ARGUMENT with one violation a field.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use thiserror::Error;

/// A request that does not fit its route.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", self.message())]
pub struct BadInput {
    /// Everything that is wrong, at least one.
    pub violations: Vec<Violation>,
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Field path by the proto file's names, as the services write it: `items[2].unit_price.units`. Empty for the body as a whole, the
    /// parameter's name for a query parameter that is no field.
    pub field: String,
    /// What is wrong and what is allowed.
    pub description: String,
}

impl BadInput {
    fn message(&self) -> String {
        let mut message = "the request does not fit the method".to_owned();
        for (index, Violation { field, description }) in self.violations.iter().enumerate() {
            message.push_str(if index == 0 { ": " } else { "; " });
            message.push_str(if field.is_empty() { "the body" } else { field });
            message.push(' ');
            message.push_str(description);
        }
        message
    }

    /// The answer: status 400 and `google.rpc.Status` as JSON, with ErrorInfo and BadRequest.
    pub fn to_json(&self) -> (StatusCode, Bytes) {
        let violations = self.violations.iter();
        let violations: Vec<_> = violations
            .map(|Violation { field, description }| json!({"field": field, "description": description}))
            .collect();
        let body = json!({
            "code": 3,
            "message": self.message(),
            "details": [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "INVALID_REQUEST", "domain": "meshwork", "metadata": {}},
                {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations},
            ],
        });
        (StatusCode::BAD_REQUEST, Bytes::from(body.to_string()))
    }
}

impl Violation {
    pub(super) fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }

    /// The same fault, in a message that is a field of another.
    pub(super) fn below(mut self, parent: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => parent.to_owned(),
            path if path.starts_with(parent) => path.to_owned(),
            path => format!("{parent}.{path}"),
        };
        self
    }
}
