//! The head of a call's requests: what the caller gave, and what each attempt makes of it.

use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};

use crate::context::{TRACEPARENT, TraceContext};
use crate::policy::{decode_timeout, encode_timeout};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("grpc-rust-meshwork/", env!("CARGO_PKG_VERSION")));
/// Headers of HTTP/1 connections, which HTTP/2 does not have (RFC 9113 section 8.2.2); h2 refuses a request with one.
const CONNECTION_LEVEL: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// What every attempt of one call sends, apart from its body.
#[derive(Debug)]
pub(crate) struct Head {
    method: Method,
    path: PathAndQuery,
    /// The caller's own header map: the first attempt takes it as it is, without a copy.
    fresh: Option<HeaderMap>,
    content_type: Option<HeaderValue>,
    /// The caller's other headers, for later attempts. Most calls have none, and an empty list costs nothing; names and
    /// values share their bytes.
    kept: Vec<(HeaderName, HeaderValue)>,
    timeout: Option<Duration>,
}

impl Head {
    /// Takes the caller's head apart. `trace` labels the call unless the caller labelled it already.
    pub(crate) fn new(parts: http::request::Parts, trace: Option<TraceContext>) -> Self {
        let mut headers = parts.headers;
        let timeout = headers.remove(GRPC_TIMEOUT).as_ref().and_then(decode_timeout);
        for connection_level in CONNECTION_LEVEL {
            headers.remove(connection_level);
        }
        headers.insert(TE, TRAILERS);
        headers.entry(USER_AGENT).or_insert(AGENT);
        if let Some(trace) = trace {
            headers.entry(TRACEPARENT).or_insert_with(|| trace.to_header());
        }
        let is_remade = |name: &HeaderName, value: &HeaderValue| {
            name == TE || name == CONTENT_TYPE || (name == USER_AGENT && *value == AGENT)
        };
        Self {
            method: parts.method,
            path: parts.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")),
            content_type: headers.get(CONTENT_TYPE).cloned(),
            kept: headers
                .iter()
                .filter(|(name, value)| !is_remade(name, value))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            fresh: Some(headers),
            timeout,
        }
    }

    /// The caller's `grpc-timeout`.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// "/package.Service/Method".
    pub(crate) fn method_path(&self) -> &str {
        self.path.path()
    }

    /// The head of the next attempt: addressed to the service by name, with what is `left` of the deadline.
    pub(crate) fn attempt(&mut self, authority: &Authority, left: Option<Duration>, retries: u32) -> Request<()> {
        let mut headers = self.fresh.take().unwrap_or_else(|| self.remake());
        if let Some(left) = left {
            headers.insert(GRPC_TIMEOUT, encode_timeout(left));
        }
        if retries > 0 {
            headers.insert(PREVIOUS_ATTEMPTS, retries.into());
        }
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(authority.clone());
        uri.path_and_query = Some(self.path.clone());

        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from_parts(uri).expect("scheme, authority and path make a URI");
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        request
    }

    fn remake(&self) -> HeaderMap {
        // Those of `is_remade`, the timeout and the count of attempts.
        let mut headers = HeaderMap::with_capacity(self.kept.len() + 5);
        headers.insert(TE, TRAILERS);
        if let Some(content_type) = &self.content_type {
            headers.insert(CONTENT_TYPE, content_type.clone());
        }
        for (name, value) in &self.kept {
            headers.append(name.clone(), value.clone());
        }
        headers.entry(USER_AGENT).or_insert(AGENT);
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(request: http::request::Builder) -> Head {
        Head::new(request.body(()).unwrap().into_parts().0, None)
    }

    fn authority() -> Authority {
        Authority::from_static("user-svc")
    }

    #[test]
    fn every_attempt_sends_what_the_first_one_sent() {
        let request = Request::post("http://ignored/shop.Users/Get")
            .header("content-type", "application/grpc")
            .header("x-tenant", "one")
            .header("x-tenant", "two")
            .header("grpc-timeout", "5S");
        let mut head = head(request);
        assert_eq!((head.method_path(), head.timeout()), ("/shop.Users/Get", Some(Duration::from_secs(5))));

        let first = head.attempt(&authority(), None, 0);
        let second = head.attempt(&authority(), None, 0);
        assert_eq!(first.headers(), second.headers());
        assert_eq!(first.uri(), "http://user-svc/shop.Users/Get");
        assert_eq!(second.headers().get_all("x-tenant").iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((&second.headers()[TE], &second.headers()[USER_AGENT]), (&TRAILERS, &AGENT));
        assert!(!second.headers().contains_key(GRPC_TIMEOUT));
    }

    #[test]
    fn an_attempt_says_what_is_left_and_how_many_went_before() {
        let mut head = head(Request::post("/a/b").header("grpc-timeout", "5S").header("user-agent", "mine"));
        head.attempt(&authority(), Some(Duration::from_secs(5)), 0);
        let second = head.attempt(&authority(), Some(Duration::from_millis(10)), 1);
        assert_eq!(second.headers()[GRPC_TIMEOUT], "10000000n");
        assert_eq!(second.headers()[PREVIOUS_ATTEMPTS], "1");
        assert_eq!(second.headers()[USER_AGENT], "mine");
    }

    #[test]
    fn headers_that_only_http_1_knows_are_left_out() {
        let http_1 = ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"];
        let request = http_1.iter().fold(Request::post("/a/b"), |request, name| request.header(*name, "close"));
        let mut head = head(request.header("te", "gzip"));
        for _attempt in 0..2 {
            let request = head.attempt(&authority(), None, 0);
            assert!(http_1.iter().all(|name| !request.headers().contains_key(*name)), "{:?}", request.headers());
            assert_eq!(request.headers()[TE], TRAILERS);
        }
    }
}
