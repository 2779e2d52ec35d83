//! The client over a network that breaks at random: everything arrives, and is what was sent.
//!
//! The seed is printed; `SFT_FLAKY_SEED` repeats a run.

use std::time::Duration;

use futures_util::StreamExt as _;
use smart_file_transfer::client::{
    Chunked, Chunking, Client, Download, Retries, ServerUrl, Timeouts, Upload, unobserved,
};

use crate::support::flaky::{Flaky, Trouble};
use crate::support::random::Random;
use crate::support::{TestApp, content, sha256};

/// As patient as a person, and quicker.
const RETRIES: Retries = Retries { limit: 20, first_wait: Duration::from_millis(2) };
/// Shorter than a stall: the client itself has to notice it.
const IDLE: Duration = Duration::from_millis(300);
const STALL: Duration = Duration::from_millis(600);

async fn network(app: &TestApp, within: u64) -> (Flaky, Client, Random) {
    let seed = Random::seed("SFT_FLAKY_SEED");
    println!("SFT_FLAKY_SEED={seed}");
    let mut random = Random::new(seed);
    let trouble = Trouble { within, stall: STALL };
    let flaky = Flaky::before(app.address, trouble, random.fork()).await;
    let url = ServerUrl::parse(&flaky.address.to_string(), None).unwrap();
    let timeouts = Timeouts { idle: IDLE, answer: 10 * IDLE, ..Timeouts::default() };
    (flaky, Client::with_timeouts(url, None, timeouts).unwrap(), random)
}

fn write(directory: &tempfile::TempDir, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    use std::io::Write as _;
    let path = directory.path().join(name);
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all(bytes).unwrap();
    path
}

#[tokio::test]
async fn files_fetched_in_ranges_come_out_the_same() {
    let app = TestApp::start().await;
    let (flaky, client, _) = network(&app, 4 << 20).await;
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..6 {
        let bytes = content(9_000_000 + seed as usize, seed);
        let name = format!("{seed}.bin");
        let sealed = if seed % 2 == 0 { "true" } else { "false" };
        app.put_with(&name, &[("x-encryption", sealed)], bytes.clone()).await.expect(201);
        let to = directory.path().join(&name);
        let download = Download { retries: RETRIES, ..Download::to_file(name.parse().unwrap(), &to) };
        let got = client.download(download, &unobserved()).await.unwrap();
        assert!(got.verified && std::fs::read(&to).unwrap() == bytes, "{name}");
    }
    assert!(flaky.broken() >= 5, "{}", flaky.broken());
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 6, "nothing is left beside the files");
}

#[tokio::test]
async fn small_files_are_sent_until_they_are_there() {
    let app = TestApp::start().await;
    let (flaky, client, _) = network(&app, 200_000).await;
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..30 {
        let bytes = content(50_000, seed);
        let name = format!("{seed}.bin");
        let upload = Upload {
            retries: RETRIES,
            ..Upload::new(write(&directory, &name, &bytes), name.parse().unwrap())
        };
        let sent = client.upload(&upload, &unobserved()).await.unwrap();
        assert_eq!(sent.value.hash.to_string(), sha256(&bytes));
        assert!(app.download(&name).await == bytes, "{name}");
    }
    assert!(flaky.broken() >= 5, "{}", flaky.broken());
    app.nothing_is_left().await;
}

/// A hundred uploads, some at once, in many small chunks.
#[tokio::test]
async fn a_hundred_uploads_in_chunks_all_arrive() {
    let app = TestApp::with(&[("durability", "process")]).await;
    let (flaky, client, mut random) = network(&app, 200_000).await;
    let directory = tempfile::tempdir().unwrap();
    let uploads = (0..100).map(|seed| {
        // Up to 24 chunks.
        let bytes = content(random.within(1..400_000) as usize, seed);
        let name = format!("{seed}.bin");
        let path = write(&directory, &name, &bytes);
        let (client, app) = (&client, &app);
        async move {
            let chunking = Chunking { which: Chunked::Always, chunk_size: Some(16 << 10), connections: None };
            let upload = Upload {
                retries: RETRIES,
                chunking,
                encrypt: seed % 4 == 0,
                ..Upload::new(path, name.parse().unwrap())
            };
            let sent = client.upload(&upload, &unobserved()).await.unwrap();
            assert_eq!(sent.value.hash.to_string(), sha256(&bytes), "{name}");
            assert!(app.download(&name).await == bytes, "{name}");
        }
    });
    futures_util::stream::iter(uploads).buffer_unordered(8).collect::<Vec<()>>().await;
    println!("{} connections were broken", flaky.broken());
    assert!(flaky.broken() > 50, "{}", flaky.broken());
}
