//! Downloads from a stub: resuming, changing files, damage.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::response::Response;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;
use crate::client::stub::{Seen, Stub, answer, at_once, broken_after};
use crate::client::unobserved;

const CONTENT: &[u8] = b"0123456789";

fn hex(content: &[u8]) -> String {
    Digest::new(Sha256::digest(content).into()).to_string()
}

/// Answers as the contract says: ranges, `If-Range`, 416.
fn serve(content: &'static [u8], seen: &Seen) -> Response {
    let etag = format!("\"{}\"", hex(content));
    let range = seen.header("range").filter(|_| seen.header("if-range") == Some(etag.as_str()));
    let first = range.map(|range| range["bytes=".len()..].trim_end_matches('-').parse::<usize>().unwrap());
    match first {
        None => answer(200, &[("etag", &etag), ("content-length", &content.len().to_string())], content),
        Some(first) if first >= content.len() => {
            answer(416, &[("content-range", &format!("bytes */{}", content.len()))], "{}")
        }
        Some(first) => {
            let range = format!("bytes {first}-{}/{}", content.len() - 1, content.len());
            answer(206, &[("etag", &etag), ("content-range", &range)], &content[first..])
        }
    }
}

/// The head of a whole answer, and a body that breaks off.
fn break_off(content: &[u8], sent: &'static [u8]) -> Response {
    let etag = format!("\"{}\"", hex(content));
    answer(200, &[("etag", &etag), ("content-length", &content.len().to_string())], broken_after(sent))
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn download(&self, retries: u32) -> Download {
        let connections = 1;
        Download {
            retries: at_once(retries),
            connections,
            ..Download::to_file("a".parse().unwrap(), self.at("a"))
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.at(name)).ok()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// Puts bytes into a file.
fn put(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[tokio::test]
async fn a_file_arrives_whole_and_verified_under_its_name_only() {
    for content in [CONTENT, b""] {
        let stub = Stub::answering(move |_, seen| serve(content, seen)).await;
        let place = Place::new();
        let got = stub.client().download(place.download(0), &unobserved()).await.unwrap();
        assert_eq!(place.read("a").as_deref(), Some(content));
        assert_eq!(place.names(), ["a"]);
        assert_eq!((got.size, got.verified, got.resumed_from), (content.len() as u64, true, 0));
        assert_eq!((got.digest.to_string(), got.path), (hex(content), Some(place.at("a"))));
    }
}

#[tokio::test]
async fn an_existing_file_is_replaced_only_by_a_whole_one() {
    let place = Place::new();
    put(&place.at("a"), b"old");
    let stub =
        Stub::answering(|n, seen| if n == 0 { break_off(CONTENT, b"012") } else { serve(CONTENT, seen) })
            .await;
    assert!(stub.client().download(place.download(0), &unobserved()).await.is_err());
    assert_eq!(place.read("a").as_deref(), Some(b"old".as_slice()));
    stub.client().download(place.download(0), &unobserved()).await.unwrap();
    assert_eq!(place.read("a").as_deref(), Some(CONTENT));
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let stub =
        Stub::answering(|n, seen| if n == 0 { break_off(CONTENT, b"0123") } else { serve(CONTENT, seen) })
            .await;
    let place = Place::new();
    let got = stub.client().download(place.download(1), &unobserved()).await.unwrap();
    assert_eq!(place.read("a").as_deref(), Some(CONTENT));
    assert_eq!(place.names(), ["a"]);
    let resumed = &stub.seen()[1];
    assert_eq!(resumed.header("range"), Some("bytes=4-"));
    assert_eq!(resumed.header("if-range"), Some(format!("\"{}\"", hex(CONTENT)).as_str()));
    assert_eq!(got.resumed_from, 0, "no earlier run was involved");
}

#[tokio::test]
async fn a_later_run_goes_on_where_an_earlier_one_stopped() {
    let stub =
        Stub::answering(|n, seen| if n == 0 { break_off(CONTENT, b"0123") } else { serve(CONTENT, seen) })
            .await;
    let place = Place::new();
    assert!(stub.client().download(place.download(0), &unobserved()).await.is_err());
    assert_eq!(place.names(), ["a.part", "a.part.json"]);
    assert_eq!(place.read("a.part").as_deref(), Some(b"0123".as_slice()));
    let got = stub.client().download(place.download(0), &unobserved()).await.unwrap();
    assert_eq!((got.resumed_from, got.verified), (4, true));
    assert_eq!(place.read("a").as_deref(), Some(CONTENT));
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_fetched_anew() {
    let other: &[u8] = b"another file";
    let stub =
        Stub::answering(move |n, seen| if n == 0 { break_off(CONTENT, b"0123") } else { serve(other, seen) })
            .await;
    let place = Place::new();
    let restarted = Arc::new(Mutex::new(0));
    let observer: Observer = {
        let restarted = Arc::clone(&restarted);
        Arc::new(move |event| {
            if let Event::StartedOver = event {
                *restarted.lock().unwrap() += 1;
            }
        })
    };
    let got = stub.client().download(place.download(1), &observer).await.unwrap();
    assert_eq!(place.read("a").as_deref(), Some(other));
    assert_eq!((got.resumed_from, *restarted.lock().unwrap()), (0, 1));
}

#[tokio::test]
async fn a_complete_part_is_only_verified() {
    let stub = Stub::answering(|n, seen| match n {
        0 => break_off(b"0123456789x", CONTENT),
        _ => serve(CONTENT, seen),
    })
    .await;
    // As if the process had been killed between the last byte and the new name.
    let place = Place::new();
    assert!(stub.client().download(place.download(0), &unobserved()).await.is_err());
    let state = String::from_utf8(place.read("a.part.json").unwrap()).unwrap();
    put(&place.at("a.part.json"), state.replace(&hex(b"0123456789x"), &hex(CONTENT)).as_bytes());
    let got = stub.client().download(place.download(0), &unobserved()).await.unwrap();
    assert_eq!((got.size, got.resumed_from), (10, 10));
    assert_eq!(stub.seen()[1].header("range"), Some("bytes=10-"));
    assert_eq!(place.names(), ["a"]);
}

#[tokio::test]
async fn a_part_of_unknown_origin_is_not_built_upon() {
    for state in [None, Some("{"), Some("{}")] {
        let stub = Stub::answering(|_, seen| serve(CONTENT, seen)).await;
        let place = Place::new();
        put(&place.at("a.part"), b"xx");
        if let Some(state) = state {
            put(&place.at("a.part.json"), state.as_bytes());
        }
        stub.client().download(place.download(0), &unobserved()).await.unwrap();
        assert_eq!(stub.seen()[0].header("range"), None);
        assert_eq!(place.read("a").as_deref(), Some(CONTENT));
        assert_eq!(place.names(), ["a"]);
    }
}

#[tokio::test]
async fn a_part_from_another_server_is_not_built_upon() {
    let first = Stub::answering(|_, _| break_off(CONTENT, b"0123")).await;
    let second = Stub::answering(|_, seen| serve(CONTENT, seen)).await;
    let place = Place::new();
    assert!(first.client().download(place.download(0), &unobserved()).await.is_err());
    second.client().download(place.download(0), &unobserved()).await.unwrap();
    assert_eq!(second.seen()[0].header("range"), None);
}

#[tokio::test]
async fn wrong_bytes_never_get_the_name() {
    let digest = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
    let stub = Stub::answering(move |_, _| answer(200, &[("repr-digest", digest)], CONTENT)).await;
    let place = Place::new();
    put(&place.at("a"), b"old");
    let error = stub.client().download(place.download(3), &unobserved()).await.unwrap_err();
    assert!(matches!(error, DownloadError::Mismatch { inherited: false, .. }), "{error}");
    assert_eq!(place.names(), ["a"]);
    assert_eq!(place.read("a").as_deref(), Some(b"old".as_slice()));
    assert_eq!(stub.seen().len(), 1, "the server's copy is damaged: no retry");
}

/// A power cut can leave a part of the right length with other bytes: fetching the rest again and again would not help.
#[tokio::test]
async fn a_part_that_was_damaged_on_disk_is_fetched_anew() {
    let stub =
        Stub::answering(|n, seen| if n == 0 { break_off(CONTENT, b"0123") } else { serve(CONTENT, seen) })
            .await;
    let place = Place::new();
    assert!(stub.client().download(place.download(0), &unobserved()).await.is_err());
    put(&place.at("a.part"), b"\0\0\0\0");
    let got = stub.client().download(place.download(1), &unobserved()).await.unwrap();
    assert_eq!(place.read("a").as_deref(), Some(CONTENT));
    assert_eq!(got.resumed_from, 0);
    let ranges: Vec<_> = stub.seen().iter().map(|seen| seen.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=4-".to_owned()), None]);
}

#[tokio::test]
async fn a_body_that_ends_early_is_no_file() {
    // Without a length, only the digest can tell.
    let etag = format!("\"{}\"", hex(CONTENT));
    let stub = Stub::answering(move |_, _| {
        answer(
            200,
            &[("etag", &etag)],
            axum::body::Body::from_stream(futures_util::stream::iter([Ok::<_, io::Error>(
                bytes::Bytes::from_static(b"0123"),
            )])),
        )
    })
    .await;
    let place = Place::new();
    let error = stub.client().download(place.download(0), &unobserved()).await.unwrap_err();
    assert!(matches!(error, DownloadError::Mismatch { .. }), "{error}");
    assert_eq!(place.names(), [""; 0]);
}

#[tokio::test]
async fn a_server_without_digests_is_believed_but_not_called_verified() {
    let stub = Stub::answering(|_, _| answer(200, &[("etag", "\"v1\"")], CONTENT)).await;
    let place = Place::new();
    let got = stub.client().download(place.download(0), &unobserved()).await.unwrap();
    assert!(!got.verified);
}

#[tokio::test]
async fn a_refusal_leaves_nothing_behind() {
    let body = r#"{"success":false,"error":"there is no file of that name","code":"not_found"}"#;
    let stub = Stub::answering(move |_, _| answer(404, &[], body)).await;
    let place = Place::new();
    let error = stub.client().download(place.download(3), &unobserved()).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no file of that name");
    assert_eq!(place.names(), [""; 0]);
    assert_eq!(stub.seen().len(), 1);
}

#[tokio::test]
async fn the_name_and_the_options_are_in_the_request() {
    let stub = Stub::answering(|_, seen| serve(CONTENT, seen)).await;
    let place = Place::new();
    let name: FileName = "100% ü#?.txt".parse().unwrap();
    let download = Download { decrypt: false, connections: 1, ..Download::to_file(name, place.at("x")) };
    stub.client().download(download, &unobserved()).await.unwrap();
    assert_eq!(stub.seen()[0].uri, "/download/100%25%20%C3%BC%23.txt?decrypt=false");
    assert_eq!(stub.seen()[0].header("accept-encoding"), Some("identity"));
}

/// Takes bytes into memory.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<u8>>>);

impl Write for Taken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn to_stream(taken: &Taken, retries: u32) -> Download {
    let to = Destination::Stream(Box::new(taken.clone()));
    Download { name: "a".parse().unwrap(), to, decrypt: true, retries: at_once(retries), connections: 1 }
}

#[tokio::test]
async fn a_stream_gets_every_byte_once_over_a_broken_connection() {
    let stub =
        Stub::answering(|n, seen| if n == 0 { break_off(CONTENT, b"0123") } else { serve(CONTENT, seen) })
            .await;
    let taken = Taken::default();
    let got = stub.client().download(to_stream(&taken, 1), &unobserved()).await.unwrap();
    assert_eq!(*taken.0.lock().unwrap(), CONTENT);
    assert_eq!((got.path, got.verified), (None, true));
}

#[tokio::test]
async fn a_stream_is_not_continued_with_another_file() {
    let stub =
        Stub::answering(
            |n, seen| {
                if n == 0 { break_off(CONTENT, b"0123") } else { serve(b"another file", seen) }
            },
        )
        .await;
    let taken = Taken::default();
    let error = stub.client().download(to_stream(&taken, 3), &unobserved()).await.unwrap_err();
    assert!(matches!(error, DownloadError::Changed), "{error}");
    assert_eq!(*taken.0.lock().unwrap(), b"0123");
}
