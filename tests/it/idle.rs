//! Nobody holds the server up by doing nothing. Ordered by what the server does, not by clocks of the test's own.

use serde_json::Value;

use crate::support::{Form, Raw, TestApp, content};

#[tokio::test]
async fn an_upload_that_stands_still_is_ended_and_told_so() {
    let app = TestApp::with(&[("idle_timeout", "300ms")]).await;
    let form = Form::with_file("b.txt", b"begun").unfinished();
    let form_type = Form::new().content_type();
    for (request, name, content_type, body) in [
        ("PUT /files/a.txt", "a.txt", "text/plain", &b"begun"[..]),
        ("POST /upload", "b.txt", &form_type, &form[..]),
    ] {
        for framing in [("Content-Length", "1000000"), ("Transfer-Encoding", "chunked")] {
            let mut raw = app.connect().await;
            raw.send_head(request, &[("Content-Type", content_type), framing]).await;
            if framing.1 == "chunked" {
                raw.send_chunk(body).await;
            } else {
                raw.send(body).await;
            }
            raw.answer().await.error(408, "request_timeout");
            let status = app.status(name).await;
            assert_eq!(status["status"], "failed");
            assert!(status["error"].as_str().unwrap().contains("nothing came"), "{status}");
        }
    }
    assert!(app.names().await.is_empty());
    app.nothing_is_left().await;
}

#[tokio::test]
async fn a_connection_that_does_not_finish_its_header_is_ended() {
    let app = TestApp::with(&[("header_timeout", "200ms")]).await;
    for begun in ["", "GET", "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut raw = app.connect().await;
        raw.send(begun).await;
        raw.until_closed().await;
    }
    // Nor does one stay that asks once and then no more.
    let mut raw = app.connect().await;
    raw.send_head("GET /health", &[]).await;
    raw.answer().await.expect(200);
    raw.until_closed().await;
}

/// The only connection there may be is that of a reader who does not read: the next one is served once it was ended.
#[tokio::test]
async fn a_download_whose_reader_stops_is_ended() {
    let settings = [("idle_timeout", "300ms"), ("max_connections", "1"), ("durability", "process")];
    let app = TestApp::with(&settings).await;
    let bytes = content(32 << 20, 1);
    let mut raw = app.connect().await;
    raw.send_head(
        "PUT /files/a.bin",
        &[("Content-Length", &bytes.len().to_string()), ("Connection", "close")],
    )
    .await;
    raw.send(&bytes).await;
    raw.answer().await.expect(201);

    let mut reader = Raw::with_small_buffers(app.address).await;
    reader.send_head("GET /download/a.bin", &[]).await;
    reader.head().await.expect(200);
    let mut next = app.connect().await;
    next.send_head("GET /health", &[("Connection", "close")]).await;
    next.answer().await.expect(200);
    let got = reader.until_closed().await;
    assert!(got.len() < bytes.len() && bytes.starts_with(&got), "got {} bytes", got.len());
}

/// Slow is not still: each byte comes in time, all of them don't.
#[tokio::test]
async fn an_upload_that_is_slow_but_goes_on_is_not_ended() {
    let app = TestApp::with(&[("idle_timeout", "300ms")]).await;
    let mut raw = app.connect().await;
    raw.send_head("PUT /files/a.txt", &[("Content-Length", "40")]).await;
    let begun = std::time::Instant::now();
    for sent in 1..=40_u64 {
        raw.send(b"x").await;
        // Paced by the server: its answers come when it has seen the byte, and until some time has passed.
        let seen = |status: &Value| status["transferred_bytes"] == sent;
        if sent < 40 {
            app.status_becomes("a.txt", seen).await;
            while begun.elapsed().as_millis() < u128::from(20 * sent) {
                app.get("/health").await.expect(200);
            }
        }
    }
    raw.answer().await.expect(201);
    assert!(begun.elapsed().as_millis() > 600, "longer than the limit");
}
