//! `sft verify`

use serde_json::Value;

use super::harness::{KEY, Place};
use crate::support::content;
use crate::support::process::Process;

const KEYED: [(&str, &str); 1] = [("ENCRYPTION_KEY", KEY)];
const SERVER: [(&str, &str); 1] = [("encryption_key", KEY)];

fn bad(report: &Value) -> Vec<(&str, &str)> {
    let found = report["bad"].as_array().expect("a list").iter();
    found
        .map(|bad| (bad["code"].as_str().expect("a code"), bad["filename"].as_str().expect("a name")))
        .collect()
}

#[tokio::test]
async fn what_was_stored_is_good_plain_and_sealed_and_nothing_is_touched() {
    let files: [(&str, &[u8]); 4] = [
        ("empty", b""),
        ("plain", &content(2_500_000, 1)),
        ("sealed", &content(2_500_000, 2)),
        ("sealed-empty", b""),
    ];
    let place = Place::with(&SERVER, &files).await;
    let before = place.everything();
    let report = place.sft(&KEYED, &["verify", "--json"]).await.exits(0).json();
    assert_eq!(
        (&report["success"], &report["checked"], &report["bytes"]),
        (&true.into(), &4.into(), &5_000_000.into())
    );
    let text = place.sft(&KEYED, &["verify"]).await.exits(0).stdout();
    assert_eq!(text, "verified 4 files (4.77 MiB): 4 good, 0 bad\n");
    assert_eq!(place.sft(&KEYED, &["verify", "-q"]).await.exits(0).stdout(), "");
    assert_eq!(place.everything(), before, "it only reads");
}

#[tokio::test]
async fn every_kind_of_damage_has_its_line() {
    let sealed = content(300_000, 3);
    let place = Place::with(
        &SERVER,
        &[
            ("good", b"g"),
            ("flipped", b"abc"),
            ("gone", b"x"),
            ("sealed-flipped", &sealed),
            ("sealed-other", &sealed),
            ("sealed-gone", b"x"),
            ("sealed-short", &sealed),
            ("sealed-swapped", b"1"),
        ],
    )
    .await;
    place.damage("storage/flipped", 1);
    place.damage(place.container("sealed-flipped"), 200_000);
    std::fs::remove_file(place.storage().join("gone")).unwrap();
    std::fs::remove_file(place.container("sealed-gone")).unwrap();
    let short = place.read(place.container("sealed-short")).unwrap();
    place.write(place.container("sealed-short"), &short[..20]);
    let genuine = place.read(place.container("sealed-other")).unwrap();
    place.write(place.container("sealed-swapped"), &genuine);
    place.write("storage/by-hand", b"nobody told the server");
    let before = place.everything();
    let report = place.sft(&KEYED, &["verify", "--json"]).await.exits(1).json();
    let expected = [
        ("not_recorded", "by-hand"),
        ("damaged", "flipped"),
        ("missing", "gone"),
        ("damaged", "sealed-flipped"),
        ("missing", "sealed-gone"),
        ("damaged", "sealed-short"),
        ("damaged", "sealed-swapped"),
    ];
    assert_eq!(bad(&report), expected);
    assert_eq!((&report["success"], &report["code"]), (&false.into(), &"verification_failed".into()));
    let text = place.sft(&KEYED, &["verify", "good", "flipped", "nothing"]).await.exits(1);
    let lines: Vec<_> = text.stdout().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("damaged: flipped: its content has the SHA-256 "), "{lines:?}");
    assert_eq!(lines[1..], ["missing: nothing: it is missing"]);
    assert!(text.stderr().starts_with("error: verified 3 files (4 B): 1 good, 2 bad"), "{}", text.stderr());
    place.sft(&KEYED, &["verify", "good", "sealed-other"]).await.exits(0);
    assert_eq!(place.everything(), before, "it only reads");
}

#[tokio::test]
async fn a_key_that_is_not_there_is_told_as_that() {
    let place = Place::with(&SERVER, &[("sealed", b"x"), ("plain", b"y")]).await;
    for settings in [&[][..], &[("ENCRYPTION_KEY", "a key that sealed nothing")]] {
        let report = place.sft(settings, &["verify", "--json"]).await.exits(1).json();
        assert_eq!(bad(&report), [("unknown_key", "sealed")]);
    }
}

#[tokio::test]
async fn a_running_server_keeps_its_directory() {
    let place = Place::with(&SERVER, &[("a", b"x")]).await;
    let (server, _) = Process::start(place.path(), &KEYED).await;
    let refused = place.sft_once(&KEYED, &["verify"]).await.exits(1);
    assert!(refused.stderr().contains("in use by another server"), "{}", refused.stderr());
    assert!(refused.stderr().contains("SCRUB_INTERVAL"), "{}", refused.stderr());
    drop(server);
    // It was killed: what it left in the journal is read all the same.
    place.sft(&KEYED, &["verify"]).await.exits(0);
}

#[tokio::test]
async fn a_directory_that_is_none_is_told_and_not_made() {
    let place = Place::new();
    let failed = place.sft(&[], &["verify", "--json"]).await.exits(1).json();
    assert_eq!(failed["code"], "storage_failed");
    assert!(place.everything().is_empty() && !place.storage().exists());
}
