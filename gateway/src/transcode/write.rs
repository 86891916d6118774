//! Protobuf to JSON, in one pass over the bytes: a message's fields are found first, then written in the order of the file. Fields
//! without presence are always written, empty lists and zeros too: a reader of JSON sees the whole shape of an answer.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use prost::encoding::{WireType, decode_varint};
use prost_types::{Duration, Timestamp};
use thiserror::Error;

use super::known;
use super::route::Answer;
use super::shape::{Field, Form, Kind, Label, Shape, Shapes};

/// Deepest nesting of messages in an answer; protobuf's own decoders stop there, too.
const DEPTH_MAX: usize = 100;

/// Largest answer in JSON, in bytes: sixteen times the largest message that a service may answer with. Few bytes on the wire can
/// be many here, since every empty message is written with all of its defaults.
const OUT_MAX: usize = 16 * 4 * 1024 * 1024;

/// Fields of all open messages that most answers stay below; more of them grow the list.
const CHUNKS: usize = 32;

/// An answer that its descriptor does not describe.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadAnswer {
    /// The bytes are no protobuf message.
    #[error("the service's answer is no valid protobuf message")]
    Malformed,
    /// A string holds something else.
    #[error("a string of the service's answer is not UTF-8")]
    NotUtf8,
    /// Nested deeper than anybody reads.
    #[error("the service's answer is nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
    /// Longer in JSON than anybody reads.
    #[error("the service's answer is more than {OUT_MAX} bytes of JSON")]
    TooLarge,
    /// A value without a form in JSON: a time outside the years 1 to 9999, a `Value` that is not a number.
    #[error("the service's answer has a {0} that JSON cannot say")]
    NoJson(&'static str),
}

/// Appends a message as JSON.
pub(super) fn message(shapes: &Shapes, shape: &Shape, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BadAnswer> {
    let mut writer = Writer { shapes, out, chunks: Vec::with_capacity(CHUNKS), depth: 0 };
    writer.message(shape, bytes)
}

/// Appends one field of a message as JSON; an absent message is `null`.
pub(super) fn field(
    shapes: &Shapes,
    shape: &Shape,
    field: &Field,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), BadAnswer> {
    let mut writer = Writer { shapes, out, chunks: Vec::with_capacity(CHUNKS), depth: 0 };
    writer.scan(shape, bytes, 0)?;
    writer.chunks.retain(|chunk| chunk.field == field.index);
    let end = writer.chunks.len();
    if end == 0 && field.presence { writer.absent(field) } else { writer.field(field, 0, end) }
}

/// A single field's message, all pieces of it.
pub(super) fn field_bytes(shape: &Shape, field: &Field, mut bytes: &[u8]) -> Result<Vec<u8>, BadAnswer> {
    let mut whole = Vec::new();
    while !bytes.is_empty() {
        if let (number, Raw::Bytes(piece)) = next(&mut bytes)?
            && shape.by_number(number).is_some_and(|found| found.index == field.index)
        {
            whole.extend_from_slice(piece);
        }
    }
    Ok(whole)
}

/// `google.api.HttpBody`: content type 1, data 2.
pub(super) fn http_body(mut bytes: &[u8]) -> Result<Answer, BadAnswer> {
    let (mut content_type, mut data): (&[u8], &[u8]) = (b"application/octet-stream", &[]);
    while !bytes.is_empty() {
        match next(&mut bytes)? {
            (1, Raw::Bytes(text)) if !text.is_empty() => content_type = text,
            (2, Raw::Bytes(bytes)) => data = bytes,
            _ => {}
        }
    }
    let content_type = HeaderValue::from_bytes(content_type).map_err(|_| BadAnswer::NoJson("content type"))?;
    Ok(Answer { content_type, body: Bytes::copy_from_slice(data) })
}

struct Writer<'b, 'o> {
    shapes: &'b Shapes,
    out: &'o mut Vec<u8>,
    /// The fields of every open message, the innermost's last.
    chunks: Vec<Chunk<'b>>,
    depth: usize,
}

#[derive(Clone, Copy)]
struct Chunk<'b> {
    field: u16,
    raw: Raw<'b>,
}

/// A value as it is on the wire.
#[derive(Clone, Copy)]
enum Raw<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'b [u8]),
    /// The content of a group.
    Group(&'b [u8]),
}

/// A map's key, in an order of its own so that the same map is always the same text.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key<'b> {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Text(&'b str),
}

impl<'b> Writer<'b, '_> {
    fn message(&mut self, shape: &'b Shape, bytes: &'b [u8]) -> Result<(), BadAnswer> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(BadAnswer::TooDeep);
        }
        let base = self.chunks.len();
        self.scan(shape, bytes, base)?;
        match shape.form {
            Form::Plain | Form::Empty => {
                self.out.push(b'{');
                self.members(shape, base, true)?;
                self.out.push(b'}');
            }
            Form::Any => self.any(shape, base)?,
            Form::Timestamp => {
                let (seconds, nanos) = self.time(base);
                let text = known::timestamp_text(Timestamp { seconds, nanos }).ok_or(BadAnswer::NoJson("timestamp"))?;
                self.quoted(&text);
            }
            Form::Duration => {
                let (seconds, nanos) = self.time(base);
                let text = known::duration_text(Duration { seconds, nanos }).ok_or(BadAnswer::NoJson("duration"))?;
                self.quoted(&text);
            }
            Form::FieldMask => {
                let mut text = String::new();
                for index in base..self.chunks.len() {
                    if index > base {
                        text.push(',');
                    }
                    known::push_mask_path(utf8(self.chunks[index].raw)?, &mut text);
                }
                self.quoted(&text);
            }
            Form::Struct | Form::ListValue | Form::Wrapper => match shape.fields.first() {
                Some(field) => self.field(field, base, self.chunks.len())?,
                None => self.out.extend_from_slice(b"null"),
            },
            Form::Value => self.value(shape, base)?,
        }
        self.chunks.truncate(base);
        self.depth -= 1;
        Ok(())
    }

    /// Finds the fields of a message and puts them in the order of the file, one member of a oneof at most.
    fn scan(&mut self, shape: &Shape, mut bytes: &'b [u8], base: usize) -> Result<(), BadAnswer> {
        let mut sorted = true;
        let mut has_oneof = false;
        while !bytes.is_empty() {
            let (number, raw) = next(&mut bytes)?;
            let Some(field) = shape.by_number(number).filter(|field| fits(field, raw)) else {
                continue; // unknown to the descriptor
            };
            sorted &= self.chunks.len() == base || self.chunks[self.chunks.len() - 1].field <= field.index;
            has_oneof |= field.oneof.is_some();
            self.chunks.push(Chunk { field: field.index, raw });
        }
        if has_oneof {
            self.keep_last_of_oneofs(shape, base);
        }
        if !sorted {
            self.chunks[base..].sort_by_key(|chunk| chunk.field);
        }
        Ok(())
    }

    fn keep_last_of_oneofs(&mut self, shape: &Shape, base: usize) {
        let mut last: Vec<Option<u16>> = vec![None; shape.oneofs];
        let oneof = |chunk: &Chunk<'_>| shape.fields[usize::from(chunk.field)].oneof.map(usize::from);
        for chunk in &self.chunks[base..] {
            if let Some(oneof) = oneof(chunk) {
                last[oneof] = Some(chunk.field);
            }
        }
        let mut index = 0;
        self.chunks.retain(|chunk| {
            index += 1;
            index <= base || oneof(chunk).is_none_or(|oneof| last[oneof] == Some(chunk.field))
        });
    }

    /// The members of an object. The message's fields are the chunks from `base` to the end.
    fn members(&mut self, shape: &'b Shape, base: usize, mut first: bool) -> Result<(), BadAnswer> {
        let end = self.chunks.len();
        let mut at = base;
        for field in &shape.fields {
            let from = at;
            while at < end && self.chunks[at].field == field.index {
                at += 1;
            }
            if from == at && field.presence {
                continue;
            }
            if self.out.len() > OUT_MAX {
                return Err(BadAnswer::TooLarge);
            }
            if !first {
                self.out.push(b',');
            }
            first = false;
            self.out.extend_from_slice(&field.key);
            self.field(field, from, at)?;
        }
        Ok(())
    }

    /// One field, of which the chunks `from..to` are the values.
    fn field(&mut self, field: &'b Field, from: usize, to: usize) -> Result<(), BadAnswer> {
        match field.label {
            Label::List { .. } => {
                self.out.push(b'[');
                let mut first = true;
                for index in from..to {
                    match (self.chunks[index].raw, field.kind.wire_type()) {
                        (
                            Raw::Bytes(mut packed),
                            WireType::Varint | WireType::ThirtyTwoBit | WireType::SixtyFourBit,
                        ) => {
                            while !packed.is_empty() {
                                let raw = scalar(field.kind.wire_type(), &mut packed)?;
                                self.item(field, raw, &mut first)?;
                            }
                        }
                        (raw, _) => self.item(field, raw, &mut first)?,
                    }
                }
                self.out.push(b']');
                Ok(())
            }
            Label::Map => self.map(field, from, to),
            Label::Single => match (from..to).len() {
                0 => self.zero(field),
                1 => self.single(field.kind, self.chunks[from].raw),
                _ => match field.kind.message() {
                    Some(id) => self.merged(self.shapes.message(id), from, to),
                    None => self.single(field.kind, self.chunks[to - 1].raw),
                },
            },
        }
    }

    fn item(&mut self, field: &Field, raw: Raw<'b>, first: &mut bool) -> Result<(), BadAnswer> {
        if !std::mem::take(first) {
            self.out.push(b',');
        }
        self.single(field.kind, raw)
    }

    /// A message that came in several pieces is all of them, one after the other.
    fn merged(&mut self, shape: &Shape, from: usize, to: usize) -> Result<(), BadAnswer> {
        let mut whole = Vec::new();
        for chunk in &self.chunks[from..to] {
            if let Raw::Bytes(bytes) | Raw::Group(bytes) = chunk.raw {
                whole.extend_from_slice(bytes);
            }
        }
        Writer { shapes: self.shapes, out: self.out, chunks: Vec::new(), depth: self.depth }.message(shape, &whole)
    }

    fn map(&mut self, field: &'b Field, from: usize, to: usize) -> Result<(), BadAnswer> {
        let (key_field, value_field) = self.shapes.entry(field).ok_or(BadAnswer::Malformed)?;
        let mut entries = BTreeMap::new();
        for index in from..to {
            let Raw::Bytes(mut bytes) = self.chunks[index].raw else { continue };
            let (mut key, mut value) = (None, None);
            while !bytes.is_empty() {
                let (number, raw) = next(&mut bytes)?;
                match number {
                    1 if fits(key_field, raw) => key = Some(raw),
                    2 if fits(value_field, raw) => value = Some(raw),
                    _ => {}
                }
            }
            entries.insert(map_key(key_field.kind, key)?, value); // the last of a key holds
        }
        self.out.push(b'{');
        for (index, (key, value)) in entries.into_iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            match key {
                Key::Bool(key) => self.out.extend_from_slice(if key { b"\"true\"" } else { b"\"false\"" }),
                Key::Signed(key) => self.quoted_number(key),
                Key::Unsigned(key) => self.quoted_number(key),
                Key::Text(key) => self.quoted(key),
            }
            self.out.push(b':');
            match value {
                Some(raw) => self.single(value_field.kind, raw)?,
                None => self.zero(value_field)?,
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn single(&mut self, kind: Kind, raw: Raw<'b>) -> Result<(), BadAnswer> {
        match (kind, raw) {
            (Kind::Double | Kind::Fixed64 | Kind::Sfixed64, Raw::Fixed64(bits)) => match kind {
                Kind::Double => self.float(f64::from_bits(bits)),
                Kind::Fixed64 => self.quoted_number(bits),
                _ => self.quoted_number(bits.cast_signed()),
            },
            (Kind::Float | Kind::Fixed32 | Kind::Sfixed32, Raw::Fixed32(bits)) => match kind {
                Kind::Float => {
                    let value = f32::from_bits(bits);
                    if value.is_finite() { self.json(&value) } else { self.float(value.into()) }
                }
                Kind::Fixed32 => self.json(&bits),
                _ => self.json(&bits.cast_signed()),
            },
            (_, Raw::Varint(value)) => self.varint(kind, value),
            (Kind::String, raw) => self.quoted(utf8(raw)?),
            (Kind::Bytes, Raw::Bytes(bytes)) => self.base64(bytes),
            (Kind::Message(id), Raw::Bytes(bytes)) | (Kind::Group(id), Raw::Group(bytes)) => {
                self.message(self.shapes.message(id), bytes)?;
            }
            _ => return Err(BadAnswer::Malformed),
        }
        Ok(())
    }

    #[expect(clippy::cast_possible_truncation, reason = "protobuf cuts a varint to the width of its field")]
    fn varint(&mut self, kind: Kind, value: u64) {
        match kind {
            Kind::Int64 => self.quoted_number(value.cast_signed()),
            Kind::Uint64 => self.quoted_number(value),
            Kind::Sint64 => self.quoted_number((value >> 1).cast_signed() ^ -(value & 1).cast_signed()),
            Kind::Uint32 => self.json(&(value as u32)),
            Kind::Sint32 => {
                let value = value as u32;
                self.json(&((value >> 1).cast_signed() ^ -(value & 1).cast_signed()));
            }
            Kind::Bool => self.out.extend_from_slice(if value == 0 { b"false" } else { b"true" }),
            Kind::Enum(id) => {
                let shape = self.shapes.enumeration(id);
                let number = value as i32;
                match shape.name_of(number) {
                    _ if shape.null => self.out.extend_from_slice(b"null"),
                    Some(name) => self.quoted(name),
                    None => self.json(&number),
                }
            }
            _ => self.json(&(value as i32)),
        }
    }

    /// What a field without presence is when it is absent.
    fn zero(&mut self, field: &Field) -> Result<(), BadAnswer> {
        match (field.label, field.kind) {
            (Label::List { .. }, _) => self.out.extend_from_slice(b"[]"),
            (Label::Map, _) => self.out.extend_from_slice(b"{}"),
            (Label::Single, Kind::Double | Kind::Float) => self.json(&0.0_f32),
            (Label::Single, Kind::String | Kind::Bytes) => self.out.extend_from_slice(b"\"\""),
            (Label::Single, Kind::Fixed64 | Kind::Sfixed64) => self.quoted_number(0),
            (Label::Single, Kind::Fixed32 | Kind::Sfixed32) => self.json(&0),
            (Label::Single, Kind::Message(id) | Kind::Group(id)) => self.message(self.shapes.message(id), &[])?,
            (Label::Single, kind) => self.varint(kind, 0),
        }
        Ok(())
    }

    /// A field with presence that is absent, where something has to stand.
    fn absent(&mut self, field: &Field) -> Result<(), BadAnswer> {
        match field.kind.message() {
            Some(_) => {
                self.out.extend_from_slice(b"null");
                Ok(())
            }
            None => self.zero(field),
        }
    }

    fn any(&mut self, shape: &Shape, base: usize) -> Result<(), BadAnswer> {
        let last = |number: u32| {
            let chunks = self.chunks[base..].iter().rev();
            chunks
                .map(|chunk| (&shape.fields[usize::from(chunk.field)], chunk.raw))
                .find(|(field, _)| field.number == number)
        };
        let type_url = last(1).map_or(Ok(""), |(_, raw)| utf8(raw))?;
        let value = match last(2) {
            Some((_, Raw::Bytes(bytes))) => bytes,
            _ => &[],
        };
        if type_url.is_empty() {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        self.out.extend_from_slice(b"{\"@type\":");
        self.quoted(type_url);
        let name = type_url.rsplit('/').next().unwrap_or_default();
        match self.shapes.find(name).map(|id| self.shapes.message(id)) {
            Some(of) if of.form == Form::Plain => {
                let inner = self.chunks.len();
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(BadAnswer::TooDeep);
                }
                self.scan(of, value, inner)?;
                self.members(of, inner, false)?;
                self.chunks.truncate(inner);
                self.depth -= 1;
            }
            Some(of) => {
                self.out.extend_from_slice(b",\"value\":");
                self.message(of, value)?;
            }
            None => {
                self.out.extend_from_slice(b",\"value\":");
                self.base64(value);
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn value(&mut self, shape: &'b Shape, base: usize) -> Result<(), BadAnswer> {
        let end = self.chunks.len();
        match self.chunks[base..].last().map(|chunk| (&shape.fields[usize::from(chunk.field)], chunk.raw)) {
            Some((Field { kind: Kind::Double, .. }, Raw::Fixed64(bits))) if !f64::from_bits(bits).is_finite() => {
                return Err(BadAnswer::NoJson("google.protobuf.Value without a finite number"));
            }
            Some((field, _)) => self.field(field, base, end)?,
            None => self.out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    fn time(&self, base: usize) -> (i64, i32) {
        let (mut seconds, mut nanos) = (0, 0);
        for chunk in &self.chunks[base..] {
            match (chunk.field, chunk.raw) {
                (0, Raw::Varint(value)) => seconds = value.cast_signed(),
                #[expect(clippy::cast_possible_truncation, reason = "protobuf cuts a varint to the width of its field")]
                (_, Raw::Varint(value)) => nanos = value as i32,
                _ => {}
            }
        }
        (seconds, nanos)
    }

    fn float(&mut self, value: f64) {
        match value {
            value if value.is_finite() => self.json(&value),
            value if value.is_nan() => self.out.extend_from_slice(b"\"NaN\""),
            value if value > 0.0 => self.out.extend_from_slice(b"\"Infinity\""),
            _ => self.out.extend_from_slice(b"\"-Infinity\""),
        }
    }

    fn quoted(&mut self, text: &str) {
        self.json(text);
    }

    fn quoted_number(&mut self, number: impl serde::Serialize) {
        self.out.push(b'"');
        self.json(&number);
        self.out.push(b'"');
    }

    fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        serde_json::to_writer(&mut *self.out, value).expect("numbers and strings are written to memory");
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.quoted(&base64(bytes));
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn map_key<'b>(kind: Kind, raw: Option<Raw<'b>>) -> Result<Key<'b>, BadAnswer> {
    let zero = match kind.wire_type() {
        WireType::SixtyFourBit => Raw::Fixed64(0),
        WireType::ThirtyTwoBit => Raw::Fixed32(0),
        WireType::LengthDelimited => Raw::Bytes(&[]),
        _ => Raw::Varint(0),
    };
    #[expect(clippy::cast_possible_truncation, reason = "protobuf cuts a varint to the width of its field")]
    Ok(match (kind, raw.unwrap_or(zero)) {
        (Kind::Bool, Raw::Varint(value)) => Key::Bool(value != 0),
        (Kind::Int32, Raw::Varint(value)) => Key::Signed((value as i32).into()),
        (Kind::Uint32, Raw::Varint(value)) => Key::Unsigned((value as u32).into()),
        (Kind::Uint64, Raw::Varint(value)) | (Kind::Fixed64, Raw::Fixed64(value)) => Key::Unsigned(value),
        (Kind::Sint32, Raw::Varint(value)) => {
            let value = u64::from(value as u32);
            Key::Signed((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
        }
        (Kind::Sint64, Raw::Varint(value)) => Key::Signed((value >> 1).cast_signed() ^ -(value & 1).cast_signed()),
        (_, Raw::Varint(value)) => Key::Signed(value.cast_signed()),
        (_, Raw::Fixed64(value)) => Key::Signed(value.cast_signed()),
        (Kind::Fixed32, Raw::Fixed32(value)) => Key::Unsigned(value.into()),
        (_, Raw::Fixed32(value)) => Key::Signed(value.cast_signed().into()),
        (_, raw) => Key::Text(utf8(raw)?),
    })
}

/// Whether a value on the wire can be of this field; another one is an unknown field.
fn fits(field: &Field, raw: Raw<'_>) -> bool {
    match (field.kind.wire_type(), raw) {
        (WireType::Varint, Raw::Varint(_))
        | (WireType::SixtyFourBit, Raw::Fixed64(_))
        | (WireType::ThirtyTwoBit, Raw::Fixed32(_))
        | (WireType::LengthDelimited, Raw::Bytes(_))
        | (WireType::StartGroup, Raw::Group(_)) => true,
        (WireType::Varint | WireType::SixtyFourBit | WireType::ThirtyTwoBit, Raw::Bytes(_)) => {
            matches!(field.label, Label::List { .. })
        }
        _ => false,
    }
}

fn utf8(raw: Raw<'_>) -> Result<&str, BadAnswer> {
    match raw {
        Raw::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| BadAnswer::NotUtf8),
        _ => Err(BadAnswer::Malformed),
    }
}

/// The next field's number and value.
fn next<'b>(bytes: &mut &'b [u8]) -> Result<(u32, Raw<'b>), BadAnswer> {
    let (number, wire_type) = key(bytes)?;
    let raw = match wire_type {
        WireType::LengthDelimited => Raw::Bytes(delimited(bytes)?),
        WireType::StartGroup => {
            let start = *bytes;
            let end = skip_group(bytes, number)?;
            Raw::Group(&start[..end])
        }
        WireType::EndGroup => return Err(BadAnswer::Malformed),
        wire_type => scalar(wire_type, bytes)?,
    };
    Ok((number, raw))
}

fn key(bytes: &mut &[u8]) -> Result<(u32, WireType), BadAnswer> {
    let key = decode_varint(bytes).ok().and_then(|key| u32::try_from(key).ok()).ok_or(BadAnswer::Malformed)?;
    let wire_type = WireType::try_from(u64::from(key & 7)).map_err(|_| BadAnswer::Malformed)?;
    match key >> 3 {
        0 => Err(BadAnswer::Malformed),
        number => Ok((number, wire_type)),
    }
}

fn scalar<'b>(wire_type: WireType, bytes: &mut &'b [u8]) -> Result<Raw<'b>, BadAnswer> {
    match wire_type {
        WireType::SixtyFourBit => {
            let (value, rest) = bytes.split_first_chunk().ok_or(BadAnswer::Malformed)?;
            *bytes = rest;
            Ok(Raw::Fixed64(u64::from_le_bytes(*value)))
        }
        WireType::ThirtyTwoBit => {
            let (value, rest) = bytes.split_first_chunk().ok_or(BadAnswer::Malformed)?;
            *bytes = rest;
            Ok(Raw::Fixed32(u32::from_le_bytes(*value)))
        }
        _ => decode_varint(bytes).map(Raw::Varint).map_err(|_| BadAnswer::Malformed),
    }
}

fn delimited<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], BadAnswer> {
    let length = decode_varint(bytes).ok().and_then(|length| usize::try_from(length).ok());
    let (value, rest) = length.and_then(|length| bytes.split_at_checked(length)).ok_or(BadAnswer::Malformed)?;
    *bytes = rest;
    Ok(value)
}

/// Moves behind the end of a group and says how long its content is. Groups in it are counted, not called.
fn skip_group(bytes: &mut &[u8], number: u32) -> Result<usize, BadAnswer> {
    let start = bytes.len();
    let mut open = vec![number];
    loop {
        let before = start - bytes.len();
        let (number, wire_type) = key(bytes)?;
        match wire_type {
            WireType::StartGroup => open.push(number),
            WireType::EndGroup => {
                if open.pop() != Some(number) {
                    return Err(BadAnswer::Malformed);
                }
                if open.is_empty() {
                    return Ok(before);
                }
            }
            WireType::LengthDelimited => {
                delimited(bytes)?;
            }
            wire_type => {
                scalar(wire_type, bytes)?;
            }
        }
    }
}
