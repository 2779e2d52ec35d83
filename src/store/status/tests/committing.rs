//! Conditions, and what is asked at the same moment.

use super::*;
use crate::domain::Status;

#[test]
fn conditions_look_at_what_stands_when_the_file_is_published() {
    let home = Home::new();
    let mut store = home.open();
    let (x, y, z) = (digest(b"x"), digest(b"y"), digest(b"z"));
    for (condition, on_nothing, on_x) in [
        (Condition::Any, true, true),
        (Condition::New, true, false),
        (Condition::Matches(None), false, true),
        (Condition::Matches(Some(vec![])), false, false),
        (Condition::Matches(Some(vec![y, x])), false, true),
        (Condition::Matches(Some(vec![y, z])), false, false),
        (Condition::MatchesNone(vec![]), true, true),
        (Condition::MatchesNone(vec![y, z]), true, true),
        (Condition::MatchesNone(vec![y, x]), true, false),
    ] {
        for (filename, holds) in [("nothing", on_nothing), ("x", on_x)] {
            _ = std::fs::remove_file(home.layout.file(&name("nothing")));
            store.committer.shared.state.write().unwrap().lose_file(&name("nothing"));
            store.upload("x", b"x");
            let id = store.begin(filename);
            let before = store.view();
            let files = home.files();
            let result = store.complete(id, filename, b"new", condition.clone());
            let content = std::fs::read(home.layout.file(&name(filename))).ok();
            if holds {
                assert_eq!(result.unwrap().checksum, Some(digest(b"new")), "{condition:?} {filename}");
                assert_eq!(content.unwrap(), b"new");
            } else {
                let error = result.unwrap_err();
                assert!(matches!(error, CommitError::Condition), "{condition:?} {filename}: {error}");
                assert_eq!(content, (filename == "x").then(|| b"x".to_vec()));
                assert_eq!(store.view(), before, "nothing has changed");
                assert_eq!(home.files(), files, "nothing is written");
                store.note(failed(id));
            }
        }
    }
    assert_eq!(std::fs::read_dir(home.layout.uploads()).unwrap().count(), 0);
}

#[test]
fn a_new_file_takes_no_name_that_somebody_else_took_behind_our_back() {
    let home = Home::new();
    let mut store = home.open();
    put(&home.layout.file(&name("a")), b"theirs");
    let id = store.begin("a");
    let error = store.complete(id, "a", b"ours", Condition::New).unwrap_err();
    assert!(matches!(error, CommitError::Condition), "{error}");
    assert_eq!(std::fs::read(home.layout.file(&name("a"))).unwrap(), b"theirs");

    std::fs::create_dir(home.layout.file(&name("directory"))).unwrap();
    let id = store.begin("directory");
    let error = store.complete(id, "directory", b"ours", Condition::Any).unwrap_err();
    assert!(matches!(error, CommitError::NameTaken), "{error}");
    assert_eq!(store.store.running().len(), 2);
    store.upload("b", b"and it goes on");
}

/// Both in one batch, then through the running store from two threads.
#[test]
fn of_two_uploads_that_want_to_be_the_first_one_is() {
    let home = Home::new();
    let mut store = home.open();
    let mut requests = Vec::new();
    let mut uploads = Vec::new();
    for content in [b"one", b"two"] {
        let id = store.begin("a");
        let (staged, file) = store.stage(id, content);
        let publish = store.publish(&staged, "a", Condition::New);
        let (request, answer) = request(completed(id, "a", digest(content), file), Some(publish));
        requests.push(request);
        uploads.push((staged, answer));
    }
    store.serve(requests);
    let [(_, mut first), (_, mut second)] = <[_; 2]>::try_from(uploads).unwrap();
    assert!(first.try_recv().unwrap().is_ok());
    assert!(matches!(second.try_recv().unwrap(), Err(CommitError::Condition)));
    assert_eq!(std::fs::read(home.layout.file(&name("a"))).unwrap(), b"one");
    store.kill();

    let (store, guard) = home.run();
    for round in 0..20 {
        let filename = format!("b-{round}");
        let barrier = std::sync::Barrier::new(4);
        let upload = |content: [u8; 1]| {
            let start = upload_of(&filename);
            let id = start.id;
            store.note(Change::Started(start));
            let mut staged = Staged::create(&home.layout, id, 1).unwrap();
            staged.append(&mut [IoSlice::new(&content)]).unwrap();
            let file = staged.finish(1, Durability::Power).unwrap();
            let publish = Publish::new(&home.layout, staged.path(), &name(&filename), false, Condition::New);
            barrier.wait();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let change = completed(id, &filename, digest(&content), file);
            runtime.block_on(store.commit(change, Some(publish))).is_ok().then_some(content)
        };
        let won: Vec<[u8; 1]> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || upload([number]))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(won.len(), 1, "exactly one is the first");
        assert_eq!(std::fs::read(home.layout.file(&name(&filename))).unwrap(), won[0]);
        assert_eq!(store.file(&name(&filename)).unwrap().checksum, Some(digest(&won[0])));
    }
    drop(guard);
}

/// In one batch too, a condition sees what the one before it has published.
#[test]
fn a_condition_sees_what_was_asked_for_just_before() {
    let home = Home::new();
    let mut store = home.open();
    let (x, y) = (digest(b"x"), digest(b"y"));
    let asked: [(&[u8], Condition, bool); 5] = [
        (b"x", Condition::Any, true),
        (b"y", Condition::MatchesNone(vec![x]), false),
        (b"y", Condition::Matches(Some(vec![x])), true),
        (b"x", Condition::Matches(Some(vec![x])), false),
        (b"x", Condition::Matches(Some(vec![y])), true),
    ];
    let mut requests = Vec::new();
    let mut answers = Vec::new();
    for (content, condition, holds) in asked {
        let id = store.begin("a");
        let (staged, file) = store.stage(id, content);
        let publish = store.publish(&staged, "a", condition);
        let (request, answer) = request(completed(id, "a", digest(content), file), Some(publish));
        requests.push(request);
        answers.push((staged, answer, holds));
    }
    store.serve(requests);
    for (number, (_, mut answer, holds)) in answers.into_iter().enumerate() {
        assert_eq!(answer.try_recv().unwrap().is_ok(), holds, "number {number}");
    }
    assert_eq!(std::fs::read(home.layout.file(&name("a"))).unwrap(), b"x");
    assert_eq!(store.store.file(&name("a")).unwrap().checksum, Some(x));
}

/// A `DELETE` and the end of an upload came at the same moment: both were committed.
#[test]
fn a_transfer_does_not_end_twice_in_one_batch() {
    let home = Home::new();
    let mut store = home.open();
    let id = store.begin("a");
    let (staged, file) = store.stage(id, b"hello");
    let publish = store.publish(&staged, "a", Condition::Any);
    let (complete, mut completed) = request(completed(id, "a", digest(b"hello"), file), Some(publish));
    let cancelled = Change::Cancelled { id, at: Timestamp::now(), transferred_bytes: 5 };
    let (cancel, mut cancelled) = request(cancelled, None);
    store.serve(vec![complete, cancel, Request::Note(failed(id))]);
    assert_eq!(completed.try_recv().unwrap().unwrap().status, Status::Completed);
    assert!(matches!(cancelled.try_recv().unwrap(), Err(CommitError::Impossible(_))));
    assert_eq!(store.store.current(&name("a")).unwrap().status, Status::Completed);
    let before = store.view();
    store.kill();
    assert_eq!(home.open().view(), before);
}

/// Whoever commits a beginning and is gone before the answer notes the end: the note must not overtake it.
#[test]
fn changes_of_one_transfer_keep_their_order_in_a_batch() {
    let home = Home::new();
    let mut store = home.open();
    let (start, other) = (upload_of("a"), upload_of("b"));
    let (id, other_id) = (start.id, other.id);
    let (begin, mut begun) = request(Change::Started(start), None);
    let (end, mut ended) = request(failed(other_id), None);
    store.serve(vec![begin, Request::Note(failed(id)), Request::Note(Change::Started(other)), end]);
    assert_eq!(begun.try_recv().unwrap().unwrap().status, Status::Uploading);
    assert_eq!(ended.try_recv().unwrap().unwrap().status, Status::Failed);
    assert_eq!(store.store.current(&name("a")).unwrap().status, Status::Failed);
    assert_eq!(store.store.running(), []);
    let before = store.view();
    store.kill();
    assert_eq!(home.open().view(), before);
}

#[test]
fn one_that_is_refused_leaves_no_gap_and_the_others_alone() {
    let home = Home::new();
    let mut store = home.open();
    let ids: Vec<_> = ["a", "b", "c", "d"].map(|filename| store.begin(filename)).to_vec();
    let mut requests = Vec::new();
    let mut answers = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        // The first and the third name a staged file that is not there.
        let publish = (index % 2 == 0).then(|| {
            Publish::new(&home.layout, &home.layout.upload_data(*id), &name("x"), false, Condition::Any)
        });
        let (request, answer) = request(failed(*id), publish);
        requests.push(request);
        answers.push(answer);
    }
    let lines = std::fs::read_to_string(home.journal()).unwrap().lines().count();
    store.serve(requests);
    let won: Vec<_> =
        answers.iter_mut().map(|answer| answer.try_recv().unwrap().map(|t| t.seq).ok()).collect();
    assert_eq!(won, [None, Some(5), None, Some(6)]);
    assert_eq!(std::fs::read_to_string(home.journal()).unwrap().lines().count(), lines + 2);
    let before = store.view();
    store.kill();
    let store = home.open();
    assert_eq!(store.view(), before);
    assert_eq!(store.opened.remarks.len(), 0, "{:?}", store.opened.remarks);
}

/// A directory that could not be flushed: the file has its name, and nothing says so.
#[test]
fn what_is_in_memory_after_a_failure_never_becomes_the_status_file() {
    let home = Home::new();
    let mut store = home.open();
    store.snapshot();
    let id = store.begin("a");
    let before = store.view();
    let on_disk = home.files();
    store.committer.shared.usable.store(false, std::sync::atomic::Ordering::Release);
    store.note(failed(id));
    store.snapshot();
    assert_eq!(home.files(), on_disk);
    store.stop();
    assert_eq!(home.files(), on_disk);
    assert_eq!(home.open().view(), before);
}

#[test]
fn after_a_journal_that_failed_nothing_is_accepted_and_the_disk_stays_as_it_is() {
    let home = Home::new();
    let mut store = home.open();
    store.snapshot();
    let id = store.begin("a");
    let standing = store.upload("b", b"standing");
    let on_disk = home.files();
    store.committer.journal.break_it();
    let (staged, file) = store.stage(id, b"hello");
    let publish = store.publish(&staged, "a", Condition::Any);
    let error = store.commit(completed(id, "a", digest(b"hello"), file), Some(publish)).unwrap_err();
    assert!(matches!(error, CommitError::Io(_) | CommitError::Unusable), "{error}");
    store.note(failed(id));
    let error = store.commit(failed(id), None).unwrap_err();
    assert!(matches!(error, CommitError::Impossible(_) | CommitError::Unusable), "{error}");
    assert!(!store.store.is_usable());
    assert_eq!(store.store.current(&name("a")).unwrap().status, Status::Failed, "readers are told");
    store.stop();
    assert_eq!(home.files(), on_disk, "what is in memory only is not written over what is on disk");
    let store = home.open();
    assert_eq!(store.store.running().len(), 1, "as after a crash");
    assert_eq!(store.store.standing(), [standing]);
}
