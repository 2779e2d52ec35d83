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

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::writer::{GATHER, Target, Writer, Written};
use crate::crypto::FileKey;
use crate::domain::Digest;

/// So many bytes wait in memory before threads are put to work.
const SMALL: usize = 256 << 10;
/// So many where it may still turn out that they are to be sealed: they should not touch the disk before.
const UNDECIDED: usize = 1 << 20;
/// Pieces that may wait for the disk or the hash; hyper's pieces are at most 256 KiB.
const DEPTH: usize = 2;

/// Takes the bytes of one upload.
pub(super) struct Pipeline {
    target: Target,
    form: Form,
    state: State,
}

/// How content is stored.
#[derive(Clone)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// As it is, but that may change.
    Undecided,
    /// In a container.
    Sealed(Arc<FileKey>),
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

impl Form {
    pub(super) fn key(&self) -> Option<Arc<FileKey>> {
        match self {
            Self::Plain | Self::Undecided => None,
            Self::Sealed(key) => Some(Arc::clone(key)),
        }
    }
}

impl Pipeline {
    /// A pipeline to `target`.
    pub(super) const fn new(target: Target, form: Form) -> Self {
        Self { target, form, state: State::Gathering { pieces: Vec::new(), length: 0 } }
    }

    /// Changes how the content is stored, if that can still be done: `false` if bytes are on their way already.
    pub(super) fn decide(&mut self, form: Form) -> bool {
        let undecided = matches!(self.state, State::Gathering { .. });
        if undecided {
            self.form = form;
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
                let most = if matches!(self.form, Form::Undecided) { UNDECIDED } else { SMALL };
                if *length <= most {
                    return Ok(());
                }
                let pieces = std::mem::take(pieces);
                let mut stages = Stages::start(self.target.clone(), self.form.key());
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
                // Too little to set space aside for.
                let target = Target { expected: 0, ..self.target };
                let key = self.form.key();
                blocking(move || {
                    if !target.space.has_room_for(length as u64) {
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    let mut writer = Writer::create(target, key)?;
                    writer.append(&pieces)?;
                    let mut hasher = Sha256::new();
                    pieces.iter().for_each(|piece| hasher.update(piece));
                    Ok((writer.finish()?, Digest::new(hasher.finalize().into())))
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
    fn start(target: Target, key: Option<Arc<FileKey>>) -> Self {
        let (running, others) = Running::start();
        let beside = others == 0;
        let here = (!beside).then(Sha256::new);
        let (writer, pieces) = mpsc::channel(DEPTH);
        let written = tokio::task::spawn_blocking(move || write(target, key, pieces, here));
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
    target: Target,
    key: Option<Arc<FileKey>>,
    mut pieces: mpsc::Receiver<Piece>,
    mut hasher: Option<Sha256>,
) -> io::Result<(Written, Option<Digest>)> {
    let mut writer = Writer::create(target, key)?;
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
        writer.append(&gathered)?;
        gathered.clear();
        match ended_well {
            None => {}
            Some(true) => {
                let digest = hasher.map(|hasher| Digest::new(hasher.finalize().into()));
                return Ok((writer.finish()?, digest));
            }
            Some(false) => return Err(ended()),
        }
    }
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
