//! Whoever sends too much is told so, even one who sends everything before it reads.

use crate::support::{Answer, Form, Raw, TestApp, content};

const LIMIT: usize = 100_000;
/// More than the sockets on both sides buffer: whoever sends it all has had it read.
const MUCH: usize = 24 << 20;

async fn small() -> TestApp {
    TestApp::with(&[("max_file_size", "100000")]).await
}

fn assert_too_large(answer: &Answer) {
    assert_eq!(answer.error(413, "file_too_large")["max_size"], LIMIT);
}

#[tokio::test]
async fn exactly_the_limit_is_taken_and_one_byte_more_is_not() {
    let app = small().await;
    let bytes = content(LIMIT + 1, 1);
    for size in [LIMIT - 1, LIMIT] {
        app.put("a.bin", bytes[..size].to_vec()).await;
        app.post(Form::with_file("b.bin", &bytes[..size])).await.expect(200);
        assert_eq!(app.download("a.bin").await, bytes[..size]);
        assert_eq!(app.download("b.bin").await, bytes[..size]);
    }
    assert_too_large(&app.put("a.bin", bytes.clone()).await);
    assert_too_large(&app.post(Form::with_file("b.bin", &bytes)).await);
    // What stood there stands there still.
    assert_eq!(app.download("a.bin").await, bytes[..LIMIT]);
    assert_eq!(app.download("b.bin").await, bytes[..LIMIT]);
    app.nothing_is_left().await;
}

#[tokio::test]
async fn a_client_that_sends_everything_before_it_reads_sees_the_413() {
    let app = small().await;
    let much = content(MUCH, 2);
    let form = Form::with_file("b.bin", &much);
    let (form_type, form) = (form.content_type(), form.finish());
    let little = Form::with_file("b.bin", &much[..=LIMIT]);
    let (little_type, little) = (little.content_type(), little.finish());
    for (request, content_type, body) in [
        ("PUT /files/a.bin", "application/octet-stream", &much[..]),
        ("PUT /files/a.bin", "application/octet-stream", &much[..=LIMIT]),
        // So long that its length alone tells, and not.
        ("POST /upload", &form_type, &form[..]),
        ("POST /upload", &little_type, &little[..]),
    ] {
        let length = body.len().to_string();
        let mut raw = app.connect().await;
        raw.send_head(request, &[("Content-Type", content_type), ("Content-Length", &length)]).await;
        raw.send(body).await;
        assert_too_large(&raw.answer().await);
        goes_on(raw).await;

        let mut raw = app.connect().await;
        raw.send_head(request, &[("Content-Type", content_type), ("Transfer-Encoding", "chunked")]).await;
        for piece in body.chunks(1 << 20) {
            raw.send_chunk(piece).await;
        }
        raw.send_chunk(b"").await;
        assert_too_large(&raw.answer().await);
        goes_on(raw).await;
    }
    app.nothing_is_left().await;
}

/// The connection is still good for the next request.
async fn goes_on(mut raw: Raw) {
    raw.send_head("GET /health", &[]).await;
    raw.answer().await.expect(200);
}

#[tokio::test]
async fn refused_for_any_reason_a_client_that_sends_everything_sees_why() {
    let app = TestApp::with(&[("api_keys", "a-key-of-the-operator")]).await;
    let length = MUCH.to_string();
    for (request, header, status, code) in [
        ("PUT /files/a.bin", ("X-API-Key", "wrong"), 403, "invalid_api_key"),
        ("PUT /files/a.bin", ("X-Encryption", "perhaps"), 400, "invalid_encryption"),
        ("PUT /files/a.bin", ("X-Priority", "eleven"), 400, "invalid_priority"),
        ("PUT /files/...", ("X-Priority", "1"), 400, "invalid_filename"),
        ("POST /upload", ("Content-Type", "text/plain"), 415, "unsupported_media_type"),
        ("POST /health", ("X-Priority", "1"), 405, "method_not_allowed"),
        ("POST /nowhere", ("X-Priority", "1"), 404, "unknown_path"),
    ] {
        let mut raw = app.connect().await;
        raw.send_head(request, &[header, ("Content-Length", &length)]).await;
        raw.send(content(MUCH, 3)).await;
        raw.answer().await.error(status, code);
        goes_on(raw).await;
    }
}

#[tokio::test]
async fn where_the_length_alone_tells_the_answer_comes_before_the_body() {
    let app = small().await;
    let form_type = Form::new().content_type();
    for (request, content_type) in
        [("PUT /files/a.bin", "application/octet-stream"), ("POST /upload", form_type.as_str())]
    {
        let mut raw = app.connect().await;
        raw.send_head(request, &[("Content-Type", content_type), ("Content-Length", "10737418240")]).await;
        assert_too_large(&raw.answer().await);
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let app = small().await;
    let mut raw = app.connect().await;
    raw.send_head("PUT /files/a.bin", &[("Content-Length", "5"), ("Expect", "100-continue")]).await;
    assert_eq!(raw.answer().await.status, 100);
    raw.send(b"hello").await;
    raw.answer().await.expect(201);
    goes_on(raw).await;

    let form = Form::with_file("b.bin", b"hello");
    let (content_type, body) = (form.content_type(), form.finish());
    let length = body.len().to_string();
    let mut raw = app.connect().await;
    let headers =
        [("Content-Type", content_type.as_str()), ("Content-Length", &length), ("Expect", "100-continue")];
    raw.send_head("POST /upload", &headers).await;
    assert_eq!(raw.answer().await.status, 100);
    raw.send(body).await;
    raw.answer().await.expect(200);
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_without_being_told_to_go_on() {
    let app = TestApp::with(&[("max_file_size", "100000"), ("api_keys", "a-key-of-the-operator")]).await;
    app.put("there.bin", "there").await.expect(201);
    for (request, header, status, code) in [
        ("PUT /files/a.bin", ("Content-Length", "100001"), 413, "file_too_large"),
        ("PUT /files/a.bin", ("X-API-Key", "wrong"), 403, "invalid_api_key"),
        ("PUT /files/a.bin", ("X-Encryption", "perhaps"), 400, "invalid_encryption"),
        ("PUT /files/there.bin", ("If-None-Match", "*"), 409, "already_exists"),
        ("PUT /files/absent.bin", ("If-Match", "*"), 412, "precondition_failed"),
        ("POST /upload", ("Content-Type", "text/plain"), 415, "unsupported_media_type"),
        ("POST /nowhere", ("Content-Type", "text/plain"), 404, "unknown_path"),
    ] {
        let mut headers = vec![("Expect", "100-continue"), header];
        if header.0 != "Content-Length" {
            headers.push(("Content-Length", "50000"));
        }
        let mut raw = app.connect().await;
        raw.send_head(request, &headers).await;
        raw.answer().await.error(status, code);
    }
    assert_eq!(app.names().await, ["there.bin"]);
}

/// curl waits a second for the 100, then sends all the same; some clients don't wait at all.
#[tokio::test]
async fn a_client_that_asks_first_and_does_not_wait_sees_the_refusal() {
    let app = small().await;
    let length = MUCH.to_string();
    let mut raw = app.connect().await;
    raw.send_head("PUT /files/a.bin", &[("Content-Length", &length), ("Expect", "100-continue")]).await;
    raw.send(content(MUCH, 4)).await;
    assert_too_large(&raw.answer().await);
}
