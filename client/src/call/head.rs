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
    trace: Option<TraceContext>,
    timeout: Option<Duration>,
}

impl Head {
    /// Takes the caller's head apart. `trace` labels the call unless the caller labelled it already.
    pub(crate) fn new(method: Method, uri: Uri, mut headers: HeaderMap, trace: Option<TraceContext>) -> Self {
        let mut head = Self {
            method,
            path: uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")),
            fresh: None,
            content_type: None,
            kept: Vec::new(),
            trace,
            timeout: None,
        };
        let (mut says_te, mut says_agent, mut is_clean) = (false, false, true);
        // One look at each header, of which there are two or three: asking the map for each name of interest costs a hash
        // of it.
        for (name, value) in &headers {
            match name.as_str() {
                "te" => says_te = *value == TRAILERS,
                "content-type" => head.content_type = Some(value.clone()),
                "grpc-timeout" => {
                    head.timeout = decode_timeout(value);
                    is_clean &= head.timeout.is_some();
                }
                "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => is_clean = false,
                other => {
                    says_agent |= other == "user-agent";
                    if other == "traceparent" {
                        head.trace = None;
                    }
                    head.kept.push((name.clone(), value.clone()));
                }
            }
        }
        if !is_clean {
            clean(&mut headers, head.timeout);
        }
        if !says_te {
            headers.insert(TE, TRAILERS);
        }
        if !says_agent {
            headers.insert(USER_AGENT, AGENT);
        }
        if let Some(trace) = head.trace {
            headers.insert(TRACEPARENT, trace.to_header());
        }
        head.fresh = Some(headers);
        head
    }

    /// The caller's `grpc-timeout`.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// "/package.Service/Method".
    pub(crate) fn method_path(&self) -> &str {
        self.path.path()
    }

    /// The head of the next attempt: addressed to the service by name, with what is `left` of the deadline, and after
    /// `previous` attempts that may have been processed.
    pub(crate) fn attempt(&mut self, authority: &Authority, left: Option<Duration>, previous: u32) -> Request<()> {
        // What the caller wrote holds for an attempt that is made at once.
        let (mut headers, written) = match self.fresh.take() {
            Some(headers) => (headers, self.timeout),
            None => (self.remake(), None),
        };
        match left {
            Some(left) if Some(left) != written => drop(headers.insert(GRPC_TIMEOUT, encode_timeout(left))),
            _ => {}
        }
        if previous > 0 {
            headers.insert(PREVIOUS_ATTEMPTS, previous.into());
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
        // The content type, and those that every attempt adds: te, user-agent, traceparent, the timeout and the count.
        let mut headers = HeaderMap::with_capacity(self.kept.len() + 6);
        headers.insert(TE, TRAILERS);
        if let Some(content_type) = &self.content_type {
            headers.insert(CONTENT_TYPE, content_type.clone());
        }
        for (name, value) in &self.kept {
            headers.append(name.clone(), value.clone());
        }
        headers.entry(USER_AGENT).or_insert(AGENT);
        if let Some(trace) = self.trace {
            headers.insert(TRACEPARENT, trace.to_header());
        }
        headers
    }
}

/// Takes out what may not be sent, and a timeout that is none.
#[cold]
fn clean(headers: &mut HeaderMap, timeout: Option<Duration>) {
    for name in CONNECTION_LEVEL {
        headers.remove(name);
    }
    if timeout.is_none() {
        headers.remove(GRPC_TIMEOUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(request: http::request::Builder) -> Head {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Head::new(parts.method, parts.uri, parts.headers, None)
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

        let first = head.attempt(&authority(), Some(Duration::from_secs(5)), 0);
        let mut second = head.attempt(&authority(), Some(Duration::from_secs(5)), 0);
        assert_eq!(
            (&first.headers()[GRPC_TIMEOUT], &second.headers()[GRPC_TIMEOUT]),
            (&"5S".parse().unwrap(), &"5000000u".parse().unwrap())
        );
        second.headers_mut().insert(GRPC_TIMEOUT, HeaderValue::from_static("5S"));
        assert_eq!(first.headers(), second.headers());
        assert_eq!(first.uri(), "http://user-svc/shop.Users/Get");
        assert_eq!(second.headers().get_all("x-tenant").iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((&second.headers()[TE], &second.headers()[USER_AGENT]), (&TRAILERS, &AGENT));
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
    fn a_timeout_that_is_none_is_not_sent() {
        let mut head = head(Request::post("/a/b").header("grpc-timeout", "soon"));
        assert_eq!(head.timeout(), None);
        assert!(!head.attempt(&authority(), None, 0).headers().contains_key(GRPC_TIMEOUT));
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
