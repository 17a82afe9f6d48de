//! The page and the OpenAPI document over a router, in process.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use http::{Method, Request};
use serde_json::json;
use wick_serve::{ServeSettings, router};
use wick_testing::onnx;

use crate::support::{Fixture, Reply, call, settings};

async fn ask(router: Router, method: Method, path: &str) -> Reply {
    let request = Request::builder().method(method).uri(path).body(Body::empty());
    call(router, request.unwrap()).await
}

fn without_page(fixture: &Fixture) -> Router {
    router(fixture.repository.clone(), &ServeSettings { page: false, ..settings() })
}

#[tokio::test]
async fn the_page_is_one_document_that_runs_only_what_it_brings() {
    let fixture = Fixture::adding(1.0, "").await;
    let page = fixture.get("/v2/page").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let text = page.text();
    for word in ["{{", "src=", "http://", "https://", "innerHTML", "onclick=\"", "style=\""] {
        assert!(!text.contains(word), "{word}");
    }
    assert_eq!((text.matches("<script").count(), text.matches("<style").count()), (1, 1));
    assert!(text.len() < 40 << 10, "{} bytes", text.len());
}

#[tokio::test]
async fn the_root_leads_to_the_page_and_nothing_else_does() {
    let fixture = Fixture::adding(1.0, "").await;
    for method in [Method::GET, Method::HEAD] {
        let root = ask(fixture.router(), method, "/").await;
        assert_eq!((root.status.as_u16(), root.header("location")), (307, Some("v2/page")));
    }
    assert_eq!(ask(fixture.router(), Method::POST, "/").await.status, 404);
    assert_eq!(ask(fixture.router(), Method::GET, "/index.html").await.status, 404);
    for path in ["/", "/v2/page"] {
        let off = ask(without_page(&fixture), Method::GET, path).await;
        assert_eq!(
            (off.status.as_u16(), &off.json()["code"]),
            (404, &json!("not-found")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_document_has_each_route_and_no_other() {
    let fixture = Fixture::adding(1.0, "").await;
    for (router, has_page) in [(fixture.router(), true), (without_page(&fixture), false)] {
        let document = ask(router.clone(), Method::GET, "/v2/openapi.json").await.json();
        let paths = document["paths"].as_object().unwrap();
        let described: BTreeSet<String> = paths.keys().cloned().collect();
        // The router tells its paths to those who debug it, as words in quotes.
        let debug = format!("{router:?}");
        let own = debug.split("fallback_router").next().unwrap();
        // The calls of gRPC describe themselves, by reflection.
        let rest = |word: &&str| word.starts_with("/v2") || word.starts_with("/metrics");
        let served = own.split('"').filter(rest).filter(|word| !word.contains('*'));
        let served: BTreeSet<String> = served.map(str::to_owned).collect();
        assert_eq!(served, described);
        assert_eq!(served.contains("/v2/page"), has_page);
        for (path, item) in paths {
            let address = path.replace("{model}", "m").replace("{version}", "1.0.0");
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                let is_described = item.get(method.as_str().to_lowercase()).is_some();
                let status = ask(router.clone(), method.clone(), &address).await.status;
                assert_eq!(status != 405, is_described, "{method} {path}: {status}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_names_the_models_that_are_there() {
    let model = onnx::add_scalar(1.0, &[4]);
    let fixture = Fixture::new(&[("a", &model, ""), ("b", &model, "")]).await;
    let document = fixture.get("/v2/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let names = &document["components"]["parameters"]["model"]["schema"]["enum"];
    assert_eq!(names, &json!(["a", "b"]));
}
