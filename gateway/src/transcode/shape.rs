//! Every message of a pool as a flat table: what reading and writing JSON needs of a descriptor, looked up once at load. Messages
//! and enums name each other by index, so a recursive type is no cycle of pointers.

use std::collections::HashMap;

use prost::encoding::{WireType, encode_varint};
use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, Syntax};

/// The types of one pool.
#[derive(Debug)]
pub(super) struct Shapes {
    messages: Vec<Shape>,
    enums: Vec<EnumShape>,
    /// Full names of messages.
    names: HashMap<Box<str>, MessageId>,
}

/// Index of a message in its [`Shapes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MessageId(u32);

/// Index of an enum in its [`Shapes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EnumId(u32);

/// A message.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) name: Box<str>,
    /// In the order of the file.
    pub(super) fields: Vec<Field>,
    /// Number of its oneofs; those of `optional` fields are not counted.
    pub(super) oneofs: usize,
    pub(super) form: Form,
    /// JSON names and proto names, sorted.
    names: Vec<(Box<str>, u16)>,
    /// Field numbers, sorted.
    numbers: Vec<(u32, u16)>,
}

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    /// Place in [`Shape::fields`].
    pub(super) index: u16,
    pub(super) number: u32,
    pub(super) name: Box<str>,
    pub(super) json_name: Box<str>,
    /// `"jsonName":`
    pub(super) key: Box<[u8]>,
    pub(super) kind: Kind,
    pub(super) label: Label,
    /// Whether absent differs from zero.
    pub(super) presence: bool,
    pub(super) oneof: Option<u16>,
    /// Tag of one value; of a group, its start.
    pub(super) tag: Tag,
    /// Tag of a packed list; of a group, its end.
    pub(super) other_tag: Tag,
}

/// How many values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Single,
    List {
        packed: bool,
    },
    /// Its kind is the message of an entry.
    Map,
}

/// Type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
    Group(MessageId),
}

/// How a message is written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An object with a member for each field.
    Plain,
    Empty,
    Any,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    /// As its only field.
    Wrapper,
}

/// An encoded field key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tag {
    bytes: [u8; 5],
    len: u8,
}

/// An enum.
#[derive(Debug)]
pub(super) struct EnumShape {
    pub(super) name: Box<str>,
    /// Whether numbers without a name are refused.
    pub(super) closed: bool,
    /// Whether it is `google.protobuf.NullValue`.
    pub(super) null: bool,
    /// Names in the order of the file.
    pub(super) values: Vec<(Box<str>, i32)>,
    by_name: Vec<(Box<str>, i32)>,
    by_number: Vec<(i32, Box<str>)>,
}

impl Shapes {
    pub(super) fn compile(pool: &DescriptorPool) -> Self {
        let id =
            |index: usize| u32::try_from(index).expect("a pool that was decoded from bytes has fewer than 2^32 types");
        let names =
            pool.all_messages().enumerate().map(|(index, message)| (message.full_name().into(), MessageId(id(index))));
        let names: HashMap<Box<str>, MessageId> = names.collect();
        let enum_names =
            pool.all_enums().enumerate().map(|(index, entry)| (entry.full_name().into(), EnumId(id(index))));
        let enum_names: HashMap<Box<str>, EnumId> = enum_names.collect();

        let enums = pool.all_enums().map(|entry| EnumShape::compile(&entry)).collect();
        let messages = pool.all_messages().map(|message| Shape::compile(&message, &names, &enum_names)).collect();
        Self { messages, enums, names }
    }

    pub(super) fn find(&self, full_name: &str) -> Option<MessageId> {
        self.names.get(full_name).copied()
    }

    pub(super) fn message(&self, id: MessageId) -> &Shape {
        &self.messages[id.0 as usize]
    }

    pub(super) fn enumeration(&self, id: EnumId) -> &EnumShape {
        &self.enums[id.0 as usize]
    }

    /// The entries' message of a map field.
    pub(super) fn entry(&self, field: &Field) -> Option<(&Field, &Field)> {
        match (field.label, field.kind) {
            (Label::Map, Kind::Message(id)) => match self.message(id).fields.as_slice() {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the field's values are messages of this form.
    pub(super) fn has_form(&self, kind: Kind, form: Form) -> bool {
        matches!(kind, Kind::Message(id) if self.message(id).form == form)
    }

    /// Whether `null` is a value of this type, rather than its absence.
    pub(super) fn takes_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Enum(id) => self.enumeration(id).null,
            kind => self.has_form(kind, Form::Value),
        }
    }

    /// Whether a value fits into one text: a segment of a path, a query parameter.
    pub(super) fn has_text(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(id) => {
                matches!(self.message(id).form, Form::Timestamp | Form::Duration | Form::FieldMask | Form::Wrapper)
            }
            Kind::Group(_) => false,
            _ => true,
        }
    }
}

impl Shape {
    fn compile(
        message: &MessageDescriptor,
        messages: &HashMap<Box<str>, MessageId>,
        enums: &HashMap<Box<str>, EnumId>,
    ) -> Self {
        let oneofs: Vec<String> =
            message.oneofs().filter(|oneof| !oneof.is_synthetic()).map(|oneof| oneof.name().to_owned()).collect();
        // In the order of the file, which the pool does not keep.
        let mut descriptors: Vec<FieldDescriptor> = message.fields().collect();
        descriptors.sort_by_key(|field| field.path().last().copied());
        let mut fields = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            let Ok(index) = u16::try_from(fields.len()) else { break }; // protobuf compilers allow fewer
            fields.push(Field::compile(index, &descriptor, &oneofs, messages, enums));
        }

        let mut names: Vec<(Box<str>, u16)> = fields.iter().map(|field| (field.name.clone(), field.index)).collect();
        names.extend(fields.iter().map(|field| (field.json_name.clone(), field.index)));
        names.sort();
        names.dedup_by(|next, kept| next.0 == kept.0);
        let mut numbers: Vec<(u32, u16)> = fields.iter().map(|field| (field.number, field.index)).collect();
        numbers.sort_unstable();
        let form = Form::of(message);
        Self { name: message.full_name().into(), fields, oneofs: oneofs.len(), form, names, numbers }
    }

    /// A field by its name in the proto file or in JSON.
    pub(super) fn by_name(&self, name: &str) -> Option<&Field> {
        let at = self.names.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.fields[usize::from(self.names[at].1)])
    }

    /// A field by its number.
    pub(super) fn by_number(&self, number: u32) -> Option<&Field> {
        // Most messages number their fields from 1 without a gap.
        let guess = usize::try_from(number).ok()?.checked_sub(1)?;
        let at = match self.numbers.get(guess) {
            Some((known, _)) if *known == number => guess,
            _ => self.numbers.binary_search_by_key(&number, |(known, _)| *known).ok()?,
        };
        Some(&self.fields[usize::from(self.numbers[at].1)])
    }
}

impl Field {
    fn compile(
        index: u16,
        field: &FieldDescriptor,
        oneofs: &[String],
        messages: &HashMap<Box<str>, MessageId>,
        enums: &HashMap<Box<str>, EnumId>,
    ) -> Self {
        use prost_reflect::Kind as Of;
        let message = |message: &MessageDescriptor| messages[message.full_name()];
        let kind = match field.kind() {
            Of::Double => Kind::Double,
            Of::Float => Kind::Float,
            Of::Int32 => Kind::Int32,
            Of::Int64 => Kind::Int64,
            Of::Uint32 => Kind::Uint32,
            Of::Uint64 => Kind::Uint64,
            Of::Sint32 => Kind::Sint32,
            Of::Sint64 => Kind::Sint64,
            Of::Fixed32 => Kind::Fixed32,
            Of::Fixed64 => Kind::Fixed64,
            Of::Sfixed32 => Kind::Sfixed32,
            Of::Sfixed64 => Kind::Sfixed64,
            Of::Bool => Kind::Bool,
            Of::String => Kind::String,
            Of::Bytes => Kind::Bytes,
            Of::Enum(entry) => Kind::Enum(enums[entry.full_name()]),
            Of::Message(of) if field.is_group() => Kind::Group(message(&of)),
            Of::Message(of) => Kind::Message(message(&of)),
        };
        let label = match field.cardinality() {
            _ if field.is_map() => Label::Map,
            Cardinality::Repeated => Label::List { packed: field.is_packed() },
            _ => Label::Single,
        };
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let oneof = oneof.and_then(|oneof| oneofs.iter().position(|name| name == oneof.name()));
        let other = if matches!(kind, Kind::Group(_)) { WireType::EndGroup } else { WireType::LengthDelimited };
        let mut key = serde_json::to_vec(field.json_name()).expect("a string is JSON");
        key.push(b':');
        Self {
            index,
            number: field.number(),
            name: field.name().into(),
            json_name: field.json_name().into(),
            key: key.into(),
            kind,
            label,
            presence: field.supports_presence(),
            oneof: oneof.and_then(|oneof| u16::try_from(oneof).ok()),
            tag: Tag::new(field.number(), kind.wire_type()),
            other_tag: Tag::new(field.number(), other),
        }
    }
}

impl Tag {
    fn new(number: u32, wire_type: WireType) -> Self {
        let mut buffer = Vec::with_capacity(5);
        encode_varint(u64::from(number << 3 | wire_type as u32), &mut buffer);
        let mut tag = Self { bytes: [0; 5], len: 0 };
        for (slot, byte) in tag.bytes.iter_mut().zip(buffer) {
            *slot = byte;
            tag.len += 1;
        }
        tag
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Kind {
    pub(super) fn wire_type(self) -> WireType {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => WireType::SixtyFourBit,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => WireType::ThirtyTwoBit,
            Self::String | Self::Bytes | Self::Message(_) => WireType::LengthDelimited,
            Self::Group(_) => WireType::StartGroup,
            _ => WireType::Varint,
        }
    }

    pub(super) fn message(self) -> Option<MessageId> {
        match self {
            Self::Message(id) | Self::Group(id) => Some(id),
            _ => None,
        }
    }
}

impl Form {
    /// By the message's name, and only if its fields are those of the public definition: descriptors come from services.
    fn of(message: &MessageDescriptor) -> Self {
        use prost_reflect::Kind as Of;
        let field = |number: u32| message.get_field(number);
        let has = |number: u32, kind: Of| field(number).is_some_and(|field| field.kind() == kind && !field.is_list());
        let list = |kind: &dyn Fn(&Of) -> bool| field(1).is_some_and(|field| field.is_list() && kind(&field.kind()));
        let of = |number: u32, name: &str| {
            field(number).is_some_and(|field| matches!(field.kind(), Of::Message(of) if of.full_name() == name))
        };
        let wrapper = |kind: Of| if has(1, kind) { Self::Wrapper } else { Self::Plain };
        let known = |form: Self, holds: bool| if holds { form } else { Self::Plain };
        let Some(name) = message.full_name().strip_prefix("google.protobuf.") else {
            return Self::Plain;
        };
        match name {
            "Empty" => known(Self::Empty, message.fields().len() == 0),
            "Any" => known(Self::Any, has(1, Of::String) && has(2, Of::Bytes)),
            "Timestamp" => known(Self::Timestamp, has(1, Of::Int64) && has(2, Of::Int32)),
            "Duration" => known(Self::Duration, has(1, Of::Int64) && has(2, Of::Int32)),
            "FieldMask" => known(Self::FieldMask, list(&|kind| matches!(kind, Of::String))),
            "Struct" => known(
                Self::Struct,
                field(1).is_some_and(|field| field.is_map()) && of(1, "google.protobuf.Struct.FieldsEntry"),
            ),
            "ListValue" => {
                known(Self::ListValue, field(1).is_some_and(|f| f.is_list()) && of(1, "google.protobuf.Value"))
            }
            "Value" => known(
                Self::Value,
                field(1).is_some_and(|field| matches!(field.kind(), Of::Enum(_)))
                    && has(2, Of::Double)
                    && has(3, Of::String)
                    && has(4, Of::Bool)
                    && of(5, "google.protobuf.Struct")
                    && of(6, "google.protobuf.ListValue"),
            ),
            "DoubleValue" => wrapper(Of::Double),
            "FloatValue" => wrapper(Of::Float),
            "Int64Value" => wrapper(Of::Int64),
            "UInt64Value" => wrapper(Of::Uint64),
            "Int32Value" => wrapper(Of::Int32),
            "UInt32Value" => wrapper(Of::Uint32),
            "BoolValue" => wrapper(Of::Bool),
            "StringValue" => wrapper(Of::String),
            "BytesValue" => wrapper(Of::Bytes),
            _ => Self::Plain,
        }
    }
}

impl EnumShape {
    fn compile(entry: &EnumDescriptor) -> Self {
        let mut values: Vec<(i32, Box<str>, i32)> = entry
            .values()
            .map(|value| (value.path().last().copied().unwrap_or(0), value.name().into(), value.number()))
            .collect();
        values.sort_by_key(|(position, ..)| *position);
        let values: Vec<(Box<str>, i32)> = values.into_iter().map(|(_, name, number)| (name, number)).collect();
        let mut by_name = values.clone();
        by_name.sort();
        // Of several names of a number the first is written.
        let mut by_number: Vec<(i32, Box<str>)> = values.iter().map(|(name, number)| (*number, name.clone())).collect();
        by_number.sort_by_key(|(number, _)| *number);
        by_number.dedup_by_key(|(number, _)| *number);
        Self {
            name: entry.full_name().into(),
            closed: entry.parent_file().syntax() == Syntax::Proto2,
            null: entry.full_name() == "google.protobuf.NullValue",
            values,
            by_name,
            by_number,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<i32> {
        let at = self.by_name.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(self.by_name[at].1)
    }

    pub(super) fn name_of(&self, number: i32) -> Option<&str> {
        let at = self.by_number.binary_search_by_key(&number, |(known, _)| *known).ok()?;
        Some(&self.by_number[at].1)
    }
}
