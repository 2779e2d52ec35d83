//! Logs and data that are not as they were written.

use std::path::Path;

use serde_json::json;

use super::{Server, write};
use crate::support::content;

const SIZE: usize = 10_000;

/// The server is down while `damage` works on it.
async fn while_down(server: &mut Server, damage: impl FnOnce(&Server)) {
    server.process.kill();
    damage(server);
    server.restart().await;
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("the file")
}

/// Where the last line of a log begins.
fn last_line(log: &[u8]) -> usize {
    log[..log.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines") + 1
}

/// What of a file the tests cut at: each byte of its last line, of a long one some.
fn cuts(log: &[u8]) -> Vec<usize> {
    let (begin, end) = (last_line(log), log.len());
    let step = ((end - begin) / 40).max(1);
    let mut cuts: Vec<_> = (begin..end).step_by(step).collect();
    cuts.extend([begin + 1, begin + 8, begin + 9, end - 2, end - 1]);
    cuts
}

/// A crash in the middle of a line: it was never acknowledged. The one before counts.
#[tokio::test]
async fn a_line_that_was_torn_was_never_written() {
    for sealed in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Server::start(directory.path(), &[]).await;
        let bytes = content(200_000, 1);
        let path = server.create("a.bin", bytes.len(), sealed).await;
        server.patch(&path, 0, &bytes[..70_000]).await.expect(204);
        server.patch(&path, 70_000, &bytes[70_000..150_000]).await.expect(204);
        server.process.kill();
        let (log, data) = (server.upload_file(".log"), server.upload_file(".data"));
        let (whole, written) = (read(&log), read(&data));
        for cut in cuts(&whole) {
            write(&log, &whole[..cut]);
            write(&data, &written);
            server.restart().await;
            assert_eq!(server.offset(&path).await, 70_000, "cut at {cut}");
            assert!(!server.process.log().contains("ERROR"), "{}", server.process.log());
            server.process.kill();
        }
        // It goes on from there, with other bytes than those that follow in the data.
        server.restart().await;
        let other = [&bytes[..70_000], &content(130_000, 2)].concat();
        server.patch(&path, 70_000, &other[70_000..90_000]).await.expect(204);
        server.kill_and_restart().await;
        assert_eq!(server.offset(&path).await, 90_000);
        server.patch(&path, 90_000, &other[90_000..]).await.expect(204);
        assert!(server.download("a.bin").await == other);
    }
}

#[tokio::test]
async fn a_torn_line_of_a_chunk_is_a_chunk_that_is_missing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(directory.path(), &[]).await;
    let bytes = content(4 * SIZE, 1);
    for number in [2, 0] {
        server.chunk("a.bin", &bytes, SIZE, number, true).await.expect(200);
    }
    server.process.kill();
    let log = server.upload_file(".log");
    let whole = read(&log);
    for cut in cuts(&whole) {
        write(&log, &whole[..cut]);
        server.restart().await;
        assert_eq!(server.received("a.bin").await, [2], "cut at {cut}");
        server.process.kill();
    }
    server.restart().await;
    for number in [1, 3, 0] {
        server.chunk("a.bin", &bytes, SIZE, number, true).await.expect(200);
    }
    assert!(server.download("a.bin").await == bytes);
}

/// Damage that is no torn end is told, and never guessed around.
#[tokio::test]
async fn a_damaged_log_is_told_as_failed() {
    for (at, line) in [(30, 1), (usize::MAX, 2)] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Server::start(directory.path(), &[]).await;
        let bytes = content(200_000, 1);
        let path = server.create("a.bin", bytes.len(), false).await;
        server.patch(&path, 0, &bytes[..70_000]).await.expect(204);
        server.patch(&path, 70_000, &bytes[70_000..150_000]).await.expect(204);
        while_down(&mut server, |server| {
            let log = server.upload_file(".log");
            let mut damaged = read(&log);
            // In the first line, or in the one before the last.
            let at = at.min(last_line(&damaged) - 20);
            damaged[at] ^= 1;
            write(&log, &damaged);
        })
        .await;
        server.head(&path).await.expect(410);
        let status = server.status("a.bin").await;
        let why = format!("the log of the upload is damaged at line {line}");
        assert_eq!((&status["status"], &status["error"]), (&json!("failed"), &json!(why)));
        let told = server.process.log();
        let told = told.lines().find(|line| line.contains("ERROR")).expect("it is told");
        let id = path.rsplit('/').next().expect("an id");
        assert!(told.contains(&why) && told.contains(id), "{told}");
        assert!(server.names().await.is_empty());
        server.kill_and_restart().await;
        assert_eq!(server.status("a.bin").await["error"], why, "after the next start too");
    }
}

/// A log without a line: the system was cut off before the first one was there.
#[tokio::test]
async fn an_empty_log_is_an_upload_that_did_not_begin() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(directory.path(), &[]).await;
    let path = server.create("a.bin", 1000, false).await;
    while_down(&mut server, |server| write(&server.upload_file(".log"), b"")).await;
    server.head(&path).await.expect(410);
    let status = server.status("a.bin").await;
    assert_eq!(status["status"], "failed", "{status}");
    assert!(status["error"].as_str().is_some_and(|error| error.len() > 5), "{status}");
    let path = server.create("a.bin", 5, false).await;
    server.patch(&path, 0, b"hello").await.expect(204);
    assert_eq!(server.download("a.bin").await, b"hello");
}

#[tokio::test]
async fn data_that_are_missing_or_cut_short_are_told_as_failed() {
    for (length, why) in
        [(None, "the data of the upload is missing"), (Some(60_000), "the data of the upload is cut short")]
    {
        for sealed in [false, true] {
            let directory = tempfile::tempdir().expect("a directory");
            let mut server = Server::start(directory.path(), &[]).await;
            let bytes = content(200_000, 1);
            let path = server.create("a.bin", bytes.len(), sealed).await;
            server.patch(&path, 0, &bytes[..150_000]).await.expect(204);
            let other = server.create("b.bin", 5, sealed).await;
            let id = path.rsplit('/').next().expect("an id").to_owned();
            while_down(&mut server, |server| {
                let data = server.upload_file(&format!("{id}.data"));
                match length {
                    None => std::fs::remove_file(data).expect("removed"),
                    Some(length) => write(&data, &read(&data)[..length]),
                }
            })
            .await;
            server.head(&path).await.expect(410);
            let status = server.status("a.bin").await;
            assert_eq!((&status["status"], &status["error"]), (&json!("failed"), &json!(why)));
            assert!(server.process.log().contains(why), "{}", server.process.log());
            // Others go on.
            server.patch(&other, 0, b"hello").await.expect(204);
            assert_eq!(server.download("b.bin").await, b"hello");
        }
    }
}

/// A chunk that is not what had arrived is missing again, and the others are not.
#[tokio::test]
async fn a_damaged_chunk_is_missing_again() {
    for sealed in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut server = Server::start(directory.path(), &[]).await;
        let bytes = content(4 * SIZE, 1);
        for number in [0, 1, 3] {
            server.chunk("a.bin", &bytes, SIZE, number, sealed).await.expect(200);
        }
        while_down(&mut server, |server| {
            let data = server.upload_file(".data");
            let mut damaged = read(&data);
            damaged[SIZE + 500] ^= 1;
            write(&data, &damaged);
        })
        .await;
        assert_eq!(server.received("a.bin").await, [0, 3]);
        server.process.logged("missing again").await;
        server.kill_and_restart().await;
        assert_eq!(server.received("a.bin").await, [0, 3], "after the next start too");
        server.chunk("a.bin", &bytes, SIZE, 2, sealed).await.expect(200);
        server.chunk("a.bin", &bytes, SIZE, 1, sealed).await.expect(200);
        assert!(server.download("a.bin").await == bytes);
    }
}

/// The last chunk came first and waits in a file of its own, as its place is not known.
#[tokio::test]
async fn a_last_chunk_that_was_damaged_while_it_waited_is_missing_again() {
    for sealed in [false, true] {
        for is_gone in [false, true] {
            let directory = tempfile::tempdir().expect("a directory");
            let mut server = Server::start(directory.path(), &[]).await;
            let bytes = content(2 * SIZE + 5000, 1);
            server.chunk("a.bin", &bytes, SIZE, 2, sealed).await.expect(200);
            server.kill_and_restart().await;
            assert_eq!(server.received("a.bin").await, [2]);
            while_down(&mut server, |server| {
                let chunk = server.upload_file(".chunk");
                let mut damaged = read(&chunk);
                damaged[1000] ^= 1;
                if is_gone {
                    std::fs::remove_file(chunk).expect("removed");
                } else {
                    write(&chunk, &damaged);
                }
            })
            .await;
            server.chunk("a.bin", &bytes, SIZE, 0, sealed).await.expect(200);
            assert_eq!(server.received("a.bin").await, [0], "sealed: {sealed}, gone: {is_gone}");
            server.kill_and_restart().await;
            assert_eq!(server.received("a.bin").await, [0], "after the next start too");
            for number in [1, 2] {
                server.chunk("a.bin", &bytes, SIZE, number, sealed).await.expect(200);
            }
            assert!(server.download("a.bin").await == bytes);
        }
    }
}
