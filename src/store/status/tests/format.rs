//! The status file as people and older servers know it.

use serde_json::Value;

use super::*;
use crate::domain::Status;

const OLDER: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/older-deployment/transfer_status.json"
));

fn json(home: &Home) -> Value {
    serde_json::from_slice(&std::fs::read(home.layout.status()).unwrap()).unwrap()
}

#[test]
fn there_is_a_status_file_from_the_first_start_on() {
    let home = Home::new();
    let (_, guard) = home.run();
    drop(guard);
    let status = json(&home);
    assert_eq!(status["transfers"], serde_json::json!({}));
    assert_eq!(status["queue"], serde_json::json!([]));
    assert_eq!(status["metadata"]["total_transfers"], 0);
}

#[test]
fn the_file_has_the_shape_of_version_1_0() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a.txt", b"old");
    store.upload("a.txt", b"hello");
    let id = store.begin("b \"quoted\".txt");
    store.note(failed(id));
    store.stop();
    let status = json(&home);
    let members: Vec<_> = status.as_object().unwrap().keys().collect();
    assert_eq!(members, ["crc32", "history", "metadata", "queue", "transfers"]);
    assert_eq!(
        status["transfers"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["a.txt", "b quoted.txt"]
    );
    let transfer = &status["transfers"]["a.txt"];
    for (member, value) in [
        ("status", Value::from("completed")),
        ("checksum", digest(b"hello").to_string().into()),
        ("encryption", false.into()),
        ("priority", 3.into()),
        ("retry_count", 0.into()),
        ("progress", 100.into()),
        ("eta", 0.into()),
        ("transferred_bytes", 5.into()),
        ("total_bytes", 5.into()),
        ("client_ip", "192.0.2.7".into()),
        ("client_agent", "tests".into()),
        ("client_id", "desk-8".into()),
    ] {
        assert_eq!(transfer[member], value, "{member}");
    }
    assert!(transfer["speed"].is_u64());
    for time in [&transfer["created_at"], &transfer["updated_at"], &status["metadata"]["last_updated"]] {
        assert!(Timestamp::parse(time.as_str().unwrap()).is_some() && time.as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(status["transfers"]["b quoted.txt"]["status"], "failed");
    assert_eq!(status["transfers"]["b quoted.txt"]["error"], "hung up");
    assert_eq!(status["history"].as_array().unwrap().len(), 1);
    assert_eq!(status["history"][0]["checksum"], digest(b"old").to_string());
    assert_eq!(status["queue"], serde_json::json!([]));
    assert_eq!(status["metadata"]["version"], "1.0");
    assert_eq!(status["metadata"]["total_transfers"], 2);
    assert_eq!(status["metadata"]["seq"], 6);
    let lines = std::fs::read_to_string(home.layout.status()).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"id\"")).count(), 3, "a transfer is a line");
}

#[test]
fn an_older_deployments_file_is_read() {
    let home = Home::new();
    put(home.layout.status(), OLDER.as_bytes());
    let store = home.open();
    assert_eq!(store.opened.names, 15);
    assert_eq!(store.opened.remarks.len(), 0, "{:?}", store.opened.remarks);
    let view = store.view();
    let recent: Vec<_> = view.recent.iter().map(|transfer| transfer.filename.as_str()).collect();
    assert_eq!(recent[..3], ["secret-tampered.bin", "secret-300000.bin", "secret-70000.bin"]);
    assert_eq!(recent[13..], ["cancelled.txt", "gone.txt"], "by the time of their last change");
    assert_eq!((view.files.len(), view.running.len(), view.seq), (14, 0, 0));
    let notes = store.store.current(&name("notes.txt")).unwrap();
    assert_eq!(notes.checksum.unwrap().to_string()[..8], *"7a1be893");
    assert_eq!((u8::from(notes.priority), notes.speed, notes.total_bytes), (2, 34930, Some(268)));
    assert_eq!(notes.updated_at.to_string(), "2024-10-24T07:51:02.125Z");
    assert_eq!(notes.file, None, "it does not say what it stands for");
    assert!(store.store.file(&name("secret-1.bin")).unwrap().encryption);
    assert_eq!(store.store.current(&name("cancelled.txt")).unwrap().status, Status::Cancelled);
    store.stop();
    assert_eq!(
        std::fs::read_to_string(home.layout.status()).unwrap(),
        OLDER,
        "who changes nothing writes nothing"
    );
}

#[test]
fn an_older_file_goes_on_with_a_journal_and_becomes_the_backup() {
    let home = Home::new();
    put(home.layout.status(), OLDER.as_bytes());
    let mut store = home.open();
    let before = store.view();
    store.kill();
    let mut again = home.open();
    assert_eq!(again.view(), before, "transfers without an id get the same one each time");
    again.upload("notes.txt", b"hello");
    let before = again.view();
    again.kill();
    store = home.open();
    assert_eq!(store.view(), before);
    store.snapshot();
    assert_eq!(std::fs::read_to_string(home.backup()).unwrap(), OLDER);
    store.kill();
    store = home.open();
    assert_eq!(store.view(), before);
    store.kill();
    std::fs::copy(home.backup(), home.layout.status()).unwrap();
    assert_eq!(home.open().view(), before);
}

#[test]
fn what_ran_when_an_older_server_ended_fails_once() {
    let home = Home::new();
    put(
        home.layout.status(),
        br#"{"transfers": {"a": {"status": "uploading"}, "b": {"status": "pending"}}}"#,
    );
    for _ in 0..3 {
        let mut store = home.open();
        for transfer in store.store.running() {
            store.commit(failed(transfer.id), None).unwrap();
        }
        store.kill();
    }
    let store = home.open();
    assert_eq!((store.store.name_count(), store.view().earlier.len()), (2, 0));
    assert_eq!(store.view().seq, 2);
}

#[test]
fn two_keys_that_become_one_name_do_not_mix() {
    let home = Home::new();
    let (env, dot) = (digest(b"env"), digest(b".env"));
    // The storage directory's file `env` is that of the key `env`, although the other one is newer.
    let text = format!(
        r#"{{"transfers": {{
            ".env": {{"status": "completed", "checksum": "{dot}", "updated_at": "2024-10-24T09:00:00"}},
            "env": {{"status": "completed", "checksum": "{env}", "updated_at": "2024-10-24T08:00:00"}},
            "b": {{"status": "failed", "updated_at": "2024-10-24T07:00:00"}}}}}}"#
    );
    put(home.layout.status(), text.as_bytes());
    let store = home.open();
    assert_eq!(store.store.name_count(), 2);
    assert_eq!(store.store.file(&name("env")).unwrap().checksum, Some(env));
    assert_eq!(store.store.current(&name("env")).unwrap().checksum, Some(env));
    let before = store.view();
    assert_eq!(before.earlier.len(), 1);
    assert_eq!(before.earlier[0].checksum, Some(dot), "neither is forgotten");
    store.kill();
    assert_eq!(home.open().view(), before);
}

#[test]
fn members_may_be_missing_and_unknown_ones_be_there() {
    let home = Home::new();
    for (text, names) in [
        (r#"{"transfers": {}}"#, 0),
        (r#"{"transfers": {"a": {"status": "completed"}}, "queue": [7], "metadata": {"version": "1.0"}}"#, 1),
        (
            r#"{"unheard_of": {}, "transfers": {"a": {"status": "failed", "eta": null, "speed": 1.5, "x": [1]}}}"#,
            1,
        ),
        (
            r#"{"transfers": {"a": {"status": "failed", "created_at": "2024-10-24T07:50:00"}}, "metadata": {"seq": 3}}"#,
            1,
        ),
    ] {
        put(home.layout.status(), text.as_bytes());
        let store = home.open();
        assert_eq!(store.store.name_count(), names, "{text}");
        store.kill();
    }
    for (text, what) in [
        (r#"{}"#, "missing field `transfers`"),
        (r#"{"transfers": []}"#, "transfers by file name"),
        (r#"{"transfers": {"a": {}}}"#, "missing field `status`"),
        (r#"{"transfers": {"a": {"status": "lost"}}}"#, "unknown variant `lost`"),
        (r#"{"transfers": {"..": {"status": "failed"}}}"#, r#"the transfer ".." can't be read"#),
        (
            r#"{"transfers": {"a": {"status": "failed", "updated_at": "soon"}}}"#,
            r#""soon" is no RFC 3339 time"#,
        ),
    ] {
        put(home.layout.status(), text.as_bytes());
        let error = home.try_open().err().unwrap().to_string();
        assert!(error.contains(what), "{text}: {error}");
        assert_eq!(std::fs::read_to_string(home.layout.status()).unwrap(), text);
    }
}

#[test]
fn a_file_may_be_edited_by_hand() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.snapshot();
    store.upload("b", b"hello");
    store.stop();
    let text = std::fs::read_to_string(home.layout.status()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("\"b\":")).collect();
    let edited = lines.join("\n").replace("desk-8\"},\n", "desk-8\"}\n");
    let edited = edited.replace(",\n},", "\n},");

    let cut = edited.find(",\n\"crc32\"").unwrap();
    put(home.layout.status(), format!("{}\n}}\n", &edited[..cut]).as_bytes());
    let store = home.open();
    assert_eq!(store.store.name_count(), 1);
    assert_eq!(store.store.file(&name("b")), None);
    store.kill();

    put(home.layout.status(), edited.as_bytes());
    let store = home.open();
    assert!(store.opened.remarks[0].contains("take out its line \"crc32\""), "{:?}", store.opened.remarks);
    assert_eq!(store.store.name_count(), 2, "the backup and the journal stand in for it");
}
