//! A way for the body of an answer past the router.
//!
//! Routing wraps each body it passes on, and hands every frame through all of the wrappings. A stream that tells thousands
//! of callers the same pays more for them than for what it says.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use tonic::Status;
use tonic::body::Body;

/// A body that the server sends instead of the one that its answer has, as an extension of that answer. It says the same:
/// who serves the routes in another way sends the other one.
#[derive(Clone)]
pub struct Straight(Arc<Mutex<Option<Body>>>);

impl Straight {
    /// This body.
    pub fn new(body: impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Body::new(UnsyncBoxBody::new(body))))))
    }

    /// The body, the first time.
    pub(super) fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Straight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Straight").finish_non_exhaustive()
    }
}
