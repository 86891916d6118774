//! Being the operator of a mesh whose key one holds.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_runtime::auth::{AUDIENCE_ALL, Claims, KeyError, Role, SigningKey, mint};
use mesh_runtime::clock;
use tokio::time::Instant;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::bearer::Bearer;

/// How long a token is good for.
const LIFETIME: Duration = Duration::from_secs(15 * 60);

/// How long it is used: a call that is under way may take some time, and the clocks of two machines differ.
const USED_FOR: Duration = Duration::from_secs(10 * 60);

/// Whoever runs a mesh: has a key that its services trust, and makes tokens with it as they are needed. Clones share them.
#[derive(Clone)]
pub struct Operator(Arc<Inner>);

struct Inner {
    key: SigningKey,
    issuer: String,
    /// The last token, and when the next one is due. Held for moments only.
    made: Mutex<Option<(Bearer, Instant)>>,
}

impl Operator {
    /// The operator whose key is in this file and trusted under this name.
    pub fn open(key: &Path, issuer: &str) -> Result<Operator, KeyError> {
        let (key, issuer, made) = (SigningKey::open(key)?, issuer.to_owned(), Mutex::default());
        Ok(Operator(Arc::new(Inner { key, issuer, made })))
    }

    /// A token that holds for some minutes more.
    pub fn bearer(&self) -> Bearer {
        let now = clock::now();
        let mut made = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some((bearer, due)) if now < *due => bearer.clone(),
            _ => {
                let Inner { key, issuer, .. } = &*self.0;
                let claims = Claims::new(issuer, Role::Admin, issuer, [AUDIENCE_ALL], clock::wall(), LIFETIME);
                let bearer = Bearer::new(mint(key, &claims).expose()).expect("a token is letters, digits and dots");
                *made = Some((bearer.clone(), now + USED_FOR));
                bearer
            }
        }
    }
}

/// For stubs of which every call is the operator's.
impl Interceptor for Operator {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        self.bearer().attach(&mut request);
        Ok(request)
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operator")
            .field("issuer", &self.0.issuer)
            .field("kid", &self.0.key.kid())
            .finish_non_exhaustive()
    }
}
