//! `grpc-timeout`: how long the caller will wait.

use std::time::Duration;

use http::HeaderMap;

/// The header's name.
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The header is there and is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// How long the caller will wait, if it says so: one to eight digits and a unit, as the gRPC protocol has it.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    let (unit, digits) = value.as_bytes().split_last().ok_or(Malformed)?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    let timeout = match unit {
        b'H' => Duration::from_secs(number * 60 * 60),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(Malformed),
    };
    Ok(Some(timeout))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(value: &str) -> Result<Option<Duration>, Malformed> {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_str(value).unwrap());
        of(&headers)
    }

    #[test]
    fn every_unit_of_the_protocol_is_understood() {
        assert_eq!(of(&HeaderMap::new()), Ok(None));
        assert_eq!(read("2H"), Ok(Some(Duration::from_secs(7200))));
        assert_eq!(read("3M"), Ok(Some(Duration::from_secs(180))));
        assert_eq!(read("1S"), Ok(Some(Duration::from_secs(1))));
        assert_eq!(read("250m"), Ok(Some(Duration::from_millis(250))));
        assert_eq!(read("7u"), Ok(Some(Duration::from_micros(7))));
        assert_eq!(read("99999999n"), Ok(Some(Duration::from_nanos(99_999_999))));
        assert_eq!(read("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3600))));
    }

    #[test]
    fn what_the_protocol_does_not_allow_is_no_timeout() {
        for wrong in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", " 1S", "1 S", "1SS"] {
            assert_eq!(read(wrong), Err(Malformed), "{wrong:?}");
        }
    }
}
