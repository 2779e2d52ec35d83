//! `kill -9` at any moment: what was acknowledged is there and whole, and nothing else is.
//!
//! `SFT_CRASH_KILLS` sets the number of kills for each durability, `SFT_CRASH_SEED` the seed of everything that is
//! drawn. (What the machine does in between is not drawn: a seed makes a failure likely again, not certain.)

mod clients;
mod ledger;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use self::clients::Load;
use self::ledger::Ledger;
use crate::support::process::Process;
use crate::support::random::Random;

const KILLS: usize = 26;
const CLIENTS: usize = 6;
/// Every so many kills the content of all files is looked at, not only of those that were written to since.
const THOROUGHLY: usize = 25;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_a_kill_with_durability_power() {
    campaign("power").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_a_kill_with_durability_process() {
    campaign("process").await;
}

/// What a campaign has done, to be printed.
#[derive(Debug, Default)]
struct Figures {
    kills: usize,
    during_start: usize,
    during_stop: usize,
    attempts: usize,
    acknowledged: usize,
    adopted: usize,
    failed: usize,
    removed: usize,
    during_snapshot: usize,
    /// Rounds in which one was finished.
    snapshots: usize,
    checked: usize,
}

async fn campaign(durability: &str) {
    let kills = std::env::var("SFT_CRASH_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let seed = Random::seed("SFT_CRASH_SEED");
    println!("crash, DURABILITY={durability}: SFT_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let settings = [
        ("DURABILITY", durability),
        ("ENCRYPTION_KEY", "a key for the crash test"),
        // Snapshots are written all the time: they are small, and so may the journal be.
        ("HISTORY_LIMIT", "20"),
        ("JOURNAL_SIZE", "4KiB"),
        // The disk of a busy machine may be nearly full.
        ("MIN_FREE_SPACE", "0"),
        ("SHUTDOWN_GRACE", "1ms"),
    ];
    let begun = Instant::now();
    let mut figures = Figures::default();
    let mut ledger = Ledger::default();
    let mut before = 0;
    let (mut process, mut address) = Process::start(directory.path(), &settings).await;
    while figures.kills < kills {
        let load = Load::begin(address, &mut random, figures.kills, CLIENTS);
        let patience = if random.percent(20) { 20 } else { 350 };
        tokio::time::sleep(Duration::from_millis(random.within(0..patience))).await;
        if random.percent(25) {
            // A stop folds the journal into a snapshot: this is the moment to disturb it.
            process.signal(Signal::TERM);
            tokio::time::sleep(Duration::from_micros(random.within(0..30_000))).await;
            figures.during_stop += 1;
        }
        process.kill();
        figures.kills += 1;
        figures.during_snapshot += usize::from(in_the_middle(directory.path()));
        let attempts = load.ended().await;
        figures.attempts += attempts.len();
        figures.acknowledged += attempts.iter().filter(|attempt| attempt.is_acknowledged()).count();
        ledger.add(attempts);

        while random.percent(25) {
            let mut early = Process::spawn(directory.path(), &settings);
            tokio::time::sleep(Duration::from_micros(random.within(0..60_000))).await;
            early.kill();
            figures.kills += 1;
            figures.during_snapshot += usize::from(in_the_middle(directory.path()));
            figures.during_start += 1;
            figures.count_recovery(&early.log());
        }
        let half_written = ledger::half_written(directory.path());
        (process, address) = Process::start(directory.path(), &settings).await;
        figures.count_recovery(&process.log());
        let folded = snapshot(directory.path());
        figures.snapshots += usize::from(folded > before);
        before = folded;
        ledger::check_directory(directory.path(), &half_written);
        let thoroughly = figures.kills >= kills || random.percent(100 / THOROUGHLY as u64);
        figures.checked += ledger.check(directory.path(), address, thoroughly).await;
    }
    process.signal(Signal::TERM);
    assert!(process.ended().await.success(), "{}", process.log());
    println!("crash, DURABILITY={durability}: {figures:?} in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(figures.acknowledged > 0 && figures.checked > 0);
}

/// The number of the last change that the status file holds.
fn snapshot(directory: &Path) -> u64 {
    let Ok(text) = std::fs::read_to_string(directory.join("status.json")) else { return 0 };
    let snapshot: serde_json::Value = serde_json::from_str(&text).expect("a whole status file at any moment");
    snapshot["metadata"]["seq"].as_u64().expect("a number")
}

/// Whether a snapshot was being written at this moment.
fn in_the_middle(directory: &Path) -> bool {
    !ledger::half_written(directory).is_empty() || !directory.join("status.json.journal").exists()
}

impl Figures {
    /// Takes over what a start says it has mended.
    fn count_recovery(&mut self, log: &str) {
        assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
        assert!(!log.contains("is missing from the storage"), "{log}");
        let Some(line) = log.lines().find(|line| line.contains("status read")) else { return };
        let field = |name: &str| -> usize {
            let rest = line.split_once(&format!(" {name}=")).expect("a count").1;
            rest.split_whitespace().next().expect("a count").parse().expect("a count")
        };
        assert_eq!(field("foreign"), 0, "files of which nothing is recorded:\n{log}");
        self.adopted += field("adopted");
        self.failed += field("failed");
        self.removed += field("removed");
    }
}

/// The bytes that all contents are cut from; each begins with a tag of its own.
fn content(tag: &str, size: usize) -> Vec<u8> {
    static BASE: std::sync::LazyLock<Arc<Vec<u8>>> =
        std::sync::LazyLock::new(|| Arc::new(crate::support::content(8 << 20, 42)));
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&tag.as_bytes()[..tag.len().min(size)]);
    bytes.extend_from_slice(&BASE[..size - bytes.len()]);
    bytes
}
