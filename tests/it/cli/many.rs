//! `sft upload` with directories and several files; downloads over several connections.

use super::harness::{Home, Limits, Proxy, UNLIMITED};
use crate::support::{TestApp, content, sha256};

fn tree(files: &[(&str, &[u8])]) -> Home {
    let home = Home::new();
    for (name, bytes) in files {
        let path = home.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        home.write(name, bytes);
    }
    home
}

#[tokio::test]
async fn a_directory_goes_up_with_everything_below_it() {
    let app = TestApp::start().await;
    let large = content(6 << 20, 1);
    let home = tree(&[
        ("d/a.txt", b"a"),
        ("d/sub/a.txt", b"sub a"),
        ("d/sub/deep/ünï 1.txt", b"deep"),
        ("d/empty", b""),
        ("d/large.bin", &large),
        ("beside.txt", b"not in it"),
    ]);
    let up = home.sft(app.address, &["upload", "d", "--priority", "7"]).await.succeeded();
    assert!(up.text().starts_with("uploaded 5 of 5 files: 6.00 MiB"), "{}", up.text());
    assert_eq!(up.stderr, "");
    assert_eq!(app.names().await, ["a.txt", "empty", "large.bin", "sub_a.txt", "sub_deep_ünï 1.txt"]);
    assert_eq!(app.download("sub_a.txt").await, b"sub a");
    assert_eq!(app.download("large.bin").await, large);
    assert_eq!(app.status("a.txt").await["priority"], 7);
}

#[tokio::test]
async fn several_files_are_told_of_in_one_document() {
    let app = TestApp::start().await;
    let home = tree(&[("a", b"1"), ("d/b", b"22")]);
    let up = home.sft(app.address, &["upload", "a", "d", "--json", "--encrypt"]).await.succeeded().json();
    assert_eq!((&up["success"], &up["total_files"], &up["failed"]), (&true.into(), &2.into(), &0.into()));
    assert_eq!(up["results"][0]["path"], "a");
    assert_eq!(up["results"][1]["filename"], "b");
    assert_eq!(up["results"][1]["hash"], sha256(b"22"));
    assert_eq!((&up["results"][1]["size"], &up["results"][1]["encryption"]), (&2.into(), &true.into()));
    let quiet = home.sft(app.address, &["upload", "a", "d", "--quiet"]).await.succeeded();
    assert_eq!((quiet.text(), quiet.stderr.as_str()), ("", ""));
}

#[tokio::test]
async fn two_files_for_one_name_are_an_error_before_anything_is_sent() {
    let app = TestApp::start().await;
    let home = tree(&[("d/a_b", b"1"), ("d/a/b", b"2"), ("d/c", b"3")]);
    let failed = home.sft(app.address, &["upload", "d", "--json"]).await.failed(1).json();
    assert_eq!(failed["code"], "name_collision");
    let told = failed["error"].as_str().unwrap();
    assert!(told.contains("d/a/b") && told.contains("d/a_b"), "{told}");
    assert!(app.names().await.is_empty());
    let usage = home.sft(app.address, &["upload", "d", "--filename", "x"]).await.failed(2);
    assert!(usage.stderr.contains("--filename"), "{}", usage.stderr);
}

#[tokio::test]
async fn a_file_that_fails_does_not_keep_the_others() {
    let app = TestApp::with(&[("max_file_size", "1000")]).await;
    let home = tree(&[("d/a", b"1"), ("d/too large", &[0; 2000]), ("d/z", b"2")]);
    let failed = home.sft(app.address, &["upload", "d", "absent"]).await.failed(1);
    assert!(failed.text().starts_with("uploaded 2 of 4 files"), "{}", failed.text());
    for told in ["d/too large: error: ", "file_too_large", "absent: error: cannot read", "2 of 4 files"] {
        assert!(failed.stderr.contains(told), "{told}: {}", failed.stderr);
    }
    assert_eq!(app.names().await, ["a", "z"]);
    let json = home.sft(app.address, &["upload", "d", "--json"]).await.failed(1).json();
    assert_eq!((&json["success"], &json["code"]), (&false.into(), &"files_failed".into()));
    assert_eq!((&json["successful"], &json["failed"]), (&2.into(), &1.into()));
    let failed =
        json["results"].as_array().unwrap().iter().find(|result| result["status"] == "failed").unwrap();
    assert_eq!((&failed["path"], &failed["code"]), (&"d/too large".into(), &"file_too_large".into()));
}

/// Thousands of files would each be tried for seconds.
#[tokio::test]
async fn what_concerns_all_files_ends_the_command() {
    let app = TestApp::start().await;
    let home = Home::new();
    std::fs::create_dir(home.0.path().join("d")).unwrap();
    for n in 0..50 {
        home.write(&format!("d/{n:02}"), b"x");
    }
    let failed =
        home.sft(app.address, &["upload", "d", "--api-key", "wrong", "--json"]).await.failed(1).json();
    let results = failed["results"].as_array().unwrap();
    assert_eq!(results.len(), 50);
    let tried = results.iter().filter(|result| result["code"] == "invalid_api_key").count();
    assert!((1..=8).contains(&tried), "{tried}");
    assert_eq!(results[49]["code"], "not_tried");
}

#[tokio::test]
async fn an_empty_directory_is_no_failure() {
    let app = TestApp::start().await;
    let home = Home::new();
    std::fs::create_dir(home.0.path().join("d")).unwrap();
    let up = home.sft(app.address, &["upload", "d"]).await.succeeded();
    assert!(up.text().starts_with("uploaded 0 of 0 files"), "{}", up.text());
}

#[tokio::test]
async fn a_large_file_comes_down_over_several_connections() {
    let app = TestApp::start().await;
    let bytes = content(20_000_001, 2);
    for (name, sealed) in [("plain", "false"), ("sealed", "true")] {
        app.put_with(name, &[("x-encryption", sealed)], bytes.clone()).await.expect(201);
        let home = Home::new();
        let proxy = Proxy::before(app.address, UNLIMITED).await;
        let down = home.sft(proxy.address, &["download", name, "--connections", "3"]).await.succeeded();
        assert!(down.text().contains("(verified)"), "{}", down.text());
        assert!(home.read(name).unwrap() == bytes && home.names() == [name]);
        let connections = proxy.connections.load(std::sync::atomic::Ordering::Relaxed);
        assert!((2..=3).contains(&connections), "{connections}");
        let streamed = home.sft(proxy.address, &["download", name, "-o", "-"]).await.succeeded();
        assert!(streamed.stdout == bytes);
    }
}

/// One connection breaks: the others go on, and nothing is fetched twice.
#[tokio::test]
async fn a_connection_that_breaks_is_replaced() {
    let app = TestApp::start().await;
    let bytes = content(20_000_001, 3);
    app.put("a", bytes.clone()).await.expect(201);
    let home = Home::new();
    let proxy = Proxy::before(app.address, Limits { down: 3_000_000, ..UNLIMITED }).await;
    let down = home.sft(proxy.address, &["download", "a"]).await.succeeded();
    assert!(down.stderr.contains("Trying again in 1 s (retry 1 of 3)"), "{}", down.stderr);
    assert!(home.read("a").unwrap() == bytes);
}
