//! JSON Schema of messages, in three dialects: what answers hold, what bodies may hold, what one text may be. Bodies take more than
//! answers show: `null` for what is absent, numbers as text.

use std::collections::{BTreeMap, HashMap};

use prost_reflect::DescriptorPool;
use serde_json::{Map, Value, json};

use super::shape::{EnumShape, Field, Form, Kind, Label, MessageId, Shape, Shapes};

/// Oneofs with more members are described in words only: in a schema they are as many rules as pairs.
const ONEOF_MEMBERS_MAX: usize = 8;

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// In an answer.
    Output,
    /// In a body.
    Input,
    /// In a path or a query.
    Text,
}

/// The schemas that a document refers to, found as they are needed.
pub(super) struct Schemas<'t> {
    /// By name, so that their order is always the same.
    pub(super) components: BTreeMap<String, Value>,
    comments: Comments<'t>,
}

impl<'t> Schemas<'t> {
    pub(super) fn new() -> Self {
        Self { components: BTreeMap::new(), comments: Comments::default() }
    }

    pub(super) fn comment(&mut self, pool: &'t DescriptorPool, file: &str, path: &[i32]) -> Option<String> {
        self.comments.of(pool, file, path)
    }

    /// A message: where it is an object with fields of its own, by reference.
    pub(super) fn message(
        &mut self,
        shapes: &Shapes,
        pool: &'t DescriptorPool,
        id: MessageId,
        dialect: Dialect,
    ) -> Value {
        let shape = shapes.message(id);
        let nullable = |mut schema: Value| {
            if dialect == Dialect::Input
                && let Some(kind) = schema.get("type").cloned()
            {
                schema["type"] = json!([kind, "null"]);
            }
            schema
        };
        match shape.form {
            Form::Plain => {}
            Form::Empty => return nullable(json!({"type": "object", "additionalProperties": false})),
            Form::Any => {
                return nullable(
                    json!({"type": "object", "properties": {"@type": {"type": "string"}}, "additionalProperties": true}),
                );
            }
            Form::Timestamp => return nullable(json!({"type": "string", "format": "date-time"})),
            Form::Duration => {
                return nullable(json!({"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"}));
            }
            Form::FieldMask => {
                return nullable(json!({"type": "string", "pattern": r"^([A-Za-z0-9.]+(,[A-Za-z0-9.]+)*)?$"}));
            }
            Form::Struct => return nullable(json!({"type": "object", "additionalProperties": true})),
            Form::Value => return json!({"description": "Any JSON value."}),
            Form::ListValue => return nullable(json!({"type": "array", "items": {}})),
            Form::Wrapper => {
                return shape.fields.first().map_or(json!({}), |field| self.value(shapes, pool, field.kind, dialect));
            }
        }
        let name = component(shape, dialect);
        if !self.components.contains_key(&name) {
            self.components.insert(name.clone(), Value::Null); // a message may hold itself
            let schema = self.object(shapes, pool, shape, dialect, &[]);
            self.components.insert(name.clone(), schema);
        }
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        if dialect == Dialect::Input { json!({"anyOf": [reference, {"type": "null"}]}) } else { reference }
    }

    /// The object of a message without the fields of the paths `without`.
    pub(super) fn object(
        &mut self,
        shapes: &Shapes,
        pool: &'t DescriptorPool,
        shape: &Shape,
        dialect: Dialect,
        without: &[&[u16]],
    ) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        let fields = || shape.fields.iter().filter(|field| !without.contains(&&[field.index][..]));
        for field in fields() {
            // Of a message that is partly left out there is no other copy to refer to.
            let inner: Vec<&[u16]> = without
                .iter()
                .filter_map(|path| path.split_first())
                .filter(|(first, _)| **first == field.index)
                .map(|(_, rest)| rest)
                .collect();
            let mut schema = match field.kind {
                Kind::Message(id) if !inner.is_empty() => {
                    let mut schema = self.object(shapes, pool, shapes.message(id), dialect, &inner);
                    schema["type"] = json!(["object", "null"]);
                    schema
                }
                _ => self.field(shapes, pool, field, dialect),
            };
            if let Some(comment) = self.comments.field(pool, shape, field) {
                schema["description"] = comment.into(); // beside a $ref, which 3.1 allows
            }
            properties.insert(field.json_name.to_string(), schema);
            if dialect == Dialect::Output && !field.presence {
                required.push(&*field.json_name);
            }
        }
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        if let Some(comment) = self.comments.message(pool, shape) {
            schema["description"] = comment.into();
        }
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        let mut exclusive = Vec::new();
        for oneof in 0..shape.oneofs {
            let members: Vec<&str> = fields()
                .filter(|field| field.oneof.map(usize::from) == Some(oneof))
                .map(|field| &*field.json_name)
                .collect();
            if members.len() <= ONEOF_MEMBERS_MAX {
                for (index, one) in members.iter().enumerate() {
                    exclusive
                        .extend(members[index + 1..].iter().map(|other| json!({"not": {"required": [one, other]}})));
                }
            }
        }
        if !exclusive.is_empty() {
            schema["allOf"] = exclusive.into();
        }
        schema
    }

    /// A whole field.
    pub(super) fn field(
        &mut self,
        shapes: &Shapes,
        pool: &'t DescriptorPool,
        field: &Field,
        dialect: Dialect,
    ) -> Value {
        let kind = |kind: &str| if dialect == Dialect::Input { json!([kind, "null"]) } else { json!(kind) };
        match field.label {
            Label::Single => self.value(shapes, pool, field.kind, dialect),
            Label::List { .. } => {
                let item = self.item(shapes, pool, field.kind, dialect);
                json!({"type": kind("array"), "items": item})
            }
            Label::Map => {
                let Some((key, value)) = shapes.entry(field) else { return json!({"type": "object"}) };
                let item = self.item(shapes, pool, value.kind, dialect);
                let mut schema = json!({"type": kind("object"), "additionalProperties": item});
                // The longest numbers do not all fit: of what is taken one digit less is promised.
                let digits = |digits: u8| if dialect == Dialect::Output { digits } else { digits - 1 };
                let names = match key.kind {
                    Kind::String => return schema,
                    Kind::Bool => json!({"enum": ["true", "false"]}),
                    Kind::Uint32 | Kind::Fixed32 => json!({"pattern": format!("^(0|[1-9][0-9]{{0,{}}})$", digits(9))}),
                    Kind::Uint64 | Kind::Fixed64 => json!({"pattern": format!("^(0|[1-9][0-9]{{0,{}}})$", digits(19))}),
                    Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                        json!({"pattern": format!("^(0|-?[1-9][0-9]{{0,{}}})$", digits(9))})
                    }
                    _ => json!({"pattern": format!("^(0|-?[1-9][0-9]{{0,{}}})$", digits(18))}),
                };
                schema["propertyNames"] = names;
                schema
            }
        }
    }

    /// A value of a list or a map, where `null` is no absence.
    fn item(&mut self, shapes: &Shapes, pool: &'t DescriptorPool, kind: Kind, dialect: Dialect) -> Value {
        let mut schema = self.value(shapes, pool, kind, dialect);
        if shapes.takes_null(kind) {
            return schema;
        }
        if let Some(kinds) = schema.get_mut("type").and_then(Value::as_array_mut) {
            kinds.retain(|kind| kind != "null");
        }
        let only = schema.get_mut("anyOf").and_then(Value::as_array_mut).and_then(|options| {
            options.retain(|option| option["type"] != "null");
            if options.len() == 1 { options.pop() } else { None }
        });
        only.unwrap_or(schema)
    }

    /// One value of a kind.
    pub(super) fn value(&mut self, shapes: &Shapes, pool: &'t DescriptorPool, kind: Kind, dialect: Dialect) -> Value {
        let types = |kinds: &[&str]| match (dialect, kinds) {
            (Dialect::Input, kinds) => json!(kinds.iter().copied().chain(["null"]).collect::<Vec<_>>()),
            (_, [kind]) => json!(kind),
            (_, kinds) => json!(kinds),
        };
        match kind {
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                integer(dialect, "int32", i32::MIN.into(), i32::MAX.into(), "^(0|-?[1-9][0-9]{0,8})$")
            }
            Kind::Uint32 | Kind::Fixed32 => integer(dialect, "uint32", 0, u32::MAX.into(), "^(0|[1-9][0-9]{0,8})$"),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => match dialect {
                Dialect::Output => json!({"type": "string", "format": "int64", "pattern": "^(0|-?[1-9][0-9]{0,18})$"}),
                _ => integer(dialect, "int64", i64::MIN.into(), i64::MAX.into(), "^(0|-?[1-9][0-9]{0,17})$"),
            },
            Kind::Uint64 | Kind::Fixed64 => match dialect {
                Dialect::Output => json!({"type": "string", "format": "uint64", "pattern": "^(0|[1-9][0-9]{0,19})$"}),
                _ => integer(dialect, "uint64", 0, u64::MAX.into(), "^(0|[1-9][0-9]{0,18})$"),
            },
            Kind::Double => {
                json!({"type": types(&["number", "string"]), "format": "double", "pattern": "^(NaN|-?Infinity)$"})
            }
            Kind::Float => {
                let bound = f64::from(f32::MAX);
                json!({"type": types(&["number", "string"]), "format": "float", "minimum": -bound, "maximum": bound, "pattern": "^(NaN|-?Infinity)$"})
            }
            Kind::Bool => json!({"type": types(&["boolean"])}),
            Kind::String => json!({"type": types(&["string"])}),
            Kind::Bytes => json!({
                "type": types(&["string"]),
                "contentEncoding": "base64",
                "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}(==)?|[A-Za-z0-9+/]{3}=?)?$",
            }),
            Kind::Enum(id) => enumeration(shapes.enumeration(id), dialect),
            Kind::Message(id) | Kind::Group(id) => self.message(shapes, pool, id, dialect),
        }
    }
}

/// A message's name among the components. A dash is in no proto name.
fn component(shape: &Shape, dialect: Dialect) -> String {
    match dialect {
        Dialect::Input => format!("{}-Input", shape.name),
        _ => shape.name.to_string(),
    }
}

fn integer(dialect: Dialect, format: &str, minimum: i128, maximum: i128, pattern: &str) -> Value {
    let bound = |value: i128| match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => json!(value),
        (_, Ok(value)) => json!(value),
        _ => Value::Null,
    };
    let (minimum, maximum) = (bound(minimum), bound(maximum));
    match dialect {
        Dialect::Input => json!({
            "type": ["integer", "string", "null"], "format": format, "minimum": minimum, "maximum": maximum, "pattern": pattern,
        }),
        _ => json!({"type": "integer", "format": format, "minimum": minimum, "maximum": maximum}),
    }
}

fn enumeration(shape: &EnumShape, dialect: Dialect) -> Value {
    if shape.null {
        return match dialect {
            Dialect::Text => json!({"type": "string", "enum": ["NULL_VALUE"]}),
            Dialect::Input => json!({"enum": [null, "NULL_VALUE"]}),
            Dialect::Output => json!({"type": "null"}),
        };
    }
    let names: Vec<&str> = shape.values.iter().map(|(name, _)| &**name).collect();
    let named = json!({"type": "string", "enum": names});
    let number = if shape.closed {
        json!({"type": "integer", "enum": shape.values.iter().map(|(_, number)| number).collect::<Vec<_>>()})
    } else {
        json!({"type": "integer", "format": "int32", "minimum": i32::MIN, "maximum": i32::MAX})
    };
    match dialect {
        Dialect::Input => json!({"anyOf": [named, number, {"type": "null"}]}),
        Dialect::Text => json!({"anyOf": [named, number]}),
        Dialect::Output if shape.closed => named,
        Dialect::Output => json!({"anyOf": [named, number]}),
    }
}

/// Comments of proto files, by file and path; where a service serves none there are none.
#[derive(Default)]
struct Comments<'t> {
    files: HashMap<(*const (), String), HashMap<&'t [i32], &'t str>>,
}

impl<'t> Comments<'t> {
    fn of(&mut self, pool: &'t DescriptorPool, file: &str, path: &[i32]) -> Option<String> {
        let key = (std::ptr::from_ref(pool).cast(), file.to_owned());
        let comments = self.files.entry(key).or_insert_with(|| {
            let proto = pool.file_descriptor_protos().find(|proto| proto.name() == file);
            let locations =
                proto.and_then(|proto| proto.source_code_info.as_ref()).map_or(&[][..], |info| &info.location);
            locations
                .iter()
                .map(|at| (at.path.as_slice(), at.leading_comments()))
                .filter(|(_, text)| !text.is_empty())
                .collect()
        });
        comments.get(path).map(|text| unwrapped(text))
    }

    fn message(&mut self, pool: &'t DescriptorPool, shape: &Shape) -> Option<String> {
        let message = pool.get_message_by_name(&shape.name)?;
        self.of(pool, message.parent_file().name(), message.path())
    }

    fn field(&mut self, pool: &'t DescriptorPool, shape: &Shape, field: &Field) -> Option<String> {
        let message = pool.get_message_by_name(&shape.name)?;
        let descriptor = message.get_field(field.number)?;
        self.of(pool, message.parent_file().name(), descriptor.path())
    }
}

/// A comment with its lines joined to paragraphs; what is indented further stays as it is.
fn unwrapped(text: &str) -> String {
    let mut paragraphs = String::new();
    let mut flowing = false;
    for line in text.lines() {
        let line = line.strip_prefix(' ').unwrap_or(line).trim_end();
        let flows = !line.is_empty() && !line.starts_with([' ', '-', '*']);
        if flowing && flows {
            paragraphs.push(' ');
        } else if !paragraphs.is_empty() {
            paragraphs.push('\n');
        }
        paragraphs.push_str(line);
        flowing = flows;
    }
    paragraphs.trim_end().to_owned()
}
