//! Public keys as others read them: JSON Web Keys (RFC 7517, RFC 8037), of one kind.

use base64ct::{Base64UrlUnpadded, Encoding};
use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes of an Ed25519 public key.
const KEY_BYTES: usize = 32;

/// A public key, as it stands in a key set. What comes from outside is not checked until a verifier takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// Kind of key: "OKP".
    pub kty: String,
    /// Its curve: "Ed25519".
    pub crv: String,
    /// The key, 32 bytes in URL-safe base64 without padding.
    pub x: String,
    /// Its name: the thumbprint of the three above (RFC 7638), so that no two keys have one name.
    pub kid: String,
    /// What signs with it: "EdDSA".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// What it is for: "sig".
    #[serde(rename = "use", default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
}

/// Why a key is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// Another kind of key.
    #[error("key {kid:?} has {member} {found:?}, not {expected:?}")]
    Kind {
        /// Its name.
        kid: String,
        /// Which member says so.
        member: &'static str,
        /// What stands there.
        found: String,
        /// What must stand there.
        expected: &'static str,
    },
    /// `x` is not a key.
    #[error("key {0:?}: x is not {KEY_BYTES} bytes in URL-safe base64 without padding")]
    Bytes(String),
    /// `kid` is another key's.
    #[error("key {found:?}: its kid must be its RFC 7638 thumbprint, {expected}")]
    Name {
        /// The `kid` that it has.
        found: String,
        /// The one it must have.
        expected: String,
    },
}

impl Jwk {
    /// The key of these bytes, under its own name.
    pub(super) fn of(public: &[u8]) -> Self {
        let x = Base64UrlUnpadded::encode_string(public);
        Self {
            kid: thumbprint(&x),
            x,
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            alg: Some("EdDSA".to_owned()),
            usage: Some("sig".to_owned()),
        }
    }

    /// What verifies signatures of this key, if it is what it says.
    pub(super) fn decoding_key(&self) -> Result<DecodingKey, JwkError> {
        let members = [
            ("kty", Some(&self.kty), "OKP"),
            ("crv", Some(&self.crv), "Ed25519"),
            ("alg", self.alg.as_ref(), "EdDSA"),
            ("use", self.usage.as_ref(), "sig"),
        ];
        for (member, found, expected) in members {
            if let Some(found) = found.filter(|found| *found != expected) {
                return Err(JwkError::Kind { kid: self.kid.clone(), member, found: found.clone(), expected });
            }
        }
        let mut public = [0; KEY_BYTES];
        let decoded = Base64UrlUnpadded::decode(&self.x, &mut public).map(<[u8]>::len);
        if decoded != Ok(KEY_BYTES) {
            return Err(JwkError::Bytes(self.kid.clone()));
        }
        let expected = thumbprint(&self.x);
        if self.kid != expected {
            return Err(JwkError::Name { found: self.kid.clone(), expected });
        }
        Ok(DecodingKey::from_ed_der(&public))
    }
}

fn thumbprint(x: &str) -> String {
    Base64UrlUnpadded::encode_string(&Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)))
}

#[cfg(test)]
mod tests {
    use super::{Jwk, JwkError};

    /// The key of RFC 8037, appendix A.2, and its thumbprint of appendix A.3.
    fn example() -> Jwk {
        let jwk: Jwk = serde_json::from_str(
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                "kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"}"#,
        )
        .unwrap();
        jwk
    }

    #[test]
    fn the_name_of_a_key_is_its_thumbprint() {
        assert!(example().decoding_key().is_ok());
        let named = Jwk { kid: "key-1".to_owned(), ..example() };
        assert!(matches!(named.decoding_key(), Err(JwkError::Name { .. })));
    }

    #[test]
    fn only_ed25519_keys_for_signatures_are_taken() {
        for other in [
            Jwk { kty: "oct".to_owned(), ..example() },
            Jwk { crv: "X25519".to_owned(), ..example() },
            Jwk { alg: Some("HS256".to_owned()), ..example() },
            Jwk { usage: Some("enc".to_owned()), ..example() },
        ] {
            assert!(matches!(other.decoding_key(), Err(JwkError::Kind { .. })), "{other:?}");
        }
        for x in
            ["", "11qY", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURp", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo"]
        {
            let broken = Jwk { x: x.to_owned(), ..example() };
            assert!(matches!(broken.decoding_key(), Err(JwkError::Bytes(_))), "{x}");
        }
    }
}
