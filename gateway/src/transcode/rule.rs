//! `google.api.http`, read from a method's options. The pool may come from a service's own reflection, where the extension may be
//! missing, unknown or another definition of the same name: so the options are read as bytes, by field number.

use prost::Message;
use prost_reflect::MethodDescriptor;

use super::RouteFaultKind;

/// Most bindings of one method, the first included.
const BINDINGS_MAX: usize = 16;

/// `google.protobuf.MethodOptions`, what of it is read here.
#[derive(Clone, PartialEq, Message)]
struct MethodOptions {
    #[prost(message, optional, tag = "72295728")]
    http: Option<HttpRule>,
}

/// `google.api.HttpRule`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct HttpRule {
    #[prost(oneof = "Pattern", tags = "2, 3, 4, 5, 6, 8")]
    pattern: Option<Pattern>,
    #[prost(string, tag = "7")]
    pub(super) body: String,
    #[prost(message, repeated, tag = "11")]
    additional_bindings: Vec<HttpRule>,
    #[prost(string, tag = "12")]
    pub(super) response_body: String,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Pattern {
    #[prost(string, tag = "2")]
    Get(String),
    #[prost(string, tag = "3")]
    Put(String),
    #[prost(string, tag = "4")]
    Post(String),
    #[prost(string, tag = "5")]
    Delete(String),
    #[prost(string, tag = "6")]
    Patch(String),
    #[prost(message, tag = "8")]
    Custom(CustomPattern),
}

/// `google.api.CustomHttpPattern`.
#[derive(Clone, PartialEq, Message)]
struct CustomPattern {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    path: String,
}

impl HttpRule {
    /// Every binding of the method, the rule's own first; none where the method has no rule.
    pub(super) fn of(method: &MethodDescriptor) -> Result<Vec<HttpRule>, RouteFaultKind> {
        let options = method.options().encode_to_vec();
        let options =
            MethodOptions::decode(options.as_slice()).map_err(|error| RouteFaultKind::Rule(error.to_string()))?;
        let Some(mut first) = options.http else {
            return Ok(Vec::new());
        };
        let further = std::mem::take(&mut first.additional_bindings);
        if further.len() >= BINDINGS_MAX {
            return Err(RouteFaultKind::Rule(format!("it has more than {BINDINGS_MAX} bindings")));
        }
        if further.iter().any(|rule| !rule.additional_bindings.is_empty()) {
            return Err(RouteFaultKind::Rule("an additional binding has additional bindings".to_owned()));
        }
        Ok(std::iter::once(first).chain(further).collect())
    }

    /// HTTP method and path template.
    pub(super) fn pattern(&self) -> Result<(http::Method, &str), RouteFaultKind> {
        match &self.pattern {
            Some(Pattern::Get(path)) => Ok((http::Method::GET, path)),
            Some(Pattern::Put(path)) => Ok((http::Method::PUT, path)),
            Some(Pattern::Post(path)) => Ok((http::Method::POST, path)),
            Some(Pattern::Delete(path)) => Ok((http::Method::DELETE, path)),
            Some(Pattern::Patch(path)) => Ok((http::Method::PATCH, path)),
            Some(Pattern::Custom(custom)) => match http::Method::from_bytes(custom.kind.as_bytes()) {
                Ok(method) => Ok((method, &custom.path)),
                Err(_) => Err(RouteFaultKind::Rule(format!("`{}` is no HTTP method", custom.kind))),
            },
            None => Err(RouteFaultKind::Rule("it has no path".to_owned())),
        }
    }
}
