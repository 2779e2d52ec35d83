//! `sft import`

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use smart_file_transfer::domain::{Timestamp, TransferId};

use super::harness::{KEY, Place, files_below, older, older_content};
use crate::support::random::Random;
use crate::support::{content, sha256};

const NEW: &str = "a new key, which is a random one";
const KEYS: [(&str, &str); 2] = [("ENCRYPTION_KEY", NEW), ("ENCRYPTION_KEY_OLD", KEY)];
const SERVER: [(&str, &str); 1] = [("encryption_key", NEW)];
const IMPORT: [&str; 5] = ["import", "--from", "old/storage", "--status", "old/transfer_status.json"];

/// Everything that can be taken of the fixture.
const GOOD: [(&str, usize); 12] = [
    ("empty.bin", 0),
    ("one.bin", 1),
    ("notes.txt", 27),
    ("page.bin", 4096),
    ("photo-like.bin", 70_000),
    ("secret-empty.bin", 0),
    ("secret-1.bin", 1),
    ("secret-15.bin", 15),
    ("secret-16.bin", 16),
    ("secret-17.bin", 17),
    ("secret-70000.bin", 70_000),
    ("secret-300000.bin", 300_000),
];

/// A place with the older deployment of the fixtures beside it, whole.
fn place() -> Place {
    let place = Place::new();
    for (path, bytes) in files_below(&older()) {
        place.write(Path::new("old").join(path.strip_prefix(older()).unwrap()), &bytes);
    }
    for (name, length) in GOOD.into_iter().filter(|(name, _)| !name.starts_with("secret")) {
        place.write(format!("old/storage/{name}"), &older_content(name, length));
    }
    place.write("old/storage/chunks/.gitkeep", b"");
    place
}

/// A place with an older deployment of these records and plain files.
fn place_with(records: &Value, files: &[(&str, &[u8])]) -> Place {
    let place = Place::new();
    std::fs::create_dir_all(place.path().join("old/storage")).unwrap();
    for (path, bytes) in files {
        place.write(Path::new("old/storage").join(path), bytes);
    }
    let status = json!({"transfers": records, "queue": [], "metadata": {"version": "1.0"}});
    place.write("old/transfer_status.json", status.to_string().as_bytes());
    place
}

fn completed(bytes: &[u8]) -> Value {
    json!({"status": "completed", "checksum": sha256(bytes), "encryption": false, "priority": 3,
        "created_at": "2024-10-24T07:50:00", "updated_at": "2024-10-24T07:51:00", "client_ip": "10.0.0.1"})
}

fn refused(report: &Value) -> Vec<(&str, &str)> {
    let refused = report["refused"].as_array().expect("a list").iter();
    refused
        .map(|one| (one["code"].as_str().expect("a code"), one["name"].as_str().expect("a name")))
        .collect()
}

/// What the status file says of each transfer, but numbers of changes and times of files, which are not the same every time.
fn recorded(place: &Place) -> Vec<Value> {
    let status: Value = serde_json::from_slice(&place.read("status.json").expect("a status")).expect("JSON");
    let mut all: Vec<Value> = status["transfers"].as_object().expect("transfers").values().cloned().collect();
    all.extend(status["history"].as_array().expect("history").iter().cloned());
    for transfer in &mut all {
        for member in ["seq", "file", "nonce", "tag"] {
            transfer.as_object_mut().expect("a transfer").remove(member);
        }
    }
    all.sort_by_key(|transfer| transfer["id"].to_string());
    all
}

/// That a server on this place has everything of the fixture.
async fn has_everything(place: &Place) {
    let old: Value = serde_json::from_slice(&place.read("old/transfer_status.json").unwrap()).unwrap();
    let app = place.server(&SERVER).await;
    for (name, length) in GOOD {
        let bytes = older_content(name, length);
        let got = app.get(&format!("/download/{name}")).await.expect(200);
        assert_eq!(got.body, bytes, "{name}");
        assert_eq!(got.header("etag"), format!("\"{}\"", sha256(&bytes)), "{name}");
        let (now, then) = (app.status(name).await, &old["transfers"][name]);
        assert_eq!(
            (&now["created_at"], &now["updated_at"]),
            (&time(&then["created_at"]), &time(&then["updated_at"]))
        );
        for member in
            ["status", "checksum", "encryption", "priority", "client_ip", "client_agent", "client_id"]
        {
            assert_eq!(now[member], then[member], "{name}: {member}");
        }
        assert_eq!(now["total_bytes"], length, "the older server counted whole requests");
    }
    let cancelled = app.status("cancelled.txt").await;
    assert_eq!(
        (&cancelled["status"], &cancelled["created_at"]),
        (&"cancelled".into(), &"2024-10-24T07:50:42Z".into())
    );
    assert_eq!(app.names().await.len(), GOOD.len());
    for absent in ["gone.txt", "secret-tampered.bin"] {
        app.get(&format!("/download/{absent}")).await.error(404, "not_found");
    }
    assert!(app.leftovers().is_empty());
    app.stop().await;
}

/// An older time as it is shown here.
fn time(older: &Value) -> Value {
    let shown = older.as_str().expect("a time").trim_end_matches('0').trim_end_matches('.').to_owned();
    format!("{shown}Z").into()
}

#[tokio::test]
async fn a_whole_deployment_is_taken_over_and_only_once() {
    let place = place();
    let before = files_below(&place.path().join("old"));
    let report = place.sft(&KEYS, &[&IMPORT[..], &["--json"]].concat()).await.exits(1).json();
    let bad = [("missing", "gone.txt"), ("damaged", "secret-tampered.bin")];
    assert_eq!(refused(&report), bad);
    assert_eq!(
        (&report["taken"], &report["history"], &report["present"]),
        (&12.into(), &1.into(), &0.into())
    );
    assert_eq!((&report["success"], &report["code"]), (&false.into(), &"import_incomplete".into()));
    assert_eq!(files_below(&place.path().join("old")), before, "nothing there is touched");
    for name in ["secret-1.bin", "secret-300000.bin"] {
        assert!(!place.storage().join(name).exists() && place.container(name).exists(), "{name}");
    }
    has_everything(&place).await;
    place.sft(&[("ENCRYPTION_KEY", NEW)], &["verify"]).await.exits(0);

    let records = recorded(&place);
    let files = files_below(&place.storage());
    let again = place.sft(&KEYS, &[&IMPORT[..], &["--json"]].concat()).await.exits(1).json();
    assert_eq!((&again["taken"], &again["history"], &again["present"]), (&0.into(), &0.into(), &13.into()));
    assert_eq!(recorded(&place), records);
    let without_lock = |files: std::collections::BTreeMap<PathBuf, Vec<u8>>| {
        files.into_iter().filter(|(path, _)| !path.ends_with("lock")).collect::<Vec<_>>()
    };
    assert_eq!(without_lock(files_below(&place.storage())), without_lock(files));
    // What is mended there is taken later.
    place.write("old/storage/gone.txt", b"");
    let text = place.sft(&KEYS, &IMPORT).await.exits(1);
    assert!(
        text.stdout().contains("damaged: gone.txt: its content has the SHA-256 e3b0c442"),
        "{}",
        text.stdout()
    );
    assert!(
        text.stderr().starts_with("error: took 0 files (0 B) and 0 other records; 13 were here"),
        "{}",
        text.stderr()
    );
}

#[tokio::test]
async fn a_rehearsal_reports_the_same_and_writes_nothing() {
    let place = place();
    let before = place.everything();
    let rehearsed = place.sft(&KEYS, &[&IMPORT[..], &["--dry-run", "--json"]].concat()).await.exits(1).json();
    assert_eq!(place.everything(), before);
    assert!(!place.storage().exists());
    let mut done = place.sft(&KEYS, &[&IMPORT[..], &["--json"]].concat()).await.exits(1).json();
    let words = |report: &Value| report["error"].as_str().unwrap().replace("would take", "took");
    assert_eq!(words(&rehearsed), words(&done));
    for member in ["taken", "history", "present", "bytes", "refused", "unchecked"] {
        assert_eq!(rehearsed[member], done[member].take(), "{member}");
    }
    let before = place.everything();
    let again = place.sft(&KEYS, &[&IMPORT[..], &["--dry-run", "--json"]].concat()).await.exits(1).json();
    assert_eq!((&again["taken"], &again["present"]), (&0.into(), &13.into()));
    assert_eq!(place.everything(), before);
}

#[tokio::test]
async fn without_the_key_the_plain_files_are_taken_and_no_key_is_made() {
    let place = place();
    let report = place.sft(&[], &[&IMPORT[..], &["--json"]].concat()).await.exits(1).json();
    assert_eq!(report["taken"], 5);
    assert_eq!(refused(&report).iter().filter(|(code, _)| *code == "unknown_key").count(), 8);
    assert!(!place.storage().join(".sft/secret.key").exists());
    let report = place.sft(&KEYS, &[&IMPORT[..], &["--json"]].concat()).await.exits(1).json();
    assert_eq!((&report["taken"], &report["present"]), (&7.into(), &6.into()));
    has_everything(&place).await;
}

#[tokio::test]
async fn odd_names_and_records_each_have_an_outcome() {
    let mut unchecked = completed(b"unchecked");
    unchecked["checksum"] = Value::Null;
    let mut running = completed(b"");
    running["status"] = "uploading".into();
    let mut newer = completed(b"newer");
    newer["updated_at"] = "2024-10-25T07:51:00".into();
    let records = json!({
        "a?.txt": completed(b"cleaned"),
        "two*.txt": newer,
        "two.txt": completed(b"bears it"),
        "three*.txt": completed(b"older"),
        "three?.txt": newer,
        "???": completed(b"x"),
        "../../outside": completed(b"x"),
        "unchecked": unchecked,
        "running": running,
        "no status": {"checksum": null},
        "failed": {"status": "failed", "error": "why", "retry_count": 2},
        "tampered": completed(b"before"),
    });
    let place = place_with(
        &records,
        &[
            ("a?.txt", b"cleaned"),
            ("two*.txt", b"newer"),
            ("two.txt", b"bears it"),
            ("three*.txt", b"older"),
            ("three?.txt", b"newer"),
            ("unchecked", b"unchecked"),
            ("running", b"half"),
            ("tampered", b"behind"),
            ("unheard-of", b"nothing says so"),
            ("encrypted/unheard-of", b"nothing says so"),
            (".hidden", b""),
        ],
    );
    let report = place.sft(&KEYS, &[&IMPORT[..], &["--json"]].concat()).await.exits(1).json();
    let expected = [
        ("missing", "../../outside"),
        ("invalid_name", "???"),
        ("not_recorded", "encrypted/unheard-of"),
        ("invalid_record", "no status"),
        ("not_recorded", "running"),
        ("damaged", "tampered"),
        ("same_name", "three*.txt"),
        ("same_name", "two*.txt"),
        ("not_recorded", "unheard-of"),
    ];
    assert_eq!(refused(&report), expected);
    assert_eq!((&report["taken"], &report["history"]), (&4.into(), &2.into()));
    assert_eq!(report["unchecked"], json!(["unchecked"]));
    let app = place.server(&SERVER).await;
    for (name, bytes) in
        [("a.txt", "cleaned"), ("two.txt", "bears it"), ("three.txt", "newer"), ("unchecked", "unchecked")]
    {
        assert_eq!(app.download(name).await, bytes.as_bytes(), "{name}");
    }
    assert_eq!(app.status("unchecked").await["checksum"], sha256(b"unchecked"));
    let failed = app.status("failed").await;
    assert_eq!((&failed["error"], &failed["retry_count"]), (&"why".into(), &2.into()));
    let running = app.status("running").await;
    assert_eq!(
        (&running["status"], &running["updated_at"]),
        (&"failed".into(), &"2024-10-24T07:51:00Z".into())
    );
}

#[tokio::test]
async fn what_is_here_already_stays() {
    let records = json!({"other": completed(b"old"), "same": completed(b"same"), "found": completed(b"found"),
        "strange": completed(b"old"), "failed": {"status": "failed"}});
    let files: [(&str, &[u8]); 4] =
        [("other", b"old"), ("same", b"same"), ("found", b"found"), ("strange", b"old")];
    let place = place_with(&records, &files);
    let app = place.server(&SERVER).await;
    for (name, bytes) in [("other", "new"), ("same", "same"), ("failed", "fine")] {
        app.put(name, bytes).await.expect(201);
    }
    let same = app.status("same").await;
    app.stop().await;
    place.write("storage/found", b"found");
    place.write("storage/strange", b"strange");
    for dry_run in [&["--json", "--dry-run"][..], &["--json"]] {
        let report = place.sft(&KEYS, &[&IMPORT[..], dry_run].concat()).await.exits(1).json();
        assert_eq!(refused(&report), [("taken", "other"), ("taken", "strange")]);
        assert_eq!((&report["taken"], &report["present"]), (&0.into(), &3.into()));
    }
    let app = place.server(&SERVER).await;
    assert_eq!(app.download("other").await, b"new");
    assert_eq!(app.download("strange").await, b"strange");
    assert_eq!(app.status("same").await, same);
    assert_eq!(app.status("failed").await["status"], "completed");
    let found = app.status("found").await;
    assert_eq!((&found["updated_at"], &found["priority"]), (&"2024-10-24T07:51:00Z".into(), &3.into()));
    assert!(!app.get("/download/found").await.header("repr-digest").is_empty(), "it is vouched for now");
}

#[tokio::test]
async fn what_is_no_older_deployment_is_told_before_anything_is_made() {
    let place = place();
    place.write("broken.json", b"{\"transfers\": {");
    for (arguments, code) in [
        (&["import", "--from", "old/storage", "--status", "missing"][..], 1),
        (&["import", "--from", "old/storage", "--status", "broken.json"], 1),
        (&["import", "--from", "missing", "--status", "old/transfer_status.json"], 1),
        (&["import", "--from", "old/storage"], 2),
    ] {
        place.sft(&KEYS, arguments).await.exits(code);
        assert!(!place.storage().exists(), "{arguments:?}");
    }
    let here = [("UPLOAD_DIR", "old/storage"), KEYS[0]];
    let refused = place.sft(&here, &IMPORT).await.exits(2);
    assert!(refused.stderr().contains("UPLOAD_DIR must be another"), "{}", refused.stderr());
    place.sft(&KEYS, &IMPORT).await.exits(1);
    let ours = place
        .sft(&KEYS, &["import", "--from", "old/storage", "--status", "status.json", "--log-file", "x"])
        .await;
    assert!(ours.exits(1).stderr().contains("is a status file of this server"));
}

#[tokio::test]
async fn killed_again_and_again_it_ends_as_if_it_had_never_been() {
    let seed = Random::seed("SFT_IMPORT_SEED");
    println!("SFT_IMPORT_SEED={seed}");
    let mut random = Random::new(seed);
    let whole = place();
    whole.sft(&KEYS, &IMPORT).await.exits(1);
    let expected = recorded(&whole);
    for _ in 0..3 {
        let place = place();
        for _ in 0..4 {
            let mut child =
                place.command(&KEYS, &IMPORT).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // Until so many more files stand, and then a little later.
            let stand = |name: &str| place.storage().join(name).exists() || place.container(name).exists();
            let here = |_: ()| GOOD.iter().filter(|(name, _)| stand(name)).count() as u64;
            let enough = here(()) + random.within(0..4);
            while child.try_wait().unwrap().is_none() && here(()) < enough {}
            for _ in 0..random.within(0..100) {
                std::hint::black_box(here(()));
            }
            _ = child.kill();
            _ = child.wait();
        }
        place.sft(&KEYS, &IMPORT).await.exits(1);
        assert_eq!(recorded(&place), expected);
        has_everything(&place).await;
    }
}

#[tokio::test]
async fn a_name_that_was_given_and_not_written_down_is_given_again() {
    let bytes = content(100_000, 1);
    let place = place_with(&json!({"a": completed(&bytes)}), &[("a", &bytes)]);
    place.server(&SERVER).await.stop().await;
    // As it was killed between the two: the file has its name, and still the other one among the uploads.
    let id = TransferId::derived(Timestamp::parse("2024-10-24T07:51:00Z").unwrap(), "a");
    place.write("storage/a", &bytes);
    let data = place.storage().join(format!(".sft/uploads/{id}.data"));
    std::fs::hard_link(place.storage().join("a"), data).unwrap();
    let report = place.sft(&KEYS, &[&IMPORT[..], &["--json"]].concat()).await.exits(0).json();
    assert_eq!((&report["taken"], &report["present"]), (&1.into(), &0.into()));
    assert_eq!(recorded(&place).len(), 1);
    let app = place.server(&SERVER).await;
    assert_eq!(app.download("a").await, bytes);
    assert!(app.leftovers().is_empty());
}

#[tokio::test]
async fn a_server_may_run_between_a_killed_import_and_the_next() {
    // As if it had been killed when the file had its name and nothing said so, and a server had started then.
    let bytes = content(100_000, 1);
    let place = place_with(&json!({"a": completed(&bytes)}), &[("a", &bytes)]);
    place.server(&SERVER).await.stop().await;
    place.write("storage/a", &bytes);
    place.server(&SERVER).await.stop().await;
    let report = place.sft(&KEYS, &[&IMPORT[..], &["--json"]].concat()).await.exits(0).json();
    assert_eq!((&report["success"], &report["present"]), (&true.into(), &1.into()));
    let app = place.server(&SERVER).await;
    let status = app.status("a").await;
    assert_eq!(
        (&status["updated_at"], &status["client_ip"]),
        (&"2024-10-24T07:51:00Z".into(), &"10.0.0.1".into())
    );
    assert_eq!(app.download("a").await, bytes);
}
