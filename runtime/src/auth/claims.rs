//! What a token says, and its making.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, Header, encode};
use mesh_api::access::Role;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::secret::Secret;
use super::signing::SigningKey;
use crate::entropy;

/// The one algorithm of every token, whatever its header says.
pub(super) const ALGORITHM: Algorithm = Algorithm::EdDSA;
/// `aud` of a token that every service takes.
pub const AUDIENCE_ALL: &str = "meshwork";
/// `iss` of the tokens that people log in for.
pub const USER_ISSUER: &str = "user-svc";
/// Most names in `aud`.
const AUDIENCES_MAX: usize = 16;

/// Everything a token of the mesh says. Each claim is required and has one type; a token without one, or with another type
/// in its place, is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who signed it: [`USER_ISSUER`], or the name of a trusted key.
    pub iss: String,
    /// Whom it speaks of: the UUID of a user, the name of a program or of an operator.
    pub sub: String,
    /// Who may take it: names of programs, or [`AUDIENCE_ALL`].
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// In what capacity.
    #[serde(serialize_with = "role_name", deserialize_with = "role")]
    pub role: Role,
    /// When it was made, in seconds since 1970, as the two below.
    pub iat: u64,
    /// From when on it holds.
    pub nbf: u64,
    /// Until when it holds.
    pub exp: u64,
    /// Its own name, drawn afresh for each.
    pub jti: String,
}

impl Claims {
    /// The claims of a token that holds from `now` on for `lifetime`, of which whole seconds count.
    #[must_use]
    pub fn new(
        issuer: impl Into<String>,
        role: Role,
        subject: impl Into<String>,
        audience: impl IntoIterator<Item = impl Into<String>>,
        now: SystemTime,
        lifetime: Duration,
    ) -> Self {
        let now = unix_seconds(now);
        Self {
            iss: issuer.into(),
            sub: subject.into(),
            aud: audience.into_iter().map(Into::into).collect(),
            role,
            iat: now,
            nbf: now,
            exp: now.saturating_add(lifetime.as_secs()),
            jti: entropy::uuid_v4().to_string(),
        }
    }
}

/// Signs a token.
#[must_use]
pub fn mint(key: &SigningKey, claims: &Claims) -> Secret {
    let header = Header { kid: Some(key.kid().to_owned()), ..Header::new(ALGORITHM) };
    let token = encode(&header, claims, key.encoding());
    Secret::new(token.expect("strings and numbers are JSON, and SigningKey holds only keys that sign"))
}

/// The longest life of a token of this role, from `iat` to `exp`; one that asks for more is refused.
#[must_use]
pub const fn lifetime_max(role: Role) -> Duration {
    const MINUTE: u64 = 60;
    Duration::from_secs(match role {
        // A user's token cannot be taken back before it ends.
        Role::User => 15 * MINUTE,
        // Made afresh every few minutes by who holds the key.
        Role::Service => 60 * MINUTE,
        // Made by hand, for a day's work.
        Role::Admin => 24 * 60 * MINUTE,
    })
}

/// Whole seconds since 1970; a clock that stands before that reads 0, and every token is then not yet valid.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn role_name<S: Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(role.name())
}

fn role<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Role, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// `aud` is one name or a list of them (RFC 7519, 4.1.3).
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(formatter, "a name or a list of at most {AUDIENCES_MAX} names")
        }

        fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
            Ok(vec![name.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(name) = names.next_element()? {
                if all.len() == AUDIENCES_MAX {
                    return Err(A::Error::custom("too many names in aud"));
                }
                all.push(name);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(Names)
}
