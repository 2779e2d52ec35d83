//! Downloads in ranges from a stub.

use std::sync::{Arc, LazyLock, Mutex};

use axum::body::Body;
use axum::response::Response;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::ranges::RANGE;
use super::*;
use crate::client::stub::{Seen, Stub, answer, at_once, broken_after};
use crate::client::unobserved;

fn bytes(seed: u64) -> Vec<u8> {
    // Five ranges, the last of them short.
    (0..4 * RANGE + 5).map(|n| ((n ^ (n >> 9)) + seed) as u8).collect()
}

static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| bytes(0));
static OTHER: LazyLock<Vec<u8>> = LazyLock::new(|| bytes(7));

fn etag(content: &[u8]) -> String {
    format!("\"{}\"", Digest::new(Sha256::digest(content).into()))
}

/// The range that a request asks for, if what it is to be of is there.
fn asked(seen: &Seen, tag: &str, total: usize) -> Option<(usize, usize)> {
    let range =
        seen.header("range").filter(|_| seen.header("if-range").is_none_or(|if_range| if_range == tag));
    let (first, last) = range?.strip_prefix("bytes=")?.split_once('-')?;
    let end = last.parse::<usize>().map_or(total, |last| total.min(last + 1));
    Some((first.parse().ok()?, end))
}

/// Answers as the contract says, with a body that may be another one.
fn serve(content: &'static [u8], seen: &Seen, body: impl Fn(&'static [u8]) -> Body) -> Response {
    let tag = etag(content);
    match asked(seen, &tag, content.len()) {
        None => answer(200, &[("etag", &tag)], body(content)),
        Some((first, _)) if first >= content.len() => {
            answer(416, &[("content-range", &format!("bytes */{}", content.len()))], "{}")
        }
        Some((first, end)) => {
            let range = format!("bytes {first}-{}/{}", end - 1, content.len());
            let length = (end - first).to_string();
            let headers = [("etag", tag.as_str()), ("content-range", &range), ("content-length", &length)];
            answer(206, &headers, body(&content[first..end]))
        }
    }
}

fn whole(seen: &Seen) -> Response {
    serve(&CONTENT, seen, Body::from)
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn download(&self, retries: u32) -> Download {
        Download { retries: at_once(retries), ..Download::to_file("a".parse().unwrap(), self.at("a")) }
    }

    /// Whether it has become this file, and nothing else is left.
    fn holds(&self, content: &[u8]) -> bool {
        std::fs::read(self.at("a")).unwrap() == content && std::fs::read_dir(&self.0).unwrap().count() == 1
    }
}

/// The ranges that were asked for, in their order in the file.
fn ranges(stub: &Stub) -> Vec<(String, bool)> {
    let mut ranges: Vec<_> = stub
        .seen()
        .iter()
        .map(|seen| (seen.header("range").unwrap_or("all").to_owned(), seen.header("if-range").is_some()))
        .collect();
    ranges.sort_by_key(|(range, _)| range[6..].split('-').next().and_then(|first| first.parse::<u64>().ok()));
    ranges
}

#[tokio::test]
async fn a_large_file_comes_in_ranges_of_one_version() {
    let stub = Stub::answering(|_, seen| whole(seen)).await;
    let place = Place::new();
    let got = stub.client().download(place.download(0), &unobserved()).await.unwrap();
    assert!(place.holds(&CONTENT));
    assert_eq!((got.size, got.verified), (CONTENT.len() as u64, true));
    let expected = [
        ("bytes=0-4194303", false),
        ("bytes=4194304-8388607", true),
        ("bytes=8388608-12582911", true),
        ("bytes=12582912-16777215", true),
        ("bytes=16777216-16777220", true),
    ];
    assert_eq!(ranges(&stub), expected.map(|(range, conditional)| (range.to_owned(), conditional)));
}

#[tokio::test]
async fn one_connection_asks_once() {
    let stub = Stub::answering(|_, seen| whole(seen)).await;
    let place = Place::new();
    let download = Download { connections: 1, ..place.download(0) };
    stub.client().download(download, &unobserved()).await.unwrap();
    assert!(place.holds(&CONTENT));
    assert_eq!(stub.seen().len(), 1);
    assert_eq!(stub.seen()[0].header("range"), None);
}

#[tokio::test]
async fn small_and_empty_files_take_one_or_two_requests() {
    for (content, requests) in [(&b"0123456789"[..], 1), (b"", 2)] {
        let stub = Stub::answering(move |_, seen| serve(content, seen, Body::from)).await;
        let place = Place::new();
        let got = stub.client().download(place.download(0), &unobserved()).await.unwrap();
        assert!(place.holds(content) && got.verified);
        assert_eq!(stub.seen().len(), requests);
    }
}

/// Ranges that can't be asked for, or not of the same version for sure.
#[tokio::test]
async fn a_server_that_cannot_be_asked_for_ranges_is_asked_for_the_whole() {
    for (ranges, tag, requests) in [(false, Some("\"v1\""), 1), (true, None, 2), (true, Some("W/\"v1\""), 2)]
    {
        let stub = Stub::answering(move |_, seen| {
            let mut headers: Vec<(&str, &str)> = tag.map(|tag| ("etag", tag)).into_iter().collect();
            let total = CONTENT.len();
            match asked(seen, "", total).filter(|_| ranges) {
                None => answer(200, &headers, &CONTENT[..]),
                Some((first, end)) => {
                    let range = format!("bytes {first}-{}/{total}", end - 1);
                    headers.push(("content-range", &range));
                    answer(206, &headers, &CONTENT[first..end])
                }
            }
        })
        .await;
        let place = Place::new();
        stub.client().download(place.download(0), &unobserved()).await.unwrap();
        assert!(place.holds(&CONTENT));
        assert_eq!(stub.seen().len(), requests);
    }
}

#[tokio::test]
async fn a_range_that_breaks_is_gone_on_with_and_the_others_are_not_disturbed() {
    let broken = Mutex::new(0);
    let stub = Stub::answering(move |_, seen| {
        let second = seen.header("range") == Some("bytes=4194304-8388607");
        if second && std::mem::replace(&mut *broken.lock().unwrap(), 1) == 0 {
            return serve(&CONTENT, seen, |range| broken_after(&range[..100_000]));
        }
        whole(seen)
    })
    .await;
    let place = Place::new();
    stub.client().download(place.download(1), &unobserved()).await.unwrap();
    assert!(place.holds(&CONTENT));
    let again = ranges(&stub)[2].0.clone();
    assert!(again.ends_with("-8388607") && *again > *"bytes=4194304-", "{again}");
    assert_eq!(stub.seen().len(), 6);
}

/// Whatever is ahead when a run fails, what stays is the beginning of the file.
#[tokio::test]
async fn a_run_that_fails_leaves_the_beginning_for_the_next() {
    let bad = Arc::new(Mutex::new(true));
    let script = Arc::clone(&bad);
    let stub = Stub::answering(move |_, seen| {
        if *script.lock().unwrap() && seen.header("range").is_some_and(|range| range.ends_with("-8388607")) {
            return answer(500, &[], "");
        }
        whole(seen)
    })
    .await;
    let place = Place::new();
    let error = stub.client().download(place.download(2), &unobserved()).await.unwrap_err();
    assert!(matches!(&error, DownloadError::Exchange(Error::Refused(r)) if r.status == 500), "{error}");
    let tries = ranges(&stub).iter().filter(|(range, _)| range.ends_with("-8388607")).count();
    assert_eq!(tries, 3, "not three times three");
    let part = std::fs::read(place.at("a.part")).unwrap();
    assert_eq!(part, CONTENT[..RANGE as usize]);

    *bad.lock().unwrap() = false;
    let got = stub.client().download(place.download(0), &unobserved()).await.unwrap();
    assert_eq!(got.resumed_from, RANGE);
    assert!(place.holds(&CONTENT));
}

#[tokio::test]
async fn a_run_that_is_dropped_leaves_the_beginning_for_the_next() {
    let stub = Stub::answering(|_, seen| {
        let last = seen.header("range").is_some_and(|range| range.starts_with("bytes=8388608-"));
        if last && seen.header("if-range").is_some() {
            // The third range never comes, those behind it do.
            return serve(&CONTENT, seen, |_| {
                Body::from_stream(futures_util::stream::pending::<io::Result<bytes::Bytes>>())
            });
        }
        whole(seen)
    })
    .await;
    let place = Place::new();
    let received = Arc::new(tokio::sync::Semaphore::new(0));
    let observer: Observer = {
        let received = Arc::clone(&received);
        Arc::new(move |event| {
            if let Event::Advanced(bytes) = event {
                received.add_permits(bytes as usize);
            }
        })
    };
    let client = stub.client();
    tokio::select! {
        _ = client.download(place.download(0), &observer) => panic!("it can't end"),
        _ = received.acquire_many(2 * RANGE as u32) => (),
    }
    let part = std::fs::read(place.at("a.part")).unwrap();
    assert_eq!(part, CONTENT[..2 * RANGE as usize]);

    let fine = Stub::answering(|_, seen| whole(seen)).await;
    // The same file from elsewhere is another one: the state says so.
    let state = std::fs::read_to_string(place.at("a.part.json")).unwrap();
    let state = state.replace(&stub.url().to_string(), &fine.url().to_string());
    let mut file =
        std::fs::OpenOptions::new().write(true).truncate(true).open(place.at("a.part.json")).unwrap();
    file.write_all(state.as_bytes()).unwrap();
    let got = loop {
        match fine.client().download(place.download(0), &unobserved()).await {
            // The thread that writes for the first run lets go of the file as soon as it notices that nothing comes any more.
            Err(DownloadError::Busy(_)) => tokio::task::yield_now().await,
            got => break got.unwrap(),
        }
    };
    assert_eq!(got.resumed_from, 2 * RANGE);
    assert_eq!(fine.seen()[0].header("range"), Some("bytes=8388608-12582911"));
    assert!(place.holds(&CONTENT));
}

#[tokio::test]
async fn a_file_that_is_replaced_on_the_way_is_fetched_anew() {
    let stub = Stub::answering(|_, seen| {
        let content: &[u8] = match seen.header("range") {
            Some(range) if range.starts_with("bytes=0-") || range.starts_with("bytes=4194304-") => &CONTENT,
            _ => &OTHER,
        };
        serve(content, seen, Body::from)
    })
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
    stub.client().download(place.download(0), &observer).await.unwrap();
    assert!(place.holds(&OTHER));
    assert_eq!(*restarted.lock().unwrap(), 1);
}

#[tokio::test]
async fn ranges_of_other_bytes_never_get_the_name() {
    let stub = Stub::answering(|_, seen| {
        let tag = etag(&CONTENT);
        let mut response = serve(&OTHER, seen, Body::from);
        if let Some((first, end)) = asked(seen, &tag, OTHER.len()) {
            let range = format!("bytes {first}-{}/{}", end - 1, OTHER.len());
            response = answer(206, &[("content-range", &range)], &OTHER[first..end]);
        }
        response.headers_mut().insert("etag", tag.parse().unwrap());
        response
    })
    .await;
    let place = Place::new();
    let error = stub.client().download(place.download(0), &unobserved()).await.unwrap_err();
    assert!(matches!(error, DownloadError::Mismatch { inherited: false, .. }), "{error}");
    assert_eq!(std::fs::read_dir(&place.0).unwrap().count(), 0);
}

/// More bytes than a range has would stand where the next range begins.
#[tokio::test]
async fn a_server_that_sends_more_than_it_says_is_refused() {
    let stub = Stub::answering(|_, seen| {
        let tag = etag(&CONTENT);
        let Some((first, end)) = asked(seen, &tag, CONTENT.len()) else { return whole(seen) };
        let range = format!("bytes {first}-{}/{}", end - 1, CONTENT.len());
        let headers = [("etag", tag.as_str()), ("content-range", &range)];
        answer(206, &headers, Body::from([&CONTENT[first..end], b"more"].concat()))
    })
    .await;
    let place = Place::new();
    let error = stub.client().download(place.download(0), &unobserved()).await.unwrap_err();
    assert!(matches!(&error, DownloadError::Exchange(Error::Unexpected { .. })), "{error}");
}

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

#[tokio::test]
async fn a_stream_gets_the_ranges_in_their_order() {
    let stub = Stub::answering(|_, seen| whole(seen)).await;
    let taken = Taken::default();
    let to = Destination::Stream(Box::new(taken.clone()));
    let name = "a".parse().unwrap();
    let download = Download { name, to, decrypt: true, retries: at_once(0), connections: 8 };
    stub.client().download(download, &unobserved()).await.unwrap();
    assert!(*taken.0.lock().unwrap() == *CONTENT);
    assert_eq!(stub.seen().len(), 5);
}
