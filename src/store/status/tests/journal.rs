//! The journal: its torn end, and damage that is none.

use super::*;
use crate::store::status::journal::remove_up_to;

fn lines(path: &Path) -> Vec<Vec<u8>> {
    std::fs::read(path).unwrap().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Four changes, the last two of which are in memory and in the journal but not known to be flushed.
fn with_four_changes(home: &Home) -> Vec<View> {
    let mut store = home.open();
    store.snapshot();
    let id = store.begin("a");
    store.complete(id, "a", b"hello", Condition::Any).unwrap();
    let mut views = vec![store.view()];
    store.begin("b");
    views.push(store.view());
    store.begin("c");
    views.push(store.view());
    store.kill();
    views
}

fn error(home: &Home) -> String {
    let before = home.files();
    let error = home.try_open().err().unwrap();
    assert!(matches!(error, OpenError::Journal(_)), "{error}");
    assert_eq!(home.files(), before, "nothing was changed");
    error.to_string()
}

#[test]
fn a_line_is_a_checksum_and_a_change() {
    let home = Home::new();
    with_four_changes(&home);
    let text = std::fs::read_to_string(home.journal()).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    assert_eq!(lines[0], ("f2cf9908", r#"{"journal":1,"first_seq":1}"#));
    for (checksum, json) in &lines {
        assert_eq!(*checksum, format!("{:08x}", crc32fast::hash(json.as_bytes())));
    }
    let seqs = lines[1..].iter().map(|(_, json)| {
        let line: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(line["transfer"]["seq"], line["seq"]);
        (line["seq"].as_u64().unwrap(), line["flushed"].as_u64().unwrap(), line["after"].is_null())
    });
    // The third and the fourth were written after the second had been flushed.
    assert_eq!(seqs.collect::<Vec<_>>(), [(1, 0, true), (2, 0, true), (3, 2, true), (4, 2, true)]);
}

#[test]
fn a_journal_torn_at_any_byte_of_its_last_line_is_whole_up_to_there() {
    let home = Home::new();
    let views = with_four_changes(&home);
    let whole = std::fs::read(home.journal()).unwrap();
    let last = lines(&home.journal()).pop().unwrap().len();
    for kept in 0..last {
        let journal = &whole[..whole.len() - last + kept];
        put(&home.journal(), journal);
        let mut store = home.open();
        assert_eq!(store.view(), views[1], "{kept} bytes of the last line");
        let remarks = std::mem::take(&mut store.opened.remarks);
        if kept == 0 {
            assert_eq!(remarks.len(), 0);
        } else {
            assert!(remarks[0].starts_with(&format!("{kept} bytes at the end of the journal were torn")));
        }
        store.begin("d");
        let before = store.view();
        store.kill();
        let store = home.open();
        assert_eq!((store.view(), store.opened.remarks.len()), (before, 0), "{kept}: it can be appended to");
        store.kill();
        assert_eq!(std::fs::read(home.journal()).unwrap()[..whole.len() - last], whole[..whole.len() - last]);
    }
    put(&home.journal(), &whole);
    assert_eq!(home.open().view(), views[2]);
}

#[test]
fn a_damaged_last_line_is_a_torn_one() {
    let home = Home::new();
    let views = with_four_changes(&home);
    let whole = std::fs::read(home.journal()).unwrap();
    let last = lines(&home.journal()).pop().unwrap().len();
    for at in whole.len() - last..whole.len() {
        let mut journal = whole.clone();
        journal[at] ^= 4;
        put(&home.journal(), &journal);
        let store = home.open();
        assert_eq!(store.view(), views[1], "byte {at}");
        store.kill();
    }
}

/// A disk writes what is being flushed in any order: that was no reason to refuse a start after a loss of power.
#[test]
fn the_end_of_what_was_being_flushed_may_be_there_without_its_beginning() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    let before = store.view();
    for filename in ["b", "c", "d", "e"] {
        store.begin(filename);
    }
    store.kill();
    let whole = lines(&home.journal());
    // With the line that they end in, the lost bytes of the third are one bad line; two whole ones follow.
    let zeros = vec![0; whole[3].len()];
    put(&home.journal(), &[&whole[..3].concat()[..], &zeros, &whole[4..].concat()].concat());
    let mut store = home.open();
    assert_eq!(store.view(), before, "what comes after is not taken for what it follows");
    assert_eq!(store.opened.remarks.len(), 1);
    store.upload("d", b"hello");
    let before = store.view();
    store.kill();
    let store = home.open();
    assert_eq!((store.view(), store.opened.remarks.len()), (before, 0));
}

#[test]
fn damage_in_what_had_been_flushed_is_told_with_its_line() {
    let home = Home::new();
    with_four_changes(&home);
    let whole = std::fs::read(home.journal()).unwrap();
    let lengths: Vec<_> = lines(&home.journal()).iter().map(Vec::len).collect();
    let mut begin = 0;
    for (index, length) in lengths[..3].iter().enumerate() {
        for at in (begin..begin + length).step_by(11).chain([begin + length - 1]) {
            let mut journal = whole.clone();
            journal[at] ^= 4;
            put(&home.journal(), &journal);
            let error = error(&home);
            // The header is checked before all.
            let line = index + 1;
            assert!(
                error.contains(&format!("status.json.journal is damaged at line {line} (")),
                "{at}: {error}"
            );
            assert!(error.contains("status.json without the changes it holds"), "{error}");
        }
        begin += length;
    }
    put(&home.journal(), b"");
    assert!(error(&home).contains("line 1 (it has no whole header)"));
}

#[test]
fn lines_and_segments_that_are_missing_are_told() {
    let home = Home::new();
    with_four_changes(&home);
    let mut whole = lines(&home.journal());
    whole.remove(2);
    put(&home.journal(), &whole.concat());
    assert!(error(&home).contains("line 3 (changes before it are missing)"));

    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.snapshot();
    for filename in ["b", "c", "d"] {
        store.upload(filename, b"hello");
        let next = store.committer.seq() + 1;
        store.committer.journal.rotate(next).unwrap();
    }
    let view = store.view();
    store.kill();
    assert_eq!(home.file_names(), ["", ".journal", ".journal.1", ".journal.3", ".journal.5", ".journal.7"]);
    let segment = home.beside(".journal.5");
    let whole = std::fs::read(&segment).unwrap();
    std::fs::remove_file(&segment).unwrap();
    assert!(
        error(&home).contains("status.json.journal.7 is damaged at line 1 (changes before it are missing)")
    );
    // What the snapshot holds may be missing.
    put(&segment, &whole);
    std::fs::remove_file(home.beside(".journal.1")).unwrap();
    let store = home.open();
    assert_eq!((store.view(), store.opened.remarks.len()), (view, 0));
    store.kill();
    let torn = &whole[..whole.len() - 1];
    put(&segment, torn);
    assert!(
        error(&home).contains("journal.5 is damaged at line 3 (its checksum does not match, and a closed")
    );
    put(&segment, &std::fs::read(home.beside(".journal.3")).unwrap());
    assert!(error(&home).contains("journal.5 is damaged at line 1 "));
}

#[test]
fn a_journal_of_a_later_version_is_not_read() {
    let home = Home::new();
    with_four_changes(&home);
    let header = br#"{"journal":2,"first_seq":1}"#;
    put(
        &home.journal(),
        format!("{:08x} {}\n", crc32fast::hash(header), str::from_utf8(header).unwrap()).as_bytes(),
    );
    assert!(error(&home).contains("its version is not known to this server"));
}

/// A note that found no room left a hole, and what came after it was taken for the end.
#[test]
fn numbers_that_are_not_in_the_journal_are_told_from_lines_that_are_lost() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    // As notes do on a full disk: counted, but not written.
    store.committer.shared.state.write().unwrap().seq += 3;
    store.upload("b", b"hello");
    store.committer.shared.state.write().unwrap().seq += 2;
    let next = store.committer.seq() + 1;
    store.committer.journal.rotate(next).unwrap();
    store.upload("c", b"hello");
    store.committer.shared.state.write().unwrap().seq += 1;
    store.snapshot();
    let before = store.view();
    store.kill();
    let store = home.open();
    assert_eq!((store.view(), store.opened.remarks.len()), (before, 0));
    store.kill();
    std::fs::remove_file(home.layout.status()).unwrap();
    let store = home.open();
    assert_eq!(store.store.standing().len(), 3, "and by the journal alone");
    assert_eq!(store.view().seq, 12);
}

/// A snapshot that knows more than the journal, from a copy or because the journal was not flushed when power was lost.
#[test]
fn a_journal_that_ends_before_the_snapshot_is_not_taken_for_whole_by_the_backup() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.snapshot();
    let journal = std::fs::read(home.journal()).unwrap();
    store.upload("b", b"hello");
    store.upload("c", b"hello");
    store.snapshot();
    let before = store.view();
    store.kill();
    std::fs::remove_file(home.beside(".journal.3")).unwrap();
    put(&home.journal(), &journal);
    let mut store = home.open();
    assert_eq!((store.view(), store.opened.remarks.len()), (before, 0));
    store.upload("d", b"hello");
    let before = store.view();
    store.kill();
    let store = home.open();
    assert_eq!(store.view(), before);
    store.kill();
    std::fs::copy(home.backup(), home.layout.status()).unwrap();
    let remarks = home.try_open().map(|store| store.opened.remarks);
    let told = remarks.map_or_else(|error| error.to_string(), |remarks| remarks.concat());
    assert!(told.contains("journal"), "b and c are lost, and that is told: {told:?}");
}

#[test]
fn only_whole_segments_are_removed() {
    let home = Home::new();
    let mut store = home.open();
    for filename in ["a", "b", "c"] {
        store.upload(filename, b"hello");
        let next = store.committer.seq() + 1;
        store.committer.journal.rotate(next).unwrap();
    }
    for (seq, left) in [
        (0, &[".journal", ".journal.1", ".journal.3", ".journal.5"][..]),
        (1, &[".journal", ".journal.1", ".journal.3", ".journal.5"]),
        (2, &[".journal", ".journal.3", ".journal.5"]),
        (5, &[".journal", ".journal.5"]),
        (6, &[".journal"]),
        (100, &[".journal"]),
    ] {
        remove_up_to(home.layout.status(), seq).unwrap();
        assert_eq!(home.file_names(), left, "up to {seq}");
    }
}
