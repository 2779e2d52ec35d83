//! Numbered chunks: `POST /upload_chunk`, `GET /resume_info/{filename}`, as the clients that are out there send them.

use serde_json::{Value, json};

use crate::support::{Answer, Form, TestApp, content, sha256};

const SIZE: usize = 100_000;

/// A file in chunks of [`SIZE`] bytes.
struct File {
    bytes: Vec<u8>,
}

impl File {
    fn new(length: usize) -> Self {
        Self { bytes: content(length, length as u64) }
    }

    fn total(&self) -> usize {
        self.bytes.len().div_ceil(SIZE).max(1)
    }

    fn chunk(&self, number: usize) -> &[u8] {
        let start = number * SIZE;
        &self.bytes[start..(start + SIZE).min(self.bytes.len())]
    }

    /// The form, as `requests` writes it: first the fields, then the chunk.
    fn form(&self, number: usize) -> Form {
        self.fields(number).chunk(self.chunk(number))
    }

    fn fields(&self, number: usize) -> Form {
        Form::new()
            .field("filename", "a b.bin")
            .field("chunk_number", &number.to_string())
            .field("total_chunks", &self.total().to_string())
            .field("chunk_hash", &sha256(self.chunk(number)))
    }
}

impl Form {
    fn chunk(self, bytes: &[u8]) -> Self {
        let header = "Content-Disposition: form-data; name=\"chunk\"; filename=\"chunk\"";
        self.part(header, bytes)
    }
}

impl TestApp {
    async fn chunk(&self, form: Form) -> Answer {
        self.post_to("/upload_chunk", &[], form).await
    }

    async fn resume_info(&self) -> Value {
        self.get("/resume_info/a%20b.bin").await.expect(200).json()
    }
}

fn none() -> Value {
    json!({"received_chunks": [], "can_resume": false})
}

#[tokio::test]
async fn an_old_client_sends_its_chunks_and_goes_on_after_a_restart() {
    for encryption in ["false", "true"] {
        let file = File::new(5 * SIZE + 1);
        let app = TestApp::start().await;
        assert_eq!(app.resume_info().await, none());
        let form = |number| file.fields(number).field("encryption", encryption).field("priority", "7");
        for number in [0, 1, 4] {
            let answer = app.chunk(form(number).chunk(file.chunk(number))).await.expect(200).json();
            assert_eq!(answer["status"], "uploading");
            assert_eq!(answer["success"], true);
        }
        let status = app.status("a%20b.bin").await;
        assert_eq!(
            (status["status"].as_str(), status["progress"].as_u64(), status["priority"].as_u64()),
            (Some("uploading"), Some(50), Some(7))
        );
        let stopped = app.stop().await;
        let app = TestApp::on(stopped.directory(), &[]).await;
        let info = app.resume_info().await;
        assert_eq!((&info["received_chunks"], &info["can_resume"]), (&json!([0, 1, 4]), &json!(true)));
        assert_eq!(
            (info["total_chunks"].as_u64(), info["chunk_size"].as_u64()),
            (Some(6), Some(SIZE as u64))
        );
        assert_eq!(info["received_bytes"].as_u64(), Some(3 * SIZE as u64));
        assert_eq!(info["chunk_hashes"]["4"], sha256(file.chunk(4)));
        assert_eq!(app.status("a%20b.bin").await["transferred_bytes"].as_u64(), Some(3 * SIZE as u64));
        for number in [5, 3] {
            app.chunk(form(number).chunk(file.chunk(number))).await.expect(200);
        }
        assert!(app.names().await.is_empty(), "half a file is no file");
        let last = app.chunk(form(2).chunk(file.chunk(2))).await.expect(200).json();
        assert_eq!(
            (last["status"].as_str(), last["chunks_received"].as_u64(), last["size"].as_u64()),
            (Some("completed"), Some(6), Some(5 * SIZE as u64 + 1))
        );
        assert_eq!(last["hash"], sha256(&file.bytes));
        assert_eq!((last["filename"].as_str(), last["priority"].as_u64()), (Some("a b.bin"), Some(7)));
        assert_eq!(last["nonce"].is_string(), encryption == "true");
        let again = app.chunk(form(2).chunk(file.chunk(2))).await.expect(200).json();
        assert_eq!(again, last, "the last one again");
        assert!(app.download("a%20b.bin").await == file.bytes);
        assert_eq!(app.resume_info().await, none());
    }
}

#[tokio::test]
async fn fields_may_stand_behind_the_chunk_or_in_the_query() {
    let file = File::new(3 * SIZE);
    let app = TestApp::start().await;
    let hash = sha256(file.chunk(1));
    let behind = Form::new()
        .chunk(file.chunk(1))
        .field("chunk_hash", &hash)
        .field("total_chunks", "3")
        .field("chunk_number", "1")
        .field("filename", "a b.bin")
        .field("encryption", "true");
    app.chunk(behind).await.expect(200);
    let query = format!(
        "/upload_chunk?filename=a%20b.bin&chunk_number=2&total_chunks=3&chunk_hash={}&encryption=1",
        sha256(file.chunk(2))
    );
    app.post_to(&query, &[], Form::new().chunk(file.chunk(2))).await.expect(200);
    let by_header = [("X-Encryption", "true")];
    let last = app.post_to("/upload_chunk", &by_header, file.form(0)).await.expect(200).json();
    assert_eq!((last["status"].as_str(), last["encryption"].as_bool()), (Some("completed"), Some(true)));
    assert!(app.download("a%20b.bin").await == file.bytes);
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_told_and_nothing_has_changed() {
    let file = File::new(3 * SIZE);
    let app = TestApp::start().await;
    for field in ["filename", "chunk_number", "total_chunks", "chunk_hash"] {
        let hash = sha256(file.chunk(0));
        let fields =
            [("filename", "a b.bin"), ("chunk_number", "0"), ("total_chunks", "3"), ("chunk_hash", &hash)];
        let others = fields.into_iter().filter(|(name, _)| *name != field);
        let form = others.fold(Form::new(), |form, (name, value)| form.field(name, value));
        let error = app.chunk(form.chunk(file.chunk(0))).await.error(400, "missing_field");
        assert_eq!(error["field"], field);
    }
    let error = app.chunk(file.fields(0)).await.error(400, "missing_field");
    assert_eq!(error["field"], "chunk");
    for (field, value, code) in [
        ("chunk_number", "x", "invalid_chunk"),
        ("chunk_number", "-1", "invalid_chunk"),
        ("chunk_number", "3", "invalid_chunk"),
        ("total_chunks", "0", "invalid_chunk"),
        ("total_chunks", "65537", "invalid_chunk"),
        ("total_chunks", "99999999999", "invalid_chunk"),
        ("chunk_hash", "12", "invalid_chunk"),
        ("upload_id", "12", "invalid_chunk"),
        ("file_size", "x", "invalid_chunk"),
        ("filename", "..", "invalid_filename"),
        ("priority", "11", "invalid_priority"),
        ("encryption", "maybe", "invalid_encryption"),
    ] {
        app.chunk(file.fields(0).field(field, value).chunk(file.chunk(0))).await.error(400, code);
        app.chunk(file.fields(0).chunk(file.chunk(0)).field(field, value)).await.error(400, code);
    }
    let unknown = file.fields(0).field("upload_id", "01a208fe-202b-7307-8131-08a0d277448c");
    app.chunk(unknown.chunk(file.chunk(0))).await.error(404, "not_found");
    let error = app.chunk(file.fields(0).chunk(file.chunk(1))).await.error(400, "chunk_hash_mismatch");
    assert_eq!(error["actual"], sha256(file.chunk(1)));
    app.chunk(file.form(0).chunk(file.chunk(0))).await.error(400, "too_many_files");
    assert_eq!(app.resume_info().await, none(), "nothing has begun");
    assert!(app.leftovers().is_empty());
    app.chunk(file.form(0)).await.expect(200);
    let other = File::new(4 * SIZE);
    app.chunk(other.form(1)).await.error(409, "chunk_conflict");
    app.chunk(file.fields(0).field("chunk_hash", &sha256(file.chunk(1))).chunk(file.chunk(1)))
        .await
        .error(409, "chunk_conflict");
    assert_eq!(app.resume_info().await["received_chunks"], json!([0]));
    app.get("/resume_info/%20").await.error(400, "invalid_filename");
    app.get("/upload_chunk").await.error(405, "method_not_allowed");
    app.send("POST", "/upload_chunk", &[], "x").await.error(415, "unsupported_media_type");
}

#[tokio::test]
async fn a_chunk_and_a_file_have_their_limits() {
    let limits = [("max_file_size", "150000"), ("max_resumable_size", "250000"), ("max_unfinished", "1")];
    let app = TestApp::with(&limits).await;
    let large = content(150_001, 1);
    let form = Form::new()
        .field("filename", "a b.bin")
        .field("chunk_number", "0")
        .field("total_chunks", "2")
        .field("chunk_hash", &sha256(&large));
    let error = app.chunk(form.chunk(&large)).await.error(413, "file_too_large");
    assert_eq!(error["max_size"], 150_000);
    let file = File::new(3 * SIZE);
    app.chunk(file.fields(0).field("file_size", "300000").chunk(file.chunk(0)))
        .await
        .error(413, "file_too_large");
    app.chunk(file.form(0)).await.expect(200);
    app.chunk(file.form(2)).await.error(413, "file_too_large");
    let other = file.fields(0).field("filename", "b").chunk(file.chunk(0));
    let answer = app.chunk(other).await;
    assert!(!answer.header("retry-after").is_empty());
    answer.error(429, "too_many_uploads");
    // A file that is larger than one request may bring.
    let file = File::new(2 * SIZE + 5);
    let renamed = |number| file.fields(number).field("client_id", "me").field("filename", "c");
    app.chunk(renamed(0).chunk(file.chunk(0))).await.error(429, "too_many_uploads");
}

#[tokio::test]
async fn many_at_a_time_make_one_file() {
    let file = File::new(20 * SIZE + 77);
    let app = TestApp::start().await;
    let mut order: Vec<usize> = (0..file.total()).collect();
    order.reverse();
    order.swap(0, 9);
    let answers =
        futures_util::future::join_all(order.iter().map(|number| app.chunk(file.form(*number)))).await;
    let completed: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.expect(200).json())
        .filter(|answer| answer["status"] == "completed")
        .collect();
    assert_eq!(completed.len(), 1, "{completed:?}");
    assert!(app.download("a%20b.bin").await == file.bytes);
}

/// What is given back of a chunk that is refused is its own, not what stands behind it.
#[tokio::test]
async fn a_chunk_that_is_refused_leaves_the_others_alone() {
    for encryption in ["false", "true"] {
        let app = TestApp::start().await;
        let bytes = content(4 << 20, 1);
        let form = |number: usize, piece: &[u8]| {
            Form::new()
                .field("filename", "a b.bin")
                .field("chunk_number", &number.to_string())
                .field("total_chunks", "4")
                .field("chunk_hash", &sha256(&bytes[number << 20..(number + 1) << 20]))
                .field("encryption", encryption)
                .chunk(piece)
        };
        for number in [0, 3, 2] {
            app.chunk(form(number, &bytes[number << 20..(number + 1) << 20])).await.expect(200);
        }
        app.chunk(form(1, &content(1 << 20, 2))).await.error(400, "chunk_hash_mismatch");
        app.chunk(form(1, &bytes[1 << 20..2 << 20])).await.expect(200);
        assert!(app.download("a%20b.bin").await == bytes);
    }
}

#[tokio::test]
async fn a_chunk_that_breaks_off_was_never_there() {
    let file = File::new(3 * SIZE);
    let app = TestApp::start().await;
    app.chunk(file.form(0)).await.expect(200);
    let form = file.form(1);
    let (kind, body) = (form.content_type(), form.unfinished());
    let mut raw = app.connect().await;
    let length = body.len().to_string();
    raw.send_head("POST /upload_chunk", &[("Content-Type", &kind), ("Content-Length", &length)]).await;
    raw.send(&body[..body.len() / 2]).await;
    raw.end().await;
    raw.answer().await.error(400, "incomplete_body");
    assert_eq!(app.resume_info().await["received_chunks"], json!([0]));
    // One that hangs does not hold up the one that is sent instead.
    let mut raw = app.connect().await;
    raw.send_head("POST /upload_chunk", &[("Content-Type", &kind), ("Content-Length", &length)]).await;
    raw.send(&body[..body.len() / 2]).await;
    app.chunk(file.form(1)).await.expect(200);
    app.chunk(file.form(2)).await.expect(200);
    assert!(app.download("a%20b.bin").await == file.bytes);
}

/// `curl -T` is killed, the server too, and `curl -C OFFSET -T` sends the rest.
#[tokio::test]
async fn a_put_that_breaks_off_goes_on_where_it_was() {
    for encryption in ["false", "true"] {
        let app = TestApp::start().await;
        let bytes = content(3_000_000, 4);
        let mut raw = app.connect().await;
        let headers = [("Content-Length", "3000000"), ("X-Encryption", encryption)];
        raw.send_head("PUT /files/a%20b.bin", &headers).await;
        raw.send(&bytes[..2_000_001]).await;
        app.status_becomes("a%20b.bin", |status| status["transferred_bytes"] == 2_000_001).await;
        raw.end().await;
        raw.answer().await.error(400, "incomplete_body");
        let info = app.resume_info().await;
        assert_eq!((info["received_bytes"].as_u64(), &info["can_resume"]), (Some(2_000_001), &json!(true)));
        assert_eq!(info["received_chunks"], json!([]));
        let stopped = app.stop().await;
        let app = TestApp::on(stopped.directory(), &[]).await;
        assert_eq!(app.status("a%20b.bin").await["transferred_bytes"], 2_000_001);
        let headers = [("Content-Range", "bytes 2000001-2999999/3000000")];
        let done = app.put_with("a%20b.bin", &headers, bytes[2_000_001..].to_vec()).await.expect(201).json();
        assert_eq!((done["hash"].as_str(), done["size"].as_u64()), (Some(&*sha256(&bytes)), Some(3_000_000)));
        assert_eq!(done["encryption"], encryption == "true");
        assert!(app.download("a%20b.bin").await == bytes);
    }
}
