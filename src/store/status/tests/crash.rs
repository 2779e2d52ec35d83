//! A crash between any two steps of a snapshot.

use super::*;

type Files = Vec<(String, Vec<u8>)>;

fn home_with(files: &Files) -> Home {
    let home = Home::new();
    for (name, content) in files {
        put(&home.layout.status_directory().join(name), content);
    }
    home
}

fn with(files: &Files, suffix: &str, content: &[u8]) -> Files {
    let mut files = without(files, suffix);
    files.push((format!("status.json{suffix}"), content.to_vec()));
    files
}

fn without(files: &Files, suffix: &str) -> Files {
    let name = format!("status.json{suffix}");
    files.iter().filter(|(other, _)| *other != name).cloned().collect()
}

fn content<'a>(files: &'a Files, suffix: &str) -> &'a [u8] {
    let name = format!("status.json{suffix}");
    &files.iter().find(|(other, _)| *other == name).unwrap().1
}

#[test]
fn a_snapshot_may_be_cut_short_after_any_step() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.snapshot();
    store.upload("a", b"again");
    store.snapshot();
    store.upload("b", b"hello");
    store.begin("c");
    let view = store.view();
    let begin = home.files();
    store.snapshot();
    let end = home.files();
    store.kill();
    let names = |files: &Files| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&begin).len(), 4);
    assert_eq!(content(&begin, ""), content(&end, ".backup"));
    assert_eq!(content(&begin, ".journal"), content(&end, ".journal.5"));

    let (header, snapshot) = (content(&end, ".journal"), content(&end, ""));
    let mut steps: Vec<(&str, Files)> = vec![("nothing done", begin.clone())];
    for cut in [0, header.len() / 2, header.len()] {
        steps.push(("the next segment begun", with(&begin, ".journal.tmp", &header[..cut])));
    }
    let closed = with(&without(&begin, ".journal"), ".journal.5", content(&begin, ".journal"));
    steps.push(("the segment closed", with(&closed, ".journal.tmp", header)));
    steps.push(("the segment closed, and what was beside it gone", closed.clone()));
    let rotated = with(&closed, ".journal", header);
    steps.push(("the segment closed and the next one there", rotated.clone()));
    for cut in [0, 1, snapshot.len() / 2, snapshot.len() - 1] {
        steps.push(("half a snapshot", with(&rotated, ".tmp", &snapshot[..cut])));
    }
    let prepared = with(&rotated, ".tmp", snapshot);
    steps.push(("the snapshot beside its place", prepared.clone()));
    steps.push(("the backup linked", with(&prepared, ".backup.tmp", content(&begin, ""))));
    let backed_up = with(&prepared, ".backup", content(&begin, ""));
    steps.push(("the backup in its place", backed_up.clone()));
    steps.push(("the backup moved, where there are no links", without(&backed_up, "")));
    let published = with(&without(&backed_up, ".tmp"), "", snapshot);
    steps.push(("the snapshot in its place", published.clone()));
    let removed = without(&published, ".journal.3");
    assert_eq!(home_with(&removed).files(), end);
    steps.push(("all done", removed));

    for (step, files) in steps {
        for put_backup_back in [false, true] {
            let home = home_with(&files);
            if put_backup_back {
                std::fs::copy(home.backup(), home.layout.status()).unwrap();
            }
            let mut store = home.open();
            assert_eq!(store.view(), view, "{step}");
            let missing = content_is_missing(&files) && !put_backup_back;
            assert_eq!(store.opened.remarks.len(), usize::from(missing), "{step}");
            store.upload("d", b"hello");
            let view = store.view();
            store.snapshot();
            let next = home.files();
            assert!(next.iter().all(|(name, _)| !name.ends_with(".tmp")), "{step}: {:?}", home.file_names());
            store.kill();
            let store = home.open();
            assert_eq!((store.view(), store.opened.remarks.len()), (view, 0), "{step}");
            store.kill();
            std::fs::copy(home.backup(), home.layout.status()).unwrap();
            let again = home.open();
            assert_eq!(again.view().seq, 9, "{step}: the journal reaches back to the backup");
            assert_eq!(again.store.standing().len(), 3, "{step}");
        }
    }
}

fn content_is_missing(files: &Files) -> bool {
    files.iter().all(|(name, _)| name != "status.json")
}

#[test]
fn a_backup_that_is_the_snapshot_already_is_no_trouble() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.snapshot();
    // As after a crash between the backup and the snapshot.
    std::fs::hard_link(home.layout.status(), home.backup()).unwrap();
    store.upload("b", b"hello");
    store.snapshot();
    assert_eq!(home.file_names(), ["", ".backup", ".journal", ".journal.3"]);
    assert_ne!(std::fs::read(home.layout.status()).unwrap(), std::fs::read(home.backup()).unwrap());
}

#[test]
fn a_segment_that_can_not_be_closed_goes_on() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    // A directory in the way of what is written beside the journal.
    let obstacle = home.beside(".journal.tmp");
    std::fs::create_dir_all(obstacle.join("x")).unwrap();
    store.snapshot();
    assert!(!home.layout.status().exists());
    store.upload("b", b"hello");
    std::fs::remove_dir_all(&obstacle).unwrap();
    // A closed segment of that number: it must not be written over.
    put(&home.beside(".journal.1"), b"precious");
    store.snapshot();
    assert_eq!(std::fs::read(home.beside(".journal.1")).unwrap(), b"precious");
    std::fs::remove_file(home.beside(".journal.1")).unwrap();
    store.upload("c", b"hello");
    let view = store.view();
    store.kill();
    let mut store = home.open();
    assert_eq!(store.view(), view);
    store.snapshot();
    store.kill();
    assert_eq!(home.file_names(), ["", ".journal", ".journal.1"]);
    assert_eq!(home.open().view(), view);
}

#[test]
fn a_snapshot_that_fails_is_made_up_for_by_the_next() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"hello");
    store.snapshot();
    let obstacle = home.beside(".tmp");
    std::fs::create_dir_all(obstacle.join("x")).unwrap();
    store.upload("b", b"hello");
    store.snapshot();
    store.upload("c", b"hello");
    store.snapshot();
    assert_eq!(home.open_copy().view(), store.view(), "the journal holds everything");
    std::fs::remove_dir_all(&obstacle).unwrap();
    store.snapshot();
    assert_eq!(home.file_names(), ["", ".backup", ".journal", ".journal.3", ".journal.5"]);
    let view = store.view();
    store.stop();
    std::fs::copy(home.backup(), home.layout.status()).unwrap();
    assert_eq!(home.open().view(), view);
}

impl Home {
    /// A store on a copy of the files: what a kill at this moment leaves.
    fn open_copy(&self) -> ByHand {
        let files = std::fs::read_dir(self.layout.status_directory()).unwrap().map(|entry| entry.unwrap());
        let files = files.filter(|entry| entry.file_type().unwrap().is_file());
        let files = files.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()));
        home_with(&files.collect()).open()
    }
}
