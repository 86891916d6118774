//! What bodies are written in: JSON in, and out what the client takes.

use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

/// What a request's head says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// `application/json`, in UTF-8.
    Json,
    /// Something else, or something on top.
    Other,
    /// Nothing.
    Nothing,
}

/// Reads `Content-Type` and `Content-Encoding`.
pub(super) fn said(headers: &HeaderMap) -> Said {
    let encoded =
        headers.get_all(CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        _ if encoded => Said::Other,
        (None, _) => Said::Nothing,
        (Some(only), None) if only.to_str().is_ok_and(is_json) => Said::Json,
        _ => Said::Other,
    }
}

/// `application/json`, with no other charset than UTF-8. Parameters that JSON does not have are passed over (RFC 8259 §11).
fn is_json(media_type: &str) -> bool {
    let mut parts = media_type.split(';').map(str::trim);
    parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json"))
        && parts.all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
            }
            _ => true,
        })
}

/// What an answer is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON value.
    Json,
    /// A JSON value a line.
    Lines,
    /// Server-sent events.
    Events,
}

impl Format {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        }
    }
}

/// How an answer of one value is written; `None` where the client takes no JSON.
pub(super) fn one(headers: &HeaderMap) -> Option<Format> {
    (quality(headers, "application", "json").weight > 0).then_some(Format::Json)
}

/// How a stream is written: as events for whoever asks for them by name, else as lines, also for whoever asks for JSON.
pub(super) fn stream(headers: &HeaderMap) -> Option<Format> {
    let events = quality(headers, "text", "event-stream");
    let lines = quality(headers, "application", "x-ndjson").weight.max(quality(headers, "application", "json").weight);
    match (events.is_named && events.weight > 0 && events.weight >= lines, lines > 0) {
        (true, _) => Some(Format::Events),
        (false, true) => Some(Format::Lines),
        (false, false) if events.weight > 0 => Some(Format::Events),
        (false, false) => None,
    }
}

/// How gladly something is taken.
#[derive(Debug, Clone, Copy)]
struct Quality {
    /// From 0 to 1000.
    weight: u16,
    /// By its own name.
    is_named: bool,
}

/// The weight of the most specific range of `Accept` that fits (RFC 9110 §12.5.1).
fn quality(headers: &HeaderMap, kind: &str, subtype: &str) -> Quality {
    let mut best = (0, 0);
    let mut any = false;
    let ranges =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    for range in ranges.map(str::trim).filter(|range| !range.is_empty()) {
        any = true;
        let mut parts = range.split(';').map(str::trim);
        let Some((a, b)) = parts.next().and_then(|name| name.split_once('/')) else { continue };
        let fit = match (a.eq_ignore_ascii_case(kind), b.eq_ignore_ascii_case(subtype)) {
            (true, true) => 3,
            (true, false) if b == "*" => 2,
            _ if a == "*" && b == "*" => 1,
            _ => continue,
        };
        let weight =
            parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        best = best.max((fit, weight.map_or(1_000, |(_, text)| thousandths(text.trim()))));
    }
    if any { Quality { weight: best.1, is_named: best.0 == 3 } } else { Quality { weight: 1_000, is_named: false } }
}

/// `0`, `0.5`, `1.000`; what is no weight is 1, as if it were not there.
fn thousandths(text: &str) -> u16 {
    match text.parse::<f32>() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1")]
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1_000.0).round() as u16,
        _ => 1_000,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn json_is_told_from_everything_else() {
        for json in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
        ] {
            assert_eq!(said(&headers(CONTENT_TYPE, &[json])), Said::Json, "{json}");
        }
        for other in [
            "text/plain",
            "application/json; charset=latin1",
            "application/jsonx",
            "",
            "application/x-www-form-urlencoded",
        ] {
            assert_eq!(said(&headers(CONTENT_TYPE, &[other])), Said::Other, "{other}");
        }
        assert_eq!(said(&headers(CONTENT_TYPE, &["application/json", "text/plain"])), Said::Other);
        assert_eq!(said(&HeaderMap::new()), Said::Nothing);
        let mut zipped = headers(CONTENT_TYPE, &["application/json"]);
        zipped.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(said(&zipped), Said::Other);
    }

    #[test]
    fn the_most_specific_word_on_json_counts() {
        for (accept, taken) in [
            (&[][..], true),
            (&["*/*"], true),
            (&["text/html", "application/json"], true),
            (&["text/html, */*;q=0.1"], true),
            (&["application/*"], true),
            (&["text/html"], false),
            (&["application/json;q=0, */*"], false),
            (&["*/*;q=0"], false),
            (&["application/json; q=0.000"], false),
            (&["application/json; q=nonsense"], true),
        ] {
            assert_eq!(one(&headers(ACCEPT, accept)).is_some(), taken, "{accept:?}");
        }
    }

    #[test]
    fn events_are_for_those_who_ask_for_them_by_name() {
        for (accept, format) in [
            (&[][..], Some(Format::Lines)),
            (&["*/*"], Some(Format::Lines)),
            (&["application/json"], Some(Format::Lines)),
            (&["text/event-stream"], Some(Format::Events)),
            (&["text/event-stream, */*"], Some(Format::Events)),
            (&["application/x-ndjson, text/event-stream;q=0.5"], Some(Format::Lines)),
            (&["text/*"], Some(Format::Events)),
            (&["image/png"], None),
        ] {
            assert_eq!(stream(&headers(ACCEPT, accept)), format, "{accept:?}");
        }
    }
}
