//! Requests and uploads to a stub.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::Response;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::stub::{Seen, Stub, answer, at_once};
use super::*;
use crate::domain::{Digest, FileName, Priority};

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

fn upload(file: &NamedTempFile, retries: u32) -> Upload {
    let chunking = Chunking { which: Chunked::Never, ..Chunking::default() };
    Upload { retries: at_once(retries), chunking, ..Upload::new(file.path(), "a.txt".parse().unwrap()) }
}

fn hex(content: &[u8]) -> String {
    Digest::new(Sha256::digest(content).into()).to_string()
}

/// The answer to a good upload.
fn stored(seen: &Seen) -> Response {
    let body = serde_json::json!({"success": true, "filename": "a.txt", "hash": hex(&seen.body),
        "status": "completed", "encryption": false, "size": seen.body.len(), "priority": 0});
    answer(201, &[("content-type", "application/json")], body.to_string())
}

#[tokio::test]
async fn a_file_is_sent_with_its_length_and_digest() {
    // More than a few pieces, and not a whole number of them.
    let large: Vec<u8> = (0..3_000_001_u32).map(|n| (n % 251) as u8).collect();
    for content in [&large[..], b"x", b""] {
        let stub = Stub::answering(|_, seen| stored(seen)).await;
        let file = file(content);
        let advanced = Arc::new(Mutex::new((0, 0)));
        let observer: Observer = {
            let advanced = Arc::clone(&advanced);
            Arc::new(move |event| match event {
                Event::Started { phase: Phase::Sending, .. } => advanced.lock().unwrap().1 = 0,
                Event::Advanced(bytes) => advanced.lock().unwrap().1 += bytes,
                _ => (),
            })
        };
        let sent = stub.client().upload(&upload(&file, 0), &observer).await.unwrap();
        let seen = stub.seen().remove(0);
        assert_eq!((&seen.method, &seen.body[..]), (&http::Method::PUT, content));
        assert_eq!(seen.uri, format!("/files/a.txt?sha256={}", hex(content)).as_str());
        assert_eq!(seen.header("content-length"), Some(content.len().to_string().as_str()));
        assert_eq!(seen.header("transfer-encoding"), None);
        assert_eq!((sent.value.size, sent.json["priority"].as_u64()), (content.len() as u64, Some(0)));
        assert_eq!(advanced.lock().unwrap().1, content.len() as u64);
    }
}

#[tokio::test]
async fn names_options_and_the_key_are_in_the_request() {
    let stub = Stub::answering(|_, seen| stored(seen)).await;
    let client = Client::new(stub.url(), Some("k-1")).unwrap();
    let upload = Upload {
        name: FileName::clean("ü 100%#;&+.txt").unwrap(),
        priority: Some(Priority::try_from(7).unwrap()),
        encrypt: true,
        ..upload(&file(b""), 0)
    };
    // The file is gone by now.
    let error = client.upload(&upload, &unobserved()).await.unwrap_err();
    assert!(matches!(error, UploadError::Read { .. }), "{error}");
    let file = file(b"");
    client.upload(&Upload { path: file.path().to_owned(), ..upload }, &unobserved()).await.unwrap();
    let seen = stub.seen().remove(0);
    let uri = format!("/files/%C3%BC%20100%25%23;&+.txt?sha256={}&priority=7&encryption=true", hex(b""));
    assert_eq!(seen.uri, uri.as_str());
    assert_eq!(seen.header("x-api-key"), Some("k-1"));
    assert!(Client::new(stub.url(), Some("k\n1")).is_err());
}

#[tokio::test]
async fn what_can_get_better_is_tried_again_with_the_whole_file() {
    let stub = Stub::answering(|n, seen| match n {
        0 => answer(503, &[("retry-after", "0")], r#"{"error":"starting","code":"unavailable"}"#),
        1 => answer(422, &[], r#"{"error":"damaged","code":"checksum_mismatch"}"#),
        _ => stored(seen),
    })
    .await;
    let file = file(b"content");
    stub.client().upload(&upload(&file, 2), &unobserved()).await.unwrap();
    assert_eq!(stub.seen().iter().map(|seen| seen.body.clone()).collect::<Vec<_>>(), [&b"content"[..]; 3]);
}

#[tokio::test]
async fn what_cannot_get_better_is_tried_once() {
    for status in [400, 401, 403, 409, 413, 422, 501, 507] {
        let stub = Stub::answering(move |_, _| answer(status, &[], r#"{"error":"no","code":"x"}"#)).await;
        let error = stub.client().upload(&upload(&file(b"x"), 3), &unobserved()).await.unwrap_err();
        assert!(matches!(&error, UploadError::Exchange(Error::Refused(r)) if r.status == status), "{error}");
        assert_eq!(stub.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn retries_end() {
    let stub = Stub::answering(|_, _| answer(500, &[], "")).await;
    let error = stub.client().upload(&upload(&file(b"x"), 2), &unobserved()).await.unwrap_err();
    assert_eq!(error.to_string(), "the server answered 500 Internal Server Error");
    assert_eq!(stub.seen().len(), 3);
}

#[tokio::test]
async fn a_file_that_changed_between_attempts_is_hashed_anew() {
    let file = Arc::new(Mutex::new(file(b"old")));
    let path = file.lock().unwrap().path().to_owned();
    let shared = Arc::clone(&file);
    let stub = Stub::answering(move |n, seen| {
        if n > 0 {
            return stored(seen);
        }
        shared.lock().unwrap().write_all(b" and new").unwrap();
        answer(503, &[], "")
    })
    .await;
    let upload = Upload { retries: at_once(1), ..Upload::new(path, "a.txt".parse().unwrap()) };
    stub.client().upload(&upload, &unobserved()).await.unwrap();
    assert_eq!(stub.seen()[1].uri.query(), Some(format!("sha256={}", hex(b"old and new")).as_str()));
}

#[tokio::test]
async fn a_yes_to_other_bytes_is_no_yes() {
    let stub = Stub::answering(|_, seen| stored(&Seen { body: "other".into(), ..seen.clone() })).await;
    let error = stub.client().upload(&upload(&file(b"x"), 3), &unobserved()).await.unwrap_err();
    assert!(matches!(error, UploadError::Mismatch { .. }), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn only_files_are_sent() {
    let stub = Stub::gone().await;
    for path in ["/dev", "/dev/null"] {
        let upload = Upload::new(path, "a".parse().unwrap());
        let error = stub.client().upload(&upload, &unobserved()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{path} is no regular file"));
    }
}

#[tokio::test]
async fn a_refused_connection_asks_for_the_server() {
    let stub = Stub::gone().await;
    let error = stub.client().health().await.unwrap_err();
    let expected = format!("cannot reach {}: connection refused; is the server running?", stub.url());
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn an_unknown_host_and_a_server_without_tls_are_told_apart() {
    // The top-level domain is reserved for names that are none (RFC 6761).
    let unknown = Client::new(ServerUrl::parse("sft.invalid", None).unwrap(), None).unwrap();
    let error = unknown.health().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { why: Unreachable::UnknownHost, .. }), "{error:?}");

    let stub = Stub::answering(|_, _| answer(200, &[], "")).await;
    let https = ServerUrl::parse(&stub.url().to_string().replace("http:", "https:"), None).unwrap();
    // Where the system has no certificates at all, there is no client for https.
    if let Ok(client) = Client::new(https, None) {
        let error = client.health().await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { why: Unreachable::Tls(_), .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out() {
    let hung = Stub::raw(|stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let short = Duration::from_millis(50);
    let client = hung.client_with(Timeouts { idle: short, answer: short, ..Timeouts::default() });
    let error = client.health().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { awaited: "answered", .. }), "{error}");
    // All of it fits into the socket: the answer is what does not come.
    let error = client.upload(&upload(&file(b"x"), 0), &unobserved()).await.unwrap_err();
    assert!(matches!(error, UploadError::Exchange(Error::TimedOut { awaited: "answered", .. })), "{error}");
    // More than any socket takes: at some point nothing moves.
    let large = file(&vec![0; 32 << 20]);
    let error = client.upload(&upload(&large, 0), &unobserved()).await.unwrap_err();
    assert!(
        matches!(error, UploadError::Exchange(Error::TimedOut { awaited: "taken any data", .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let stub = Stub::answering(|_, _| answer(302, &[("location", "http://elsewhere.invalid/")], "")).await;
    let error = stub.client().health().await.unwrap_err();
    assert!(error.to_string().contains("http://elsewhere.invalid/"), "{error}");
}

#[tokio::test]
async fn a_page_instead_of_json_is_another_kind_of_server() {
    let stub = Stub::answering(|_, _| answer(200, &[], "<html>")).await;
    let error = stub.client().health().await.unwrap_err();
    assert!(matches!(error, Error::Unexpected { .. }), "{error}");
}

const TOO_LARGE: &str =
    r#"{"success":false,"error":"the file is too large","code":"file_too_large","max_size":5}"#;

/// Reads the head of a request, answers 413, and takes `drained` bytes of the body before it closes.
async fn refuse_early(mut stream: TcpStream, drained: u64) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let answer = format!(
        "HTTP/1.1 413 Payload Too Large\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{TOO_LARGE}",
        TOO_LARGE.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    let _ = tokio::io::copy(&mut (&mut stream).take(drained), &mut tokio::io::sink()).await;
}

/// The answer comes while the body is still being sent: it is heard, and the rest of the body stays here.
#[tokio::test]
async fn a_refusal_in_the_middle_of_the_body_is_heard() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let stub = Stub::raw(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        refuse_early(stream, u64::MAX)
    })
    .await;
    let large = file(&vec![0; 32 << 20]);
    let sent = Arc::new(AtomicUsize::new(0));
    let observer: Observer = {
        let sent = Arc::clone(&sent);
        Arc::new(move |event| match event {
            Event::Started { phase: Phase::Sending, .. } => sent.store(0, Ordering::Relaxed),
            Event::Advanced(bytes) => drop(sent.fetch_add(bytes as usize, Ordering::Relaxed)),
            _ => (),
        })
    };
    let error = stub.client().upload(&upload(&large, 3), &observer).await.unwrap_err();
    let UploadError::Exchange(Error::Refused(refusal)) = error else { panic!("{error}") };
    assert_eq!((refusal.status.as_u16(), refusal.max_size), (413, Some(5)));
    assert!(sent.load(Ordering::Relaxed) < 32 << 20, "the rest was sent all the same");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_while_sending_is_told_so() {
    let stub = Stub::raw(|mut stream| async move {
        let _ = stream.read_u8().await;
    })
    .await;
    let large = file(&vec![0; 8 << 20]);
    let error = stub.client().upload(&upload(&large, 0), &unobserved()).await.unwrap_err();
    assert!(matches!(error, UploadError::Exchange(Error::Broken { .. })), "{error:?}");
}
