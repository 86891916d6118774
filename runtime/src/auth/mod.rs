//! Who calls, and whether they may: tokens, keys, and the layer in front of a service.
//!
//! | module | job |
//! |---|---|
//! | `args` | the flags: whether callers are asked, and which keys are trusted |
//! | `claims`, `signing`, `secret` | what a token says, the key that signs it, and text that cannot be logged |
//! | `jwk`, `trusted` | public keys as others read them, and those that an operator trusts |
//! | `draft` | how the files of both kinds of keys are written |
//! | `verifier`, `wire` | who a token speaks for; keys that are kept up to date, and how user-svc tells them |
//! | `caller`, `layer` | who calls, and what asks them in front of a service |
//! | `credential` | what a program shows when it calls another |
//! | `error` | why a caller is not let in |
//!
//! What must stay true: the algorithm is EdDSA because it is written here, not because a token says so; a `kid` is an index
//! into keys that are loaded, nothing else; a key signs only for the issuer and the roles that it was trusted for, and a
//! user's key for users only; every claim is there and has its type; a program without keys says that it cannot tell
//! (`UNAVAILABLE`), and not that the caller is nobody.
//!
//! Which method needs what is not known here: it comes as a [`Table`], and where the keys of users are asked for as a
//! [`KeySource`]. Both are closures, so this knows nothing of discovery and of the services.

mod args;
mod caller;
mod claims;
mod credential;
mod draft;
mod error;
mod jwk;
mod layer;
mod secret;
mod signing;
mod trusted;
mod verifier;
mod wire;

pub use args::{AuthArgs, AuthMode};
pub use caller::Caller;
pub use claims::{AUDIENCE_ALL, Claims, USER_ISSUER, lifetime_max, mint};
pub use credential::{Credentialed, ServiceCredential, ServiceIdentity};
pub use error::{TokenError, role_required};
pub use jwk::{Jwk, JwkError};
pub use layer::{AccessLayer, AccessService, Table, bearer};
pub use mesh_api::access::{Access, Role};
pub use secret::Secret;
pub use signing::{KeyError, SigningKey};
pub use trusted::{TrustedError, TrustedKey, trust};
pub use verifier::{KeySource, Verifier};
