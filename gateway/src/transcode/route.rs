//! What one service offers: its methods, and the HTTP requests that stand for them. Everything that a request needs of the descriptors
//! is looked up here, once for a service's descriptors.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use thiserror::Error;

use super::input::{BadInput, Violation};
use super::rule::HttpRule;
use super::shape::{Field, Label, MessageId, Shapes};
use super::table::Captures;
use super::template::{Template, TemplateFault};
use super::text::{FieldPath, Query, decode};
use super::{read, write};

/// Most routes of one service.
pub const ROUTES_MAX: usize = 2048;
/// gRPC services that every process has, for its own sake.
const PLUMBING: &str = "grpc.";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What an answer of this type says it is, it is.
const HTTP_BODY: &str = "google.api.HttpBody";

/// The routes of one service, compiled once for its descriptors.
#[derive(Debug)]
pub struct ServiceRoutes {
    service: Arc<str>,
    pub(super) rpcs: Vec<Arc<Rpc>>,
    pub(super) routes: Vec<Arc<Route>>,
    refused: Vec<RouteFault>,
}

/// A method of a service.
#[derive(Debug)]
pub struct Rpc {
    service: Arc<str>,
    grpc_path: PathAndQuery,
    pub(super) shapes: Arc<Shapes>,
    pub(super) input: MessageId,
    pub(super) output: MessageId,
    pub(super) descriptor: MethodDescriptor,
}

/// An HTTP method and path that stand for a method of a service.
pub struct Route {
    rpc: Arc<Rpc>,
    verb: Method,
    pub(super) template: Template,
    pub(super) captures: Vec<FieldPath>,
    pub(super) body: Body,
    pub(super) query: Query,
    /// Index of the output's field that is the answer; else all of it is.
    pub(super) response_body: Option<u16>,
}

/// What the HTTP body fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Nothing,
    /// Every field that the path does not bind.
    Whole,
    /// The field of this index.
    Field(u16),
}

/// A rule that does not become a route, or a service that does not get any.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("service {service}: {}{}{kind}", Of(method, ": "), Of(template, ": "))]
pub struct RouteFault {
    /// The registered service whose descriptors hold it.
    pub service: String,
    /// Full name of the method; empty where the fault is the whole service's.
    pub method: String,
    /// HTTP method and template; empty where there is none yet.
    pub template: String,
    /// What is wrong.
    pub kind: RouteFaultKind,
}

struct Of<'a>(&'a str, &'a str);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}{}", self.0, self.1) }
    }
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RouteFaultKind {
    /// The template is not one that is understood.
    #[error("its path template is refused: {0}")]
    Template(#[from] TemplateFault),
    /// The rule itself.
    #[error("its google.api.http rule is refused: {0}")]
    Rule(String),
    /// A path segment must be a single text.
    #[error("`{0}` in its path is not a single scalar, enum, wrapper, timestamp, duration or field mask of {1}")]
    PathField(String, String),
    /// The body names a field.
    #[error("its {0} `{1}` is no field of {2}")]
    NoField(&'static str, String, String),
    /// The body's field is bound by the path.
    #[error("`{0}` is bound by its path and by its body")]
    BoundTwice(String),
    /// One HTTP request holds one message.
    #[error("a method that takes a stream has no HTTP request; call it by gRPC")]
    ClientStream,
    /// The descriptors lack a service that is said to be served.
    #[error("its descriptors do not hold the service `{0}`")]
    NoService(String),
    /// More than a service can have.
    #[error("it has more than {ROUTES_MAX} routes; the rest is refused")]
    TooMany,
}

/// An answer in HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `application/json`, or what a `google.api.HttpBody` says.
    pub content_type: HeaderValue,
    /// The body; of a stream, one item of it.
    pub body: Bytes,
}

impl ServiceRoutes {
    /// Compiles what `service` offers: the methods of `grpc_services`, as `pool` describes them. A rule that cannot become a route is left
    /// out and told by [`Self::refused`]; the methods stay reachable by gRPC-Web.
    pub fn compile(service: &str, pool: DescriptorPool, grpc_services: &[String]) -> Result<Self, Box<RouteFault>> {
        let shapes = Arc::new(Shapes::compile(&pool));
        let mut routes = Self { service: service.into(), rpcs: Vec::new(), routes: Vec::new(), refused: Vec::new() };
        let mut known = HashSet::new();
        for name in grpc_services.iter().filter(|name| !name.starts_with(PLUMBING) && known.insert(name.as_str())) {
            let Some(descriptor) = pool.get_service_by_name(name) else {
                return Err(Box::new(routes.fault("", "", RouteFaultKind::NoService(name.clone()))));
            };
            for method in descriptor.methods() {
                routes.add(&shapes, method);
            }
        }
        Ok(routes)
    }

    /// Name of the registered service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The routes, in the order of the descriptors.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Rules that did not become routes.
    pub fn refused(&self) -> &[RouteFault] {
        &self.refused
    }

    fn add(&mut self, shapes: &Arc<Shapes>, method: MethodDescriptor) {
        let full_name = method.full_name().to_owned();
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let (Ok(grpc_path), Some(input), Some(output)) = (
            PathAndQuery::try_from(path.as_str()),
            shapes.find(method.input().full_name()),
            shapes.find(method.output().full_name()),
        ) else {
            let fault = RouteFaultKind::Rule(format!("`{path}` is no path of a method"));
            self.refused.push(self.fault(&full_name, "", fault));
            return;
        };
        let rules = HttpRule::of(&method);
        let rpc = Rpc {
            service: Arc::clone(&self.service),
            grpc_path,
            shapes: Arc::clone(shapes),
            input,
            output,
            descriptor: method,
        };
        let rpc = Arc::new(rpc);
        self.rpcs.push(Arc::clone(&rpc));
        let rules = match rules {
            Ok(rules) => rules,
            Err(fault) => {
                self.refused.push(self.fault(&full_name, "", fault));
                return;
            }
        };
        for rule in rules {
            let template = match rule.pattern() {
                Ok((verb, template)) => format!("{verb} {template}"),
                Err(_) => String::new(),
            };
            match Route::compile(&rpc, &rule) {
                Ok(_) if self.routes.len() == ROUTES_MAX => {
                    let fault = self.fault(&full_name, &template, RouteFaultKind::TooMany);
                    self.refused.push(fault);
                    return;
                }
                Ok(route) => self.routes.push(Arc::new(route)),
                Err(fault) => self.refused.push(self.fault(&full_name, &template, fault)),
            }
        }
    }

    fn fault(&self, method: &str, template: &str, kind: RouteFaultKind) -> RouteFault {
        RouteFault { service: self.service.to_string(), method: method.to_owned(), template: template.to_owned(), kind }
    }
}

impl Rpc {
    /// Name of the registered service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// `/package.Service/Method`.
    pub fn grpc_path(&self) -> &PathAndQuery {
        &self.grpc_path
    }

    /// Whether it answers with a stream.
    pub fn is_server_streaming(&self) -> bool {
        self.descriptor.is_server_streaming()
    }

    /// Whether it takes a stream; such a method has no route.
    pub fn is_client_streaming(&self) -> bool {
        self.descriptor.is_client_streaming()
    }
}

impl Route {
    fn compile(rpc: &Arc<Rpc>, rule: &HttpRule) -> Result<Self, RouteFaultKind> {
        let (verb, template) = rule.pattern()?;
        let template = Template::parse(template)?;
        if rpc.is_client_streaming() {
            return Err(RouteFaultKind::ClientStream);
        }
        let shapes = &rpc.shapes;
        let input = shapes.message(rpc.input);
        let mut captures = Vec::new();
        for name in template.captures() {
            let path = FieldPath::resolve(shapes, rpc.input, name, false)
                .map_err(|_| RouteFaultKind::PathField(name.to_owned(), input.name.to_string()))?;
            captures.push(path);
        }
        let body = match rule.body.as_str() {
            "" => Body::Nothing,
            "*" => Body::Whole,
            name => match input.by_name(name) {
                Some(field) if captures.iter().any(|path| path.first() == field.index) => {
                    return Err(RouteFaultKind::BoundTwice(name.to_owned()));
                }
                Some(field) => Body::Field(field.index),
                None => return Err(RouteFaultKind::NoField("body", name.to_owned(), input.name.to_string())),
            },
        };
        let output = shapes.message(rpc.output);
        let response_body = match rule.response_body.as_str() {
            "" => None,
            name => match output.by_name(name) {
                Some(field) => Some(field.index),
                None => return Err(RouteFaultKind::NoField("response_body", name.to_owned(), output.name.to_string())),
            },
        };
        let query = match body {
            Body::Nothing => Query::new(shapes, rpc.input, &captures, None),
            Body::Field(index) => Query::new(shapes, rpc.input, &captures, Some(index)),
            Body::Whole => Query::none(rpc.input),
        };
        Ok(Self { rpc: Arc::clone(rpc), verb, template, captures, body, query, response_body })
    }

    /// The method that it calls.
    pub fn rpc(&self) -> &Arc<Rpc> {
        &self.rpc
    }

    /// Name of the registered service.
    pub fn service(&self) -> &str {
        &self.rpc.service
    }

    /// HTTP method.
    pub fn verb(&self) -> &Method {
        &self.verb
    }

    /// Path template, as the service's rule has it.
    pub fn template(&self) -> String {
        self.template.to_string()
    }

    /// `/package.Service/Method`.
    pub fn grpc_path(&self) -> &PathAndQuery {
        &self.rpc.grpc_path
    }

    /// Whether it answers with a stream.
    pub fn is_server_streaming(&self) -> bool {
        self.rpc.is_server_streaming()
    }

    /// Whether a body is read at all; one that is sent nevertheless is refused by [`Self::request`].
    pub fn takes_body(&self) -> bool {
        self.body != Body::Nothing
    }

    /// The request message's bytes. An empty body is an empty message.
    pub fn request(&self, captures: &Captures<'_>, query: Option<&str>, body: &[u8]) -> Result<Bytes, BadInput> {
        let shapes = &self.rpc.shapes;
        let input = shapes.message(self.rpc.input);
        let mut violations = Vec::new();
        let blank = body.iter().all(u8::is_ascii_whitespace);
        let read = match self.body {
            _ if blank => Ok(Vec::new()),
            Body::Nothing => Err(Violation::new("", "must be empty: this method takes none")),
            Body::Whole => read::message(shapes, input, &self.captures, body),
            Body::Field(index) => read::field(shapes, &input.fields[usize::from(index)], body),
        };
        let mut message = read.unwrap_or_else(|violation| {
            violations.push(violation);
            Vec::new()
        });
        if let Some(query) = query {
            self.query.put(shapes, query, &mut message, &mut violations);
        }
        // Last, so that what the path says holds: of two values of a field the last one does.
        for ((name, path), text) in self.template.captures().zip(&self.captures).zip(captures.iter()) {
            let put = match decode(text, false) {
                Some(text) => path.put(shapes, &text, &mut message),
                None => Err("is not percent-encoded UTF-8".to_owned()),
            };
            if let Err(description) = put {
                violations.push(Violation::new(name, description));
            }
        }
        if violations.is_empty() { Ok(message.into()) } else { Err(BadInput { violations }) }
    }

    /// The answer for the bytes of a response message; of a stream, for each of them.
    pub fn response(&self, message: &[u8]) -> Result<Answer, write::BadAnswer> {
        let shapes = &self.rpc.shapes;
        let output = shapes.message(self.rpc.output);
        let field = self.response_field();
        if self.answers_http_body() {
            return match field {
                None => write::http_body(message),
                Some(field) => write::http_body(&write::field_bytes(output, field, message)?),
            };
        }
        // JSON is some three times the wire's size.
        let mut body = Vec::with_capacity(message.len() * 3 + 64);
        match field {
            None => write::message(shapes, output, message, &mut body)?,
            Some(field) => write::field(shapes, output, field, message, &mut body)?,
        }
        Ok(Answer { content_type: JSON, body: body.into() })
    }

    /// Whether the answer is a `google.api.HttpBody`, whose type and bytes are the service's own.
    pub(super) fn answers_http_body(&self) -> bool {
        let of = match self.response_field() {
            None => Some(self.rpc.output),
            Some(field) => field.kind.message().filter(|_| field.label == Label::Single),
        };
        of.is_some_and(|of| &*self.rpc.shapes.message(of).name == HTTP_BODY)
    }

    pub(super) fn response_field(&self) -> Option<&Field> {
        let output = self.rpc.shapes.message(self.rpc.output);
        output.fields.get(usize::from(self.response_body?))
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.verb, self.template, self.rpc.grpc_path)
    }
}
