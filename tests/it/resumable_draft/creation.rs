//! "Upload Creation", "Limits", "Integrity Digests".

use super::{INTEROP, LAST, MORE, append, begin, digest, offset};
use crate::support::secret::{holding, marked};
use crate::support::{TestApp, client, content, sha256};

/// "Limits": OPTIONS has Accept-Patch with the media type, and the limits.
#[tokio::test]
async fn options_say_that_uploads_may_be_resumed() {
    let app = TestApp::with(&[("max_resumable_size", "5000"), ("upload_expiry", "1h")]).await;
    let path = begin(&app, "a.txt", &[]).await;
    for target in ["/uploads", "/uploads/", path.as_str(), "/files/new.txt"] {
        let answer = app.send("OPTIONS", target, &[], "").await.expect(204);
        assert!(answer.header("accept-patch").contains("application/partial-upload"), "{target}");
        assert_eq!(answer.header("upload-limit"), "min-size=0, max-size=5000, max-age=3600");
        assert!(answer.header("allow").contains("OPTIONS"));
    }
}

/// "Upload Creation": `?0` is answered with 201, Location and Upload-Limit.
#[tokio::test]
async fn an_upload_comes_in_several_requests() {
    let app = TestApp::start().await;
    let bytes = content(100_000, 1);
    let headers = [MORE, INTEROP, ("Upload-Length", "100000")];
    for (target, method) in [("/uploads/?filename=a.bin", "POST"), ("/files/b.bin", "PUT")] {
        let created = app.send(method, target, &headers, bytes[..20_000].to_vec()).await.expect(201);
        assert_eq!(created.header("upload-complete"), "?0");
        assert_eq!(created.header("upload-offset"), "20000");
        assert!(created.header("upload-limit").contains("max-age="), "{}", created.header("upload-limit"));
        assert_eq!(created.header("tus-resumable"), "", "that is another protocol");
        let path = created.header("location");
        assert!(path.starts_with("/uploads/"), "{path}");

        let more = append(&app, path, 20_000, &[MORE], bytes[20_000..70_000].to_vec()).await.expect(204);
        assert_eq!((more.header("upload-complete"), more.header("upload-offset")), ("?0", "70000"));

        // The answer of the original target, once everything is there.
        let last = append(&app, path, 70_000, &[LAST], bytes[70_000..].to_vec()).await.expect(201);
        assert_eq!((last.header("upload-complete"), last.header("upload-offset")), ("?1", "100000"));
        assert_eq!(last.header("repr-digest"), digest(&bytes));
        let answer = last.json();
        assert_eq!(
            (answer["hash"].as_str(), answer["size"].as_u64()),
            (Some(&*sha256(&bytes)), Some(100_000))
        );
        assert_eq!(answer["status"], "completed");
        assert!(app.get(last.header("location")).await.expect(200).body == bytes);
    }
}

/// "Upload Creation": `?1` is answered as a request without the field, and Upload-Complete tells them apart.
#[tokio::test]
async fn a_whole_file_is_answered_as_ever() {
    let app = TestApp::start().await;
    let plain = app.put("a.txt", "first").await.expect(201);
    for (method, target, status) in [
        ("PUT", "/files/a.txt", 200),
        ("POST", "/uploads/?filename=a.txt", 200),
        ("PUT", "/files/b.txt", 201),
    ] {
        let answer = app.send(method, target, &[LAST], "hello").await.expect(status);
        assert_eq!(answer.header("upload-complete"), "?1");
        assert!(answer.header("location").starts_with("/files/"));
        let mut members: Vec<_> = answer.json().as_object().unwrap().keys().cloned().collect();
        let mut expected: Vec<_> = plain.json().as_object().unwrap().keys().cloned().collect();
        members.sort();
        expected.sort();
        assert_eq!(members, expected);
        assert_eq!(app.get(answer.header("location")).await.expect(200).body, b"hello");
    }
    // "If the Upload-Complete header field is then set to true, the client intends to upload an empty representation."
    let empty = app.send("PUT", "/files/empty", &[LAST], "").await.expect(201);
    assert_eq!((empty.header("upload-complete"), empty.json()["size"].as_u64()), ("?1", Some(0)));
    // "Other values MUST cause the entire header field to be ignored": a PUT as every other.
    let ignored = app.put_with("c.txt", &[("Upload-Complete", "true")], "hello").await.expect(201);
    assert_eq!(ignored.header("upload-complete"), "");
    // A name is needed where the path has none.
    app.send("POST", "/uploads/", &[LAST], "hello").await.error(400, "invalid_filename");
    for (header, value) in [
        ("Content-Disposition", "inline; filename=\"d.txt\""),
        ("Content-Disposition", "attachment; filename*=UTF-8''d.txt"),
        // tus-js-client sends it in this protocol, too.
        ("Upload-Metadata", "filename ZC50eHQ="),
    ] {
        let named = app.send("POST", "/uploads/", &[LAST, (header, value)], "hello").await;
        assert_eq!(named.json()["filename"], "d.txt", "{value}");
    }
    let bad = ("Content-Disposition", "inline; filename=\"..\"");
    app.send("POST", "/uploads/", &[LAST, bad], "hello").await.error(400, "invalid_filename");
    app.send("POST", "/uploads/?filename=d.txt", &[INTEROP], "x").await.error(400, "invalid_upload_complete");
    app.send("PUT", "/files/d.txt", &[LAST, ("Content-Encoding", "gzip")], "x")
        .await
        .error(415, "unsupported_media_type");
}

/// "Limits": 413 has them.
#[tokio::test]
async fn what_is_too_large_is_told_the_limit() {
    let app = TestApp::with(&[("max_resumable_size", "1000")]).await;
    let refused = app.send("PUT", "/files/a.bin", &[LAST], vec![0; 1001]).await;
    assert_eq!(refused.error(413, "file_too_large")["max_size"], 1000);
    assert!(refused.header("upload-limit").contains("max-size=1000"));
    let refused = app.send("PUT", "/files/a.bin", &[MORE, ("Upload-Length", "1001")], "x").await;
    refused.error(413, "file_too_large");
    assert!(refused.header("upload-limit").contains("max-size=1000"));
    // Of one whose length nobody knew.
    let path = begin(&app, "a.bin", &[]).await;
    append(&app, &path, 0, &[MORE], vec![0; 600]).await.expect(204);
    let refused = append(&app, &path, 600, &[MORE], vec![0; 401]).await;
    refused.error(413, "file_too_large");
    assert!(refused.header("upload-limit").contains("max-size=1000"));
}

/// "Integrity Digests": Content-Digest is that of a request's content, Repr-Digest that of the whole.
#[tokio::test]
async fn digests_are_checked_and_told() {
    let app = TestApp::start().await;
    let (first, second) = (digest(b"hello "), digest(b"world"));
    let whole = digest(b"hello world");
    let path = begin(&app, "a.txt", &[("Repr-Digest", &whole)]).await;
    let wrong = append(&app, &path, 0, &[MORE, ("Content-Digest", &second)], "hello ").await;
    wrong.error(422, "checksum_mismatch");
    assert_eq!(wrong.header("upload-complete"), "", "the whole has nothing to do with it");
    assert_eq!(offset(&app, &path).await, 0);
    append(&app, &path, 0, &[MORE, ("Content-Digest", &first)], "hello ").await.expect(204);
    append(&app, &path, 6, &[LAST, ("Content-Digest", &first)], "world")
        .await
        .error(422, "checksum_mismatch");
    let wanted = ("Want-Repr-Digest", "sha-256=10");
    let last =
        append(&app, &path, 6, &[LAST, wanted, ("Content-Digest", &second)], "world").await.expect(201);
    assert_eq!(last.header("repr-digest"), whole);
    append(&app, &begin(&app, "b.txt", &[]).await, 0, &[MORE, ("Content-Digest", "sha-256=:AA:")], "x")
        .await
        .error(400, "invalid_digest");
}

#[tokio::test]
async fn a_creation_with_a_key_can_be_repeated() {
    let app = TestApp::start().await;
    let key = ("Idempotency-Key", "4711");
    let path = begin(&app, "a.txt", &[key]).await;
    assert_eq!(begin(&app, "a.txt", &[key]).await, path);
    append(&app, &path, 0, &[MORE], "he").await.expect(204);
    // The whole again cannot be answered as if it were taken: the upload goes on where it is.
    let refused = app.send("PUT", "/files/a.txt", &[LAST, key], "hello").await;
    refused.problem(409, "offset_mismatch", "mismatching-upload-offset");
    assert_eq!((refused.header("upload-offset"), refused.header("location")), ("2", path.as_str()));
    append(&app, &path, 2, &[LAST], "llo").await.expect(201);
    let again = app.send("PUT", "/files/a.txt", &[LAST, key], "hello").await.expect(200);
    assert_eq!(again.json()["hash"], sha256(b"hello"));
}

#[tokio::test]
async fn nothing_of_a_sealed_upload_is_on_the_disk() {
    let app = TestApp::start().await;
    let (bytes, marker) = marked(400_000);
    let path = begin(&app, "a.bin", &[("X-Encryption", "true")]).await;
    append(&app, &path, 0, &[MORE], bytes[..200_001].to_vec()).await.expect(204);
    assert!(holding(app.directory(), marker).is_empty(), "in the middle");
    let last = append(&app, &path, 200_001, &[LAST], bytes[200_001..].to_vec()).await.expect(201);
    assert!(holding(app.directory(), marker).is_empty(), "at the end");
    assert_eq!(last.json()["encryption"], true);
    assert!(app.download("a.bin").await == bytes);
}

/// "Limits": structured fields over HTTP/2, too.
#[tokio::test]
async fn it_is_the_same_over_http_2() {
    let mut app = TestApp::start().await;
    app.http = client().http2_prior_knowledge().build().unwrap();
    let path = begin(&app, "a.txt", &[]).await;
    append(&app, &path, 0, &[MORE], "he").await.expect(204);
    append(&app, &path, 0, &[MORE], "he").await.problem(409, "offset_mismatch", "mismatching-upload-offset");
    append(&app, &path, 2, &[LAST], "llo").await.expect(201);
    assert_eq!(app.download("a.txt").await, b"hello");
}
