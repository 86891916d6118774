//! The path templates that a rule may have: literal segments, `{field}`, `{nested.field}`, and one `:verb` at the end. The rest
//! of the grammar of `google.api.http` (`*`, `**`, `{name=shelves/*}`) is refused by name.

use thiserror::Error;

/// Most segments of a template, and so of a path that can match one.
pub(super) const SEGMENTS_MAX: usize = 32;
/// Most segments of one template that bind a field: what a match keeps without allocating.
pub(super) const CAPTURES_MAX: usize = 8;

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateFault {
    /// It does not begin with a slash.
    #[error("it does not begin with `/`")]
    NotAbsolute,
    /// Two slashes meet, or one ends it.
    #[error("it has an empty segment; a template ends without a slash")]
    EmptySegment,
    /// `*`, `**` or `{name=...}`.
    #[error(
        "`{0}` is not supported: a segment is a literal, `{{field}}` or `{{nested.field}}`, and the last may end in `:verb`"
    )]
    Unsupported(String),
    /// A brace, a verb or a name where none belongs.
    #[error("`{0}` is neither a literal of [A-Za-z0-9-._~!$&'()+,;=@] nor `{{field}}`")]
    Malformed(String),
    /// The same field in two segments.
    #[error("it binds `{0}` twice")]
    BoundTwice(String),
    /// Longer than a match can be.
    #[error("it has more than {SEGMENTS_MAX} segments, or binds more than {CAPTURES_MAX} fields")]
    TooLong,
}

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Segment {
    /// Matches itself, byte by byte.
    Literal(Box<str>),
    /// Matches one segment of at least one byte and binds the field of this dotted name.
    Capture(Box<str>),
}

/// A path template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) segments: Vec<Segment>,
    /// What follows the last segment's colon.
    pub(super) verb: Option<Box<str>>,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, TemplateFault> {
        let path = text.strip_prefix('/').ok_or(TemplateFault::NotAbsolute)?;
        let mut segments = Vec::new();
        let mut verb = None;
        let mut pieces = path.split('/').peekable();
        while let Some(piece) = pieces.next() {
            let last = pieces.peek().is_none();
            let segment = match piece.rsplit_once(':') {
                Some((segment, name)) if last && is_literal(name) => {
                    verb = Some(name.into());
                    segment
                }
                _ => piece,
            };
            segments.push(Segment::parse(segment)?);
        }

        let captures: Vec<&str> = segments.iter().filter_map(Segment::field).collect();
        if segments.len() > SEGMENTS_MAX || captures.len() > CAPTURES_MAX {
            return Err(TemplateFault::TooLong);
        }
        for (index, name) in captures.iter().enumerate() {
            if captures[..index].contains(name) {
                return Err(TemplateFault::BoundTwice((*name).to_owned()));
            }
        }
        Ok(Self { segments, verb })
    }

    /// Names of the bound fields, in the order of the path.
    pub(super) fn captures(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::field)
    }

    /// The major version that the first segment names (`v1`; not `v1beta1`, which is not stable), where more follows.
    pub(super) fn major(&self) -> Option<u32> {
        match self.segments.as_slice() {
            [Segment::Literal(first), _, ..] => first.strip_prefix('v')?.parse().ok(),
            _ => None,
        }
    }

    /// The template without its first segment.
    pub(super) fn unversioned(&self) -> Self {
        Self { segments: self.segments.get(1..).unwrap_or_default().to_vec(), verb: self.verb.clone() }
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Capture(field) => write!(f, "/{{{field}}}")?,
            }
        }
        match &self.verb {
            Some(verb) => write!(f, ":{verb}"),
            None => Ok(()),
        }
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, TemplateFault> {
        if text.is_empty() {
            return Err(TemplateFault::EmptySegment);
        }
        if text.contains('*') || text.contains('{') && text.contains('=') {
            return Err(TemplateFault::Unsupported(text.to_owned()));
        }
        match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(field) if field.split('.').all(is_identifier) => Ok(Self::Capture(field.into())),
            None if is_literal(text) => Ok(Self::Literal(text.into())),
            _ => Err(TemplateFault::Malformed(text.to_owned())),
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Capture(field) => Some(field),
        }
    }
}

fn is_identifier(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let mut bytes = text.bytes();
    bytes.next().is_some_and(letter) && bytes.all(|byte| letter(byte) || byte.is_ascii_digit())
}

fn is_literal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_fields_nested_fields_and_a_verb_are_understood() {
        let template = Template::parse("/v1/users/{user_id}/orders/{order.order_id}:cancel").unwrap();
        assert_eq!(template.captures().collect::<Vec<_>>(), ["user_id", "order.order_id"]);
        assert_eq!(template.verb.as_deref(), Some("cancel"));
        assert_eq!(template.to_string(), "/v1/users/{user_id}/orders/{order.order_id}:cancel");
        assert_eq!(Template::parse("/v1/users:login").unwrap().to_string(), "/v1/users:login");
    }

    #[test]
    fn the_rest_of_the_grammar_is_refused_by_name() {
        for text in ["/v1/*", "/v1/**", "/v1/{name=shelves/*}", "/v1/{name=*}", "/v1/{name=**}:verb"] {
            assert!(matches!(Template::parse(text), Err(TemplateFault::Unsupported(_))), "{text}");
        }
        for text in
            ["/v1/{a", "/v1/a}", "/v1/{}", "/v1/{a.}", "/v1/{1a}", "/v1/a:b/c", "/v1/a:", "/v1/%20", "/v1/x{a}", "/a b"]
        {
            assert!(matches!(Template::parse(text), Err(TemplateFault::Malformed(_))), "{text}");
        }
        for text in ["/", "/v1//a", "/v1/", "/:verb"] {
            assert_eq!(Template::parse(text), Err(TemplateFault::EmptySegment), "{text}");
        }
        assert_eq!(Template::parse("v1"), Err(TemplateFault::NotAbsolute));
        assert_eq!(Template::parse("/{a}/{a}"), Err(TemplateFault::BoundTwice("a".into())));
        assert_eq!(Template::parse(&"/a".repeat(SEGMENTS_MAX + 1)), Err(TemplateFault::TooLong));
    }

    #[test]
    fn only_a_stable_major_is_a_version() {
        let major = |text| Template::parse(text).unwrap().major();
        assert_eq!(major("/v12/users"), Some(12));
        for text in ["/v1beta1/users", "/users", "/v1", "/v/users", "/{version}/users"] {
            assert_eq!(major(text), None, "{text}");
        }
        assert_eq!(Template::parse("/v1/users:login").unwrap().unversioned().to_string(), "/users:login");
    }
}
