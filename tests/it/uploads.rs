//! Files of every size go up, by a form and by PUT, and come back whole.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::support::{Form, TestApp, content, sha256};

const MIB: usize = 1 << 20;
/// `MAX_FILE_SIZE` as it is where nobody has set it.
const LIMIT: usize = 100 * MIB;

/// A byte more than the server takes.
static LARGE: LazyLock<Bytes> = LazyLock::new(|| content(LIMIT + 1, 100).into());

#[tokio::test]
async fn files_of_every_size_come_back_whole() {
    let app = TestApp::start().await;
    // None; one; around what waits in memory before threads are put to work; several pieces.
    for size in [0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, MIB, 5 * MIB + 1] {
        let bytes = content(size, size as u64);
        let answer = app.put("put.bin", bytes.clone()).await;
        assert!([200, 201].contains(&answer.status));
        assert_eq!(answer.json()["hash"], sha256(&bytes), "{size}");
        assert_eq!(answer.json()["size"], size);
        assert!(app.download("put.bin").await == bytes, "{size}");

        let answer = app.post(Form::with_file("form.bin", &bytes)).await.expect(200);
        assert_eq!(answer.json()["hash"], sha256(&bytes), "{size}");
        assert_eq!(answer.json()["size"], size, "the file's own size, not the form's");
        assert!(app.download("form.bin").await == bytes, "{size}");
        assert_eq!(app.status("form.bin").await["transferred_bytes"], size);
    }
    assert!(app.leftovers().is_empty());
}

#[tokio::test]
async fn a_put_of_up_to_100_mib_is_taken_and_of_one_byte_more_is_not() {
    let app = TestApp::start().await;
    for size in [LIMIT - 1, LIMIT] {
        let bytes = LARGE.slice(..size);
        let answer = app.put("large.bin", bytes.clone()).await;
        assert_eq!(answer.json()["hash"], sha256(&bytes), "{size}");
        assert!(app.download("large.bin").await == bytes, "{size}");
    }
    let refused = app.put("large.bin", LARGE.clone()).await.error(413, "file_too_large");
    assert_eq!(refused["max_size"], LIMIT);
    let still = app.get_with("/download/large.bin", &[("range", "bytes=-1")]).await.expect(206);
    assert_eq!(still.header("etag"), format!("\"{}\"", sha256(&LARGE[..LIMIT])));
}

#[tokio::test]
async fn a_form_with_up_to_100_mib_is_taken_and_with_one_byte_more_is_not() {
    let app = TestApp::start().await;
    for size in [LIMIT - 1, LIMIT] {
        let answer = app.post(Form::with_file("large.bin", &LARGE[..size])).await.expect(200);
        assert_eq!(answer.json()["hash"], sha256(&LARGE[..size]), "{size}");
        assert!(app.download("large.bin").await == LARGE[..size], "{size}");
    }
    let refused = app.post(Form::with_file("other.bin", &LARGE)).await.error(413, "file_too_large");
    assert_eq!(refused["max_size"], LIMIT);
    app.get("/download/other.bin").await.error(404, "not_found");
    let status = app.status("other.bin").await;
    assert_eq!(status["status"], "failed");
    assert!(status["error"].as_str().unwrap().contains("larger than"), "{status}");
    app.nothing_is_left().await;
}

#[tokio::test]
async fn the_answer_to_an_upload_has_every_member_that_clients_read() {
    let app = TestApp::start().await;
    let form = Form::with_file("a.txt", b"hello").field("encryption", "false").field("priority", "7");
    let answer = app.post(form).await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let answer = answer.json();
    assert!(answer["id"].as_str().is_some_and(|id| id.len() == 36), "{answer}");
    let expected = serde_json::json!({
        "success": true, "filename": "a.txt", "hash": sha256(b"hello"), "status": "completed",
        "encryption": false, "size": 5, "priority": 7, "id": answer["id"],
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn a_put_says_whether_the_file_is_new_and_where_it_is() {
    let app = TestApp::start().await;
    let answer = app.put("a%20b.txt", "one").await.expect(201);
    assert_eq!(answer.header("location"), "/files/a%20b.txt");
    app.put("a%20b.txt", "two").await.expect(200);
    assert_eq!(app.get(answer.header("location")).await.expect(200).body, b"two");
}

#[tokio::test]
async fn a_put_without_a_length_is_taken() {
    let app = TestApp::start().await;
    let mut raw = app.connect().await;
    raw.send_head("PUT /files/a.txt", &[("Transfer-Encoding", "chunked")]).await;
    for piece in [&b"he"[..], b"l", b"lo", b""] {
        raw.send_chunk(piece).await;
    }
    assert_eq!(raw.answer().await.expect(201).json()["hash"], sha256(b"hello"));
    assert_eq!(app.download("a.txt").await, b"hello");
}

#[tokio::test]
async fn what_a_put_cannot_mean_is_refused() {
    let app = TestApp::start().await;
    app.put("a.txt", "whole").await.expect(201);
    let coded = app.put_with("a.txt", &[("content-encoding", "gzip")], "\x1f").await;
    coded.error(415, "unsupported_media_type");
    app.put("", "no name").await.error(400, "invalid_filename");
    assert_eq!(app.download("a.txt").await, b"whole");
}

#[tokio::test]
async fn a_form_without_a_file_says_so() {
    let app = TestApp::start().await;
    app.post(Form::new()).await.error(400, "missing_file");
    app.post(Form::new().field("filename", "a.txt").field("priority", "1")).await.error(400, "missing_file");
    // What a browser sends where no file was chosen.
    app.post(Form::with_file("", b"")).await.error(400, "missing_file");
    app.post(Form::with_file("a.txt", b"1").file("b.txt", b"2")).await.error(400, "too_many_files");
    assert!(app.names().await.is_empty());
    app.nothing_is_left().await;
}
