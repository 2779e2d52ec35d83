//! Uploads in chunks to a stub: what is sent, what is not sent again, and what becomes of failures.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tempfile::NamedTempFile;

use super::stub::{Server, Unfinished, hex, json_answer, refuse};
use super::*;
use crate::client::stub::{Stub, answer, at_once, broken_after};
use crate::client::unobserved;
use crate::client::upload::Chunking;

/// Ten chunks of 1000 bytes, and a shorter one.
const SIZE: usize = 10_500;
const CHUNK: u64 = 1000;

fn content(seed: usize) -> Vec<u8> {
    (0..SIZE).map(|n| ((n + seed) % 251) as u8).collect()
}

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

fn upload(path: &Path, retries: u32) -> Upload {
    let chunking = Chunking { which: Chunked::Always, chunk_size: Some(CHUNK), connections: None };
    Upload { retries: at_once(retries), chunking, ..Upload::new(path, "a".parse().unwrap()) }
}

type Shared<T> = Arc<Mutex<T>>;

/// An observer, and what it was told in words. Bytes are added up.
fn watched() -> (Observer, Shared<Vec<String>>, Shared<i64>) {
    let (told, through) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let (log, sum) = (Arc::clone(&told), Arc::clone(&through));
    let observer: Observer = Arc::new(move |event| {
        let told = match event {
            Event::Started { phase: Phase::Sending, done, .. } => {
                *sum.lock().unwrap() = done as i64;
                return;
            }
            Event::Started { .. } => return,
            Event::Advanced(bytes) => return *sum.lock().unwrap() += bytes as i64,
            Event::Lost(bytes) => return *sum.lock().unwrap() -= bytes as i64,
            Event::Resuming { have, total } => format!("resuming {have} of {total}"),
            Event::StartedOver => "anew".to_owned(),
            Event::Retrying { error, retry, .. } => format!("retry {retry}: {error}"),
        };
        log.lock().unwrap().push(told);
    });
    (observer, told, through)
}

#[tokio::test]
async fn a_file_goes_in_chunks_that_say_everything_before_their_bytes() {
    let server = Server::start().await;
    let bytes = content(0);
    let file = file(&bytes);
    let (observer, told, through) = watched();
    let upload = Upload { priority: Some(7.try_into().unwrap()), encrypt: true, ..upload(file.path(), 0) };
    let sent = server.stub.client().upload(&upload, &observer).await.unwrap();
    assert_eq!((sent.value.hash.to_string(), sent.value.size), (hex(&bytes), SIZE as u64));
    assert_eq!(sent.json["chunks_received"], 11);
    assert_eq!(server.store().stored.as_deref(), Some(&bytes[..]));
    let mut numbers = server.numbers();
    assert_eq!(numbers[0], 0, "the first one goes alone");
    numbers.sort_unstable();
    assert_eq!(numbers, (0..11).collect::<Vec<_>>());
    let store = server.store();
    let first = &store.came[0];
    let names: Vec<_> = first.fields.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "filename",
        "chunk_number",
        "total_chunks",
        "chunk_hash",
        "file_size",
        "file_hash",
        "chunk_size",
        "encryption",
        "priority",
        "chunk",
    ];
    assert_eq!(names, expected);
    assert_eq!(first.field("filename"), Some("a"));
    assert_eq!(first.field("file_hash"), Some(hex(&bytes).as_str()));
    assert_eq!((first.number("file_size"), first.number("total_chunks")), (SIZE as u64, 11));
    assert_eq!((first.number("chunk_size"), first.number("priority")), (CHUNK, 7));
    assert_eq!(store.came[1].field("upload_id"), Some("1"), "as the first answer says");
    let last = store.came.iter().find(|chunk| chunk.number("chunk_number") == 10).unwrap();
    assert_eq!(last.bytes.len(), SIZE % 1000);
    assert_eq!((*through.lock().unwrap(), told.lock().unwrap().len()), (SIZE as i64, 0));
}

#[tokio::test]
async fn only_large_files_go_in_chunks_by_themselves() {
    for (size, which, chunks) in [
        (Chunking::THRESHOLD as usize, Chunked::Large, 0),
        (Chunking::THRESHOLD as usize + 1, Chunked::Large, 6),
        (Chunking::THRESHOLD as usize + 1, Chunked::Never, 0),
        (1, Chunked::Always, 1),
        (0, Chunked::Always, 0),
    ] {
        let server = Server::start().await;
        let file = file(&vec![7; size]);
        let chunking = Chunking { which, ..Chunking::default() };
        let upload = Upload { chunking, ..Upload::new(file.path(), "a".parse().unwrap()) };
        let sent = server.stub.client().upload(&upload, &unobserved()).await.unwrap();
        assert_eq!(sent.value.size, size as u64);
        assert_eq!(server.numbers().len(), chunks, "{size} {which:?}");
    }
}

#[tokio::test]
async fn a_server_that_knows_no_chunks_gets_the_file_in_one_piece_unless_chunks_were_asked_for() {
    let bytes = vec![7; Chunking::THRESHOLD as usize + 1];
    let hash = hex(&bytes);
    let stub = Stub::answering(move |n, seen| match seen.method {
        http::Method::PUT => json_answer(&json!({"filename": "a", "hash": hash, "size": seen.body.len()})),
        // A server that has just started does not know yet what it knows.
        _ if n == 0 => refuse(503, "unavailable"),
        _ => refuse(404, "unknown_path"),
    })
    .await;
    let file = file(&bytes);
    let plain = Upload { retries: at_once(1), ..Upload::new(file.path(), "a".parse().unwrap()) };
    stub.client().upload(&plain, &unobserved()).await.unwrap();
    let error = stub.client().upload(&upload(file.path(), 3), &unobserved()).await.unwrap_err();
    assert!(matches!(&error, UploadError::Exchange(Error::Refused(r)) if r.is("unknown_path")), "{error}");
}

/// As an earlier run would have left it.
fn begun(bytes: &[u8], chunk: u64, numbers: &[u64]) -> Unfinished {
    let division = Division { size: bytes.len() as u64, chunk };
    let slice = |number: &u64| {
        let range = division.range(*number);
        (*number, bytes[range.start as usize..range.end as usize].to_vec().into())
    };
    let chunks = numbers.iter().map(slice).collect::<BTreeMap<_, _>>();
    Unfinished { id: 9, file_hash: hex(bytes), chunk_size: chunk, total: division.count(), chunks }
}

#[tokio::test]
async fn only_what_is_missing_is_sent_in_the_chunks_that_it_began_with() {
    let server = Server::start().await;
    let bytes = content(0);
    let file = file(&bytes);
    server.store().upload = Some(begun(&bytes, 3000, &[0, 2]));
    let (observer, told, through) = watched();
    server.stub.client().upload(&upload(file.path(), 0), &observer).await.unwrap();
    assert_eq!(server.numbers(), [1, 3]);
    assert_eq!(server.store().came[0].field("upload_id"), Some("9"));
    assert_eq!(server.store().stored.as_deref(), Some(&bytes[..]));
    assert_eq!(*told.lock().unwrap(), ["resuming 2 of 4"]);
    assert_eq!(*through.lock().unwrap(), SIZE as i64);
}

#[tokio::test]
async fn a_file_that_is_another_one_by_now_is_sent_anew() {
    let server = Server::start().await;
    let (mut bytes, old) = (content(0), content(0));
    bytes[9_999] ^= 1;
    let file = file(&bytes);
    server.store().upload = Some(begun(&old, CHUNK, &[0, 1, 9]));
    let (observer, told, _) = watched();
    server.stub.client().upload(&upload(file.path(), 0), &observer).await.unwrap();
    assert_eq!(server.numbers().len(), 11);
    assert_eq!(server.store().came[0].field("upload_id"), None);
    assert_eq!(server.store().stored.as_deref(), Some(&bytes[..]));
    assert_eq!(*told.lock().unwrap(), ["anew"]);
}

#[tokio::test]
async fn where_all_chunks_are_there_and_no_file_the_last_is_sent_again() {
    let server = Server::start().await;
    let bytes = content(0);
    server.store().upload = Some(begun(&bytes, CHUNK, &(0..11).collect::<Vec<_>>()));
    let file = file(&bytes);
    server.stub.client().upload(&upload(file.path(), 0), &unobserved()).await.unwrap();
    assert_eq!(server.numbers(), [10]);
}

#[tokio::test]
async fn a_chunk_that_fails_is_sent_again_and_no_other() {
    let server = Server::failing(|count, _, _| match count {
        1 => Some(answer(503, &[("retry-after", "0")], "")),
        2 => Some(refuse(400, "chunk_hash_mismatch")),
        3 => Some(answer(200, &[("content-length", "100")], broken_after(b"{"))),
        4 => Some(refuse(429, "too_many_requests")),
        5 => Some(refuse(408, "request_timeout")),
        _ => None,
    })
    .await;
    let bytes = content(0);
    let file = file(&bytes);
    let (observer, told, through) = watched();
    server.stub.client().upload(&upload(file.path(), 5), &observer).await.unwrap();
    assert_eq!(server.store().stored.as_deref(), Some(&bytes[..]));
    assert_eq!(server.numbers().len(), 11 + 5);
    assert_eq!(*through.lock().unwrap(), SIZE as i64, "what was sent twice counts once");
    assert!(!told.lock().unwrap().is_empty());
}

#[tokio::test]
async fn retries_of_a_chunk_end_and_a_later_run_goes_on() {
    let bad = Arc::new(Mutex::new(true));
    let script = Arc::clone(&bad);
    let server = Server::failing(move |_, chunk, _| {
        (*script.lock().unwrap() && chunk.number("chunk_number") >= 5).then(|| refuse(500, "internal_error"))
    })
    .await;
    let file = file(&content(0));
    let error = server.stub.client().upload(&upload(file.path(), 2), &unobserved()).await.unwrap_err();
    assert!(matches!(&error, UploadError::Exchange(Error::Refused(r)) if r.status == 500), "{error}");
    assert_eq!(server.store().upload.as_ref().unwrap().chunks.len(), 5);
    *bad.lock().unwrap() = false;
    let (observer, told, _) = watched();
    server.stub.client().upload(&upload(file.path(), 0), &observer).await.unwrap();
    // What was on its way when the first run gave up may still arrive.
    let told = told.lock().unwrap();
    assert!(
        ["resuming 5 of 11", "resuming 6 of 11", "resuming 7 of 11"].contains(&told[0].as_str()),
        "{told:?}"
    );
    let of_the_first = server.numbers().iter().filter(|number| **number < 5).count();
    assert_eq!(of_the_first, 5, "what was there is not sent again");
}

#[tokio::test]
async fn what_cannot_get_better_is_tried_once() {
    for (status, code) in [
        (400, "invalid_chunk"),
        (401, "api_key_required"),
        (409, "chunk_conflict"),
        (413, "file_too_large"),
        (507, "storage_full"),
    ] {
        let server = Server::failing(move |_, _, _| Some(refuse(status, code))).await;
        let file = file(&content(0));
        let error = server.stub.client().upload(&upload(file.path(), 3), &unobserved()).await.unwrap_err();
        assert!(matches!(&error, UploadError::Exchange(Error::Refused(r)) if r.is(code)), "{error}");
        assert_eq!(server.numbers(), [0], "{code}");
    }
}

#[tokio::test]
async fn chunks_that_are_too_large_become_smaller() {
    const MIB: u64 = 1 << 20;
    for told in [None, Some(300_000)] {
        let server = Server::failing(move |_, chunk, _| {
            let body = told.map_or("<html>".to_owned(), |most| json!({"max_size": most}).to_string());
            (chunk.bytes.len() > 300_000).then(|| answer(413, &[], body))
        })
        .await;
        let bytes = vec![7; 2 << 20];
        let file = file(&bytes);
        let chunking = Chunking { which: Chunked::Always, chunk_size: Some(MIB), connections: None };
        let upload = Upload { chunking, ..upload(file.path(), 0) };
        server.stub.client().upload(&upload, &unobserved()).await.unwrap();
        assert_eq!(server.store().stored.as_deref(), Some(&bytes[..]));
        let sizes: Vec<_> = server.store().came.iter().map(|chunk| chunk.number("chunk_size")).collect();
        let tried = told.map_or(vec![MIB, MIB / 2, MIB / 4], |most| vec![MIB, most]);
        assert!(sizes.starts_with(&tried), "{sizes:?}");
    }
    // The file is what is too large: chunks can't help.
    let server = Server::failing(|_, _, _| {
        Some(answer(413, &[], json!({"error": "x", "code": "file_too_large", "max_size": 5000}).to_string()))
    })
    .await;
    let file = file(&content(0));
    let error = server.stub.client().upload(&upload(file.path(), 3), &unobserved()).await.unwrap_err();
    assert!(
        matches!(&error, UploadError::Exchange(Error::Refused(r)) if r.max_size == Some(5000)),
        "{error}"
    );
    assert_eq!(server.numbers(), [0]);
}

/// The last answer breaks off after the file is made: the server knows the upload no more, and the file is there.
#[tokio::test]
async fn a_last_answer_that_is_lost_is_no_failure() {
    for forgotten in [None, Some((404, "not_found")), Some((409, "chunk_conflict"))] {
        let server = Server::failing(move |_, chunk, store| {
            if store.stored.is_some() {
                return Some(forgotten.map_or_else(
                    || json_answer(&json!({"chunks_received": 1, "status": "uploading"})),
                    |(status, code)| refuse(status, code),
                ));
            }
            let taken = store.take(chunk);
            Some(match store.stored {
                None => taken,
                Some(_) => answer(200, &[("content-length", "100")], broken_after(b"{")),
            })
        })
        .await;
        let bytes = content(0);
        let file = file(&bytes);
        let sent = server.stub.client().upload(&upload(file.path(), 1), &unobserved()).await.unwrap();
        assert_eq!((sent.value.hash.to_string(), sent.value.size), (hex(&bytes), SIZE as u64));
        assert_eq!(sent.json["hash"], hex(&bytes));
        assert_eq!(server.numbers().len(), 12);
    }
}

#[tokio::test]
async fn a_server_that_makes_no_file_of_all_chunks_is_told_so() {
    let server =
        Server::failing(|_, _, _| Some(json_answer(&json!({"chunks_received": 1, "status": "uploading"}))))
            .await;
    let file = file(&content(0));
    let error = server.stub.client().upload(&upload(file.path(), 2), &unobserved()).await.unwrap_err();
    assert!(matches!(error, UploadError::Incomplete), "{error}");
    assert_eq!(server.numbers().len(), 33, "it gets them three times");
}

#[tokio::test]
async fn a_file_that_changes_on_the_way_is_sent_anew_as_it_is_then() {
    let file = file(&content(0));
    let path = file.path().to_owned();
    let server = Server::failing(move |count, _, _| {
        if count == 2 {
            OpenOptions::new().append(true).open(&path).unwrap().write_all(b" and more").unwrap();
        }
        None
    })
    .await;
    let (observer, told, _) = watched();
    // A chunk of before may arrive late and push the new upload out of the stub, which remembers one.
    let sent = server.stub.client().upload(&upload(file.path(), 5), &observer).await.unwrap();
    let expected = [&content(0)[..], b" and more"].concat();
    assert_eq!(server.store().stored.as_deref(), Some(&expected[..]));
    assert_eq!(sent.value.hash.to_string(), hex(&expected));
    let told = told.lock().unwrap();
    assert!(told.iter().any(|told| told.contains("was changed while it was sent")), "{told:?}");
}

#[tokio::test]
async fn what_was_put_together_wrongly_is_sent_anew() {
    let server = Server::failing(|count, chunk, store| {
        let taken = store.take(chunk);
        (count == 10).then(|| refuse(422, "checksum_mismatch")).or(Some(taken))
    })
    .await;
    let bytes = content(0);
    let file = file(&bytes);
    server.stub.client().upload(&upload(file.path(), 1), &unobserved()).await.unwrap();
    assert_eq!(server.numbers().len(), 22);
    // Other bytes than were sent are no success.
    let server = Server::failing(|_, chunk, store| {
        let taken = store.take(chunk);
        Some(match store.stored {
            None => taken,
            Some(_) => json_answer(
                &json!({"status": "completed", "filename": "a", "hash": hex(b"other"), "size": 5}),
            ),
        })
    })
    .await;
    let error = server.stub.client().upload(&upload(file.path(), 3), &unobserved()).await.unwrap_err();
    assert!(matches!(error, UploadError::Mismatch { .. }), "{error}");
    assert_eq!(server.numbers().len(), 11);
}

#[tokio::test]
async fn what_is_measured_is_what_is_reported() {
    let server = Server::start().await;
    let file = file(&vec![7; Chunking::THRESHOLD as usize + 1]);
    server
        .stub
        .client()
        .upload(&Upload::new(file.path(), "a".parse().unwrap()), &unobserved())
        .await
        .unwrap();
    let pings: Vec<f64> = server
        .stub
        .seen()
        .iter()
        .filter(|seen| seen.uri.path() == "/ping")
        .map(|seen| {
            serde_json::from_slice::<serde_json::Value>(&seen.body).unwrap()["rtt_ms"].as_f64().unwrap()
        })
        .collect();
    assert_eq!(pings.len(), 4);
    assert!(pings[0] < 0.0 && pings[1..].iter().all(|rtt| *rtt >= 0.0), "{pings:?}");
    assert_eq!(server.store().came[0].number("chunk_size"), 1 << 20, "as recommended");
}
