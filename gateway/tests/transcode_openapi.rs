//! The document of the routes: whole, always the same, and true: answers fit it, and so do the bodies that are taken.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod transcode;

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway::transcode::{RouteTable, ServiceRoutes};
use prost_reflect::DescriptorPool;
use serde_json::{Value as Json, json};
use transcode::{answer, ask, table};

fn shop() -> RouteTable {
    let pool = DescriptorPool::decode(mesh_api::FILE_DESCRIPTOR_SET).unwrap();
    let services = [("user-svc", "shop.user.v1.UserService"), ("order-svc", "shop.order.v1.OrderService")];
    let claims =
        services.map(|(name, grpc)| Arc::new(ServiceRoutes::compile(name, pool.clone(), &[grpc.to_owned()]).unwrap()));
    let (table, conflicts) = RouteTable::build(claims);
    assert_eq!(conflicts, []);
    table
}

/// Every `$ref` in a document.
fn references<'d>(value: &'d Json, found: &mut Vec<&'d str>) {
    match value {
        Json::Object(members) => {
            if let Some(Json::String(reference)) = members.get("$ref") {
                found.push(reference);
            }
            members.values().for_each(|member| references(member, found));
        }
        Json::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_whole_and_always_the_same() {
    for table in [table(), &shop()] {
        let document = table.openapi();
        assert_eq!(document.to_string(), table.openapi().to_string());
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let target = document.pointer(reference.strip_prefix('#').unwrap());
            assert!(target.is_some_and(Json::is_object), "{reference}");
        }
        let mut ids = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
                let parameters = operation["parameters"].as_array().unwrap();
                let places: BTreeSet<(&str, &str)> =
                    parameters.iter().map(|of| (of["in"].as_str().unwrap(), of["name"].as_str().unwrap())).collect();
                assert_eq!(places.len(), parameters.len(), "{method} {path}");
                let in_path = path.split(['{', '}']).skip(1).step_by(2).collect::<BTreeSet<_>>();
                let named = places.iter().filter(|(place, _)| *place == "path").map(|(_, name)| *name).collect();
                assert_eq!(in_path, named, "{method} {path}");
            }
        }
    }
}

#[test]
fn the_shop_says_who_may_call_what() {
    let document = shop().openapi();
    let security = |path: &str, method: &str| &document["paths"][path][method]["security"];
    assert_eq!(security("/v1/users", "post"), &json!([]));
    assert_eq!(security("/v1/users", "get"), &json!([{"bearer": ["admin"]}]));
    assert_eq!(security("/v1/orders/{order_id}:cancel", "post"), &json!([{"bearer": ["user", "admin"]}]));
    assert_eq!(table().openapi()["paths"]["/v1/echo"]["post"]["security"], json!([{}, {"bearer": []}]));

    let get = &document["paths"]["/v1/users/{user_id}"]["get"];
    assert_eq!(
        get["parameters"][0],
        json!({
            "name": "user_id", "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}, "description": "UUID of the user. Required.",
        })
    );
    assert_eq!(get["summary"], "Returns one account");
    let patch =
        &document["paths"]["/v1/users/{user_id}"]["patch"]["requestBody"]["content"]["application/json"]["schema"];
    assert!(patch["properties"].get("userId").is_none(), "the path has it");
    assert!(patch["properties"].get("displayName").is_some());
    let list = &document["paths"]["/v1/users/{user_id}/orders"]["get"];
    let names: Vec<_> = list["parameters"].as_array().unwrap().iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["user_id", "pageSize", "pageToken"]);
    let user = &document["components"]["schemas"]["shop.user.v1.User"];
    assert_eq!(user["required"], json!(["userId", "email", "displayName", "etag"]));
    assert_eq!(user["additionalProperties"], false);
}

/// Whether a value fits a schema, of those keywords that the document uses; patterns and formats are another matter.
fn fits(document: &Json, schema: &Json, value: &Json) -> Result<(), String> {
    let Json::Object(keywords) = schema else { return Err(format!("{schema} is no schema")) };
    for (keyword, rule) in keywords {
        let holds = match keyword.as_str() {
            "$ref" => fits(document, document.pointer(&rule.as_str().unwrap()[1..]).unwrap(), value).map(|()| true)?,
            "type" => match rule {
                Json::Array(kinds) => kinds.iter().any(|kind| is_of(value, kind.as_str().unwrap())),
                kind => is_of(value, kind.as_str().unwrap()),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|value| value >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|value| value <= rule.as_f64().unwrap()),
            "minLength" => value.as_str().is_none_or(|value| value.chars().count() as u64 >= rule.as_u64().unwrap()),
            "anyOf" => rule.as_array().unwrap().iter().any(|option| fits(document, option, value).is_ok()),
            "allOf" => rule.as_array().unwrap().iter().all(|option| fits(document, option, value).is_ok()),
            "not" => fits(document, rule, value).is_err(),
            "required" => value.as_object().is_none_or(|value| {
                rule.as_array().unwrap().iter().all(|name| value.contains_key(name.as_str().unwrap()))
            }),
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(document, rule, item)?;
                }
                true
            }
            "properties" | "additionalProperties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    match (
                        keywords.get("properties").and_then(|known| known.get(name)),
                        &keywords["additionalProperties"],
                    ) {
                        (Some(known), _) => {
                            fits(document, known, member).map_err(|fault| format!("{name}: {fault}"))?
                        }
                        (None, Json::Bool(allowed)) if !allowed => return Err(format!("{name} is unknown")),
                        (None, Json::Bool(_)) => {}
                        (None, other) => fits(document, other, member).map_err(|fault| format!("{name}: {fault}"))?,
                    }
                }
                true
            }
            "description" | "format" | "pattern" | "contentEncoding" | "propertyNames" => true,
            other => return Err(format!("{other} is a keyword that this test does not know")),
        };
        if !holds {
            return Err(format!("{value} against {keyword}: {rule}"));
        }
    }
    Ok(())
}

fn is_of(value: &Json, kind: &str) -> bool {
    match kind {
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|value| value.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}

const BODIES: [&str; 7] = [
    "{}",
    r#"{"scalars":{"doubleField":"NaN","floatField":1.5,"int32Field":-5,"int64Field":"-9223372036854775808","uint64Field":"18446744073709551615","bytesField":"+/8=","colour":"COLOUR_DARK","perhaps":"COLOUR_ROUGE","maybeInt32":0}}"#,
    r#"{"scalars":{"int32Field":null,"int64Field":7,"colour":77,"stringField":null,"boolField":null,"perhaps":null}}"#,
    r#"{"lists":{"int64s":["1",2],"nulls":[null,"NULL_VALUE"],"values":[null,1,"a",[],{}],"timestamps":["2026-01-31T12:00:00Z"],"wrappers":[true]},"maps":{"byBool":{"true":"5"},"bySfixed32":{"-1":null},"byString":{"":{"children":[{}]}}}}"#,
    r#"{"known":{"timestamp":"2026-01-31T12:00:00Z","duration":"-1.500s","fieldMask":"a,bC","struct":{"a":[null,{"b":1}]},"value":null,"listValue":[1,"x"],"nullValue":null,"empty":{},"int64Value":"5","boolValue":true,"bytesValue":"AA==","doubleValue":0.5}}"#,
    r#"{"known":{"any":{"@type":"type.googleapis.com/transcode.test.v1.Inner","text":"a"}},"choice":{"nothing":null,"flag":true}}"#,
    r#"{"choice":{"everything":{"everything":{"choice":{"value":[1]}}}},"children":[{"children":[]}]}"#,
];

#[test]
fn what_is_taken_fits_the_schema_of_the_body_and_what_is_answered_that_of_the_answer() {
    let document = table().openapi();
    let operation = &document["paths"]["/v1/echo"]["post"];
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    let answered = &operation["responses"]["200"]["content"]["application/json"]["schema"];
    for text in BODIES {
        fits(&document, body, &serde_json::from_str(text).unwrap()).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        let bytes = ask("POST", "/v1/echo", text).unwrap_or_else(|faults| panic!("{text}: {faults:?}"));
        let shown = answer("POST", "/v1/echo", &bytes);
        fits(&document, answered, &serde_json::from_str(&shown).unwrap())
            .unwrap_or_else(|fault| panic!("{shown}: {fault}"));
    }
    for text in [
        "[]",
        "1",
        r#"{"x":1}"#,
        r#"{"scalars":[]}"#,
        r#"{"scalars":{"int32Field":2147483648}}"#,
        r#"{"scalars":{"int32Field":0.5}}"#,
        r#"{"scalars":{"stringField":1}}"#,
        r#"{"scalars":{"boolField":"true"}}"#,
        r#"{"lists":{"strings":[null]}}"#,
        r#"{"lists":{"strings":"a"}}"#,
        r#"{"choice":{"number":1,"text":"a"}}"#,
        r#"{"maps":{"byInt32":{"1":null}}}"#,
        r#"{"known":{"empty":{"a":1}}}"#,
        r#"{"scalars":{"colour":"PINK"}}"#,
    ] {
        assert!(fits(&document, body, &serde_json::from_str(text).unwrap()).is_err(), "{text}");
        assert!(ask("POST", "/v1/echo", text).is_err(), "{text}");
    }
}

#[test]
fn a_stream_says_what_its_items_are_and_an_absent_answer_is_null() {
    let document = table().openapi();
    let stream = &document["paths"]["/v1/parts:stream"]["post"]["responses"]["200"]["content"];
    for kind in ["application/x-ndjson", "text/event-stream"] {
        assert_eq!(
            stream[kind]["x-item-schema"],
            json!({"type": "array", "items": {"$ref": "#/components/schemas/transcode.test.v1.Inner"}})
        );
    }
    let parts = &document["paths"]["/v1/parts/{inner.text}"]["put"]["responses"]["200"]["content"]["application/json"]
        ["schema"];
    assert_eq!(fits(&document, parts, &serde_json::from_str(&answer("PUT", "/v1/parts/t", &[])).unwrap()), Ok(()));
}
