//! JSON to protobuf, in one pass: `serde_json` reads the text, and what it finds is written to the wire at once, with no tree in
//! between. Fields may come in any order, as protobuf allows; a message's length is put in front of it when it is known.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::fmt;

use prost::encoding::encode_varint;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::input::Violation;
use super::known;
use super::scalar::{self, Literal, put_bytes};
use super::shape::{Field, Form, Kind, Label, Shape, Shapes};
use super::text::FieldPath;

/// Deepest nesting of objects and lists in a body.
pub const DEPTH_MAX: usize = 64;
/// Names that an error lists.
const NAMES_MAX: usize = 32;

/// The bytes of a message from JSON. `bound` are fields of it, or of messages in it, that something else fills.
pub(super) fn message(shapes: &Shapes, shape: &Shape, bound: &[FieldPath], json: &[u8]) -> Result<Vec<u8>, Violation> {
    read(shapes, Target::Content(shape), bound, json)
}

/// A message of which only one field is set, from the JSON of that field.
pub(super) fn field(shapes: &Shapes, field: &Field, json: &[u8]) -> Result<Vec<u8>, Violation> {
    read(shapes, Target::Field(field), &[], json).map_err(|violation| violation.below(&field.name))
}

fn read(shapes: &Shapes, target: Target<'_>, bound: &[FieldPath], json: &[u8]) -> Result<Vec<u8>, Violation> {
    let mut reader = Reader {
        shapes,
        bound,
        out: Vec::with_capacity(json.len()),
        path: Vec::new(),
        seen: Vec::new(),
        depth: 0,
        fault: None,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = Value { reader: &mut reader, target }.deserialize(&mut deserializer);
    match read.and_then(|()| deserializer.end()) {
        Ok(()) => Ok(reader.out),
        Err(error) => {
            let description = match reader.fault.take() {
                Some(fault) => fault,
                None => format!("is not JSON: {error}"),
            };
            Err(Violation { field: reader.place(), description })
        }
    }
}

struct Reader<'s> {
    shapes: &'s Shapes,
    /// Fields that the body must not set.
    bound: &'s [FieldPath],
    out: Vec<u8>,
    /// Where reading is; stays where it was when reading fails.
    path: Vec<Step<'s>>,
    /// Which fields and oneofs each open message has seen: words of bits, the innermost message's last.
    seen: Vec<u64>,
    depth: usize,
    fault: Option<String>,
}

enum Step<'s> {
    Field(&'s Field),
    Item(usize),
    Key(String),
}

/// What the next JSON value is read as.
#[derive(Clone, Copy)]
enum Target<'s> {
    /// A whole field: all of a list, all of a map. `null` leaves it absent.
    Field(&'s Field),
    /// One value of a field, with its tag.
    Item(&'s Field),
    /// One value of a packed list, without a tag.
    Packed(&'s Field),
    /// The fields of a message, without tag and length.
    Content(&'s Shape),
}

struct Value<'r, 's> {
    reader: &'r mut Reader<'s>,
    target: Target<'s>,
}

impl<'s> Reader<'s> {
    fn fail<E: Error>(&mut self, fault: impl Into<String>) -> E {
        self.fault = Some(fault.into());
        E::custom("refused")
    }

    fn place(&self) -> String {
        let mut place = String::new();
        for step in &self.path {
            match step {
                Step::Field(field) if place.is_empty() => place.push_str(&field.name),
                Step::Field(field) => place.extend([".", &field.name]),
                Step::Item(index) => place.push_str(&format!("[{index}]")),
                Step::Key(key) => place.push_str(&format!("[{key:?}]")),
            }
        }
        place
    }

    fn stands_at(&self, bound: &FieldPath) -> bool {
        let same = |(step, index): (&Step<'_>, &u16)| matches!(step, Step::Field(field) if field.index == *index);
        self.path.len() == bound.steps().len() && self.path.iter().zip(bound.steps()).all(same)
    }

    /// Writes what `content` writes, with its length before it.
    fn nested<E>(&mut self, content: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        let at = self.out.len();
        self.out.push(0);
        content(self)?;
        let length = self.out.len() - at - 1;
        match u8::try_from(length) {
            Ok(length @ ..0x80) => self.out[at] = length,
            _ => {
                let mut prefix = Vec::with_capacity(10);
                encode_varint(length as u64, &mut prefix);
                self.out.splice(at..=at, prefix);
            }
        }
        Ok(())
    }

    /// Writes one message with all that stands around it.
    fn framed<E>(&mut self, field: &Field, content: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.out.extend_from_slice(field.tag.bytes());
        if matches!(field.kind, Kind::Group(_)) {
            content(self)?;
            self.out.extend_from_slice(field.other_tag.bytes());
            Ok(())
        } else {
            self.nested(content)
        }
    }

    fn deeper<E: Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.fail(format!("is nested more than {DEPTH_MAX} levels deep")));
        }
        Ok(())
    }

    /// One value that is neither object, list nor null.
    fn literal(&mut self, target: Target<'s>, literal: Literal<'_>) -> Result<(), String> {
        match target {
            Target::Field(Field { label: Label::List { .. }, .. }) => Err(scalar::wrong(literal, "a list")),
            Target::Field(Field { label: Label::Map, .. }) => Err(scalar::wrong(literal, "an object")),
            Target::Field(field) | Target::Item(field) => match field.kind.message() {
                Some(id) => {
                    let shape = self.shapes.message(id);
                    self.framed(field, |reader| message_literal(reader.shapes, shape, literal, &mut reader.out))
                }
                None => {
                    self.out.extend_from_slice(field.tag.bytes());
                    scalar::put(self.shapes, field.kind, literal, &mut self.out)
                }
            },
            Target::Packed(field) => scalar::put(self.shapes, field.kind, literal, &mut self.out),
            Target::Content(shape) => message_literal(self.shapes, shape, literal, &mut self.out),
        }
    }

    fn null<E: Error>(&mut self, target: Target<'s>) -> Result<(), E> {
        match target {
            Target::Field(field) | Target::Item(field)
                if field.label == Label::Single || matches!(target, Target::Item(_)) =>
            {
                if self.shapes.takes_null(field.kind) {
                    self.out.extend_from_slice(field.tag.bytes());
                    match field.kind {
                        Kind::Message(_) => self.out.extend([2, NULL_VALUE, 0]),
                        _ => self.out.push(0),
                    }
                    return Ok(());
                }
                match target {
                    Target::Field(_) => Ok(()), // absent
                    _ => Err(self.fail("is null, which is no value of a list or a map here")),
                }
            }
            Target::Field(_) => Ok(()),
            Target::Packed(field) if self.shapes.takes_null(field.kind) => {
                self.out.push(0);
                Ok(())
            }
            Target::Content(Shape { form: Form::Value, .. }) => {
                self.out.extend([NULL_VALUE, 0]);
                Ok(())
            }
            Target::Content(shape) => Err(self.fail(format!("is null, and must be a {}", shape.name))),
            _ => Err(self.fail("is null, which is no value of a list here")),
        }
    }

    /// The fields of a message from a JSON object.
    fn content<'de, A: MapAccess<'de>>(&mut self, shape: &'s Shape, map: &mut A) -> Result<(), A::Error> {
        match (shape.form, shape.fields.as_slice()) {
            (Form::Plain | Form::Empty, _) => self.fields(shape, map),
            (Form::Struct, [fields, ..]) => self.entries(fields, map),
            (Form::Value, fields) => match fields.iter().find(|field| field.number == STRUCT_VALUE) {
                Some(field) => {
                    let shape = field.kind.message().map(|id| self.shapes.message(id));
                    self.framed(field, |reader| shape.map_or(Ok(()), |shape| reader.content(shape, map)))
                }
                None => Err(self.fail("is no google.protobuf.Value")),
            },
            (Form::Any, _) => self.any(map),
            (form, _) => {
                let wanted = wanted(self.shapes, shape, form);
                Err(self.fail(format!("is an object, and must be {wanted}")))
            }
        }
    }

    fn fields<'de, A: MapAccess<'de>>(&mut self, shape: &'s Shape, map: &mut A) -> Result<(), A::Error> {
        let bits = self.seen.len() * 64;
        self.seen.resize(self.seen.len() + (shape.fields.len() + shape.oneofs).div_ceil(64), 0);
        while let Some(field) = map.next_key_seed(Name { reader: self, shape })? {
            self.path.push(Step::Field(field));
            if self.mark(bits + usize::from(field.index)) {
                return Err(self.fail("is there twice"));
            }
            if self.bound.iter().any(|bound| self.stands_at(bound)) {
                return Err(self.fail("is given by the path; leave it out of the body"));
            }
            let before = self.out.len();
            map.next_value_seed(Value { reader: self, target: Target::Field(field) })?;
            if let Some(oneof) = field.oneof
                && self.out.len() > before
                && self.mark(bits + shape.fields.len() + usize::from(oneof))
            {
                return Err(self.fail("excludes another field that is there, too: they are one of several (oneof)"));
            }
            self.path.pop();
        }
        self.seen.truncate(bits / 64);
        Ok(())
    }

    /// Sets a bit and says whether it was set.
    fn mark(&mut self, bit: usize) -> bool {
        let word = &mut self.seen[bit / 64];
        let mask = 1 << (bit % 64);
        let was = *word & mask != 0;
        *word |= mask;
        was
    }

    /// The entries of a map field.
    fn entries<'de, A: MapAccess<'de>>(&mut self, field: &'s Field, map: &mut A) -> Result<(), A::Error> {
        let Some((key_field, value_field)) = self.shapes.entry(field) else {
            return Err(self.fail("is no map"));
        };
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            self.path.push(Step::Key(key.clone()));
            self.framed(field, |reader| {
                reader.out.extend_from_slice(key_field.tag.bytes());
                if let Err(fault) = scalar::put(reader.shapes, key_field.kind, Literal::Text(&key), &mut reader.out) {
                    return Err(reader.fail(format!("the key {fault}")));
                }
                map.next_value_seed(Value { reader, target: Target::Item(value_field) })
            })?;
            if !keys.insert(key) {
                return Err(self.fail("is there twice"));
            }
            self.path.pop();
        }
        Ok(())
    }

    /// `{"@type": ..., fields}`, the type's name wherever it stands: the other members wait as text until it is known.
    fn any<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
        let mut names = BTreeSet::new();
        let mut type_url: Option<String> = None;
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(self.fail(format!("has {name:?} twice")));
            }
            if name == "@type" {
                type_url = Some(map.next_value()?);
            } else {
                members.push((Cow::Owned(name), map.next_value()?));
            }
        }
        let Some(type_url) = type_url else {
            return if members.is_empty() { Ok(()) } else { Err(self.fail("has no \"@type\"")) };
        };
        let name = type_url.rsplit('/').next().unwrap_or_default();
        let Some(id) = self.shapes.find(name).filter(|_| type_url.contains('/')) else {
            return Err(self.fail(format!("has the \"@type\" {type_url:?}, and must name a message of this service, as in \"type.googleapis.com/package.Message\"")));
        };
        let shape = self.shapes.message(id);
        self.out.push(ANY_TYPE_URL);
        put_bytes(type_url.as_bytes(), &mut self.out);
        self.out.push(ANY_VALUE);
        self.nested(|reader| {
            if shape.form == Form::Plain {
                let mut members = Members { members: members.into_iter(), value: None };
                return reader.fields(shape, &mut members).map_err(A::Error::custom);
            }
            let [(name, value)] = members.as_slice() else {
                return Err(reader
                    .fail(format!("must have exactly \"@type\" and \"value\": {} is a well-known type", shape.name)));
            };
            if name != "value" {
                return Err(
                    reader.fail(format!("has {name:?}, and must have \"value\": {} is a well-known type", shape.name))
                );
            }
            let mut value = serde_json::Deserializer::from_str(value.get());
            Value { reader, target: Target::Content(shape) }.deserialize(&mut value).map_err(A::Error::custom)
        })
    }
}

/// Tags of the well-known types; `Form::of` has checked their fields.
const NULL_VALUE: u8 = 1 << 3;
const NUMBER_VALUE: u8 = 2 << 3 | 1;
const STRING_VALUE: u8 = 3 << 3 | 2;
const BOOL_VALUE: u8 = 4 << 3;
const STRUCT_VALUE: u32 = 5;
const LIST_VALUE: u32 = 6;
const ANY_TYPE_URL: u8 = 1 << 3 | 2;
const ANY_VALUE: u8 = 2 << 3 | 2;
const SECONDS: u8 = 1 << 3;
const NANOS: u8 = 2 << 3;
const MASK_PATHS: u8 = 1 << 3 | 2;

/// The fields of a well-known type from a text, number or bool.
pub(super) fn message_literal(
    shapes: &Shapes,
    shape: &Shape,
    literal: Literal<'_>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let text = match literal {
        Literal::Str(text) | Literal::Text(text) => Some(text),
        _ => None,
    };
    let refused = || scalar::wrong(literal, &wanted(shapes, shape, shape.form));
    match shape.form {
        Form::Timestamp => {
            let timestamp = text.and_then(known::parse_timestamp).ok_or_else(refused)?;
            put_time(timestamp.seconds, timestamp.nanos, out);
        }
        Form::Duration => {
            let duration = text.and_then(known::parse_duration).ok_or_else(refused)?;
            put_time(duration.seconds, duration.nanos, out);
        }
        Form::FieldMask => {
            for path in text.and_then(known::parse_mask).ok_or_else(refused)? {
                out.push(MASK_PATHS);
                put_bytes(path.as_bytes(), out);
            }
        }
        Form::Wrapper => {
            let field = shape.fields.first().ok_or_else(refused)?;
            out.extend_from_slice(field.tag.bytes());
            scalar::put(shapes, field.kind, literal, out)?;
        }
        Form::Value => match literal {
            Literal::Bool(value) => out.extend([BOOL_VALUE, value.into()]),
            Literal::Int(_) | Literal::Float(_) => {
                out.push(NUMBER_VALUE);
                scalar::put(shapes, Kind::Double, literal, out)?;
            }
            Literal::Str(text) | Literal::Text(text) => {
                out.push(STRING_VALUE);
                put_bytes(text.as_bytes(), out);
            }
        },
        Form::Plain | Form::Empty | Form::Any | Form::Struct | Form::ListValue => return Err(refused()),
    }
    Ok(())
}

fn put_time(seconds: i64, nanos: i32, out: &mut Vec<u8>) {
    if seconds != 0 {
        out.push(SECONDS);
        encode_varint(seconds.cast_unsigned(), out);
    }
    if nanos != 0 {
        out.push(NANOS);
        encode_varint(i64::from(nanos).cast_unsigned(), out);
    }
}

/// What a message is in JSON, for an error.
fn wanted(shapes: &Shapes, shape: &Shape, form: Form) -> String {
    match form {
        Form::Plain | Form::Empty | Form::Struct | Form::Any => format!("an object ({})", shape.name),
        Form::Timestamp => {
            "a time as RFC 3339 writes it, such as \"2026-01-31T12:00:00.5Z\", from year 1 to 9999".to_owned()
        }
        Form::Duration => "seconds with an s, such as \"1.5s\", at most 315576000000s".to_owned(),
        Form::FieldMask => "field names in lowerCamelCase, such as \"displayName,address.city\"".to_owned(),
        Form::ListValue => "a list".to_owned(),
        Form::Value => "any JSON value".to_owned(),
        Form::Wrapper => match shape.fields.first().map(|field| field.kind) {
            Some(Kind::Bool) => "true or false".to_owned(),
            Some(Kind::String | Kind::Bytes) => "a string".to_owned(),
            Some(kind) if kind.message().is_none() => "a number".to_owned(),
            _ => format!("a {}", shapes.find(&shape.name).map_or("value", |_| &*shape.name)),
        },
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_, '_> {
    fn literal<E: Error>(self, literal: Literal<'_>) -> Result<(), E> {
        self.reader.literal(self.target, literal).map_err(|fault| self.reader.fail(fault))
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.literal(Literal::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.literal(Literal::Int(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.literal(Literal::Int(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.literal(Literal::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.literal(Literal::Str(value))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.reader.null(self.target)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Value { reader, target } = self;
        reader.deeper()?;
        match target {
            Target::Field(field) => match field.label {
                Label::List { packed: true } => {
                    let before = reader.out.len();
                    reader.out.extend_from_slice(field.other_tag.bytes());
                    let body = reader.out.len();
                    reader.nested(|reader| items(reader, Target::Packed(field), &mut list))?;
                    if reader.out.len() == body + 1 {
                        reader.out.truncate(before); // an empty list is absent
                    }
                }
                Label::List { packed: false } => items(reader, Target::Item(field), &mut list)?,
                Label::Single => list_value(reader, field, &mut list)?,
                Label::Map => return Err(reader.fail("is a list, and must be an object")),
            },
            Target::Item(field) => list_value(reader, field, &mut list)?,
            Target::Packed(_) => return Err(reader.fail("is a list in a list")),
            Target::Content(shape) => list_content(reader, shape, &mut list)?,
        }
        reader.depth -= 1;
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Value { reader, target } = self;
        reader.deeper()?;
        match target {
            Target::Field(field) if matches!(field.label, Label::Map) => reader.entries(field, &mut map)?,
            Target::Field(Field { label: Label::List { .. }, .. }) => {
                return Err(reader.fail("is an object, and must be a list"));
            }
            Target::Field(field) | Target::Item(field) | Target::Packed(field) => match field.kind.message() {
                Some(id) => {
                    let shape = reader.shapes.message(id);
                    reader.framed(field, |reader| reader.content(shape, &mut map))?;
                }
                None => return Err(reader.fail("is an object, and must be a single value")),
            },
            Target::Content(shape) => reader.content(shape, &mut map)?,
        }
        reader.depth -= 1;
        Ok(())
    }
}

fn items<'de, 's, A: SeqAccess<'de>>(
    reader: &mut Reader<'s>,
    target: Target<'s>,
    list: &mut A,
) -> Result<(), A::Error> {
    for index in 0.. {
        reader.path.push(Step::Item(index));
        if list.next_element_seed(Value { reader, target })?.is_none() {
            reader.path.pop();
            break;
        }
        reader.path.pop();
    }
    Ok(())
}

/// A JSON list where one message is expected: a `ListValue`, or a `Value` that holds one.
fn list_value<'de, 's, A: SeqAccess<'de>>(
    reader: &mut Reader<'s>,
    field: &'s Field,
    list: &mut A,
) -> Result<(), A::Error> {
    match field.kind.message() {
        Some(id) => {
            let shape = reader.shapes.message(id);
            reader.framed(field, |reader| list_content(reader, shape, list))
        }
        None => Err(reader.fail("is a list, and must be a single value")),
    }
}

fn list_content<'de, 's, A: SeqAccess<'de>>(
    reader: &mut Reader<'s>,
    shape: &'s Shape,
    list: &mut A,
) -> Result<(), A::Error> {
    let field = |number| shape.fields.iter().find(|field| field.number == number);
    match shape.form {
        Form::ListValue if let Some(values) = field(1) => items(reader, Target::Item(values), list),
        Form::Value if let Some(field) = field(LIST_VALUE) => list_value(reader, field, list),
        form => {
            let wanted = wanted(reader.shapes, shape, form);
            Err(reader.fail(format!("is a list, and must be {wanted}")))
        }
    }
}

/// A member's name, as the field that it names.
struct Name<'r, 's> {
    reader: &'r mut Reader<'s>,
    shape: &'s Shape,
}

impl<'de, 's> DeserializeSeed<'de> for Name<'_, 's> {
    type Value = &'s Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'s Field, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'s> Visitor<'_> for Name<'_, 's> {
    type Value = &'s Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<&'s Field, E> {
        let shape = self.shape;
        if let Some(field) = shape.by_name(name) {
            return Ok(field);
        }
        let known = shape.fields.iter().take(NAMES_MAX).map(|field| &*field.json_name).collect::<Vec<_>>().join(", ");
        let shown: String = name.chars().take(NAMES_MAX).collect();
        let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {known}") };
        Err(self.reader.fail(format!("has no field {shown:?}; {known}")))
    }
}

/// Members of an `Any` that waited, as an object of their own.
struct Members<'de> {
    members: std::vec::IntoIter<(Cow<'de, str>, &'de RawValue)>,
    value: Option<&'de RawValue>,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        let Some((name, value)) = self.members.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        seed.deserialize(serde::de::value::CowStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        let text = self.value.take().map_or("null", RawValue::get);
        seed.deserialize(&mut serde_json::Deserializer::from_str(text))
    }
}
