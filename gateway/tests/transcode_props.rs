//! JSON -> protobuf -> JSON is the identity, on random messages of every scalar kind and every well-known type, nested, in lists, maps
//! and oneofs. `prost-reflect`, which reads and writes the same mapping by other means, agrees on every one of them.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod transcode;

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};
use serde_json::Value as Json;
use transcode::{PACKAGE, answer, ask, pool, try_answer};

/// Deepest message that is drawn: JSON nests a list or a map for each level, and `Any` and `Struct` below it.
const DEPTH: usize = 6;

/// Decisions, drawn beforehand so that they shrink; when they are used up, everything is zero and ends.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    fn bits(&mut self) -> u64 {
        match self.below(4) {
            0 => u64::from(self.byte()),
            1 => u64::MAX - u64::from(self.byte()),
            2 => 1 << self.below(64),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 12] = ["a", "Z", "0", " ", "\"", "\\", "\u{0}", "\n", "/", "é", "\u{2028}", "𝄞"];
        (0..self.below(6)).map(|_| PIECES[self.below(PIECES.len())]).collect()
    }

    fn double(&mut self) -> f64 {
        match self.below(8) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => -0.0,
            4 => f64::from(self.byte()) / 8.0,
            5 => 1e300,
            _ => Some(f64::from_bits(self.bits())).filter(|value| !value.is_nan()).unwrap_or(0.1),
        }
    }

    fn scalar(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Double => Value::F64(self.double()),
            Kind::Float => Value::F32(match self.below(4) {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => 0.1,
                _ => Some(f32::from_bits(self.bits() as u32)).filter(|value| !value.is_nan()).unwrap_or(1.5),
            }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.bits() as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.bits() as i64),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.bits() as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.bits()),
            Kind::Bool => Value::Bool(self.below(2) == 1),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes((0..self.below(6)).map(|_| self.byte()).collect::<Vec<u8>>().into()),
            Kind::Enum(entry) if entry.full_name() == "google.protobuf.NullValue" => Value::EnumNumber(0),
            Kind::Enum(_) => Value::EnumNumber([0, 1, -3, 77, i32::MIN][self.below(5)]),
            Kind::Message(_) => unreachable!("messages are drawn by `message`"),
        }
    }

    fn value(&mut self, kind: &Kind, depth: usize) -> Value {
        match kind {
            Kind::Message(of) => Value::Message(self.message(of, depth + 1)),
            kind => self.scalar(kind),
        }
    }

    fn message(&mut self, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        match of.full_name() {
            "google.protobuf.Timestamp" => {
                let span = 253_402_300_800 + 62_135_596_800;
                message.set_field_by_name(
                    "seconds",
                    Value::I64(self.bits().cast_signed().rem_euclid(span) - 62_135_596_800),
                );
                message.set_field_by_name("nanos", Value::I32(self.nanos()));
            }
            "google.protobuf.Duration" => {
                let sign = if self.below(2) == 0 { 1 } else { -1 };
                message.set_field_by_name(
                    "seconds",
                    Value::I64(sign * self.bits().cast_signed().rem_euclid(315_576_000_000)),
                );
                message.set_field_by_name("nanos", Value::I32(i32::try_from(sign).unwrap() * self.nanos()));
            }
            "google.protobuf.FieldMask" => {
                let paths = ["a", "display_name", "a.b_c.d", "x9"];
                let paths = (0..self.below(4)).map(|_| Value::String(paths[self.below(4)].to_owned())).collect();
                message.set_field_by_name("paths", Value::List(paths));
            }
            "google.protobuf.Value" => {
                // One of them is always set, and numbers are finite: else there is no JSON.
                match self.below(if depth < DEPTH { 6 } else { 4 }) {
                    0 => message.set_field_by_name("null_value", Value::EnumNumber(0)),
                    1 => {
                        let number = Some(self.double()).filter(|number| number.is_finite()).unwrap_or(0.5);
                        message.set_field_by_name("number_value", Value::F64(number));
                    }
                    2 => message.set_field_by_name("string_value", Value::String(self.text())),
                    3 => message.set_field_by_name("bool_value", Value::Bool(self.below(2) == 1)),
                    4 => self.set(&mut message, "struct_value", depth),
                    _ => self.set(&mut message, "list_value", depth),
                }
            }
            // The library writes null for a wrapper that is no finite number; a test of its own has them.
            "google.protobuf.DoubleValue" => {
                message.set_field_by_name("value", Value::F64(f64::from(self.byte()) / 8.0))
            }
            "google.protobuf.FloatValue" => {
                message.set_field_by_name("value", Value::F32(f32::from(self.byte()) / 10.0))
            }
            "google.protobuf.Any" => {
                // The library writes no Any without a type.
                let types = ["Scalars", "Known", "Choice", "Everything"].map(|name| format!("{PACKAGE}.{name}"));
                let known = ["Empty", "Duration", "BytesValue", "Struct", "Value", "Any"];
                let known = known.map(|name| format!("google.protobuf.{name}"));
                let names: Vec<String> = known.into_iter().chain(types).collect();
                let name = &names[self.below(if depth < DEPTH { names.len() } else { 3 })];
                let inner = self.message(&pool().get_message_by_name(name).unwrap(), depth + 1).encode_to_vec();
                message.set_field_by_name("type_url", Value::String(format!("type.googleapis.com/{name}")));
                message.set_field_by_name("value", Value::Bytes(inner.into()));
            }
            _ => {
                for field in of.fields() {
                    // One in four; and nothing that nests, where it is deep.
                    let nests = matches!(field.kind(), Kind::Message(_));
                    if self.below(4) != 1 || nests && depth >= DEPTH {
                        continue;
                    }
                    let value = if field.is_map() {
                        let Kind::Message(entry) = field.kind() else { unreachable!("a map's kind is its entry") };
                        let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
                        let entries = (0..self.below(4)).map(|_| {
                            let key = match self.scalar(&key) {
                                Value::Bool(key) => MapKey::Bool(key),
                                Value::I32(key) => MapKey::I32(key),
                                Value::I64(key) => MapKey::I64(key),
                                Value::U32(key) => MapKey::U32(key),
                                Value::U64(key) => MapKey::U64(key),
                                Value::String(key) => MapKey::String(key),
                                other => unreachable!("{other:?} is no key"),
                            };
                            (key, self.value(&value, depth))
                        });
                        Value::Map(entries.collect())
                    } else if field.is_list() {
                        Value::List((0..self.below(4)).map(|_| self.value(&field.kind(), depth)).collect())
                    } else {
                        self.value(&field.kind(), depth)
                    };
                    message.set_field(&field, value);
                }
            }
        }
        message
    }

    fn set(&mut self, message: &mut DynamicMessage, name: &str, depth: usize) {
        let field = message.descriptor().get_field_by_name(name).unwrap();
        let value = self.value(&field.kind(), depth);
        message.set_field(&field, value);
    }

    fn nanos(&mut self) -> i32 {
        [0, 500_000_000, 1_000, 1, 999_999_999][self.below(5)]
    }
}

fn drawn(name: &str, choices: &[u8]) -> DynamicMessage {
    let of = pool().get_message_by_name(&format!("{PACKAGE}.{name}")).unwrap();
    Choices(choices.iter()).message(&of, 0)
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What the library says of a message, as a tree, so that the order of a map does not count.
fn by_library(message: &DynamicMessage) -> Json {
    json(&serde_json::to_string(message).unwrap())
}

fn decoded(name: &str, bytes: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(pool().get_message_by_name(&format!("{PACKAGE}.{name}")).unwrap(), bytes).unwrap()
}

#[test]
fn wrappers_hold_what_is_no_number() {
    for text in [r#""NaN""#, r#""Infinity""#, r#""-Infinity""#, "-0.0"] {
        let known = format!(r#"{{"doubleValue":{text},"floatValue":{text}}}"#);
        let bytes = ask("POST", "/v1/echo", &format!(r#"{{"known":{known}}}"#)).unwrap();
        let written = json(&answer("POST", "/v1/echo", &bytes));
        assert_eq!(written["known"]["doubleValue"], json(text));
        assert_eq!(written["known"]["floatValue"], json(text));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_to_protobuf_to_json_is_the_identity(choices in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        let message = drawn("Everything", &choices);
        let written = answer("POST", "/v1/echo", &message.encode_to_vec());

        let bytes = ask("POST", "/v1/echo", &written).unwrap_or_else(|faults| panic!("{faults:?}: {written}"));
        prop_assert_eq!(&answer("POST", "/v1/echo", &bytes), &written);

        // The library reads what was written, and what was read is what the library wrote.
        prop_assert_eq!(by_library(&decoded("Everything", &bytes)), by_library(&message));
        let mut text = serde_json::Deserializer::from_str(&written);
        let read = DynamicMessage::deserialize(message.descriptor(), &mut text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(by_library(&read), by_library(&message));
        let theirs = ask("POST", "/v1/echo", &serde_json::to_string(&message).unwrap()).unwrap();
        prop_assert_eq!(by_library(&decoded("Everything", &theirs)), by_library(&message));
    }

    #[test]
    fn a_message_in_pieces_and_out_of_order_is_the_same(choices in proptest::collection::vec(any::<u8>(), 0..1_000)) {
        let first = drawn("Everything", &choices);
        let second = drawn("Everything", &choices[choices.len() / 2..]);
        let bytes = [first.encode_to_vec(), second.encode_to_vec()].concat();

        let merged = decoded("Everything", &bytes);
        // Some merge into what has no JSON: the name of one `Any` and the value of another.
        prop_assert_eq!(
            try_answer("POST", "/v1/echo", &bytes),
            try_answer("POST", "/v1/echo", &merged.encode_to_vec())
        );
    }

    #[test]
    fn a_query_says_what_a_body_says(choices in proptest::collection::vec(any::<u8>(), 0..300)) {
        for (name, uri) in [("Scalars", "/v1/scalars"), ("Known", "/v1/known")] {
            let message = drawn(name, &choices);
            let mut query = String::new();
            let Json::Object(members) = by_library(&message) else { unreachable!("a message is an object") };
            let mut kept = Vec::new();
            for (member, value) in members {
                let text = match value {
                    // A string stands for itself, what has no text form for nothing.
                    Json::String(text) if member != "value" => text,
                    Json::Number(number) if member != "value" => number.to_string(),
                    Json::Bool(flag) if member != "value" => flag.to_string(),
                    _ => continue,
                };
                let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
                query.push_str(&format!("&{member}={escaped}"));
                kept.push(message.descriptor().get_field_by_json_name(&member).unwrap());
            }
            let bytes = ask("GET", &format!("{uri}?{query}"), "").unwrap_or_else(|faults| panic!("{faults:?}: {query}"));
            let mut expected = DynamicMessage::new(message.descriptor());
            for field in kept {
                expected.set_field(&field, message.get_field(&field).into_owned());
            }
            prop_assert_eq!(by_library(&decoded(name, &bytes)), by_library(&expected));
        }
    }
}
