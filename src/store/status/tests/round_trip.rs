//! What was told is there after a restart.

use super::*;
use crate::domain::Status;

/// Restarts twice, once killed and once stopped, and expects the same both times.
fn same_after_restarts(home: &Home, store: ByHand, history_limit: usize) -> ByHand {
    let before = store.view();
    store.kill();
    let store = home.open_with(Durability::Process, history_limit);
    assert_eq!(store.view(), before, "after kill -9");
    store.stop();
    let store = home.open_with(Durability::Process, history_limit);
    assert_eq!(store.view(), before, "after a stop");
    store
}

#[test]
fn uploads_failures_and_what_runs_survive_a_restart() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("b.txt", b"hello");
    store.upload("ä b.txt", b"");
    let id = store.begin("c.txt");
    store.note(failed(id));
    store.begin("d.txt");
    let id = store.begin("e.txt");
    let cancelled = Change::Cancelled { id, at: Timestamp::now(), transferred_bytes: 1 };
    store.commit(cancelled, None).unwrap();

    let view = store.view();
    let statuses: Vec<_> = view.recent.iter().map(|t| (t.filename.as_str(), t.status)).collect();
    assert_eq!(
        statuses,
        [
            ("e.txt", Status::Cancelled),
            ("d.txt", Status::Uploading),
            ("c.txt", Status::Failed),
            ("ä b.txt", Status::Completed),
            ("b.txt", Status::Completed),
        ]
    );
    assert_eq!(
        view.files.iter().map(|file| file.filename.as_str()).collect::<Vec<_>>(),
        ["b.txt", "ä b.txt"]
    );
    assert_eq!(view.files[0].checksum, Some(digest(b"hello")));
    assert_eq!((view.running.len(), view.standing.len(), view.seq), (1, 2, 9));
    same_after_restarts(&home, store, 1000);
}

#[test]
fn a_file_may_get_another_name_at_its_end() {
    let home = Home::new();
    let mut store = home.open();
    let id = store.begin("upload.bin");
    assert!(store.store.current(&name("upload.bin")).is_some());
    let done = store.complete(id, "report.pdf", b"hello", Condition::Any).unwrap();
    assert_eq!(
        (done.filename.as_str(), &*done.client.id, u8::from(done.priority)),
        ("report.pdf", "desk-8", 3)
    );
    assert_eq!(store.store.current(&name("upload.bin")), None, "nothing is left under the first name");
    assert_eq!(store.store.name_count(), 1);
    assert_eq!(store.store.current(&name("report.pdf")), Some(done));
    same_after_restarts(&home, store, 1000);
}

#[test]
fn two_uploads_of_one_name_do_not_mix() {
    let home = Home::new();
    let mut store = home.open();
    let first = store.begin("a");
    let second = store.begin("a");
    assert_eq!(store.store.current(&name("a")).unwrap().id, second);
    store.complete(second, "a", b"second", Condition::Any).unwrap();
    assert_eq!(store.store.running().len(), 1);
    store.complete(first, "a", b"first", Condition::Any).unwrap();
    assert_eq!(std::fs::read(home.layout.file(&name("a"))).unwrap(), b"first", "the last one counts");
    let view = store.view();
    assert_eq!(view.files.len(), 1);
    assert_eq!(view.files[0].checksum, Some(digest(b"first")));
    assert_eq!(view.earlier.iter().map(|t| t.id).collect::<Vec<_>>(), [second]);
    same_after_restarts(&home, store, 1000);
}

#[test]
fn a_file_stands_while_and_after_its_overwriting_fails() {
    let home = Home::new();
    let mut store = home.open();
    let standing = store.upload("a", b"standing");
    let id = store.begin("a");
    assert_eq!(store.store.file(&name("a")).unwrap().checksum, standing.checksum);
    store.note(failed(id));
    assert_eq!(store.store.current(&name("a")).unwrap().status, Status::Failed);
    assert_eq!(store.store.file(&name("a")).unwrap().checksum, standing.checksum);
    let store = same_after_restarts(&home, store, 1000);
    assert_eq!(store.store.standing(), [standing]);
}

#[test]
fn the_oldest_history_goes_first_and_what_stands_or_runs_never() {
    let home = Home::new();
    let mut store = home.open_with(Durability::Process, 3);
    let standing = store.upload("standing", b"x");
    let running = store.begin("running");
    let ended: Vec<_> = (0..5)
        .map(|number| {
            let id = store.begin(&format!("failed-{number}"));
            store.note(failed(id));
            id
        })
        .collect();
    let kept: Vec<_> = store.store.recent(None, 100).iter().map(|transfer| transfer.id).collect();
    assert_eq!(kept, [ended[4], ended[3], ended[2], running, standing.id]);
    assert_eq!(store.store.current(&name("failed-1")), None);

    // The newest of the ended, once replaced: by its own change it is the oldest that is kept.
    let replacing = store.upload("standing", b"y");
    let view = store.view();
    assert_eq!(view.earlier, [], "what is replaced counts, and was the oldest");
    assert_eq!(view.standing, [replacing]);
    let store = same_after_restarts(&home, store, 3);

    store.stop();
    let store = home.open_with(Durability::Process, 1);
    let kept: Vec<_> = store.store.recent(None, 100).iter().map(|transfer| transfer.id).collect();
    assert_eq!(kept.len(), 3, "a lower limit counts from the next start on");
    assert_eq!(kept[1..], [ended[4], running]);
    store.stop();
    let store = home.open_with(Durability::Process, 0);
    assert_eq!(
        (store.store.name_count(), store.store.running().len(), store.store.standing().len()),
        (2, 1, 1)
    );
}

#[test]
fn many_attempts_at_one_name_are_all_kept_in_order() {
    let home = Home::new();
    let mut store = home.open();
    let ids: Vec<_> = (0..40).map(|_| store.begin("a")).collect();
    // The oldest and those in the middle first: wherever it stands, the right one moves.
    for index in (0..40).step_by(3).chain((1..40).step_by(3)) {
        store.note(failed(ids[index]));
    }
    let view = store.view();
    assert_eq!(view.running.len(), 13);
    assert_eq!(view.current[0].id, ids[37]);
    let attempts: Vec<_> = view.earlier.iter().chain(&view.current).map(|transfer| transfer.seq).collect();
    assert_eq!(attempts.len(), 40);
    assert!(attempts.is_sorted());
    same_after_restarts(&home, store, 1000);
}

#[test]
fn a_running_store_takes_changes_and_keeps_them() {
    let home = Home::new();
    let (store, guard) = home.run();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let start = upload_of("a");
    let id = start.id;
    store.note(Change::Started(start));
    // It comes after the note, so the note is done when it is answered.
    let unknown = runtime.block_on(store.commit(failed(TransferId::new()), None)).unwrap_err();
    assert!(matches!(unknown, CommitError::Impossible(_)), "{unknown}");
    assert_eq!(store.running().len(), 1);
    let live = store.track(id, Some(8), None);
    live.add(2);
    assert_eq!(store.current(&name("a")).unwrap().progress, 25);
    let done = runtime.block_on(store.commit(failed(id), None)).unwrap();
    live.add(2);
    assert_eq!(store.current(&name("a")), Some(done), "what has ended moves no more");
    let before = View::of(&store);
    assert!(store.is_usable());
    drop(guard);
    assert!(!store.is_usable(), "a store that has ended says so");
    let closed = runtime.block_on(store.commit(failed(id), None)).unwrap_err();
    assert!(matches!(closed, CommitError::Unusable), "{closed}");
    let (store, guard) = home.run();
    assert_eq!(View::of(&store), before);
    drop(guard);
}

#[test]
fn a_status_file_has_one_server() {
    let home = Home::new();
    let store = home.open();
    let other = Layout::new(home.layout.root().join("../other"), home.layout.status().to_owned());
    other.create().unwrap();
    let Err(error) = StatusStore::read(&other, Durability::Process, limits(10)) else { panic!("shared") };
    assert!(error.to_string().contains("is in use by another server"), "{error}");
    assert!(error.to_string().contains("LOG_FILE"), "{error}");
    store.kill();
    home.open();
}

/// No change does this; a status file that somebody edited beside its journal can.
#[test]
fn a_newer_state_of_what_has_ended_replaces_it_everywhere() {
    let home = Home::new();
    let mut store = home.open();
    store.upload("a", b"first");
    let stored = store.upload("a", b"second");
    let other = store.upload("b", b"hello");
    let mut state = store.committer.shared.state.write().unwrap();
    for (before, filename) in [(&stored, "a"), (&other, "c")] {
        let seq = state.seq + 1;
        let failed = Transfer { seq, status: Status::Failed, filename: name(filename), ..(**before).clone() };
        state.put(Arc::new(failed));
    }
    drop(state);
    let view = store.view();
    assert_eq!((view.files.len(), view.standing.len()), (0, 0));
    let kept: Vec<_> = view.recent.iter().map(|t| (t.filename.as_str(), t.id)).collect();
    assert_eq!(kept, [("c", other.id), ("a", stored.id)]);
    assert_eq!(view.earlier.len(), 1);
}
