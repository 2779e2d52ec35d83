//! The core protocol, and Checksum, Expiration and Termination.

use base64::Engine as _;
use sha2::Digest as _;

use super::{BYTES, VERSION, begin, head, metadata, offset, patch, post, with};
use crate::support::{FOR_EVER, TestApp, content, sha256};

const EXTENSIONS: [&str; 8] = [
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "checksum-trailer",
    "termination",
    "concatenation",
];

/// "OPTIONS": 204 or 200 with Tus-Version; the server ignores Tus-Resumable.
#[tokio::test]
async fn options_say_what_the_server_can_do() {
    let app = TestApp::with(&[("max_resumable_size", "5000")]).await;
    let path = begin(&app, "a.txt", &[("Upload-Length", "5")]).await;
    for target in ["/uploads", "/uploads/", path.as_str()] {
        for headers in [
            &[][..],
            &[("Tus-Resumable", "0.2.2")],
            // A page's own question, not its browser's.
            &[("Origin", "http://localhost:3000")],
        ] {
            let answer = app.send("OPTIONS", target, headers, "").await.expect(204);
            assert_eq!(answer.header("tus-version"), "1.0.0", "{target} {headers:?}");
            let extensions: Vec<_> = answer.header("tus-extension").split(',').collect();
            assert_eq!(extensions, EXTENSIONS);
            assert_eq!(answer.header("tus-max-size"), "5000");
            let algorithms = answer.header("tus-checksum-algorithm");
            assert!(["sha1", "sha256", "md5"].iter().all(|name| algorithms.contains(name)), "{algorithms}");
            assert_eq!(answer.header("tus-resumable"), "", "on every answer but this");
            if headers.first().is_some_and(|header| header.0 == "Origin") {
                assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:3000");
            }
        }
    }
    let unlimited = TestApp::start().await;
    let answer = unlimited.send("OPTIONS", "/uploads/", &[], "").await.expect(204);
    assert_eq!(answer.header("tus-max-size"), "");
}

#[tokio::test]
async fn a_page_may_ask_send_and_read_all_of_it() {
    let app = TestApp::start().await;
    let origin = ("Origin", "http://localhost:3000");
    let asked = "tus-resumable,upload-length,upload-metadata,upload-offset,x-http-method-override";
    for method in ["POST", "PATCH", "DELETE", "HEAD"] {
        let headers =
            [origin, ("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", asked)];
        let preflight = app.send("OPTIONS", "/uploads/", &headers, "").await.expect(200);
        assert!(preflight.header("access-control-allow-methods").contains(method));
        assert_eq!(preflight.header("access-control-allow-headers"), asked);
        assert_eq!(preflight.header("tus-version"), "", "this is the browser's question");
    }
    let metadata = metadata(&[("filename", "a.txt")]);
    let headers = [origin, ("Upload-Length", "5"), ("Upload-Metadata", &metadata)];
    let created = post(&app, &headers, "").await.expect(201);
    let exposed = created.header("access-control-expose-headers").to_lowercase();
    for header in [
        "location",
        "tus-resumable",
        "tus-version",
        "tus-extension",
        "tus-max-size",
        "tus-checksum-algorithm",
        "upload-offset",
        "upload-length",
        "upload-defer-length",
        "upload-metadata",
        "upload-concat",
        "upload-expires",
        "upload-complete",
        "upload-limit",
    ] {
        assert!(exposed.split(',').any(|name| name.trim() == header), "{header} of {exposed}");
    }
}

/// "Tus-Resumable": another version is 412 with Tus-Version, and the request is not processed.
#[tokio::test]
async fn another_version_is_refused_and_nothing_is_done() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[("Upload-Length", "5")]).await;
    for version in ["0.2.2", "1.0.1", "2.0.0", ""] {
        let version = ("Tus-Resumable", version);
        for (method, target, headers) in [
            ("POST", "/uploads/", &[version, ("Upload-Length", "0")][..]),
            ("HEAD", &path, &[version]),
            ("PATCH", &path, &[version, BYTES, ("Upload-Offset", "0")]),
            ("DELETE", &path, &[version]),
        ] {
            let body = if method == "PATCH" { "hello" } else { "" };
            let answer = app.send(method, target, headers, body).await.expect(412);
            assert_eq!(answer.header("tus-version"), "1.0.0", "{method}");
            assert_eq!(answer.header("tus-resumable"), "1.0.0", "{method}");
            assert_eq!(answer.header("upload-offset"), "", "{method}");
        }
    }
    // A client that does not say so speaks neither protocol.
    for (method, target, headers) in [
        ("POST", "/uploads/", &[("Upload-Length", "5")][..]),
        ("PATCH", &path, &[BYTES, ("Upload-Offset", "0")]),
    ] {
        let refused = app.send(method, target, headers, "hello").await;
        refused.error(412, "unsupported_tus_version");
        assert_eq!(refused.header("tus-version"), "1.0.0");
    }
    assert_eq!(offset(&app, &path).await, 0);
    assert_eq!(app.status("a.txt").await["status"], "uploading");
}

/// "Tus-Resumable": in every answer but those to OPTIONS, whoever makes it.
#[tokio::test]
async fn every_answer_names_the_version() {
    let app = TestApp::with(&[("auth", "all"), ("api_keys", "a-key-of-the-operator")]).await;
    let key = ("X-API-Key", "a-key-of-the-operator");
    let metadata = metadata(&[("filename", "a.txt")]);
    let create = [VERSION, key, ("Upload-Length", "5"), ("Upload-Metadata", &metadata)];
    let created = app.send("POST", "/uploads/", &create, "").await.expect(201);
    assert_eq!(created.header("tus-resumable"), "1.0.0");
    let path = created.header("location").to_owned();
    for (status, method, target, headers) in [
        (200, "HEAD", path.as_str(), &[VERSION, key][..]),
        (400, "PATCH", &path, &[VERSION, key, BYTES]),
        (401, "HEAD", &path, &[VERSION]),
        (401, "POST", "/uploads/", &[VERSION]),
        (403, "HEAD", &path, &[VERSION, ("X-API-Key", "wrong")]),
        (404, "HEAD", "/uploads/nonsense", &[VERSION, key]),
        (404, "GET", "/uploads/a/b", &[VERSION, key]),
        (405, "PUT", &path, &[VERSION, key]),
        (405, "DELETE", "/uploads/", &[VERSION, key]),
        (409, "PATCH", &path, &[VERSION, key, BYTES, ("Upload-Offset", "3")]),
        (415, "PATCH", &path, &[VERSION, key, ("Upload-Offset", "0")]),
        (204, "PATCH", &path, &[VERSION, key, BYTES, ("Upload-Offset", "0")]),
        (204, "DELETE", &path, &[VERSION, key]),
        (410, "HEAD", &path, &[VERSION, key]),
    ] {
        let answer = app.send(method, target, headers, "").await.expect(status);
        assert_eq!(answer.header("tus-resumable"), "1.0.0", "{method} {target} {status}");
        // "HEAD": an answer that was kept would have the client go on from the wrong offset.
        assert_eq!(answer.header("cache-control"), "no-store", "{method} {target} {status}");
    }
    // An OPTIONS that is something else by its header needs the key of that.
    let path = app.send("POST", "/uploads/", &create, "").await.expect(201).header("location").to_owned();
    app.send("OPTIONS", &path, &[], "").await.expect(204);
    let hidden = [VERSION, ("X-HTTP-Method-Override", "DELETE")];
    app.send("OPTIONS", &path, &hidden, "").await.error(401, "api_key_required");
    app.send("HEAD", &path, &[VERSION, key], "").await.expect(200);
}

/// "HEAD": Upload-Offset always, even 0 or complete; Upload-Length if known; no-store; not found without an offset.
#[tokio::test]
async fn head_says_how_far_an_upload_is() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[("Upload-Length", "5")]).await;
    for (sent, expected) in [("", "0"), ("he", "2"), ("llo", "5")] {
        let at = offset(&app, &path).await;
        patch(&app, &path, at, &[], sent).await.expect(204);
        let answer = head(&app, &path).await.expect(200);
        assert_eq!(answer.header("upload-offset"), expected);
        assert_eq!(answer.header("upload-length"), "5");
        assert_eq!(answer.header("upload-defer-length"), "");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.body.is_empty());
    }
    assert_eq!(app.download("a.txt").await, b"hello");
    for unknown in ["/uploads/01890000-0000-7000-8000-000000000000", "/uploads/nonsense", "/uploads/%ff"] {
        let answer = head(&app, unknown).await.expect(404);
        assert_eq!(answer.header("upload-offset"), "");
        patch(&app, unknown, 0, &[], "hello").await.error(404, "not_found");
        app.send("DELETE", unknown, &[VERSION], "").await.error(404, "not_found");
    }
}

/// "PATCH": 415 without its media type, 409 at another offset, and then nothing has changed; 204 and the sum.
#[tokio::test]
async fn patch_adds_at_the_offset_and_nowhere_else() {
    let app = TestApp::start().await;
    let bytes = content(100_000, 1);
    let path = begin(&app, "a.bin", &[("Upload-Length", "100000")]).await;
    let first = patch(&app, &path, 0, &[], bytes[..40_000].to_vec()).await.expect(204);
    assert_eq!(first.header("upload-offset"), "40000");
    for (at, expected) in [(0, 40_000), (39_999, 40_000), (40_001, 40_000), (100_000, 40_000)] {
        let refused = patch(&app, &path, at, &[], bytes[..100].to_vec()).await;
        let error = refused.error(409, "offset_mismatch");
        assert_eq!(error["expected_offset"], expected);
        assert_eq!(error["provided_offset"], at);
        assert_eq!(error["received_bytes"], expected);
        assert_eq!(refused.header("upload-offset"), expected.to_string());
    }
    for kind in ["application/octet-stream", "application/offset+octet-stream2", "text/plain", ""] {
        let headers = with(&[("Content-Type", kind), ("Upload-Offset", "40000")]);
        app.send("PATCH", &path, &headers, "x").await.error(415, "unsupported_media_type");
    }
    let parameter = ("Content-Type", "Application/Offset+Octet-Stream; charset=utf-8");
    let headers = with(&[parameter, ("Upload-Offset", "40000")]);
    app.send("PATCH", &path, &headers, "").await.expect(204);
    for at in ["-1", "+1", "x", "", "1.0", "18446744073709551616"] {
        let headers = with(&[BYTES, ("Upload-Offset", at)]);
        app.send("PATCH", &path, &headers, "x").await.error(400, "invalid_upload_offset");
    }
    app.send("PATCH", &path, &with(&[BYTES]), "x").await.error(400, "invalid_upload_offset");
    // More than there may be is not taken, and what is there stays.
    patch(&app, &path, 40_000, &[], vec![0; 60_001]).await.error(400, "inconsistent_length");
    assert_eq!(offset(&app, &path).await, 40_000);
    let last = patch(&app, &path, 40_000, &[], bytes[40_000..].to_vec()).await.expect(204);
    assert_eq!(last.header("upload-offset"), "100000");
    assert_eq!(last.header("upload-expires"), "", "it is complete");
    assert!(last.header("repr-digest").starts_with("sha-256=:"));
    assert!(app.download("a.bin").await == bytes);
    let status = app.status("a.bin").await;
    assert_eq!(
        (status["status"].as_str(), status["checksum"].as_str()),
        (Some("completed"), Some(&*sha256(&bytes)))
    );
}

/// The last answer may be lost: who asks again is told again.
#[tokio::test]
async fn the_last_answer_can_be_asked_for_again() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[("Upload-Length", "5")]).await;
    let last = patch(&app, &path, 0, &[], "hello").await.expect(204);
    let known = head(&app, &path).await.expect(200);
    assert_eq!((known.header("upload-offset"), known.header("upload-length")), ("5", "5"));
    let again = patch(&app, &path, 5, &[], "").await.expect(204);
    for header in ["upload-offset", "upload-expires", "repr-digest"] {
        assert_eq!(again.header(header), last.header(header), "{header}");
    }
    let refused = patch(&app, &path, 5, &[], "more").await;
    assert_eq!(refused.error(409, "upload_complete")["received_bytes"], 5);
    patch(&app, &path, 0, &[], "hello").await.expect(409);
    assert_eq!(app.download("a.txt").await, b"hello");
}

/// "X-HTTP-Method-Override": the method that it names, and not the request's own.
#[tokio::test]
async fn a_header_may_name_the_method() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[("Upload-Length", "5")]).await;
    let named = |method| ("X-HTTP-Method-Override", method);
    let headers = with(&[named("PATCH"), BYTES, ("Upload-Offset", "0")]);
    let patched = app.send("POST", &path, &headers, "he").await.expect(204);
    assert_eq!(patched.header("upload-offset"), "2");
    let told = app.send("POST", &path, &with(&[named("HEAD")]), "").await.expect(200);
    assert_eq!(told.header("upload-offset"), "2");
    // An error to it has a body: what was sent is a POST.
    app.send("POST", "/uploads/x", &with(&[named("HEAD")]), "").await.error(404, "not_found");
    app.send("POST", &path, &with(&[named("DELETE")]), "").await.expect(204);
    head(&app, &path).await.expect(410);
    app.send("POST", &path, &with(&[]), "").await.error(405, "method_not_allowed");
    app.send("POST", &path, &with(&[named("a b")]), "").await.error(400, "invalid_method_override");
}

/// "Checksum": verified over the body of the request; 400 for another algorithm, 460 for another content, and in both
/// cases the body is discarded.
#[tokio::test]
async fn a_body_has_the_checksum_that_it_came_with() {
    let app = TestApp::start().await;
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let (good, bad) = (&b"hello world"[..], &b"hello there"[..]);
    let of = |bytes: &[u8]| {
        [
            ("Upload-Checksum", format!("sha1 {}", base64(&sha1::Sha1::digest(bytes)))),
            ("Upload-Checksum", format!("sha256 {}", base64(&sha2::Sha256::digest(bytes)))),
            ("Upload-Checksum", format!("md5 {}", base64(&md5::Md5::digest(bytes)))),
            ("Content-Digest", format!("sha-256=:{}:", base64(&sha2::Sha256::digest(bytes)))),
        ]
    };
    let path = begin(&app, "a.txt", &[("Upload-Length", "44")]).await;
    for (index, ((name, right), (_, wrong))) in of(good).into_iter().zip(of(bad)).enumerate() {
        let at = 11 * index as u64;
        patch(&app, &path, at, &[(name, &wrong)], good).await.error(460, "checksum_mismatch");
        assert_eq!(offset(&app, &path).await, at, "{name} {wrong}");
        patch(&app, &path, at, &[(name, &right)], good).await.expect(204);
        assert_eq!(offset(&app, &path).await, at + 11, "{name} {right}");
    }
    assert_eq!(app.download("a.txt").await, good.repeat(4));
    let path = begin(&app, "b.txt", &[("Upload-Length", "5")]).await;
    for (value, code) in [
        ("crc32 AAAAAA==", "unsupported_checksum"),
        ("SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "unsupported_checksum"),
        ("sha1 !", "invalid_checksum"),
        ("sha1 AAAA", "invalid_checksum"),
        ("sha1", "invalid_checksum"),
    ] {
        patch(&app, &path, 0, &[("Upload-Checksum", value)], "hello").await.error(400, code);
        assert_eq!(offset(&app, &path).await, 0, "{value}");
    }
    // The name of the status is the protocol's own.
    let mut raw = app.connect().await;
    let headers = with(&[
        BYTES,
        ("Upload-Offset", "0"),
        ("Content-Length", "5"),
        ("Upload-Checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="),
        ("Connection", "close"),
    ]);
    raw.send_head(&format!("PATCH {path}"), &headers).await;
    raw.send("hello").await;
    let answer = String::from_utf8(raw.until_closed().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 460 Checksum Mismatch\r\n"), "{answer}");
}

/// "Checksum", "checksum-trailer": the same behind a chunked body, where it was announced.
#[tokio::test]
async fn a_checksum_may_follow_the_body() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[("Upload-Length", "11")]).await;
    let right = "Upload-Checksum: sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=\r\n";
    let wrong = "Upload-Checksum: sha1 AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n";
    let unknown = "Upload-Checksum: crc32 AAAAAA==\r\n";
    for (trailer, announced, status, offset_after) in
        [(wrong, true, 460, 0), (unknown, true, 400, 0), ("", true, 400, 0), (right, true, 204, 11)]
    {
        let mut raw = app.connect().await;
        let mut headers = with(&[BYTES, ("Upload-Offset", "0"), ("Transfer-Encoding", "chunked")]);
        if announced {
            headers.push(("Trailer", "Upload-Checksum"));
        }
        raw.send_head(&format!("PATCH {path}"), &headers).await;
        raw.send_chunk(b"hello ").await;
        raw.send_chunk(b"world").await;
        raw.send(format!("0\r\n{trailer}\r\n")).await;
        assert_eq!(raw.answer().await.status, status, "{trailer}");
        assert_eq!(offset(&app, &path).await, offset_after, "{trailer}");
    }
    assert_eq!(app.download("a.txt").await, b"hello world");
}

/// "Expiration": Upload-Expires in the answers to POST and PATCH, an HTTP date; then 404 or 410.
#[tokio::test]
async fn an_upload_expires_when_nothing_comes() {
    let app = TestApp::with(&[("upload_expiry", "1s")]).await;
    let metadata = metadata(&[("filename", "a.txt")]);
    let headers = [("Upload-Length", "5"), ("Upload-Metadata", metadata.as_str())];
    let created = post(&app, &headers, "").await.expect(201);
    let path = created.header("location").to_owned();
    let patched = patch(&app, &path, 0, &[], "he").await.expect(204);
    let now = std::time::SystemTime::now();
    for answer in [&created, &patched, &head(&app, &path).await.expect(200)] {
        let expires = httpdate::parse_http_date(answer.header("upload-expires")).expect("an HTTP date");
        let until = expires.duration_since(now).unwrap_or_default();
        assert!(until.as_secs() <= 2, "{until:?}");
    }
    let begun = std::time::Instant::now();
    loop {
        let answer = head(&app, &path).await;
        if answer.status == 410 {
            assert_eq!(answer.header("upload-offset"), "");
            break;
        }
        assert!(begun.elapsed() < FOR_EVER, "it stays: {}", answer.status);
    }
    patch(&app, &path, 2, &[], "llo").await.error(410, "upload_gone");
    app.nothing_is_left().await;
}

/// "Termination": 204, then 404 or 410; what came of it is removed. A complete upload's file stays.
#[tokio::test]
async fn an_upload_can_be_ended() {
    let app = TestApp::start().await;
    let path = begin(&app, "a.txt", &[("Upload-Length", "5")]).await;
    patch(&app, &path, 0, &[], "he").await.expect(204);
    app.send("DELETE", &path, &[VERSION], "").await.expect(204);
    app.nothing_is_left().await;
    for _ in 0..2 {
        head(&app, &path).await.expect(410);
        patch(&app, &path, 2, &[], "llo").await.error(410, "upload_gone");
        app.send("DELETE", &path, &[VERSION], "").await.error(410, "upload_gone");
    }
    assert_eq!(app.status("a.txt").await["status"], "cancelled");
    let path = begin(&app, "b.txt", &[("Upload-Length", "5")]).await;
    patch(&app, &path, 0, &[], "hello").await.expect(204);
    app.send("DELETE", &path, &[VERSION], "").await.expect(204);
    assert!([404, 410].contains(&head(&app, &path).await.status));
    assert_eq!(app.download("b.txt").await, b"hello");
}
