//! HTTP and JSON to gRPC and back, by what descriptors say. Pure: bytes in, bytes out; no task, no clock, no connection.
//!
//! | module | job |
//! |---|---|
//! | `template`, `rule` | path templates and `google.api.http` rules, and what of them is refused |
//! | `shape` | the descriptors of a service as flat tables |
//! | `route` | what one service offers; a request to its message, a message to its answer |
//! | `table` | all services' routes: who keeps a contested one, and what stands at a path |
//! | `read`, `write` | JSON to protobuf and back, each in one pass without a tree |
//! | `scalar`, `known`, `text` | single values, well-known types, path and query |
//! | `input`, `status` | what callers are told when it fails |
//! | `openapi`, `schema` | the document of it all |
//!
//! What must stay true: whatever comes in, nothing panics and nothing recurses deeper than a stated bound; a field is bound by one of
//! path, query and body; what is not understood is refused with its name, never dropped.

mod input;
mod known;
mod openapi;
mod read;
mod route;
mod rule;
mod scalar;
mod schema;
mod shape;
mod status;
mod table;
mod template;
mod text;
mod write;

pub use input::{BadInput, Violation};
pub use read::DEPTH_MAX as JSON_DEPTH_MAX;
pub use route::{Answer, ROUTES_MAX, Route, RouteFault, RouteFaultKind, Rpc, ServiceRoutes};
pub use status::{StatusParts, http_status, status_json};
pub use table::{Captures, Conflict, Found, Listed, Matched, PATH_BYTES_MAX, RouteTable};
pub use template::TemplateFault;
pub use write::BadAnswer;
