//! Why user-svc does not grant a call, and the status that says so.

use std::time::Duration;

use mesh_runtime::database::{DatabaseError, ResourceError, Violations, refusal, refusal_with};
use tonic::{Code, Status};
use tonic_types::ErrorDetails;

use crate::limits::TooOften;
use crate::password::PasswordError;

/// When to come back after the queue of passwords was full: it is empty again in some 100 ms.
const QUEUE_RETRY_AFTER: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error(transparent)]
    Invalid(#[from] Violations),
    #[error(transparent)]
    Resource(#[from] ResourceError),
    #[error("email address {0} belongs to another account")]
    EmailTaken(String),
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Which of the two is not told, so that nobody learns who has an account.
    #[error("email address or password is wrong")]
    Credentials,
    #[error(transparent)]
    LoginTooOften(#[from] TooOften),
    #[error("refresh token is of no login that lasts; log in")]
    RefreshTokenInvalid,
    #[error("refresh token was used before, so two have had it; this login has ended, log in")]
    RefreshTokenReused,
    #[error("refresh tokens of this login were exchanged too often")]
    RefreshTooOften {
        /// Until the first of them is forgotten.
        wait: Duration,
    },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<UserError> for Status {
    fn from(error: UserError) -> Self {
        let message = error.to_string();
        match error {
            UserError::Invalid(violations) => violations.into(),
            UserError::Resource(error) => error.into(),
            UserError::EmailTaken(_) => refusal(Code::AlreadyExists, "EMAIL_TAKEN", message),
            UserError::Password(PasswordError::QueueFull) => {
                let details = ErrorDetails::with_retry_info(Some(QUEUE_RETRY_AFTER));
                refusal_with(Code::ResourceExhausted, "PASSWORD_QUEUE_FULL", message, details)
            }
            UserError::Password(PasswordError::Failed(_)) => {
                tracing::error!(error = %message, "password not hashed");
                refusal(Code::Internal, "PASSWORD_HASH_FAILED", "the password could not be hashed")
            }
            UserError::Credentials => refusal(Code::Unauthenticated, "CREDENTIALS_INVALID", message),
            UserError::LoginTooOften(TooOften { wait }) => too_often("LOGIN_TOO_OFTEN", message, wait),
            UserError::RefreshTokenInvalid => refusal(Code::Unauthenticated, "REFRESH_TOKEN_INVALID", message),
            UserError::RefreshTokenReused => refusal(Code::Unauthenticated, "REFRESH_TOKEN_REUSED", message),
            UserError::RefreshTooOften { wait } => too_often("REFRESH_TOO_OFTEN", message, wait),
            UserError::Database(error) => error.into(),
        }
    }
}

fn too_often(reason: &str, message: String, wait: Duration) -> Status {
    refusal_with(Code::ResourceExhausted, reason, message, ErrorDetails::with_retry_info(Some(wait)))
}
