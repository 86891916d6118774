//! A service that answers what it was asked, compiled here, and its routes.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use gateway::transcode::{BadAnswer, Found, RouteTable, ServiceRoutes};
use http::Method;
use prost_reflect::DescriptorPool;

pub(crate) const PACKAGE: &str = "transcode.test.v1";

pub(crate) fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut compiler = protox::Compiler::new([root.join("tests/transcode"), root.join("../proto")]).unwrap();
        compiler.include_imports(true).include_source_info(true);
        compiler.open_file("everything.proto").unwrap();
        DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
    })
}

pub(crate) fn table() -> &'static RouteTable {
    static TABLE: OnceLock<RouteTable> = OnceLock::new();
    TABLE.get_or_init(|| {
        let routes = ServiceRoutes::compile("echo", pool().clone(), &[format!("{PACKAGE}.EchoService")]).unwrap();
        assert_eq!(routes.refused(), []);
        let (table, conflicts) = RouteTable::build([Arc::new(routes)]);
        assert_eq!(conflicts, []);
        table
    })
}

/// The message's bytes for a request, or what is wrong with it: each violation's field and description.
pub(crate) fn ask(method: &str, uri: &str, body: &str) -> Result<Vec<u8>, Vec<(String, String)>> {
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    match table().find(&Method::from_bytes(method.as_bytes()).unwrap(), path) {
        Found::Route(matched) => matched
            .route
            .request(&matched.captures, query, body.as_bytes())
            .map(Vec::from)
            .map_err(|bad| bad.violations.into_iter().map(|fault| (fault.field, fault.description)).collect()),
        other => panic!("{method} {uri}: {other:?}"),
    }
}

/// The answer for a message, of the route at `uri`.
pub(crate) fn answer(method: &str, uri: &str, message: &[u8]) -> String {
    try_answer(method, uri, message).unwrap()
}

/// The same for a message that may have no JSON.
pub(crate) fn try_answer(method: &str, uri: &str, message: &[u8]) -> Result<String, BadAnswer> {
    match table().find(&Method::from_bytes(method.as_bytes()).unwrap(), uri) {
        Found::Route(matched) => {
            let answer = matched.route.response(message)?;
            assert_eq!(answer.content_type, "application/json");
            Ok(String::from_utf8(answer.body.to_vec()).unwrap())
        }
        other => panic!("{method} {uri}: {other:?}"),
    }
}
