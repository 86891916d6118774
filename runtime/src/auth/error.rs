//! Why a caller is not let in, and the status that says so.

use std::time::Duration;

use mesh_api::access::Role;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;

use crate::status::{refusal, refusal_with};

/// When a caller whose token could not be checked should come again: the keys are asked for every second then.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What is wrong with a token. The texts say enough for who made the call to mend it, and nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("this call needs an access token, as `authorization: Bearer TOKEN`")]
    Missing,
    /// It is not what a token looks like.
    #[error("the access token is malformed: {0}")]
    Malformed(&'static str),
    /// Nobody here trusts the key that it names.
    #[error("the access token is signed by a key that is not trusted here")]
    UnknownKey,
    /// The key that it names did not sign it.
    #[error("the signature of the access token is wrong")]
    Signature,
    /// It is for somebody else.
    #[error("the access token is not for this service")]
    Audience,
    /// Its key may not sign for this issuer and role.
    #[error("the access token claims an issuer or a role that its key may not sign for")]
    NotGranted,
    /// It would hold for longer than its role allows.
    #[error("the access token is made for longer than its role allows")]
    TooLong,
    /// It does not hold yet.
    #[error("the access token is not valid yet; the clocks may differ")]
    NotYet,
    /// It does not hold any more.
    #[error("the access token has expired")]
    Expired,
    /// No key was ever heard of: nothing can be said of any token.
    #[error("the keys that access tokens are checked with could not be fetched yet")]
    KeysUnavailable,
}

impl TokenError {
    /// `ErrorInfo.reason` of its refusal.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "TOKEN_MISSING",
            Self::Expired => "TOKEN_EXPIRED",
            Self::KeysUnavailable => "KEYS_UNAVAILABLE",
            Self::Malformed(_)
            | Self::UnknownKey
            | Self::Signature
            | Self::Audience
            | Self::NotGranted
            | Self::TooLong
            | Self::NotYet => "TOKEN_INVALID",
        }
    }
}

impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        let message = error.to_string();
        match error {
            // Not the caller's fault, and better soon.
            TokenError::KeysUnavailable => {
                let later = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
                refusal_with(Code::Unavailable, error.reason(), message, later)
            }
            error => refusal(Code::Unauthenticated, error.reason(), message),
        }
    }
}

/// The refusal of a caller whose role does not suffice for what it asked.
#[must_use]
pub fn role_required(needed: &[Role], role: Role) -> Status {
    let needed: Vec<_> = needed.iter().map(|role| role.name()).collect();
    let message = format!("this call needs the role {}; the access token has the role {role}", needed.join(" or "));
    refusal(Code::PermissionDenied, "ROLE_REQUIRED", message)
}
