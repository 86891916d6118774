//! What a path and a query say, as fields of the request: names to fields, percent-decoding, and their bytes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::input::Violation;
use super::read::message_literal;
use super::scalar::{self, Literal, put_bytes};
use super::shape::{Field, Form, Kind, Label, MessageId, Shape, Shapes};

/// Deepest field that a query parameter may name, and that is listed.
const DEPTH_MAX: usize = 8;
/// Most parameters that are listed of one route.
const LISTED_MAX: usize = 256;
/// Most fields that are looked at to list them: types that name each other have more paths than anybody can walk.
const VISITED_MAX: usize = 4096;
/// Most faults of one query that are told; the next one says that there are more.
const VIOLATIONS_MAX: usize = 16;

/// A field by its place in a message, in a message in it, and so on. Two paths are equal when they name the same field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FieldPath {
    root: MessageId,
    /// Indexes, at least one, all but the last those of single messages.
    steps: Vec<u16>,
}

impl FieldPath {
    /// The field of a dotted name that one text can fill; `lists` says whether it may be a list.
    pub(super) fn resolve(shapes: &Shapes, root: MessageId, name: &str, lists: bool) -> Result<Self, PathFault> {
        let mut steps = Vec::new();
        let mut within = Some(root);
        let mut label = Label::Single;
        let mut kind = None;
        for part in name.split('.') {
            if steps.len() == DEPTH_MAX || label != Label::Single {
                return Err(PathFault::Unknown);
            }
            let field = within.and_then(|id| shapes.message(id).by_name(part)).ok_or(PathFault::Unknown)?;
            steps.push(field.index);
            within = match field.kind {
                Kind::Message(id) if shapes.message(id).form == Form::Plain => Some(id), // others are one text, or none
                _ => None,
            };
            label = field.label;
            kind = Some(field.kind);
        }
        let fits = match label {
            Label::Single => true,
            Label::List { .. } => lists,
            Label::Map => false,
        };
        if !fits || !kind.is_some_and(|kind| shapes.has_text(kind)) {
            return Err(PathFault::NoText);
        }
        Ok(Self { root, steps })
    }

    /// The fields on the way, the last the one that is meant.
    pub(super) fn fields<'s>(&self, shapes: &'s Shapes) -> Vec<&'s Field> {
        let mut within = Some(self.root);
        let mut fields = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let Some(field) = within.and_then(|id| shapes.message(id).fields.get(usize::from(*step))) else { break };
            fields.push(field);
            within = field.kind.message();
        }
        fields
    }

    /// Full name of the message that holds the field.
    pub(super) fn owner<'s>(&self, shapes: &'s Shapes) -> &'s str {
        let fields = self.fields(shapes);
        let parent = fields.len().checked_sub(2).and_then(|parent| fields[parent].kind.message());
        &shapes.message(parent.unwrap_or(self.root)).name
    }

    pub(super) fn first(&self) -> u16 {
        self.steps.first().copied().unwrap_or_default()
    }

    /// Indexes of the fields on the way.
    pub(super) fn steps(&self) -> &[u16] {
        &self.steps
    }

    /// Appends the field with this text as its value. A nested one comes in messages of its own: to a decoder, two messages of one field are one.
    pub(super) fn put(&self, shapes: &Shapes, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
        let fields = self.fields(shapes);
        let Some((last, parents)) = fields.split_last() else { return Ok(()) };
        if parents.is_empty() {
            return put_field(shapes, last, text, out);
        }
        let mut inner = Vec::with_capacity(text.len() + 16);
        put_field(shapes, last, text, &mut inner)?;
        for parent in parents.iter().rev() {
            let mut outer = Vec::with_capacity(inner.len() + 16);
            outer.extend_from_slice(parent.tag.bytes());
            put_bytes(&inner, &mut outer);
            inner = outer;
        }
        out.append(&mut inner);
        Ok(())
    }
}

fn put_field(shapes: &Shapes, field: &Field, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    out.extend_from_slice(field.tag.bytes());
    match field.kind.message() {
        Some(id) => {
            let mut content = Vec::new();
            message_literal(shapes, shapes.message(id), Literal::Text(text), &mut content)?;
            put_bytes(&content, out);
            Ok(())
        }
        None => scalar::put(shapes, field.kind, Literal::Text(text), out),
    }
}

/// Why a name is no field that a path or a query can fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathFault {
    /// There is no such field.
    Unknown,
    /// It is a list, a map or a message without a text form.
    NoText,
}

/// The query parameters that a route takes.
#[derive(Debug)]
pub(super) struct Query {
    root: MessageId,
    /// Fields that the path fills.
    path: Vec<FieldPath>,
    /// The field that the body fills.
    body: Option<u16>,
    /// Whether no parameter is taken.
    closed: bool,
    /// JSON names and fields, in the order of the files; for documents and errors.
    pub(super) listed: Vec<(String, FieldPath)>,
}

impl Query {
    pub(super) fn new(shapes: &Shapes, root: MessageId, path: &[FieldPath], body: Option<u16>) -> Self {
        let mut query = Self { root, path: path.to_vec(), body, listed: Vec::new(), closed: false };
        let mut within = vec![root];
        query.list(shapes, shapes.message(root), &mut within, &mut Vec::new(), "", &mut 0);
        query
    }

    /// Of a route whose body is the whole request.
    pub(super) fn none(root: MessageId) -> Self {
        Self { root, path: Vec::new(), body: None, listed: Vec::new(), closed: true }
    }

    fn list(
        &mut self,
        shapes: &Shapes,
        shape: &Shape,
        within: &mut Vec<MessageId>,
        steps: &mut Vec<u16>,
        prefix: &str,
        visited: &mut usize,
    ) {
        for field in &shape.fields {
            if *visited == VISITED_MAX {
                return;
            }
            *visited += 1;
            if self.listed.len() == LISTED_MAX || steps.is_empty() && self.body == Some(field.index) {
                continue;
            }
            steps.push(field.index);
            let name = format!("{prefix}{}", field.json_name);
            let path = FieldPath { root: self.root, steps: steps.clone() };
            match (field.label, field.kind) {
                (Label::Map, _) => {}
                (_, kind) if shapes.has_text(kind) && self.path.contains(&path) => {}
                (_, kind) if shapes.has_text(kind) => self.listed.push((name, path)),
                // A message inside itself is listed once; deeper names work, but have no end.
                (Label::Single, Kind::Message(id)) if steps.len() < DEPTH_MAX && !within.contains(&id) => {
                    let inner = shapes.message(id);
                    if inner.form == Form::Plain {
                        within.push(id);
                        self.list(shapes, inner, within, steps, &format!("{name}."), visited);
                        within.pop();
                    }
                }
                _ => {}
            }
            steps.pop();
        }
    }

    /// Appends every parameter of a query string; what is wrong goes into `violations`.
    pub(super) fn put(&self, shapes: &Shapes, query: &str, out: &mut Vec<u8>, violations: &mut Vec<Violation>) {
        let mut seen: BTreeSet<(FieldPath, Option<u16>)> = BTreeSet::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if violations.len() >= VIOLATIONS_MAX {
                violations.push(Violation::new("query", "has more that is wrong; correct these first"));
                return;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name, true), decode(value, true)) else {
                violations.push(Violation::new(shown(name), "is not percent-encoded UTF-8"));
                continue;
            };
            if let Err(description) = self.put_one(shapes, &name, &value, &mut seen, out) {
                violations.push(Violation::new(shown(&name), description));
            }
        }
    }

    fn put_one(
        &self,
        shapes: &Shapes,
        name: &str,
        value: &str,
        seen: &mut BTreeSet<(FieldPath, Option<u16>)>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if self.closed {
            return Err(self.refusal(PathFault::Unknown));
        }
        let path = FieldPath::resolve(shapes, self.root, name, true).map_err(|fault| self.refusal(fault))?;
        if self.path.contains(&path) {
            return Err("is given by the path; leave it out of the query".to_owned());
        }
        if self.body == Some(path.first()) {
            return Err("is given by the body; leave it out of the query".to_owned());
        }
        let field = path.fields(shapes).pop();
        if field.is_some_and(|field| field.label == Label::Single) && !seen.insert((path.clone(), None)) {
            return Err("is there twice, and takes one value".to_owned());
        }
        if let Some(oneof) = field.and_then(|field| field.oneof) {
            let parent = FieldPath { root: path.root, steps: path.steps[..path.steps.len() - 1].to_vec() };
            if !seen.insert((parent, Some(oneof))) {
                return Err("excludes another parameter that is there, too: they are one of several (oneof)".to_owned());
            }
        }
        let before = out.len();
        path.put(shapes, value, out).inspect_err(|_| out.truncate(before))
    }

    fn refusal(&self, fault: PathFault) -> String {
        let mut names: Vec<&str> = self.listed.iter().map(|(name, _)| name.as_str()).collect();
        names.truncate(32);
        let allowed = match names.as_slice() {
            [] => "this method takes no query parameter".to_owned(),
            names => format!("this method takes {}", names.join(", ")),
        };
        match fault {
            PathFault::Unknown => format!("is no query parameter here; {allowed}"),
            PathFault::NoText => format!("is a field that only a body can fill; {allowed}"),
        }
    }
}

/// A name as an error repeats it.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

/// Percent-decodes; `None` where an escape is cut short or the bytes are no UTF-8.
pub(super) fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+' && plus_is_space) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let [high, low, tail @ ..] = rest else { return None };
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?);
                rest = tail;
            }
            b'+' if plus_is_space => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding_takes_whole_escapes_of_utf_8() {
        assert_eq!(decode("a%2Fb+c", false).as_deref(), Some("a/b+c"));
        assert_eq!(decode("a%2fb+c", true).as_deref(), Some("a/b c"));
        assert_eq!(decode("%C3%A9", false).as_deref(), Some("é"));
        for text in ["%", "%2", "%zz", "%+1", "%C3", "%FF", "%é"] {
            assert_eq!(decode(text, true), None, "{text}");
        }
    }

    /// Messages `M0`, `M1`, ..., each with a single field of every one of them.
    fn tangle(messages: usize) -> Shapes {
        use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
        let field = |to: usize| FieldDescriptorProto {
            name: Some(format!("f{to}")),
            number: Some(i32::try_from(to).unwrap() + 1),
            label: Some(1),
            r#type: Some(11),
            type_name: Some(format!(".t.M{to}")),
            ..Default::default()
        };
        let message = |of: usize| DescriptorProto {
            name: Some(format!("M{of}")),
            field: (0..messages).map(field).collect(),
            ..Default::default()
        };
        let file = FileDescriptorProto {
            name: Some("t.proto".to_owned()),
            package: Some("t".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: (0..messages).map(message).collect(),
            ..Default::default()
        };
        let pool = prost_reflect::DescriptorPool::from_file_descriptor_set(FileDescriptorSet { file: vec![file] });
        Shapes::compile(&pool.unwrap())
    }

    #[test]
    fn types_that_name_each_other_are_listed_within_bounds() {
        let shapes = tangle(9);
        let root = shapes.find("t.M0").unwrap();
        let mut query = Query::none(root);
        let mut visited = 0;
        query.list(&shapes, shapes.message(root), &mut vec![root], &mut Vec::new(), "", &mut visited);
        assert_eq!((visited, query.listed.len()), (VISITED_MAX, 0));
    }

    #[test]
    fn a_query_that_is_all_wrong_is_told_so_briefly() {
        let shapes = tangle(1);
        let query = Query::none(shapes.find("t.M0").unwrap());
        let mut violations = Vec::new();
        query.put(&shapes, &"a&".repeat(4096), &mut Vec::new(), &mut violations);
        assert_eq!(violations.len(), VIOLATIONS_MAX + 1);
        assert!(violations.last().unwrap().description.contains("more"), "{violations:?}");
    }
}
