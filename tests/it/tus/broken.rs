//! What no client library shows: connections that break, hang, and are taken over.

use super::{BYTES, VERSION, begin, head, offset, patch};
use crate::support::{Raw, TestApp, content};

/// Begins a PATCH of an upload of `bytes`, sends the first `sent` of them, and waits until the server has them.
async fn hanging(app: &TestApp, path: &str, bytes: &[u8], sent: usize) -> Raw {
    let length = bytes.len().to_string();
    let mut raw = app.connect().await;
    let headers = [VERSION, BYTES, ("Upload-Offset", "0"), ("Content-Length", &length)];
    raw.send_head(&format!("PATCH {path}"), &headers).await;
    raw.send(&bytes[..sent]).await;
    app.status_becomes("a.bin", |status| status["transferred_bytes"].as_u64() == Some(sent as u64)).await;
    raw
}

/// "PATCH": "The Server SHOULD always attempt to store as much of the received data as possible."
#[tokio::test]
async fn a_patch_that_breaks_off_keeps_what_arrived() {
    let app = TestApp::start().await;
    let bytes = content(1_000_000, 1);
    let path = begin(&app, "a.bin", &[("Upload-Length", "1000000")]).await;
    drop(hanging(&app, &path, &bytes, 400_000).await);
    assert_eq!(offset(&app, &path).await, 400_000);
    patch(&app, &path, 400_000, &[], bytes[400_000..].to_vec()).await.expect(204);
    assert!(app.download("a.bin").await == bytes);
}

/// A client that stops in the middle and still listens is told, and can go on.
#[tokio::test]
async fn a_patch_that_ends_too_soon_is_told_so() {
    let app = TestApp::start().await;
    let bytes = content(1_000_000, 2);
    let path = begin(&app, "a.bin", &[("Upload-Length", "1000000")]).await;
    let mut raw = hanging(&app, &path, &bytes, 400_000).await;
    raw.end().await;
    raw.answer().await.error(400, "incomplete_body");
    assert_eq!(offset(&app, &path).await, 400_000);
}

#[tokio::test]
async fn a_patch_that_stands_still_is_ended() {
    let app = TestApp::with(&[("idle_timeout", "300ms")]).await;
    let bytes = content(1_000_000, 3);
    let path = begin(&app, "a.bin", &[("Upload-Length", "1000000")]).await;
    let mut raw = hanging(&app, &path, &bytes, 400_000).await;
    raw.answer().await.error(409, "request_timeout");
    assert_eq!(offset(&app, &path).await, 400_000);
}

/// HEAD tells what is durable at once, though another connection still holds the upload: its peer is dead, who asks knows.
#[tokio::test]
async fn head_does_not_wait_for_a_dead_connection() {
    let app = TestApp::start().await;
    let bytes = content(1_000_000, 4);
    let path = begin(&app, "a.bin", &[("Upload-Length", "1000000")]).await;
    let mut dead = hanging(&app, &path, &bytes, 400_000).await;
    let told = head(&app, &path).await.expect(200);
    assert_eq!(told.header("upload-offset"), "400000");
    patch(&app, &path, 400_000, &[], bytes[400_000..].to_vec()).await.expect(204);
    dead.answer().await.error(409, "taken_over");
    assert!(app.download("a.bin").await == bytes);
}

/// A second PATCH takes over at once, and bytes that the first one still sends go nowhere.
#[tokio::test]
async fn a_newcomer_takes_over_and_nothing_interleaves() {
    let app = TestApp::start().await;
    let bytes = content(1_000_000, 5);
    let path = begin(&app, "a.bin", &[("Upload-Length", "1000000")]).await;
    let mut old = hanging(&app, &path, &bytes, 400_000).await;
    // It has heard nothing: it goes on from the last that it was told, which is the beginning.
    let refused = patch(&app, &path, 0, &[], bytes.clone()).await;
    assert_eq!(refused.error(409, "offset_mismatch")["expected_offset"], 400_000);
    let newcomer = patch(&app, &path, 400_000, &[], bytes[400_000..700_000].to_vec()).await.expect(204);
    assert_eq!(newcomer.header("upload-offset"), "700000");
    _ = old.try_send(vec![0; 600_000]).await;
    old.answer().await.error(409, "taken_over");
    assert_eq!(offset(&app, &path).await, 700_000);
    patch(&app, &path, 700_000, &[], bytes[700_000..].to_vec()).await.expect(204);
    assert!(app.download("a.bin").await == bytes);
}

/// The same at the same offset: the one that came later goes on, whichever had brought more.
#[tokio::test]
async fn the_later_of_two_goes_on() {
    let app = TestApp::start().await;
    let bytes = content(500_000, 6);
    let path = begin(&app, "a.bin", &[("Upload-Length", "500000")]).await;
    let mut old = app.connect().await;
    let headers = [VERSION, BYTES, ("Upload-Offset", "0"), ("Content-Length", "500000")];
    let expect = [&headers[..], &[("Expect", "100-continue")]].concat();
    old.send_head(&format!("PATCH {path}"), &expect).await;
    assert_eq!(old.head().await.status, 100);
    patch(&app, &path, 0, &[], bytes.clone()).await.expect(204);
    old.answer().await.error(409, "taken_over");
    assert!(app.download("a.bin").await == bytes);
}

/// "Termination": a connection that still holds the upload lets go.
#[tokio::test]
async fn delete_does_not_wait_either() {
    let app = TestApp::start().await;
    let bytes = content(1_000_000, 7);
    let path = begin(&app, "a.bin", &[("Upload-Length", "1000000")]).await;
    let mut dead = hanging(&app, &path, &bytes, 400_000).await;
    app.send("DELETE", &path, &[VERSION], "").await.expect(204);
    assert!([409, 410].contains(&dead.answer().await.status));
    head(&app, &path).await.expect(410);
    app.nothing_is_left().await;
}

/// A body with a checksum that breaks off can't be compared: nothing of it is kept.
#[tokio::test]
async fn a_checked_body_that_breaks_off_is_not_kept() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.bin", &[("Upload-Length", "100000")]).await;
    let mut raw = app.connect().await;
    let headers = [
        VERSION,
        BYTES,
        ("Upload-Offset", "0"),
        ("Content-Length", "100000"),
        ("Upload-Checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="),
    ];
    raw.send_head(&format!("PATCH {path}"), &headers).await;
    raw.send(content(50_000, 8)).await;
    raw.end().await;
    raw.answer().await.error(400, "incomplete_body");
    assert_eq!(offset(&app, &path).await, 0);
}

/// An upload outlives the server: the same URL goes on after a restart.
#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let app = TestApp::start().await;
    let bytes = content(300_000, 9);
    let path = begin(&app, "a.bin", &[("Upload-Length", "300000"), ("Idempotency-Key", "k")]).await;
    patch(&app, &path, 0, &[], bytes[..123_456].to_vec()).await.expect(204);
    let metadata = head(&app, &path).await.header("upload-metadata").to_owned();
    let stopped = app.stop().await;
    let app = TestApp::on(stopped.directory(), &[]).await;
    let told = head(&app, &path).await.expect(200);
    assert_eq!(told.header("upload-offset"), "123456");
    assert_eq!(told.header("upload-metadata"), metadata);
    assert_eq!(begin(&app, "a.bin", &[("Upload-Length", "300000"), ("Idempotency-Key", "k")]).await, path);
    patch(&app, &path, 123_456, &[], bytes[123_456..].to_vec()).await.expect(204);
    assert!(app.download("a.bin").await == bytes);
}
