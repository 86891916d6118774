//! What the gateway says of itself.

use crate::backend::routes;
use crate::kit::{Rig, config};

#[tokio::test]
async fn the_document_lists_every_route_and_is_sent_once() {
    let rig = Rig::deaf(config());
    let got = rig.get("/openapi.json").await;
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/json")));
    let document = got.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{document}");
    assert!(document["paths"]["/v1/things/{id}"]["get"].is_object(), "{document}");
    let tag = got.header("etag").unwrap();
    for known in [tag.to_owned(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        assert_eq!(rig.ask("GET", "/openapi.json", &[("if-none-match", &known)], "").await.status, 304, "{known}");
    }
    assert_eq!(rig.ask("GET", "/openapi.json", &[("if-none-match", "\"other\"")], "").await.status, 200);
    rig.published.store(routes().into());
    assert_eq!(rig.ask("GET", "/openapi.json", &[("if-none-match", tag)], "").await.status, 304, "the same again");
    rig.published.store(gateway::Published { heard: true, ..Default::default() }.into());
    let empty = rig.ask("GET", "/openapi.json", &[("if-none-match", tag)], "").await;
    assert_eq!((empty.status, empty.body.contains("/v1/things")), (200, false), "without its service a route is gone");
}

#[tokio::test]
async fn the_page_to_read_loads_nothing_from_elsewhere() {
    let rig = Rig::deaf(config());
    for target in ["/docs", "/"] {
        let page = rig.get(target).await;
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")), "{target}");
        assert!(page.body.contains("/v1/things/{id}") && !page.body.contains("<script"), "{}", page.body);
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
    }
    let style = rig.get("/docs/style.css").await;
    assert_eq!((style.status, style.header("content-type")), (200, Some("text/css; charset=utf-8")));
    for target in ["/docs", "/openapi.json", "/"] {
        let refused = rig.ask("POST", target, &[], "").await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD, OPTIONS")), "{target}");
    }
}
