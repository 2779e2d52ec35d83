use super::*;
use crate::store::Durability;
use crate::store::status::tests::{ByHand, Home, completed, digest, failed, limits, name, put, upload_of};
use crate::store::status::{Condition, Publish, StatusStoreGuard};

/// A server that starts after a crash, with what it found.
struct Started {
    store: StatusStore,
    recovered: Recovered,
    _guard: StatusStoreGuard,
}

fn start(home: &Home) -> Started {
    let (store, guard, _) = StatusStore::open(&home.layout, Durability::Process, limits(1000)).unwrap();
    let files = Files::new(home.layout.clone()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let recovered = runtime.block_on(recover(&home.layout, &files, &store, None)).unwrap();
    assert_eq!(store.running(), [], "nothing runs after a start");
    assert_eq!(std::fs::read_dir(home.layout.uploads()).unwrap().count(), 0, "and nothing is left of it");
    Started { store, recovered, _guard: guard }
}

fn path(home: &Home, filename: &str) -> std::path::PathBuf {
    home.layout.file(&name(filename))
}

/// Publishes as the committer does, and is killed before the journal says so.
fn publish_and_die(store: ByHand, id: TransferId, filename: &str, content: &[u8], condition: Condition) {
    let (staged, _) = store.stage(id, content);
    let publish = store.publish(&staged, filename, condition.clone());
    atomic::publish(publish.staged(), publish.target(), condition == Condition::New).unwrap();
    std::mem::forget(staged);
    store.kill();
}

#[test]
fn a_clean_end_leaves_nothing_to_do() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    let id = store.begin("b");
    store.note(failed(id));
    let before = store.view();
    store.kill();
    let started = start(&home);
    assert_eq!(started.recovered, Recovered::default());
    drop(started);
    assert_eq!(home.open().view(), before);
}

#[test]
fn what_was_published_but_not_acknowledged_is_complete() {
    for (condition, overwritten) in [(Condition::New, false), (Condition::Any, false), (Condition::Any, true)]
    {
        let home = Home::new();
        let mut store = home.open();
        if overwritten {
            store.upload("a", b"before");
        }
        let id = store.begin("a");
        publish_and_die(store, id, "a", b"hello", condition);
        let started = start(&home);
        let expected = Recovered { adopted: 1, removed: 1, ..Recovered::default() };
        assert_eq!(started.recovered, expected, "overwritten: {overwritten}");
        let transfer = started.store.current(&name("a")).unwrap();
        assert_eq!(
            (transfer.id, transfer.is_stored(), transfer.checksum),
            (id, true, Some(digest(b"hello")))
        );
        assert_eq!(&*transfer.client.id, "desk-7");
        let file = started.store.file(&name("a")).unwrap();
        assert_eq!((file.checksum, file.file.map(|file| file.size)), (Some(digest(b"hello")), Some(5)));
        assert_eq!(started.store.standing().len(), 1);
        drop(started);
        assert_eq!(start(&home).recovered, Recovered::default(), "once");
        assert_eq!(std::fs::read(path(&home, "a")).unwrap(), b"hello");
    }
}

/// The form bore another name after the file: the journal knows only the first one.
#[test]
fn what_was_published_under_another_name_than_it_began_is_complete_under_that_one() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("report.pdf", b"before");
    let id = store.begin("upload.bin");
    // Somebody else's file, newer than the upload: it is not the one.
    put(&path(&home, "upload.bin"), b"theirs");
    publish_and_die(store, id, "report.pdf", b"hello", Condition::Any);
    let started = start(&home);
    assert_eq!(started.recovered, Recovered { adopted: 1, removed: 1, foreign: 1, ..Recovered::default() });
    let transfer = started.store.current(&name("report.pdf")).unwrap();
    assert_eq!((transfer.id, transfer.checksum), (id, Some(digest(b"hello"))));
    assert_eq!(started.store.current(&name("upload.bin")), None);
    assert_eq!(started.store.file(&name("upload.bin")).unwrap().checksum, None);
}

#[test]
fn a_large_file_and_an_empty_one_get_their_digests() {
    let large: Vec<u8> = (0..(1 << 18) + 1).map(|n: u32| n.to_le_bytes()[0]).collect();
    for content in [&large[..], &large[..1 << 18], b""] {
        let home = Home::new();
        let mut store = home.open();
        let id = store.begin("a");
        publish_and_die(store, id, "a", content, Condition::New);
        let checksum = start(&home).store.file(&name("a")).unwrap().checksum;
        assert_eq!(checksum, Some(digest(content)), "{} bytes", content.len());
    }
}

#[test]
fn what_was_not_published_has_failed_and_leaves_nothing() {
    let home = Home::new();
    let mut store = home.open();
    let standing = store.upload("a", b"standing");
    let whole = store.begin("a");
    std::mem::forget(store.stage(whole, b"whole, but not published"));
    let never_began = store.begin("b");
    let linked = store.begin("c");
    let (staged, _) = store.stage(linked, b"killed between the second name and the new one");
    std::fs::hard_link(staged.path(), atomic::with_suffix(staged.path(), ".publishing")).unwrap();
    std::mem::forget(staged);
    store.kill();
    put(
        &home.layout.uploads().join(format!("{}.data", TransferId::new())),
        b"of a transfer that nobody knows",
    );
    put(&home.layout.private().join("keys.json"), b"of somebody else");

    let started = start(&home);
    let Recovered { adopted, failed, removed, missing, foreign } = &started.recovered;
    assert_eq!((*adopted, *failed, *removed, missing.len(), *foreign), (0, 3, 4, 0, 0));
    assert_eq!(started.store.standing(), [standing]);
    assert_eq!(std::fs::read(path(&home, "a")).unwrap(), b"standing");
    for (id, filename) in [(whole, "a"), (never_began, "b"), (linked, "c")] {
        let transfer = started.store.current(&name(filename)).unwrap();
        assert_eq!((transfer.id, transfer.status), (id, crate::domain::Status::Failed));
        assert_eq!(transfer.error.as_deref(), Some("the server ended before the transfer was complete"));
    }
    assert!(!path(&home, "b").exists() && !path(&home, "c").exists());
    assert!(home.layout.private().join("keys.json").exists());
}

#[test]
fn a_download_that_was_cut_short_has_failed() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    let mut download = upload_of("a");
    download.direction = Direction::Download;
    store.note(Change::Started(download));
    store.kill();
    let started = start(&home);
    assert_eq!(started.recovered, Recovered { failed: 1, ..Recovered::default() });
    assert_eq!(started.store.file(&name("a")).unwrap().checksum, Some(digest(b"hello")));
}

/// The file came into being while the upload ran, so its time says nothing.
#[test]
fn a_foreign_file_is_not_taken_for_a_failed_upload_of_its_name() {
    let home = Home::new();
    let mut store = home.open();
    let known_to_have_failed = store.begin("a");
    store.note(failed(known_to_have_failed));
    let cut_short = store.begin("b");
    let (staged, _) = store.stage(cut_short, b"hello");
    // The upload fails, its data goes, and the kill comes before that is noted.
    drop(staged);
    for filename in ["a", "b"] {
        put(&path(&home, filename), b"theirs");
    }
    store.kill();
    let started = start(&home);
    assert_eq!(started.recovered, Recovered { failed: 1, foreign: 2, ..Recovered::default() });
    for filename in ["a", "b"] {
        assert_eq!(started.store.file(&name(filename)).unwrap().checksum, None, "its digest is not known");
        assert_eq!(started.store.current(&name(filename)).unwrap().checksum, None);
    }
}

#[test]
fn files_that_are_foreign_replaced_or_missing_are_found() {
    let home = Home::new();
    let mut store = home.open();
    for filename in ["same", "replaced", "missing"] {
        store.upload(filename, b"hello");
    }
    store.kill();
    put(&path(&home, "foreign"), b"theirs");
    put(&path(&home, "replaced"), b"their");
    let in_2001 = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let replaced = std::fs::OpenOptions::new().append(true).open(path(&home, "replaced")).unwrap();
    replaced.set_modified(in_2001).unwrap();
    std::fs::remove_file(path(&home, "missing")).unwrap();
    // None of these can be asked for.
    put(&home.layout.root().join(".hidden"), b"");
    put(&home.layout.root().join("a:b"), b"");
    std::fs::create_dir(path(&home, "directory")).unwrap();
    std::os::unix::fs::symlink(path(&home, "same"), path(&home, "link")).unwrap();

    for _ in 0..2 {
        let started = start(&home);
        assert_eq!(started.recovered.missing, [name("missing")]);
        assert_eq!((started.recovered.foreign, started.recovered.failed), (2, 0));
        let (files, count) = started.store.files(0, 10);
        let listed: Vec<_> = files.iter().map(|f| (f.filename.as_str(), f.checksum.is_some())).collect();
        assert_eq!(listed, [("foreign", false), ("replaced", false), ("same", true)]);
        assert_eq!(count, 3);
        assert_eq!(files[1].file, Some(StoredFile { size: 5, modified: in_2001.into() }));
        assert_eq!(started.store.file(&name("missing")), None);
        assert!(started.store.current(&name("missing")).is_some(), "its history stays");
    }
    let mut store = home.open();
    store.upload("missing", b"again");
    store.upload("foreign", b"ours now");
    store.kill();
    let started = start(&home);
    assert_eq!((started.recovered.missing.len(), started.recovered.foreign), (0, 1));
    assert_eq!(started.store.file(&name("foreign")).unwrap().checksum, Some(digest(b"ours now")));
}

#[test]
fn a_name_that_was_lost_can_be_new_again() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.kill();
    std::fs::remove_file(path(&home, "a")).unwrap();
    let started = start(&home);
    upload(&home, &started.store, "a", b"again", Condition::New);
    drop(started);
    assert_eq!(start(&home).recovered, Recovered::default());
}

#[test]
fn a_foreign_file_that_is_overwritten_is_ours() {
    let home = Home::new();
    put(&path(&home, "a"), b"theirs");
    let started = start(&home);
    assert_eq!(started.recovered.foreign, 1);
    upload(&home, &started.store, "a", b"ours", Condition::Any);
    let (files, count) = started.store.files(0, 10);
    assert_eq!((files.len(), count), (1, 1));
    assert_eq!(files[0].checksum, Some(digest(b"ours")));
}

/// An upload to a store that runs.
fn upload(home: &Home, store: &StatusStore, filename: &str, content: &[u8], condition: Condition) {
    let begin = upload_of(filename);
    let id = begin.id;
    store.note(Change::Started(begin));
    let mut staged = crate::store::uploads::Staged::create(&home.layout, id, 0).unwrap();
    staged.append(&mut [std::io::IoSlice::new(content)]).unwrap();
    let file = staged.finish(0, Durability::Process).unwrap();
    let publish = Publish::new(&home.layout, staged.path(), &name(filename), false, condition);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let change = completed(id, filename, digest(content), file);
    runtime.block_on(store.commit(change, Some(publish))).unwrap();
    staged.published();
}

#[test]
fn records_of_version_1_0_stand_if_there_is_a_file() {
    let home = Home::new();
    let text = r#"{"transfers": {"a": {"status": "completed"}, "b": {"status": "completed"}, "c": {"status": "uploading"}}}"#;
    put(home.layout.status(), text.as_bytes());
    put(&path(&home, "a"), b"hello");
    put(&path(&home, "c"), b"half");
    let started = start(&home);
    assert_eq!(started.recovered.missing, [name("b")]);
    assert_eq!((started.recovered.failed, started.recovered.foreign), (1, 1));
    assert_eq!(started.store.file(&name("a")).unwrap().file, None);
    assert_eq!(started.store.file(&name("b")), None);
    assert_eq!(started.store.file(&name("c")).unwrap().checksum, None);
}
