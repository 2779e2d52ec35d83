//! Bodies that are broken or stop in the middle: nothing is published, nothing is left, and the status says why.

use crate::support::{Form, Raw, TestApp, content};

const OLD: &[u8] = b"what stood there before";

#[tokio::test]
async fn a_broken_form_is_refused_and_nothing_of_it_is_kept() {
    let app = TestApp::start().await;
    app.put("a.txt", OLD).await.expect(201);
    let form = Form::with_file("a.txt", b"new");
    let whole = form.clone().finish();
    let closing = whole.len() - form.clone().unfinished().len();
    let mut without_blank_line = whole.clone();
    let blank = whole.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    without_blank_line.drain(blank..blank + 4);
    for (what, body) in [
        ("empty", Vec::new()),
        ("garbage", content(10_000, 1)),
        ("no final boundary", whole[..whole.len() - closing].to_vec()),
        ("half of the final boundary", whole[..whole.len() - closing / 2].to_vec()),
        ("a final boundary without its dashes", whole[..whole.len() - 4].to_vec()),
        ("the file cut short", whole[..whole.len() - closing - 3].to_vec()),
        ("headers cut short", whole[..60].to_vec()),
        ("no blank line after the headers", without_blank_line),
        (
            "another boundary",
            String::from_utf8(whole.clone()).unwrap().replace("d74496", "000000").into_bytes(),
        ),
        ("headers that are none", Form::new().part("\u{1}\u{2}", b"1").finish()),
    ] {
        let answer = app.send("POST", "/upload", &[("content-type", &form.content_type())], body).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        answer.error(400, "invalid_multipart");
        assert_eq!(app.download("a.txt").await, OLD, "{what}");
    }
    assert_eq!(app.names().await, ["a.txt"]);
    app.nothing_is_left().await;
    app.send("POST", "/upload", &[("content-type", &form.content_type())], whole).await.expect(200);
}

#[tokio::test]
async fn a_form_without_measure_is_refused() {
    let app = TestApp::start().await;
    let header = |length| {
        format!(
            "Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nX-Long: {}",
            "x".repeat(length)
        )
    };
    app.post(Form::new().part(&header(1000), b"1")).await.expect(200);
    app.post(Form::new().part(&header(8 << 20), b"1")).await.error(400, "invalid_multipart");
    let many =
        |count: usize| (0..count).fold(Form::new(), |form, index| form.field(&format!("f{index}"), "1"));
    app.post(many(63).file("a.txt", b"2")).await.expect(200);
    app.post(many(64).file("a.txt", b"3")).await.error(400, "too_many_fields");
    let long = |length| Form::with_file("a.txt", b"4").field("client_id", &"x".repeat(length));
    app.post(long(64 << 10)).await.expect(200);
    app.post(long((64 << 10) + 1)).await.error(413, "field_too_large");
    app.post(Form::new().field("unknown", &"x".repeat(65 << 10)).file("a.txt", b"5"))
        .await
        .error(413, "field_too_large");
    assert_eq!(app.download("a.txt").await, b"4");
    app.nothing_is_left().await;
}

/// What curl, browsers and Python send between and around the parts.
#[tokio::test]
async fn a_form_with_a_preamble_and_an_epilogue_is_taken() {
    let app = TestApp::start().await;
    let form = Form::with_file("a.txt", b"\r\n--not the boundary\r\n\r\n");
    let content_type = form.content_type();
    let body = [b"This is a preamble.\r\n".to_vec(), form.finish(), b"and an epilogue".to_vec()].concat();
    app.send("POST", "/upload", &[("content-type", &content_type)], body).await.expect(200);
    assert_eq!(app.download("a.txt").await, b"\r\n--not the boundary\r\n\r\n");
}

/// The contents of a file may look like the boundary, and be cut anywhere.
#[tokio::test]
async fn a_file_full_of_almost_boundaries_comes_back_whole() {
    let app = TestApp::start().await;
    let boundary = b"\r\n--------------------------d74496d66958873";
    let bytes: Vec<u8> = (0..3000).flat_map(|index| boundary[..index % boundary.len()].to_vec()).collect();
    let form = Form::with_file("a.bin", &bytes);
    let content_type = form.content_type();
    let body = form.finish();
    for piece in [1, 7, 4096] {
        let headers = [("Content-Type", content_type.as_str()), ("Transfer-Encoding", "chunked")];
        let mut raw = app.connect().await;
        raw.send_head("POST /upload", &headers).await;
        // One chunk each: the server sees them apart, however TCP joins them.
        let mut chunks = Vec::new();
        for piece in body.chunks(piece) {
            chunks.extend(
                format!("{:x}\r\n", piece.len()).bytes().chain(piece.iter().copied()).chain(*b"\r\n"),
            );
        }
        chunks.extend(b"0\r\n\r\n");
        raw.send(chunks).await;
        raw.answer().await.expect(200);
        assert_eq!(app.download("a.bin").await, bytes, "in pieces of {piece}");
    }
}

/// Begins an upload of a.txt, sends a part of it that the server has seen, and gives the connection.
async fn begun(app: &TestApp, form: bool, chunked: bool) -> Raw {
    let half = content(500_000, 7);
    let mut body = if form { Form::with_file("a.txt", b"").unfinished() } else { Vec::new() };
    if form {
        body.truncate(body.len() - 2);
    }
    body.extend_from_slice(&half);
    let form_type = Form::new().content_type();
    let content_type = if form { form_type.as_str() } else { "application/octet-stream" };
    let framing = if chunked { ("Transfer-Encoding", "chunked") } else { ("Content-Length", "1000000") };
    let mut raw = app.connect().await;
    let request = if form { "POST /upload" } else { "PUT /files/a.txt" };
    raw.send_head(request, &[("Content-Type", content_type), framing]).await;
    if chunked {
        raw.send_chunk(&body).await;
    } else {
        raw.send(&body).await;
    }
    // A little waits for what could be a boundary.
    app.status_becomes("a.txt", |status| {
        status["status"] == "uploading" && status["transferred_bytes"].as_u64().unwrap() > 499_000
    })
    .await;
    raw
}

#[tokio::test]
async fn an_upload_whose_client_hangs_up_has_failed_and_leaves_nothing() {
    let app = TestApp::start().await;
    app.put("a.txt", OLD).await.expect(201);
    for (form, chunked) in [(false, false), (false, true), (true, false), (true, true)] {
        drop(begun(&app, form, chunked).await);
        let status = app.status_becomes("a.txt", |status| status["status"] == "failed").await;
        let why = status["error"].as_str().unwrap();
        assert!(why.contains("before"), "{why}");
        assert!(status["transferred_bytes"].as_u64().unwrap() > 499_000, "{status}");
        assert_eq!(app.download("a.txt").await, OLD);
        app.nothing_is_left().await;
    }
    assert_eq!(app.names().await, ["a.txt"]);
}

#[tokio::test]
async fn a_client_that_stops_sending_and_still_listens_is_told() {
    let app = TestApp::start().await;
    app.put("a.txt", OLD).await.expect(201);
    for (form, chunked) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut raw = begun(&app, form, chunked).await;
        raw.end().await;
        raw.answer().await.error(400, "incomplete_body");
        assert_eq!(app.status("a.txt").await["status"], "failed");
        assert_eq!(app.download("a.txt").await, OLD);
        app.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_body_in_broken_chunks_is_refused() {
    let app = TestApp::start().await;
    for broken in ["nonsense\r\n", "5\r\nhello5\r\nworld\r\n", "ffffffffffffffffff\r\n"] {
        let mut raw = app.connect().await;
        raw.send_head("PUT /files/a.txt", &[("Transfer-Encoding", "chunked")]).await;
        raw.send_chunk(b"begun").await;
        raw.send(broken).await;
        raw.answer().await.error(400, "incomplete_body");
    }
    assert!(app.names().await.is_empty());
    app.nothing_is_left().await;
}

/// A proxy whose own client hung up resets the stream with `NO_ERROR`: half a file was taken for a whole one.
#[tokio::test]
async fn a_stream_of_http_2_that_is_reset_is_no_end_of_the_body() {
    let app = TestApp::start().await;
    app.put("a.txt", OLD).await.expect(201);
    let bytes = content(600_000, 7);
    let tcp = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(tcp).await.unwrap();
    let connection = tokio::spawn(connection);
    for (length, ends) in [(Some("700000"), false), (None, false), (Some("600000"), true), (None, true)] {
        let request = http::Request::put(format!("http://{}/files/a.txt", app.address));
        let request =
            length.iter().fold(request, |request, length| request.header("content-length", *length));
        client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(bytes.clone().into(), ends).unwrap();
        if ends {
            assert_eq!(answer.await.unwrap().status(), 200, "{length:?}");
            assert_eq!(app.download("a.txt").await, bytes);
            continue;
        }
        let arrived = |status: &serde_json::Value| {
            status["status"] == "uploading" && status["transferred_bytes"] == bytes.len()
        };
        app.status_becomes("a.txt", arrived).await;
        body.send_reset(h2::Reason::NO_ERROR);
        app.status_becomes("a.txt", |status| status["status"] == "failed").await;
        assert_eq!(app.download("a.txt").await, OLD, "{length:?}");
        app.nothing_is_left().await;
    }
    drop(client);
    connection.abort();
}
