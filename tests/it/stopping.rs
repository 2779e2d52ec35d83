//! The end of a server: what runs may finish, what doesn't is told; and one server to a directory.

use std::time::Duration;

use crate::support::{Form, Raw, TestApp, client, content};

/// The server has begun to stop: it takes no more connections.
async fn is_closed(app: &TestApp) {
    while tokio::net::TcpStream::connect(app.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_that_stops_lets_uploads_and_downloads_finish() {
    let app = TestApp::start().await;
    let bytes = content(24 << 20, 1);
    app.put("old.bin", bytes.clone()).await.expect(201);
    let mut download = Raw::with_small_buffers(app.address).await;
    download.send_head("GET /download/old.bin", &[]).await;
    download.head().await.expect(200);
    let mut upload = app.connect().await;
    upload.send_head("PUT /files/new.bin", &[("Content-Length", "1000000")]).await;
    upload.send(&bytes[..500_000]).await;
    app.status_becomes("new.bin", |status| status["transferred_bytes"] == 500_000).await;
    let mut kept = app.connect().await;
    kept.send_head("GET /health", &[]).await;
    kept.answer().await.expect(200);

    app.ask_to_stop();
    is_closed(&app).await;
    assert!(kept.until_closed().await.is_empty(), "who asks for nothing is not waited for");
    upload.send(&bytes[500_000..1_000_000]).await;
    upload.answer().await.expect(201);
    assert!(upload.until_closed().await.is_empty());
    assert!(download.take(bytes.len()).await == bytes);
    let stopped = app.stop().await;
    let app = TestApp::on(stopped.directory(), &[]).await;
    assert!(app.download("new.bin").await == bytes[..1_000_000]);
    assert_eq!(app.status("new.bin").await["status"], "completed");
}

#[tokio::test]
async fn after_the_grace_what_still_runs_is_ended_and_recorded_as_failed() {
    let app = TestApp::with(&[("shutdown_grace", "200ms")]).await;
    let bytes = content(24 << 20, 1);
    app.put("old.bin", bytes.clone()).await.expect(201);
    let mut download = Raw::with_small_buffers(app.address).await;
    download.send_head("GET /download/old.bin", &[]).await;
    download.head().await.expect(200);
    let mut put = app.connect().await;
    put.send_head("PUT /files/put.bin", &[("Content-Length", "1000000")]).await;
    put.send(&bytes[..500_000]).await;
    let form = Form::with_file("form.bin", &bytes[..500_000]);
    let mut post = app.connect().await;
    post.send_head("POST /upload", &[("Content-Type", &form.content_type()), ("Content-Length", "1000000")])
        .await;
    post.send(form.unfinished()).await;
    let http2 = client().http2_prior_knowledge().build().unwrap();
    let begun = futures_util::stream::once(async { Ok::<_, std::io::Error>(vec![1; 100_000]) });
    let endless = futures_util::StreamExt::chain(begun, futures_util::stream::pending());
    let request = http2.put(app.url("/files/http2.bin")).body(reqwest::Body::wrap_stream(endless));
    let http2 = tokio::spawn(request.send());
    for name in ["put.bin", "form.bin", "http2.bin"] {
        app.status_becomes(name, |status| status["transferred_bytes"].as_u64() > Some(90_000)).await;
    }

    let stopped = app.stop().await;
    assert!(put.until_closed().await.is_empty());
    assert!(post.until_closed().await.is_empty());
    assert!(http2.await.unwrap().is_err());
    let got = download.until_closed().await;
    assert!(got.len() < bytes.len() && bytes.starts_with(&got));
    let app = TestApp::on(stopped.directory(), &[]).await;
    for name in ["put.bin", "form.bin", "http2.bin"] {
        let status = app.status(name).await;
        assert_eq!(status["status"], "failed", "{status}");
        assert!(status["error"].as_str().unwrap().contains("before"), "{status}");
    }
    assert_eq!(app.names().await, ["old.bin"]);
    assert!(app.download("old.bin").await == bytes);
    app.nothing_is_left().await;
}

/// A request that began before the stop is answered, and a load balancer told to go elsewhere.
#[tokio::test]
async fn a_server_that_stops_is_not_ready() {
    let app = TestApp::start().await;
    let mut probe = Raw::with_small_buffers(app.address).await;
    // More than the sockets hold: once it is sent, the server has read of it.
    let padding = format!("X-Padding: {}\r\n", "x".repeat(4000)).repeat(50);
    probe.send(format!("GET /ready HTTP/1.1\r\nHost: sft.test\r\n{padding}")).await;
    app.ask_to_stop();
    is_closed(&app).await;
    probe.send("\r\n").await;
    probe.answer().await.error(503, "draining");
    assert!(probe.until_closed().await.is_empty());
    app.stop().await;
}

#[tokio::test]
async fn a_server_without_work_stops_at_once() {
    let app = TestApp::with(&[("shutdown_grace", "1h")]).await;
    let (_silent, mut kept) = (app.connect().await, app.connect().await);
    kept.send_head("GET /health", &[]).await;
    kept.answer().await.expect(200);
    tokio::time::timeout(Duration::from_secs(30), app.stop())
        .await
        .expect("it waits for those who ask nothing");
}

#[tokio::test]
async fn a_second_server_on_one_directory_is_refused_in_words() {
    let app = TestApp::start().await;
    app.put("a.txt", "hello").await.expect(201);
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_sft"));
    second
        .args(["serve", "--server-host", "127.0.0.1", "--port", "0", "--upload-dir"])
        .arg(app.storage())
        .arg("--log-file")
        .arg(app.directory().join("other.json"));
    let output = tokio::task::spawn_blocking(move || second.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    let last = told.lines().last().unwrap();
    assert!(last.contains("is in use by another server") && last.contains("UPLOAD_DIR"), "{told}");
    assert_eq!(app.download("a.txt").await, b"hello", "and the first goes on");
    let stopped = app.stop().await;
    // Once it has stopped, the directory is free.
    let app = TestApp::on(stopped.directory(), &[]).await;
    assert_eq!(app.download("a.txt").await, b"hello");
}
