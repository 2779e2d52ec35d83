//! Connections: kept, pipelined, HTTP/2, too many.

use crate::support::{Form, TestApp, client, content, head, sha256};

#[tokio::test]
async fn one_connection_serves_request_after_request() {
    let app = TestApp::start().await;
    let mut raw = app.connect().await;
    for round in 0..20 {
        let bytes = content(round * 20_000, round as u64);
        raw.send_head("PUT /files/a.bin", &[("Content-Length", &bytes.len().to_string())]).await;
        raw.send(&bytes).await;
        assert_eq!(raw.answer().await.json()["hash"], sha256(&bytes));
        raw.send_head("GET /download/a.bin", &[]).await;
        assert!(raw.answer().await.expect(200).body == bytes);
        raw.send_head("GET /nowhere", &[]).await;
        raw.answer().await.error(404, "unknown_path");
        raw.send_head("GET /status", &[]).await;
        assert_eq!(raw.answer().await.expect(200).json()["transfers"][0]["filename"], "a.bin");
    }
    raw.send_head("GET /health", &[("Connection", "close")]).await;
    raw.answer().await.expect(200);
    assert!(raw.until_closed().await.is_empty());
}

#[tokio::test]
async fn requests_that_come_all_at_once_are_answered_in_order() {
    let app = TestApp::start().await;
    let mut raw = app.connect().await;
    let all = [
        head("PUT /files/a.txt", &[("Content-Length", "3")]),
        "one".into(),
        head("GET /download/a.txt", &[]),
        head("PUT /files/a.txt", &[("Transfer-Encoding", "chunked")]),
        "3\r\ntwo\r\n0\r\n\r\n".into(),
        head("HEAD /files/a.txt", &[]),
        head("GET /download/a.txt", &[("Range", "bytes=0-0")]),
        head("POST /health", &[("Content-Length", "4")]),
        "skip".into(),
        head("GET /health", &[]),
    ];
    raw.send(all.concat()).await;
    raw.answer().await.expect(201);
    assert_eq!(raw.answer().await.expect(200).body, b"one");
    raw.answer().await.expect(200);
    assert_eq!(raw.head().await.expect(200).header("content-length"), "3");
    assert_eq!(raw.answer().await.expect(206).body, b"t");
    raw.answer().await.error(405, "method_not_allowed");
    assert_eq!(raw.answer().await.expect(200).json()["status"], "ok");
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let app = TestApp::start().await;
    app.put("a.txt", "hello").await.expect(201);
    let mut raw = app.connect().await;
    raw.send("GET /download/a.txt HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8(raw.until_closed().await).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\nhello"), "{answer}");
}

#[tokio::test]
async fn http_2_without_tls_does_everything() {
    let mut app = TestApp::start().await;
    app.http = client().http2_prior_knowledge().build().unwrap();
    let bytes = content(5_000_000, 1);
    assert_eq!(app.put("a.bin", bytes.clone()).await.expect(201).json()["hash"], sha256(&bytes));
    let form = Form::with_file("b.bin", &bytes).field("priority", "2");
    assert_eq!(app.post(form).await.expect(200).json()["priority"], 2);
    let answer = app.http.get(app.url("/download/a.bin")).send().await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert!(answer.bytes().await.unwrap() == bytes);
    let part = app.get_with("/download/b.bin", &[("range", "bytes=4999999-")]).await.expect(206);
    assert_eq!(part.body, bytes[4_999_999..]);
    // On one connection, at once.
    let work = (0..40_u64).map(|n| {
        let app = &app;
        async move {
            let bytes = content(200_000, n);
            app.put(&format!("{n}.bin"), bytes.clone()).await.expect(201);
            assert!(app.download(&format!("{n}.bin")).await == bytes);
        }
    });
    futures_util::future::join_all(work).await;
    assert_eq!(app.names().await.len(), 42);
}

#[tokio::test]
async fn one_connection_too_many_waits_and_is_then_served() {
    let app = TestApp::with(&[("max_connections", "2")]).await;
    let (mut first, mut second) = (app.connect().await, app.connect().await);
    for raw in [&mut first, &mut second] {
        raw.send_head("GET /health", &[]).await;
        raw.answer().await.expect(200);
    }
    let mut third = app.connect().await;
    third.send_head("GET /files", &[]).await;
    // The server does much else meanwhile.
    for _ in 0..50 {
        for raw in [&mut first, &mut second] {
            raw.send_head("GET /health", &[]).await;
            raw.answer().await.expect(200);
        }
        assert!(!third.has_answer());
    }
    drop(first);
    third.answer().await.expect(200);
}

/// What a client that goes away leaves behind is nothing.
#[tokio::test]
async fn clients_that_go_away_in_the_middle_hurt_nobody() {
    let app = TestApp::with(&[("max_connections", "4")]).await;
    let bytes = content(8 << 20, 1);
    app.put_with("a.bin", &[("connection", "close")], bytes.clone()).await.expect(201);
    for _ in 0..12 {
        let mut raw = app.connect().await;
        raw.send_head("GET /download/a.bin", &[]).await;
        raw.take(100_000).await;
    }
    for _ in 0..12 {
        let mut raw = app.connect().await;
        raw.send_head("PUT /files/b.bin", &[("Content-Length", "1000000")]).await;
        raw.send(&bytes[..300_000]).await;
    }
    // With four connections at once, all of those must have been given up by now.
    assert!(app.download("a.bin").await == bytes);
    assert_eq!(app.names().await, ["a.bin"]);
    app.nothing_is_left().await;
}
