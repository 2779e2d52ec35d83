//! The way of an upload's bytes to the disk: receiving, hashing and writing at the same time.
//!
//! Up to [`SMALL`] bytes wait in memory and are hashed and written by one blocking call: a thread hop costs more than
//! they do. Beyond that, two blocking tasks run beside the receiver: one writes, one hashes, each behind a channel of
//! [`DEPTH`] pieces. An upload that begins while others run has one task for both: the processor's cores are busy
//! already, and handing every piece to two threads costs a tenth more of them. A full channel holds the receiver back, and by
//! TCP the client: memory is bounded whatever the file's size. A channel that closes without [`Piece::End`] is an
//! abort, not an end of file.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::space::Space;
use crate::domain::{Digest, StoredFile, TransferId};
use crate::store::uploads::Staged;
use crate::store::{Durability, Layout};

/// So many bytes wait in memory before threads are put to work.
const SMALL: usize = 256 << 10;
/// Pieces that may wait for the disk or the hash; hyper's pieces are at most 256 KiB.
const DEPTH: usize = 2;
/// At most so many pieces go to the disk in one call.
const GATHER: usize = 4;

/// Takes the bytes of one upload.
pub(super) struct Pipeline {
    target: Target,
    state: State,
}

/// Where the bytes go.
#[derive(Clone)]
struct Target {
    layout: Layout,
    id: TransferId,
    expected: u64,
    space: Space,
    durability: Durability,
}

enum State {
    Gathering { pieces: Vec<Bytes>, length: usize },
    Streaming(Stages),
}

struct Stages {
    writer: mpsc::Sender<Piece>,
    written: JoinHandle<io::Result<(Written, Option<Digest>)>>,
    /// Hashes beside the writer; without it, the writer does both.
    hasher: Option<Hasher>,
    _running: Running,
}

struct Hasher {
    pieces: mpsc::Sender<Piece>,
    hashed: JoinHandle<Option<Digest>>,
}

/// Counts the uploads that stream.
struct Running;

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

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    End,
}

/// A whole, flushed upload that has no name yet.
pub(super) struct Written {
    pub(super) staged: Staged,
    pub(super) file: StoredFile,
}

impl Pipeline {
    /// A pipeline for an upload of about `expected` bytes (0: not known).
    pub(super) fn new(
        layout: Layout,
        id: TransferId,
        expected: u64,
        space: Space,
        durability: Durability,
    ) -> Self {
        let target = Target { layout, id, expected, space, durability };
        Self { target, state: State::Gathering { pieces: Vec::new(), length: 0 } }
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
                *length += piece.len();
                pieces.push(piece);
                if *length <= SMALL {
                    return Ok(());
                }
                let pieces = std::mem::take(pieces);
                let mut stages = Stages::start(self.target.clone());
                for piece in pieces {
                    stages.send(Piece::Data(piece)).await?;
                }
                self.state = State::Streaming(stages);
                Ok(())
            }
            State::Streaming(stages) => stages.send(Piece::Data(piece)).await,
        }
    }

    /// Everything has come: waits until it is written, flushed and hashed.
    ///
    /// # Errors
    /// What writing said.
    pub(super) async fn finish(self) -> io::Result<(Written, Digest)> {
        match self.state {
            State::Gathering { pieces, length } => {
                blocking(move || {
                    // Too little to set space aside for.
                    if !self.target.space.has_room_for(length as u64) {
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    let mut staged = Staged::create(&self.target.layout, self.target.id, 0)?;
                    append(&mut staged, &pieces)?;
                    let mut hasher = Sha256::new();
                    pieces.iter().for_each(|piece| hasher.update(piece));
                    let file = staged.finish(0, self.target.durability)?;
                    Ok((Written { staged, file }, Digest::new(hasher.finalize().into())))
                })
                .await
            }
            State::Streaming(mut stages) => {
                stages.send(Piece::End).await?;
                let (written, digest) = stages.written.await.map_err(io::Error::other)??;
                let digest = match stages.hasher {
                    None => digest,
                    Some(hasher) => hasher.hashed.await.map_err(io::Error::other)?,
                };
                Ok((written, digest.ok_or_else(ended)?))
            }
        }
    }
}

impl Stages {
    fn start(target: Target) -> Self {
        let (running, others) = Running::start();
        let beside = others == 0;
        let (writer, pieces) = mpsc::channel(DEPTH);
        let written =
            tokio::task::spawn_blocking(move || write(&target, pieces, (!beside).then(Sha256::new)));
        let hasher = beside.then(|| {
            let (sender, pieces) = mpsc::channel(DEPTH);
            Hasher { pieces: sender, hashed: tokio::task::spawn_blocking(move || hash(pieces)) }
        });
        Self { writer, written, hasher, _running: running }
    }

    async fn send(&mut self, piece: Piece) -> io::Result<()> {
        let hashes = match &self.hasher {
            None => true,
            Some(hasher) => hasher.pieces.send(piece.clone()).await.is_ok(),
        };
        if hashes && self.writer.send(piece).await.is_ok() {
            return Ok(());
        }
        // One of the two has given up: the writer says why.
        match (&mut self.written).await.map_err(io::Error::other)? {
            Err(error) => Err(error),
            Ok(_) => Err(ended()),
        }
    }
}

fn write(
    target: &Target,
    mut pieces: mpsc::Receiver<Piece>,
    mut hasher: Option<Sha256>,
) -> io::Result<(Written, Option<Digest>)> {
    let mut staged = Staged::create(&target.layout, target.id, 0)?;
    target.space.reserve(&mut staged, target.expected)?;
    let mut gathered: Vec<Bytes> = Vec::with_capacity(GATHER);
    loop {
        let mut next = pieces.blocking_recv();
        let ended_well = loop {
            match next {
                Some(Piece::Data(bytes)) => gathered.push(bytes),
                Some(Piece::End) => break Some(true),
                None => break Some(false),
            }
            if gathered.len() == GATHER {
                break None;
            }
            match pieces.try_recv() {
                Ok(piece) => next = Some(piece),
                Err(_) => break None,
            }
        };
        if let Some(hasher) = &mut hasher {
            gathered.iter().for_each(|piece| hasher.update(piece));
        }
        let length: usize = gathered.iter().map(Bytes::len).sum();
        let end = staged.written() + length as u64;
        target.space.reserve(&mut staged, end)?;
        append(&mut staged, &gathered)?;
        gathered.clear();
        match ended_well {
            None => {}
            Some(true) => {
                let file = staged.finish(target.expected, target.durability)?;
                let digest = hasher.map(|hasher| Digest::new(hasher.finalize().into()));
                return Ok((Written { staged, file }, digest));
            }
            Some(false) => return Err(ended()),
        }
    }
}

fn append(staged: &mut Staged, pieces: &[Bytes]) -> io::Result<()> {
    for pieces in pieces.chunks(GATHER) {
        let mut slices = [IoSlice::new(&[]); GATHER];
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
        }
        staged.append(&mut slices[..pieces.len()])?;
    }
    Ok(())
}

/// `None`: given up.
fn hash(mut pieces: mpsc::Receiver<Piece>) -> Option<Digest> {
    let mut hasher = Sha256::new();
    loop {
        match pieces.blocking_recv()? {
            Piece::Data(bytes) => hasher.update(&bytes),
            Piece::End => return Some(Digest::new(hasher.finalize().into())),
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
