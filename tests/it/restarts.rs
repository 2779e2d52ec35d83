//! Stopping and starting: nothing that runs is torn, nothing that is damaged is overwritten.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Response;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::process::Process;
use crate::support::{Raw, content, http_client, sha256};

const MIB: usize = 1 << 20;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

async fn put(address: std::net::SocketAddr, name: &str, bytes: impl Into<reqwest::Body>) {
    let answer = http_client().put(format!("http://{address}/files/{name}")).body(bytes).send().await;
    answer.and_then(Response::error_for_status).expect("acknowledged");
}

async fn get(address: std::net::SocketAddr, path: &str) -> Response {
    let answer = http_client().get(format!("http://{address}{path}")).send().await;
    answer.and_then(Response::error_for_status).expect("an answer")
}

async fn status(address: std::net::SocketAddr, name: &str) -> Value {
    get(address, &format!("/status/{name}")).await.json().await.expect("JSON")
}

/// Starts a server that must not start: its exit status and what it said.
async fn refused(directory: &Path, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut server = Process::spawn(directory, settings);
    let code = server.ended().await.code();
    (code, server.log())
}

/// Everything below a directory but the locks, which name the process that tried.
fn tree(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if !path.ends_with("lock") && path.extension().is_none_or(|extension| extension != "lock")
            {
                let bytes = std::fs::read(&path).expect("a file");
                found.insert(path.to_str().expect("UTF-8").to_owned(), bytes);
            }
        }
    }
    found
}

fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path).expect("a file");
    file.write_all(bytes).expect("written");
}

async fn a_running_upload_ends_well(signal: Signal) {
    let directory = directory();
    let (mut server, address) = Process::start(directory.path(), &[]).await;
    let bytes = content(MIB, 3);
    let mut client = Raw::connect(address).await;
    client.begin_put("/files/a.bin", bytes.len()).await;
    client.send(&bytes[..MIB / 2]).await;
    server.signal(signal);
    server.logged("running transfers may finish").await;
    let late = http_client().get(format!("http://{address}/health")).send().await;
    assert!(late.is_err_and(|error| error.is_connect()), "a server that stops takes no more connections");
    client.send(&bytes[MIB / 2..]).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(answer.json()["hash"], sha256(&bytes));
    assert!(client.until_closed().await.is_empty());
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());

    // The journal has been folded into the snapshot: the status file alone says everything.
    let snapshot = std::fs::read(directory.path().join("status.json")).expect("a snapshot");
    let snapshot: Value = serde_json::from_slice(&snapshot).expect("JSON");
    assert_eq!(snapshot["transfers"]["a.bin"]["status"], "completed");
    let journal = std::fs::read_to_string(directory.path().join("status.json.journal")).expect("a journal");
    assert_eq!(journal.lines().count(), 1, "only its header is left: {journal}");
    assert_eq!(std::fs::read(directory.path().join("storage/a.bin")).expect("the file"), bytes);
}

#[tokio::test]
async fn a_running_upload_ends_well_after_sigterm() {
    a_running_upload_ends_well(Signal::TERM).await;
}

#[tokio::test]
async fn a_running_upload_ends_well_after_sigint() {
    a_running_upload_ends_well(Signal::INT).await;
}

#[tokio::test]
async fn a_running_download_ends_well() {
    let directory = directory();
    let (mut server, address) = Process::start(directory.path(), &[]).await;
    // More than the sockets' buffers can hold.
    let bytes = content(32 * MIB, 4);
    put(address, "a.bin", bytes.clone()).await;
    let mut client = Raw::connect(address).await;
    client.send_head("GET /files/a.bin", &[]).await;
    let head = client.head().await;
    server.signal(Signal::TERM);
    server.logged("running transfers may finish").await;
    assert!(head.status == 200 && client.take(bytes.len()).await == bytes);
    assert!(client.until_closed().await.is_empty());
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
}

#[tokio::test]
async fn connections_that_do_nothing_hold_nothing_up() {
    let directory = directory();
    let (mut server, address) = Process::start(directory.path(), &[]).await;
    let mut used = Raw::connect(address).await;
    used.send_head("GET /health", &[]).await;
    assert_eq!(used.answer().await.status, 200);
    let begun = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
    assert!(begun.elapsed() < Duration::from_secs(15), "the grace is 30 s; it took {:?}", begun.elapsed());
    assert!(used.until_closed().await.is_empty());
}

#[tokio::test]
async fn what_is_not_done_when_the_grace_is_over_has_failed() {
    let directory = directory();
    let (mut server, address) = Process::start(directory.path(), &[("SHUTDOWN_GRACE", "1")]).await;
    put(address, "kept.bin", "the one before").await;
    let bytes = content(MIB, 5);
    let mut clients = Vec::new();
    for name in ["large.bin", "kept.bin"] {
        let mut client = Raw::connect(address).await;
        client.begin_put(&format!("/files/{name}"), bytes.len()).await;
        client.send(&bytes[..MIB - 1]).await;
        clients.push(client);
    }
    let begun = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
    assert!(begun.elapsed() >= Duration::from_secs(1), "the grace was not kept");
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    for client in clients {
        assert!(client.until_closed().await.is_empty(), "half an upload was answered");
    }
    let (mut server, address) = Process::start(directory.path(), &[]).await;
    for name in ["large.bin", "kept.bin"] {
        let status = status(address, name).await;
        assert_eq!(status["status"], "failed", "{status}");
        assert!(!status["error"].as_str().unwrap_or_default().is_empty(), "{status}");
    }
    assert_eq!(get(address, "/files/kept.bin").await.bytes().await.expect("a body"), "the one before");
    let uploads = directory.path().join("storage/.sft/uploads");
    assert_eq!(std::fs::read_dir(uploads).expect("uploads").count(), 0);
    server.kill();
}

#[tokio::test]
async fn a_second_server_on_one_directory_is_refused_and_the_first_goes_on() {
    let directory = directory();
    let (first, address) = Process::start(directory.path(), &[]).await;
    put(address, "a", "1").await;
    let (code, said) = refused(directory.path(), &[]).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("in use by another server (process "), "{said}");
    put(address, "a", "2").await;
    assert_eq!(get(address, "/files/a").await.bytes().await.expect("a body"), "2");
    drop(first);
    // Killed, it holds nothing any more.
    let (_second, address) = Process::start(directory.path(), &[]).await;
    assert_eq!(get(address, "/files/a").await.bytes().await.expect("a body"), "2");
}

/// Two servers that write one journal would destroy it, wherever their files are.
#[tokio::test]
async fn a_second_server_with_the_same_status_file_is_refused() {
    let directory = directory();
    let (_first, address) = Process::start(directory.path(), &[]).await;
    let other = directory.path().join("other");
    let other = [("UPLOAD_DIR", other.to_str().expect("UTF-8"))];
    let (code, said) = refused(directory.path(), &other).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("status.json") && said.contains("in use by another server"), "{said}");
    put(address, "a", "1").await;
}

#[tokio::test]
async fn bad_settings_are_told_in_one_line() {
    for (setting, value, named) in [
        ("DURABILITY", "sometimes", "durability"),
        ("PORT", "65536", "port"),
        ("MAX_FILE_SIZE", "many", "max_file_size"),
        ("SHUTDOWN_GRACE", "-1", "shutdown_grace"),
        ("SFT_CONFIG", "missing.toml", "missing.toml"),
        ("AUTH", "all", "api_keys"),
    ] {
        let directory = directory();
        let (code, said) = refused(directory.path(), &[(setting, value)]).await;
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{setting}={value}: {said}");
        assert!(said.contains(named), "{setting}={value}: {said}");
        assert!(
            tree(directory.path()).is_empty(),
            "{setting}={value}: something was made before it was refused"
        );
    }
}

#[tokio::test]
async fn what_can_not_be_used_is_told_in_one_line() {
    let directory = directory();
    overwrite(&directory.path().join("file"), b"");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let below_a_file = directory.path().join("file/storage");
    for (setting, value, named) in [
        ("UPLOAD_DIR", below_a_file.to_str().expect("UTF-8"), "file"),
        ("PORT", &*port, "in use"),
        ("SERVER_HOST", "192.0.2.1", "192.0.2.1"),
        ("SERVER_LOG_FILE", "file/log", "server_log_file"),
    ] {
        let (code, said) = refused(directory.path(), &[(setting, value), ("LOG_LEVEL", "ERROR")]).await;
        assert_eq!((code, said.lines().count()), (Some(1), 1), "{setting}={value}: {said}");
        assert!(said.contains(named), "{setting}={value}: {said}");
    }
}

/// A directory that a server with two files has left, after two runs: there is a backup.
async fn used() -> tempfile::TempDir {
    let directory = directory();
    for name in ["first.txt", "second.txt"] {
        let (mut server, address) = Process::start(directory.path(), &[]).await;
        put(address, name, name).await;
        server.signal(Signal::TERM);
        assert!(server.ended().await.success(), "{}", server.log());
    }
    directory
}

async fn serves_both(directory: &Path) -> String {
    let (server, address) = Process::start(directory, &[]).await;
    for name in ["first.txt", "second.txt"] {
        let answer = get(address, &format!("/files/{name}")).await;
        assert_eq!(answer.headers()["etag"], format!("\"{}\"", sha256(name.as_bytes())), "{}", server.log());
        assert_eq!(status(address, name).await["status"], "completed");
    }
    server.log()
}

#[tokio::test]
async fn damage_that_can_not_be_mended_is_told_and_nothing_is_changed() {
    for damaged in ["status.json", "status.json.journal"] {
        let directory = used().await;
        let path = directory.path().join(damaged);
        if damaged == "status.json" {
            std::fs::remove_file(directory.path().join("status.json.backup")).expect("a backup");
        }
        let mut bytes = std::fs::read(&path).expect("the file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        overwrite(&path, &bytes);
        let before = tree(directory.path());
        let (code, said) = refused(directory.path(), &[]).await;
        assert_eq!((code, said.lines().count()), (Some(1), 1), "{damaged}: {said}");
        assert!(said.contains(path.to_str().expect("UTF-8")) && said.contains("damaged"), "{said}");
        assert_eq!(tree(directory.path()), before, "{damaged}: {said}");
    }
}

#[tokio::test]
async fn a_damaged_status_file_is_mended_from_its_backup_and_kept_to_look_at() {
    let directory = used().await;
    let path = directory.path().join("status.json");
    let mut bytes = std::fs::read(&path).expect("a snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    overwrite(&path, &bytes);
    let log = serves_both(directory.path()).await;
    assert!(log.contains("its backup was read in its place"), "{log}");
    assert_eq!(std::fs::read(directory.path().join("status.json.damaged")).expect("kept"), bytes);
}

/// `cp transfer_status.json.backup transfer_status.json`
#[tokio::test]
async fn a_backup_that_was_restored_by_hand_loses_nothing() {
    let directory = used().await;
    let backup = std::fs::read(directory.path().join("status.json.backup")).expect("a backup");
    overwrite(&directory.path().join("status.json"), &backup);
    let log = serves_both(directory.path()).await;
    assert!(!log.contains("WARN"), "{log}");
}

#[tokio::test]
async fn a_status_file_that_is_gone_is_read_from_its_backup() {
    let directory = used().await;
    std::fs::remove_file(directory.path().join("status.json")).expect("a snapshot");
    let log = serves_both(directory.path()).await;
    assert!(log.contains("its backup was read in its place"), "{log}");
}

#[tokio::test]
async fn a_server_that_is_stopped_while_it_starts_stops() {
    let directory = used().await;
    for delay in 0..5 {
        let mut server = Process::spawn(directory.path(), &[]);
        tokio::time::sleep(Duration::from_millis(3 * delay)).await;
        server.signal(Signal::TERM);
        // Before it can listen for signals, the system ends it.
        let ended = server.ended().await;
        assert!(ended.success() || ended.code().is_none(), "{ended}: {}", server.log());
    }
    serves_both(directory.path()).await;
}
