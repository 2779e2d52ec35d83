//! The way of an upload's bytes to the disk: receiving, hashing and writing at the same time.
//!
//! Up to [`SMALL`] bytes wait in memory and are hashed and written by one blocking call: a thread hop costs more than
//! they do. Beyond that, two blocking tasks run beside the receiver: one writes, one hashes, each behind a channel of
//! [`DEPTH`] pieces. An upload that begins while others run has one task for both: the processor's cores are busy
//! already, and handing every piece to two threads costs a tenth more of them. A full channel holds the receiver back,
//! and by TCP the client: memory is bounded whatever the file's size. A channel that closes without [`Piece::End`] is
//! an abort, not an end of file.
//!
//! With a key, what is written is sealed; the SHA-256 is that of the plain content all the same.
//!
//! What is long and can be resumed is [marked](Marker) from time to time: up to there it survives a crash.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::checksum::Hashes;
use super::writer::{GATHER, Opening, Target, Writer};

/// So many bytes wait in memory before threads are put to work.
const SMALL: usize = 256 << 10;
/// So many where it may still turn out that they are to be sealed: they should not touch the disk before.
const UNDECIDED: usize = 1 << 20;
/// So many uploads stream at once, each with one or two blocking threads; others wait, and by TCP their clients. There must
/// be threads left for everything else.
const MOST_STREAMS: usize = 1000;
/// Blocking threads that a server should have.
pub const BLOCKING_THREADS: usize = 2 * MOST_STREAMS + 512;
/// Pieces that may wait for the disk or the hash; hyper's pieces are at most 256 KiB.
const DEPTH: usize = 2;

/// Takes the bytes of one upload, or of a part of one.
pub(super) struct Pipeline {
    target: Target,
    opening: Opening,
    hashes: Hashes,
    /// So many bytes wait in memory before threads are put to work.
    patience: usize,
    marker: Option<Marker>,
    state: State,
}

/// Called by the writer after every so many bytes, with all hashes at that point.
#[derive(Clone)]
pub(super) struct Marker {
    pub(super) every: u64,
    pub(super) mark: Arc<Mark>,
}

type Mark = dyn Fn(&mut Writer, &Hashes) -> io::Result<()> + Send + Sync;

enum State {
    Gathering { pieces: Vec<Bytes>, length: usize },
    Streaming(Stages),
}

struct Stages {
    writer: mpsc::Sender<Piece>,
    written: JoinHandle<io::Result<(Writer, Option<Hashes>)>>,
    /// Hashes beside the writer; without it, the writer does both.
    hasher: Option<Hasher>,
    /// Bytes since the last mark.
    unmarked: u64,
    every: Option<u64>,
    _running: Running,
    _seat: Option<SemaphorePermit<'static>>,
}

struct Hasher {
    pieces: mpsc::Sender<Piece>,
    hashed: JoinHandle<Option<Hashes>>,
}

/// Counts the uploads that stream.
struct Running;

static STREAMS: Semaphore = Semaphore::const_new(MOST_STREAMS);
static RUNNING: AtomicUsize = AtomicUsize::new(0);

impl Running {
    /// And says how many there were.
    fn start() -> (Self, usize) {
        (Self, RUNNING.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Piece {
    Data(Bytes),
    /// Here the hashes pass from whoever hashes to the writer.
    Mark(Passing),
    End,
}

enum Passing {
    Out(oneshot::Sender<Hashes>),
    In(oneshot::Receiver<Hashes>),
    /// The writer hashes itself.
    Own,
}

impl Pipeline {
    /// A pipeline to `target`.
    pub(super) const fn new(target: Target, opening: Opening, hashes: Hashes) -> Self {
        let state = State::Gathering { pieces: Vec::new(), length: 0 };
        Self { target, opening, hashes, patience: SMALL, marker: None, state }
    }

    /// Lets more bytes wait in memory: it may still turn out that they are to be sealed.
    #[must_use]
    pub(super) fn undecided(self) -> Self {
        Self { patience: UNDECIDED, ..self }
    }

    /// Has what passes marked from time to time.
    #[must_use]
    pub(super) fn marked(self, marker: Marker) -> Self {
        Self { marker: Some(marker), ..self }
    }

    /// Changes how the content is stored, if that can still be done: `false` if bytes are on their way already.
    pub(super) fn decide(&mut self, opening: Opening) -> bool {
        let undecided = matches!(self.state, State::Gathering { .. });
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
            State::Gathering { pieces, length } => {
                // A client that sends byte by byte must not make memory of each.
                *length += piece.len() + size_of::<Bytes>();
                pieces.push(piece);
                if *length <= self.patience {
                    return Ok(());
                }
                let pieces = std::mem::take(pieces);
                let (target, opening) = (self.target.clone(), self.opening.clone());
                let stages = Stages::start(target, opening, self.hashes.clone(), self.marker.clone()).await;
                // Before the next await: who is cancelled there must know that somebody writes.
                self.state = State::Streaming(stages);
                if let State::Streaming(stages) = &mut self.state {
                    for piece in pieces {
                        stages.push(piece).await?;
                    }
                }
                Ok(())
            }
            State::Streaming(stages) => stages.push(piece).await,
        }
    }

    /// Gives up, and waits until nothing more is written.
    pub(super) async fn abandon(self) {
        if let State::Streaming(Stages { writer, written, hasher, .. }) = self.state {
            drop((writer, hasher));
            // What it says does not matter any more.
            _ = written.await;
        }
    }

    /// Whether everything is in memory still.
    pub(super) const fn is_gathering(&self) -> bool {
        matches!(self.state, State::Gathering { .. })
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
            State::Gathering { pieces, .. } => {
                let length = pieces.iter().map(Bytes::len).sum::<usize>();
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
                stages.end().await?;
                let (writer, hashes) = stages.written.await.map_err(io::Error::other)??;
                let hashes = match stages.hasher {
                    None => hashes,
                    Some(hasher) => hasher.hashed.await.map_err(io::Error::other)?,
                };
                let hashes = hashes.ok_or_else(ended)?;
                blocking(move || last(writer, hashes)).await
            }
        }
    }
}

impl Stages {
    /// Waits while too many stream. Cancel-safe.
    async fn start(target: Target, opening: Opening, hashes: Hashes, marker: Option<Marker>) -> Self {
        // Never closed.
        let seat = STREAMS.acquire().await.ok();
        let (running, others) = Running::start();
        let beside = others == 0 && !hashes.later;
        let here = (!beside).then(|| hashes.clone());
        let every = marker.as_ref().map(|marker| marker.every);
        let (writer, pieces) = mpsc::channel(DEPTH);
        let written = tokio::task::spawn_blocking(move || {
            let mark = |writer: &mut Writer, hashes: &Hashes| match &marker {
                Some(marker) => (marker.mark)(writer, hashes),
                None => Ok(()),
            };
            write(target, opening, pieces, here, mark)
        });
        let hasher = beside.then(|| {
            let (sender, pieces) = mpsc::channel(DEPTH);
            Hasher { pieces: sender, hashed: tokio::task::spawn_blocking(move || hash(pieces, hashes)) }
        });
        Self { writer, written, hasher, unmarked: 0, every, _running: running, _seat: seat }
    }

    async fn push(&mut self, piece: Bytes) -> io::Result<()> {
        self.unmarked += piece.len() as u64;
        self.send(Piece::Data(piece.clone()), Piece::Data(piece)).await?;
        if self.every.is_some_and(|every| self.unmarked >= every) {
            self.unmarked = 0;
            let (sender, receiver) = oneshot::channel();
            let receiving = if self.hasher.is_some() { Passing::In(receiver) } else { Passing::Own };
            self.send(Piece::Mark(Passing::Out(sender)), Piece::Mark(receiving)).await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> io::Result<()> {
        self.send(Piece::End, Piece::End).await
    }

    async fn send(&mut self, to_hasher: Piece, to_writer: Piece) -> io::Result<()> {
        let hashes = match &self.hasher {
            None => true,
            Some(hasher) => hasher.pieces.send(to_hasher).await.is_ok(),
        };
        if hashes && self.writer.send(to_writer).await.is_ok() {
            return Ok(());
        }
        // One of the two has given up: the writer says why. If it was the other, it must not wait for more.
        self.writer = mpsc::channel(1).0;
        match (&mut self.written).await.map_err(io::Error::other)? {
            Err(error) => Err(error),
            Ok(_) => Err(ended()),
        }
    }
}

fn write(
    target: Target,
    opening: Opening,
    mut pieces: mpsc::Receiver<Piece>,
    mut hashes: Option<Hashes>,
    mark: impl Fn(&mut Writer, &Hashes) -> io::Result<()>,
) -> io::Result<(Writer, Option<Hashes>)> {
    let mut writer = Writer::open(target, opening)?;
    let mut gathered: Vec<Bytes> = Vec::with_capacity(GATHER);
    loop {
        let mut next = pieces.blocking_recv();
        // What follows those that are gathered, if it is something else.
        let other = loop {
            match next {
                Some(Piece::Data(bytes)) => gathered.push(bytes),
                other => break Some(other),
            }
            if gathered.len() == GATHER {
                break None;
            }
            match pieces.try_recv() {
                Ok(piece) => next = Some(piece),
                Err(_) => break None,
            }
        };
        if let Some(hashes) = &mut hashes {
            gathered.iter().for_each(|piece| hashes.update(piece));
        }
        writer.append(&gathered)?;
        gathered.clear();
        match other {
            // The last of these was data.
            None | Some(Some(Piece::Data(_))) => {}
            Some(Some(Piece::Mark(Passing::In(passed)))) => {
                let passed = passed.blocking_recv().map_err(|_| ended())?;
                mark(&mut writer, &passed)?;
            }
            Some(Some(Piece::Mark(_))) => {
                if let Some(hashes) = &hashes {
                    mark(&mut writer, hashes)?;
                }
            }
            Some(Some(Piece::End)) => return Ok((writer, hashes)),
            Some(None) => return Err(ended()),
        }
    }
}

/// `None`: given up.
fn hash(mut pieces: mpsc::Receiver<Piece>, mut hashes: Hashes) -> Option<Hashes> {
    loop {
        match pieces.blocking_recv()? {
            Piece::Data(bytes) => hashes.update(&bytes),
            // Who no longer waits has given up.
            Piece::Mark(Passing::Out(writer)) => _ = writer.send(hashes.clone()),
            Piece::Mark(_) => {}
            Piece::End => return Some(hashes),
        }
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
