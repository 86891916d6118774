//! The name of a request, by which a client's report is found in the log.

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_runtime::entropy;

/// Where it stands, on the way in, out and on to the service.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest that a client may give, in bytes: two UUIDs.
const BYTES_MAX: usize = 72;

/// The client's own, where it has one of letters, digits and `._:-` that fits; else a new one.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    match headers.get(X_REQUEST_ID) {
        Some(given) if is_sane(given.as_bytes()) => given.clone(),
        _ => HeaderValue::from_str(&entropy::uuid_v7().to_string()).expect("a UUID is a header value"),
    }
}

/// What no log and no shell reads as anything else than a name.
fn is_sane(id: &[u8]) -> bool {
    (1..=BYTES_MAX).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(id: &[u8]) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(id).unwrap());
        of(&headers)
    }

    #[test]
    fn a_sane_name_stays_and_any_other_is_replaced() {
        for sane in ["a", "0192f7c1-7a3e-7b0a-9d54-2f1f3c9e8b11", "job:7_x.9", &"x".repeat(72)] {
            assert_eq!(given(sane.as_bytes()), sane);
        }
        for other in ["", "a b", "a\tb", "<script>", "a\"b", &"x".repeat(73), "caf\u{e9}"] {
            let made = given(other.as_bytes());
            assert_eq!(made.len(), 36, "{other:?} became {made:?}");
        }
        assert_ne!(of(&HeaderMap::new()), of(&HeaderMap::new()));
    }
}
