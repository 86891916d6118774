//! The page to read: every route of the OpenAPI document, with what it takes and what it answers. Text and one style sheet; no
//! script, nothing from elsewhere, and whatever a service says of itself is escaped.

use std::fmt::Write;

use serde_json::{Map, Value};

/// How it looks.
pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--quiet:#888}\n\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\n\
h1{margin-bottom:0}h2{margin-top:3rem;border-bottom:1px solid var(--line)}\n\
section.route{border:1px solid var(--line);border-radius:.5rem;padding:.5rem 1rem;margin:1rem 0}\n\
h3{font:600 1rem/1.5 ui-monospace,monospace;margin:.25rem 0;overflow-wrap:anywhere}\n\
.method{display:inline-block;min-width:4.5rem}.quiet{color:var(--quiet)}\n\
table{border-collapse:collapse;width:100%;margin:.5rem 0}td,th{text-align:left;vertical-align:top;padding:.25rem .5rem .25rem 0;border-top:1px solid var(--line)}\n\
code{font-family:ui-monospace,monospace;overflow-wrap:anywhere}\n";

/// Methods of a path item, in the order in which they are shown.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The page of an OpenAPI document.
pub(super) fn page(document: &Value) -> String {
    let mut html = String::with_capacity(16 * 1024);
    let title = text(document.pointer("/info/title"));
    html.push_str("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width\">");
    let _ =
        write!(html, "<title>{}</title><link rel=\"stylesheet\" href=\"/docs/style.css\"></head><body>", escape(title));
    let _ = write!(html, "<h1>{}</h1>", escape(title));
    paragraph(&mut html, text(document.pointer("/info/description")));
    html.push_str("<p class=\"quiet\">For programs: <a href=\"/openapi.json\">/openapi.json</a>. Errors are ");
    html.push_str("<code>google.rpc.Status</code> as JSON. <code>request-timeout: SECONDS</code> bounds a request; ");
    html.push_str("<code>x-request-id</code> names it in the log.</p>");
    let none = Map::new();
    let paths = document.get("paths").and_then(Value::as_object).unwrap_or(&none);
    if paths.is_empty() {
        html.push_str("<p>No service is registered now.</p>");
    }
    for tag in tags(paths) {
        let _ = write!(html, "<h2>{}</h2>", escape(if tag.is_empty() { "Other" } else { &tag }));
        for (path, item) in paths {
            for method in METHODS {
                if let Some(operation) = item.get(method).filter(|operation| tag_of(operation) == tag) {
                    route(&mut html, path, method, operation);
                }
            }
        }
    }
    schemas(&mut html, document);
    html.push_str("</body></html>\n");
    html
}

/// What operations are grouped by, in the order of the paths.
fn tags(paths: &Map<String, Value>) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    for item in paths.values() {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                let tag = tag_of(operation);
                if !tags.iter().any(|known| known == tag) {
                    tags.push(tag.to_owned());
                }
            }
        }
    }
    tags
}

fn tag_of(operation: &Value) -> &str {
    text(operation.pointer("/tags/0"))
}

fn route(html: &mut String, path: &str, method: &str, operation: &Value) {
    html.push_str("<section class=\"route\">");
    let _ = write!(html, "<h3><span class=\"method\">{}</span>{}</h3>", method.to_uppercase(), escape(path));
    let summary = text(operation.get("summary"));
    paragraph(html, summary);
    let description = text(operation.get("description"));
    if description != summary {
        paragraph(html, description);
    }
    match operation.get("security").and_then(Value::as_array) {
        Some(ways) if !ways.is_empty() && ways.iter().all(|way| way.as_object().is_some_and(|way| !way.is_empty())) => {
            html.push_str("<p class=\"quiet\">Needs an access token.</p>");
        }
        _ => {}
    }
    let parameters = operation.get("parameters").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let body = operation.pointer("/requestBody/content/application~1json/schema");
    if !parameters.is_empty() || body.is_some() {
        html.push_str("<table>");
        for parameter in parameters {
            row(
                html,
                text(parameter.get("name")),
                text(parameter.get("in")),
                parameter.get("schema"),
                text(parameter.get("description")),
            );
        }
        if body.is_some() {
            row(html, "", "body", body, "");
        }
        html.push_str("</table>");
    }
    html.push_str("</section>");
}

fn schemas(html: &mut String, document: &Value) {
    let Some(schemas) = document.pointer("/components/schemas").and_then(Value::as_object) else { return };
    html.push_str("<h2>Schemas</h2>");
    for (name, schema) in schemas {
        let _ = write!(html, "<section class=\"route\" id=\"{0}\"><h3>{0}</h3>", escape(name));
        paragraph(html, text(schema.get("description")));
        if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
            html.push_str("<table>");
            for (field, schema) in fields {
                row(html, field, "", Some(schema), text(schema.get("description")));
            }
            html.push_str("</table>");
        }
        html.push_str("</section>");
    }
}

fn row(html: &mut String, name: &str, place: &str, schema: Option<&Value>, description: &str) {
    let _ = write!(html, "<tr><td><code>{}</code></td><td class=\"quiet\">{}</td><td>", escape(name), escape(place));
    kind(html, schema);
    let _ = write!(html, "</td><td>{}</td></tr>", escape(description));
}

/// A schema in a word, with a link where it has a name.
fn kind(html: &mut String, schema: Option<&Value>) {
    let Some(schema) = schema else { return };
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|link| link.rsplit('/').next()) {
        let _ = write!(html, "<a href=\"#{0}\">{0}</a>", escape(name));
        return;
    }
    if let Some(items) = schema.get("items") {
        html.push_str("list of ");
        kind(html, Some(items));
        return;
    }
    let words = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        other => text(other).to_owned(),
    };
    let _ = write!(html, "<code>{}</code>", escape(&words));
    let format = text(schema.get("format"));
    if !format.is_empty() {
        let _ = write!(html, " <span class=\"quiet\">{}</span>", escape(format));
    }
}

fn paragraph(html: &mut String, words: &str) {
    if !words.is_empty() {
        let _ = write!(html, "<p>{}</p>", escape(words));
    }
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

/// Text as HTML has it, in an element or between double quotes.
fn escape(words: &str) -> String {
    let mut escaped = String::with_capacity(words.len());
    for character in words.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_and_what_they_take_are_on_the_page() {
        let page = page(&json!({
            "info": {"title": "The shop"},
            "paths": {"/v1/users/{user_id}": {"get": {
                "tags": ["Users"], "summary": "Returns one account.", "security": [{"bearer": []}],
                "parameters": [{"name": "user_id", "in": "path", "schema": {"type": "string"}, "description": "Whose."}],
            }}},
            "components": {"schemas": {"User": {"properties": {"emails": {"type": "array", "items": {"type": "string"}}}}}},
        }));
        for part in [
            "<h1>The shop</h1>",
            "GET",
            "/v1/users/{user_id}",
            "Returns one account.",
            "Needs an access token.",
            "Whose.",
            "list of",
        ] {
            assert!(page.contains(part), "{part} is missing: {page}");
        }
    }

    #[test]
    fn whatever_a_service_says_of_itself_is_text() {
        let evil = "</p><script>alert('x')</script>\" onload=\"x";
        let page = page(&json!({
            "info": {"title": evil, "description": evil},
            "paths": {evil: {"get": {"tags": [evil], "summary": evil, "parameters": [
                {"name": evil, "in": evil, "schema": {"type": evil, "format": evil}, "description": evil},
                {"name": "a", "schema": {"$ref": evil}},
            ]}}},
            "components": {"schemas": {evil: {"description": evil, "properties": {evil: {"type": [evil]}}}}},
        }));
        assert!(!page.contains("<script") && !page.contains("\" onload"), "{page}");
        assert!(page.contains("&lt;script&gt;"));
    }
}
