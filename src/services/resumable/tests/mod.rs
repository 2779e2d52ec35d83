mod chunks;
mod ends;

use std::path::Path;
use std::time::Duration;

use futures_util::stream;
use sha2::Digest as _;

use super::*;
use crate::domain::{Digest, Priority, Status};
use crate::services::keys::Keys;
use crate::services::space::Space;
use crate::services::uploads::Sealing;
use crate::store::files::Files;
use crate::store::recovery;
use crate::store::sealed::SealedFile;
use crate::store::status::{self, Condition, StatusStore, StatusStoreGuard};
use crate::store::{Durability, Layout};

const KEY: &str = "a key for these tests";

/// A server without HTTP. Dropped, it is as if it had been killed.
pub(super) struct Server {
    pub(super) resumable: Resumable,
    pub(super) status: StatusStore,
    pub(super) layout: Layout,
    pub(super) restored: Restored,
    keys: Keys,
    _guard: StatusStoreGuard,
}

use super::restore::Restored;

pub(super) fn limits() -> Limits {
    Limits {
        size: Some(1 << 40),
        chunks: 1000,
        chunk_size: 1 << 30,
        unfinished: 10,
        per_client: 5,
        reserved: None,
        expiry: Duration::from_secs(3600),
    }
}

impl Server {
    pub(super) async fn start(dir: &Path) -> Self {
        Self::start_with(dir, limits()).await
    }

    pub(super) async fn start_with(dir: &Path, limits: Limits) -> Self {
        let layout = Layout::new(dir.join("storage"), dir.join("status.json"));
        layout.create().unwrap();
        let bounds = status::Limits { history: 1000, journal: 1 << 20 };
        let (status, guard, _) = StatusStore::open(&layout, Durability::Process, bounds).unwrap();
        let keys = Keys::load(layout.secret_key(), Some(KEY), &[]).unwrap();
        let files = Files::new(layout.clone()).unwrap();
        recovery::recover(&layout, &files, &status, keys.get().as_deref()).await.unwrap();
        let space = Space::new(layout.clone(), 0);
        let uploads = Uploads::new(
            layout.clone(),
            status.clone(),
            space,
            keys.clone(),
            Sealing::Optional,
            1 << 30,
            Durability::Process,
        );
        let resumable = Resumable::new(uploads, limits);
        let restored = resumable.restore().await.unwrap();
        resumable.go_on().await;
        Self { resumable, status, layout, restored, keys, _guard: guard }
    }

    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let name = FileName::clean(name).unwrap();
        let transfer = self.status.current(&name).unwrap();
        assert_eq!(transfer.status, Status::Completed);
        let files = Files::new(self.layout.clone()).unwrap();
        let content = if transfer.encryption {
            let file = files.open_sealed(&name).unwrap();
            let keyring = self.keys.get();
            let sealed = SealedFile::open(file, keyring.as_deref(), transfer.seal.as_deref()).unwrap();
            let mut content = Vec::new();
            while (content.len() as u64) < sealed.content_length() {
                let from = content.len() as u64;
                content.extend_from_slice(&sealed.read(from..sealed.content_length()).unwrap());
            }
            content
        } else {
            std::fs::read(self.layout.file(&name)).unwrap()
        };
        let digest = Digest::new(sha2::Sha256::digest(&content).into());
        assert_eq!(transfer.checksum, Some(digest), "what is recorded is what is there");
        content
    }

    /// What is among the uploads.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.layout.uploads()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    async fn send(&self, id: TransferId, offset: u64, bytes: &[u8]) -> Result<Progress, ResumableError> {
        let append = Append { offset, length: Some(bytes.len() as u64), ..Append::default() };
        self.resumable.append(id, append, pieces(bytes)).await
    }
}

pub(super) fn client(id: &str) -> Client {
    Client::new("10.0.0.1", "test", Some(id))
}

fn creation(size: Option<u64>, sealed: bool) -> Creation {
    Creation {
        filename: FileName::clean("a").unwrap(),
        client: client("me"),
        priority: Priority::default(),
        encryption: Some(sealed),
        sha256: None,
        condition: Condition::Any,
        size,
        metadata: Some("filename YQ==".into()),
        idempotency_key: None,
        partial: false,
        says_its_end: false,
    }
}

pub(super) fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn pieces(bytes: &[u8]) -> impl Stream<Item = Result<Piece, Broken>> + Send + Unpin + use<> {
    let pieces: Vec<_> = bytes.chunks(50_000).map(|piece| Ok(Piece::Data(piece.to_vec().into()))).collect();
    stream::iter(pieces)
}

/// Breaks off after these bytes.
fn broken(bytes: &[u8]) -> impl Stream<Item = Result<Piece, Broken>> + Send + Unpin + use<> {
    pieces(bytes).chain(stream::iter([Err(Broken::HungUp("gone".into()))]))
}

use futures_util::StreamExt as _;

const SEGMENT: usize = crate::crypto::layout::DEFAULT_SEGMENT_SIZE as usize;

#[tokio::test]
async fn it_goes_on_wherever_it_was_cut_and_whoever_was_killed() {
    for sealed in [false, true] {
        for cuts in [
            vec![1, 2, 3],
            vec![SEGMENT - 1, SEGMENT, SEGMENT + 1],
            vec![SEGMENT, 2 * SEGMENT, 2 * SEGMENT + 1],
            vec![5, SEGMENT + 5, SEGMENT + 6, 300_000, 600_000, 3 * SEGMENT * 10],
        ] {
            let dir = tempfile::tempdir().unwrap();
            let content = bytes(1_000_000);
            let mut server = Server::start(dir.path()).await;
            let created = server.resumable.create(creation(Some(1_000_000), sealed)).await.unwrap();
            let id = created.id;
            let mut from = 0;
            for (index, cut) in cuts.into_iter().enumerate() {
                let piece = &content[from..cut];
                let append = Append {
                    offset: from as u64,
                    length: Some(1_000_000 - from as u64),
                    ..Append::default()
                };
                match index % 2 {
                    0 => {
                        let end = server.resumable.append(id, append, broken(piece)).await;
                        assert!(matches!(end, Err(ResumableError::Broken(Broken::HungUp(_)))), "{end:?}");
                    }
                    _ => assert_eq!(server.send(id, from as u64, piece).await.unwrap().offset, cut as u64),
                }
                if index % 3 == 1 {
                    drop(server);
                    server = Server::start(dir.path()).await;
                    assert_eq!(server.restored.unfinished, 1);
                }
                let progress = server.resumable.progress(id).await.unwrap();
                assert_eq!((progress.offset, progress.complete), (cut as u64, false), "what arrived is kept");
                assert_eq!(progress.metadata.as_deref(), Some("filename YQ=="));
                from = cut;
            }
            let shown = server.status.current(&FileName::clean("a").unwrap()).unwrap();
            assert_eq!((shown.status, shown.transferred_bytes), (Status::Uploading, from as u64));
            let done = server.send(id, from as u64, &content[from..]).await.unwrap();
            assert!(done.complete && done.transfer.is_some());
            assert_eq!(server.content("a"), content);
            assert_eq!(server.leftovers(), [format!("{id}.log")], "only what is remembered of it");
            drop(server);
            let server = Server::start(dir.path()).await;
            assert_eq!(server.restored.finished, 1);
            let again = server.resumable.progress(id).await.unwrap();
            assert_eq!((again.offset, again.complete), (1_000_000, true));
            let again = server.send(id, 1_000_000, b"").await.unwrap();
            assert_eq!(again.transfer.unwrap().id, id, "the answer can be asked for again");
            assert!(matches!(server.send(id, 5, b"x").await, Err(ResumableError::Complete(_))));
        }
    }
}

#[tokio::test]
async fn an_offset_that_is_not_ours_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let id = server.resumable.create(creation(Some(10), false)).await.unwrap().id;
    server.send(id, 0, b"12345").await.unwrap();
    for offset in [0, 4, 6, u64::MAX] {
        let wrong = server.send(id, offset, b"").await;
        assert!(matches!(wrong, Err(ResumableError::Offset { expected: 5, .. })), "{offset}: {wrong:?}");
    }
    assert!(matches!(server.send(id, 5, b"123456").await, Err(ResumableError::Inconsistent)));
    // A body that does not say how long it is.
    let append = Append { offset: 5, ..Append::default() };
    let long = server.resumable.append(id, append, pieces(b"123456")).await;
    assert!(matches!(long, Err(ResumableError::Inconsistent)));
    assert_eq!(server.resumable.progress(id).await.unwrap().offset, 5);
    server.send(id, 5, b"67890").await.unwrap();
    assert_eq!(server.content("a"), b"1234567890");
}

#[tokio::test]
async fn a_piece_with_another_checksum_is_not_taken() {
    for sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).await;
        let content = bytes(700_000);
        let id = server.resumable.create(creation(Some(700_000), sealed)).await.unwrap().id;
        server.send(id, 0, &content[..40_000]).await.unwrap();
        let (head, rest) = content[40_000..].split_at(500_000);
        let right = Checksum::Sha256(sha2::Sha256::digest(head).into());
        let append = |checksum| Append {
            offset: 40_000,
            length: Some(head.len() as u64),
            checksum: Some(checksum),
            ..Append::default()
        };
        let wrong = append(Checksum::Sha256([0; 32]));
        let refused = server.resumable.append(id, wrong, pieces(head)).await;
        assert!(matches!(refused, Err(ResumableError::PieceChecksum)));
        let cut = server.resumable.append(id, append(right), broken(&head[..400_000])).await;
        assert!(matches!(cut, Err(ResumableError::Broken(_))));
        assert_eq!(server.resumable.progress(id).await.unwrap().offset, 40_000);
        assert_eq!(server.resumable.append(id, append(right), pieces(head)).await.unwrap().offset, 540_000);
        // The last one too, and by a trailer.
        let append = Append { offset: 540_000, length: None, checksum_follows: true, ..Append::default() };
        let with = |sum| pieces(rest).chain(stream::iter([Ok(Piece::Checksum(sum))]));
        let refused = server.resumable.append(id, append.clone(), with(Checksum::Md5([0; 16]))).await;
        assert!(matches!(refused, Err(ResumableError::PieceChecksum)));
        assert_eq!(server.resumable.progress(id).await.unwrap().offset, 540_000);
        let right = Checksum::Md5(md5::Md5::digest(rest).into());
        assert!(server.resumable.append(id, append, with(right)).await.unwrap().complete);
        assert_eq!(server.content("a"), content);
    }
}

#[tokio::test]
async fn a_newcomer_takes_over_from_one_that_hangs() {
    for sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).await;
        let content = bytes(900_000);
        let id = server.resumable.create(creation(Some(900_000), sealed)).await.unwrap().id;
        let (arrived, mut arrives) = tokio::sync::mpsc::channel(1);
        let hanging = pieces(&content[..400_000]).chain(stream::once(async move {
            arrived.send(()).await.unwrap();
            std::future::pending().await
        }));
        let append = Append { length: Some(900_000), ..Append::default() };
        let resumable = server.resumable.clone();
        let older = tokio::spawn(async move { resumable.append(id, append, Box::pin(hanging)).await });
        arrives.recv().await.unwrap();
        let progress = server.resumable.progress(id).await.unwrap();
        assert_eq!(progress.offset, 400_000, "what it brought is kept");
        assert!(matches!(older.await.unwrap(), Err(ResumableError::TakenOver)));
        server.send(id, 400_000, &content[400_000..]).await.unwrap();
        assert_eq!(server.content("a"), content);
    }
}

#[tokio::test]
async fn a_length_that_comes_late_holds_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let id = server.resumable.create(creation(None, false)).await.unwrap().id;
    server.send(id, 0, b"123").await.unwrap();
    let append = Append { offset: 3, size: Some(6), length: Some(1), ..Append::default() };
    server.resumable.append(id, append, pieces(b"4")).await.unwrap();
    drop(server);
    let server = Server::start(dir.path()).await;
    assert_eq!(server.resumable.progress(id).await.unwrap().size, Some(6));
    let other = Append { offset: 4, size: Some(7), length: Some(0), ..Append::default() };
    let refused = server.resumable.append(id, other, pieces(b"")).await;
    assert!(matches!(refused, Err(ResumableError::Inconsistent)));
    assert!(server.send(id, 4, b"56").await.unwrap().complete);
    assert_eq!(server.content("a"), b"123456");
}

#[tokio::test]
async fn there_are_not_too_many_and_not_too_large_ones() {
    let dir = tempfile::tempdir().unwrap();
    let small = Limits { unfinished: 3, per_client: 2, reserved: Some(100), size: Some(90), ..limits() };
    let server = Server::start_with(dir.path(), small).await;
    let create = |ip: &str, size| {
        let client = Client::new(ip, "test", None);
        server.resumable.create(Creation { client, ..creation(size, false) })
    };
    assert!(matches!(create("::1", Some(91)).await, Err(ResumableError::TooLarge { limit: 90 })));
    let first = create("::1", Some(60)).await.unwrap().id;
    let full = create("::1", Some(60)).await;
    assert!(matches!(full, Err(ResumableError::Upload(UploadError::Full))), "{full:?}");
    server.send(first, 0, &[0; 50]).await.unwrap();
    create("::1", Some(60)).await.unwrap();
    assert!(matches!(create("::1", None).await, Err(ResumableError::TooMany { limit: 2 })));
    create("::2", None).await.unwrap();
    assert!(matches!(create("::3", None).await, Err(ResumableError::TooMany { limit: 3 })));
    server.resumable.cancel(first).await.unwrap();
    let late = create("::3", None).await.unwrap().id;
    let long = server.resumable.append(late, Append::default(), pieces(&[0; 91])).await;
    assert!(matches!(long, Err(ResumableError::TooLarge { limit: 90 })), "{long:?}");
}

#[tokio::test]
async fn one_key_gives_one_upload() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let keyed = |client| Creation { idempotency_key: Some("k".into()), client, ..creation(Some(4), false) };
    let (one, two) = tokio::join!(
        server.resumable.create(keyed(client("me"))),
        server.resumable.create(keyed(client("me")))
    );
    let id = one.unwrap().id;
    assert_eq!(two.unwrap().id, id);
    assert_ne!(server.resumable.create(keyed(client("you"))).await.unwrap().id, id);
    server.send(id, 0, b"12").await.unwrap();
    drop(server);
    let server = Server::start(dir.path()).await;
    let found = server.resumable.create(keyed(client("me"))).await.unwrap();
    assert_eq!((found.id, found.offset), (id, 2));
    server.send(id, 2, b"34").await.unwrap();
    drop(server);
    let server = Server::start(dir.path()).await;
    let found = server.resumable.create(keyed(client("me"))).await.unwrap();
    assert!(found.id == id && found.complete);
}

#[tokio::test]
async fn parts_are_joined_in_their_order_and_used_up() {
    for (sealed_parts, sealed) in [(false, false), (true, false), (false, true), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(dir.path()).await;
        let content = bytes(500_000);
        let mut ids = Vec::new();
        for part in [&content[..SEGMENT], &content[SEGMENT..SEGMENT], &content[SEGMENT..]] {
            let partial = Creation { partial: true, ..creation(Some(part.len() as u64), sealed_parts) };
            let id = server.resumable.create(partial).await.unwrap().id;
            ids.push(id);
            if part.is_empty() {
                continue;
            }
            server.send(id, 0, &part[..10]).await.unwrap();
            let early = server.resumable.join(creation(None, sealed), ids.clone(), "".into()).await;
            assert!(matches!(early, Err(ResumableError::Parts(_))));
            assert!(server.send(id, 10, &part[10..]).await.unwrap().complete);
        }
        assert!(server.status.current(&FileName::clean("a").unwrap()).is_none(), "a part is no transfer");
        drop(server);
        server = Server::start(dir.path()).await;
        let twice = server.resumable.join(creation(None, sealed), vec![ids[0], ids[0]], "".into()).await;
        assert!(matches!(twice, Err(ResumableError::Parts(_))));
        let join = || server.resumable.join(creation(None, sealed), ids.clone(), "a b c".into());
        let done = join().await.unwrap();
        assert_eq!(done.concat, Some(Concat::Final("a b c".into())));
        assert_eq!(join().await.unwrap().id, done.id, "the answer can be asked for again");
        assert_eq!(server.content("a"), content);
        assert_eq!(server.leftovers(), [format!("{}.log", done.id)]);
        drop(server);
        let server = Server::start(dir.path()).await;
        let again = server.resumable.join(creation(None, sealed), ids, "".into()).await.unwrap();
        assert_eq!((again.id, again.concat), (done.id, done.concat));
    }
}

#[tokio::test]
async fn what_is_damaged_has_failed_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let id = server.resumable.create(creation(Some(10), false)).await.unwrap().id;
    server.send(id, 0, b"12345").await.unwrap();
    let data = server.layout.upload_data(id);
    drop(server);
    std::fs::OpenOptions::new().write(true).open(data).unwrap().set_len(3).unwrap();
    let server = Server::start(dir.path()).await;
    assert_eq!(server.restored.damaged, 1);
    server.status.settled().await;
    let failed = server.status.current(&FileName::clean("a").unwrap()).unwrap();
    assert!(failed.error.as_deref().is_some_and(|error| error.contains("cut short")), "{failed:?}");
    assert!(matches!(server.resumable.progress(id).await, Err(ResumableError::Gone)));
}
