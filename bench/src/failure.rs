//! How a run ends badly.

use std::io;

/// Why there is no result, or why it is not good enough.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A process or a file of this run.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// A child process said something else than what was expected.
    #[error("{0}")]
    Child(String),
    /// A contestant cannot be set up.
    #[error("{contestant} cannot be set up: {reason}")]
    Setup { contestant: String, reason: String },
    /// A call failed; none may.
    #[error("a call failed: {0}")]
    Call(#[from] Box<tonic::Status>),
    /// Calls of a timed section failed where none should.
    #[error("calls failed where none should: {}", .0.join("; "))]
    Calls(Vec<String>),
    /// The gate.
    #[error("the gate is missed: {}", .0.join("; "))]
    Missed(Vec<String>),
}

impl Failure {
    /// An I/O error with what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
