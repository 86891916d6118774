//! The text forms of timestamps, durations and field masks.

use prost_types::{Duration, Timestamp};

/// From 0001-01-01 to the end of 9999, in seconds since 1970.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Ten thousand years, in seconds.
const DURATION_SECONDS_MAX: u64 = 315_576_000_000;
const NANOS_MAX: u32 = 999_999_999;

/// RFC 3339 with an offset or `Z`, capital letters, at most nine digits of a second.
pub(super) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let (date, rest) = bytes.split_at_checked(19)?;
    let digits = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    let shaped = date.iter().enumerate().all(|(index, byte)| match index {
        4 | 7 => *byte == b'-',
        10 => *byte == b'T',
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let offset = match rest {
        [b'.', fraction @ ..] => {
            let end = fraction.iter().position(|byte| !byte.is_ascii_digit())?;
            if !(1..=9).contains(&end) {
                return None;
            }
            &fraction[end..]
        }
        rest => rest,
    };
    let offset_is_sound = match offset {
        [b'Z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            digits(&[*h1, *h2, *m1, *m2]) && (*h1, *h2) <= (b'2', b'3') && *m1 <= b'5'
        }
        _ => false,
    };
    if !shaped || !offset_is_sound {
        return None;
    }
    text.parse().ok().filter(|timestamp: &Timestamp| TIMESTAMP_SECONDS.contains(&timestamp.seconds))
}

pub(super) fn timestamp_text(timestamp: Timestamp) -> Option<String> {
    let sound = TIMESTAMP_SECONDS.contains(&timestamp.seconds) && u32::try_from(timestamp.nanos).ok()? <= NANOS_MAX;
    sound.then(|| timestamp.to_string())
}

/// Seconds with at most nine decimals and an `s`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.strip_suffix('s')?;
    let number = number.strip_prefix('-').unwrap_or(number);
    let sound = match number.split_once('.') {
        Some((whole, decimals)) => digits(whole) && digits(decimals) && decimals.len() <= 9,
        None => digits(number),
    };
    if !sound {
        return None;
    }
    text.parse().ok().filter(|duration: &Duration| in_range(*duration))
}

pub(super) fn duration_text(duration: Duration) -> Option<String> {
    in_range(duration).then(|| duration.to_string())
}

fn in_range(duration: Duration) -> bool {
    let seconds = duration.seconds.unsigned_abs();
    let nanos = duration.nanos.unsigned_abs();
    nanos <= NANOS_MAX && (seconds < DURATION_SECONDS_MAX || seconds == DURATION_SECONDS_MAX && nanos == 0)
}

/// Field paths of a mask in JSON, `a.bC,d`, as they are in the message: `a.b_c`, `d`.
pub(super) fn parse_mask(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let path = |path: &str| {
        let mut snake = String::with_capacity(path.len() + 4);
        for part in path.chars() {
            match part {
                'a'..='z' | '0'..='9' | '.' => snake.push(part),
                'A'..='Z' => snake.extend(['_', part.to_ascii_lowercase()]),
                _ => return None,
            }
        }
        (!path.is_empty()).then_some(snake)
    };
    text.split(',').map(path).collect()
}

/// The other way. What has no such form (`a_1`) stays as it is, rather than failing an answer.
pub(super) fn push_mask_path(path: &str, text: &mut String) {
    let mut after_underscore = false;
    for part in path.chars() {
        match part {
            '_' if !after_underscore => after_underscore = true,
            'a'..='z' if after_underscore => {
                text.push(part.to_ascii_uppercase());
                after_underscore = false;
            }
            _ => {
                if after_underscore {
                    text.push('_');
                }
                after_underscore = false;
                text.push(part);
            }
        }
    }
    if after_underscore {
        text.push('_');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339_and_nothing_else() {
        for (text, canonical) in [
            ("2026-11-20T21:05:00Z", "2026-11-20T21:05:00Z"),
            ("2026-11-20T21:05:00.5+01:30", "2026-11-20T19:35:00.500Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
            ("1969-12-31T23:59:59.000001Z", "1969-12-31T23:59:59.000001Z"),
        ] {
            assert_eq!(parse_timestamp(text).and_then(timestamp_text).as_deref(), Some(canonical), "{text}");
        }
        for text in [
            "",
            "2026-11-20",
            "2026-11-20 21:05:00Z",
            "2026-11-20t21:05:00Z",
            "2026-11-20T21:05:00z",
            "2026-11-20T21:05:00",
            "2026-02-30T00:00:00Z",
            "2026-11-20T25:00:00Z",
            "2026-11-20T21:05:00.Z",
            "2026-11-20T21:05:00.1234567890Z",
            "2026-11-20T21:05:00+24:00",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "2026-11-20T21:05:00Zx",
            "é026-11-20T21:05:00Z",
            "2026-11-20T21:05:0é",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
        assert_eq!(timestamp_text(Timestamp { seconds: i64::MAX, nanos: 0 }), None);
        assert_eq!(timestamp_text(Timestamp { seconds: 0, nanos: -1 }), None);
    }

    #[test]
    fn a_duration_is_seconds() {
        for (text, canonical) in
            [("1s", "1s"), ("-0.5s", "-0.500s"), ("315576000000s", "315576000000s"), ("0.000000001s", "0.000000001s")]
        {
            assert_eq!(parse_duration(text).and_then(duration_text).as_deref(), Some(canonical), "{text}");
        }
        for text in
            ["", "1", "s", "1.s", ".5s", "+1s", "1m", "--1s", "1.0000000000s", "315576000001s", "99999999999999999999s"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_mask_is_camel_case_outside_and_snake_case_inside() {
        assert_eq!(parse_mask("displayName,a.bC"), Some(vec!["display_name".into(), "a.b_c".into()]));
        assert_eq!(parse_mask(""), Some(Vec::new()));
        for text in ["display_name", "a,,b", ",", "a b", "a*"] {
            assert_eq!(parse_mask(text), None, "{text}");
        }
        let text = |path| {
            let mut text = String::new();
            push_mask_path(path, &mut text);
            text
        };
        assert_eq!(text("display_name.b_c"), "displayName.bC");
        assert_eq!(text("a_1._b__c_"), "a_1.B__c_"); // no such form, but nothing is lost
    }
}
