//! What stands in front of a service and asks who calls.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, Request, Response};
use mesh_api::access::Access;
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
            Judged::Refused(status) => {
                tracing::debug!(path = request.uri().path(), said = status.message(), "a call is refused");
                Either::Right(Box::pin(async move { Ok(status.into_http()) }))
            }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::header::AUTHORIZATION;
    use http::{HeaderMap, HeaderValue, Request, Response};
    use mesh_api::access::{Access, Role};
    use tempfile::TempDir;
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;
    use tower::{Layer as _, ServiceExt as _, service_fn};

    use super::{AccessLayer, Caller, TokenError, bearer};
    use crate::auth::{Claims, KeySource, SigningKey, TrustedKey, Verifier, mint, trust};
    use crate::clock;

    fn table(path: &str) -> Option<Access> {
        match path {
            "/public" => Some(Access::Public),
            "/both" => Some(Access::Allowed(&[Role::Admin, Role::Service])),
            "/admin" => Some(Access::Allowed(&[Role::Admin])),
            _ => None,
        }
    }

    struct World {
        _folder: TempDir,
        key: SigningKey,
        layer: AccessLayer,
    }

    impl World {
        fn new(users: KeySource) -> Self {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("trusted.json");
            let key = SigningKey::generate().unwrap();
            let roles = vec!["service".to_owned(), "admin".to_owned()];
            trust(&path, TrustedKey { key: key.public_jwk().clone(), iss: "ops".to_owned(), roles }).unwrap();
            let verifier = Verifier::start("user-svc", &[path], users).unwrap();
            Self { _folder: folder, key, layer: AccessLayer::new(table, Some(verifier)) }
        }

        fn token(&self, role: Role) -> HeaderValue {
            let life = std::time::Duration::from_secs(60);
            mint(&self.key, &Claims::new("ops", role, "me", ["user-svc"], clock::wall(), life)).bearer().unwrap()
        }
    }

    /// Who a handler is told has called, or why it is not asked: code and reason.
    async fn called(
        layer: &AccessLayer,
        path: &str,
        token: Option<HeaderValue>,
    ) -> Result<Option<Caller>, (Code, String)> {
        let handler = service_fn(|request: Request<()>| async move {
            let mut response = Response::new(String::new());
            response.extensions_mut().insert(request.extensions().get::<Caller>().cloned());
            Ok::<_, Infallible>(response)
        });
        let mut request = Request::builder().uri(path).body(()).unwrap();
        // What an attacker would have to put there, if it could.
        request.extensions_mut().insert(Caller::operator());
        request.headers_mut().extend(token.map(|token| (AUTHORIZATION, token)));
        let mut response = layer.layer(handler).oneshot(request).await.unwrap();
        if let Some(caller) = response.extensions_mut().remove::<Option<Caller>>() {
            return Ok(caller);
        }
        let status = Status::from_header_map(response.headers()).unwrap();
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.domain, "meshwork");
        Err((status.code(), info.reason))
    }

    fn refusal(code: Code, reason: &str) -> Result<Option<Caller>, (Code, String)> {
        Err((code, reason.to_owned()))
    }

    #[tokio::test]
    async fn who_may_call_is_let_through_and_known() {
        let world = World::new(KeySource::none());
        let call = async |path, token| called(&world.layer, path, token).await;
        let (service, admin) = (world.token(Role::Service), world.token(Role::Admin));
        let role = |caller: Result<Option<Caller>, _>| caller.unwrap().unwrap().role();
        assert_eq!(role(call("/both", Some(service.clone())).await), Role::Service);
        assert_eq!(role(call("/both", Some(admin.clone())).await), Role::Admin);
        assert_eq!(role(call("/admin", Some(admin.clone())).await), Role::Admin);
        assert_eq!(call("/admin", Some(service)).await, refusal(Code::PermissionDenied, "ROLE_REQUIRED"));
        assert_eq!(call("/both", None).await, refusal(Code::Unauthenticated, "TOKEN_MISSING"));
        let nonsense = HeaderValue::from_static("Bearer nonsense");
        assert_eq!(call("/both", Some(nonsense.clone())).await, refusal(Code::Unauthenticated, "TOKEN_INVALID"));
        assert_eq!(call("/none", Some(admin)).await, refusal(Code::Unimplemented, "METHOD_UNKNOWN"));
        assert_eq!(call("/public", None).await, Ok(None), "nobody was asked, and no caller is made up");
        assert_eq!(call("/public", Some(nonsense)).await, Ok(None));
    }

    #[tokio::test]
    async fn a_verifier_without_keys_says_so() {
        let layer = |users| AccessLayer::new(table, Some(Verifier::start("user-svc", &[], users).unwrap()));
        let silent = KeySource::new(|| std::future::ready(Err::<Vec<_>, _>("nobody answers")));
        let token = World::new(KeySource::none()).token(Role::Admin);
        let call = called(&layer(silent), "/admin", Some(token.clone())).await;
        assert_eq!(call, refusal(Code::Unavailable, "KEYS_UNAVAILABLE"));
        let other = SigningKey::generate().unwrap().public_jwk().clone();
        let others = KeySource::new(move || std::future::ready(Ok::<_, String>(vec![other.clone()])));
        assert_eq!(
            called(&layer(others), "/admin", Some(token)).await,
            refusal(Code::Unauthenticated, "TOKEN_INVALID")
        );
    }

    #[tokio::test]
    async fn without_a_verifier_everybody_is_the_operator() {
        let layer = AccessLayer::new(table, None);
        for path in ["/public", "/both", "/admin"] {
            assert_eq!(called(&layer, path, None).await, Ok(Some(Caller::operator())), "{path}");
        }
        assert_eq!(called(&layer, "/none", None).await, refusal(Code::Unimplemented, "METHOD_UNKNOWN"));
    }

    #[test]
    fn one_bearer_token_is_read() {
        let read = |values: &[&str]| {
            let values = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
            bearer(&values.collect::<HeaderMap>(), &AUTHORIZATION).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer x.y.z"]), Ok("x.y.z".to_owned()));
        assert_eq!(read(&["bearer x.y.z"]), Ok("x.y.z".to_owned()));
        assert_eq!(read(&[]), Err(TokenError::Missing));
        for refused in [&["Bearer "][..], &["Bearer"], &["x.y.z"], &["Basic x"], &["Bearer a", "Bearer b"], &[""]] {
            assert!(matches!(read(refused), Err(TokenError::Malformed(_))), "{refused:?}");
        }
    }
}
