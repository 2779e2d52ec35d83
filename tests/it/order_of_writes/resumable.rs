//! The same of uploads that can be resumed: the data, their flush, the line of the log, its flush, and only then the answer.

use std::path::Path;

use reqwest::{Client, Response};

use super::rule::{is_flush, is_socket, is_write};
use super::trace::Call;
use super::{traced, written_to};
use crate::support::{Form, content, sha256};
use crate::tus::{BYTES, VERSION, metadata};

/// The answers, in their order: the creation, two PATCHes, the last chunk that waits aside, one in its place, and the one
/// that finds its place first.
async fn some_of_each(server: String, http: Client) {
    let bytes = content(600_000, 1);
    for sealed in ["false", "true"] {
        let metadata = metadata(&[("filename", "a.bin"), ("encryption", sealed)]);
        let create = http.post(format!("{server}/uploads/")).header(VERSION.0, VERSION.1);
        let create = create.header("Upload-Metadata", metadata).header("Upload-Length", "600000");
        let created = acknowledged(create.send().await);
        let path = created.headers()["location"].to_str().expect("a path").to_owned();
        // One that waits in memory, and one that is written as it comes.
        for (from, to) in [(0, 100_000), (100_000, 500_000)] {
            let patch = http.patch(format!("{server}{path}")).header(VERSION.0, VERSION.1);
            let patch = patch.header(BYTES.0, BYTES.1).header("Upload-Offset", from);
            acknowledged(patch.body(bytes[from..to].to_vec()).send().await);
        }
        for number in [3, 0, 2] {
            let piece = bytes.chunks(150_000).nth(number).expect("a chunk");
            let form = Form::new()
                .field("filename", &format!("{sealed}.chunks"))
                .field("chunk_number", &number.to_string())
                .field("total_chunks", "4")
                .field("chunk_hash", &sha256(piece))
                .field("encryption", sealed)
                .part("Content-Disposition: form-data; name=\"chunk\"; filename=\"chunk\"", piece);
            let post =
                http.post(format!("{server}/upload_chunk")).header("Content-Type", form.content_type());
            acknowledged(post.body(form.finish()).send().await);
        }
    }
}

fn acknowledged(answer: reqwest::Result<Response>) -> Response {
    answer.and_then(Response::error_for_status).expect("acknowledged")
}

/// The last call before `end` of which this is so.
fn last<'a>(calls: &'a [Call], end: &Call, of: impl Fn(&Call) -> bool) -> Option<&'a Call> {
    calls.iter().filter(|call| call.ended < end.began && of(call)).max_by_key(|call| call.ended)
}

/// Whether something was flushed between two calls.
fn flushed(calls: &[Call], after: &Call, before: &Call, of: impl Fn(&str) -> bool) -> bool {
    calls.iter().any(|call| {
        is_flush(call)
            && call.result == 0
            && call.began > after.ended
            && call.ended < before.began
            && call.target().is_some_and(&of)
    })
}

/// Checks each answer; gives how many there were of creations, of bytes, and of chunks that wait aside.
#[track_caller]
fn check(calls: &[Call], directory: &Path) -> (usize, usize, usize) {
    let uploads = directory.join("storage/.sft/uploads").to_str().expect("UTF-8").to_owned();
    let among = |path: &str| path.starts_with(&uploads);
    let is_log = |path: &str| among(path) && path.ends_with(".log");
    let (mut created, mut bytes, mut aside) = (0, 0, 0);
    let answers = calls.iter().filter(|call| is_write(call) && is_socket(call));
    for answer in
        answers.filter(|call| String::from_utf8_lossy(&call.texts().concat()).starts_with("HTTP/1.1 20"))
    {
        let text = String::from_utf8_lossy(&answer.texts().concat()).into_owned();
        if text.starts_with("HTTP/1.1 201") {
            created += 1;
            let log = last(calls, answer, |call| {
                call.name.starts_with("rename") && call.texts().last().is_some_and(|to| to.ends_with(b".log"))
            });
            let log = log.expect("the log takes its name before the answer");
            let line = last(calls, log, |call| written_to(call, |path| path.ends_with(".log.tmp")));
            let line = line.expect("the log is written before it takes its name");
            assert!(flushed(calls, line, log, |path| path.ends_with(".log.tmp")), "the log is flushed");
            assert!(flushed(calls, log, answer, |path| path == uploads), "its directory is flushed");
            continue;
        }
        bytes += 1;
        let line = last(calls, answer, |call| written_to(call, is_log)).expect("a line of the log");
        assert!(flushed(calls, line, answer, is_log), "the log is flushed before {text}");
        let data = last(calls, line, |call| {
            written_to(call, |path| among(path) && (path.ends_with(".data") || path.ends_with(".chunk")))
        });
        let data = data.expect("data");
        let path = data.target().expect("a path").to_owned();
        assert!(flushed(calls, data, line, |other| other == path), "{path} is flushed before its line");
        if path.ends_with(".chunk") {
            aside += 1;
            assert!(
                flushed(calls, data, line, |other| other == uploads),
                "a new file's directory is flushed"
            );
        }
    }
    (created, bytes, aside)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_arrived_is_flushed_before_it_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(calls) = traced(directory.path(), "power", some_of_each).await else { return };
    assert_eq!(check(&calls, directory.path()), (2, 10, 2));
}
