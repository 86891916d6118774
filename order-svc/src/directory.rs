//! Whether a user exists: a question to user-svc.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use mesh_api::shop::user::v1::GetUserRequest;
use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use tonic::client::GrpcService;
use tonic::{Code, Request};
use uuid::Uuid;

/// Longest time that the question may take. A caller's deadline, which the channel inherits, ends it sooner; a caller
/// without one is not kept waiting for ever. A look-up takes a millisecond: after this long nobody is going to answer.
const ASK_MAX: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who knows the users.
pub(crate) trait Directory: Clone + Send + Sync + 'static {
    /// Fails unless there is a user of this id.
    fn require(&self, user_id: Uuid) -> impl Future<Output = Result<(), DirectoryError>> + Send;
}

/// Why a user cannot be ordered for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// user-svc says that there is none.
    #[error("no user {0}")]
    Unknown(Uuid),
    /// Nobody there to ask, or nobody who answered in time: another try may do better.
    #[error("user-svc cannot be asked ({0:?})")]
    Unavailable(Code),
    /// user-svc has too much to do.
    #[error("user-svc has too much to do")]
    Overloaded,
    /// user-svc does not know who asks, or does not let it: only an operator can change that.
    #[error(
        "user-svc does not let order-svc ask: start order-svc with --service-key FILE, and user-svc with a --trusted-jwks \
         FILE that trusts this key for the issuer \"order-svc\" and the role \"service\""
    )]
    Refused,
    /// user-svc answered, but not the question; asking again gets the same.
    #[error("user-svc failed ({0:?})")]
    Failed(Code),
}

impl DirectoryError {
    /// What a refusal by user-svc means for who asked. Which of these the caller repeats matters, since the channel to
    /// user-svc has already repeated the question as often as is good: each repeat of the caller multiplies that.
    fn of(code: Code, user_id: Uuid) -> Self {
        match code {
            Code::NotFound => Self::Unknown(user_id),
            // Either is about one moment, or about the way there from this instance.
            Code::Unavailable | Code::DeadlineExceeded => Self::Unavailable(code),
            // A refusal of load, which must not come back threefold.
            Code::ResourceExhausted => Self::Overloaded,
            Code::Unauthenticated | Code::PermissionDenied => Self::Refused,
            // A bug, or damage, on either side. CANCELLED too: nobody but this call could have cancelled it.
            code => Self::Failed(code),
        }
    }
}

/// user-svc, over any transport.
#[derive(Clone, Debug)]
pub(crate) struct UserService<T>(UserServiceClient<T>);

impl<T> UserService<T>
where
    T: GrpcService<tonic::body::Body, ResponseBody: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static>,
    T::Error: Into<BoxError>,
{
    pub(crate) fn new(transport: T) -> Self {
        Self(UserServiceClient::new(transport))
    }
}

impl<T> Directory for UserService<T>
where
    T: GrpcService<
            tonic::body::Body,
            ResponseBody: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static,
    T::Error: Into<BoxError>,
{
    async fn require(&self, user_id: Uuid) -> Result<(), DirectoryError> {
        let mut request = Request::new(GetUserRequest { user_id: user_id.to_string() });
        request.set_timeout(ASK_MAX);
        match self.0.clone().get_user(request).await {
            Ok(_) => Ok(()),
            Err(status) => {
                let error = DirectoryError::of(status.code(), user_id);
                match error {
                    DirectoryError::Unknown(_) => {}
                    DirectoryError::Refused => tracing::error!(said = status.message(), "{error}"),
                    _ => tracing::warn!(code = ?status.code(), error = status.message(), "user-svc did not say"),
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::service_fn;

    use super::{Code, Directory as _, DirectoryError, UserService, Uuid};

    /// What comes of a user-svc that answers every call with this code and no message.
    async fn answered(code: Code) -> Result<(), DirectoryError> {
        let transport = service_fn(move |request: http::Request<tonic::body::Body>| async move {
            assert_eq!(request.uri().path(), "/shop.user.v1.UserService/GetUser");
            Ok::<_, Infallible>(tonic::Status::new(code, "").into_http::<tonic::body::Body>())
        });
        UserService::new(transport).require(Uuid::nil()).await
    }

    #[tokio::test]
    async fn the_question_has_a_deadline_of_its_own() {
        let transport = service_fn(|request: http::Request<tonic::body::Body>| async move {
            assert_eq!(request.headers()["grpc-timeout"], "5000000u");
            Ok::<_, Infallible>(tonic::Status::not_found("").into_http::<tonic::body::Body>())
        });
        let unknown = UserService::new(transport).require(Uuid::nil()).await;
        assert!(matches!(unknown, Err(DirectoryError::Unknown(_))), "{unknown:?}");
    }

    #[tokio::test]
    async fn only_not_found_means_that_there_is_no_such_user() {
        assert!(matches!(answered(Code::NotFound).await, Err(DirectoryError::Unknown(_))));
        for code in [Code::Unavailable, Code::DeadlineExceeded] {
            assert!(matches!(answered(code).await, Err(DirectoryError::Unavailable(of)) if of == code), "{code:?}");
        }
        for code in [Code::Unauthenticated, Code::PermissionDenied] {
            assert!(matches!(answered(code).await, Err(DirectoryError::Refused)), "{code:?}");
        }
        assert!(matches!(answered(Code::ResourceExhausted).await, Err(DirectoryError::Overloaded)));
        for code in [Code::Internal, Code::Unknown, Code::Unimplemented, Code::InvalidArgument, Code::Cancelled] {
            assert!(matches!(answered(code).await, Err(DirectoryError::Failed(of)) if of == code), "{code:?}");
        }
    }
}
