//! When an upload is complete, and what it leaves when it is not.

use super::*;

#[tokio::test]
async fn a_body_that_breaks_off_behind_its_last_byte_has_brought_everything() {
    for sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).await;
        let content = bytes(300_000);
        let id = server.resumable.create(creation(Some(300_000), sealed)).await.unwrap().id;
        let done = server.resumable.append(id, Append::default(), broken(&content)).await.unwrap();
        assert!(done.complete && done.transfer.is_some());
        assert_eq!(server.content("a"), content);
    }
}

#[tokio::test]
async fn who_says_its_end_is_not_ended_by_its_size_nor_by_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let says = Creation { says_its_end: true, ..creation(Some(5), false) };
    let id = server.resumable.create(says).await.unwrap().id;
    let append = |offset, complete| Append { offset, complete: Some(complete), ..Append::default() };
    let all = server.resumable.append(id, append(0, false), pieces(b"12345")).await.unwrap();
    assert_eq!((all.offset, all.complete), (5, false));
    drop(server);
    let server = Server::start(dir.path()).await;
    let told = server.resumable.progress(id).await.unwrap();
    assert_eq!((told.offset, told.complete), (5, false));
    assert!(server.resumable.append(id, append(5, true), pieces(b"")).await.unwrap().complete);
    assert_eq!(server.content("a"), b"12345");
}

#[tokio::test]
async fn an_older_status_that_is_put_back_loses_no_unfinished_upload() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let id = server.resumable.create(creation(Some(6), true)).await.unwrap().id;
    server.send(id, 0, b"123").await.unwrap();
    drop(server);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
    let server = Server::start(dir.path()).await;
    assert_eq!(server.restored.unfinished, 1);
    server.status.settled().await;
    assert_eq!(server.status.current(&FileName::clean("a").unwrap()).unwrap().status, Status::Uploading);
    server.send(id, 3, b"456").await.unwrap();
    assert_eq!(server.content("a"), b"123456");
}

#[tokio::test]
async fn who_only_looks_is_never_told_that_somebody_else_looks() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let id = server.resumable.create(creation(Some(6), false)).await.unwrap().id;
    let looks = (0..10).map(|_| server.resumable.progress(id));
    for look in futures_util::future::join_all(looks).await {
        assert_eq!(look.unwrap().offset, 0);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_was_set_aside_for_more_is_given_back() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let id = server.resumable.create(creation(None, false)).await.unwrap().id;
    let append = Append { length: Some(200 << 20), ..Append::default() };
    let cut = server.resumable.append(id, append, broken(&bytes(400_000))).await;
    assert!(matches!(cut, Err(ResumableError::Broken(_))));
    let blocks = std::fs::metadata(server.layout.upload_data(id)).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "{blocks} blocks for 400,000 bytes");
}

#[tokio::test]
async fn nothing_at_all_is_complete_at_once() {
    for sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).await;
        let done = server.resumable.create(creation(Some(0), sealed)).await.unwrap();
        assert!(done.complete);
        assert_eq!(server.content("a"), b"");
    }
}

#[tokio::test]
async fn one_that_is_cancelled_or_expires_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), Limits { expiry: Duration::ZERO, ..limits() }).await;
    let name = FileName::clean("a").unwrap();
    let id = server.resumable.create(creation(Some(10), false)).await.unwrap().id;
    server.send(id, 0, b"123").await.unwrap();
    server.resumable.cancel(id).await.unwrap();
    assert_eq!(server.status.current(&name).unwrap().status, Status::Cancelled);
    assert!(matches!(server.resumable.progress(id).await, Err(ResumableError::Gone)));
    let id = server.resumable.create(creation(Some(10), true)).await.unwrap().id;
    server.send(id, 0, b"123").await.unwrap();
    assert_eq!(server.resumable.sweep().await.expired, 1);
    assert!(matches!(server.send(id, 3, b"4").await, Err(ResumableError::Gone)));
    server.status.settled().await;
    assert_eq!(server.status.current(&name).unwrap().status, Status::Failed);
    assert_eq!(server.leftovers(), [""; 0]);
    assert!(matches!(server.resumable.progress(TransferId::new()).await, Err(ResumableError::Unknown)));
}

#[tokio::test]
async fn content_that_is_not_what_was_promised_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let promised = Creation { sha256: Some(Digest::new([1; 32])), ..creation(Some(3), false) };
    let id = server.resumable.create(promised).await.unwrap().id;
    let refused = server.send(id, 0, b"abc").await;
    let mismatch = matches!(
        refused,
        Err(ResumableError::Upload(crate::services::uploads::UploadError::ChecksumMismatch { .. }))
    );
    assert!(mismatch, "{refused:?}");
    assert!(matches!(server.resumable.progress(id).await, Err(ResumableError::Gone)));
    assert_eq!(server.leftovers(), [""; 0]);
}
