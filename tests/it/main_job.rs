//! The main job: a file goes up, comes back whole, and its SHA-256 and status can be seen.

use serde_json::Value;

use crate::support::{TestApp, content, sha256};

#[tokio::test]
async fn a_file_put_comes_back_whole_with_its_digest_and_status() {
    let app = TestApp::start().await;
    let bytes = content(3_000_000, 1);
    let answer = app.http.put(app.url("/files/a.bin")).body(bytes.clone()).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["hash"], sha256(&bytes));
    assert_eq!(answer["size"], 3_000_000);
    assert_eq!(answer["status"], "completed");

    let download = app.http.get(app.url("/download/a.bin")).send().await.unwrap();
    assert_eq!(download.headers()["etag"], format!("\"{}\"", sha256(&bytes)));
    assert_eq!(download.bytes().await.unwrap(), bytes);

    let status: Value = app.http.get(app.url("/status/a.bin")).send().await.unwrap().json().await.unwrap();
    assert_eq!(status["status"], "completed");
    assert_eq!(status["checksum"], sha256(&bytes));
    assert_eq!(status["progress"], 100);
    assert!(app.leftovers().is_empty());
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let app = TestApp::start().await;
    let bytes = content(300_000, 2);
    app.http
        .put(app.url("/files/a.bin"))
        .body(bytes.clone())
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    let stopped = app.stop().await;
    let app = TestApp::on(stopped.directory(), &[]).await;
    let download = app.http.get(app.url("/download/a.bin")).send().await.unwrap();
    assert_eq!(download.headers()["etag"], format!("\"{}\"", sha256(&bytes)));
    assert_eq!(download.bytes().await.unwrap(), bytes);
}
