//! The document of all routes, OpenAPI 3.1: the same table, for people and their tools. Unversioned paths are not repeated in it.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::access::Access;
use prost_reflect::DescriptorPool;
use serde_json::{Map, Value, json};

use super::route::{Body, Route};
use super::schema::{Dialect, Schemas};
use super::shape::{Form, Kind, Label};
use super::table::RouteTable;
use super::template::{Segment, Template};
use super::text::FieldPath;

/// HTTP methods that the document format has a place for.
const METHODS: [&str; 8] = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"];

/// Statuses that any method may answer with instead of 200, and why. The gateway's own are among them.
const REFUSALS: [(&str, &str); 12] = [
    ("400", "The request does not fit the method, or the state it meets does not allow it."),
    ("401", "No token, or one that does not hold."),
    ("403", "The caller's role does not allow it."),
    ("404", "There is no such thing, or not for this caller."),
    ("408", "The request took too long to arrive."),
    ("409", "It exists already, or has changed since it was read."),
    ("413", "The body is larger than 1 MiB."),
    ("415", "The body is not application/json."),
    ("414", "Path and query are longer than 8 KiB."),
    ("429", "Too many requests; try again later."),
    ("431", "The header is too large."),
    ("5XX", "It failed for no fault of the request: 501 not implemented, 503 unavailable, 504 too late, else 500."),
];

const ABOUT: &str = "REST/JSON for every service of the mesh, from the descriptors that its instances serve. JSON is protobuf's canonical \
    mapping: names in lowerCamelCase (requests may also use the names of the proto files), 64-bit integers as strings, times as RFC 3339, bytes as \
    base64. Answers show every field that cannot be absent, empty ones too. A path that begins with a version is found without it, too: \
    the newest stable version of that collection answers. Errors are google.rpc.Status.";

impl RouteTable {
    /// The document. The same table gives the same text.
    pub fn openapi(&self) -> Value {
        let mut schemas = Schemas::new();
        let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        // Templates that differ in names only are one path: the first one's names hold.
        let mut names: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
        let mut operations = BTreeSet::new();
        let mut services: BTreeMap<&str, Option<String>> = BTreeMap::new();
        for listed in self.routes().iter().filter(|listed| !listed.alias) {
            let route = &*listed.route;
            if !METHODS.contains(&route.verb().as_str()) {
                continue;
            }
            let own: Vec<String> = route.template.captures().map(str::to_owned).collect();
            let (path, names) = names.entry(nameless(&route.template)).or_insert_with(|| (listed.path.clone(), own));
            let mut operation = operation(&mut schemas, route, names);
            operation["operationId"] = unique(&mut operations, route).into();
            paths.entry(path.clone()).or_default().insert(route.verb().as_str().to_lowercase(), operation);
            services.entry(route.service()).or_insert_with(|| {
                let service = route.rpc().descriptor.parent_service();
                schemas.comment(service_pool(route), service.parent_file().name(), service.path())
            });
        }
        let tags: Vec<Value> = services
            .into_iter()
            .map(|(name, comment)| match comment {
                Some(comment) => json!({"name": name, "description": comment}),
                None => json!({"name": name}),
            })
            .collect();
        let refusals: Map<String, Value> = REFUSALS.iter().map(|(status, why)| (refusal(status), error(why))).collect();
        schemas.components.insert("google.rpc.Status".to_owned(), status_schema());
        json!({
            "openapi": "3.1.0",
            "info": {"title": "Meshwork", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT},
            "servers": [{"url": "/"}],
            "tags": tags,
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "responses": refusals,
                "securitySchemes": {"bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "An access token, from a login or signed with a key that the mesh trusts.",
                }},
            },
        })
    }
}

fn service_pool(route: &Route) -> &DescriptorPool {
    route.rpc().descriptor.parent_pool()
}

/// The template with its fields' names left out.
fn nameless(template: &Template) -> String {
    let mut nameless = Template { segments: template.segments.clone(), verb: template.verb.clone() };
    for segment in &mut nameless.segments {
        if let Segment::Capture(name) = segment {
            *name = "".into();
        }
    }
    nameless.to_string()
}

/// The method's full name, with a number where it has more than one route.
fn unique(taken: &mut BTreeSet<String>, route: &Route) -> String {
    let name = route.rpc().descriptor.full_name();
    let mut id = name.to_owned();
    let mut count = 1;
    while !taken.insert(id.clone()) {
        count += 1;
        id = format!("{name}_{count}");
    }
    id
}

fn operation<'t>(schemas: &mut Schemas<'t>, route: &'t Route, path_names: &[String]) -> Value {
    let rpc = route.rpc();
    let (shapes, pool) = (&*rpc.shapes, service_pool(route));
    let input = shapes.message(rpc.input);
    let comment = schemas.comment(pool, rpc.descriptor.parent_file().name(), rpc.descriptor.path());

    let mut parameters = Vec::new();
    for (name, path) in path_names.iter().zip(&route.captures) {
        let Some(field) = path.fields(shapes).pop() else { continue };
        let mut schema = schemas.value(shapes, pool, field.kind, Dialect::Text);
        if schema["type"] == "string" && schema.get("enum").is_none() {
            schema["minLength"] = 1.into(); // an empty segment is another path
        }
        parameters.push(parameter(schemas, pool, "path", name, schema, path.owner(shapes), field.number));
    }
    for (name, path) in &route.query.listed {
        let Some(field) = path.fields(shapes).pop() else { continue };
        let schema = schemas.field(shapes, pool, field, Dialect::Text);
        parameters.push(parameter(schemas, pool, "query", name, schema, path.owner(shapes), field.number));
    }

    let mut operation = json!({
        "tags": [route.service()],
        "parameters": parameters,
        "responses": responses(schemas, route),
        "security": security(rpc.grpc_path().path()),
    });
    let body = match route.body {
        Body::Nothing => None,
        Body::Whole => {
            let bound: Vec<&[u16]> = route.captures.iter().map(FieldPath::steps).collect();
            Some(schemas.object(shapes, pool, input, Dialect::Input, &bound))
        }
        Body::Field(index) => Some(schemas.field(shapes, pool, &input.fields[usize::from(index)], Dialect::Input)),
    };
    if let Some(schema) = body {
        operation["requestBody"] = json!({"required": false, "content": {"application/json": {"schema": schema}}});
    }
    if let Some(comment) = comment {
        let first = [". ", "; ", ": ", "\n"].iter().filter_map(|end| comment.find(end)).min();
        operation["summary"] = comment[..first.unwrap_or(comment.len())].trim_end_matches('.').into();
        operation["description"] = comment.into();
    }
    if rpc.descriptor.method_descriptor_proto().options.as_ref().is_some_and(|options| options.deprecated()) {
        operation["deprecated"] = true.into();
    }
    operation
}

fn parameter<'t>(
    schemas: &mut Schemas<'t>,
    pool: &'t DescriptorPool,
    place: &str,
    name: &str,
    schema: Value,
    owner: &str,
    number: u32,
) -> Value {
    let mut parameter = json!({"name": name, "in": place, "schema": schema});
    if place == "path" {
        parameter["required"] = true.into();
    }
    let field = pool.get_message_by_name(owner).and_then(|owner| owner.get_field(number));
    if let Some(comment) = field.and_then(|field| schemas.comment(pool, field.parent_file().name(), field.path())) {
        parameter["description"] = comment.into();
    }
    parameter
}

fn responses<'t>(schemas: &mut Schemas<'t>, route: &'t Route) -> Value {
    let rpc = route.rpc();
    let (shapes, pool) = (&*rpc.shapes, service_pool(route));
    let schema = match route.response_field() {
        // A message that is absent is null.
        Some(field) if field.presence && field.label == Label::Single && !shapes.has_form(field.kind, Form::Value) => {
            let schema = schemas.field(shapes, pool, field, Dialect::Output);
            json!({"anyOf": [schema, {"type": "null"}]})
        }
        Some(field) => schemas.field(shapes, pool, field, Dialect::Output),
        None => schemas.value(shapes, pool, Kind::Message(rpc.output), Dialect::Output),
    };
    let content = if route.answers_http_body() {
        json!({"*/*": {}})
    } else if route.is_server_streaming() {
        let items = "One JSON value a message of the stream; an error at its end is a google.rpc.Status in `error`.";
        json!({
            "application/x-ndjson": {"schema": {"type": "string", "description": items}, "x-item-schema": schema},
            "text/event-stream": {"schema": {"type": "string", "description": items}, "x-item-schema": schema},
        })
    } else {
        json!({"application/json": {"schema": schema}})
    };
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({"description": "OK", "content": content}));
    for (status, _) in REFUSALS {
        responses.insert(status.to_owned(), json!({"$ref": format!("#/components/responses/{}", refusal(status))}));
    }
    responses.into()
}

/// Name of a refusal among the components.
fn refusal(status: &str) -> String {
    format!("refused-{status}")
}

fn error(why: &str) -> Value {
    json!({
        "description": why,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/google.rpc.Status"}}},
    })
}

fn status_schema() -> Value {
    json!({
        "type": "object",
        "description": "Why a call was refused.",
        "required": ["code", "message", "details"],
        "properties": {
            "code": {"type": "integer", "minimum": 0, "maximum": 16, "description": "google.rpc.Code: 3 INVALID_ARGUMENT, 5 NOT_FOUND, ..."},
            "message": {"type": "string", "description": "For people to read."},
            "details": {
                "type": "array",
                "description": "For programs: google.rpc.ErrorInfo with a reason, BadRequest with the fields, RetryInfo, ...",
                "items": {
                    "type": "object",
                    "required": ["@type"],
                    "properties": {"@type": {"type": "string"}},
                    "additionalProperties": true,
                },
            },
        },
        "additionalProperties": false,
    })
}

/// Which token a method asks for. A service that the access table does not know decides itself.
fn security(grpc_path: &str) -> Value {
    match Access::of(grpc_path) {
        Some(Access::Public) => json!([]),
        Some(Access::Allowed(roles)) => json!([{"bearer": roles.iter().map(|role| role.name()).collect::<Vec<_>>()}]),
        None => json!([{}, {"bearer": []}]),
    }
}
