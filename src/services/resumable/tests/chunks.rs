//! Numbered chunks: any order, any repeats, any restart.

mod interleavings;

use super::*;

const SIZE: usize = 100_000;

/// A file and how a client sends it.
struct File {
    content: Vec<u8>,
    size: usize,
    total: u32,
    sealed: bool,
    hash: Option<Digest>,
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::new(sha2::Sha256::digest(bytes).into())
}

impl File {
    fn new(length: usize, size: usize, sealed: bool) -> Self {
        let total = u32::try_from(length.div_ceil(size).max(1)).unwrap();
        Self { content: bytes(length), size, total, sealed, hash: None }
    }

    /// The same length, other content.
    fn changed(&self) -> Self {
        let mut content = self.content.clone();
        content.iter_mut().for_each(|byte| *byte ^= 1);
        Self { content, ..*self }
    }

    fn bytes(&self, number: u32) -> &[u8] {
        let start = (number as usize * self.size).min(self.content.len());
        &self.content[start..(start + self.size).min(self.content.len())]
    }

    fn chunk(&self, number: u32) -> Chunk {
        Chunk {
            filename: FileName::clean("a").unwrap(),
            client: client("me"),
            number,
            total: self.total,
            hash: digest(self.bytes(number)),
            upload_id: None,
            size: None,
            file_size: None,
            file_hash: self.hash,
            encryption: Some(self.sealed),
            priority: Priority::default(),
        }
    }
}

impl Server {
    /// Sends a chunk; `late`: its fields stand behind it.
    async fn chunk(&self, chunk: Chunk, bytes: &[u8], late: bool) -> Result<ChunkTaken, ResumableError> {
        let mut incoming = self.resumable.begin_chunk((!late).then_some(&chunk)).await?;
        for piece in bytes.chunks(30_000) {
            incoming.push(piece.to_vec().into()).await?;
        }
        incoming.finish(chunk).await
    }

    async fn send_chunk(&self, file: &File, number: u32) -> Result<ChunkTaken, ResumableError> {
        self.chunk(file.chunk(number), file.bytes(number), false).await
    }

    async fn info(&self) -> Option<ResumeInfo> {
        let name = FileName::clean("a").unwrap();
        self.resumable.resume_info(&client("me"), &name).await.unwrap()
    }

    async fn numbers(&self) -> Vec<u32> {
        let info = self.info().await;
        info.map_or_else(Vec::new, |info| info.chunks.into_iter().map(|(number, _)| number).collect())
    }
}

fn received(taken: Result<ChunkTaken, ResumableError>) -> (u32, bool) {
    match taken.unwrap() {
        ChunkTaken::Uploading { received, .. } => (received, false),
        ChunkTaken::Completed { received, .. } => (received, true),
    }
}

fn is_conflict<T>(taken: &Result<T, ResumableError>) -> bool {
    matches!(taken, Err(ResumableError::ChunkConflict(_)))
}

#[tokio::test]
async fn chunks_may_come_in_any_order_with_restarts_between_them() {
    for sealed in [false, true] {
        for (length, size) in [(5 * SIZE + 7, SIZE), (4 * SEGMENT, SEGMENT), (3 << 21, 3 << 20), (1000, 300)]
        {
            for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 5, 0, 4, 1, 2]] {
                let dir = tempfile::tempdir().unwrap();
                let mut server = Server::start(dir.path()).await;
                let file = File::new(length, size, sealed);
                let order: Vec<u32> =
                    order.into_iter().map(|n| n % file.total).take(file.total as usize).collect();
                let mut order: Vec<u32> = order.into_iter().chain(0..file.total).collect();
                let mut seen = std::collections::BTreeSet::new();
                order.retain(|number| seen.insert(*number));
                for (index, number) in order.iter().enumerate() {
                    let late = index % 2 == 1;
                    let taken = server.chunk(file.chunk(*number), file.bytes(*number), late).await;
                    let there = index as u32 + 1;
                    assert_eq!(received(taken), (there, there == file.total), "{order:?}");
                    if there < file.total {
                        let mut expected = order[..=index].to_vec();
                        expected.sort_unstable();
                        assert_eq!(server.numbers().await, expected);
                        let again = server.send_chunk(&file, *number).await;
                        assert_eq!(received(again), (there, false), "the same again is nothing new");
                    }
                    if index % 2 == 0 {
                        drop(server);
                        server = Server::start(dir.path()).await;
                    }
                }
                assert_eq!(server.content("a"), file.content, "{order:?} sealed {sealed} {length} {size}");
                assert_eq!(server.leftovers().len(), 1, "{:?}", server.leftovers());
                assert!(server.info().await.is_none());
            }
        }
    }
}

#[tokio::test]
async fn the_last_chunk_again_gets_the_same_answer_as_long_as_its_file_stands() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let file = File::new(3 * SIZE, SIZE, false);
    for number in 0..3 {
        server.send_chunk(&file, number).await.unwrap();
    }
    drop(server);
    let server = Server::start(dir.path()).await;
    let Ok(ChunkTaken::Completed { transfer, .. }) = server.send_chunk(&file, 2).await else {
        panic!("not the same answer")
    };
    // Of another chunk nobody knows whether it is the same file.
    assert_eq!(received(server.send_chunk(&file, 1).await), (1, false));
    let by_id = Chunk { upload_id: Some(transfer.id), ..file.chunk(1) };
    assert_eq!(received(server.chunk(by_id, file.bytes(1), false).await), (3, true));
    server.resumable.cancel(server.info().await.unwrap().id).await.unwrap();
    let other = file.changed();
    for number in 0..3 {
        server.send_chunk(&other, number).await.unwrap();
    }
    assert_eq!(received(server.send_chunk(&file, 2).await), (1, false), "what it was has been replaced");
}

#[tokio::test]
async fn what_contradicts_changes_nothing() {
    for sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).await;
        let file = File::new(3 * SIZE + 5, SIZE, sealed);
        server.send_chunk(&file, 1).await.unwrap();
        let other = file.changed();
        assert!(is_conflict(&server.send_chunk(&other, 1).await), "another chunk of this number");
        let total = Chunk { total: 5, ..file.chunk(2) };
        assert!(is_conflict(&server.chunk(total, file.bytes(2), false).await));
        let encryption = Chunk { encryption: Some(!sealed), ..file.chunk(2) };
        assert!(is_conflict(&server.chunk(encryption, file.bytes(2), true).await));
        for late in [false, true] {
            for (number, bytes) in [(2, &file.bytes(2)[1..]), (2, &file.content[..SIZE + 1])] {
                let chunk = Chunk { hash: digest(bytes), ..file.chunk(number) };
                assert!(is_conflict(&server.chunk(chunk, bytes, late).await), "of another size");
            }
            let large = &file.content[..SIZE + 1];
            let chunk = Chunk { hash: digest(large), ..file.chunk(3) };
            assert!(is_conflict(&server.chunk(chunk, large, late).await), "the last, but larger");
            let wrong = server.chunk(file.chunk(2), other.bytes(2), late).await;
            assert!(matches!(wrong, Err(ResumableError::ChunkHash { .. })));
            for (number, total) in [(0, 0), (4, 4), (0, 1001), (u32::MAX, u32::MAX)] {
                let chunk = Chunk { number, total, ..file.chunk(0) };
                let invalid = server.chunk(chunk, b"", late).await;
                assert!(matches!(invalid, Err(ResumableError::InvalidChunk(_))), "{number} of {total}");
            }
        }
        assert_eq!(server.numbers().await, [1]);
        for number in [3, 0, 2] {
            server.send_chunk(&file, number).await.unwrap();
        }
        assert_eq!(server.content("a"), file.content);
    }
}

#[tokio::test]
async fn another_file_under_an_old_name_begins_anew_where_that_can_be_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let with_hash = |file: File| File { hash: Some(digest(&file.content)), ..file };
    let old = with_hash(File::new(3 * SIZE, SIZE, false));
    let new = with_hash(old.changed());
    server.send_chunk(&old, 0).await.unwrap();
    server.send_chunk(&old, 1).await.unwrap();
    for number in 0..3 {
        assert_eq!(received(server.send_chunk(&new, number).await), (number + 1, number == 2));
    }
    assert_eq!(server.content("a"), new.content);
    // The same file in other chunks takes the place of what there was.
    let smaller = File { size: SIZE / 2, total: 6, ..with_hash(old.changed().changed()) };
    for number in 0..6 {
        let chunk = Chunk { size: Some(SIZE as u64 / 2), ..smaller.chunk(number) };
        server.chunk(chunk, smaller.bytes(number), false).await.unwrap();
    }
    assert_eq!(server.content("a"), old.content);
    assert!(server.info().await.is_none(), "what there was is given up");
    // Somebody else's upload is another one.
    let others = Chunk { client: client("you"), ..old.chunk(0) };
    assert_eq!(received(server.chunk(others, old.bytes(0), false).await), (1, false));
    assert!(server.info().await.is_none());
}

#[tokio::test]
async fn an_empty_last_chunk_ends_the_one_before() {
    for sealed in [false, true] {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let dir = tempfile::tempdir().unwrap();
            let server = Server::start(dir.path()).await;
            let file = File { total: 3, ..File::new(2 * SIZE, SIZE, sealed) };
            for number in order {
                server.send_chunk(&file, number).await.unwrap();
            }
            assert_eq!(server.content("a"), file.content);
        }
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).await;
        let nothing = File::new(0, SIZE, sealed);
        assert_eq!(received(server.send_chunk(&nothing, 0).await), (1, true));
        assert_eq!(server.content("a"), b"");
    }
}

#[tokio::test]
async fn a_longer_attempt_at_the_last_chunk_leaves_nothing_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let file = File::new(2 * SIZE + 5, SIZE, false);
    server.send_chunk(&file, 0).await.unwrap();
    let long = server.chunk(file.chunk(2), &bytes(SIZE), false).await;
    assert!(matches!(long, Err(ResumableError::ChunkHash { .. })));
    server.send_chunk(&file, 2).await.unwrap();
    server.send_chunk(&file, 1).await.unwrap();
    assert_eq!(server.content("a"), file.content);
}

#[tokio::test]
async fn a_chunk_that_hangs_lets_the_newer_one_of_its_number_pass() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let file = File::new(3 * (1 << 20), 1 << 20, false);
    server.send_chunk(&file, 0).await.unwrap();
    let mut hanging = server.resumable.begin_chunk(Some(&file.chunk(1))).await.unwrap();
    hanging.push(vec![0xff; 700_000].into()).await.unwrap();
    let (newer, ()) = tokio::join!(server.send_chunk(&file, 1), async {
        hanging.superseded().await;
        drop(hanging);
    });
    assert_eq!(received(newer), (2, false));
    server.send_chunk(&file, 2).await.unwrap();
    assert_eq!(server.content("a"), file.content);
}

#[tokio::test]
async fn a_damaged_chunk_is_missing_again() {
    for sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(dir.path()).await;
        let file = File::new(4 * SIZE, SIZE, sealed);
        for number in [0, 1, 3] {
            server.send_chunk(&file, number).await.unwrap();
        }
        let data = server.layout.upload_data(server.info().await.unwrap().id);
        drop(server);
        let mut stored = std::fs::read(&data).unwrap();
        stored[SIZE + SIZE / 2] ^= 1;
        let length = stored.len() - 10;
        crate::store::atomic::replace(&data, Durability::Process, |file| {
            std::io::Write::write_all(file, &stored[..length])
        })
        .unwrap();
        let server = Server::start(dir.path()).await;
        assert_eq!(server.numbers().await, [0], "one has changed, one is cut short");
        drop(server);
        let server = Server::start(dir.path()).await;
        assert_eq!(server.numbers().await, [0]);
        for number in [1, 2, 3] {
            server.send_chunk(&file, number).await.unwrap();
        }
        assert_eq!(server.content("a"), file.content);
    }
}

#[tokio::test]
async fn the_whole_is_compared_with_what_was_said_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let file = File { hash: Some(Digest::new([7; 32])), ..File::new(2 * SIZE, SIZE, false) };
    server.send_chunk(&file, 0).await.unwrap();
    let refused = server.send_chunk(&file, 1).await;
    let mismatch = matches!(refused, Err(ResumableError::Upload(UploadError::ChecksumMismatch { .. })));
    assert!(mismatch, "{refused:?}");
    server.status.settled().await;
    assert_eq!(server.status.current(&FileName::clean("a").unwrap()).unwrap().status, Status::Failed);
    assert_eq!(server.leftovers(), [""; 0]);
}

#[tokio::test]
async fn a_sealed_upload_is_never_plain_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let marker = b"find me if you can";
    let mut file = File::new(4 * (3 << 20) - 100, 3 << 20, true);
    file.content.chunks_exact_mut(marker.len()).for_each(|bytes| bytes.copy_from_slice(marker));
    for number in [3, 0, 2, 1] {
        server.send_chunk(&file, number).await.unwrap();
        let directories =
            [server.layout.uploads(), server.layout.encrypted(), server.layout.root().to_owned()];
        for entry in directories.iter().flat_map(|path| std::fs::read_dir(path).unwrap()) {
            let path = entry.unwrap().path();
            let plain =
                path.is_file() && memchr::memmem::find(&std::fs::read(&path).unwrap(), marker).is_some();
            assert!(!plain, "{}", path.display());
        }
    }
    assert_eq!(server.content("a"), file.content);
}

#[tokio::test]
async fn an_upload_that_is_cancelled_takes_no_more_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let file = File::new(3 * (1 << 20), 1 << 20, false);
    server.send_chunk(&file, 0).await.unwrap();
    let mut running = server.resumable.begin_chunk(Some(&file.chunk(1))).await.unwrap();
    running.push(file.bytes(1).to_vec().into()).await.unwrap();
    let id = server.info().await.unwrap().id;
    server.resumable.cancel(id).await.unwrap();
    running.superseded().await;
    assert!(matches!(running.finish(file.chunk(1)).await, Err(ResumableError::Gone)));
    assert_eq!(server.leftovers(), [""; 0]);
    let by_id = Chunk { upload_id: Some(id), ..file.chunk(1) };
    assert!(matches!(server.chunk(by_id, file.bytes(1), false).await, Err(ResumableError::Gone)));
}

#[tokio::test]
async fn an_empty_chunk_is_the_last_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let file = File { total: 3, ..File::new(0, SIZE, false) };
    for late in [false, true] {
        let empty = server.chunk(file.chunk(0), b"", late).await;
        assert!(matches!(empty, Err(ResumableError::InvalidChunk(_))), "{empty:?}");
    }
    assert!(server.info().await.is_none());
}

/// Its end was sealed as the end of the file, and then the file could not be published.
#[tokio::test]
async fn a_file_whose_end_was_sealed_and_not_published_is_not_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let file = File { total: 3, ..File::new(2 * SIZE, SIZE, true) };
    for number in [0, 1] {
        server.send_chunk(&file, number).await.unwrap();
    }
    // As on a full disk: nothing can take its name.
    std::fs::remove_dir(server.layout.encrypted()).unwrap();
    let failed = server.send_chunk(&file, 2).await;
    assert!(matches!(failed, Err(ResumableError::Upload(UploadError::Storage(_)))), "{failed:?}");
    drop(server);
    let server = Server::start(dir.path()).await;
    assert_eq!(server.content("a"), file.content, "published at the start");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_in_chunks_takes_no_more_room_than_it_has_bytes() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path()).await;
    let file = File::new(900_000, 300_000, false);
    for number in [0, 1, 2] {
        server.send_chunk(&file, number).await.unwrap();
    }
    let blocks = std::fs::metadata(server.layout.root().join("a")).unwrap().blocks();
    assert!(blocks * 512 < 1_000_000, "{blocks} blocks for 900,000 bytes");
}
