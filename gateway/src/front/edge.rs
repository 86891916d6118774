//! Tokens at the edge: one that does not hold goes no further, and where one is needed, none does not either. Which role may do
//! what is the services' to say; the token goes on to them as it is.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use mesh_runtime::auth::{Access, Table, TokenError, Verifier, bearer};

use super::fault::Fault;

/// What is asked of a request's token.
#[derive(Clone)]
pub struct Edge {
    verifier: Option<Verifier>,
    table: Table,
}

impl Edge {
    /// Believes this verifier; without one nobody is asked. The table says which methods are public; those that it does not
    /// know ask for themselves.
    #[must_use]
    pub fn new(verifier: Option<Verifier>, table: Table) -> Self {
        Self { verifier, table }
    }

    /// Whether the request may go on to this method.
    pub(super) async fn admit(&self, grpc_path: &str, headers: &HeaderMap) -> Result<(), Fault> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let access = (self.table)(grpc_path);
        if access == Some(Access::Public) {
            return Ok(());
        }
        let verified = match bearer(headers, &AUTHORIZATION) {
            Ok(token) => verifier.verify(token).await.map(drop),
            Err(error) => Err(error),
        };
        match verified {
            Ok(()) => Ok(()),
            // A service of which nothing is known may have methods for everybody, or ask in another way.
            Err(TokenError::Missing) if access.is_none() => Ok(()),
            Err(TokenError::Malformed(_)) if access.is_none() && !is_bearer(headers) => Ok(()),
            Err(error) => Err(Fault::from(error)),
        }
    }
}

fn is_bearer(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|value| {
        value.as_bytes().get(.."bearer".len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
    })
}

impl From<TokenError> for Fault {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Missing => Self::TokenMissing,
            TokenError::KeysUnavailable => Self::KeysUnavailable,
            refused => Self::TokenRefused { reason: refused.reason(), message: refused.to_string() },
        }
    }
}
