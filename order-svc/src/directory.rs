//! Whether a user exists: a question to user-svc.

use bytes::Bytes;
use http_body::Body;
use mesh_api::shop::user::v1::GetUserRequest;
use mesh_api::shop::user::v1::user_service_client::UserServiceClient;
use tonic::Code;
use tonic::client::GrpcService;
use uuid::Uuid;

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
    /// user-svc did not say.
    #[error("user-svc cannot be asked ({0:?})")]
    Unavailable(Code),
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
        let request = GetUserRequest { user_id: user_id.to_string() };
        match self.0.clone().get_user(request).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Err(DirectoryError::Unknown(user_id)),
            Err(status) => {
                tracing::warn!(code = ?status.code(), error = status.message(), "user-svc cannot be asked");
                Err(DirectoryError::Unavailable(status.code()))
            }
        }
    }
}
