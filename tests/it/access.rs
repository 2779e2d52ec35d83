//! Who may do what: API keys, and pages of other origins.

use crate::support::{Answer, Form, TestApp};

const KEY: &str = "a-key-of-the-operator";
const OTHER: &str = "another-key-of-the-operator";

async fn with(app: &TestApp, method: &str, path: &str, header: (&str, &str)) -> Answer {
    app.send(method, path, &[header], "").await
}

#[tokio::test]
async fn where_all_needs_a_key_nothing_goes_without() {
    let app =
        TestApp::with(&[("auth", "all"), ("api_keys", "a-key-of-the-operator, another-key-of-the-operator")])
            .await;
    for (method, path) in [
        ("GET", "/status"),
        ("GET", "/status/a.txt"),
        ("GET", "/files"),
        ("GET", "/download/a.txt"),
        ("PUT", "/files/a.txt"),
        ("POST", "/upload"),
        // Nobody learns what is there.
        ("GET", "/nowhere"),
        ("DELETE", "/status"),
    ] {
        let refused = app.send(method, path, &[], "").await;
        refused.error(401, "api_key_required");
        assert!(refused.header("www-authenticate").starts_with("Bearer"), "{path}");
        for header in [("x-api-key", "wrong"), ("x-api-key", ""), ("authorization", "Bearer wrong")] {
            with(&app, method, path, header).await.error(403, "invalid_api_key");
        }
        // A scheme that is none of ours is no key.
        with(&app, method, path, ("authorization", "Basic YTpi")).await.error(401, "api_key_required");
    }
    app.put_with("a.txt", &[("x-api-key", KEY)], "1").await.expect(201);
    app.put_with("a.txt", &[("authorization", &format!("Bearer {KEY}"))], "2").await.expect(200);
    app.put_with("a.txt", &[("authorization", &format!("bearer  {OTHER} "))], "3").await.expect(200);
    app.post_to("/upload", &[("x-api-key", OTHER)], Form::with_file("a.txt", b"4")).await.expect(200);
    let download = with(&app, "GET", "/download/a.txt", ("x-api-key", KEY)).await.expect(200);
    assert_eq!(download.body, b"4");
    app.get("/health").await.expect(200);
    app.get("/ready").await.expect(200);
}

#[tokio::test]
async fn a_wrong_key_is_refused_on_open_endpoints_too() {
    let app = TestApp::with(&[("api_keys", KEY)]).await;
    app.put("a.txt", "open").await.expect(201);
    for (method, path) in
        [("GET", "/health"), ("GET", "/ready"), ("GET", "/download/a.txt"), ("PUT", "/files/a.txt")]
    {
        for header in [("x-api-key", "wrong"), ("authorization", "Bearer wrong")] {
            with(&app, method, path, header).await.error(403, "invalid_api_key");
        }
        assert!([200, 201].contains(&with(&app, method, path, ("x-api-key", KEY)).await.status));
    }
    app.get("/download/a.txt").await.expect(200);
}

#[tokio::test]
async fn a_page_of_this_machine_may_use_the_server_and_a_foreign_one_may_not() {
    let app = TestApp::start().await;
    app.put("a.txt", "hello").await.expect(201);
    let asking = |origin: &'static str| {
        [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "x-api-key, x-priority, content-type, tus-resumable"),
        ]
    };
    for origin in ["http://localhost:3000", "http://127.0.0.1:8080", "https://localhost"] {
        let preflight = app.send("OPTIONS", "/upload", &asking(origin), "").await.expect(200);
        assert_eq!(preflight.header("access-control-allow-origin"), origin);
        let methods = preflight.header("access-control-allow-methods");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            assert!(methods.contains(method), "{methods}");
        }
        let headers = preflight.header("access-control-allow-headers").to_lowercase();
        for header in ["x-api-key", "x-priority", "content-type", "tus-resumable"] {
            assert!(headers.contains(header), "{headers}");
        }
        // What a page may read of an answer, and that a cache keeps one for each origin.
        let answer = app.get_with("/download/a.txt", &[("origin", origin)]).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        let exposed = answer.header("access-control-expose-headers").to_lowercase();
        for header in
            ["content-disposition", "etag", "repr-digest", "location", "content-range", "x-request-id"]
        {
            assert!(exposed.contains(header), "{header} of {exposed}");
        }
        let vary: Vec<_> = answer.headers.get_all("vary").iter().map(|vary| vary.to_str().unwrap()).collect();
        assert!(vary.join(",").to_lowercase().contains("origin"), "{vary:?}");
        // Errors can be read as well.
        let error = app.get_with("/nowhere", &[("origin", origin)]).await;
        error.error(404, "unknown_path");
        assert_eq!(error.header("access-control-allow-origin"), origin);
    }
    for origin in ["http://evil.example", "http://localhost.evil.example:3000", "null"] {
        let preflight = app.send("OPTIONS", "/upload", &asking(origin), "").await;
        assert_eq!(preflight.header("access-control-allow-origin"), "", "{origin}");
        let answer = app.get_with("/download/a.txt", &[("origin", origin)]).await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
    }
}

#[tokio::test]
async fn which_pages_may_use_the_server_can_be_set() {
    let origin = |app: &'static str| app;
    let app = TestApp::with(&[("cors_origins", "*")]).await;
    let answer = app.get_with("/health", &[("origin", origin("http://evil.example"))]).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let app = TestApp::with(&[("cors_origins", "https://files.example.com, http://intranet:81/")]).await;
    for (origin, allowed) in [
        ("https://files.example.com", true),
        ("http://intranet:81", true),
        ("http://files.example.com", false),
        ("http://localhost:3000", false),
    ] {
        let answer = app.get_with("/health", &[("origin", origin)]).await;
        assert_eq!(answer.header("access-control-allow-origin"), if allowed { origin } else { "" });
    }
}

/// A preflight bears no key: the browser asks before the page may send one.
#[tokio::test]
async fn a_preflight_needs_no_key() {
    let app = TestApp::with(&[("auth", "all"), ("api_keys", KEY)]).await;
    let headers = [
        ("origin", "http://localhost:3000"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-api-key"),
    ];
    let preflight = app.send("OPTIONS", "/files/a.txt", &headers, "").await.expect(200);
    assert_eq!(preflight.header("access-control-allow-origin"), "http://localhost:3000");
    // And the page can read why it was refused.
    let refused = app.get_with("/status", &[("origin", "http://localhost:3000")]).await;
    refused.error(401, "api_key_required");
    assert_eq!(refused.header("access-control-allow-origin"), "http://localhost:3000");
}
