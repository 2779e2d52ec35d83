//! What goes on, for people and programs: /status, /files, /health, /ready.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Answer, Form, TestApp, sha256};

#[tokio::test]
async fn the_status_of_a_file_has_every_member() {
    let app = TestApp::start().await;
    app.post(Form::with_file("a b.txt", b"hello").field("priority", "4").field("client_id", "desk"))
        .await
        .expect(200);
    let status = app.status("a%20b.txt").await;
    for (member, expected) in [
        ("filename", json!("a b.txt")),
        ("status", json!("completed")),
        ("checksum", json!(sha256(b"hello"))),
        ("encryption", json!(false)),
        ("priority", json!(4)),
        ("progress", json!(100)),
        ("eta", json!(0)),
        ("transferred_bytes", json!(5)),
        ("total_bytes", json!(5)),
        ("client_ip", json!("127.0.0.1")),
        ("client_id", json!("desk")),
        ("retry_count", json!(0)),
        ("direction", json!("upload")),
        ("error", Value::Null),
    ] {
        assert_eq!(status[member], expected, "{member}: {status}");
    }
    for member in ["speed", "client_agent", "id"] {
        assert!(!status[member].is_null(), "{member}: {status}");
    }
    for member in ["created_at", "updated_at"] {
        // RFC 3339 in UTC: 2024-10-24T07:50:04.123Z
        let time = status[member].as_str().unwrap();
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T' && time.len() >= 20, "{member}: {time}");
    }
    assert!(status["created_at"].as_str() <= status["updated_at"].as_str());
}

#[tokio::test]
async fn progress_is_seen_while_an_upload_runs() {
    let app = TestApp::start().await;
    let half = vec![7; 500_000];
    let mut raw = app.connect().await;
    raw.send_head("PUT /files/a.bin", &[("Content-Length", "1000000"), ("X-Priority", "6")]).await;
    raw.send(&half).await;
    let status = app.status_becomes("a.bin", |status| status["transferred_bytes"] == 500_000).await;
    for (member, expected) in [
        ("status", json!("uploading")),
        ("progress", json!(50)),
        ("total_bytes", json!(1_000_000)),
        ("checksum", Value::Null),
        ("priority", json!(6)),
    ] {
        assert_eq!(status[member], expected, "{member}: {status}");
    }
    let listed = app.get("/status").await.expect(200).json();
    assert_eq!(listed["transfers"][0]["progress"], 50, "in the list as well");
    app.get("/download/a.bin").await.error(404, "not_found");
    assert!(app.names().await.is_empty());

    raw.send(&half[..400_000]).await;
    let status = app.status_becomes("a.bin", |status| status["transferred_bytes"] == 900_000).await;
    assert_eq!(status["progress"], 90);
    raw.send(&half[..100_000]).await;
    raw.answer().await.expect(201);
    assert_eq!(app.status("a.bin").await["progress"], 100);
}

/// Progress is not 100 before everything is safe, and unknown lengths are no division by zero.
#[tokio::test]
async fn progress_without_a_length_stays_below_100() {
    let app = TestApp::start().await;
    let mut raw = app.connect().await;
    raw.send_head("PUT /files/a.bin", &[("Transfer-Encoding", "chunked")]).await;
    raw.send_chunk(&[7; 1000]).await;
    let status = app.status_becomes("a.bin", |status| status["transferred_bytes"] == 1000).await;
    assert_eq!(
        (&status["progress"], &status["total_bytes"], &status["eta"]),
        (&json!(0), &Value::Null, &Value::Null)
    );
    drop(raw);
    app.status_becomes("a.bin", |status| status["status"] == "failed").await;
    let mut raw = app.connect().await;
    raw.send_head("PUT /files/b.bin", &[("Content-Length", "1000")]).await;
    raw.send(&[7; 999]).await;
    let status = app.status_becomes("b.bin", |status| status["transferred_bytes"] == 999).await;
    assert_eq!(status["progress"], 99);
}

#[tokio::test]
async fn an_empty_server_has_a_whole_status() {
    let app = TestApp::start().await;
    let answer = app.get("/status").await.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let status = answer.json();
    assert_eq!((&status["transfers"], &status["queue"]), (&json!([]), &json!([])));
    assert_eq!(status["metadata"]["total_transfers"], 0);
    assert_eq!(status["metadata"]["version"], "1.0");
    assert_eq!(status["metadata"]["last_updated"], Value::Null);
    let files = app.get("/files").await.expect(200).json();
    assert_eq!((&files["files"], &files["total_count"]), (&json!([]), &json!(0)));
}

#[tokio::test]
async fn thousands_of_transfers_are_listed_newest_first_in_pages_and_whole() {
    let app = TestApp::with(&[("durability", "process")]).await;
    const COUNT: usize = 3000;
    let put = |n: usize| {
        let app = &app;
        async move { app.put(&format!("{n:04}.txt"), "x").await.expect(201) }
    };
    for begin in (0..COUNT).step_by(50) {
        futures_util::future::join_all((begin..begin + 50).map(put)).await;
    }
    app.put("0007.txt", "again").await.expect(200);

    let names = |answer: &Answer| -> Vec<String> {
        let status = answer.json();
        assert_eq!(status["metadata"]["total_transfers"], COUNT);
        let transfers = status["transfers"].as_array().unwrap();
        transfers.iter().map(|transfer| transfer["filename"].as_str().unwrap().to_owned()).collect()
    };
    let all = names(&app.get("/status").await.expect(200));
    assert_eq!(all.len(), COUNT);
    assert_eq!(all[0], "0007.txt", "the last changed is the first");
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), COUNT, "each once");
    let mut paged = Vec::new();
    for offset in (0..).step_by(700) {
        let page = names(&app.get(&format!("/status?limit=700&offset={offset}")).await.expect(200));
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(names(&app.get("/status?limit=1").await), ["0007.txt"]);
    assert_eq!(names(&app.get("/status?limit=2&offset=2999").await), all[2999..]);
    assert!(names(&app.get("/status?limit=0").await).is_empty());
    assert!(names(&app.get("/status?offset=99999999999").await).is_empty());

    // Files by name, at most 1000 a page.
    let page = app.get("/files?limit=3&offset=6").await.expect(200).json();
    let expected = json!(["0006.txt", "0007.txt", "0008.txt"]);
    let listed: Vec<_> =
        page["files"].as_array().unwrap().iter().map(|file| file["filename"].clone()).collect();
    assert_eq!(Value::from(listed), expected);
    assert_eq!(page["files"][1]["size"], 5);
    assert_eq!(page["files"][1]["checksum"], sha256(b"again"));
    assert_eq!(page["files"][1]["encryption"], false);
    assert!(page["files"][1]["modified"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (&page["total_count"], &page["returned_count"], &page["offset"], &page["limit"]),
        (&json!(COUNT), &json!(3), &json!(6), &json!(3))
    );
    let page = app.get("/files").await.expect(200).json();
    assert_eq!((&page["returned_count"], &page["limit"]), (&json!(100), &json!(100)));
    let page = app.get("/files?limit=100000").await.expect(200).json();
    assert_eq!((&page["returned_count"], &page["limit"]), (&json!(1000), &json!(1000)));
    let page = app.get("/files?offset=3000").await.expect(200).json();
    assert_eq!(page["files"], json!([]));
}

#[tokio::test]
async fn a_failed_attempt_is_the_status_and_the_file_stands() {
    let app = TestApp::start().await;
    app.put("a.txt", "whole").await.expect(201);
    app.put(&format!("a.txt?sha256={}", sha256(b"other")), "broken").await.error(422, "checksum_mismatch");
    let status = app.status("a.txt").await;
    assert_eq!(status["status"], "failed");
    assert_eq!(status["checksum"], Value::Null);
    assert!(status["error"].as_str().unwrap().contains("SHA-256"), "{status}");
    let listed = app.get("/files").await.json();
    assert_eq!(listed["files"][0]["checksum"], sha256(b"whole"));
    assert_eq!(app.download("a.txt").await, b"whole");
    // All of that after a restart as well.
    let stopped = app.stop().await;
    let app = TestApp::on(stopped.directory(), &[]).await;
    assert_eq!(app.status("a.txt").await, status);
    assert_eq!(app.get("/download/a.txt").await.header("etag"), format!("\"{}\"", sha256(b"whole")));
    assert_eq!(app.get("/status").await.json()["metadata"]["total_transfers"], 1);
}

/// What is copied into the directory while the server is down is found by the next start.
#[tokio::test]
async fn files_that_come_and_go_while_the_server_is_down_are_noticed() {
    let app = TestApp::start().await;
    for name in ["changed.txt", "kept.txt", "removed.txt"] {
        app.put(name, "uploaded").await.expect(201);
    }
    let stopped = app.stop().await;
    let storage = stopped.directory().join("storage");
    std::fs::copy(storage.join("kept.txt"), storage.join("added.txt")).unwrap();
    std::fs::remove_file(storage.join("removed.txt")).unwrap();
    std::fs::File::options().append(true).open(storage.join("changed.txt")).unwrap().set_len(3).unwrap();
    let app = TestApp::on(stopped.directory(), &[]).await;
    assert_eq!(app.names().await, ["added.txt", "changed.txt", "kept.txt"]);
    let files = app.get("/files").await.json();
    let digests: Vec<_> = (0..3).map(|n| files["files"][n]["checksum"].as_str()).collect();
    assert_eq!(digests, [None, None, Some(sha256(b"uploaded").as_str())]);
    app.get("/download/removed.txt").await.error(404, "not_found");
    assert_eq!(app.download("changed.txt").await, b"upl");
}

#[tokio::test]
async fn a_healthy_server_says_so() {
    let app = TestApp::start().await;
    let health = app.get("/health").await.expect(200).json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(health["uptime_seconds"].is_u64());
    assert_eq!(app.get("/ready").await.expect(200).json()["status"], "ready");
    app.send("HEAD", "/health", &[], "").await.expect(200);
    app.nothing_is_left().await;
}

#[tokio::test]
async fn a_server_without_room_is_not_ready_and_takes_nothing() {
    let app = TestApp::with(&[("min_free_space", "8000TiB")]).await;
    app.get("/ready").await.error(503, "storage_full");
    app.get("/health").await.expect(200);
    app.put("a.txt", "hello").await.error(507, "storage_full");
    app.post(Form::with_file("a.txt", b"hello")).await.error(507, "storage_full");
    // Told before the body.
    let mut raw = app.connect().await;
    raw.send_head("PUT /files/a.txt", &[("Content-Length", "5000000"), ("Expect", "100-continue")]).await;
    raw.answer().await.error(507, "storage_full");
    assert!(app.names().await.is_empty());
    app.nothing_is_left().await;
}
