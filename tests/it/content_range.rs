//! `PUT /files/{filename}` with `Content-Range`: what `curl -C OFFSET -T FILE` sends.

use crate::support::{Answer, TestApp, content, sha256};

async fn put(app: &TestApp, filename: &str, range: &str, body: impl Into<reqwest::Body>) -> Answer {
    app.put_with(filename, &[("Content-Range", range)], body).await
}

/// Begins an upload of a.bin, breaks it off after so many bytes, and waits until the server knows.
async fn broken_off(app: &TestApp, bytes: &[u8], sent: usize) {
    let (length, range) = (bytes.len(), format!("bytes 0-{}/{}", bytes.len() - 1, bytes.len()));
    let mut raw = app.connect().await;
    let headers = [("Content-Length", length.to_string()), ("Content-Range", range)];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    raw.send_head("PUT /files/a.bin", &headers).await;
    raw.send(&bytes[..sent]).await;
    app.status_becomes("a.bin", |status| status["transferred_bytes"].as_u64() == Some(sent as u64)).await;
    raw.end().await;
    raw.answer().await.error(400, "incomplete_body");
}

/// `curl -C - -T a.bin` broke off; the status says how far it came, and `curl -C OFFSET -T a.bin` sends the rest.
#[tokio::test]
async fn an_upload_that_broke_off_goes_on() {
    let app = TestApp::start().await;
    let bytes = content(1_000_000, 1);
    broken_off(&app, &bytes, 400_000).await;
    assert!(app.names().await.is_empty());
    let status = app.status("a.bin").await;
    assert_eq!(
        (status["status"].as_str(), status["transferred_bytes"].as_u64()),
        (Some("uploading"), Some(400_000))
    );
    // From elsewhere: it is told from where.
    for at in [1, 399_999, 400_001] {
        let range = format!("bytes {at}-999999/1000000");
        let refused = put(&app, "a.bin", &range, bytes[at..].to_vec()).await;
        let error = refused.error(409, "offset_mismatch");
        assert_eq!(
            (error["expected_offset"].as_u64(), error["received_bytes"].as_u64()),
            (Some(400_000), Some(400_000))
        );
    }
    let last = put(&app, "a.bin", "bytes 400000-999999/1000000", bytes[400_000..].to_vec()).await.expect(201);
    assert_eq!(last.json()["hash"], sha256(&bytes));
    assert_eq!(last.header("location"), "/files/a.bin");
    assert!(app.download("a.bin").await == bytes);
    // There is none to go on with any more.
    let refused = put(&app, "a.bin", "bytes 400000-999999/1000000", bytes[400_000..].to_vec()).await;
    assert_eq!(refused.error(409, "offset_mismatch")["expected_offset"], 0);
}

/// `curl -T a.bin` broke off: the request did not say that it would go on, and it can all the same.
#[tokio::test]
async fn a_plain_put_that_broke_off_goes_on() {
    let app = TestApp::start().await;
    let bytes = content(3 << 20, 3);
    let mut raw = app.connect().await;
    raw.send_head("PUT /files/a.bin", &[("Content-Length", &bytes.len().to_string())]).await;
    raw.send(&bytes[..2 << 20]).await;
    app.status_becomes("a.bin", |status| status["transferred_bytes"].as_u64() == Some(2 << 20)).await;
    raw.end().await;
    raw.answer().await.error(400, "incomplete_body");
    let range = format!("bytes {}-{}/{}", 2 << 20, bytes.len() - 1, bytes.len());
    let last = put(&app, "a.bin", &range, bytes[2 << 20..].to_vec()).await.expect(201);
    assert_eq!(last.json()["hash"], sha256(&bytes));
    assert!(app.download("a.bin").await == bytes);
}

/// Range by range, as a script would send a file in pieces.
#[tokio::test]
async fn a_file_may_come_range_by_range() {
    let app = TestApp::start().await;
    app.put("a.txt", "whole").await.expect(201);
    let first = put(&app, "a.txt", "bytes 0-4/11", "hello").await.expect(202);
    let answer = first.json();
    assert_eq!((answer["success"].as_bool(), answer["status"].as_str()), (Some(true), Some("uploading")));
    assert_eq!((answer["received_bytes"].as_u64(), answer["total_bytes"].as_u64()), (Some(5), Some(11)));
    assert_eq!(app.download("a.txt").await, b"whole", "until the new one is complete");
    assert!(first.header("location").starts_with("/uploads/"));
    put(&app, "a.txt", "bytes 5-5/*", " ").await.expect(202);
    put(&app, "a.txt", "bytes 6-10/12", "world").await.error(400, "inconsistent_length");
    put(&app, "a.txt", "bytes 6-10/11", "world").await.expect(200);
    assert_eq!(app.download("a.txt").await, b"hello world");
    // Each client has its own.
    put(&app, "b.txt?client_id=desk", "bytes 0-1/4", "ab").await.expect(202);
    put(&app, "b.txt?client_id=lap", "bytes 2-3/4", "cd").await.error(409, "offset_mismatch");
    put(&app, "b.txt?client_id=desk", "bytes 2-3/4", "cd").await.expect(201);
}

/// The whole as one range: `curl -C -`, which can't know how far it came. It begins anew.
#[tokio::test]
async fn a_range_that_is_the_whole_begins_anew() {
    let app = TestApp::start().await;
    let bytes = content(100_000, 2);
    broken_off(&app, &bytes, 50_000).await;
    let sealed = put(&app, "a.bin?encryption=true", "bytes 0-99999/100000", bytes.clone()).await.expect(201);
    assert_eq!(sealed.json()["encryption"], true);
    assert!(app.download("a.bin").await == bytes);
}

#[tokio::test]
async fn a_range_that_is_none_is_refused() {
    let app = TestApp::start().await;
    app.put("a.txt", "whole").await.expect(201);
    for range in ["bytes 0-1/5", "bytes 0-5/5", "bytes 3-1/5", "bytes */5", "items 0-4/5", "nonsense", ""] {
        put(&app, "a.txt", range, "hello").await.error(400, "invalid_content_range");
    }
    put(&app, "a.txt", "bytes 2-6/7", "hello").await.error(409, "offset_mismatch");
    let wrong = [("Content-Range", "bytes 0-4/5"), ("Content-Digest", "sha-256=:AAAA:")];
    app.put_with("a.txt", &wrong, "hello").await.error(400, "invalid_digest");
    let coded = [("Content-Range", "bytes 0-4/5"), ("Content-Encoding", "gzip")];
    app.put_with("a.txt", &coded, "hello").await.error(415, "unsupported_media_type");
    assert_eq!(app.download("a.txt").await, b"whole");
}
