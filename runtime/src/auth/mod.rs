//! Who calls, and whether they may: tokens, keys, and the layer in front of a service.
//!
//! | module | job |
//! |---|---|
//! | `claims`, `signing` | what a token says, and the key that signs it |
//! | `jwk` | public keys as others read them |
//! | `caller` | who calls |
//! | `secret` | text that cannot be logged |

mod caller;
mod claims;
mod jwk;
mod secret;
mod signing;

pub use caller::Caller;
pub use claims::{AUDIENCE_ALL, Claims, USER_ISSUER, lifetime_max, mint};
pub use jwk::{Jwk, JwkError};
pub use mesh_api::access::{Access, Role};
pub use secret::Secret;
pub use signing::{KeyError, SigningKey};
