//! The scrub: `SCRUB_INTERVAL`.

use std::time::Duration;

use bytes::Bytes;
use smart_file_transfer::app::storage;
use smart_file_transfer::config::{Flags, Settings};
use smart_file_transfer::domain::{Client, FileName, Priority};
use smart_file_transfer::services::downloads::Downloads;
use smart_file_transfer::services::scrub::{Pass, Scrub};
use smart_file_transfer::services::storage::Storage;
use smart_file_transfer::services::uploads::{Beginning, Ending, Sealing, Uploads};
use smart_file_transfer::store::status::Condition;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{Stopped, TestApp, content, when_free};

const KEY: (&str, &str) = ("encryption_key", "DevKey1234567890");
const MIB: usize = 1 << 20;

/// What a server leaves that has taken these files, of which those named `sealed…` are sealed.
async fn left(files: &[(&str, &[u8])]) -> Stopped {
    let app = TestApp::with(&[KEY]).await;
    for (name, bytes) in files {
        let query = if name.starts_with("sealed") { "?encryption=true" } else { "" };
        app.put(&format!("{name}{query}"), bytes.to_vec()).await.expect(201);
    }
    app.stop().await
}

/// Turns a bit of what stands under a name around.
fn damage(left: &Stopped, name: &str, at: usize) {
    use std::io::Write as _;
    let storage = left.directory().join("storage");
    let container = storage.join(".sft/encrypted").join(name);
    let path = if container.exists() { container } else { storage.join(name) };
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
    file.write_all(&bytes).unwrap();
}

/// The storage, held by the test itself.
async fn take(left: &Stopped) -> (Storage, impl Sized) {
    let mut flags = Flags::default();
    flags.set("upload_dir", left.directory().join("storage").to_str().unwrap());
    flags.set("log_file", left.directory().join("status.json").to_str().unwrap());
    flags.set(KEY.0, KEY.1);
    let settings = Settings::load(&flags, |_| None).unwrap();
    let (storage, held, opened) = when_free(async || storage::take(&settings)).await;
    storage::mend(&settings, &storage, &opened).await.unwrap();
    (storage, held)
}

fn name(name: &str) -> FileName {
    FileName::clean(name).unwrap()
}

#[tokio::test]
async fn a_running_server_finds_what_was_damaged_and_says_so() {
    let files: [(&str, &[u8]); 4] = [
        ("good", &content(2 * MIB + 1, 1)),
        ("flipped", b"abc"),
        ("sealed-good", &content(2 * MIB + 1, 2)),
        ("sealed-flipped", &content(2 * MIB, 3)),
    ];
    let left = left(&files).await;
    let app = TestApp::on(left.directory(), &[KEY, ("scrub_interval", "1h")]).await;
    // Nothing is damaged yet, and nothing is told.
    app.stop().await;
    damage(&left, "sealed-flipped", MIB);
    let app = TestApp::on(left.directory(), &[KEY, ("scrub_interval", "1h")]).await;
    let failed = app.status_becomes("sealed-flipped", |status| status["status"] == "failed").await;
    assert!(failed["error"].as_str().unwrap().contains("damaged or has been tampered with"), "{failed}");
    for name in ["good", "sealed-good", "flipped"] {
        assert_eq!(app.status(name).await["status"], "completed", "{name}");
    }
    assert_eq!(app.download("sealed-good").await, files[2].1);
    // What is replaced is whole again.
    app.put("sealed-flipped?encryption=true", "new").await.expect(200);
    assert_eq!(app.status("sealed-flipped").await["status"], "completed");
    app.stop().await;
}

#[tokio::test]
async fn without_an_interval_nothing_is_read() {
    let left = left(&[("sealed", b"abc")]).await;
    damage(&left, "sealed", 60);
    let app = TestApp::on(left.directory(), &[KEY]).await;
    assert_eq!(app.status("sealed").await["status"], "completed");
    app.get("/download/sealed").await.expect(500);
}

#[tokio::test]
async fn a_pass_tells_each_kind_apart_and_keeps_to_its_rate() {
    let files: [(&str, &[u8]); 7] = [
        ("empty", b""),
        ("flipped", b"abc"),
        ("gone", b"x"),
        ("plain", &content(3 * MIB, 1)),
        ("sealed", &content(2 * MIB, 2)),
        ("sealed-empty", b""),
        ("sealed-gone", b"x"),
    ];
    let left = left(&files).await;
    let (storage, _held) = take(&left).await;
    // After the start: what was changed before is not vouched for, and not looked at.
    damage(&left, "flipped", 1);
    std::fs::remove_file(storage.layout.file(&name("gone"))).unwrap();
    std::fs::remove_file(storage.layout.sealed(&name("sealed-gone"))).unwrap();
    tokio::time::pause();
    let began = Instant::now();
    let pass = Scrub::new(&storage, MIB as u64).pass().await;
    let took = began.elapsed();
    assert_eq!(pass, Pass { good: 4, damaged: 3, unknown: 0, bytes: 5 * MIB as u64 + 3 });
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(6), "{took:?}");
    storage.status.settled().await;
    for (damaged, why) in [("flipped", "SHA-256"), ("gone", "missing"), ("sealed-gone", "missing")] {
        let error = storage.status.current(&name(damaged)).unwrap().error.clone().expect("why");
        assert!(error.contains(why), "{damaged}: {error}");
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_read_is_not_damaged() {
    for file in ["plain", "sealed"] {
        let left = left(&[(file, &content(3 * MIB, 1))]).await;
        let (storage, _held) = take(&left).await;
        // In what is read last, but not in the last segment, with which a container is opened.
        damage(&left, file, 5 * MIB / 2);
        tokio::time::pause();
        // A byte a second: after the first piece it waits for days.
        let scrub = Scrub::new(&storage, 1);
        let mut pass = std::pin::pin!(scrub.pass());
        timeout(Duration::from_secs(1), &mut pass).await.unwrap_err();
        replace(&storage, file, file == "sealed", b"another one").await;
        let pass = pass.await;
        assert_eq!((pass.good, pass.damaged), (0, 0), "{file}");
        storage.status.settled().await;
        assert!(storage.status.current(&name(file)).unwrap().error.is_none());
        assert_eq!(Scrub::new(&storage, 1).pass().await.good, 1);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn passes_begin_at_intervals_each_tells_once_and_all_ends_at_once() {
    let left = left(&[("large", &content(2 * MIB, 1)), ("flipped", b"abc")]).await;
    let (storage, _held) = take(&left).await;
    damage(&left, "flipped", 1);
    let current = || storage.status.current(&name("flipped")).unwrap();
    let is_found = || current().error.as_ref().is_some_and(|error| error.contains("SHA-256"));
    tokio::time::pause();
    let stop = CancellationToken::new();
    let began = Instant::now();
    let run = tokio::spawn(Scrub::new(&storage, MIB as u64).run(Duration::from_secs(60), stop.clone()));
    for minute in 0..3 {
        while !is_found() {
            storage.status.settled().await;
        }
        assert!(began.elapsed() >= Duration::from_secs(60 * minute), "{minute}: {:?}", began.elapsed());
        // It is told of once, until something else is said.
        let Storage { files, status, keys, .. } = storage.clone();
        let client = Client::new("", "test", None);
        Downloads::new(files, status, keys).record_damage(&name("flipped"), client, "something else");
        while is_found() {
            // Not by waiting, during which the clock would go on.
            std::thread::yield_now();
        }
    }
    stop.cancel();
    let stopping = Instant::now();
    run.await.unwrap();
    assert_eq!(stopping.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_server_that_scrubs_slowly_stops_at_once() {
    let left = left(&[("large", &content(2 * MIB, 1))]).await;
    let app = TestApp::on(left.directory(), &[("scrub_interval", "1ms"), ("scrub_rate", "1")]).await;
    assert_eq!(app.download("large").await.len(), 2 * MIB);
    app.stop().await;
}

/// Uploads a file in the place of another.
async fn replace(storage: &Storage, filename: &str, sealed: bool, bytes: &'static [u8]) {
    let Storage { layout, status, keys, space, durability, .. } = storage.clone();
    let uploads = Uploads::new(layout, status, space, keys, Sealing::Optional, 1 << 30, durability);
    let (client, priority) = (Client::new("::1", "test", None), Priority::default());
    let beginning = Beginning {
        filename: name(filename),
        client: client.clone(),
        priority,
        encryption: Some(sealed),
        may_change: false,
        size: None,
        at_most: None,
    };
    let mut upload = uploads.begin(beginning).await.unwrap();
    upload.push(Bytes::from_static(bytes)).await.unwrap();
    let ending = Ending {
        filename: name(filename),
        client,
        priority,
        encryption: Some(sealed),
        sha256: None,
        condition: Condition::Any,
    };
    upload.finish(ending).await.unwrap();
}
