use std::path::{Path, PathBuf};
use std::sync::mpsc;

use futures_util::FutureExt as _;
use tempfile::TempDir;

use super::*;
use crate::domain::TransferId;
use crate::services::piece::LEAST_WEIGHT;
use crate::services::space::Space;
use crate::services::writer::{Opening, Target};
use crate::store::{Durability, Layout};

/// A stream to a file in `dir`, and where that is. Its turn is in the hands of the test: nothing is done by itself.
pub(in super::super) fn by_hand(dir: &Path, most: usize, hashes: Hashes) -> (Stream, Turn, PathBuf) {
    let (work, path) = work(dir, hashes);
    let (stream, turn) = stream_of(work, most);
    (stream, turn, path)
}

pub(in super::super) fn stream_of(work: Work, most: usize) -> (Stream, Turn) {
    let state = State { waiting: VecDeque::new(), weight: 0, place: Place::Away, waker: None };
    let shared = Arc::new(Shared { most, runtime: Handle::current(), state: Mutex::new(state) });
    let turn = Turn::new(&shared, Some(Box::new(work)));
    (Stream { shared, is_ending: false }, turn)
}

pub(in super::super) fn work(dir: &Path, hashes: Hashes) -> (Work, PathBuf) {
    let (target, path) = target(dir);
    (Work { writer: Writer::open(target, Opening::New(None)).unwrap(), hashes }, path)
}

/// Where an upload may be written in `dir`, and the path of that.
pub(in super::super) fn target(dir: &Path) -> (Target, PathBuf) {
    let layout = Layout::new(dir.join("storage"), dir.join("status.json"));
    layout.create().unwrap();
    let (id, space, durability) = (TransferId::new(), Space::new(layout.clone(), 0), Durability::Process);
    let path = layout.upload_data(id);
    (Target { layout, id, expected: 0, space, durability }, path)
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn data(length: usize) -> Item {
    Item::Piece(Piece::Data(Bytes::from(vec![7; length])))
}

fn length(pieces: &[Piece]) -> usize {
    pieces.iter().filter_map(Piece::hashed).map(Bytes::len).sum()
}

/// Does what is next, as a thread would.
fn go(mut turn: Turn, most: usize) -> (usize, Option<Turn>) {
    let pieces = turn.take(most);
    turn.work().unwrap().writer.take(&pieces).unwrap();
    (length(&pieces), turn.put_back(Ok(())))
}

#[tokio::test]
async fn a_full_stream_takes_more_when_half_of_it_is_done() {
    const PIECE: usize = LEAST_WEIGHT;
    let dir = dir();
    let (stream, turn, _path) = by_hand(dir.path(), 4 * PIECE, Hashes::default());
    // Small ones may hold as much memory.
    stream.push(&mut vec![data(PIECE), data(1), data(PIECE), data(PIECE)]).await.unwrap();
    let mut more = vec![data(5)];
    let mut pushing = Box::pin(stream.push(&mut more));
    assert!(pushing.as_mut().now_or_never().is_none(), "it is full");
    let (done, turn) = go(turn, PIECE);
    assert_eq!(done, PIECE);
    let woken = |stream: &Stream| stream.shared.state().waker.is_none();
    assert!(!woken(&stream), "most of it waits still");
    let (done, turn) = go(turn.unwrap(), PIECE);
    assert_eq!(done, PIECE, "of two pieces");
    assert!(woken(&stream));
    drop(pushing);
    assert_eq!(more.len(), 1, "who is cancelled has pushed nothing");
    stream.push(&mut more).await.unwrap();
    let (done, turn) = go(turn.unwrap(), 100 * PIECE);
    assert_eq!(done, PIECE + 1 + 5);
    assert!(turn.is_none());
    assert!(matches!(stream.shared.state().place, Place::Here(_)));
}

#[tokio::test]
async fn a_step_has_what_was_pushed_before_it_and_nothing_else() {
    let dir = dir();
    let (mut stream, turn, path) = by_hand(dir.path(), 1 << 20, Hashes::default());
    let (tell, told) = mpsc::channel();
    let last = tell.clone();
    let step: Step = Box::new(move |work| {
        tell.send(work.writer.length()).unwrap();
        Ok(Some(work))
    });
    stream.push(&mut vec![data(10), Item::Step(step), data(5)]).await.unwrap();
    let (done, turn) = go(turn, 4);
    assert_eq!(done, 4);
    let (done, turn) = go(turn.unwrap(), 100);
    assert_eq!((done, turn.is_none()), (6, true), "the step is next, and is begun");
    // What comes behind it is done by the threads.
    let last = Box::new(move |work: Work| {
        last.send(work.writer.length()).unwrap();
        work.writer.finish().unwrap().staged.published();
        Ok(None)
    });
    stream.push_last(last).await.unwrap();
    assert!(stream.over().await.is_none());
    assert_eq!(told.iter().collect::<Vec<_>>(), [10, 15]);
    assert!(!path.exists(), "published");
}

#[tokio::test]
async fn what_is_given_up_is_forgotten_and_its_file_removed() {
    let dir = dir();
    let (stream, turn, path) = by_hand(dir.path(), 1 << 20, Hashes::default());
    stream.push(&mut vec![data(10)]).await.unwrap();
    let (done, turn) = go(turn, 5);
    stream.give_up();
    assert_eq!(done, 5);
    assert!(path.exists());
    let (done, turn) = go(turn.unwrap(), 5);
    assert_eq!((done, turn.is_none()), (0, true));
    assert!(stream.over().await.is_none());
    assert!(!path.exists());
    assert!(stream.push(&mut vec![data(1)]).await.is_err());
}

#[tokio::test]
async fn an_idle_stream_is_given_up_by_dropping_it() {
    let dir = dir();
    let (stream, turn, path) = by_hand(dir.path(), 1 << 20, Hashes::default());
    let (_, turn) = go(turn, 1);
    assert!(turn.is_none() && path.exists());
    let shared = Arc::clone(&stream.shared);
    drop(stream);
    Stream { shared, is_ending: true }.over().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn what_failed_is_told_once_when_its_file_is_removed() {
    let dir = dir();
    let (stream, turn, path) = by_hand(dir.path(), LEAST_WEIGHT, Hashes::default());
    stream.push(&mut vec![data(10), data(10)]).await.unwrap();
    assert!(turn.put_back(Err(io::ErrorKind::StorageFull.into())).is_none());
    let push = async || stream.push(&mut vec![data(1)]).await.unwrap_err();
    assert_eq!(push().await.kind(), io::ErrorKind::StorageFull);
    assert!(!path.exists());
    assert_eq!(push().await.to_string(), "the upload was given up");
}

/// Pages that are written in two parts cost more.
#[tokio::test]
async fn turns_end_at_round_places_of_the_file() {
    let dir = dir();
    let (stream, mut turn, _path) = by_hand(dir.path(), 1 << 20, Hashes::default());
    for (pushed, taken) in [(1000, 1000), (9000, 3096), (0, 4096), (0, 1808), (5000, 2288), (0, 2712)] {
        stream.push(&mut vec![data(pushed)]).await.unwrap();
        let (done, next) = go(turn, 4096);
        assert_eq!(done, taken);
        turn = match next {
            Some(turn) => turn,
            None => match std::mem::replace(&mut stream.shared.state().place, Place::Away) {
                Place::Here(work) => Turn::new(&stream.shared, Some(work)),
                Place::Away | Place::Over(_) => panic!("nobody else has it"),
            },
        };
    }
}

/// It would wait in memory for the next turn otherwise.
#[tokio::test]
async fn what_has_been_hashed_is_written_in_the_same_turn() {
    let dir = dir();
    let (stream, mut turn, _path) = by_hand(dir.path(), 1 << 20, Hashes::default());
    let sealed = Piece::Sealed { segments: 0..1, bytes: Bytes::from_static(&[1; 100]) };
    let pieces = [Piece::Hash(Bytes::from_static(&[1; 76])), sealed, Piece::Data(Bytes::from_static(&[1]))];
    stream.push(&mut pieces.map(Item::Piece).into()).await.unwrap();
    assert!(matches!(turn.take(70)[..], [Piece::Hash(_)]));
    assert!(matches!(turn.take(6)[..], [Piece::Hash(_), Piece::Sealed { .. }]));
    assert!(matches!(turn.take(6)[..], [Piece::Data(_)]));
}

#[tokio::test]
async fn a_stream_that_is_half_full_is_behind() {
    let dir = dir();
    let (stream, turn, _path) = by_hand(dir.path(), 4 * LEAST_WEIGHT, Hashes::default());
    stream.push(&mut vec![data(1)]).await.unwrap();
    assert!(!stream.is_behind());
    let sealed = Piece::Sealed { segments: 0..1, bytes: vec![0; LEAST_WEIGHT].into() };
    stream.push(&mut vec![Item::Piece(sealed)]).await.unwrap();
    assert!(stream.is_behind());
    drop(turn);
}

#[tokio::test]
async fn a_lost_turn_ends_its_stream() {
    let dir = dir();
    let (stream, turn, path) = by_hand(dir.path(), LEAST_WEIGHT, Hashes::default());
    stream.push(&mut vec![data(10)]).await.unwrap();
    let mut more = vec![data(1)];
    // As by a panic.
    let (pushed, ()) = tokio::join!(stream.push(&mut more), async { drop(turn) });
    assert_eq!(pushed.unwrap_err().to_string(), "the upload could not be hashed or written");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_says_why() {
    let stream = Stream::open(1 << 20, || Err(io::ErrorKind::StorageFull.into()));
    let error = stream.over().await.unwrap();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let panicking = Stream::open(1 << 20, || panic!("a bug"));
    assert!(panicking.over().await.is_some());
}
