//! `/routes` on the admin port: what is served, by whom, and what is refused; for people, and with `Accept: application/json`
//! for programs.

use std::fmt::Write;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::published::Published;

/// The route of the page.
pub(super) fn routes(published: Arc<ArcSwap<Published>>) -> Router {
    Router::new().route("/routes", get(page)).with_state(published)
}

async fn page(State(published): State<Arc<ArcSwap<Published>>>, headers: HeaderMap) -> Response {
    let published = published.load_full();
    let accepts = |kind| {
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        accepted.into_iter().any(|value| value.contains(kind))
    };
    if accepts("application/json") {
        Json(value(&published)).into_response()
    } else if accepts("text/html") {
        Html(html(&published)).into_response()
    } else {
        text(&published).into_response()
    }
}

/// One route as it is shown.
struct Row<'a> {
    method: &'a str,
    path: &'a str,
    service: &'a str,
    rpc: &'a str,
    unversioned: bool,
}

fn rows(published: &Published) -> impl Iterator<Item = Row<'_>> {
    published.table.routes().iter().map(|listed| Row {
        method: listed.route.verb().as_str(),
        path: &listed.path,
        service: listed.route.service(),
        rpc: listed.route.grpc_path().path(),
        unversioned: listed.alias,
    })
}

fn value(published: &Published) -> Value {
    let routes = rows(published).map(|row| {
        json!({"method": row.method, "path": row.path, "service": row.service, "rpc": row.rpc, "unversioned": row.unversioned})
    });
    let services = published
        .services
        .iter()
        .map(|known| json!({"service": known.service, "descriptors": known.descriptors, "faults": known.faults}));
    let refused = published
        .refused
        .iter()
        .map(|conflict| json!({"claim": conflict.claim, "holder": conflict.holder, "refused": conflict.refused}));
    json!({
        "registryHeard": published.heard,
        "routes": routes.collect::<Vec<_>>(),
        "services": services.collect::<Vec<_>>(),
        "refused": refused.collect::<Vec<_>>(),
    })
}

fn text(published: &Published) -> String {
    let mut text = String::new();
    if !published.heard {
        text.push_str("the registry was not heard yet\n");
    }
    for row in rows(published) {
        let note = if row.unversioned { "  (newest version)" } else { "" };
        let _ = writeln!(text, "{:7} {:40} {:20} {}{note}", row.method, row.path, row.service, row.rpc);
    }
    for conflict in &published.refused {
        let _ = writeln!(text, "refused: {} of {}: {} keeps it", conflict.claim, conflict.refused, conflict.holder);
    }
    for known in &published.services {
        for fault in &known.faults {
            let _ = writeln!(text, "fault: {}: {fault}", known.service);
        }
    }
    text
}

fn html(published: &Published) -> String {
    let mut html = String::from(
        "<!doctype html><meta charset=utf-8><title>gateway: routes</title>\
         <style>body{font:14px sans-serif;margin:2em}td,th{padding:.2em 1em .2em 0;text-align:left}code{font-size:13px}</style>\
         <h1>Routes</h1>",
    );
    if !published.heard {
        html.push_str("<p>The registry was not heard yet.");
    }
    html.push_str("<table><tr><th>Method<th>Path<th>Service<th>gRPC method<th>");
    for row in rows(published) {
        let note = if row.unversioned { "newest version" } else { "" };
        let _ = write!(
            html,
            "<tr><td>{}<td><code>{}</code><td>{}<td><code>{}</code><td>{note}",
            escaped(row.method),
            escaped(row.path),
            escaped(row.service),
            escaped(row.rpc)
        );
    }
    html.push_str("</table><h1>Refused claims</h1>");
    if published.refused.is_empty() {
        html.push_str("<p>None.");
    } else {
        html.push_str("<table><tr><th>Claim<th>Of<th>Kept by");
        for conflict in &published.refused {
            let _ = write!(
                html,
                "<tr><td><code>{}</code><td>{}<td>{}",
                escaped(&conflict.claim),
                escaped(&conflict.refused),
                escaped(&conflict.holder)
            );
        }
        html.push_str("</table>");
    }
    html.push_str("<h1>Services</h1><table><tr><th>Service<th>Descriptors<th>Not served");
    for known in &published.services {
        let faults: Vec<_> = known.faults.iter().map(|fault| escaped(fault)).collect();
        let _ = write!(
            html,
            "<tr><td>{}<td><code>{}</code><td>{}",
            escaped(&known.service),
            escaped(&known.descriptors),
            faults.join("<br>")
        );
    }
    html.push_str("</table>");
    html
}

/// Names of services and paths come from others.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::published::Known;
    use crate::transcode::Conflict;

    fn published() -> Published {
        Published {
            services: vec![Known {
                service: "a-svc".into(),
                descriptors: "sha256:00".into(),
                faults: vec!["<script>alert(1)</script>".into()],
            }],
            refused: vec![Conflict { claim: "GET /v1/things".into(), holder: "a-svc".into(), refused: "b-svc".into() }],
            heard: true,
            ..Published::default()
        }
    }

    #[test]
    fn a_refused_claim_and_a_fault_are_shown_in_every_form() {
        let published = published();
        let (json, text, html) = (value(&published).to_string(), text(&published), html(&published));
        for form in [&json, &text, &html] {
            for word in ["GET /v1/things", "a-svc", "b-svc", "alert(1)"] {
                assert!(form.contains(word), "{word}: {form}");
            }
        }
        assert!(!html.contains("<script>"), "{html}");
    }

    #[tokio::test]
    async fn who_asks_decides_the_form() {
        let published = Arc::new(ArcSwap::from_pointee(published()));
        for (accept, kind) in [
            ("application/json", "application/json"),
            ("text/html,application/xhtml+xml", "text/html; charset=utf-8"),
            ("*/*", "text/plain; charset=utf-8"),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a value"))]);
            let answer = page(State(published.clone()), headers).await;
            assert_eq!(answer.headers()[header::CONTENT_TYPE], kind, "{accept}");
        }
    }
}
