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

/// What gRPC messages call themselves unless they say more.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What the caller asks for, read once.
pub(crate) struct Opening {
    /// What later attempts say.
    pub(crate) head: Head,
    /// The caller's `grpc-timeout`.
    pub(crate) timeout: Option<Duration>,
}

/// What every attempt of one call sends, apart from its body.
#[derive(Debug)]
pub(crate) struct Head {
    path: PathAndQuery,
    /// The caller's own headers, but for those that every call has. Most calls have none, and an empty list costs nothing;
    /// names and values share their bytes.
    kept: Vec<(HeaderName, HeaderValue)>,
    trace: Option<TraceContext>,
}

impl Opening {
    /// Takes the caller's head apart. `trace` labels the call unless the caller labelled it already. The caller's own map
    /// becomes what the first attempt says, where it is: without a copy.
    pub(crate) fn new(uri: Uri, headers: &mut HeaderMap, trace: Option<TraceContext>) -> Self {
        let path = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut head = Head { path, kept: Vec::new(), trace };
        let mut timeout = None;
        let (mut says_te, mut is_te_ours, mut says_grpc, mut says_agent, mut is_clean) =
            (false, true, false, false, true);
        // One look at each header, of which there are two or three: asking the map for each name of interest costs a hash
        // of it.
        for (name, value) in &*headers {
            match name.as_str() {
                "te" => {
                    // A second one is one too many, whatever it says.
                    is_te_ours &= !says_te && *value == TRAILERS;
                    says_te = true;
                }
                "content-type" => {
                    says_grpc = true;
                    if *value != GRPC {
                        head.keep(name, value);
                    }
                }
                "grpc-timeout" => {
                    timeout = decode_timeout(value);
                    is_clean &= timeout.is_some();
                }
                "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => is_clean = false,
                "user-agent" => {
                    says_agent = true;
                    head.keep(name, value);
                }
                "traceparent" => {
                    head.trace = None;
                    head.keep(name, value);
                }
                _ => head.keep(name, value),
            }
        }
        if !is_clean {
            clean(headers, timeout);
        }
        if !(says_te && is_te_ours) {
            headers.insert(TE, TRAILERS);
        }
        if !says_grpc {
            headers.insert(CONTENT_TYPE, GRPC);
        }
        if !says_agent {
            headers.insert(USER_AGENT, AGENT);
        }
        if let Some(trace) = head.trace {
            headers.insert(TRACEPARENT, trace.to_header());
        }
        Self { head, timeout }
    }
}

impl Head {
    fn keep(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.kept.push((name.clone(), value.clone()));
    }

    /// "/package.Service/Method".
    pub(crate) fn method_path(&self) -> &str {
        self.path.path()
    }

    /// The head of the first attempt, made at once. `left` of the deadline is the caller's own `timeout`, which stands in the
    /// headers, or less.
    pub(crate) fn first(
        &self,
        authority: &Authority,
        mut headers: HeaderMap,
        timeout: Option<Duration>,
        left: Option<Duration>,
    ) -> Request<()> {
        if left != timeout {
            left.map(|left| headers.insert(GRPC_TIMEOUT, encode_timeout(left)));
        }
        self.request(authority, headers)
    }

    /// The head of a later attempt: with what is `left` of the deadline, and after `previous` attempts that may have been
    /// processed.
    pub(crate) fn again(&self, authority: &Authority, left: Option<Duration>, previous: u32) -> Request<()> {
        // Those that every call has: te, content-type, user-agent, traceparent, the timeout and the count of attempts.
        let mut headers = HeaderMap::with_capacity(self.kept.len() + 6);
        headers.insert(TE, TRAILERS);
        for (name, value) in &self.kept {
            headers.append(name.clone(), value.clone());
        }
        headers.entry(CONTENT_TYPE).or_insert(GRPC);
        headers.entry(USER_AGENT).or_insert(AGENT);
        if let Some(trace) = self.trace {
            headers.insert(TRACEPARENT, trace.to_header());
        }
        if let Some(left) = left {
            headers.insert(GRPC_TIMEOUT, encode_timeout(left));
        }
        if previous > 0 {
            headers.insert(PREVIOUS_ATTEMPTS, previous.into());
        }
        self.request(authority, headers)
    }

    /// Addressed to the service by name. gRPC knows no other method than POST.
    fn request(&self, authority: &Authority, headers: HeaderMap) -> Request<()> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(authority.clone());
        uri.path_and_query = Some(self.path.clone());

        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_parts(uri).expect("scheme, authority and path make a URI");
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        request
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

    const FIVE: Option<Duration> = Some(Duration::from_secs(5));

    fn opening(request: http::request::Builder) -> (Opening, HeaderMap) {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        (Opening::new(parts.uri, &mut parts.headers, None), parts.headers)
    }

    fn authority() -> Authority {
        Authority::from_static("user-svc")
    }

    /// The first attempt of a call with nothing but its own deadline, and one after it.
    fn attempts((opening, headers): (Opening, HeaderMap)) -> [Request<()>; 2] {
        let Opening { head, timeout } = opening;
        [head.first(&authority(), headers, timeout, timeout), head.again(&authority(), timeout, 0)]
    }

    #[test]
    fn every_attempt_sends_what_the_first_one_sent() {
        let request = Request::post("http://ignored/shop.Users/Get")
            .header("content-type", "application/grpc")
            .header("x-tenant", "one")
            .header("x-tenant", "two")
            .header("grpc-timeout", "5S");
        let opening = opening(request);
        assert_eq!((opening.0.head.method_path(), opening.0.timeout), ("/shop.Users/Get", FIVE));

        let [mut first, second] = attempts(opening);
        assert_eq!(first.headers()[GRPC_TIMEOUT], "5S");
        assert_eq!(second.headers()[GRPC_TIMEOUT], "5000000u");
        first.headers_mut().insert(GRPC_TIMEOUT, HeaderValue::from_static("5000000u"));
        assert_eq!(first.headers(), second.headers());
        assert_eq!((first.uri(), first.method()), (second.uri(), second.method()));
        assert_eq!(first.uri(), "http://user-svc/shop.Users/Get");
        assert_eq!(second.headers().get_all("x-tenant").iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((&second.headers()[TE], &second.headers()[USER_AGENT]), (&TRAILERS, &AGENT));
    }

    #[test]
    fn an_attempt_says_what_is_left_and_how_many_went_before() {
        let (Opening { head, timeout }, headers) =
            opening(Request::post("/a/b").header("grpc-timeout", "5S").header("user-agent", "mine"));
        let first = head.first(&authority(), headers, timeout, Some(Duration::from_secs(1)));
        assert_eq!(first.headers()[GRPC_TIMEOUT], "1000000u", "somebody waits no longer than that");
        let second = head.again(&authority(), Some(Duration::from_millis(10)), 1);
        assert_eq!(second.headers()[GRPC_TIMEOUT], "10000000n");
        assert_eq!(second.headers()[PREVIOUS_ATTEMPTS], "1");
        assert_eq!(second.headers()[USER_AGENT], "mine");
    }

    #[test]
    fn what_messages_are_written_in_is_said_each_time() {
        for (given, said) in [(None, "application/grpc"), (Some("application/grpc+json"), "application/grpc+json")] {
            let request = Request::post("/a/b");
            let request = given.into_iter().fold(request, |request, given| request.header("content-type", given));
            assert!(attempts(opening(request)).iter().all(|attempt| attempt.headers()[CONTENT_TYPE] == said));
        }
    }

    #[test]
    fn a_timeout_that_is_none_is_not_sent() {
        let opening = opening(Request::post("/a/b").header("grpc-timeout", "soon"));
        assert_eq!(opening.0.timeout, None);
        assert!(attempts(opening).iter().all(|attempt| !attempt.headers().contains_key(GRPC_TIMEOUT)));
    }

    #[test]
    fn there_is_one_word_on_te_whatever_the_caller_says() {
        for given in [&["gzip", "trailers"][..], &["trailers", "gzip"], &["trailers", "trailers"], &["gzip"], &[]] {
            let request = given.iter().fold(Request::post("/a/b"), |request, te| request.header("te", *te));
            for attempt in attempts(opening(request)) {
                assert_eq!(attempt.headers().get_all(TE).iter().collect::<Vec<_>>(), ["trailers"], "{given:?}");
            }
        }
    }

    #[test]
    fn headers_that_only_http_1_knows_are_left_out() {
        let http_1 = ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"];
        let request = http_1.iter().fold(Request::post("/a/b"), |request, name| request.header(*name, "close"));
        for attempt in attempts(opening(request.header("te", "gzip"))) {
            assert!(http_1.iter().all(|name| !attempt.headers().contains_key(*name)), "{:?}", attempt.headers());
            assert_eq!(attempt.headers()[TE], TRAILERS);
        }
    }
}
