use std::sync::{Arc, mpsc};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::Barrier;

use super::super::checksum::{Checksum, Hashes, PieceHash};
use super::super::stream::tests::{by_hand, work};
use super::super::stream::{Item, Stream};
use super::*;
use crate::domain::Digest;

/// Of a length that no block divides.
const PIECE: usize = (64 << 10) + 11;

fn piece(upload: usize, number: usize) -> Bytes {
    let byte = |i: usize| (i.wrapping_mul(upload + 3) >> 3) as u8 ^ number as u8;
    (0..PIECE).map(byte).collect()
}

/// Several at once, more than lanes, each with bytes of its own; some have more to compute, or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn each_upload_is_written_and_has_its_hashes() {
    const UPLOADS: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    let at_once = Arc::new(Barrier::new(UPLOADS));
    let uploads = (0..UPLOADS).map(|upload| {
        let (at_once, dir) = (Arc::clone(&at_once), dir.path().to_owned());
        tokio::spawn(async move {
            let whole: Vec<Bytes> = (0..12).map(|number| piece(upload, number)).collect();
            let checksum = Checksum::Sha256(Sha256::digest(whole.concat()).into());
            let mut hashes = Hashes::default();
            match upload {
                9 => hashes = Hashes::following(Sha256::new_with_prefix("before")),
                10 => hashes.piece = PieceHash::of(&checksum),
                11 => hashes = Hashes::later(),
                _ => {}
            }
            let (work, path) = work(&dir, hashes);
            let mut stream = Stream::open(256 << 10, || Ok(work));
            at_once.wait().await;
            for (number, pieces) in whole.chunks(3).enumerate() {
                let mut items: Vec<_> = pieces.iter().cloned().map(Piece::Data).map(Item::Piece).collect();
                if upload % 2 == 0 {
                    let expected = Sha256::digest(whole[..3 * (number + 1)].concat());
                    items.push(Item::Step(Box::new(move |work| {
                        if work.hashes.are_only_whole() {
                            assert_eq!(work.hashes.clone().digest(), Digest::new(expected.into()));
                        }
                        Ok(Some(work))
                    })));
                }
                stream.push(&mut items).await.unwrap();
            }
            let last = move |work: super::super::stream::Work| {
                let content = whole.concat();
                assert!(std::fs::read(path)? == content, "upload {upload} is written otherwise");
                let expected = Digest::new(Sha256::digest(&content).into());
                match upload {
                    9 => {
                        let (chunk, file) = work.hashes.of_chunk();
                        assert_eq!(chunk, Some(expected));
                        let all = Sha256::new_with_prefix("before").chain_update(content);
                        assert_eq!(file.map(Sha256::finalize), Some(all.finalize()));
                    }
                    10 => assert!(work.hashes.piece.has(&checksum)),
                    11 => assert_eq!(work.hashes.of_chunk().0, None),
                    _ => assert_eq!(work.hashes.digest(), expected, "upload {upload}"),
                }
                Ok(None)
            };
            stream.push_last(Box::new(last)).await.unwrap();
            // An assertion that failed is an error here.
            assert!(stream.over().await.is_none(), "upload {upload}");
        })
    });
    for upload in uploads.collect::<Vec<_>>() {
        upload.await.unwrap();
    }
}

#[tokio::test]
async fn those_go_together_that_can_and_the_last_threads_wait_for_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut streams = Vec::new();
    let mut turn = |hashes| {
        let (stream, turn, _) = by_hand(dir.path(), 1, hashes);
        streams.push(stream);
        turn
    };
    let mut due = Due::default();
    let rules = Rules { eager: 1, most: 4 };
    assert!(!due.is_enough(rules));
    let mut give = |due: &mut Due, hashes| due.turns.push_back(turn(hashes));
    give(&mut due, Hashes::default());
    assert!(due.is_enough(rules), "nobody does anything");
    due.busy = 1;
    assert!(!due.is_enough(rules), "more may come");
    for _ in 0..5 {
        give(&mut due, Hashes::default());
    }
    assert!(due.is_enough(rules));
    assert_eq!(due.next(rules).len(), 4);
    assert!(!due.is_enough(rules), "two");
    give(&mut due, Hashes::following(Sha256::new()));
    assert!(due.is_enough(rules), "one of them does not go together with others");
    give(&mut due, Hashes::default());
    assert_eq!([due.next(rules).len(), due.next(rules).len()], [3, 1], "it holds up nobody");
    // With more threads than uploads, each has its own.
    for _ in 0..3 {
        give(&mut due, Hashes::default());
    }
    due.busy = 0;
    assert_eq!(due.next(Rules { eager: 4, most: 4 }).len(), 1);
    assert_eq!(due.next(Rules { eager: 1, most: 4 }).len(), 2);
}

/// The one that is busy may wait for its disk as long as it likes.
#[tokio::test]
async fn what_waits_for_long_is_taken_by_another_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (_stream, turn, _) = by_hand(dir.path(), 1, Hashes::default());
    let (due, idle) = (Mutex::default(), Condvar::new());
    let rules = Rules { eager: 1, most: 4 };
    let threads = Threads { due, idle, count: 0, refusal: None, rules };
    threads.due().busy = 1;
    thread::scope(|scope| {
        let other = scope.spawn(|| threads.until_due(threads.due(), &Arc::default()).next(rules).len());
        while threads.due().asleep.is_empty() {
            thread::yield_now();
        }
        threads.give(turn);
        assert_eq!(other.join().unwrap(), 1);
    });
    assert!(!threads.due().is_watched);
}

/// The caches that it used are as it left them.
#[tokio::test]
async fn the_thread_that_was_last_at_work_is_the_first_to_be_woken() {
    let dir = tempfile::tempdir().unwrap();
    let (_first, turn, _) = by_hand(dir.path(), 1, Hashes::default());
    let (_second, other, _) = by_hand(dir.path(), 1, Hashes::default());
    let rules = Rules { eager: 1, most: 4 };
    let (due, idle) = (Mutex::default(), Condvar::new());
    let threads = Threads { due, idle, count: 0, refusal: None, rules };
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        for number in 1..=2 {
            let (threads, tell) = (&threads, tell.clone());
            scope.spawn(move || {
                let due = threads.until_due(threads.due(), &Arc::default()).next(rules).len();
                tell.send((number, due)).unwrap();
            });
            while threads.due().asleep.len() < number {
                thread::yield_now();
            }
        }
        threads.give(turn);
        let first = told.recv().unwrap();
        threads.give(other);
        assert_eq!([first, told.recv().unwrap()], [(2, 1), (1, 1)]);
    });
    assert!(threads.due().asleep.is_empty());
}
