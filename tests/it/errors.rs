//! Every error is JSON with the same members, under an id that the log has too, and tells nothing of the inside.

use crate::support::{Form, TestApp, client};

#[tokio::test]
async fn every_path_and_method_answers_in_json() {
    let app = TestApp::start().await;
    app.put("a.txt", "hello").await.expect(201);
    for path in [
        "/",
        "/nowhere",
        "/upload/",
        "/upload/x",
        "/download",
        "/download/",
        "/download/a/b",
        "/files/a/b",
        "/%00",
        "/Upload",
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            app.send(method, path, &[], "").await.error(404, "unknown_path");
        }
    }
    for (method, path, allowed) in [
        ("GET", "/upload", "POST"),
        ("PUT", "/upload", "POST"),
        ("POST", "/download/a.txt", "GET,HEAD"),
        ("PUT", "/download/a.txt", "GET,HEAD"),
        ("POST", "/files/a.txt", "GET,HEAD,OPTIONS,PUT"),
        ("GET", "/uploads/", "OPTIONS,POST"),
        ("PUT", "/uploads/x", "DELETE,GET,HEAD,OPTIONS,PATCH"),
        ("POST", "/files", "GET,HEAD"),
        ("DELETE", "/status", "GET,HEAD"),
        ("POST", "/status/a.txt", "GET,HEAD"),
        ("POST", "/health", "GET,HEAD"),
        ("PATCH", "/ready", "GET,HEAD"),
        ("TRACE", "/health", "GET,HEAD"),
        ("BREW", "/health", "GET,HEAD"),
    ] {
        let answer = app.send(method, path, &[], "").await;
        answer.error(405, "method_not_allowed");
        let mut named: Vec<_> = answer.header("allow").split(',').map(str::trim).collect();
        named.sort_unstable();
        assert_eq!(named.join(","), allowed, "{method} {path}");
    }
    assert_eq!(app.download("a.txt").await, b"hello");
}

#[tokio::test]
async fn what_is_not_there_is_told_by_name() {
    let app = TestApp::start().await;
    for path in ["/status/a%20b.txt", "/download/a%20b.txt", "/files/a%20b.txt"] {
        let error = app.get(path).await.error(404, "not_found");
        assert_eq!(error["filename"], "a b.txt");
    }
}

#[tokio::test]
async fn a_request_has_an_id_in_header_and_error_and_may_bring_its_own() {
    let app = TestApp::start().await;
    let first = app.get("/nowhere").await;
    let second = app.get("/nowhere").await;
    assert_ne!(
        first.error(404, "unknown_path")["request_id"],
        second.error(404, "unknown_path")["request_id"]
    );
    let given = app.get_with("/nowhere", &[("x-request-id", "proxy-7.a_B")]).await;
    assert_eq!(given.error(404, "unknown_path")["request_id"], "proxy-7.a_B");
    assert_eq!(
        app.get_with("/health", &[("x-request-id", "proxy-8")]).await.header("x-request-id"),
        "proxy-8"
    );
    // Nothing that could forge a line of the log.
    for harmful in ["a b", "a\"b", "a,b", &"x".repeat(65), ""] {
        let answer = app.get_with("/nowhere", &[("x-request-id", harmful)]).await;
        answer.error(404, "unknown_path");
        assert_ne!(answer.header("x-request-id"), harmful);
    }
}

#[tokio::test]
async fn an_error_to_head_has_the_headers_and_no_body() {
    let app = TestApp::start().await;
    app.put("a.txt", "hello").await.expect(201);
    let mut raw = app.connect().await;
    for (target, header, status) in [
        ("/nowhere", ("Accept", "*/*"), 404),
        ("/download/absent.txt", ("Accept", "*/*"), 404),
        ("/upload", ("Accept", "*/*"), 405),
        ("/download/...", ("Accept", "*/*"), 400),
        ("/download/a.txt", ("If-Match", "\"other\""), 412),
        ("/status/absent.txt", ("Accept", "*/*"), 404),
        ("/health", ("X-API-Key", "wrong"), 403),
    ] {
        raw.send_head(&format!("HEAD {target}"), &[header]).await;
        let head = raw.head().await.expect(status);
        assert_eq!(head.header("content-type"), "application/json", "{target}");
        assert!(!head.header("x-request-id").is_empty(), "{target}");
    }
    // A body in between would be taken for this answer.
    raw.send_head("GET /health", &[]).await;
    raw.answer().await.expect(200);
}

#[tokio::test]
async fn a_form_must_come_as_one() {
    let app = TestApp::start().await;
    let form = || Form::with_file("a.txt", b"1").finish();
    for content_type in [
        "text/plain",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/mixed; boundary=x",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        &format!("multipart/form-data; boundary={}", "x".repeat(71)),
        "nonsense",
        "",
    ] {
        let answer = app.send("POST", "/upload", &[("content-type", content_type)], form()).await;
        answer.error(415, "unsupported_media_type");
    }
    app.send("POST", "/upload", &[], form()).await.error(415, "unsupported_media_type");
    // A boundary may stand in quotation marks.
    let form = Form::with_file("a.txt", b"1");
    let quoted = form.content_type().replace("boundary=", "boundary=\"") + "\"; charset=utf-8";
    app.send("POST", "/upload", &[("Content-Type", &quoted)], form.finish()).await.expect(200);
}

#[tokio::test]
async fn a_query_that_is_wrong_says_what_is_wrong() {
    let app = TestApp::start().await;
    app.put("a.txt", "hello").await.expect(201);
    for (path, code) in [
        ("/status?limit=x", "invalid_limit"),
        ("/status?offset=-1", "invalid_offset"),
        ("/files?limit=1.5", "invalid_limit"),
        ("/files?offset=%ff", "invalid_offset"),
        ("/download/a.txt?decrypt=maybe", "invalid_decrypt"),
        ("/files/a.txt?decrypt=maybe", "invalid_decrypt"),
    ] {
        app.get(path).await.error(400, code);
    }
    app.get("/download/a.txt?decrypt=true&unknown=1").await.expect(200);
}

#[tokio::test]
async fn errors_over_http_2_are_the_same() {
    let mut app = TestApp::with(&[("max_file_size", "1000")]).await;
    app.http = client().http2_prior_knowledge().build().unwrap();
    app.get("/nowhere").await.error(404, "unknown_path");
    app.send("HEAD", "/nowhere", &[], "").await.expect(404);
    app.put("a.bin", vec![0; 5 << 20]).await.error(413, "file_too_large");
    app.post(Form::with_file("a.bin", &vec![0; 16 << 20])).await.error(413, "file_too_large");
    app.get("/health").await.expect(200);
}

/// What is no HTTP at all gets no JSON from hyper, but an answer, and the server goes on.
#[tokio::test]
async fn what_is_no_http_is_refused_and_the_server_goes_on() {
    let app = TestApp::start().await;
    for nonsense in [
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
        "GET /health HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
        format!("GET /health HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101)),
        "PUT /files/a HTTP/1.1\r\nContent-Length: x\r\n\r\n".to_owned(),
        "PUT /files/a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12".to_owned(),
        "\u{16}\u{3}\u{1}\0\u{5}".repeat(10),
    ] {
        let mut raw = app.connect().await;
        raw.send(&nonsense).await;
        raw.end().await;
        let answer = String::from_utf8(raw.until_closed().await).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{nonsense:?}: {answer}");
    }
    assert!(app.names().await.is_empty());
}
