//! A full disk: uploads are refused or given up with 507, nothing is left of them, and the server goes on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Body;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::disk::{KINDS, SmallDisk};
use crate::support::process::Process;
use crate::support::{Raw, content, http_client, sha256};

const MIB: u64 = 1 << 20;

/// Uploads a file; its answer's status and JSON.
async fn put(address: SocketAddr, name: &str, body: impl Into<Body>) -> (u16, Value) {
    let answer = http_client().put(format!("http://{address}/files/{name}")).body(body).send().await;
    let answer = answer.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[track_caller]
fn assert_full((status, answer): (u16, Value)) {
    assert_eq!((status, answer["code"].as_str()), (507, Some("storage_full")), "{answer}");
}

#[track_caller]
fn assert_stored((status, answer): (u16, Value)) {
    assert!(status == 201 || status == 200, "{status}: {answer}");
}

/// A body of so many bytes that does not say how long it is.
fn of_unknown_length_in_all(length: usize) -> Body {
    let piece = Ok::<_, std::io::Error>(content(length, 9));
    Body::wrap_stream(futures_util::stream::iter([piece]))
}

/// A body of `mib` MiB that does not say how long it is.
fn of_unknown_length(mib: usize) -> Body {
    let piece = bytes::Bytes::from(content(MIB as usize, 9));
    let pieces = std::iter::repeat_n(piece, mib).map(Ok::<_, std::io::Error>);
    Body::wrap_stream(futures_util::stream::iter(pieces))
}

async fn get(address: SocketAddr, path: &str) -> Value {
    let answer = http_client().get(format!("http://{address}{path}")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.expect("JSON")
}

async fn assert_failed(address: SocketAddr, name: &str) {
    let status = get(address, &format!("/status/{name}")).await;
    assert_eq!(status["status"], "failed", "{status}");
    assert!(!status["error"].as_str().unwrap_or_default().is_empty(), "{status}");
}

/// Whatever has a name is recorded, with what it is; nothing is left of uploads.
async fn assert_nothing_but_what_is_recorded(storage: &Path, address: SocketAddr) {
    let listed = get(address, "/files?limit=1000").await;
    let listed: Vec<_> = listed["files"].as_array().expect("a list").iter().collect();
    let mut names: Vec<_> =
        listed.iter().map(|file| file["filename"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    for file in listed {
        assert!(file["checksum"].is_string(), "nothing is known of {file}");
        let bytes =
            std::fs::read(storage.join(file["filename"].as_str().expect("a name"))).expect("the file");
        assert_eq!(file["checksum"], sha256(&bytes));
    }
    let on_disk = std::fs::read_dir(storage).expect("the storage directory");
    let mut on_disk: Vec<_> =
        on_disk.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    on_disk.retain(|name| name != ".sft");
    on_disk.sort();
    assert_eq!(on_disk, names);
    let left: Vec<_> = std::fs::read_dir(storage.join(".sft/uploads")).expect("uploads").collect();
    assert!(left.is_empty(), "left over: {left:?}");
}

/// Runs a test on each kind of file system that can be mounted.
async fn on_each<F: Future<Output = ()>>(mib: u64, test: impl Fn(SmallDisk) -> F) {
    for kind in KINDS {
        if let Some(disk) = SmallDisk::mount(kind, mib) {
            println!("{kind}");
            test(disk).await;
        }
    }
}

const NO_RESERVE: (&str, &str) = ("MIN_FREE_SPACE", "0");

#[tokio::test]
async fn a_length_that_has_no_room_is_refused_before_the_body_is_read() {
    on_each(32, |disk| async move {
        let (_server, address) = Process::start(disk.path(), &[NO_RESERVE]).await;
        let mut client = Raw::connect(address).await;
        // The body is never sent.
        client
            .send(format!("PUT /files/a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 64 * MIB))
            .await;
        let answer = client.answer().await;
        assert_full((answer.status, answer.json()));
        let mut client = Raw::connect(address).await;
        let head =
            format!("Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n", 64 * MIB);
        client.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{head}\r\n")).await;
        // A form's answer needs the head of its file.
        client.send("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n").await;
        let answer = client.answer().await;
        assert_full((answer.status, answer.json()));
        // Whoever sends everything before it reads sees the answer too.
        assert_full(put(address, "a", content(64 << 20, 1)).await);
        assert_stored(put(address, "b", "small").await);
        assert_nothing_but_what_is_recorded(&disk.path().join("storage"), address).await;
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_fills_up_in_the_middle_is_told_and_nothing_is_left() {
    on_each(32, |disk| async move {
        let (mut server, address) = Process::start(disk.path(), &[NO_RESERVE]).await;
        assert_stored(put(address, "kept", "whole").await);
        let free = disk.free();
        for _ in 0..3 {
            assert_full(put(address, "big", of_unknown_length(64)).await);
            assert_full(put(address, "kept", of_unknown_length(64)).await);
            assert_stored(put(address, "small", "small").await);
            assert_failed(address, "big").await;
            assert_failed(address, "kept").await;
        }
        assert_nothing_but_what_is_recorded(&disk.path().join("storage"), address).await;
        assert!(disk.free() + 2 * MIB > free, "{} of {free} bytes came back", disk.free());
        // What was done and what failed is known after a crash too.
        server.kill();
        let (_server, address) = Process::start(disk.path(), &[NO_RESERVE]).await;
        assert_failed(address, "big").await;
        assert_stored(put(address, "after", "after").await);
        assert_nothing_but_what_is_recorded(&disk.path().join("storage"), address).await;
        assert_eq!(std::fs::read(disk.path().join("storage/kept")).expect("the file"), b"whole");
    })
    .await;
}

/// Somebody else has taken the last byte.
#[tokio::test]
async fn a_server_goes_on_and_starts_on_a_disk_without_a_free_byte() {
    on_each(16, |disk| async move {
        let storage = disk.path().join("storage");
        let (mut server, address) = Process::start(disk.path(), &[NO_RESERVE]).await;
        assert_stored(put(address, "kept", "whole").await);
        disk.fill_but(0);
        for number in 0..20 {
            // Small and large ones go different ways.
            let length = MIB as usize / 2 * (number % 2) + 5000;
            // Of a length that is known, no transfer begins.
            assert_full(put(address, "kept", content(length, 1)).await);
            assert_full(put(address, &format!("refused-{number}"), of_unknown_length_in_all(length)).await);
        }
        assert_nothing_but_what_is_recorded(&storage, address).await;
        // Killed, it starts again, although there is no room to write anything.
        server.kill();
        let (mut server, address) = Process::start(disk.path(), &[NO_RESERVE]).await;
        assert_failed(address, "refused-3").await;
        assert_full(put(address, "refused", content(5000, 2)).await);
        let kept = http_client().get(format!("http://{address}/files/kept")).send().await.expect("an answer");
        assert_eq!(kept.bytes().await.expect("a body"), "whole");
        disk.empty();
        assert_stored(put(address, "refused", content(5000, 2)).await);
        assert_nothing_but_what_is_recorded(&storage, address).await;
        server.signal(Signal::TERM);
        assert!(server.ended().await.success(), "{}", server.log());
        let (_server, address) = Process::start(disk.path(), &[NO_RESERVE]).await;
        assert_nothing_but_what_is_recorded(&storage, address).await;
        assert_failed(address, "refused-0").await;
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_has_no_room_is_not_missed() {
    on_each(16, |disk| async move {
        let storage = disk.path().join("storage");
        let (mut server, address) = Process::start(disk.path(), &[NO_RESERVE]).await;
        // Many names with long texts: a snapshot of some size.
        let id = "i".repeat(256);
        let http = http_client();
        for number in 0..300 {
            let url = format!("http://{address}/files/{number}");
            let answer = http.put(url).header("X-Client-ID", &id).body("").send().await.expect("an answer");
            assert_eq!(answer.status(), 201);
        }
        disk.fill_but(0);
        server.signal(Signal::TERM);
        assert!(server.ended().await.success(), "{}", server.log());
        assert!(server.log().contains("ERROR"), "it must be told: {}", server.log());
        assert!(!disk.path().join("status.json.tmp").exists(), "half a snapshot is no use");
        // The journal holds everything.
        let (mut server, address) = Process::start(disk.path(), &[NO_RESERVE]).await;
        assert_eq!(get(address, "/files?limit=1").await["total_count"], 300);
        assert_nothing_but_what_is_recorded(&storage, address).await;
        server.kill();
        disk.empty();
        let (mut server, address) = Process::start(disk.path(), &[NO_RESERVE]).await;
        assert_stored(put(address, "300", "").await);
        server.signal(Signal::TERM);
        assert!(server.ended().await.success(), "{}", server.log());
        let (_server, address) = Process::start(disk.path(), &[NO_RESERVE]).await;
        assert_eq!(get(address, "/files?limit=1").await["total_count"], 301);
        assert_nothing_but_what_is_recorded(&storage, address).await;
    })
    .await;
}

/// Nothing takes its name that can't be written down.
#[tokio::test]
async fn a_status_file_on_a_full_disk_of_its_own_publishes_nothing() {
    on_each(16, |disk| async move {
        let directory = tempfile::tempdir().expect("a directory");
        let status = disk.path().join("status.json");
        let settings = [NO_RESERVE, ("LOG_FILE", status.to_str().expect("UTF-8"))];
        let (mut server, address) = Process::start(directory.path(), &settings).await;
        disk.fill_but(0);
        // Room that was set aside may still be used up.
        let mut stored = Vec::new();
        let mut refused = None;
        for number in 0..3000 {
            match put(address, &number.to_string(), "x").await {
                (507, answer) => {
                    refused = Some(answer);
                    break;
                }
                other => assert_stored(other),
            }
            stored.push(number.to_string());
        }
        assert_eq!(refused.expect("no room for so many")["code"], "storage_full");
        assert_nothing_but_what_is_recorded(&directory.path().join("storage"), address).await;
        server.kill();
        let (_server, address) = Process::start(directory.path(), &settings).await;
        assert_eq!(get(address, "/files?limit=1").await["total_count"], stored.len());
        assert_nothing_but_what_is_recorded(&directory.path().join("storage"), address).await;
        disk.empty();
        assert_stored(put(address, "after", "x").await);
    })
    .await;
}

/// The least that was free while it watched.
struct Watch {
    stop: Arc<AtomicBool>,
    least: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn begin(path: &Path) -> Self {
        let (stop, least) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(u64::MAX)));
        let (stopped, lowest, path) = (Arc::clone(&stop), Arc::clone(&least), path.to_owned());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let stat = rustix::fs::statvfs(&path).expect("its size");
                lowest.fetch_min(stat.f_bavail * stat.f_frsize, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self { stop, least, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("watched");
        self.least.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_space_that_is_to_stay_free_stays_free() {
    // Journals and directories take their part too.
    const SLACK: u64 = 2 * MIB;
    on_each(64, |disk| async move {
        let settings = [("MIN_FREE_SPACE", "32MiB")];
        let (_server, address) = Process::start(disk.path(), &settings).await;
        assert_stored(put(address, "small", "small").await);
        let watch = Watch::begin(disk.path());
        let too_much = (disk.free() - 31 * MIB) as usize;
        assert_full(put(address, "known", content(too_much, 1)).await);
        assert_full(put(address, "unknown", of_unknown_length(48)).await);
        // Each would fit, all together don't.
        let half = (disk.free() - 32 * MIB) as usize * 2 / 5;
        let uploads = (0..8).map(|number| {
            tokio::spawn(async move {
                let body: Body = if number % 2 == 0 {
                    content(half, number).into()
                } else {
                    of_unknown_length(half >> 20)
                };
                put(address, &format!("{number}"), body).await
            })
        });
        let mut stored = 0;
        for upload in uploads.collect::<Vec<_>>() {
            let answer = upload.await.expect("an answer");
            if answer.0 == 201 {
                stored += 1;
            } else {
                assert_full(answer);
            }
        }
        let least = watch.end();
        assert!(least + SLACK >= 32 * MIB, "only {least} bytes were free");
        assert!(stored <= 2, "{stored} were stored");
        assert_nothing_but_what_is_recorded(&disk.path().join("storage"), address).await;
        assert_stored(put(address, "small", "small again").await);
    })
    .await;
}
