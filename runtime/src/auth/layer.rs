//! What stands in front of a service and asks who calls.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, Request, Response};
use mesh_api::access::Access;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::caller::Caller;
use super::error::{TokenError, role_required};
use super::verifier::Verifier;
use crate::status::refusal;

/// Who may call the method of a path; `None` where there is no such method.
pub type Table = fn(&str) -> Option<Access>;

/// Lets a call through to a service if the table says that its caller may make it, and puts the [`Caller`] into the
/// request's extensions, for [`Caller::of`]. A public method is let through as it is.
#[derive(Clone)]
pub struct AccessLayer {
    table: Table,
    verifier: Option<Verifier>,
}

impl AccessLayer {
    /// A layer that asks by this table and believes this verifier. Without one nobody is asked: every caller is
    /// [`Caller::operator`].
    #[must_use]
    pub fn new(table: Table, verifier: Option<Verifier>) -> Self {
        Self { table, verifier }
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = AccessService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AccessService { inner, access: self.clone() }
    }
}

/// What [`AccessLayer`] makes of a service.
#[derive(Clone)]
pub struct AccessService<S> {
    inner: S,
    access: AccessLayer,
}

impl<S: NamedService> NamedService for AccessService<S> {
    const NAME: &'static str = S::NAME;
}

/// What becomes of a call, as far as can be told at once.
enum Judged {
    /// It goes through, of whom it is known.
    Known(Option<Caller>),
    /// It is refused.
    Refused(Status),
    /// Keys that are on their way may tell; the access that it needs then.
    Later(Verifier, Access),
}

impl AccessLayer {
    fn judge<B>(&self, request: &Request<B>) -> Judged {
        let Some(access) = (self.table)(request.uri().path()) else {
            return Judged::Refused(refusal(Code::Unimplemented, "METHOD_UNKNOWN", "there is no such method"));
        };
        let Some(verifier) = &self.verifier else { return Judged::Known(Some(Caller::operator())) };
        if access == Access::Public {
            return Judged::Known(None);
        }
        let verified = bearer(request.headers(), &AUTHORIZATION).and_then(|token| verifier.verify_at_once(token));
        match verified {
            Err(error) if verifier.may_learn(error) => Judged::Later(verifier.clone(), access),
            verified => match admitted(verified, access) {
                Ok(caller) => Judged::Known(Some(caller)),
                Err(status) => Judged::Refused(status),
            },
        }
    }
}

impl<S, B, R> Service<Request<B>> for AccessService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // Nothing but this layer may say who calls.
        request.extensions_mut().remove::<Caller>();
        match self.access.judge(&request) {
            Judged::Known(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                Either::Left(self.inner.call(request))
            }
            Judged::Refused(status) => Either::Right(Box::pin(async move { Ok(status.into_http()) })),
            Judged::Later(verifier, access) => {
                // The one that is ready is the one that is called.
                let inner = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, inner);
                Either::Right(Box::pin(async move {
                    let token = bearer(request.headers(), &AUTHORIZATION);
                    let verified = match token {
                        Ok(token) => verifier.verify(token).await,
                        Err(error) => Err(error),
                    };
                    match admitted(verified, access) {
                        Ok(caller) => {
                            request.extensions_mut().insert(caller);
                            inner.call(request).await
                        }
                        Err(status) => Ok(status.into_http()),
                    }
                }))
            }
        }
    }
}

fn admitted(verified: Result<Caller, TokenError>, access: Access) -> Result<Caller, Status> {
    let caller = verified?;
    match access {
        Access::Allowed(roles) if !access.admits(caller.role()) => Err(role_required(roles, caller.role())),
        Access::Allowed(_) | Access::Public => Ok(caller),
    }
}

/// The token in a header of the form `Bearer TOKEN`, of which there must be one.
pub fn bearer<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, TokenError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(TokenError::Missing)?;
    if values.next().is_some() {
        return Err(TokenError::Malformed("there are two of them"));
    }
    let value = value.to_str().map_err(|_| TokenError::Malformed("it is not ASCII"))?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() => Ok(token),
        _ => Err(TokenError::Malformed("it does not have the form `Bearer TOKEN`")),
    }
}
