//! What a path finds, what a request binds, and what is refused in which words.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod transcode;

use std::sync::Arc;

use gateway::transcode::{Found, RouteFaultKind, RouteTable, ServiceRoutes, TemplateFault};
use http::Method;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value as Json, json};
use transcode::{PACKAGE, answer, ask, pool, table};

/// The routes of a service whose only gRPC service is `demo.Demo`; `methods` are its methods in proto.
fn service(name: &str, methods: &str) -> ServiceRoutes {
    let source = format!(
        r#"syntax = "proto3"; package demo.{name};
        import "google/api/annotations.proto";
        import "google/protobuf/struct.proto";
        message Item {{ string id = 1; Item parent = 2; repeated string tags = 3; google.protobuf.Struct data = 4; oneof of {{ int32 number = 5; bool flag = 6; }} }}
        service Demo {{ {methods} }}"#
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("demo.proto"), source).unwrap();
    let proto = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut compiler = protox::Compiler::new([folder.path(), proto.as_path()]).unwrap();
    compiler.include_imports(true).open_file("demo.proto").unwrap();
    let pool = DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap();
    ServiceRoutes::compile(name, pool, &[format!("demo.{name}.Demo"), "grpc.health.v1.Health".to_owned()]).unwrap()
}

fn rpc(name: &str, rule: &str) -> String {
    format!("rpc {name}(Item) returns (Item) {{ option (google.api.http) = {{ {rule} }}; }}\n")
}

fn found(table: &RouteTable, method: &str, path: &str) -> String {
    match table.find(&Method::from_bytes(method.as_bytes()).unwrap(), path) {
        Found::Route(matched) => {
            let captures: Vec<&str> = matched.captures.iter().collect();
            format!("{} {captures:?}", matched.route.grpc_path())
        }
        Found::OtherMethods(methods) => format!("{methods:?}"),
        Found::Nothing => "nothing".to_owned(),
    }
}

#[test]
fn literals_go_before_fields_and_a_known_verb_before_a_colon() {
    let methods = [
        rpc("Get", r#"get: "/v1/items/{id}""#),
        rpc("Mine", r#"get: "/v1/items/mine""#),
        rpc("Parts", r#"get: "/v1/items/{id}/parts""#),
        rpc("MineOnly", r#"post: "/v1/items/mine/parts""#),
        rpc("Close", r#"post: "/v1/items/{id}:close" body: "*""#),
        rpc("Search", r#"get: "/v1/items:search""#),
        rpc("Drop", r#"delete: "/v1/items/{id}""#),
    ];
    let (table, conflicts) = RouteTable::build([Arc::new(service("items", &methods.concat()))]);
    assert_eq!(conflicts, []);
    for (method, path, expected) in [
        ("GET", "/v1/items/7", r#"/demo.items.Demo/Get ["7"]"#),
        ("GET", "/v1/items/mine", "/demo.items.Demo/Mine []"),
        ("DELETE", "/v1/items/mine", r#"/demo.items.Demo/Drop ["mine"]"#),
        ("GET", "/v1/items/mine/parts", r#"/demo.items.Demo/Parts ["mine"]"#), // back from the literal, which has only POST
        ("POST", "/v1/items/7:close", r#"/demo.items.Demo/Close ["7"]"#),
        ("POST", "/v1/items/a:b:close", r#"/demo.items.Demo/Close ["a:b"]"#),
        ("GET", "/v1/items/7:close", "[POST]"), // not an item of the name `7:close`
        ("GET", "/v1/items/7:other", r#"/demo.items.Demo/Get ["7:other"]"#),
        ("GET", "/v1/items/7%3Aclose", r#"/demo.items.Demo/Get ["7%3Aclose"]"#),
        ("GET", "/v1/items/a%2Fb", r#"/demo.items.Demo/Get ["a%2Fb"]"#),
        ("GET", "/v1/items:search", "/demo.items.Demo/Search []"),
        ("POST", "/v1/items/7", "[DELETE, GET]"),
        ("GET", "/v1/items", "nothing"),
        ("GET", "/v1/items/", "nothing"),
        ("GET", "/v1//7", "nothing"),
        ("GET", "/v1/items/7/", "nothing"),
        ("POST", "/v1/items/:close", "[DELETE, GET]"), // no field is empty, so this is an item of the name `:close`
        ("GET", "", "nothing"),
        ("GET", "/", "nothing"),
        ("OPTIONS", "*", "nothing"),
    ] {
        assert_eq!(found(&table, method, path), expected, "{method} {path}");
    }
    assert_eq!(found(&table, "GET", &format!("/v1/items/{}", "x".repeat(8 << 10))), "nothing");
    assert_eq!(found(&table, "GET", &"/a".repeat(4000)), "nothing");
}

#[test]
fn the_first_claim_keeps_a_route_and_the_later_one_is_told() {
    let claims = |names: [&str; 2]| names.map(|name| Arc::new(service(name, &rpc("Get", r#"get: "/v1/items/{id}""#))));
    let (table, conflicts) = RouteTable::build(claims(["first", "second"]));
    let told: Vec<_> = conflicts.iter().map(|told| (&*told.claim, &*told.holder, &*told.refused)).collect();
    assert_eq!(told, [("GET /v1/items/{id}", "first", "second"), ("GET /items/{id}", "first", "second")]);
    assert_eq!(found(&table, "GET", "/v1/items/7"), r#"/demo.first.Demo/Get ["7"]"#);
    assert!(table.rpc("/demo.second.Demo/Get").is_some(), "its methods stay reachable by gRPC-Web");

    let same = |claims: [Arc<ServiceRoutes>; 2]| {
        RouteTable::build(claims).1.into_iter().map(|told| told.claim).collect::<Vec<_>>()
    };
    let one = Arc::new(service("one", "rpc Plain(Item) returns (Item);"));
    assert_eq!(same([Arc::clone(&one), one]), ["/demo.one.Demo/Plain"]);
    let renamed = service("third", &rpc("Get", r#"get: "/v1/items/{parent.id}""#));
    let (_, conflicts) =
        RouteTable::build([claims(["first", "second"]).into_iter().next().unwrap(), Arc::new(renamed)]);
    assert_eq!(conflicts[0].claim, "GET /v1/items/{parent.id}", "a field of another name is the same path");
}

#[test]
fn a_later_service_gets_no_path_that_an_earlier_one_matches() {
    let first =
        service("first", &(rpc("Get", r#"get: "/v1/items/{id}""#) + &rpc("Close", r#"post: "/v1/items/{id}:close""#)));
    let later = [
        rpc("One", r#"get: "/v1/items/17""#),
        rpc("CloseOne", r#"post: "/v1/items/17:close""#),
        rpc("All", r#"get: "/v1/{id}/17""#),
        // No path is both: another HTTP method, another verb, another length.
        rpc("Put", r#"put: "/v1/items/17""#),
        rpc("Open", r#"post: "/v1/items/17:open""#),
        rpc("Part", r#"get: "/v1/items/17/part""#),
    ]
    .concat();
    let (table, conflicts) = RouteTable::build([Arc::new(first), Arc::new(service("later", &later))]);
    let refused: Vec<&str> =
        conflicts.iter().map(|conflict| conflict.claim.as_str()).filter(|claim| claim.contains("/v1/")).collect();
    assert_eq!(refused, ["GET /v1/items/17", "POST /v1/items/17:close", "GET /v1/{id}/17"]);
    assert_eq!(found(&table, "GET", "/v1/items/17"), r#"/demo.first.Demo/Get ["17"]"#);
    assert_eq!(found(&table, "PUT", "/v1/items/17"), "/demo.later.Demo/Put []");
}

#[test]
fn the_newest_stable_version_of_a_collection_needs_no_version() {
    let methods = [
        rpc("OldGet", r#"get: "/v1/items/{id}""#),
        rpc("OldDrop", r#"delete: "/v1/items/{id}""#),
        rpc("NewGet", r#"get: "/v2/items/{id}""#),
        rpc("Next", r#"get: "/v3beta1/items/{id}""#),
        rpc("Parts", r#"get: "/v1/parts/{id}:now""#),
        rpc("Own", r#"get: "/v1/own" additional_bindings { get: "/own" }"#),
    ];
    let (table, conflicts) = RouteTable::build([Arc::new(service("items", &methods.concat()))]);
    assert_eq!(conflicts, []);
    assert_eq!(found(&table, "GET", "/items/7"), r#"/demo.items.Demo/NewGet ["7"]"#);
    assert_eq!(found(&table, "DELETE", "/items/7"), "[GET]");
    assert_eq!(found(&table, "DELETE", "/v1/items/7"), r#"/demo.items.Demo/OldDrop ["7"]"#);
    assert_eq!(found(&table, "GET", "/parts/7:now"), r#"/demo.items.Demo/Parts ["7"]"#);
    assert_eq!(found(&table, "GET", "/own"), "/demo.items.Demo/Own []");
    let aliases: Vec<_> = table.routes().iter().filter(|listed| listed.alias).map(|listed| &*listed.path).collect();
    assert_eq!(aliases, ["/items/{id}", "/parts/{id}:now"]);
}

#[test]
fn a_rule_that_is_not_understood_is_refused_and_the_others_stand() {
    let methods = [
        rpc("Star", r#"get: "/v1/{id=items/*}""#),
        rpc("Ok", r#"get: "/v1/items/{id}""#),
        rpc("NoField", r#"get: "/v1/items/{name}""#),
        rpc("List", r#"get: "/v1/items/{tags}""#),
        rpc("Message", r#"get: "/v1/items/{parent}""#),
        rpc("Body", r#"post: "/v1/items" body: "nobody""#),
        rpc("Answer", r#"post: "/v1/items" body: "*" response_body: "nobody""#),
        rpc("Twice", r#"put: "/v1/items/{parent.id}" body: "parent""#),
        rpc("Nested", r#"get: "/v1/a" additional_bindings { get: "/v1/b" additional_bindings { get: "/v1/c" } }"#),
        rpc("Verb", r#"custom { kind: "B AD" path: "/v1/x" }"#),
        rpc("Pathless", r#"body: "*""#),
        r#"rpc Up(stream Item) returns (Item) { option (google.api.http) = { post: "/v1/up" body: "*" }; }"#.to_owned(),
        "rpc Plain(Item) returns (Item);".to_owned(),
    ];
    let routes = service("mixed", &methods.concat());
    assert_eq!(routes.routes().len(), 1);
    let told: Vec<String> = routes.refused().iter().map(ToString::to_string).collect();
    let expected = [
        "service mixed: demo.mixed.Demo.Star: GET /v1/{id=items/*}: its path template is refused: `{id=items` is not supported",
        "service mixed: demo.mixed.Demo.NoField: GET /v1/items/{name}: `name` in its path is not a single scalar",
        "service mixed: demo.mixed.Demo.List: GET /v1/items/{tags}: `tags` in its path",
        "service mixed: demo.mixed.Demo.Message: GET /v1/items/{parent}: `parent` in its path",
        "service mixed: demo.mixed.Demo.Body: POST /v1/items: its body `nobody` is no field of demo.mixed.Item",
        "service mixed: demo.mixed.Demo.Answer: POST /v1/items: its response_body `nobody` is no field",
        "service mixed: demo.mixed.Demo.Twice: PUT /v1/items/{parent.id}: `parent` is bound by its path and by its body",
        "service mixed: demo.mixed.Demo.Nested: its google.api.http rule is refused: an additional binding",
        "service mixed: demo.mixed.Demo.Verb: its google.api.http rule is refused: `B AD` is no HTTP method",
        "service mixed: demo.mixed.Demo.Pathless: its google.api.http rule is refused: it has no path",
        "service mixed: demo.mixed.Demo.Up: POST /v1/up: a method that takes a stream",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}\n{expected}");
    }
    assert!(matches!(routes.refused()[0].kind, RouteFaultKind::Template(TemplateFault::Unsupported(_))));

    let fault = ServiceRoutes::compile("echo", pool().clone(), &["no.Such".to_owned()]).unwrap_err();
    assert_eq!(fault.to_string(), "service echo: its descriptors do not hold the service `no.Such`");
}

/// The request as the library reads it.
fn request(message: &str, method: &str, uri: &str, body: &str) -> Json {
    let bytes = ask(method, uri, body).unwrap_or_else(|faults| panic!("{method} {uri}: {faults:?}"));
    let descriptor = pool().get_message_by_name(&format!("{PACKAGE}.{message}")).unwrap();
    serde_json::to_value(DynamicMessage::decode(descriptor, bytes.as_slice()).unwrap()).unwrap()
}

#[test]
fn path_query_and_body_fill_one_message() {
    assert_eq!(
        request(
            "Parts",
            "PUT",
            "/v1/parts/a%2Fb+c?name=n%20m+o&inner.number=-3&inner.tags=x&inner.tags=&since=2026-01-31T12:00:00Z",
            r#"{"scalars":{"int32Field":1}}"#
        ),
        json!({"name": "n m o", "inner": {"text": "a/b+c", "number": -3, "tags": ["x", ""]}, "everything": {"scalars": {"int32Field": 1}}, "since": "2026-01-31T12:00:00Z"})
    );
    assert_eq!(
        request(
            "Parts",
            "REPLACE",
            "/v1/parts/n/t",
            r#"{"inner": {"number": 5}, "labels": {"a": "b"}, "since": null}"#
        ),
        json!({"name": "n", "inner": {"text": "t", "number": 5}, "labels": {"a": "b"}})
    );
    assert_eq!(
        request("Scalars", "GET", "/v1/scalars/s/-7:parsed?boolField=true&colour=COLOUR_DARK&perhaps=1", ""),
        json!({"stringField": "s", "int64Field": "-7", "boolField": true, "colour": "COLOUR_DARK", "perhaps": "COLOUR_RED"})
    );
    assert_eq!(
        request("Parts", "POST", "/v1/parts:stream?name=x", r#"[{"text":"a"},{"number":1}]"#),
        json!({"name": "x", "items": [{"text": "a"}, {"number": 1}]})
    );
    for blank in ["", " \r\n\t"] {
        assert_eq!(request("Everything", "POST", "/v1/echo", blank), json!({}));
    }
}

#[test]
fn an_answer_shows_every_field_without_presence() {
    let empty: Json = serde_json::from_str(&answer("GET", "/v1/scalars", &[])).unwrap();
    assert_eq!(
        empty,
        json!({
            "doubleField": 0.0, "floatField": 0.0, "int32Field": 0, "int64Field": "0", "uint32Field": 0, "uint64Field": "0", "sint32Field": 0,
            "sint64Field": "0", "fixed32Field": 0, "fixed64Field": "0", "sfixed32Field": 0, "sfixed64Field": "0", "boolField": false,
            "stringField": "", "bytesField": "", "colour": "COLOUR_UNSPECIFIED",
        })
    );
    assert_eq!(answer("REPLACE", "/v1/parts/n/t", &[]), r#"{"name":"","items":[],"labels":{}}"#);
    assert_eq!(answer("PUT", "/v1/parts/t", &[]), "null");
    assert_eq!(answer("POST", "/v1/parts:stream", &[]), "[]");
    assert_eq!(answer("POST", "/v1/parts:stream", b"\x22\x03\x0a\x01a"), r#"[{"text":"a","number":0,"tags":[]}]"#);
}

fn refused(method: &str, uri: &str, body: &str) -> Vec<(String, String)> {
    ask(method, uri, body).expect_err(&format!("{method} {uri} {body} is refused"))
}

#[test]
fn a_fault_names_its_place_and_what_is_allowed() {
    let echo = |body: &str| refused("POST", "/v1/echo", body).remove(0);
    for (body, place, description) in [
        (
            r#"{"scalars":{"int32Field":"x"}}"#,
            "scalars.int32_field",
            "is \"x\", and must be a whole number, -2147483648 to 2147483647",
        ),
        (
            r#"{"children":[{},{"lists":{"int32s":[1,2.5]}}]}"#,
            "children[1].lists.int32s[1]",
            "is 2.5, and must be a whole number",
        ),
        (
            r#"{"maps":{"byString":{"a b":{"scalars":{"colour":"PINK"}}}}}"#,
            "maps.by_string[\"a b\"].scalars.colour",
            "is \"PINK\", and must be a value of transcode.test.v1.Colour: COLOUR_UNSPECIFIED, COLOUR_RED, COLOUR_ROUGE, COLOUR_DARK",
        ),
        (r#"{"maps":{"byInt32":{"x":""}}}"#, "maps.by_int32[\"x\"]", "the key is \"x\", and must be a whole number"),
        (
            r#"{"known":{"timestamp":"yesterday"}}"#,
            "known.timestamp",
            "is \"yesterday\", and must be a time as RFC 3339 writes it",
        ),
        (
            r#"{"known":{"fieldMask":"display_name"}}"#,
            "known.field_mask",
            "is \"display_name\", and must be field names in lowerCamelCase",
        ),
        (
            r#"{"known":{"any":{"@type":"type.googleapis.com/no.Such"}}}"#,
            "known.any",
            "has the \"@type\" \"type.googleapis.com/no.Such\", and must name a message",
        ),
        (r#"{"known":{"any":{"a":1}}}"#, "known.any", "has no \"@type\""),
        (
            r#"{"known":{"any":{"x":1,"@type":"t/transcode.test.v1.Inner"}}}"#,
            "known.any",
            "has no field \"x\"; it has text, number, tags",
        ),
        (
            r#"{"known":{"any":{"@type":"t/google.protobuf.Duration","value":1}}}"#,
            "known.any",
            "is 1, and must be seconds with an s",
        ),
        (
            r#"{"scalar":{}}"#,
            "",
            "has no field \"scalar\"; it has choice, known, maps, lists, scalars, everything, children",
        ),
        (r#"{"scalars":{},"scalars":{}}"#, "scalars", "is there twice"),
        (r#"{"scalars":{"int32Field":1,"int32_field":1}}"#, "scalars.int32_field", "is there twice"),
        (r#"{"maps":{"byInt32":{"1":"","1":""}}}"#, "maps.by_int32[\"1\"]", "is there twice"),
        (r#"{"known":{"struct":{"a":1,"a":2}}}"#, "known.struct[\"a\"]", "is there twice"),
        (r#"{"choice":{"number":1,"text":""}}"#, "choice.text", "excludes another field that is there"),
        (r#"{"lists":{"strings":[null]}}"#, "lists.strings[0]", "is null"),
        (r#"{"maps":{"byInt32":{"1":null}}}"#, "maps.by_int32[\"1\"]", "is null"),
        (r#"{"lists":[]}"#, "lists", "is a list, and must be an object (transcode.test.v1.Lists)"),
        (r#"{"lists":{"strings":"a"}}"#, "lists.strings", "is \"a\", and must be a list"),
        (r#"{"lists":{"strings":[["a"]]}}"#, "lists.strings[0]", "is a list, and must be a single value"),
        (r#"{"lists":{"strings":{}}}"#, "lists.strings", "is an object, and must be a list"),
        (r#"{"scalars":1}"#, "scalars", "is 1, and must be an object (transcode.test.v1.Scalars)"),
        (r#"{"scalars":{"stringField":1}}"#, "scalars.string_field", "is 1, and must be a string"),
        (r#"{"scalars":{"stringField":{}}}"#, "scalars.string_field", "is an object, and must be a single value"),
        (r#"{"scalars":{"boolField":"true"}}"#, "scalars.bool_field", "is \"true\", and must be true or false"),
        (r#"{"scalars":{"stringField":"a"#, "scalars.string_field", "is not JSON: EOF while parsing a string"),
        ("{}{}", "", "is not JSON: trailing characters"),
        ("[]", "", "is a list, and must be an object"),
        ("null", "", "is null, and must be a transcode.test.v1.Everything"),
        ("\"\\ud800\"", "", "is not JSON"),
    ] {
        let (at, told) = echo(body);
        assert_eq!(at, place, "{body}: {told}");
        assert!(told.starts_with(description), "{body}: {told}");
    }
}

#[test]
fn a_path_and_a_query_are_checked_like_a_body() {
    for (uri, place, description) in [
        ("/v1/scalars/s/x:parsed", "int64_field", "is \"x\", and must be a whole number"),
        ("/v1/scalars/%FF", "string_field", "is not percent-encoded UTF-8"),
        ("/v1/scalars/s?stringField=t", "stringField", "is given by the path"),
        ("/v1/scalars?string_field=t&stringField=t", "stringField", "is there twice, and takes one value"),
        (
            "/v1/scalars?nope=1",
            "nope",
            "is no query parameter here; this method takes doubleField, floatField, int32Field",
        ),
        ("/v1/scalars?int32Field", "int32Field", "is \"\", and must be a whole number"),
        ("/v1/scalars?int32Field=%zz", "int32Field", "is not percent-encoded UTF-8"),
        ("/v1/scalars?boolField=1", "boolField", "is \"1\", and must be true or false"),
        ("/v1/scalars?int32Field.x=1", "int32Field.x", "is no query parameter here"),
        ("/v1/known?timestamp.seconds=1", "timestamp.seconds", "is no query parameter here"),
        ("/v1/known?struct=1", "struct", "is a field that only a body can fill"),
        ("/v1/known?empty=1", "empty", "is a field that only a body can fill"),
    ] {
        let faults = refused("GET", uri, "");
        assert_eq!(faults.len(), 1, "{uri}: {faults:?}");
        assert_eq!(faults[0].0, place, "{uri}");
        assert!(faults[0].1.starts_with(description), "{uri}: {}", faults[0].1);
    }
    assert_eq!(
        refused("GET", "/v1/scalars", "{}"),
        [(String::new(), "must be empty: this method takes none".to_owned())]
    );
    assert!(refused("POST", "/v1/echo?x=1", "")[0].1.ends_with("this method takes no query parameter"));
    let (_, fault) = refused("REPLACE", "/v1/parts/n/t", r#"{"name":"m"}"#).remove(0);
    assert_eq!(fault, "is given by the path; leave it out of the body");
    let (place, fault) = refused("REPLACE", "/v1/parts/n/t", r#"{"inner":{"text":"u"}}"#).remove(0);
    assert_eq!((&*place, &*fault), ("inner.text", "is given by the path; leave it out of the body"));
    assert!(ask("REPLACE", "/v1/parts/n/t", r#"{"items":[{"text":"u"}],"everything":{"everything":{}}}"#).is_ok());
    let (_, fault) = refused("PUT", "/v1/parts/t?everything.scalars.int32Field=1", "").remove(0);
    assert_eq!(fault, "is given by the body; leave it out of the query");
    let (place, _) = refused("PUT", "/v1/parts/t", r#"{"scalars":{"int32Field":""}}"#).remove(0);
    assert_eq!(place, "everything.scalars.int32_field");

    // All of them at once, as the services do.
    let faults = refused("PUT", "/v1/parts/%FF?x=1&since=never", "[]");
    assert_eq!(
        faults.iter().map(|(place, _)| &**place).collect::<Vec<_>>(),
        ["everything", "x", "since", "inner.text"]
    );
}

#[test]
fn only_so_deep() {
    let nested = |levels: usize| format!("{}{}", r#"{"everything":"#.repeat(levels - 1) + "{}", "}".repeat(levels - 1));
    assert!(ask("POST", "/v1/echo", &nested(64)).is_ok());
    let (_, fault) = refused("POST", "/v1/echo", &nested(65)).remove(0);
    assert_eq!(fault, "is nested more than 64 levels deep");
    for deep in [
        format!(r#"{{"known":{{"value":{}"#, "[".repeat(500_000)),
        format!(r#"{{"known":{{"any":{{"a":{}"#, r#"{"a":"#.repeat(100_000)),
        format!(
            r#"{{"known":{{"any":{}1{}}}}}"#,
            r#"{"@type":"t/google.protobuf.Any","value":"#.repeat(5_000),
            "}".repeat(5_000)
        ),
    ] {
        refused("POST", "/v1/echo", &deep);
    }

    let mut bytes = Vec::new();
    for _ in 0..200 {
        let mut outer = vec![0x32];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.append(&mut bytes);
        bytes = outer;
    }
    let Found::Route(matched) = table().find(&Method::POST, "/v1/echo") else { panic!("it is there") };
    assert_eq!(
        matched.route.response(&bytes).unwrap_err().to_string(),
        "the service's answer is nested more than 100 levels deep"
    );
}

#[test]
fn an_answer_that_its_descriptor_does_not_describe_is_told() {
    let Found::Route(matched) = table().find(&Method::GET, "/v1/scalars") else { panic!("it is there") };
    let told = |bytes: &[u8]| matched.route.response(bytes).unwrap_err().to_string();
    assert_eq!(told(b"\x72\x02\xff\xff"), "a string of the service's answer is not UTF-8");
    for broken in [&b"\x72\x05a"[..], b"\xff", b"\x08", b"\x00", b"\x07", b"\x09\x00", b"\x0c", b"\xa3\x06\xac\x06"] {
        assert_eq!(told(broken), "the service's answer is no valid protobuf message", "{broken:?}");
    }
    // A field that it does not know, or knows as another type, is left out.
    let answered = matched.route.response(b"\xf8\x06\x01\x18\x05\x1a\x01x\xa3\x06\xa4\x06").unwrap();
    assert!(std::str::from_utf8(&answered.body).unwrap().contains("\"int32Field\":5"));
}
