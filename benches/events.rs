//! Subscribers by the thousand while 50 uploads run, against the built server in a process of its own, on this machine.
//!
//! `cargo bench --bench events` or `… -- ws 1000`, `io 1000`, `throughput 1000`, `stalled 1000`. See `bench/README.md`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a load that can't go on panics"
)]

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BufMut as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const UPLOADS: usize = 50;
/// How long a paced upload takes, in steps of 100 ms.
const STEPS: usize = 50;
const PIECE: usize = 64 << 10;

struct Server {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_sft"))
            .args(["serve", "--server-host", "127.0.0.1", "--port", "0", "--durability", "process"])
            .args(["--max-connections", "30000", "--max-file-size", "1GiB"])
            .current_dir(directory.path())
            .envs(settings.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the server does not start");
            if let Some((_, rest)) = line.split_once("listening on http://") {
                break rest.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        std::thread::spawn(move || _ = std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address, _directory: directory }
    }

    /// Resident bytes now, or at most.
    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// Seconds of processor time.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Ws,
    Io,
}

/// What all subscribers have seen.
#[derive(Default)]
struct Seen {
    events: AtomicU64,
    bytes: AtomicU64,
    ends: AtomicUsize,
    snapshots: AtomicUsize,
    /// When each upload was asked for, and how long after that subscribers heard of it, in microseconds.
    asked: Mutex<Vec<Instant>>,
    latencies: Mutex<Vec<u32>>,
}

fn frame(text: &str) -> Vec<u8> {
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// Reads until this has come; a byte at a time, so that nothing after it is taken.
async fn wait_for(stream: &mut TcpStream, what: &[u8]) -> std::io::Result<()> {
    let mut seen = Vec::new();
    while !seen.ends_with(what) {
        assert!(
            stream.read_buf(&mut (&mut seen).limit(1)).await? > 0,
            "hung up: {}",
            String::from_utf8_lossy(&seen)
        );
    }
    Ok(())
}

/// A connection that has subscribed to all.
async fn subscribe(address: SocketAddr, kind: Kind, small: bool) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if small {
        socket.set_recv_buffer_size(4096)?;
    }
    let mut stream = socket.connect(address).await?;
    let path = if kind == Kind::Ws { "/ws" } else { "/socket.io/?EIO=4&transport=websocket" };
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    wait_for(&mut stream, b"\r\n\r\n").await?;
    if kind == Kind::Io {
        stream.write_all(&frame("40")).await?;
        wait_for(&mut stream, b"40{").await?;
        wait_for(&mut stream, b"}").await?;
    }
    let ask = if kind == Kind::Ws { r#"{"event":"subscribe_all"}"# } else { r#"42["subscribe_all"]"# };
    stream.write_all(&frame(ask)).await?;
    Ok(stream)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

/// Takes what comes and looks at nothing: a client on another machine would cost this one no more.
async fn swallow(mut stream: TcpStream, seen: Arc<Seen>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        seen.bytes.fetch_add(read as u64, Relaxed);
    }
}

/// Reads what comes, as cheaply as it can: the machine is the server's too.
async fn watch(mut stream: TcpStream, seen: Arc<Seen>) {
    let (mut buffer, mut start, mut end) = (vec![0; 64 << 10], 0, 0);
    let mut ends = HashSet::new();
    loop {
        if start > 0 && start == end {
            (start, end) = (0, 0);
        } else if end == buffer.len() {
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
            if end == buffer.len() {
                buffer.resize(end * 2, 0);
            }
        }
        match stream.read(&mut buffer[end..]).await {
            Ok(read @ 1..) => end += read,
            _ => return,
        }
        let now = Instant::now();
        while let Some((length, payload)) = parse(&buffer[start..end]) {
            let text = &buffer[start + payload..start + length];
            start += length;
            if text == b"2" {
                _ = stream.write_all(&frame("3")).await;
            }
            let head = &text[..text.len().min(40)];
            if find(head, b"status_update").is_some() {
                seen.snapshots.fetch_add(1, Relaxed);
            }
            if find(head, b"transfer_update").is_none() {
                continue;
            }
            seen.events.fetch_add(1, Relaxed);
            seen.bytes.fetch_add(length as u64, Relaxed);
            let Some(name) = find(text, b"\"load-") else { continue };
            let number: String =
                text[name + 6..].iter().take_while(|b| b.is_ascii_digit()).map(|b| *b as char).collect();
            let number: usize = number.parse().unwrap();
            if find(text, b"\"transferred_bytes\":0,").is_some() {
                let asked = seen.asked.lock().unwrap()[number];
                let micros = now.saturating_duration_since(asked).as_micros();
                seen.latencies.lock().unwrap().push(micros as u32);
            } else if find(text, b"\"status\":\"completed\"").is_some() && ends.insert(number) {
                seen.ends.fetch_add(1, Relaxed);
            }
        }
    }
}

/// The length of the first whole frame, and where its payload begins.
fn parse(bytes: &[u8]) -> Option<(usize, usize)> {
    let (length, head) = match *bytes.get(1)? {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize, 10),
        length => (usize::from(length), 2),
    };
    (bytes.len() >= head + length).then_some((head + length, head))
}

/// One upload; `pace`: a piece every 100 ms, else as fast as it goes.
async fn upload(address: SocketAddr, name: String, pieces: usize, pace: bool, asked: impl FnOnce()) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let piece = vec![7; PIECE];
    let length = pieces * PIECE;
    let head = format!(
        "PUT /files/{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    asked();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..pieces {
        if pace {
            tick.tick().await;
        }
        stream.write_all(&piece).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
}

/// Runs subscribers on a thread of their own, until the handle is dropped.
fn subscribers(address: SocketAddr, kind: Kind, count: usize, seen: &Arc<Seen>) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        for _ in 0..count {
            let stream = subscribe(address, kind, false).await.unwrap();
            runtime.spawn(watch(stream, Arc::clone(seen)));
        }
        while seen.snapshots.load(Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    runtime
}

fn load(kind: Kind, count: usize) {
    let server = Server::start(&[]);
    let idle = server.memory("VmRSS");
    let seen = Arc::new(Seen::default());
    seen.asked.lock().unwrap().resize(UPLOADS, Instant::now());
    let watching = subscribers(server.address, kind, count, &seen);
    let quiet = server.memory("VmRSS");
    let (cpu, begun) = (server.cpu(), Instant::now());
    let uploading = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    uploading.block_on(async {
        let mut uploads = tokio::task::JoinSet::new();
        for number in 0..UPLOADS {
            let (seen, address) = (Arc::clone(&seen), server.address);
            let asked = move || seen.asked.lock().unwrap()[number] = Instant::now();
            uploads.spawn(upload(address, format!("load-{number}.bin"), STEPS, true, asked));
        }
        uploads.join_all().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while seen.ends.load(Relaxed) < count * UPLOADS && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let elapsed = begun.elapsed().as_secs_f64();
    let events = seen.events.load(Relaxed);
    let mut latencies = std::mem::take(&mut *seen.latencies.lock().unwrap());
    latencies.sort_unstable();
    let quantile = |q: f64| {
        latencies
            .get(((latencies.len() as f64 - 1.0) * q) as usize)
            .map_or(0.0, |micros| f64::from(*micros) / 1e3)
    };
    println!(
        "{count} {}: {:.0} events/s delivered ({:.0} MB/s), from request to receipt p50 {:.1} ms, p99 {:.1} ms; ends seen {} of {}; \
         snapshots after a loss {}; server: {:.0} % of a core, {:.1} KB memory a subscriber at rest, {:.1} KB at most",
        if kind == Kind::Ws { "WebSocket" } else { "Socket.IO" },
        events as f64 / elapsed,
        seen.bytes.load(Relaxed) as f64 / elapsed / 1e6,
        quantile(0.5),
        quantile(0.99),
        seen.ends.load(Relaxed),
        count * UPLOADS,
        seen.snapshots.load(Relaxed) - count,
        (server.cpu() - cpu) / elapsed * 100.0,
        (quiet - idle) as f64 / 1e3 / count as f64,
        (server.memory("VmHWM") - idle) as f64 / 1e3 / count as f64,
    );
    watching.shutdown_background();
}

/// Uploads as fast as they go, with and without subscribers in turn.
fn throughput(kind: Kind, count: usize) {
    const PIECES: usize = 640;
    let server = Server::start(&[]);
    let uploading = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let round = |name: &str| {
        let begun = Instant::now();
        uploading.block_on(async {
            let mut uploads = tokio::task::JoinSet::new();
            for number in 0..UPLOADS {
                uploads.spawn(upload(server.address, format!("{name}-{number}.bin"), PIECES, false, || ()));
            }
            uploads.join_all().await;
        });
        (UPLOADS * PIECES * PIECE) as f64 / begun.elapsed().as_secs_f64() / 1e6
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for number in 0..5 {
        let alone = round("alone");
        let seen = Arc::new(Seen::default());
        let watching =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        watching.block_on(async {
            for _ in 0..count {
                let stream = subscribe(server.address, kind, false).await.unwrap();
                watching.spawn(swallow(stream, Arc::clone(&seen)));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        });
        let before = seen.bytes.load(Relaxed);
        let watched = round("watched");
        watching.shutdown_background();
        std::thread::sleep(Duration::from_millis(500));
        let told = (seen.bytes.load(Relaxed) - before) >> 20;
        println!("  round {number}: {alone:.0} MB/s alone, {watched:.0} MB/s watched ({told} MiB of events)");
        if number > 0 {
            without.push(alone);
            with.push(watched);
        }
    }
    for values in [&mut without, &mut with] {
        values.sort_unstable_by(f64::total_cmp);
    }
    let (without, with) = (without[without.len() / 2], with[with.len() / 2]);
    println!(
        "{UPLOADS} uploads of {} MiB: median {without:.0} MB/s alone, {with:.0} MB/s with {count} subscribers: {:.0} %",
        (PIECES * PIECE) >> 20,
        with / without * 100.0
    );
}

/// Subscribers that never read.
fn stalled(kind: Kind, count: usize) {
    let server = Server::start(&[("IDLE_TIMEOUT", "5s")]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let idle = server.memory("VmRSS");
    let before = server.descriptors();
    runtime.block_on(async {
        let mut silent = Vec::new();
        for _ in 0..count {
            silent.push(subscribe(server.address, kind, true).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        println!(
            "  {count} subscribed: {} MB, {} connections",
            server.memory("VmRSS") >> 20,
            server.descriptors() - before
        );
        let begun = Instant::now();
        let mut uploaded = 0;
        while server.descriptors() > before + UPLOADS + 5 && begun.elapsed() < Duration::from_secs(60) {
            let mut uploads = tokio::task::JoinSet::new();
            let second = Instant::now();
            while second.elapsed() < Duration::from_secs(2) {
                while uploads.len() < UPLOADS {
                    uploaded += 1;
                    uploads.spawn(upload(server.address, format!("small-{uploaded}.bin"), 1, false, || ()));
                }
                uploads.join_next().await;
            }
            uploads.join_all().await;
            println!(
                "  after {:.0} s: {} MB, {} connections, {uploaded} uploads",
                begun.elapsed().as_secs_f64(),
                server.memory("VmRSS") >> 20,
                server.descriptors() - before
            );
        }
        println!(
            "{count} that never read: {:.1} KB memory each at most, {} connections left after {:.0} s",
            server.memory("VmHWM").saturating_sub(idle) as f64 / 1e3 / count as f64,
            server.descriptors().saturating_sub(before),
            begun.elapsed().as_secs_f64()
        );
        drop(silent);
    });
}

fn main() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let count = |default| arguments.get(1).map_or(default, |count| count.parse().expect("a number"));
    match arguments.first().map(String::as_str) {
        Some("ws") => load(Kind::Ws, count(1000)),
        Some("io") => load(Kind::Io, count(1000)),
        Some("throughput") => throughput(Kind::Ws, count(1000)),
        Some("throughput-io") => throughput(Kind::Io, count(1000)),
        Some("stalled") => stalled(Kind::Ws, count(1000)),
        Some("stalled-io") => stalled(Kind::Io, count(1000)),
        _ => {
            load(Kind::Ws, 1000);
            load(Kind::Ws, 10_000);
            load(Kind::Io, 1000);
            throughput(Kind::Ws, 1000);
            stalled(Kind::Ws, 1000);
            stalled(Kind::Io, 1000);
        }
    }
}
