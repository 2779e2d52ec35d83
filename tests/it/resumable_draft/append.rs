//! "Offset Retrieval", "Upload Append", "Upload Cancellation".

use super::{INTEROP, LAST, MORE, PARTIAL, append, begin, digest, head, offset};
use crate::support::TestApp;

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

/// RFC 9110 §8.6: "A server MUST NOT send a Content-Length header field in any response with a status code of … 204".
#[tokio::test]
async fn an_answer_without_content_has_no_length_of_it() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[]).await;
    let mut raw = app.connect().await;
    for method in ["HEAD", "GET", "OPTIONS", "DELETE"] {
        raw.send_head(&format!("{method} {path}"), &[INTEROP]).await;
        let answer = raw.head().await.expect(204);
        assert!(!answer.headers.contains_key("content-length"), "{method}");
    }
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
        let problem = refused.problem(409, "offset_mismatch", "mismatching-upload-offset");
        assert_eq!(
            (problem["expected-offset"].as_u64(), problem["provided-offset"].as_u64()),
            (Some(2), Some(at))
        );
        assert_eq!((refused.header("upload-offset"), refused.header("upload-complete")), ("2", "?0"));
    }
    // Whatever else does not agree: from where to go on is what the client needs.
    let headers = [LAST, ("Upload-Length", "9")];
    append(&app, &path, 0, &headers, "x").await.problem(409, "offset_mismatch", "mismatching-upload-offset");
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
