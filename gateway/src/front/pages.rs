//! What the gateway says of itself: `/openapi.json`, and a page to read at `/docs` (and at `/`, while no service has that).
//!
//! Both are made once for each table that is published, and are the same bytes until the next one.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::answer::Body;
use super::html;
use crate::published::Published;

/// Paths that are the gateway's own: a service's route there is never reached.
pub const RESERVED: [&str; 3] = ["/openapi.json", "/docs", "/docs/style.css"];
/// Where the page is shown as well, while no service has this path.
const HOME: &str = "/";

/// Scripts, frames and whatever comes from elsewhere: nothing of it. The page is text and one style sheet of its own.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The pages of what is published now.
#[derive(Default)]
pub(super) struct Pages(ArcSwapOption<Rendered>);

struct Rendered {
    of: Weak<Published>,
    openapi: Page,
    docs: Page,
}

/// One page.
struct Page {
    content_type: &'static str,
    body: Bytes,
    etag: HeaderValue,
}

/// Which page, if any, stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    OpenApi,
    Docs,
    Style,
}

impl Which {
    /// The page of a reserved path.
    pub(super) fn reserved(path: &str) -> Option<Self> {
        match path {
            "/openapi.json" => Some(Self::OpenApi),
            "/docs" => Some(Self::Docs),
            "/docs/style.css" => Some(Self::Style),
            _ => None,
        }
    }

    /// The page of a path that no service has.
    pub(super) fn unclaimed(path: &str) -> Option<Self> {
        (path == HOME).then_some(Self::Docs)
    }

    /// As metrics and logs call it.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
            Self::Style => "/docs/style.css",
        }
    }
}

/// The methods of every page.
pub(super) const METHODS: [Method; 3] = [Method::GET, Method::HEAD, Method::OPTIONS];

impl Pages {
    /// One page of what is published.
    pub(super) fn answer(&self, which: Which, published: &Arc<Published>, headers: &HeaderMap) -> Response<Body> {
        if which == Which::Style {
            return Page::new("text/css; charset=utf-8", Bytes::from_static(html::STYLE.as_bytes())).answer(headers);
        }
        let rendered = match self.0.load_full() {
            Some(rendered) if std::ptr::eq(rendered.of.as_ptr(), Arc::as_ptr(published)) => rendered,
            _ => {
                let rendered = Arc::new(Rendered::new(published));
                self.0.store(Some(Arc::clone(&rendered)));
                rendered
            }
        };
        match which {
            Which::OpenApi => rendered.openapi.answer(headers),
            Which::Docs | Which::Style => rendered.docs.answer(headers),
        }
    }
}

impl Rendered {
    fn new(published: &Arc<Published>) -> Self {
        let document = published.table.openapi();
        Self {
            of: Arc::downgrade(published),
            openapi: Page::new("application/json", Bytes::from(document.to_string())),
            docs: Page::new("text/html; charset=utf-8", Bytes::from(html::page(&document))),
        }
    }
}

impl Page {
    fn new(content_type: &'static str, body: Bytes) -> Self {
        // Not a secret, and not against anybody: it tells one version from the next.
        let mut hasher = DefaultHasher::new();
        hasher.write(&body);
        let etag = HeaderValue::from_str(&format!("\"{:016x}\"", hasher.finish()))
            .expect("hexadecimal digits are a header value");
        Self { content_type, body, etag }
    }

    fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        let is_known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok()).any(|tags| {
            tags.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == "*" || *tag == self.etag)
        });
        let mut response = Response::new(if is_known { Body::default() } else { Body::whole(self.body.clone()) });
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let said: [(HeaderName, HeaderValue); 4] = [
            (ETAG, self.etag.clone()),
            (CONTENT_TYPE, HeaderValue::from_static(self.content_type)),
            // Asked for again each time, and then mostly answered by 304.
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        ];
        response.headers_mut().extend(said);
        response
    }
}

/// The answer to OPTIONS.
pub(super) fn options(methods: &[Method]) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, super::fault::allow(methods));
    response
}
