//! SIGTERM in the middle of a request.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::{KEY, Server};
use crate::support::content;
use crate::support::process::Process;

const GRACE: (&str, &str) = ("SHUTDOWN_GRACE", "50ms");

/// Has a stop interrupt PATCHes that have brought so many bytes; all of them are told after the next start.
async fn is_kept(mut server: Server, sent: usize) {
    let length = sent + (1 << 20);
    let bytes = content(length, sent as u64);
    let mut uploads = Vec::new();
    for sealed in [false, true] {
        for first in [0, 70_000] {
            let name = format!("{sealed}-{first}-{sent}.bin");
            let path = server.create(&name, length, sealed).await;
            if first > 0 {
                server.patch(&path, 0, &bytes[..first]).await.expect(204);
            }
            let raw = server.hanging(&name, &path, first, length, &bytes[first..first + sent]).await;
            uploads.push((name, path, first + sent, raw));
        }
    }
    server.process.signal(Signal::TERM);
    assert!(server.process.ended().await.success(), "{}", server.process.log());
    server.restart().await;
    for (name, path, arrived, _raw) in uploads {
        assert_eq!(server.offset(&path).await, arrived, "{name}");
        assert_eq!(server.status(&name).await["status"], "uploading");
        server.patch(&path, arrived, &bytes[arrived..]).await.expect(204);
        assert!(server.download(&name).await == bytes, "{name}");
    }
}

/// After the grace the connection is cut, and what it has brought is flushed before the process ends.
#[tokio::test]
async fn what_a_stop_interrupts_is_kept() {
    // Up to 256 KiB wait in memory; more is written as it comes.
    for sent in [1000, 200_000, 700_001, 5 << 20] {
        let directory = tempfile::tempdir().expect("a directory");
        is_kept(Server::start(directory.path(), &[GRACE]).await, sent).await;
    }
}

/// The same where the disk is so slow that much still waits for it when the connection is cut.
#[tokio::test]
async fn what_a_stop_interrupts_is_kept_on_a_slow_disk() {
    const SLOW: [&str; 8] =
        ["strace", "-D", "-f", "-qq", "-e", "trace=writev", "-e", "inject=writev:delay_enter=200ms"];
    let mut probe = Command::new(SLOW[0]);
    let probe = probe.args(&SLOW[1..]).arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("SKIPPED: strace is not there or may not trace, so a slow disk was not tried");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace.txt");
    let mut watcher = SLOW.map(OsStr::new).to_vec();
    watcher.extend([OsStr::new("-o"), trace.as_os_str()]);
    let process = Process::spawn_under(&watcher, directory.path(), &[GRACE, KEY]);
    let address = process.address().await;
    let settings = Vec::new();
    is_kept(Server { process, address, directory: directory.path().to_owned(), settings }, 5 << 20).await;
}
