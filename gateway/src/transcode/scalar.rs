//! One value that is not a message: from what JSON, a path or a query say, to its bytes. A fault is the text for the caller: what is
//! wrong and what is allowed.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::encode_varint;

use super::shape::{Kind, Shapes};

/// A value as it came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Literal<'a> {
    Bool(bool),
    Int(i128),
    Float(f64),
    /// A JSON string.
    Str(&'a str),
    /// A path segment or query parameter: where everything is text, so are `true` and an enum's number.
    Text(&'a str),
}

/// Characters of a refused value that an error repeats.
const SHOWN_MAX: usize = 64;
/// Names of an enum that an error lists.
const NAMES_MAX: usize = 16;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Appends the value without a tag; a string with its length.
pub(super) fn put(shapes: &Shapes, kind: Kind, literal: Literal<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    match kind {
        Kind::Double => out.extend(float(literal)?.to_le_bytes()),
        Kind::Float => {
            let wide = float(literal)?;
            #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is what a float field means")]
            let narrow = wide as f32;
            if narrow.is_infinite() && wide.is_finite() {
                return Err(wrong(literal, "a number that fits a 32-bit float"));
            }
            out.extend(narrow.to_le_bytes());
        }
        Kind::Int32 => encode_varint(i64::from(int::<i32>(literal, "-2147483648 to 2147483647")?).cast_unsigned(), out),
        Kind::Int64 => encode_varint(int::<i64>(literal, INT64)?.cast_unsigned(), out),
        Kind::Uint32 => encode_varint(int::<u32>(literal, "0 to 4294967295")?.into(), out),
        Kind::Uint64 => encode_varint(int::<u64>(literal, UINT64)?, out),
        Kind::Sint32 => {
            let value = int::<i32>(literal, "-2147483648 to 2147483647")?;
            encode_varint(((value << 1) ^ (value >> 31)).cast_unsigned().into(), out);
        }
        Kind::Sint64 => {
            let value = int::<i64>(literal, INT64)?;
            encode_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
        }
        Kind::Fixed32 => out.extend(int::<u32>(literal, "0 to 4294967295")?.to_le_bytes()),
        Kind::Fixed64 => out.extend(int::<u64>(literal, UINT64)?.to_le_bytes()),
        Kind::Sfixed32 => out.extend(int::<i32>(literal, "-2147483648 to 2147483647")?.to_le_bytes()),
        Kind::Sfixed64 => out.extend(int::<i64>(literal, INT64)?.to_le_bytes()),
        Kind::Bool => match literal {
            Literal::Bool(value) => out.push(value.into()),
            Literal::Text("true") => out.push(1),
            Literal::Text("false") => out.push(0),
            other => return Err(wrong(other, "true or false")),
        },
        Kind::String => match literal {
            Literal::Str(text) | Literal::Text(text) => put_bytes(text.as_bytes(), out),
            other => return Err(wrong(other, "a string")),
        },
        Kind::Bytes => match literal {
            Literal::Str(text) | Literal::Text(text) => {
                let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
                let bytes = engine.decode(text).map_err(|_| wrong(literal, "base64"))?;
                put_bytes(&bytes, out);
            }
            other => return Err(wrong(other, "a string in base64")),
        },
        Kind::Enum(id) => {
            let shape = shapes.enumeration(id);
            let named = match literal {
                Literal::Str(name) | Literal::Text(name) => shape.number(name),
                _ => None,
            };
            let number = match (named, literal) {
                (None, Literal::Int(_) | Literal::Float(_) | Literal::Text(_)) => {
                    int::<i32>(literal, "").ok().filter(|number| !shape.closed || shape.name_of(*number).is_some())
                }
                (named, _) => named,
            };
            let Some(number) = number else {
                let names = shape.values.iter().take(NAMES_MAX).map(|(name, _)| &**name).collect::<Vec<_>>().join(", ");
                let more = if shape.values.len() > NAMES_MAX { ", ..." } else { "" };
                return Err(wrong(literal, &format!("a value of {}: {names}{more}", shape.name)));
            };
            encode_varint(i64::from(number).cast_unsigned(), out);
        }
        Kind::Message(id) | Kind::Group(id) => {
            return Err(wrong(literal, &format!("an object ({})", shapes.message(id).name)));
        }
    }
    Ok(())
}

const INT64: &str = "-9223372036854775808 to 9223372036854775807";
const UINT64: &str = "0 to 18446744073709551615";

/// Appends bytes with their length before them.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// "is X, and must be Y".
pub(super) fn wrong(literal: Literal<'_>, wanted: &str) -> String {
    match literal {
        Literal::Bool(value) => format!("is {value}, and must be {wanted}"),
        Literal::Int(value) => format!("is {value}, and must be {wanted}"),
        Literal::Float(value) => format!("is {value}, and must be {wanted}"),
        Literal::Str(text) | Literal::Text(text) => {
            let shown: String = text.chars().take(SHOWN_MAX).collect();
            let more = if shown.len() < text.len() { "..." } else { "" };
            format!("is {shown:?}{more}, and must be {wanted}")
        }
    }
}

fn int<T: TryFrom<i128>>(literal: Literal<'_>, range: &str) -> Result<T, String> {
    let whole = match literal {
        Literal::Int(value) => Some(value),
        Literal::Float(value) => whole(value),
        Literal::Str(text) | Literal::Text(text) if is_number(text) => {
            text.parse().ok().or_else(|| text.parse().ok().and_then(whole))
        }
        _ => None,
    };
    let value = whole.and_then(|whole| T::try_from(whole).ok());
    value.ok_or_else(|| wrong(literal, &format!("a whole number, {range}")))
}

/// The whole number that a float is. From 2^64 on there is none that fits a field.
#[expect(clippy::cast_possible_truncation, reason = "whole and below 2^64")]
fn whole(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() < 18_446_744_073_709_551_616.0).then_some(value as i128)
}

fn float(literal: Literal<'_>) -> Result<f64, String> {
    let value = match literal {
        #[expect(clippy::cast_precision_loss, reason = "rounding to the nearest is what a float field means")]
        Literal::Int(value) => Some(value as f64),
        Literal::Float(value) => Some(value),
        Literal::Str(text) | Literal::Text(text) => match text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text if is_number(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
            _ => None,
        },
        Literal::Bool(_) => None,
    };
    value.ok_or_else(|| wrong(literal, "a number, \"NaN\", \"Infinity\" or \"-Infinity\""))
}

/// Whether the text is a number as JSON writes one; Rust would also take `+1`, `inf`, `.5` and `1.`.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, decimals) = match mantissa.split_once('.') {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && decimals.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: Kind, literal: Literal<'_>) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let pool = prost_reflect::DescriptorPool::new();
        put(&Shapes::compile(&pool), kind, literal, &mut out).map(|()| out)
    }

    #[test]
    fn numbers_come_as_numbers_or_as_their_text_and_must_fit() {
        for literal in [
            Literal::Int(100_000),
            Literal::Float(1e5),
            Literal::Str("100000"),
            Literal::Str("1e5"),
            Literal::Text("100000.0"),
        ] {
            assert_eq!(bytes(Kind::Fixed32, literal), Ok(100_000_u32.to_le_bytes().to_vec()), "{literal:?}");
        }
        for literal in [
            Literal::Int(-1),
            Literal::Int(1 << 32),
            Literal::Float(0.5),
            Literal::Float(f64::NAN),
            Literal::Bool(true),
        ] {
            assert!(bytes(Kind::Uint32, literal).is_err(), "{literal:?}");
        }
        for text in ["", " 1", "1 ", "+1", "01", "0x1", "1.", ".5", "1e", "inf", "NaN", "1_000", "--1", "é"] {
            assert!(bytes(Kind::Int64, Literal::Str(text)).is_err(), "{text}");
        }
        assert_eq!(bytes(Kind::Fixed64, Literal::Str("18446744073709551615")), Ok(vec![0xff; 8]));
        assert_eq!(bytes(Kind::Sint32, Literal::Int(i32::MIN.into())), Ok(vec![0xff, 0xff, 0xff, 0xff, 0x0f]));
    }

    #[test]
    fn a_float_must_fit_and_has_names_for_what_is_no_number() {
        assert_eq!(bytes(Kind::Float, Literal::Str("-Infinity")), Ok(f32::NEG_INFINITY.to_le_bytes().to_vec()));
        assert_eq!(bytes(Kind::Double, Literal::Str("-1.5e3")), Ok((-1500_f64).to_le_bytes().to_vec()));
        assert!(bytes(Kind::Float, Literal::Float(1e39)).is_err());
        for text in ["inf", "infinity", "nan", "1e400", ""] {
            assert!(bytes(Kind::Double, Literal::Str(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn base64_of_both_alphabets_with_or_without_padding() {
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            assert_eq!(bytes(Kind::Bytes, Literal::Str(text)), Ok(vec![2, 0xfb, 0xff]), "{text}");
        }
        assert!(bytes(Kind::Bytes, Literal::Str("+_8=")).is_err());
        assert!(bytes(Kind::Bytes, Literal::Str("a")).is_err());
    }

    #[test]
    fn text_is_true_but_a_json_string_is_not() {
        assert_eq!(bytes(Kind::Bool, Literal::Text("true")), Ok(vec![1]));
        assert_eq!(bytes(Kind::Bool, Literal::Str("true")), Err("is \"true\", and must be true or false".to_owned()));
    }
}
