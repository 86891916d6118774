//! The `grpc-timeout` header: at most eight digits and a unit.

use std::time::Duration;

use http::HeaderValue;

/// Units from the finest, with their length in nanoseconds.
static UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3_600 * 1_000_000_000),
];
/// The most that eight digits can say.
const VALUE_MAX: u64 = 99_999_999;

/// Reads the header; `None` when it is not one.
pub(crate) fn decode_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let mut value = 0;
    for digit in digits.iter().map(|character| character.wrapping_sub(b'0')) {
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(match unit {
        b'n' => Duration::from_nanos(value),
        b'u' => Duration::from_micros(value),
        b'm' => Duration::from_millis(value),
        b'S' => Duration::from_secs(value),
        b'M' => Duration::from_secs(value * 60),
        b'H' => Duration::from_secs(value * 3_600),
        _ => return None,
    })
}

/// Writes the header: the finest unit that fits, rounded up, and at least one of it.
pub(crate) fn encode_timeout(left: Duration) -> HeaderValue {
    // Longer than 584 years is as good as that.
    let nanos = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX).max(1);
    let (unit, value) = UNITS
        .iter()
        .map(|(unit, nanos_per_unit)| (*unit, nanos.div_ceil(*nanos_per_unit)))
        .find(|(_, value)| *value <= VALUE_MAX)
        .unwrap_or((b'H', VALUE_MAX));

    let mut text = [0_u8; 9];
    let mut start = text.len() - 1;
    text[start] = unit;
    let mut rest = value;
    while rest > 0 {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    HeaderValue::from_bytes(&text[start..]).expect("digits and a letter are a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Option<Duration> {
        decode_timeout(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn headers_that_the_protocol_allows_are_read() {
        assert_eq!(decode("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(decode("2M"), Some(Duration::from_secs(120)));
        assert_eq!(decode("3S"), Some(Duration::from_secs(3)));
        assert_eq!(decode("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(decode("5u"), Some(Duration::from_micros(5)));
        assert_eq!(decode("0n"), Some(Duration::ZERO));
        assert_eq!(decode("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
    }

    #[test]
    fn anything_else_is_not_a_timeout() {
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789n", "1 S", "1SS"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_never_shorter() {
        for nanos in [0, 1, 99_999_999, 100_000_000, 123_456_789_012, u64::MAX] {
            let left = Duration::from_nanos(nanos);
            let read = decode_timeout(&encode_timeout(left)).unwrap();
            assert!(read >= left && read.as_secs_f64() <= left.as_secs_f64() * 1.000_02 + 1e-9, "{left:?} {read:?}");
        }
        assert_eq!(encode_timeout(Duration::MAX), "5124096H");
        assert_eq!(encode_timeout(Duration::from_millis(500)), "500000u");
    }
}
