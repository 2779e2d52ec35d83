//! The way of an upload's bytes to the disk: receiving, hashing and writing at the same time.
//!
//! Up to [`SMALL`] bytes wait in memory and are hashed and written by one blocking call: a thread hop costs more than
//! they do. What is longer, or announced as longer once [`ANNOUNCED`] bytes have come, goes through a [queue](super::queue) to a
//! blocking task that [has it hashed](super::hashing) and writes it meanwhile. A full queue holds the receiver back, and by TCP
//! the client: memory is bounded whatever the file's size. A queue that closes without [`Piece::End`] is an abort, not an end
//! of file.
//!
//! With a key, what is written is sealed; the SHA-256 is that of the plain content all the same.
//!
//! What is long and can be resumed is [marked](Marker) from time to time: up to there it survives a crash.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::task::JoinHandle;

use super::checksum::Hashes;
use super::hashing::Hashing;
use super::queue::{Closed, Receiver, Sender, Weight, queue};
use super::writer::{Opening, Target, Writer};

/// So many bytes wait in memory before threads are put to work.
const SMALL: usize = 256 << 10;
/// So many where more is announced: only who sends some of it gets threads, and space on the disk.
const ANNOUNCED: usize = 64 << 10;
/// Smaller pieces are copied together: each may hold a buffer of this size.
const TINY: usize = 8 << 10;
/// So many where it may still turn out that they are to be sealed: they should not touch the disk before.
const UNDECIDED: usize = 1 << 20;
/// So many uploads stream at once, each with a blocking thread; others wait, and by TCP their clients. There must be threads
/// left for everything else.
const MOST_STREAMS: usize = 1000;
/// Blocking threads that a server should have.
pub const BLOCKING_THREADS: usize = MOST_STREAMS + 512;
/// Bytes that may wait while as many are being written, and some more hashed; half of it where an upload begins beside others.
const WAITING: usize = 1 << 20;

/// Takes the bytes of one upload, or of a part of one.
pub(super) struct Pipeline {
    target: Target,
    opening: Opening,
    hashes: Hashes,
    /// So many bytes wait in memory before threads are put to work.
    patience: usize,
    /// And so many behind that, if no others stream.
    waiting: usize,
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
    first: Sender<Piece>,
    /// `None`: it has been asked.
    written: Option<JoinHandle<io::Result<()>>>,
    /// Bytes since the last mark.
    unmarked: u64,
    every: Option<u64>,
    _running: Running,
    _seat: Option<SemaphorePermit<'static>>,
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

/// What passes to the writer.
enum Piece {
    Data(Bytes),
    Mark,
    End(Last),
}

/// What is done with an upload that is written. It tells the result itself.
type Last = Box<dyn FnOnce(Writer, Hashes) + Send>;

impl Weight for Piece {
    fn weight(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len().max(TINY),
            Self::Mark | Self::End(_) => 0,
        }
    }
}

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
        if let State::Streaming(Stages { first, written, .. }) = self.state {
            drop(first);
            if let Some(written) = written {
                // What it says does not matter any more.
                _ = written.await;
            }
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
                let (tell, told) = oneshot::channel();
                // Who no longer waits has given up.
                let last: Last = Box::new(move |writer, hashes| _ = tell.send(last(writer, hashes)));
                stages.send(vec![Piece::End(last)]).await?;
                match told.await {
                    Ok(result) => result,
                    Err(_) => Err(stages.why_it_ended().await),
                }
            }
        }
    }
}

impl Stages {
    /// Waits while too many stream. Cancel-safe.
    async fn start(
        target: Target,
        opening: Opening,
        hashes: Hashes,
        marker: Option<Marker>,
        waiting: usize,
    ) -> Self {
        // Never closed.
        let seat = STREAMS.acquire().await.ok();
        let (running, others) = Running::start();
        let every = marker.as_ref().map(|marker| marker.every);
        let (first, pieces) = queue(if others == 0 { waiting } else { waiting / 2 });
        let written = tokio::task::spawn_blocking(move || {
            let mark = |writer: &mut Writer, hashes: &Hashes| match &marker {
                Some(marker) => (marker.mark)(writer, hashes),
                None => Ok(()),
            };
            write(target, opening, pieces, hashes, mark)
        });
        Self { first, written: Some(written), unmarked: 0, every, _running: running, _seat: seat }
    }

    async fn push(&mut self, bytes: Vec<Bytes>) -> io::Result<()> {
        self.unmarked += bytes.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        let mut pieces: Vec<_> = bytes.into_iter().map(Piece::Data).collect();
        if self.every.is_some_and(|every| self.unmarked >= every) {
            self.unmarked = 0;
            pieces.push(Piece::Mark);
        }
        self.send(pieces).await
    }

    async fn send(&mut self, mut pieces: Vec<Piece>) -> io::Result<()> {
        match self.first.send(&mut pieces).await {
            Ok(()) => Ok(()),
            Err(Closed) => Err(self.why_it_ended().await),
        }
    }

    /// Something has ended before its time: the writer says why.
    async fn why_it_ended(&mut self) -> io::Error {
        // However it came to that, the writer must not wait for more.
        self.first = queue(0).0;
        let Some(written) = self.written.take() else { return ended() };
        match written.await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => ended(),
            Err(error) => io::Error::other(error),
        }
    }
}

/// Writes what comes, and has it hashed.
fn write(
    target: Target,
    opening: Opening,
    mut pieces: Receiver<Piece>,
    hashes: Hashes,
    mark: impl Fn(&mut Writer, &Hashes) -> io::Result<()>,
) -> io::Result<()> {
    let mut writer = Writer::open(target, opening)?;
    let mut hashing = Hashing::new(hashes);
    let (mut batch, mut data) = (Vec::new(), Vec::new());
    while pieces.take(&mut batch) {
        let mut rest = batch.drain(..);
        loop {
            let other = rest.by_ref().find_map(|piece| match piece {
                Piece::Data(bytes) => {
                    data.push(bytes);
                    None
                }
                other => Some(other),
            });
            // First: it is hashed while it is written.
            hashing.update(&data)?;
            writer.append(&data)?;
            data.clear();
            match other {
                None | Some(Piece::Data(_)) => break,
                Some(Piece::Mark) => mark(&mut writer, &hashing.so_far()?)?,
                Some(Piece::End(last)) => {
                    last(writer, hashing.so_far()?);
                    return Ok(());
                }
            }
        }
    }
    Err(ended())
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
    use super::*;

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
