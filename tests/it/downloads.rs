//! What a download says of the file, and when it is not sent at all (RFC 9110 §13).

use base64::Engine as _;

use crate::support::{TestApp, content, sha256};

#[tokio::test]
async fn a_download_says_what_it_is() {
    let app = TestApp::start().await;
    let before = std::time::SystemTime::now() - std::time::Duration::from_secs(1);
    app.put("a%20%C3%A9.txt", "hello").await.expect(201);
    for method in ["GET", "HEAD"] {
        let answer = app.send(method, "/download/a%20%C3%A9.txt", &[], "").await.expect(200);
        assert_eq!(answer.body, if method == "GET" { &b"hello"[..] } else { b"" });
        assert_eq!(answer.header("content-length"), "5");
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(
            answer.header("content-disposition"),
            "attachment; filename=\"a _.txt\"; filename*=UTF-8''a%20%C3%A9.txt"
        );
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("etag"), format!("\"{}\"", sha256(b"hello")));
        let digest =
            answer.header("repr-digest").strip_prefix("sha-256=:").unwrap().strip_suffix(':').unwrap();
        let digest = base64::engine::general_purpose::STANDARD.decode(digest).unwrap();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, sha256(b"hello"));
        let modified = httpdate::parse_http_date(answer.header("last-modified")).unwrap();
        assert!(modified >= before && modified <= std::time::SystemTime::now());
        assert!(!answer.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn a_file_is_shown_inline_only_where_that_is_safe() {
    let app = TestApp::start().await;
    for (name, media_type, inline) in [
        ("a.txt", "text/plain; charset=utf-8", true),
        ("a.png", "image/png", true),
        ("a.JPG", "image/jpeg", true),
        ("a.pdf", "application/pdf", true),
        ("a.mp4", "video/mp4", true),
        ("a.json", "application/json", true),
        ("a.html", "text/html", false),
        ("a.svg", "image/svg+xml", false),
        ("a.js", "text/javascript", false),
        ("a.zip", "application/zip", false),
        ("a.exe", "application/octet-stream", false),
        ("without-extension", "application/octet-stream", false),
    ] {
        app.put(name, "<script>alert(1)</script>").await.expect(201);
        let shown = app.get(&format!("/files/{name}")).await.expect(200);
        let kind = if inline { "inline" } else { "attachment" };
        assert_eq!(shown.header("content-disposition"), format!("{kind}; filename=\"{name}\""));
        // application/x-msdownload and the like: whatever is told, it is not shown.
        if name != "a.exe" {
            assert_eq!(shown.header("content-type"), media_type, "{name}");
        }
        assert_eq!(shown.header("content-security-policy").contains("sandbox"), inline, "{name}");
        assert_eq!(shown.header("x-content-type-options"), "nosniff");
        let saved = app.get(&format!("/download/{name}")).await.expect(200);
        assert_eq!(saved.header("content-disposition"), format!("attachment; filename=\"{name}\""));
        assert_eq!(saved.header("content-type"), shown.header("content-type"));
    }
}

#[tokio::test]
async fn a_file_that_the_client_has_is_not_sent_again() {
    let app = TestApp::start().await;
    app.put("a.txt", "hello").await.expect(201);
    let whole = app.get("/download/a.txt").await.expect(200);
    let (etag, modified) = (whole.header("etag"), whole.header("last-modified"));
    let date = |seconds: i64| {
        let modified = httpdate::parse_http_date(modified).unwrap();
        let by = std::time::Duration::from_secs(seconds.unsigned_abs());
        httpdate::fmt_http_date(if seconds < 0 { modified - by } else { modified + by })
    };
    let (earlier, later) = (date(-1), date(3600));
    for (headers, status) in [
        (vec![("if-none-match", etag)], 304),
        (vec![("if-none-match", &*format!("W/{etag}"))], 304),
        (vec![("if-none-match", &*format!("\"x\", {etag}"))], 304),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-none-match", "\"x\"")], 200),
        (vec![("if-modified-since", modified)], 304),
        (vec![("if-modified-since", &later)], 304),
        (vec![("if-modified-since", &earlier)], 200),
        (vec![("if-modified-since", "nonsense")], 200),
        // The tag says more than the date.
        (vec![("if-none-match", "\"x\""), ("if-modified-since", &later)], 200),
        (vec![("if-match", etag)], 200),
        (vec![("if-match", "*")], 200),
        (vec![("if-match", "\"x\"")], 412),
        (vec![("if-match", &*format!("W/{etag}"))], 412),
        (vec![("if-unmodified-since", modified)], 200),
        (vec![("if-unmodified-since", &earlier)], 412),
        (vec![("if-match", etag), ("if-unmodified-since", &earlier)], 200),
        (vec![("if-match", "\"x\""), ("if-none-match", etag)], 412),
        (vec![("if-match", etag), ("if-none-match", etag)], 304),
    ] {
        for path in ["/download/a.txt", "/files/a.txt"] {
            for method in ["GET", "HEAD"] {
                let answer = app.send(method, path, &headers, "").await;
                assert_eq!(answer.status, status, "{method} {headers:?}");
                if status == 304 {
                    assert!(answer.body.is_empty());
                    assert_eq!(answer.header("etag"), etag);
                    assert_eq!(answer.header("last-modified"), modified);
                    assert_eq!(answer.header("cache-control"), whole.header("cache-control"));
                    assert_eq!(answer.header("content-type"), "");
                }
                if status == 412 && method == "GET" {
                    answer.error(412, "precondition_failed");
                }
            }
        }
    }
    // A 304 has no body, so the next answer on the connection is the next one.
    let mut raw = app.connect().await;
    raw.send_head("GET /download/a.txt", &[("If-None-Match", etag)]).await;
    raw.answer().await.expect(304);
    raw.send_head("GET /download/a.txt", &[]).await;
    assert_eq!(raw.answer().await.expect(200).body, b"hello");
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let app = TestApp::start().await;
    app.put("empty.txt", "").await.expect(201);
    let answer = app.get("/download/empty.txt").await.expect(200);
    assert_eq!((answer.header("content-length"), answer.body.len()), ("0", 0));
    assert_eq!(answer.header("etag"), format!("\"{}\"", sha256(b"")));
    app.get_with("/download/empty.txt", &[("if-none-match", answer.header("etag"))]).await.expect(304);
}

/// `cp`, rsync and a restore from a backup work: but nobody has hashed what they bring.
#[tokio::test]
async fn a_file_that_was_copied_in_by_hand_is_served_and_not_vouched_for() {
    let app = TestApp::start().await;
    app.place("by hand.txt", b"copied");
    let answer = app.get("/download/by%20hand.txt").await.expect(200);
    assert_eq!(answer.body, b"copied");
    assert!(answer.header("etag").starts_with("W/\""), "{}", answer.header("etag"));
    assert_eq!(answer.header("repr-digest"), "");
    app.get_with("/download/by%20hand.txt", &[("if-none-match", answer.header("etag"))]).await.expect(304);
    let part = app.get_with("/download/by%20hand.txt", &[("range", "bytes=1-2")]).await.expect(206);
    assert_eq!(part.body, b"op");
    let headers = [("range", "bytes=1-2"), ("if-range", answer.header("etag"))];
    app.get_with("/download/by%20hand.txt", &headers).await.expect(200);
}

#[tokio::test]
async fn a_file_that_was_changed_behind_the_servers_back_is_no_longer_vouched_for() {
    let app = TestApp::start().await;
    for changed in [&b"changed, and longer"[..], b"HELLO"] {
        app.put("a.txt", "hello").await;
        let uploaded = app.get("/download/a.txt").await.expect(200);
        app.place("a.txt", changed);
        let answer = app.get("/download/a.txt").await.expect(200);
        assert_eq!(answer.body, changed);
        assert!(answer.header("etag").starts_with("W/\""), "{}", answer.header("etag"));
        assert_eq!(answer.header("repr-digest"), "");
        app.get_with("/download/a.txt", &[("if-none-match", uploaded.header("etag"))]).await.expect(200);
        let headers = [("range", "bytes=0-1"), ("if-range", uploaded.header("etag"))];
        app.get_with("/download/a.txt", &headers).await.expect(200);
    }
    app.put("a.txt", "again").await.expect(200);
    assert_eq!(app.get("/download/a.txt").await.header("etag"), format!("\"{}\"", sha256(b"again")));
}

#[tokio::test]
async fn what_is_no_file_is_not_found() {
    let app = TestApp::start().await;
    std::fs::create_dir(app.storage().join("directory")).unwrap();
    #[cfg(unix)]
    {
        app.place(".secret", b"not for anyone");
        std::os::unix::fs::symlink(app.storage().join(".secret"), app.storage().join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", app.storage().join("outside")).unwrap();
        std::os::unix::fs::symlink("nowhere", app.storage().join("dangling")).unwrap();
    }
    for name in ["directory", "link", "outside", "dangling", "absent"] {
        for path in ["download", "files"] {
            // Twice: what the first has brought into memory is found there by the second.
            for _ in 0..2 {
                let error = app.get(&format!("/{path}/{name}")).await.error(404, "not_found");
                assert_eq!(error["filename"], name);
            }
        }
    }
    app.put("directory", "no").await.error(409, "name_taken");
    assert!(app.storage().join("directory").is_dir());
    // A link is replaced, and nothing is written where it leads.
    app.put("link", "a file").await.expect(201);
    assert_eq!(app.download("link").await, b"a file");
    assert_eq!(std::fs::read(app.storage().join(".secret")).unwrap(), b"not for anyone");
    app.nothing_is_left().await;
}

/// A file that gets shorter while it is sent can't be sent whole: the answer must not look as if it were.
#[tokio::test]
async fn a_download_of_a_file_that_is_cut_meanwhile_breaks_off() {
    let app = TestApp::start().await;
    let bytes = content(32 << 20, 3);
    app.put("a.bin", bytes.clone()).await.expect(201);
    let mut reader = crate::support::Raw::with_small_buffers(app.address).await;
    reader.send_head("GET /download/a.bin", &[]).await;
    reader.head().await.expect(200);
    std::fs::File::options().write(true).open(app.storage().join("a.bin")).unwrap().set_len(1000).unwrap();
    let got = reader.until_closed().await;
    assert!(got.len() < bytes.len() && bytes.starts_with(&got), "got {} bytes", got.len());
}
