//! What a program shows when it calls another: a token that it signs itself, for a few minutes.

use std::collections::HashMap;
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

/// A program's own identity towards other programs. Each of them is shown a token that only it takes: what one program is shown
/// is worth nothing to it before another. Clones share the tokens.
#[derive(Clone)]
pub struct ServiceIdentity(Arc<Inner>);

struct Inner {
    key: SigningKey,
    program: String,
    /// By audience. A token that is shown no more makes room when one is made, so as many are here as programs were called
    /// within [`SHOWN`].
    tokens: Mutex<HashMap<String, Shown>>,
}

/// A token, as a header value, and when it was made.
struct Shown {
    header: HeaderValue,
    minted: SystemTime,
}

impl Shown {
    /// A calendar that was set back makes the age an error, and the token a new one.
    fn holds(&self, now: SystemTime) -> bool {
        now.duration_since(self.minted).is_ok_and(|age| age < SHOWN)
    }
}

impl ServiceIdentity {
    /// The program of this name. Whoever is called must trust the key, for an `iss` of the program's name and the role
    /// "service".
    #[must_use]
    pub fn new(key: SigningKey, program: &str) -> Self {
        Self(Arc::new(Inner { key, program: program.to_owned(), tokens: Mutex::default() }))
    }

    /// A header value that shows this identity to the program of that name, and is good for a minute at least. Names are those
    /// of programs that exist, never what a stranger says: each is remembered for some minutes.
    #[must_use]
    pub fn towards(&self, audience: &str) -> HeaderValue {
        self.towards_at(audience, clock::wall())
    }

    fn towards_at(&self, audience: &str, now: SystemTime) -> HeaderValue {
        let Inner { key, program, tokens } = &*self.0;
        let mut tokens = tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shown) = tokens.get(audience)
            && shown.holds(now)
        {
            return shown.header.clone();
        }
        let claims = Claims::new(program, Role::Service, program, [audience], now, LIFETIME);
        let header = mint(key, &claims).bearer().expect("a token is base64 and dots");
        tokens.retain(|_, shown| shown.holds(now));
        tokens.insert(audience.to_owned(), Shown { header: header.clone(), minted: now });
        header
    }
}

/// A program's own identity towards one other service. As a layer it shows it with every call.
#[derive(Clone)]
pub struct ServiceCredential {
    identity: ServiceIdentity,
    audience: Arc<str>,
}

impl ServiceCredential {
    /// The program of this name, to the service of that one: see [`ServiceIdentity::new`].
    #[must_use]
    pub fn new(key: SigningKey, program: &str, audience: &str) -> Self {
        Self { identity: ServiceIdentity::new(key, program), audience: audience.into() }
    }

    /// The value of an `authorization` header that is good for a minute at least.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.identity.towards(&self.audience)
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
    use super::{Duration, SHOWN, ServiceIdentity, SigningKey};
    use crate::clock;

    #[test]
    fn one_token_is_shown_while_it_is_good_for_long_enough() {
        let identity = ServiceIdentity::new(SigningKey::generate().unwrap(), "order-svc");
        let now = clock::wall();
        let at = |now| identity.towards_at("user-svc", now);
        let first = at(now);
        assert!(first.is_sensitive() && first.to_str().unwrap().starts_with("Bearer "));
        assert_eq!(at(now + SHOWN - Duration::from_secs(1)), first);
        let second = at(now + SHOWN);
        assert_ne!(second, first);
        assert_ne!(at(now), second, "a calendar that was set back");
    }

    #[test]
    fn each_program_is_shown_a_token_of_its_own_and_old_ones_make_room() {
        let identity = ServiceIdentity::new(SigningKey::generate().unwrap(), "gateway");
        let now = clock::wall();
        assert_ne!(identity.towards_at("user-svc", now), identity.towards_at("order-svc", now));
        drop(identity.towards_at("weather", now + SHOWN));
        assert_eq!(identity.0.tokens.lock().unwrap().len(), 1);
    }
}
