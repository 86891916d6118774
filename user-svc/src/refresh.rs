//! Refresh tokens: who holds the last one of a family may go on.
//!
//! A token names its family by 128 random bits and proves itself by 256 more. Who knows the one without the other has held
//! a token of the family; so a right family with a wrong proof is reuse, and no used token has to be remembered for it.
//! What is stored of a token is its SHA-256: whoever reads the database cannot use it.

use aws_lc_rs::{digest, hmac};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use mesh_runtime::auth::Secret;
use mesh_runtime::entropy;
use uuid::Uuid;
use zeroize::Zeroizing;

/// What every token begins with, so that people and scanners of leaked secrets know one when they see it.
const PREFIX: &str = "mesh_rt_";
const FAMILY_BYTES: usize = 16;
const PROOF_BYTES: usize = 32;
const TOKEN_BYTES: usize = FAMILY_BYTES + PROOF_BYTES;

/// A refresh token. It has no `Debug`, and is wiped when dropped.
pub(crate) struct RefreshToken(Zeroizing<[u8; TOKEN_BYTES]>);

/// What is stored of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenHash(pub(crate) Vec<u8>);

/// What is drawn when a token is exchanged: with the token itself it gives the next one, as often as it is asked.
pub(crate) type Seed = [u8; 32];

impl RefreshToken {
    /// The first token of a new family.
    pub(crate) fn draw() -> Self {
        Self(Zeroizing::new(entropy::bytes()))
    }

    /// A token as its holder sends it; `None` for what cannot be one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        let decoded = Base64UrlUnpadded::decode(text.strip_prefix(PREFIX)?, bytes.as_mut_slice()).ok()?;
        (decoded.len() == TOKEN_BYTES).then_some(Self(bytes))
    }

    /// As its holder gets it.
    pub(crate) fn text(&self) -> Secret {
        let encoded = Zeroizing::new(Base64UrlUnpadded::encode_string(self.0.as_slice()));
        Secret::new([PREFIX, &encoded].concat())
    }

    /// The family that it is of.
    pub(crate) fn family(&self) -> Uuid {
        let (family, _) = self.0.split_first_chunk::<FAMILY_BYTES>().expect("a token is longer");
        Uuid::from_bytes(*family)
    }

    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash(digest::digest(&digest::SHA256, self.0.as_slice()).as_ref().to_vec())
    }

    /// The token after this one: nobody can tell it who has not both the token and the seed.
    pub(crate) fn next(&self, seed: &Seed) -> Self {
        let proof = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), self.0.as_slice());
        let mut next = self.0.clone();
        next[FAMILY_BYTES..].copy_from_slice(proof.as_ref());
        Self(next)
    }
}

#[cfg(test)]
mod tests {
    use super::RefreshToken;

    #[test]
    fn a_token_comes_back_as_it_was_sent() {
        let token = RefreshToken::draw();
        let back = RefreshToken::parse(token.text().expose()).unwrap();
        assert_eq!((back.family(), back.hash()), (token.family(), token.hash()));
        assert_ne!(RefreshToken::draw().family(), token.family());
    }

    #[test]
    fn what_is_no_token_is_none() {
        let text = RefreshToken::draw().text();
        let text = text.expose();
        for other in
            ["", "mesh_rt_", &text[1..], &text[..text.len() - 1], &format!("{text}A"), &text.replace("rt", "at")]
        {
            assert!(RefreshToken::parse(other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn the_next_token_is_of_the_same_family_and_told_by_token_and_seed_alone() {
        let token = RefreshToken::draw();
        let next = token.next(&[1; 32]);
        assert_eq!(next.family(), token.family());
        assert_ne!(next.hash(), token.hash());
        assert_eq!(token.next(&[1; 32]).hash(), next.hash());
        assert_ne!(token.next(&[2; 32]).hash(), next.hash());
        assert_ne!(RefreshToken::draw().next(&[1; 32]).hash(), next.hash());
    }
}
