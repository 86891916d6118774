//! What of a peer's words is handed on.

use http::{HeaderMap, HeaderName};
use tonic::metadata::MetadataMap;

/// An error is told in so many bytes at most.
const WORDS_BYTES_MAX: usize = 256;

const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Leaves out a status's details that are no base64: tonic reads a status by panicking at them, in whatever task of the caller
/// looks, and any server could have it so.
pub(super) fn leave_out_unreadable(headers: &mut HeaderMap) {
    // Nearly every answer has two or three fields, which are looked through faster than the name is hashed.
    if headers.keys().any(|name| *name == DETAILS) {
        *headers = without_unreadable(std::mem::take(headers));
    }
}

fn without_unreadable(headers: HeaderMap) -> HeaderMap {
    let mut metadata = MetadataMap::from_headers(headers);
    if metadata.get_bin(DETAILS.as_str()).is_none_or(|details| details.to_bytes().is_err()) {
        metadata.remove_bin(DETAILS.as_str());
    }
    metadata.into_headers()
}

/// An error in words. A GOAWAY carries up to 16 KiB of the peer's own, which would go into every call's status and every log.
pub(super) fn in_words(error: &h2::Error) -> String {
    let mut words = error.to_string();
    if words.len() > WORDS_BYTES_MAX {
        words.truncate(words.floor_char_boundary(WORDS_BYTES_MAX));
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tonic::{Code, Status};

    use super::*;

    fn readable(mut headers: HeaderMap) -> HeaderMap {
        leave_out_unreadable(&mut headers);
        headers
    }

    fn trailers(details: &'static [u8]) -> HeaderMap {
        HeaderMap::from_iter([
            (HeaderName::from_static("grpc-status"), HeaderValue::from_static("5")),
            (DETAILS, HeaderValue::from_bytes(details).unwrap()),
        ])
    }

    #[test]
    fn details_that_are_no_base64_are_left_out_and_the_status_stays() {
        for details in [&b"!"[..], b"a", b"%zz", b"\xff\xfe", b"CAES A==", b"AAAB,AAAB", b"-_-_"] {
            let status = Status::from_header_map(&readable(trailers(details))).unwrap();
            assert_eq!((status.code(), status.details()), (Code::NotFound, &b""[..]), "{details:?}");
        }
        for details in [&b""[..], b"aGk=", b"aGk"] {
            let status = Status::from_header_map(&readable(trailers(details))).unwrap();
            assert_eq!(status.details(), if details.is_empty() { &b""[..] } else { b"hi" });
        }
    }

    #[test]
    fn other_fields_are_left_alone() {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("trace-bin"), HeaderValue::from_static("!"))]);
        assert_eq!(readable(headers.clone()), headers);
    }
}
