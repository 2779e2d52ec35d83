//! The way of an upload's bytes to the disk: receiving, hashing and writing at the same time.
//!
//! Up to [`SMALL`] bytes wait in memory and are hashed and written by one blocking call: a thread hop costs more than
//! they do. What is longer, or announced as longer once [`ANNOUNCED`] bytes have come, becomes a [stream](super::stream), which
//! a [few threads](super::threads) hash and write. A full one holds the receiver back, and by TCP the client: memory is bounded
//! whatever the file's size. A stream that is dropped before its last step is an abort, not an end of file.
//!
//! With a key, what is written is sealed; the SHA-256 is that of the plain content all the same.
//!
//! What is long and can be resumed is [marked](Marker) from time to time: up to there it survives a crash.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::ahead::SealAhead;
use super::checksum::Hashes;
use super::piece::{LEAST_WEIGHT, Piece};
use super::stream::{Item, Step, Stream, Work};
use super::writer::{Opening, Target, Writer};

/// So many bytes wait in memory before threads are put to work.
const SMALL: usize = 256 << 10;
/// So many where more is announced: only who sends some of it gets threads, and space on the disk.
const ANNOUNCED: usize = 64 << 10;
/// Smaller pieces are copied together: each may hold a buffer of this size.
const TINY: usize = LEAST_WEIGHT;
/// So many where it may still turn out that they are to be sealed: they should not touch the disk before.
const UNDECIDED: usize = 1 << 20;
/// So many uploads stream at once; others wait, and by TCP their clients.
const MOST_STREAMS: usize = 1000;
/// Blocking threads that a server should have: all that stream may be flushed at the same time, and there must be threads
/// left for everything else.
pub const BLOCKING_THREADS: usize = MOST_STREAMS + 512;
/// As long as no more stream, those that begin may be [sealed ahead](super::ahead), which takes more memory.
const FEW: usize = 8;
/// Bytes that may wait until they are hashed and written.
const WAITING: usize = 1 << 20;

/// Takes the bytes of one upload, or of a part of one.
pub(super) struct Pipeline {
    target: Target,
    opening: Opening,
    hashes: Hashes,
    /// So many bytes wait in memory before threads are put to work.
    patience: usize,
    /// And so many behind that.
    waiting: usize,
    marker: Option<Marker>,
    state: State,
}

/// Called on a blocking thread after every so many bytes, with all hashes at that point.
#[derive(Clone)]
pub(super) struct Marker {
    pub(super) every: u64,
    pub(super) mark: Arc<Mark>,
}

type Mark = dyn Fn(&mut Writer, &Hashes) -> io::Result<()> + Send + Sync;

enum State {
    Gathering(Gathered),
    Streaming(Stages),
}

/// Bytes that wait in memory.
#[derive(Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    /// Those behind them, copied together.
    tiny: Vec<u8>,
    length: usize,
}

impl Gathered {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if piece.len() < TINY {
            self.tiny.extend_from_slice(&piece);
        } else {
            self.join_tiny();
            self.pieces.push(piece);
        }
    }

    fn join_tiny(&mut self) {
        if !self.tiny.is_empty() {
            self.pieces.push(std::mem::take(&mut self.tiny).into());
        }
    }

    fn into_pieces(mut self) -> Vec<Bytes> {
        self.join_tiny();
        self.pieces
    }
}

struct Stages {
    stream: Stream,
    ahead: Option<SealAhead>,
    marker: Option<Marker>,
    /// Bytes since the last mark.
    unmarked: u64,
    _seat: Option<SemaphorePermit<'static>>,
}

static STREAMS: Semaphore = Semaphore::const_new(MOST_STREAMS);

impl Pipeline {
    /// A pipeline to `target`.
    pub(super) fn new(target: Target, opening: Opening, hashes: Hashes) -> Self {
        let state = State::Gathering(Gathered::default());
        let patience = if target.expected > SMALL as u64 { ANNOUNCED } else { SMALL };
        Self { target, opening, hashes, patience, waiting: WAITING, marker: None, state }
    }

    /// Lets more bytes wait in memory at first, since it may still turn out that they are to be sealed; and fewer later:
    /// they come from a form, whose parser holds some as well.
    #[must_use]
    pub(super) fn undecided(self) -> Self {
        Self { patience: UNDECIDED, waiting: WAITING / 2, ..self }
    }

    /// Has what passes marked from time to time.
    #[must_use]
    pub(super) fn marked(self, marker: Marker) -> Self {
        Self { marker: Some(marker), ..self }
    }

    /// Changes how the content is stored, if that can still be done: `false` if bytes are on their way already.
    pub(super) fn decide(&mut self, opening: Opening) -> bool {
        let undecided = matches!(self.state, State::Gathering(_));
        if undecided {
            self.opening = opening;
        }
        undecided
    }

    /// Takes the next bytes; waits while there is too much underway. Not cancel-safe: after a cancelled call the upload can only be
    /// dropped.
    ///
    /// # Errors
    /// What writing said, once.
    pub(super) async fn push(&mut self, piece: Bytes) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        match &mut self.state {
            State::Gathering(gathered) => {
                gathered.push(piece);
                if gathered.length <= self.patience {
                    return Ok(());
                }
                let pieces = std::mem::take(gathered).into_pieces();
                let (target, opening) = (self.target.clone(), self.opening.clone());
                let (hashes, marker) = (self.hashes.clone(), self.marker.clone());
                let stages = Stages::start(target, opening, hashes, marker, self.waiting).await;
                // Before the next await: who is cancelled there must know that somebody writes.
                self.state = State::Streaming(stages);
                match &mut self.state {
                    State::Streaming(stages) => stages.push(pieces).await,
                    State::Gathering(_) => Ok(()),
                }
            }
            State::Streaming(stages) => stages.push(vec![piece]).await,
        }
    }

    /// Gives up, and waits until nothing more is written.
    pub(super) async fn abandon(self) {
        if let State::Streaming(Stages { stream, .. }) = self.state {
            stream.give_up();
            // What it says does not matter any more.
            _ = stream.over().await;
        }
    }

    /// Whether everything is in memory still.
    pub(super) const fn is_gathering(&self) -> bool {
        matches!(self.state, State::Gathering(_))
    }

    /// Everything has come: waits until it is written and hashed, and has `last` do the rest on a blocking thread.
    ///
    /// # Errors
    /// What writing or `last` said.
    pub(super) async fn end<T: Send + 'static>(
        self,
        last: impl FnOnce(Writer, Hashes) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self.state {
            State::Gathering(gathered) => {
                let length = gathered.length;
                let pieces = gathered.into_pieces();
                // Too little to set space aside for.
                let target = Target { expected: 0, ..self.target };
                let (opening, mut hashes) = (self.opening, self.hashes);
                blocking(move || {
                    if !target.space.has_room_for(length as u64) {
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    let mut writer = Writer::open(target, opening)?;
                    writer.append(&pieces)?;
                    pieces.iter().for_each(|piece| hashes.update(piece));
                    last(writer, hashes)
                })
                .await
            }
            State::Streaming(mut stages) => {
                let mut rest = stages.rest();
                let Stages { mut stream, .. } = stages;
                stream.push(&mut rest).await?;
                let (tell, told) = oneshot::channel();
                let step: Step = Box::new(move |Work { writer, hashes }| {
                    // Who no longer waits has given up.
                    _ = tell.send(last(writer, hashes));
                    Ok(None)
                });
                stream.push_last(step).await?;
                match told.await {
                    Ok(result) => result,
                    Err(_) => Err(stream.over().await.unwrap_or_else(ended)),
                }
            }
        }
    }
}

impl Stages {
    /// Waits while too many stream. Cancel-safe: nothing has begun then.
    async fn start(
        target: Target,
        opening: Opening,
        hashes: Hashes,
        marker: Option<Marker>,
        waiting: usize,
    ) -> Self {
        // Never closed.
        let seat = STREAMS.acquire().await.ok();
        let ahead =
            if STREAMS.available_permits() < MOST_STREAMS - FEW { None } else { SealAhead::of(&opening) };
        // Then some of it waits in both forms.
        let waiting = if ahead.is_some() { 2 * waiting } else { waiting };
        let stream = Stream::open(waiting, || Ok(Work { writer: Writer::open(target, opening)?, hashes }));
        Self { stream, ahead, marker, unmarked: 0, _seat: seat }
    }

    async fn push(&mut self, bytes: Vec<Bytes>) -> io::Result<()> {
        self.unmarked += bytes.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        let mut items = Vec::new();
        for bytes in bytes {
            match &mut self.ahead {
                None => items.push(Item::Piece(Piece::Data(bytes))),
                Some(ahead) => items.extend(to_push(ahead.take(bytes, || self.stream.is_behind()))),
            }
        }
        if let Some(marker) = self.marker.as_ref().filter(|marker| self.unmarked >= marker.every) {
            self.unmarked = 0;
            let mark = Arc::clone(&marker.mark);
            items.extend(self.rest());
            items.push(Item::Step(Box::new(move |mut work| {
                mark(&mut work.writer, &work.hashes)?;
                Ok(Some(work))
            })));
        }
        self.stream.push(&mut items).await
    }

    /// What is to be pushed before a step, so that it has all that has come.
    fn rest(&mut self) -> Vec<Item> {
        self.ahead.as_mut().map(|ahead| to_push(ahead.hand_over())).unwrap_or_default()
    }
}

/// What could not be sealed ends the stream in its turn: until that is told, somebody may be writing.
fn to_push(sealed: io::Result<Vec<Piece>>) -> Vec<Item> {
    match sealed {
        Ok(pieces) => pieces.into_iter().map(Item::Piece).collect(),
        Err(error) => vec![Item::Step(Box::new(|_| Err(error)))],
    }
}

fn ended() -> io::Error {
    io::Error::other("the upload was given up")
}

/// Runs `work` on a blocking thread; a panic in it becomes an error.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::super::ahead::tests::{key, plaintext};
    use super::super::stream::tests::{stream_of, target};
    use super::*;
    use crate::crypto::{HEADER_LEN, SEGMENT_OVERHEAD};

    /// What has been hashed of it has been sealed then, but for the tail.
    #[tokio::test]
    async fn a_mark_of_what_is_sealed_ahead_has_all_that_has_come() {
        let dir = tempfile::tempdir().unwrap();
        let (target, path) = target(dir.path());
        let opening = Opening::New(Some(key(64, 0)));
        let writer = Writer::open(target, opening.clone()).unwrap();
        let (stream, mut turn) = stream_of(Work { writer, hashes: Hashes::default() }, 8 << 20);
        let (tell, mut told) = mpsc::unbounded_channel();
        let mark = move |writer: &mut Writer, _: &Hashes| {
            writer.settle()?;
            tell.send((writer.length(), writer.tail().to_vec())).map_err(io::Error::other)
        };
        let marker = Marker { every: 600_000, mark: Arc::new(mark) };
        let ahead = SealAhead::at_any_speed(&opening);
        let mut stages = Stages { stream, ahead, marker: Some(marker), unmarked: 0, _seat: None };
        let plain = plaintext(603_010);
        let (first, rest) = plain.split_at(599_999);
        stages.push(vec![Bytes::copy_from_slice(first)]).await.unwrap();
        // Nobody has done anything.
        stages.push(vec![Bytes::copy_from_slice(rest)]).await.unwrap();
        let pieces = turn.take(1 << 20);
        assert!(matches!(pieces[..], [.., Piece::Hash(_), Piece::Sealed { .. }, Piece::Write(_)]));
        turn.work().unwrap().writer.take(&pieces).unwrap();
        assert!(turn.put_back(Ok(())).is_none(), "the mark is next");
        let (length, tail) = told.recv().await.unwrap();
        assert_eq!(length, plain.len() as u64);
        assert!(plain.ends_with(&tail) && tail.len() <= 64);
        let segments = (plain.len() - tail.len()) / 64;
        let sealed = HEADER_LEN + segments * (64 + SEGMENT_OVERHEAD);
        assert_eq!(std::fs::metadata(path).unwrap().len(), sealed as u64);
    }

    #[tokio::test]
    async fn what_cannot_be_sealed_ends_the_stream_when_nobody_writes_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let (target, path) = target(dir.path());
        let writer = Writer::open(target, Opening::New(None)).unwrap();
        let (mut stream, mut turn) = stream_of(Work { writer, hashes: Hashes::default() }, 1 << 20);
        stream.push(&mut to_push(Ok(vec![Piece::Data(Bytes::from_static(&[1]))]))).await.unwrap();
        stream.push(&mut to_push(Err(io::Error::other("no random bytes")))).await.unwrap();
        stream.push_last(Box::new(|_| panic!("it is over before"))).await.unwrap();
        assert!(path.exists());
        assert_eq!(turn.take(10).len(), 1);
        assert!(turn.put_back(Ok(())).is_none());
        assert_eq!(stream.over().await.unwrap().to_string(), "no random bytes");
        assert!(!path.exists());
    }

    /// Each may hold on to a buffer of some KiB.
    #[test]
    fn bytes_that_come_one_by_one_are_kept_together() {
        let mut gathered = Gathered::default();
        let large = Bytes::from(vec![2; TINY]);
        let pieces = [Bytes::from_static(&[1]), large.clone(), large, Bytes::new()];
        for piece in pieces.into_iter().chain((0..1000).map(|_| Bytes::from_static(&[3]))) {
            gathered.push(piece);
        }
        assert_eq!(gathered.length, 1 + 2 * TINY + 1000);
        let pieces = gathered.into_pieces();
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [1, TINY, TINY, 1000]);
        let expected = [&[1][..], &[2; 2 * TINY], &[3; 1000]].concat();
        assert_eq!(pieces.concat(), expected);
    }
}
