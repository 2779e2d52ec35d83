//! Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload, interop version 8), sentence by sentence. The names of
//! sections are the draft's.

use base64::Engine as _;
use sha2::Digest as _;

use crate::support::secret::{holding, marked};
use crate::support::{Answer, Raw, TestApp, content, sha256};

const INTEROP: (&str, &str) = ("Upload-Draft-Interop-Version", "8");
const PARTIAL: (&str, &str) = ("Content-Type", "application/partial-upload");
const MORE: (&str, &str) = ("Upload-Complete", "?0");
const LAST: (&str, &str) = ("Upload-Complete", "?1");

/// Begins an upload without bytes; gives its path.
async fn begin(app: &TestApp, filename: &str, headers: &[(&str, &str)]) -> String {
    let headers = [&[MORE, INTEROP], headers].concat();
    let answer = app.send("POST", &format!("/uploads/?filename={filename}"), &headers, "").await.expect(201);
    answer.header("location").to_owned()
}

async fn append(
    app: &TestApp,
    path: &str,
    offset: u64,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Answer {
    let offset = offset.to_string();
    let headers = [&[INTEROP, PARTIAL, ("Upload-Offset", &offset)], headers].concat();
    app.send("PATCH", path, &headers, body).await
}

async fn head(app: &TestApp, path: &str) -> Answer {
    app.send("HEAD", path, &[INTEROP], "").await
}

async fn offset(app: &TestApp, path: &str) -> u64 {
    head(app, path).await.expect(204).header("upload-offset").parse().expect("an offset")
}

fn digest(bytes: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(bytes));
    format!("sha-256=:{base64}:")
}

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

/// "Offset Retrieval": offset, completeness, length if known, limits; not to be cached; no redirect.
#[tokio::test]
async fn head_and_get_tell_how_far_an_upload_is() {
    let app = TestApp::start().await;
    for (length, expected) in [(None, ""), (Some(("Upload-Length", "5")), "5")] {
        let headers: Vec<_> = length.into_iter().collect();
        let path = begin(&app, "a.txt", &headers).await;
        append(&app, &path, 0, &[MORE], "hel").await.expect(204);
        // A client of the finished protocol says nothing of a version; curl -I neither.
        for (method, headers) in [("HEAD", &[INTEROP][..]), ("GET", &[INTEROP]), ("HEAD", &[]), ("GET", &[])]
        {
            let told = app.send(method, &path, headers, "").await.expect(204);
            assert_eq!(told.header("upload-offset"), "3");
            assert_eq!(told.header("upload-complete"), "?0");
            assert_eq!(told.header("upload-length"), expected);
            assert_eq!(told.header("cache-control"), "no-store");
            let limit = told.header("upload-limit");
            let age = limit.split("max-age=").nth(1).and_then(|age| age.parse::<u64>().ok());
            assert!(age.is_some_and(|age| (86_000..=86_400).contains(&age)), "{limit}");
            // What only tus has is told to who may speak it.
            assert_eq!(told.header("tus-resumable"), if headers.is_empty() { "1.0.0" } else { "" });
            assert_eq!(told.header("upload-expires").is_empty(), !headers.is_empty());
        }
        append(&app, &path, 3, &[LAST], "lo").await;
        let told = head(&app, &path).await.expect(204);
        assert_eq!((told.header("upload-offset"), told.header("upload-complete")), ("5", "?1"));
        assert_eq!(told.header("upload-length"), "5");
        // "Responses to Uploads": what the lost answer said, in header fields.
        assert_eq!(told.header("repr-digest"), digest(b"hello"));
    }
    head(&app, "/uploads/nonsense").await.expect(404);
}

/// "Completeness": the client says when an upload ends, not its length.
#[tokio::test]
async fn an_upload_ends_when_the_client_says_so() {
    let app = TestApp::start().await;
    for length in ["0", "5"] {
        let path = begin(&app, "a.txt", &[("Upload-Length", length)]).await;
        let body = &"hello"[..length.parse().unwrap()];
        append(&app, &path, 0, &[MORE], body).await.expect(204);
        let told = head(&app, &path).await.expect(204);
        assert_eq!((told.header("upload-offset"), told.header("upload-complete")), (length, "?0"));
        assert_eq!(told.header("upload-length"), length);
        let last = append(&app, &path, body.len() as u64, &[LAST], "").await;
        assert!([200, 201].contains(&last.status), "{}", last.text());
        assert_eq!(app.download("a.txt").await, body.as_bytes());
    }
}

/// "Upload Append": another offset is 409, with the right one and the problem's type.
#[tokio::test]
async fn an_append_at_another_offset_is_refused() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[("Upload-Length", "5")]).await;
    append(&app, &path, 0, &[MORE], "he").await.expect(204);
    for (at, complete) in [(0, MORE), (1, LAST), (3, MORE), (999_999_999_999_999, MORE)] {
        let refused = append(&app, &path, at, &[complete], "x").await;
        // Where both are wrong, either may be told.
        if refused.status == 400 {
            refused.problem(400, "inconsistent_length", "inconsistent-upload-length");
            continue;
        }
        let problem = refused.problem(409, "offset_mismatch", "mismatching-upload-offset");
        assert_eq!(
            (problem["expected-offset"].as_u64(), problem["provided-offset"].as_u64()),
            (Some(2), Some(at))
        );
        assert_eq!((refused.header("upload-offset"), refused.header("upload-complete")), ("2", "?0"));
    }
    assert_eq!(append(&app, &path, 0, &[MORE], "x").await.status, 409);
    assert_eq!(offset(&app, &path).await, 2);
    // Fields that are no structured fields are ignored: then they are missing.
    for (header, value, code) in [
        ("Upload-Offset", "-1", "invalid_upload_offset"),
        ("Upload-Offset", "1000000000000000", "invalid_upload_offset"),
        ("Upload-Offset", "2.0", "invalid_upload_offset"),
        ("Upload-Complete", "1", "invalid_upload_complete"),
        ("Upload-Complete", "?2", "invalid_upload_complete"),
    ] {
        let mut headers = vec![PARTIAL, INTEROP, (header, value)];
        headers.extend([("Upload-Offset", "2"), MORE].into_iter().filter(|other| other.0 != header));
        app.send("PATCH", &path, &headers, "x").await.error(400, code);
    }
    let headers = [("Content-Type", "application/octet-stream"), ("Upload-Offset", "2"), MORE];
    let refused = app.send("PATCH", &path, &headers, "x").await;
    refused.error(415, "unsupported_media_type");
    assert!(refused.header("accept-patch").contains("application/partial-upload"));
    append(&app, &path, 2, &[LAST], "llo").await.expect(201);
}

/// "Length": indications that disagree.
#[tokio::test]
async fn lengths_that_disagree_are_refused() {
    let app = TestApp::start().await;
    let length = |length| ("Upload-Length", length);
    for headers in [[LAST, length("6")], [LAST, length("4")], [MORE, length("4")]] {
        let refused = app.send("PUT", "/files/a.txt", &headers, "hello").await;
        refused.problem(400, "inconsistent_length", "inconsistent-upload-length");
    }
    let path = begin(&app, "a.txt", &[length("5")]).await;
    for (headers, body) in
        [(&[MORE, length("6")][..], "he"), (&[LAST], "he"), (&[LAST], "hello!"), (&[MORE], "hello!")]
    {
        let refused = append(&app, &path, 0, headers, body).await;
        refused.problem(400, "inconsistent_length", "inconsistent-upload-length");
        assert_eq!(offset(&app, &path).await, 0);
    }
    // Also where only the end of the body shows it.
    let mut raw = app.connect().await;
    let headers = [INTEROP, PARTIAL, MORE, ("Upload-Offset", "0"), ("Transfer-Encoding", "chunked")];
    raw.send_head(&format!("PATCH {path}"), &headers).await;
    raw.send_chunk(b"hello!").await;
    raw.send_chunk(b"").await;
    raw.answer().await.problem(400, "inconsistent_length", "inconsistent-upload-length");
    append(&app, &path, 0, &[LAST], "hello").await.expect(201);
    assert_eq!(app.download("a.txt").await, b"hello");
}

/// "Upload Append": "If the upload is already complete, the server MUST NOT modify the upload resource and MUST reject the
/// request."
#[tokio::test]
async fn a_complete_upload_takes_nothing_more() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[]).await;
    append(&app, &path, 0, &[LAST], "hello").await.expect(201);
    append(&app, &path, 5, &[LAST], "").await.problem(400, "upload_complete", "completed-upload");
    append(&app, &path, 5, &[MORE], "").await.problem(400, "upload_complete", "completed-upload");
    append(&app, &path, 5, &[LAST], "more").await.problem(
        400,
        "inconsistent_length",
        "inconsistent-upload-length",
    );
    let refused = append(&app, &path, 0, &[LAST], "hello").await;
    refused.problem(409, "offset_mismatch", "mismatching-upload-offset");
    assert_eq!(refused.header("upload-offset"), "5");
    assert_eq!(app.download("a.txt").await, b"hello");
}

/// "Upload Append": an error of what is made of the whole has `Upload-Complete: ?1`: nobody is to send more.
#[tokio::test]
async fn an_error_of_the_original_target_says_that_everything_came() {
    let app = TestApp::start().await;
    app.put("there.txt", "sooner").await.expect(201);
    let wrong = digest(b"another");
    for (header, status, code) in [
        (("Repr-Digest", wrong.as_str()), 422, "checksum_mismatch"),
        (("X-Client-Id", "someone"), 409, "already_exists"),
    ] {
        let path = begin(&app, "new.txt", &[header, ("If-None-Match", "*")]).await;
        append(&app, &path, 0, &[MORE], "he").await.expect(204);
        if status == 409 {
            app.put("new.txt", "meanwhile").await.expect(201);
        }
        let refused = append(&app, &path, 2, &[LAST], "llo").await;
        refused.error(status, code);
        assert_eq!(refused.header("upload-complete"), "?1");
        head(&app, &path).await.expect(410);
    }
    // What is known at the beginning is refused there, and no upload is made.
    let refused = app.put_with("there.txt", &[LAST, ("If-None-Match", "*")], "hello").await;
    assert!([409, 412].contains(&refused.status), "{}", refused.text());
    assert_eq!(app.download("there.txt").await, b"sooner");
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

/// "Upload Cancellation".
#[tokio::test]
async fn an_upload_can_be_cancelled() {
    let app = TestApp::start().await;
    for headers in [&[INTEROP][..], &[]] {
        let path = begin(&app, "a.txt", &[]).await;
        append(&app, &path, 0, &[MORE], "he").await.expect(204);
        app.send("DELETE", &path, headers, "").await.expect(204);
        head(&app, &path).await.expect(410);
        append(&app, &path, 2, &[MORE], "llo").await.error(410, "upload_gone");
    }
    app.nothing_is_left().await;
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

/// Both protocols are views of one upload.
#[tokio::test]
async fn what_one_protocol_began_the_other_may_end() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[("Upload-Length", "5")]).await;
    append(&app, &path, 0, &[MORE], "he").await.expect(204);
    let tus = ("Tus-Resumable", "1.0.0");
    let told = app.send("HEAD", &path, &[tus], "").await.expect(200);
    assert_eq!((told.header("upload-offset"), told.header("upload-complete")), ("2", ""));
    let headers = [tus, ("Content-Type", "application/offset+octet-stream"), ("Upload-Offset", "2")];
    app.send("PATCH", &path, &headers, "llo").await.expect(204);
    assert_eq!(head(&app, &path).await.header("upload-complete"), "?1");
    assert_eq!(app.download("a.txt").await, b"hello");
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
    app.http = crate::support::client().http2_prior_knowledge().build().unwrap();
    let path = begin(&app, "a.txt", &[]).await;
    append(&app, &path, 0, &[MORE], "he").await.expect(204);
    append(&app, &path, 0, &[MORE], "he").await.problem(409, "offset_mismatch", "mismatching-upload-offset");
    append(&app, &path, 2, &[LAST], "llo").await.expect(201);
    assert_eq!(app.download("a.txt").await, b"hello");
}
