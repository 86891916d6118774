//! How long a client waits: `Request-Timeout`, in seconds.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// A number of seconds, with up to three decimals: `request-timeout: 2.5`.
pub(super) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");

/// The shortest that can be asked for; less is a mistake, and would fail always.
const MIN: Duration = Duration::from_millis(1);

/// The header is there and says nothing that can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// What the client asks for, if it does.
pub(super) fn asked(headers: &HeaderMap, max: Duration) -> Result<Option<Duration>, Malformed> {
    let mut values = headers.get_all(REQUEST_TIMEOUT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match seconds(value) {
            Some(asked) if (MIN..=max).contains(&asked) => Ok(Some(asked)),
            _ => Err(Malformed),
        },
        _ => Err(Malformed),
    }
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, max| (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, 6) || !digits(part, 3) {
        return None;
    }
    Some(Duration::from_secs(whole.parse().ok()?) + Duration::from_millis(format!("{part:0<3}").parse().ok()?))
}

/// What a gRPC client asks for in `grpc-timeout`, `max` at the most: up to eight digits and a unit.
pub(super) fn asked_by_grpc(headers: &HeaderMap, max: Duration) -> Result<Option<Duration>, Malformed> {
    let mut values = headers.get_all("grpc-timeout").iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => grpc(value).map(|asked| Some(asked.min(max))).ok_or(Malformed),
        _ => Err(Malformed),
    }
}

fn grpc(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// As gRPC writes it.
pub(super) fn grpc_timeout(timeout: Duration) -> HeaderValue {
    // Milliseconds in eight digits are more than a day.
    let ms = timeout.as_millis().clamp(1, 99_999_999);
    HeaderValue::from_str(&format!("{ms}m")).expect("digits and a letter are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<Duration>, Malformed> {
        let headers = [(REQUEST_TIMEOUT, HeaderValue::from_str(value).unwrap())].into_iter().collect();
        asked(&headers, Duration::from_secs(60))
    }

    #[test]
    fn seconds_with_decimals_within_bounds_are_a_timeout() {
        assert_eq!(asked(&HeaderMap::new(), Duration::MAX), Ok(None));
        assert_eq!(read("2"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(read("2.5"), Ok(Some(Duration::from_millis(2_500))));
        assert_eq!(read("0.001"), Ok(Some(Duration::from_millis(1))));
        assert_eq!(read("60"), Ok(Some(Duration::from_secs(60))));
        for wrong in ["", "0", "60.001", "-1", "+1", "1s", "1e3", "0x1", ".5", "1.", "1.0001", "9999999", "inf", " 1"] {
            assert_eq!(read(wrong), Err(Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn grpc_says_eight_digits_and_a_unit() {
        let read = |value: &str| {
            let headers = [(HeaderName::from_static("grpc-timeout"), HeaderValue::from_str(value).unwrap())];
            asked_by_grpc(&headers.into_iter().collect(), Duration::from_secs(60))
        };
        for (text, ms) in
            [("5S", 5_000), ("1M", 60_000), ("99999999H", 60_000), ("7m", 7), ("2000u", 2), ("3000000n", 3)]
        {
            assert_eq!(read(text), Ok(Some(Duration::from_millis(ms))), "{text}");
        }
        for wrong in ["", "S", "5", "5s", "-5S", "+5S", "5 S", "123456789n", "1.5S", "x"] {
            assert_eq!(read(wrong), Err(Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn it_is_passed_on_in_milliseconds() {
        assert_eq!(grpc_timeout(Duration::from_millis(1_500)), "1500m");
        assert_eq!(grpc_timeout(Duration::from_micros(1)), "1m");
        assert_eq!(grpc_timeout(Duration::MAX), "99999999m");
    }
}
