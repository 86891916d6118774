//! Which pages of other origins may call from a browser: none, unless they are named.

use std::time::Duration;

use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use tower_http::cors::CorsLayer;

use super::request_id::X_REQUEST_ID;
use super::timeout::REQUEST_TIMEOUT;

/// How long a browser may remember what it was allowed.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// An origin that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin: scheme://host or scheme://host:port, in lower case and without a path, is one")]
pub struct BadOrigin(String);

/// Reads one origin, as a browser writes it.
pub fn origin(text: &str) -> Result<HeaderValue, BadOrigin> {
    let bad = || BadOrigin(text.to_owned());
    let (scheme, authority) = text.split_once("://").ok_or_else(bad)?;
    let parsed: http::uri::Authority = authority.parse().map_err(|_| bad())?;
    let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if !matches!(scheme, "http" | "https") || !lower || authority.contains('@') || parsed.host().is_empty() {
        return Err(bad());
    }
    HeaderValue::from_str(text).map_err(|_| bad())
}

/// What these origins may do. Tokens travel in a header and no cookie is read, so no credentials are allowed.
pub(super) fn layer(origins: &[HeaderValue]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let names = HeaderName::from_static;
    let layer = CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            ACCEPT,
            CONTENT_TYPE,
            X_REQUEST_ID,
            REQUEST_TIMEOUT,
            names("traceparent"),
            names("tracestate"),
            names("x-grpc-web"),
            names("x-user-agent"),
            names("grpc-timeout"),
        ])
        .expose_headers([
            X_REQUEST_ID,
            RETRY_AFTER,
            names("grpc-status"),
            names("grpc-message"),
            names("grpc-status-details-bin"),
        ])
        .max_age(MAX_AGE);
    Some(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_would_send() {
        for good in ["https://shop.example", "http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:80"] {
            assert_eq!(origin(good).unwrap(), good);
        }
        for bad in [
            "*",
            "null",
            "shop.example",
            "https://",
            "https://shop.example/",
            "https://Shop.example",
            "ftp://a",
            "https://u@a",
            "https://a b",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
