//! The command line, as the binary that users run, against a real server.

mod chunked;
mod harness;
mod many;

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use tokio::net::TcpListener;

use self::harness::{Home, Limits, Proxy, UNLIMITED};
use crate::support::{TestApp, content, sha256};

#[tokio::test]
async fn a_file_goes_up_and_comes_back_the_same() {
    let app = TestApp::start().await;
    let bytes = content(3_000_001, 1);
    let home = Home::with(&[("a.bin", &bytes)]);
    let up = home.sft(app.address, &["upload", "a.bin"]).await.succeeded();
    assert!(
        up.text().contains(&sha256(&bytes)) && up.text().contains("uploaded a.bin: 2.86 MiB"),
        "{}",
        up.text()
    );
    assert_eq!(up.stderr, "", "no bar and no note where there is no terminal");

    let down = home.sft(app.address, &["download", "a.bin", "--output", "copy"]).await.succeeded();
    assert!(down.text().contains("(verified)"), "{}", down.text());
    assert_eq!(home.read("copy").unwrap(), bytes);
    assert_eq!(home.names(), ["a.bin", "copy"]);
}

#[tokio::test]
async fn empty_files_odd_names_and_directories_work() {
    let app = TestApp::start().await;
    let name = "ünï 100% #1 &+;.txt";
    let home = Home::with(&[(name, b""), (".env", b"x")]);
    std::fs::create_dir(home.0.path().join("into")).unwrap();
    let up = home.sft(app.address, &["--json", "upload", name, "--priority", "7"]).await.succeeded().json();
    assert_eq!((&up["filename"], &up["size"], &up["priority"]), (&name.into(), &0.into(), &7.into()));
    let down =
        home.sft(app.address, &["download", name, "--output", "into", "--json"]).await.succeeded().json();
    assert_eq!((&down["verified"], &down["size"]), (&true.into(), &0.into()));
    assert_eq!(home.read(&format!("into/{name}")).unwrap(), b"");

    // The server keeps such names for itself: the user is told under which one the file can be asked for.
    let up = home.sft(app.address, &["upload", ".env"]).await.succeeded();
    assert!(up.stderr.contains("as env"), "{}", up.stderr);
    home.sft(app.address, &["upload", "-q", ".env", "--filename", "dot env"]).await.succeeded();
    let down = home.sft(app.address, &["download", "dot env", "-o", "-"]).await.succeeded();
    assert_eq!(down.stdout, b"x");
}

#[tokio::test]
async fn an_existing_file_is_replaced() {
    let app = TestApp::start().await;
    let home = Home::with(&[("new", b"new"), ("a", b"old")]);
    home.sft(app.address, &["upload", "new", "--filename", "a"]).await.succeeded();
    home.sft(app.address, &["download", "a"]).await.succeeded();
    assert_eq!(home.read("a").unwrap(), b"new");
}

#[tokio::test]
async fn health_and_status_speak_to_people_and_programs() {
    let app = TestApp::start().await;
    let home = Home::with(&[("a.txt", b"hello")]);
    let health = home.sft(app.address, &["health"]).await.succeeded();
    assert!(health.text().starts_with(&format!("http://{}: ok, version ", app.address)), "{}", health.text());
    assert_eq!(home.sft(app.address, &["health", "--json"]).await.succeeded().json()["status"], "ok");
    assert_eq!(home.sft(app.address, &["status"]).await.succeeded().text(), "no transfers yet\n");

    home.sft(app.address, &["upload", "a.txt"]).await.succeeded();
    let status = home.sft(app.address, &["status"]).await.succeeded();
    let last = status.text().lines().last().unwrap();
    assert!(last.starts_with("completed  100%") && last.ends_with("  a.txt"), "{}", status.text());
    let one = home.sft(app.address, &["status", "--file", "a.txt"]).await.succeeded();
    assert!(one.text().contains(&sha256(b"hello")), "{}", one.text());
    let json = home.sft(app.address, &["status", "--file", "a.txt", "--json"]).await.succeeded().json();
    assert_eq!(json["checksum"], sha256(b"hello"));
    let json = home.sft(app.address, &["--json", "status"]).await.succeeded().json();
    assert_eq!(json["transfers"][0]["filename"], "a.txt");
}

#[tokio::test]
async fn a_broken_download_is_continued_by_the_next_run() {
    let app = TestApp::start().await;
    let bytes = content(4_000_000, 2);
    let home = Home::with(&[("a.bin", &bytes)]);
    home.sft(app.address, &["upload", "a.bin"]).await.succeeded();
    let proxy = Proxy::before(app.address, Limits { down: 3_000_000, ..UNLIMITED }).await;

    let broken =
        home.sft(proxy.address, &["download", "a.bin", "-o", "b", "--retry", "0", "--json"]).await.failed(1);
    assert_eq!(broken.json()["code"], "connection_broken");
    assert_eq!(home.names(), ["a.bin", "b.part", "b.part.json"]);
    let part = home.read("b.part").unwrap();
    assert!(!part.is_empty() && bytes.starts_with(&part));

    let resumed =
        home.sft(proxy.address, &["download", "a.bin", "-o", "b", "--json"]).await.succeeded().json();
    assert_eq!(resumed["resumed_from"], part.len());
    assert_eq!(home.read("b").unwrap(), bytes);
    assert_eq!(home.names(), ["a.bin", "b"]);
}

#[tokio::test]
async fn a_broken_download_of_a_file_that_was_replaced_begins_anew() {
    let app = TestApp::start().await;
    let (old, new) = (content(4_000_000, 3), content(3_500_000, 4));
    let home = Home::with(&[("old", &old), ("new", &new)]);
    home.sft(app.address, &["upload", "old", "--filename", "a"]).await.succeeded();
    let proxy = Proxy::before(app.address, Limits { down: 3_000_000, ..UNLIMITED }).await;
    home.sft(proxy.address, &["download", "a", "--retry", "0"]).await.failed(1);
    assert!(home.read("a.part").is_some());

    home.sft(app.address, &["upload", "new", "--filename", "a"]).await.succeeded();
    let anew = home.sft(proxy.address, &["download", "a", "--json"]).await.succeeded();
    assert_eq!(anew.json()["resumed_from"], 0);
    assert!(anew.stderr.contains("starting from the beginning"), "{}", anew.stderr);
    assert_eq!(home.read("a").unwrap(), new);
}

/// One real wait of a second each: how long it is, is tested elsewhere with a clock that stands still.
#[tokio::test]
async fn broken_transfers_are_tried_again_and_the_user_is_told() {
    let app = TestApp::start().await;
    let bytes = content(12_000_000, 5);
    let home = Home::with(&[("a.bin", &bytes)]);
    let proxy = Proxy::before(app.address, Limits { up: 1_000_000, ..UNLIMITED }).await;
    let up = home.sft(proxy.address, &["upload", "a.bin", "--whole"]).await.succeeded();
    assert!(up.stderr.contains("Trying again in 1 s (retry 1 of 3)"), "{}", up.stderr);
    assert_eq!(proxy.connections.load(Ordering::Relaxed), 2);

    let proxy = Proxy::before(app.address, Limits { down: 1_000_000, ..UNLIMITED }).await;
    let down = home.sft(proxy.address, &["download", "a.bin", "-o", "b"]).await.succeeded();
    assert!(down.stderr.contains("Trying again in 1 s"), "{}", down.stderr);
    assert_eq!(home.read("b").unwrap(), bytes);
    assert!(app.leftovers().is_empty());
}

#[tokio::test]
async fn a_damaged_part_never_becomes_a_file() {
    let app = TestApp::start().await;
    let bytes = content(2_000_000, 6);
    let home = Home::with(&[("a.bin", &bytes)]);
    home.sft(app.address, &["upload", "a.bin"]).await.succeeded();
    let proxy = Proxy::before(app.address, Limits { down: 1_000_000, ..UNLIMITED }).await;
    home.sft(proxy.address, &["download", "a.bin", "-o", "b", "--retry", "0"]).await.failed(1);
    let damaged = vec![0; home.read("b.part").unwrap().len()];
    home.write("b.part", &damaged);
    let failed =
        home.sft(proxy.address, &["download", "a.bin", "-o", "b", "--retry", "0", "--json"]).await.failed(1);
    assert_eq!(failed.json()["code"], "checksum_mismatch");
    assert_eq!(home.names(), ["a.bin"]);
}

#[tokio::test]
async fn a_file_that_is_too_large_is_refused_in_human_units() {
    let app = TestApp::with(&[("max_file_size", "1048576")]).await;
    let home = Home::with(&[("large", &vec![0; 32 << 20]), ("fits", &vec![0; 1 << 20])]);
    let refused = home.sft(app.address, &["upload", "large", "--whole"]).await.failed(1);
    assert!(
        refused.stderr.contains("at most 1.00 MiB") && refused.stderr.contains("HTTP 413"),
        "{}",
        refused.stderr
    );
    assert!(!refused.stderr.contains("Trying again"), "{}", refused.stderr);
    let refused = home.sft(app.address, &["upload", "large", "--whole", "--json"]).await.failed(1).json();
    assert_eq!((&refused["code"], &refused["max_size"]), (&"file_too_large".into(), &1_048_576.into()));
    assert!(refused["request_id"].is_string());
    home.sft(app.address, &["upload", "fits"]).await.succeeded();
}

#[tokio::test]
async fn what_the_server_refuses_is_told_with_what_to_do() {
    let app = TestApp::start().await;
    let home = Home::with(&[("a", b"x")]);
    home.sft(app.address, &["upload", "a", "--encrypt"]).await.succeeded();
    let missing = home.sft(app.address, &["download", "b"]).await.failed(1);
    assert!(
        missing.stderr.contains("not_found") && missing.stderr.contains("request "),
        "{}",
        missing.stderr
    );
    assert_eq!(home.names(), ["a"]);
    let key = home.sft(app.address, &["upload", "a", "--api-key", "wrong"]).await.failed(1);
    assert!(key.stderr.contains("invalid_api_key") && key.stderr.contains("--api-key"), "{}", key.stderr);
    let json = home.sft(app.address, &["--json", "status", "--file", "b"]).await.failed(1).json();
    assert_eq!((&json["success"], &json["code"]), (&false.into(), &"not_found".into()));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_in_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = listener.local_addr().unwrap();
    drop(listener);
    let home = Home::with(&[("a", b"x")]);
    let failed = home.sft(nowhere, &["health"]).await.failed(1);
    let expected =
        format!("error: cannot reach http://{nowhere}: connection refused; is the server running?");
    assert_eq!(failed.stderr.lines().next(), Some(expected.as_str()));
    assert!(failed.stdout.is_empty());
    let failed = home.sft(nowhere, &["upload", "a", "--retry", "0", "--json"]).await.failed(1);
    assert_eq!(failed.json()["code"], "unreachable");
    assert_eq!(failed.stderr, "");
}

#[tokio::test]
async fn wrong_usage_exits_with_2_and_nothing_on_stdout() {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let home = Home::new();
    for arguments in [
        &["upload"][..],
        &["frobnicate"],
        &["upload", "a", "--priority", "11"],
        &["download", ".."],
        &["health", "--server", "ftp://x"],
    ] {
        let failed = home.sft(nowhere, arguments).await.failed(2);
        assert!(
            failed.stdout.is_empty() && failed.stderr.starts_with("error: "),
            "{arguments:?}: {}",
            failed.stderr
        );
    }
    let missing = home.sft(nowhere, &["upload", "absent"]).await.failed(1);
    assert!(missing.stderr.starts_with("error: cannot read absent: "), "{}", missing.stderr);
}

#[tokio::test]
async fn options_may_stand_before_the_command() {
    let app = TestApp::start().await;
    let home = Home::new();
    let port = app.address.port().to_string();
    let elsewhere = "127.0.0.1:9".parse().unwrap();
    home.sft(elsewhere, &["--server", "127.0.0.1", "--port", &port, "health"]).await.succeeded();
    home.sft(elsewhere, &["health", "--server", "127.0.0.1", "--port", &port]).await.succeeded();
    home.sft(elsewhere, &["health", "--server", &app.address.to_string()]).await.succeeded();
    home.sft(elsewhere, &["health", "--server", &app.url("/")]).await.succeeded();
}

#[tokio::test]
async fn completions_are_printed() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script =
            Home::new().sft("127.0.0.1:9".parse().unwrap(), &["completions", shell]).await.succeeded();
        assert!(script.text().contains("download"), "{shell}");
    }
}

/// `sft status | head -0`, `sft download a -o - | head -c 1`
#[tokio::test]
async fn a_reader_that_leaves_early_is_no_panic() {
    let app = TestApp::start().await;
    let home = Home::with(&[("a", &content(4_000_000, 7))]);
    home.sft(app.address, &["upload", "a"]).await.succeeded();
    for (arguments, code) in [
        (&["status"][..], 0),
        (&["--help"], 0),
        (&["completions", "bash"], 0),
        (&["download", "a", "-o", "-"], 1),
    ] {
        let mut command = home.command(app.address, arguments);
        let output = tokio::task::spawn_blocking(move || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            command.stdout(writer).stderr(Stdio::piped()).output().unwrap()
        });
        let output = output.await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{arguments:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_interrupted_download_says_so_and_can_be_continued() {
    let app = TestApp::start().await;
    // Of what has passed, more than all buffers in between can hold: some of it is in the file.
    let bytes = content(24 << 20, 8);
    let home = Home::with(&[("a.bin", &bytes)]);
    home.sft(app.address, &["upload", "a.bin"]).await.succeeded();
    let proxy = Proxy::before(app.address, Limits { down: 20 << 20, stall: true, ..UNLIMITED }).await;

    let mut command = home.command(proxy.address, &["download", "a.bin", "-o", "b", "--connections", "1"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    proxy.spent.notified().await;
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: interrupted\nhint: what has arrived is kept"), "{stderr}");
    assert_eq!(home.read("b"), None);

    let resumed =
        home.sft(proxy.address, &["download", "a.bin", "-o", "b", "--json"]).await.succeeded().json();
    assert!(resumed["resumed_from"].as_u64().unwrap() > 0);
    assert_eq!(home.read("b").unwrap(), bytes);
}

/// What `sft watch` writes, line by line, until it is dropped.
struct Watching {
    child: std::process::Child,
    lines: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Watching {
    fn start(home: &Home, server: std::net::SocketAddr, arguments: &[&str]) -> Self {
        use std::io::BufRead as _;
        let mut child = home.command(server, arguments).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    async fn until(&mut self, is_so: impl Fn(&str) -> bool) -> String {
        loop {
            let line = tokio::time::timeout(crate::support::FOR_EVER, self.lines.recv()).await;
            let line = line.expect("nothing is written").expect("it ended");
            if is_so(&line) {
                return line;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[tokio::test]
async fn what_goes_on_is_watched() {
    let app = TestApp::start().await;
    let home = Home::new();
    app.put("before.txt", "1").await.expect(201);
    let mut json = Watching::start(&home, app.address, &["watch", "--json"]);
    json.until(|line| line.contains("before.txt")).await;
    let mut text = Watching::start(&home, app.address, &["watch"]);
    // Connected once something new is seen.
    let mut count = 0;
    let seen = async {
        text.until(|line| line.starts_with("completed") && line.contains(" seen-")).await;
    };
    let busy = async {
        loop {
            count += 1;
            app.put(&format!("seen-{count}.txt"), "2").await;
        }
    };
    tokio::select! { () = seen => {}, () = busy => {} }
    app.put_with(
        "bad.txt",
        &[("Repr-Digest", "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:")],
        "3",
    )
    .await;
    let line = json.until(|line| line.contains("bad.txt") && !line.contains("uploading")).await;
    let update: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&update["status"], &update["direction"]), (&"failed".into(), &"upload".into()));
    let line = text.until(|line| line.contains("bad.txt")).await;
    assert!(line.starts_with("failed") && line.contains("SHA-256"), "{line}");
    home.sft(app.address, &["watch", "--server", "127.0.0.1:1"]).await.failed(1);
}
