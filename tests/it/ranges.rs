//! Parts of a file (RFC 9110 §14), over real HTTP.

use crate::support::{Answer, TestApp, content, sha256};

const SIZE: usize = 1_000_000;

/// A server with a file that is larger than what is sent in one piece.
async fn app() -> (TestApp, Vec<u8>) {
    let app = TestApp::start().await;
    let bytes = content(SIZE, 1);
    app.put("a.bin", bytes.clone()).await.expect(201);
    (app, bytes)
}

async fn range(app: &TestApp, range: &str) -> Answer {
    app.get_with("/download/a.bin", &[("range", range)]).await
}

#[tokio::test]
async fn one_range_at_every_edge() {
    let (app, bytes) = app().await;
    let last = SIZE - 1;
    for (asked, first, end) in [
        ("bytes=0-0".into(), 0, 1),
        ("bytes=0-".into(), 0, SIZE),
        (format!("bytes=0-{last}"), 0, SIZE),
        (format!("bytes=0-{SIZE}"), 0, SIZE),
        (format!("bytes={last}-{last}"), last, SIZE),
        (format!("bytes={last}-"), last, SIZE),
        (format!("bytes={last}-99999999999999999999999"), last, SIZE),
        ("bytes=-1".into(), last, SIZE),
        (format!("bytes=-{last}"), 1, SIZE),
        (format!("bytes=-{SIZE}"), 0, SIZE),
        (format!("bytes=-{}", SIZE + 1), 0, SIZE),
        // Across the edge of what is read at once.
        ("bytes=262143-262144".into(), 262_143, 262_145),
        ("bytes=262144-262144".into(), 262_144, 262_145),
        ("bytes=100-599999".into(), 100, 600_000),
        ("Bytes = 5-6".into(), 5, 7),
    ] {
        let answer = range(&app, &asked).await.expect(206);
        assert_eq!(answer.header("content-range"), format!("bytes {first}-{}/{SIZE}", end - 1), "{asked}");
        assert_eq!(answer.header("content-length"), (end - first).to_string(), "{asked}");
        assert!(answer.body == bytes[first..end], "{asked}");
        // What is told of the file is told of the whole of it.
        assert_eq!(answer.header("etag"), format!("\"{}\"", sha256(&bytes)));
        assert!(answer.header("repr-digest").starts_with("sha-256=:"));
    }
}

#[tokio::test]
async fn what_is_no_range_is_answered_with_the_whole_file() {
    let (app, bytes) = app().await;
    for asked in ["bytes=5-4", "bytes=a-b", "bytes=-", "bytes=1", "lines=0-1", "bytes", "bytes=0-0, x", ""] {
        let answer = range(&app, asked).await.expect(200);
        assert_eq!(answer.header("content-range"), "");
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert!(answer.body == bytes, "{asked:?}");
    }
    // An attack, not a reader.
    let many = (0..1000).map(|n| format!("{}-{}", n * 2, n * 2)).collect::<Vec<_>>().join(",");
    assert!(range(&app, &format!("bytes={many}")).await.expect(200).body == bytes);
}

#[tokio::test]
async fn a_range_outside_of_the_file_is_416_with_its_size() {
    let (app, _) = app().await;
    app.put("empty.bin", "").await.expect(201);
    for (path, asked, size) in [
        ("/download/a.bin", "bytes=1000000-", SIZE),
        ("/download/a.bin", "bytes=1000000-2000000", SIZE),
        ("/files/a.bin", "bytes=-0", SIZE),
        ("/download/a.bin", "bytes=99999999999999999999999-", SIZE),
        ("/download/a.bin", "bytes=1000000-1000001,2000000-", SIZE),
        ("/download/empty.bin", "bytes=0-", 0),
        ("/download/empty.bin", "bytes=-1", 0),
    ] {
        let answer = app.get_with(path, &[("range", asked)]).await;
        let error = answer.error(416, "range_not_satisfiable");
        assert_eq!(answer.header("content-range"), format!("bytes */{size}"), "{asked}");
        assert_eq!(error["size"], size);
    }
}

/// The parts of a `multipart/byteranges` answer: where each begins, and its bytes.
fn parts(answer: &Answer) -> Vec<(usize, Vec<u8>)> {
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    let delimiter = format!("--{boundary}");
    let mut rest = answer.body.as_slice();
    let mut parts = Vec::new();
    loop {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest).strip_prefix(delimiter.as_bytes()).unwrap();
        if rest == b"--\r\n" {
            return parts;
        }
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&rest[2..end]).unwrap();
        let (kind, range) = head.split_once("\r\n").unwrap();
        assert_eq!(kind, "Content-Type: application/octet-stream");
        let range = range.strip_prefix("Content-Range: bytes ").unwrap().strip_suffix("/1000000").unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let (bytes, after) = rest[end + 4..].split_at(last + 1 - first);
        parts.push((first, bytes.to_vec()));
        rest = after;
    }
}

#[tokio::test]
async fn several_ranges_come_as_parts() {
    let (app, bytes) = app().await;
    for (asked, expected) in [
        ("bytes=0-0,2-2", vec![0..1, 2..3]),
        ("bytes=0-0,-1", vec![0..1, SIZE - 1..SIZE]),
        ("bytes=500000-999999, 0-299999", vec![500_000..SIZE, 0..300_000]),
        ("bytes=1-2,,4-5,", vec![1..3, 4..6]),
        ("bytes=0-9,20-29,40-49,2000000-", vec![0..10, 20..30, 40..50]),
    ] {
        let answer = range(&app, asked).await.expect(206);
        assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{asked}");
        assert_eq!(answer.header("content-range"), "", "that is for single ranges");
        let parts = parts(&answer);
        assert_eq!(parts.len(), expected.len(), "{asked}");
        for ((first, part), expected) in parts.into_iter().zip(expected) {
            assert_eq!(first, expected.start, "{asked}");
            assert!(part == bytes[expected], "{asked}");
        }
    }
    // Overlapping or touching ones are one: an answer is never longer than the file.
    for asked in ["bytes=0-5,6-9", "bytes=0-5,3-9", "bytes=0-1,5-9,1-5"] {
        let answer = range(&app, asked).await.expect(206);
        assert_eq!(answer.header("content-range"), "bytes 0-9/1000000", "{asked}");
        assert_eq!(answer.body, bytes[..10], "{asked}");
    }
}

#[tokio::test]
async fn a_range_holds_only_for_the_file_it_was_asked_of() {
    let (app, bytes) = app().await;
    let whole = app.get("/download/a.bin").await.expect(200);
    let etag = whole.header("etag");
    let modified = whole.header("last-modified");
    let earlier = httpdate::fmt_http_date(
        httpdate::parse_http_date(modified).unwrap() - std::time::Duration::from_secs(1),
    );
    for (condition, status) in
        [(etag, 206), ("\"another\"", 200), (&format!("W/{etag}"), 200), (&earlier, 200), ("nonsense", 200)]
    {
        let headers = [("range", "bytes=5-9"), ("if-range", condition)];
        let answer = app.get_with("/download/a.bin", &headers).await.expect(status);
        assert!(answer.body == if status == 206 { &bytes[5..10] } else { &bytes[..] }, "{condition}");
    }
    // What doesn't apply doesn't fail: the condition comes first.
    let headers = [("range", "bytes=5000000-"), ("if-range", "\"another\"")];
    app.get_with("/download/a.bin", &headers).await.expect(200);
    let headers = [("range", "bytes=5000000-"), ("if-none-match", etag)];
    app.get_with("/download/a.bin", &headers).await.expect(304);
    let headers = [("range", "bytes=5-9"), ("if-match", "\"another\"")];
    app.get_with("/download/a.bin", &headers).await.error(412, "precondition_failed");
}

#[tokio::test]
async fn a_range_holds_by_date_for_a_file_that_has_been_there_for_a_while() {
    let (app, bytes) = app().await;
    let changed = |time| {
        let file = std::fs::File::options().append(true).open(app.storage().join("a.bin")).unwrap();
        file.set_modified(time).unwrap();
        httpdate::fmt_http_date(time)
    };
    let now = std::time::SystemTime::now();
    let long_ago = changed(now - std::time::Duration::from_secs(3600));
    let headers = [("range", "bytes=5-9"), ("if-range", &long_ago)];
    let answer = app.get_with("/download/a.bin", &headers).await.expect(206);
    assert_eq!(answer.body, bytes[5..10]);
    // Not old enough: it could change once more within the second that the date names.
    let just_now = changed(now + std::time::Duration::from_secs(60));
    let headers = [("range", "bytes=5-9"), ("if-range", just_now.as_str())];
    app.get_with("/download/a.bin", &headers).await.expect(200);
    let headers = [("range", "bytes=5-9"), ("if-range", &long_ago)];
    app.get_with("/download/a.bin", &headers).await.expect(200);
}

#[tokio::test]
async fn head_knows_no_ranges() {
    let (app, bytes) = app().await;
    for asked in ["bytes=0-0", "bytes=5000000-", "nonsense"] {
        let head = app.send("HEAD", "/download/a.bin", &[("range", asked)], "").await.expect(200);
        assert_eq!(head.header("content-length"), SIZE.to_string());
        assert_eq!(head.header("etag"), format!("\"{}\"", sha256(&bytes)));
        assert_eq!(head.header("content-range"), "");
        assert!(head.body.is_empty());
    }
}

/// A download that broke off goes on where it stopped, as `curl -C -` and the command line do it.
#[tokio::test]
async fn a_download_that_broke_off_is_resumed() {
    let (app, bytes) = app().await;
    let mut raw = app.connect().await;
    raw.send_head("GET /download/a.bin", &[]).await;
    let head = raw.head().await.expect(200);
    let mut got = raw.take(400_000).await;
    drop(raw);
    let headers = [("range", format!("bytes={}-", got.len())), ("if-range", head.header("etag").to_owned())];
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    got.extend(app.get_with("/download/a.bin", &headers).await.expect(206).body);
    assert!(got == bytes);
}
