//! "Concurrency", and connections that break.

use super::{INTEROP, LAST, PARTIAL, append, begin, head, offset};
use crate::support::{Raw, TestApp, content};

/// Begins an append of `bytes`, sends the first `sent` of them, and waits until the server has them.
async fn hanging(app: &TestApp, path: &str, bytes: &[u8], sent: usize) -> Raw {
    let length = bytes.len().to_string();
    let mut raw = app.connect().await;
    let headers = [INTEROP, PARTIAL, LAST, ("Upload-Offset", "0"), ("Content-Length", &length)];
    raw.send_head(&format!("PATCH {path}"), &headers).await;
    raw.send(&bytes[..sent]).await;
    app.status_becomes("a.bin", |status| status["transferred_bytes"].as_u64() == Some(sent as u64)).await;
    raw
}

/// "Upload Append": "the server SHOULD append as much of the patch document as possible"; "MUST NOT be considered complete".
#[tokio::test]
async fn what_breaks_off_is_kept_and_is_not_complete() {
    let app = TestApp::start().await;
    let bytes = content(1_000_000, 2);
    let path = begin(&app, "a.bin", &[]).await;
    drop(hanging(&app, &path, &bytes, 400_000).await);
    let told = head(&app, &path).await.expect(204);
    assert_eq!((told.header("upload-offset"), told.header("upload-complete")), ("400000", "?0"));
    assert_eq!(told.header("upload-length"), "1000000", "?1 and Content-Length have told it");
    append(&app, &path, 400_000, &[LAST], bytes[400_000..].to_vec()).await.expect(201);
    assert!(app.download("a.bin").await == bytes);
}

/// "Concurrency": the older request ends; an offset that was told is accepted.
#[tokio::test]
async fn the_newer_of_two_requests_goes_on() {
    let app = TestApp::start().await;
    let bytes = content(1_000_000, 3);
    let path = begin(&app, "a.bin", &[]).await;
    let mut old = hanging(&app, &path, &bytes, 400_000).await;
    let at = offset(&app, &path).await;
    assert_eq!(at, 400_000);
    _ = old.try_send(vec![0; 100_000]).await;
    append(&app, &path, at, &[LAST], bytes[400_000..].to_vec()).await.expect(201);
    old.answer().await.error(409, "taken_over");
    assert!(app.download("a.bin").await == bytes);
    // And one that is cancelled lets go.
    let path = begin(&app, "a.bin", &[]).await;
    let mut dead = hanging(&app, &path, &bytes, 400_000).await;
    app.send("DELETE", &path, &[], "").await.expect(204);
    assert!([409, 410].contains(&dead.answer().await.status));
}
