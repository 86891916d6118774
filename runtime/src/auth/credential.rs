//! What a program shows when it calls another: a token that it signs itself, for a few minutes.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use http::header::AUTHORIZATION;
use mesh_api::access::Role;
use tower::{Layer, Service};

use super::claims::{Claims, mint};
use super::signing::SigningKey;
use crate::clock;

/// How long a token of a program holds.
const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// How long it is shown: a call that waits, and a clock that goes fast, still find it valid.
const SHOWN: Duration = Duration::from_secs(4 * 60);

/// A program's own identity towards one other service. Clones share the token. As a layer it shows it with every call.
#[derive(Clone)]
pub struct ServiceCredential(Arc<Inner>);

struct Inner {
    key: SigningKey,
    program: String,
    audience: String,
    token: Mutex<Option<(HeaderValue, SystemTime)>>,
}

impl ServiceCredential {
    /// The program of this name, to the service of that one. Whoever is called must trust the key, for an `iss` of the
    /// program's name and the role "service".
    #[must_use]
    pub fn new(key: SigningKey, program: &str, audience: &str) -> Self {
        let (program, audience) = (program.to_owned(), audience.to_owned());
        Self(Arc::new(Inner { key, program, audience, token: Mutex::default() }))
    }

    /// The value of an `authorization` header that is good for a minute at least.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.header_at(clock::wall())
    }

    fn header_at(&self, now: SystemTime) -> HeaderValue {
        let mut token = self.0.token.lock().unwrap_or_else(PoisonError::into_inner);
        // A calendar that was set back makes the age an error, and the token a new one.
        if let Some((header, minted)) = &*token
            && now.duration_since(*minted).is_ok_and(|age| age < SHOWN)
        {
            return header.clone();
        }
        let Inner { key, program, audience, .. } = &*self.0;
        let claims = Claims::new(program, Role::Service, program, [audience], now, LIFETIME);
        let header = mint(key, &claims).bearer().expect("a token is base64 and dots");
        *token = Some((header.clone(), now));
        header
    }
}

impl<S> Layer<S> for ServiceCredential {
    type Service = Credentialed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Credentialed { inner, credential: Some(self.clone()) }
    }
}

/// A client whose calls show a credential, if there is one.
#[derive(Clone)]
pub struct Credentialed<S> {
    inner: S,
    credential: Option<ServiceCredential>,
}

impl<S> Credentialed<S> {
    /// Calls of `inner` with this credential, or as they are.
    pub fn new(inner: S, credential: Option<ServiceCredential>) -> Self {
        Self { inner, credential }
    }
}

impl<S, B> Service<http::Request<B>> for Credentialed<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        if let Some(credential) = &self.credential {
            request.headers_mut().insert(AUTHORIZATION, credential.header());
        }
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, SHOWN, ServiceCredential, SigningKey};
    use crate::clock;

    #[test]
    fn one_token_is_shown_while_it_is_good_for_long_enough() {
        let credential = ServiceCredential::new(SigningKey::generate().unwrap(), "order-svc", "user-svc");
        let now = clock::wall();
        let first = credential.header_at(now);
        assert!(first.is_sensitive() && first.to_str().unwrap().starts_with("Bearer "));
        assert_eq!(credential.header_at(now + SHOWN - Duration::from_secs(1)), first);
        let second = credential.header_at(now + SHOWN);
        assert_ne!(second, first);
        assert_ne!(credential.header_at(now), second, "a calendar that was set back");
    }
}
