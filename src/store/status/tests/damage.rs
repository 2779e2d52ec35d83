//! The snapshot and its backup: damaged, missing, put back by hand.

use super::*;

/// A store with two snapshots and changes after the second, stopped by a kill.
fn with_two_snapshots(home: &Home) -> View {
    let mut store = home.open();
    store.upload("a", b"first");
    store.snapshot();
    store.upload("a", b"second");
    store.upload("b", b"hello");
    store.snapshot();
    let id = store.begin("c");
    store.note(failed(id));
    store.begin("d");
    let view = store.view();
    store.kill();
    view
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_backup_is_the_snapshot_before() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.snapshot();
    assert!(!home.backup().exists());
    let first = std::fs::read(home.layout.status()).unwrap();
    store.upload("b", b"hello");
    store.snapshot();
    assert_eq!(std::fs::read(home.backup()).unwrap(), first);
    let second = std::fs::read(home.layout.status()).unwrap();
    assert_ne!(first, second);
    store.upload("c", b"hello");
    store.snapshot();
    assert_eq!(std::fs::read(home.backup()).unwrap(), second);
}

#[test]
fn segments_go_once_the_backup_covers_them() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.snapshot();
    assert_eq!(home.file_names(), ["", ".journal", ".journal.1"], "there is no backup yet");
    store.upload("b", b"hello");
    store.snapshot();
    assert_eq!(home.file_names(), ["", ".backup", ".journal", ".journal.3"]);
    store.upload("c", b"hello");
    store.snapshot();
    assert_eq!(home.file_names(), ["", ".backup", ".journal", ".journal.5"]);
    store.snapshot();
    assert_eq!(home.file_names(), ["", ".backup", ".journal", ".journal.5"], "nothing has changed");
    store.stop();
    let mut store = home.open();
    store.upload("d", b"hello");
    store.snapshot();
    assert_eq!(home.file_names(), ["", ".backup", ".journal", ".journal.7"], "a restart keeps count");
}

#[test]
fn the_backup_put_back_by_hand_loses_nothing() {
    let home = Home::new();
    let before = with_two_snapshots(&home);
    std::fs::copy(home.backup(), home.layout.status()).unwrap();
    let mut store = home.open();
    assert_eq!(store.view(), before);
    assert_eq!(store.opened.remarks.len(), 0, "{:?}", store.opened.remarks);
    // And it stays so with what comes after.
    store.upload("e", b"hello");
    let before = store.view();
    store.snapshot();
    store.kill();
    let store = home.open();
    assert_eq!(store.view(), before);
    store.kill();
    std::fs::copy(home.backup(), home.layout.status()).unwrap();
    assert_eq!(home.open().view(), before);
}

#[test]
fn a_missing_status_file_is_made_again_from_its_backup() {
    let home = Home::new();
    let before = with_two_snapshots(&home);
    remove(home.layout.status());
    let mut store = home.open();
    assert_eq!(store.view(), before);
    assert!(store.opened.remarks[0].ends_with("is missing; its backup was read in its place"));
    assert_eq!(store.opened.remarks.len(), 1);
    store.committer.snapshot_if_due();
    store.snapshot();
    store.kill();
    assert!(home.layout.status().exists());
    let store = home.open();
    assert_eq!((store.view(), store.opened.remarks.len()), (before, 0));
}

/// A store that changes nothing makes it again too.
#[test]
fn a_missing_status_file_is_there_after_a_start_and_a_stop() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.snapshot();
    let before = store.view();
    store.stop();
    for _ in 0..2 {
        remove(home.layout.status());
        let store = home.open();
        assert_eq!(store.view(), before, "from the journal alone");
        store.stop();
        assert!(home.layout.status().exists());
    }
}

#[test]
fn wherever_the_status_file_is_damaged_nothing_is_lost() {
    let home = Home::new();
    let before = with_two_snapshots(&home);
    let whole = std::fs::read(home.layout.status()).unwrap();
    let backup = std::fs::read(home.backup()).unwrap();
    let mut damages: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), Vec::new()),
        ("zeros".into(), vec![0; whole.len()]),
        ("twice".into(), whole.repeat(2)),
        ("a byte too many in the middle".into(), {
            let mut bytes = whole.clone();
            bytes.insert(whole.len() / 2, b' ');
            bytes
        }),
    ];
    // The last line feed is no part of what is checked.
    damages.extend((1..whole.len() - 1).step_by(7).map(|at| (format!("cut at {at}"), whole[..at].to_vec())));
    let digit = whole.windows(8).position(|window| window == b"\"size\":5").unwrap() + 7;
    for at in (0..whole.len() - 1).step_by(5).chain([digit]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        damages.push((format!("a bit at {at}"), bytes));
    }
    for (what, bytes) in damages {
        put(home.layout.status(), &bytes);
        let store = home.open();
        assert_eq!(store.view(), before, "{what}");
        if store.opened.remarks.is_empty() {
            // The key itself was hit: it is as if it had been taken out by hand, and nothing else is damaged.
            assert!(bytes.starts_with(&whole[..whole.len() - 25]), "{what}");
            assert!(!String::from_utf8_lossy(&bytes).contains("\"crc32\""), "{what}");
        } else {
            assert!(
                store.opened.remarks[0].contains("status.json is damaged: "),
                "{:?}",
                store.opened.remarks
            );
            assert!(store.opened.remarks[0].ends_with("its backup was read in its place"));
            assert_eq!(std::fs::read(home.beside(".damaged")).unwrap(), bytes, "it is kept to be looked at");
            assert!(!home.layout.status().exists(), "and not made the backup");
        }
        store.kill();
        assert_eq!(std::fs::read(home.backup()).unwrap(), backup);
    }
}

#[test]
fn what_is_damaged_never_becomes_the_backup() {
    let home = Home::new();
    let before = with_two_snapshots(&home);
    put(home.layout.status(), b"{");
    let mut store = home.open();
    store.snapshot();
    store.kill();
    std::fs::copy(home.backup(), home.layout.status()).unwrap();
    let store = home.open();
    assert_eq!((store.view(), store.opened.remarks.len()), (before, 0));
}

#[test]
fn with_both_damaged_nothing_is_touched_and_both_are_named() {
    let home = Home::new();
    with_two_snapshots(&home);
    for main in [Some(&b"{"[..]), Some(b""), None] {
        put(home.layout.status(), main.unwrap_or_default());
        if main.is_none() {
            remove(home.layout.status());
        }
        put(&home.backup(), br#"{"transfers": {}, "crc32": "00000000"}"#);
        let before = home.files();
        let error = home.try_open().err().unwrap();
        assert!(matches!(error, OpenError::Snapshot { .. }), "{error}");
        let error = error.to_string();
        for part in ["status.json ", "status.json.backup is damaged: ", "Nothing was changed"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(home.files(), before);
    }
    put(home.layout.status(), b"{");
    remove(&home.backup());
    let error = home.try_open().err().unwrap().to_string();
    assert!(error.contains("there is no ") && error.contains("status.json.backup"), "{error}");
}

/// The damaged snapshot was moved away before the journal turned out to be damaged too.
#[test]
fn a_damaged_snapshot_stays_where_it_is_if_the_journal_is_damaged_too() {
    let home = Home::new();
    with_two_snapshots(&home);
    put(home.layout.status(), b"{");
    let journal = std::fs::read_to_string(home.journal()).unwrap();
    put(&home.journal(), journal.replacen("hung up", "hung-up", 1).as_bytes());
    let closed = home.beside(".journal.3");
    put(&closed, &std::fs::read(&closed).unwrap()[1..]);
    let before = home.files();
    let error = home.try_open().err().unwrap();
    assert!(matches!(error, OpenError::Journal(_)), "{error}");
    assert_eq!(home.files(), before);
}

#[test]
fn a_status_file_that_cannot_be_opened_is_not_a_damaged_one() {
    let home = Home::new();
    with_two_snapshots(&home);
    remove(home.layout.status());
    std::fs::create_dir(home.layout.status()).unwrap();
    let error = home.try_open().err().unwrap();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    assert!(home.layout.status().is_dir());
}

#[test]
fn without_any_snapshot_a_journal_that_begins_later_is_an_error() {
    let home = Home::new();
    with_two_snapshots(&home);
    remove(home.layout.status());
    remove(&home.backup());
    let before = home.files();
    let error = home.try_open().err().unwrap();
    assert!(matches!(error, OpenError::Missing { first_seq: 3, .. }), "{error}");
    assert_eq!(home.files(), before);
}

#[test]
fn an_older_copy_put_back_is_told_and_goes_on_with_new_numbers() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.snapshot();
    let old = std::fs::read(home.layout.status()).unwrap();
    for filename in ["b", "c", "d"] {
        store.upload(filename, b"hello");
        store.snapshot();
    }
    store.stop();
    put(home.layout.status(), &old);
    let mut store = home.open();
    assert_eq!(store.opened.remarks.len(), 1);
    assert!(store.opened.remarks[0].contains("ends at change 2 and its journal begins after 6"));
    assert_eq!(store.store.name_count(), 2, "a from the copy, d from the journal");
    let after = store.upload("e", b"hello");
    assert_eq!(after.seq, 10, "numbers that were given away once are not used again");
    store.snapshot();
    store.upload("f", b"hello");
    let before = store.view();
    store.kill();
    let store = home.open();
    assert_eq!((store.view(), store.opened.remarks.len()), (before, 0));
}

/// With an empty journal the numbers began again at 1, in a segment that was to begin at 9.
#[test]
fn an_older_copy_beside_an_empty_journal_keeps_the_order_too() {
    let home = Home::new();
    let mut store = home.open();
    store.snapshot();
    let old = std::fs::read(home.layout.status()).unwrap();
    for filename in ["a", "b", "c", "d"] {
        store.upload(filename, b"hello");
    }
    store.stop();
    put(home.layout.status(), &old);
    remove(&home.beside(".journal.1"));
    let mut store = home.open();
    assert_eq!((store.store.name_count(), store.opened.remarks.len()), (0, 1));
    for round in 0..6 {
        assert_eq!(store.upload("a", &[round]).seq, u64::from(round) * 2 + 10);
        store.snapshot();
    }
    let before = store.view();
    assert_eq!(before.standing[0].checksum, Some(digest(&[5])));
    store.kill();
    std::fs::copy(home.backup(), home.layout.status()).unwrap();
    let store = home.open();
    assert_eq!((store.view(), store.opened.remarks.len()), (before, 0));
}

/// Numbers began again at 1, and the next start took the journal for older than the snapshot.
#[test]
fn a_journal_moved_away_begins_again_after_the_snapshot() {
    let home = Home::new();
    let mut store = home.open_with(Durability::Process, 0);
    let id = store.begin("forgotten");
    store.note(failed(id));
    store.stop();
    for name in home.file_names().iter().filter(|name| name.starts_with(".journal")) {
        remove(&home.beside(name));
    }
    let mut store = home.open();
    store.upload("a", b"hello");
    let before = store.view();
    assert_eq!((before.seq, before.standing.len()), (4, 1));
    store.kill();
    assert_eq!(home.open().view(), before);
}
