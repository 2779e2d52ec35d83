//! Creation, Creation With Upload, Creation Defer Length, and what a creation can say in our own words.

use super::{BYTES, begin, head, metadata, offset, patch, post};
use crate::support::{TestApp, sha256};

/// "Creation": 201 with Location; HEAD has the metadata as they were sent.
#[tokio::test]
async fn an_upload_is_created_and_filled() {
    let app = TestApp::start().await;
    let metadata = metadata(&[("filename", "ä b.txt"), ("filetype", "text/plain"), ("is_confidential", "")]);
    let headers = [("Upload-Length", "5"), ("Upload-Metadata", metadata.as_str())];
    for target in ["/uploads", "/uploads/"] {
        let created = app.send("POST", target, &super::with(&headers), "").await.expect(201);
        let path = created.header("location");
        assert!(path.starts_with("/uploads/"), "{path}");
        assert!(!created.header("upload-expires").is_empty());
        assert_eq!(head(&app, path).await.header("upload-metadata"), metadata);
        assert_eq!(offset(&app, path).await, 0);
        patch(&app, path, 0, &[], "hello").await.expect(204);
        assert_eq!(head(&app, path).await.header("upload-metadata"), metadata);
        assert_eq!(app.download("%C3%A4%20b.txt").await, b"hello");
    }
    // A length of 0 is complete at once.
    let metadata = super::metadata(&[("filename", "empty")]);
    let headers = [("Upload-Length", "0"), ("Upload-Metadata", metadata.as_str())];
    let created = post(&app, &headers, "").await.expect(201);
    let told = head(&app, created.header("location")).await.expect(200);
    assert_eq!((told.header("upload-offset"), told.header("upload-length")), ("0", "0"));
    assert_eq!(app.download("empty").await, b"");
}

/// Every rule of the headers, one row each.
#[tokio::test]
async fn a_creation_that_is_none_is_refused() {
    let app = TestApp::with(&[("max_resumable_size", "1000")]).await;
    let good = metadata(&[("filename", "a.txt")]);
    let meta = ("Upload-Metadata", good.as_str());
    let option = |key, value| metadata(&[("filename", "a.txt"), (key, value)]);
    let (encryption, priority) = (option("encryption", "maybe"), option("priority", "11"));
    let (digest, dots) = (option("sha256", "12"), metadata(&[("filename", "..")]));
    let length = ("Upload-Length", "5");
    for (headers, status, code) in [
        (&[meta][..], 400, "invalid_upload_length"),
        (&[meta, length, ("Upload-Defer-Length", "1")], 400, "invalid_upload_length"),
        (&[meta, ("Upload-Defer-Length", "0")], 400, "invalid_upload_length"),
        (&[meta, ("Upload-Defer-Length", "2")], 400, "invalid_upload_length"),
        (&[meta, ("Upload-Length", "-1")], 400, "invalid_upload_length"),
        (&[meta, ("Upload-Length", "x")], 400, "invalid_upload_length"),
        (&[meta, ("Upload-Length", "1001")], 413, "file_too_large"),
        (&[length], 400, "invalid_filename"),
        (&[length, ("Upload-Metadata", "filename")], 400, "invalid_filename"),
        (&[length, ("Upload-Metadata", &dots)], 400, "invalid_filename"),
        (&[length, ("Upload-Metadata", "filename !")], 400, "invalid_metadata"),
        (&[length, ("Upload-Metadata", "a YQ==,a YQ==")], 400, "invalid_metadata"),
        (&[length, ("Upload-Metadata", "a YQ==,,b YQ==")], 400, "invalid_metadata"),
        (&[length, ("Upload-Metadata", &encryption)], 400, "invalid_encryption"),
        (&[length, ("Upload-Metadata", &priority)], 400, "invalid_priority"),
        (&[length, ("Upload-Metadata", &digest)], 400, "invalid_sha256"),
        (&[meta, length, ("X-Priority", "x")], 400, "invalid_priority"),
        (&[meta, length, ("Upload-Concat", "some")], 400, "invalid_upload_concat"),
        (&[meta, length, ("Idempotency-Key", "")], 400, "invalid_idempotency_key"),
    ] {
        let refused = post(&app, headers, "").await;
        let error = refused.error(status, code);
        assert_eq!(refused.header("location"), "", "{headers:?}");
        if status == 413 {
            assert_eq!(error["max_size"], 1000);
        }
    }
    // A body that does not say what it is.
    post(&app, &[meta, length], "hello").await.error(415, "unsupported_media_type");
    assert_eq!(app.get("/status").await.expect(200).json()["transfers"], serde_json::json!([]));
    app.nothing_is_left().await;
}

/// What is said of a file in a form can be said here: as metadata, in the query, by headers.
#[tokio::test]
async fn options_are_taken_wherever_they_stand() {
    let app = TestApp::start().await;
    let by_metadata = metadata(&[("filename", "a.txt"), ("priority", "7"), ("sha256", &sha256(b"hello"))]);
    let by_name = metadata(&[("name", "b.txt"), ("type", "text/plain"), ("relativePath", "null")]);
    for (name, target, headers) in [
        ("a.txt", "/uploads/", &[("Upload-Metadata", by_metadata.as_str())][..]),
        ("b.txt", "/uploads/?priority=7", &[("Upload-Metadata", by_name.as_str())]),
        ("c.txt", "/uploads?filename=c.txt", &[("X-Priority", "7"), ("X-Client-Id", "desk")]),
    ] {
        let headers = super::with(&[headers, &[("Upload-Length", "5")]].concat());
        let created = app.send("POST", target, &headers, "").await.expect(201);
        let status = app.status(name).await;
        assert_eq!((status["status"].as_str(), status["priority"].as_u64()), (Some("uploading"), Some(7)));
        assert_eq!(status["total_bytes"], 5);
        patch(&app, created.header("location"), 0, &[], "hello").await.expect(204);
        assert_eq!(app.status(name).await["status"], "completed");
    }
    assert_eq!(app.status("c.txt").await["client_id"], "desk");
    // What the client said of the whole is held against the whole.
    let path = begin(&app, "d.txt", &[("Upload-Length", "5"), ("Repr-Digest", &repr_digest(b"hullo"))]).await;
    let refused = patch(&app, &path, 0, &[], "hello").await;
    assert_eq!(refused.error(422, "checksum_mismatch")["actual"], sha256(b"hello"));
    app.get("/download/d.txt").await.error(404, "not_found");
    head(&app, &path).await.expect(410);
    // And a condition against what stands there at the end.
    let path = begin(&app, "e.txt", &[("Upload-Length", "5"), ("If-None-Match", "*")]).await;
    app.put("e.txt", "sooner").await.expect(201);
    patch(&app, &path, 0, &[], "hello").await.error(409, "already_exists");
    assert_eq!(app.download("e.txt").await, b"sooner");
}

fn repr_digest(bytes: &[u8]) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    let base64 = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(bytes));
    format!("sha-256=:{base64}:")
}

/// "Creation With Upload": the same rules as for PATCH, and Upload-Offset in the answer.
#[tokio::test]
async fn a_creation_may_bring_bytes() {
    let app = TestApp::start().await;
    let metadata = metadata(&[("filename", "a.txt")]);
    let headers = [("Upload-Length", "11"), ("Upload-Metadata", &metadata), BYTES];
    let created = post(&app, &headers, "hello ").await.expect(201);
    assert_eq!(created.header("upload-offset"), "6");
    assert!(!created.header("upload-expires").is_empty());
    let path = created.header("location");
    assert_eq!(offset(&app, path).await, 6);
    patch(&app, path, 6, &[], "world").await.expect(204);
    assert_eq!(app.download("a.txt").await, b"hello world");

    let whole = post(&app, &headers, "hello there").await.expect(201);
    assert_eq!(whole.header("upload-offset"), "11");
    assert_eq!(whole.header("upload-expires"), "");
    assert_eq!(app.download("a.txt").await, b"hello there");

    // Nothing of it is taken where its checksum is another's, and the upload can be filled all the same.
    let wrong = [&headers[..], &[("Upload-Checksum", "sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=")]].concat();
    let refused = post(&app, &wrong, "hello ").await;
    refused.error(460, "checksum_mismatch");
    assert_eq!(offset(&app, refused.header("location")).await, 0);
    post(&app, &headers, "more than eleven").await.error(400, "inconsistent_length");
}

/// "Creation Defer Length": set once, by a PATCH; then it stays.
#[tokio::test]
async fn a_length_may_come_later() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[("Upload-Defer-Length", "1")]).await;
    let told = head(&app, &path).await.expect(200);
    assert_eq!((told.header("upload-defer-length"), told.header("upload-length")), ("1", ""));
    patch(&app, &path, 0, &[], "hel").await.expect(204);
    assert_eq!(head(&app, &path).await.header("upload-defer-length"), "1");
    patch(&app, &path, 3, &[("Upload-Length", "x")], "").await.error(400, "invalid_upload_length");
    patch(&app, &path, 3, &[("Upload-Length", "2")], "").await.error(400, "inconsistent_length");
    patch(&app, &path, 3, &[("Upload-Length", "5")], "").await.expect(204);
    let told = head(&app, &path).await.expect(200);
    assert_eq!((told.header("upload-defer-length"), told.header("upload-length")), ("", "5"));
    patch(&app, &path, 3, &[("Upload-Length", "6")], "lo!").await.error(400, "inconsistent_length");
    patch(&app, &path, 3, &[("Upload-Length", "5")], "lo").await.expect(204);
    assert_eq!(app.download("a.txt").await, b"hello");
    // With the last bytes.
    let path = begin(&app, "b.txt", &[("Upload-Defer-Length", "1")]).await;
    patch(&app, &path, 0, &[("Upload-Length", "5")], "hello").await.expect(204);
    assert_eq!(app.download("b.txt").await, b"hello");
}

/// The same key gives the same upload, however often the answer is lost.
#[tokio::test]
async fn a_creation_with_a_key_can_be_repeated() {
    let app = TestApp::start().await;
    let key = [("Upload-Length", "5"), ("Idempotency-Key", "8e03978e-40d5-43dd")];
    let first = begin(&app, "a.txt", &key).await;
    assert_eq!(begin(&app, "a.txt", &key).await, first);
    patch(&app, &first, 0, &[], "he").await.expect(204);
    // With bytes: those that are there are not taken again.
    let metadata = metadata(&[("filename", "a.txt")]);
    let headers = [key[0], key[1], ("Upload-Metadata", metadata.as_str()), BYTES];
    let again = post(&app, &headers, "hello").await.expect(201);
    assert_eq!((again.header("location"), again.header("upload-offset")), (first.as_str(), "2"));
    patch(&app, &first, 2, &[], "llo").await.expect(204);
    assert_eq!(begin(&app, "a.txt", &key).await, first, "complete");
    assert_ne!(begin(&app, "a.txt", &[key[0], ("Idempotency-Key", "other")]).await, first);
    assert_eq!(app.download("a.txt").await, b"hello");
}

#[tokio::test]
async fn too_many_unfinished_uploads_are_refused_for_a_while() {
    let app = TestApp::with(&[("max_unfinished_per_client", "2")]).await;
    let length = ("Upload-Length", "5");
    let first = begin(&app, "a.txt", &[length]).await;
    begin(&app, "b.txt", &[length]).await;
    let metadata = metadata(&[("filename", "c.txt")]);
    let headers = [length, ("Upload-Metadata", metadata.as_str())];
    let refused = post(&app, &headers, "").await;
    refused.error(429, "too_many_uploads");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
    patch(&app, &first, 0, &[], "hello").await.expect(204);
    post(&app, &headers, "").await.expect(201);
}
