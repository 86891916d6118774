//! PURE: a set of keys, a token and a time in, a caller out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use mesh_api::access::Role;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::cache::Cache;
use crate::auth::caller::Caller;
use crate::auth::claims::{ALGORITHM, AUDIENCE_ALL, Claims, USER_ISSUER, lifetime_max};
use crate::auth::error::TokenError;
use crate::auth::trusted::Trusted;

/// Longest token, in bytes; ours have some 400. A longer one is refused before any of it is read.
const TOKEN_BYTES_MAX: usize = 4 << 10;
/// By how much clocks may differ, in seconds.
const LEEWAY_S: u64 = 30;

/// Keys that are trusted at one time, and the tokens that were verified with them: other keys begin with none.
pub(super) struct Keys {
    by_kid: HashMap<String, Key>,
    /// Whether there are keys that nobody has told yet. What is unknown may then be one of them.
    untold: bool,
    verified: Mutex<Cache>,
}

struct Key {
    decoding: DecodingKey,
    grants: Grants,
}

/// What a key may sign.
enum Grants {
    /// Tokens of users.
    Users,
    /// Tokens of one issuer, in these roles.
    Named { issuer: String, roles: Vec<Role> },
}

impl Keys {
    /// Keys of users, if they have been told, and keys that an operator trusts. A key that is in both is the operator's.
    pub(super) fn new<'a>(
        users: Option<impl IntoIterator<Item = (String, DecodingKey)>>,
        trusted: impl IntoIterator<Item = &'a Trusted>,
    ) -> Self {
        let mut untold = users.is_none();
        let users = users.into_iter().flatten().map(|(kid, decoding)| (kid, Key { decoding, grants: Grants::Users }));
        let mut by_kid: HashMap<_, _> = users.collect();
        by_kid.extend(trusted.into_iter().map(|key| {
            let grants = Grants::Named { issuer: key.issuer.clone(), roles: key.roles.clone() };
            (key.kid.clone(), Key { decoding: key.decoding.clone(), grants })
        }));
        untold |= by_kid.is_empty();
        Self { by_kid, untold, verified: Mutex::default() }
    }

    /// Who made a token, if it holds at `now` (in seconds since 1970) for a service of this name.
    pub(super) fn verify(&self, token: &str, service: &str, now: u64) -> Result<Caller, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed("it is longer than 4096 bytes"));
        }
        // Nobody finds two texts of one digest; a lesser hash would let one token pass for another.
        let digest = Sha256::digest(token).into();
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&digest);
        if let Some((caller, exp)) = known {
            return if holds_until(exp, now) { Ok(caller) } else { Err(TokenError::Expired) };
        }
        let (caller, exp) = self.check(token, service, now)?;
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, (caller.clone(), exp));
        Ok(caller)
    }

    fn check(&self, token: &str, service: &str, now: u64) -> Result<(Caller, u64), TokenError> {
        let header = decode_header(token).map_err(|_| TokenError::Malformed("it is no JSON Web Token"))?;
        if header.alg != ALGORITHM {
            return Err(TokenError::Malformed("its alg is not EdDSA"));
        }
        if header.crit.is_some() {
            return Err(TokenError::Malformed("it has a critical extension"));
        }
        let kid = header.kid.ok_or(TokenError::Malformed("it names no key (kid)"))?;
        // An index and nothing more: never a path, an address or a key.
        let unknown = if self.untold { TokenError::KeysUnavailable } else { TokenError::UnknownKey };
        let key = self.by_kid.get(&kid).ok_or(unknown)?;
        let claims = decode::<Claims>(token, &key.decoding, &validation()).map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            _ => TokenError::Malformed("a claim is missing or of another type"),
        })?;
        let claims = claims.claims;
        let caller = key.grants.caller(&claims)?;
        // A program shows each other one a token for that one alone: one for all could be shown on by whoever was shown it.
        let for_all = claims.aud.iter().any(|name| name == AUDIENCE_ALL);
        if (for_all && claims.role == Role::Service) || !(for_all || claims.aud.iter().any(|name| name == service)) {
            return Err(TokenError::Audience);
        }
        let life = claims.exp.checked_sub(claims.iat).ok_or(TokenError::Malformed("its exp is before its iat"))?;
        if life > lifetime_max(claims.role).as_secs() {
            return Err(TokenError::TooLong);
        }
        if claims.iat.max(claims.nbf) > now.saturating_add(LEEWAY_S) {
            return Err(TokenError::NotYet);
        }
        if !holds_until(claims.exp, now) {
            return Err(TokenError::Expired);
        }
        Ok((caller, claims.exp))
    }
}

impl Grants {
    /// Whom the claims speak of, if this key may say so.
    fn caller(&self, claims: &Claims) -> Result<Caller, TokenError> {
        if claims.sub.is_empty() || claims.jti.is_empty() {
            return Err(TokenError::Malformed("its sub or its jti is empty"));
        }
        match self {
            Self::Users if claims.iss == USER_ISSUER && claims.role == Role::User => {
                let user_id = Uuid::try_parse(&claims.sub);
                Ok(Caller::user(user_id.map_err(|_| TokenError::Malformed("its sub is not a UUID"))?))
            }
            Self::Named { issuer, roles } if claims.iss == *issuer && roles.contains(&claims.role) => {
                Ok(Caller::named(claims.role, &claims.sub, issuer))
            }
            Self::Users | Self::Named { .. } => Err(TokenError::NotGranted),
        }
    }
}

fn holds_until(exp: u64, now: u64) -> bool {
    now < exp.saturating_add(LEEWAY_S)
}

/// What the library checks: the algorithm, the signature, and that the claims it knows are there. Times and names are
/// checked above, on our clock and against what the key may sign.
fn validation() -> Validation {
    let mut validation = Validation::new(ALGORITHM);
    validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}
