//! What the status costs with 100, 10,000 and 1,000,000 transfers in it: a committed change (which must not depend on how
//! many there are), a snapshot, a start, and memory.
//!
//! `cargo bench --bench status`; a few minutes, and 2 GiB of disk under `TMPDIR`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench may panic")]

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use smart_file_transfer::domain::{
    Change, Client, Completion, Digest, Direction, FileName, Priority, Start, StoredFile, Timestamp,
    Transfer, TransferId,
};
use smart_file_transfer::store::status::{Limits, StatusStore};
use smart_file_transfer::store::{Durability, Layout};

const SIZES: [usize; 3] = [100, 10_000, 1_000_000];
/// Set for a child process that measures one size: memory can be read only in a process that has done nothing else.
const CHILD: &str = "SFT_BENCH_STATUS_FILE";

fn main() {
    if let Some(status) = std::env::var_os(CHILD) {
        return measure(Path::new(&status));
    }
    let dir = tempfile::tempdir().unwrap();
    for size in SIZES {
        write_status(&status_path(dir.path(), size), size);
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .sample_size(20)
        .configure_from_args();
    if std::env::args().any(|argument| argument == "--bench") {
        table(dir.path());
    }
    for size in SIZES {
        commits(&mut criterion, dir.path(), size);
    }
    criterion.final_summary();
}

fn status_path(dir: &Path, size: usize) -> std::path::PathBuf {
    dir.join(format!("{size}/status.json"))
}

fn layout(status: &Path) -> Layout {
    let layout = Layout::new(status.with_file_name("storage"), status.to_owned());
    layout.create().unwrap();
    layout
}

/// The journal's is the default of `JOURNAL_SIZE`.
fn limits(history: usize) -> Limits {
    Limits { history, journal: 1 << 20 }
}

fn start(number: usize, filename: &str) -> Start {
    Start {
        id: TransferId::new(),
        filename: FileName::clean(filename).unwrap(),
        direction: Direction::Upload,
        client: Client::new(
            format!("10.1.{}.{}", number / 256 % 256, number % 256),
            "python-requests/2.32.3",
            None,
        ),
        encryption: false,
        priority: Priority::default(),
        total_bytes: Some(1_048_817),
        at: Timestamp::now(),
    }
}

fn fail(id: TransferId) -> Change {
    Change::Failed {
        id,
        at: Timestamp::now(),
        error: "the client hung up".into(),
        transferred_bytes: 524_288,
    }
}

fn complete(start: &Start) -> Change {
    Change::Completed(Completion {
        id: start.id,
        at: Timestamp::now(),
        filename: start.filename.clone(),
        client: start.client.clone(),
        priority: start.priority,
        seal: None,
        checksum: Digest::new([0xa5; 32]),
        file: StoredFile { size: 1_048_576, modified: std::time::SystemTime::now().into() },
    })
}

/// A status file as the server writes it: of ten transfers seven stand, two have failed and one has been replaced.
fn write_status(path: &Path, size: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap();
    let mut file = BufWriter::new(file);
    let mut history = Vec::new();
    let mut comma = "";
    write!(file, "{{\n\"transfers\": {{").unwrap();
    for number in 0..size {
        let replaced = number % 10 == 9;
        let named = if replaced { number - 1 } else { number };
        let start = start(number, &format!("report-of-the-day-{named:07}.pdf"));
        let end = if number % 10 < 2 { fail(start.id) } else { complete(&start) };
        // Even numbers for what has been replaced, so that it comes before.
        let seq = if replaced { number * 2 - 4 } else { number * 2 + 1 } as u64;
        let begun = Change::Started(start).apply(None, seq).unwrap();
        let ended: Transfer = end.apply(Some(&begun), seq).unwrap();
        if replaced {
            history.push(ended);
            continue;
        }
        write!(file, "{comma}\n\"{}\": ", ended.filename).unwrap();
        serde_json::to_writer(&mut file, &ended).unwrap();
        comma = ",";
    }
    write!(file, "\n}},\n\"history\": ").unwrap();
    serde_json::to_writer(&mut file, &history).unwrap();
    writeln!(file, ",\n\"metadata\": {{\"version\": \"1.0\", \"seq\": {}}}\n}}", size * 2).unwrap();
    file.flush().unwrap();
}

/// A line of `/proc/self/status`, in bytes; 0 where there is none.
fn memory(what: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    line.and_then(|rest| rest.split_whitespace().nth(1)?.parse::<usize>().ok()).unwrap_or(0) * 1024
}

/// Everything but the changes, each once; printed as a row.
fn measure(status: &Path) {
    let layout = layout(status);
    let rss = memory("VmRSS");
    let (store, guard, opened) = StatusStore::open(&layout, Durability::Power, limits(usize::MAX)).unwrap();
    let (held, peak) = (memory("VmRSS") - rss, memory("VmHWM"));
    let count = store.name_count() + store.name_count() / 9;
    let change = start(0, "one-more.bin");
    store.note(Change::Started(change));
    let begun = Instant::now();
    drop(guard);
    let snapshot = begun.elapsed();
    let bytes = std::fs::metadata(status).unwrap().len();
    println!(
        "{count:>10} {:>10.1} ms {:>10.1} ms {:>10.2} MB {:>8} B {:>8} B {:>8.1} MB",
        opened.took.as_secs_f64() * 1e3,
        snapshot.as_secs_f64() * 1e3,
        bytes as f64 / 1e6,
        bytes / count as u64,
        held / count,
        peak as f64 / 1e6,
    );
}

fn table(dir: &Path) {
    println!(
        "{:>10} {:>13} {:>13} {:>13} {:>10} {:>10} {:>11}",
        "transfers", "start", "snapshot", "size", "each", "memory", "peak"
    );
    for size in SIZES {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = child.env(CHILD, status_path(dir, size)).status().unwrap();
        assert!(ended.success());
    }
}

fn commits(criterion: &mut Criterion, dir: &Path, size: usize) {
    let layout = layout(&status_path(dir, size));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (durability, name) in [(Durability::Process, "process"), (Durability::Power, "power")] {
        // As many as there are: each one that ends puts the oldest out.
        let (store, guard, _) = StatusStore::open(&layout, durability, limits(size * 3 / 10)).unwrap();
        let mut number = 0;
        let mut group = criterion.benchmark_group(format!("change/{name}"));
        // A begun transfer and its end, each committed and waited for: two changes.
        group.throughput(Throughput::Elements(2));
        group.bench_function(BenchmarkId::new("one at a time", size), |bencher| {
            bencher.iter(|| {
                number += 1;
                let start = start(number, &format!("file-{:04}.bin", number % 1000));
                let id = start.id;
                runtime.block_on(async {
                    store.commit(Change::Started(start), None).await.expect("it begins");
                    store.commit(fail(id), None).await.expect("it ends");
                });
            });
        });
        group.throughput(Throughput::Elements(2 * 64));
        group.bench_function(BenchmarkId::new("64 at a time", size), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let mut ids = Vec::new();
                    let begin = (0..64).map(|_| {
                        number += 1;
                        let start = start(number, &format!("file-{:04}.bin", number % 1000));
                        ids.push(start.id);
                        store.commit(Change::Started(start), None)
                    });
                    let begin = futures_util::future::join_all(begin.collect::<Vec<_>>());
                    assert!(begin.await.iter().all(Result::is_ok));
                    let end = ids.into_iter().map(|id| store.commit(fail(id), None));
                    assert!(futures_util::future::join_all(end).await.iter().all(Result::is_ok));
                });
            });
        });
        group.finish();
        drop(guard);
    }
}
