//! Large files in chunks, by the binary that users run, against the real server.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use super::harness::{Home, Limits, Proxy, UNLIMITED};
use crate::support::{FOR_EVER, TestApp, content, sha256};

#[tokio::test]
async fn a_large_file_goes_in_chunks_and_comes_back_the_same() {
    let app = TestApp::start().await;
    let bytes = content(12_000_001, 1);
    let home = Home::with(&[("a.bin", &bytes), ("small", b"x")]);
    for (arguments, encrypted) in [
        (&["upload", "a.bin", "--json"][..], false),
        (&["upload", "a.bin", "--json", "--encrypt", "--chunk-size", "1MiB"], true),
        (&["upload", "a.bin", "--json", "--chunked", "--chunk-size", "1048576"], false),
    ] {
        let up = home.sft(app.address, arguments).await.succeeded().json();
        assert_eq!((&up["hash"], &up["size"]), (&sha256(&bytes).into(), &12_000_001.into()), "{up}");
        assert_eq!((&up["status"], &up["encryption"]), (&"completed".into(), &encrypted.into()));
        assert!(up["chunks_received"].as_u64().unwrap() > 1, "{up}");
        assert!(app.download("a.bin").await == bytes);
    }
    let up = home.sft(app.address, &["upload", "small", "--chunked", "--json"]).await.succeeded().json();
    assert_eq!((&up["hash"], &up["chunks_received"]), (&sha256(b"x").into(), &1.into()));
    app.nothing_is_left().await;
}

/// More than one request may bring.
#[tokio::test]
async fn a_file_larger_than_a_request_may_be_goes_in_chunks_that_fit() {
    let app = TestApp::with(&[("max_file_size", "1000000")]).await;
    let bytes = content(8_000_000, 2);
    let home = Home::with(&[("a.bin", &bytes)]);
    home.sft(app.address, &["upload", "a.bin", "--chunk-size", "4MiB"]).await.succeeded();
    assert!(app.download("a.bin").await == bytes);
    home.sft(app.address, &["upload", "a.bin", "--whole"]).await.failed(1);
}

#[cfg(unix)]
#[tokio::test]
async fn an_interrupted_upload_says_how_to_go_on_and_does() {
    let app = TestApp::start().await;
    let bytes = content(12 << 20, 3);
    let home = Home::with(&[("a.bin", &bytes)]);
    let proxy = Proxy::before(app.address, Limits { up: 5 << 20, stall: true, ..UNLIMITED }).await;
    let arguments = &["upload", "a.bin", "--chunk-size", "1MiB", "--connections", "1"];
    let child =
        home.command(proxy.address, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    proxy.spent.notified().await;
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr, "error: interrupted\nhint: run the same command again to resume\n");

    let resumed = home.sft(proxy.address, &["upload", "a.bin"]).await.succeeded();
    assert!(resumed.stderr.starts_with("resuming: 4 of 12 chunks are there\n"), "{}", resumed.stderr);
    assert!(app.download("a.bin").await == bytes);
}

/// `kill -9` leaves no time to say anything.
#[tokio::test]
async fn a_killed_upload_of_a_file_that_changed_since_begins_anew() {
    let app = TestApp::start().await;
    let mut bytes = content(12 << 20, 4);
    let home = Home::with(&[("a.bin", &bytes)]);
    let proxy = Proxy::before(app.address, Limits { up: 5 << 20, stall: true, ..UNLIMITED }).await;
    let arguments = &["upload", "a.bin", "--chunk-size", "1MiB", "--connections", "1"];
    let mut child =
        home.command(proxy.address, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    proxy.spent.notified().await;
    child.kill().unwrap();
    child.wait().unwrap();
    bytes[0] ^= 1;
    home.write("a.bin", &bytes);
    let anew = home.sft(proxy.address, arguments).await.succeeded();
    assert!(anew.stderr.contains("starting from the beginning"), "{}", anew.stderr);
    assert!(!anew.stderr.contains("resuming"), "{}", anew.stderr);
    assert!(app.download("a.bin").await == bytes);
}

#[tokio::test]
async fn a_connection_that_breaks_costs_a_chunk_and_not_the_file() {
    let app = TestApp::start().await;
    let bytes = content(12 << 20, 5);
    let home = Home::with(&[("a.bin", &bytes)]);
    let proxy = Proxy::before(app.address, Limits { up: 5_000_000, ..UNLIMITED }).await;
    let up = home.sft(proxy.address, &["upload", "a.bin", "--connections", "1"]).await.succeeded();
    assert!(up.stderr.contains("Trying again in 1 s (retry 1 of 3)"), "{}", up.stderr);
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 2);
    assert!(app.download("a.bin").await == bytes);
}

#[tokio::test]
async fn several_chunks_are_on_their_way_at_once_and_no_more_than_allowed() {
    let app = TestApp::start().await;
    let bytes = content(12 << 20, 9);
    let home = Home::with(&[("a.bin", &bytes)]);
    for (allowed, most) in [("1", 1), ("3", 3)] {
        let proxy = Proxy::before(app.address, UNLIMITED).await;
        let arguments = ["upload", "a.bin", "--chunk-size", "256KiB", "--connections", allowed];
        home.sft(proxy.address, &arguments).await.succeeded();
        assert_eq!(proxy.connections.load(Ordering::Relaxed), most);
    }
    assert!(app.download("a.bin").await == bytes);
}

/// The server goes away in the middle, and comes back with what it had.
#[tokio::test]
async fn a_server_that_was_restarted_still_has_the_chunks() {
    let app = TestApp::start().await;
    let bytes = content(12 << 20, 6);
    let home = Home::with(&[("a.bin", &bytes)]);
    let proxy = Proxy::before(app.address, Limits { up: 5 << 20, stall: true, ..UNLIMITED }).await;
    let arguments = &["upload", "a.bin", "--chunk-size", "1MiB", "--connections", "1"];
    let mut child =
        home.command(proxy.address, arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    proxy.spent.notified().await;
    child.kill().unwrap();
    child.wait().unwrap();
    let stopped = tokio::time::timeout(FOR_EVER, app.stop()).await.expect("it stops");
    let app = TestApp::on(stopped.directory(), &[]).await;
    let resumed = home.sft(app.address, arguments).await.succeeded();
    assert!(resumed.stderr.starts_with("resuming: 4 of 12"), "{}", resumed.stderr);
    assert!(app.download("a.bin").await == bytes);
}

#[tokio::test]
async fn a_directory_with_large_files_goes_up() {
    let app = TestApp::start().await;
    let (one, other) = (content(7 << 20, 7), content(8 << 20, 8));
    let home = Home::new();
    std::fs::create_dir(home.0.path().join("d")).unwrap();
    home.write("d/one", &one);
    home.write("d/other", &other);
    home.write("d/small", b"x");
    home.sft(app.address, &["upload", "d"]).await.succeeded();
    assert_eq!(app.names().await, ["one", "other", "small"]);
    assert!(app.download("one").await == one && app.download("other").await == other);
}
