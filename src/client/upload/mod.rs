//! Sending a file.

mod source;
mod whole;

use std::io;
use std::path::{Path, PathBuf};

use http::StatusCode;

pub(super) use self::source::{Known, Source};
use super::answers::{Answer, Uploaded};
use super::chunked::Outcome;
use super::progress::Observer;
use super::retry::{Retryable, Verdict};
use super::{Client, Error, Retries};
use crate::domain::{Digest, FileName, Priority};

/// A file that is to be sent.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The file on this machine.
    pub path: PathBuf,
    /// What it is to be called on the server.
    pub name: FileName,
    /// How urgent it is; `None` leaves it to the server.
    pub priority: Option<Priority>,
    /// Whether it is to be sealed at rest; `false` leaves it to the server.
    pub encrypt: bool,
    /// What is done about failures. In chunks: of each of them.
    pub retries: Retries,
    /// In how many requests it goes.
    pub chunking: Chunking,
}

/// Whether and how a file goes in chunks, from which a later upload of the same file goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chunking {
    /// Which files.
    pub which: Chunked,
    /// Bytes of a chunk. `None`: what the server recommends, and what fits the size of the file. An upload that goes on has the
    /// chunks that it began with.
    pub chunk_size: Option<u64>,
    /// How many chunks are on their way at once, at most. `None`: some, and more or fewer as they get on.
    pub connections: Option<usize>,
}

/// Which files go in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chunked {
    /// Those of more than [`Chunking::THRESHOLD`] bytes, if the server takes chunks.
    #[default]
    Large,
    /// All but empty ones.
    Always,
    /// None.
    Never,
}

impl Chunking {
    /// Files of more bytes go in chunks by themselves.
    pub const THRESHOLD: u64 = 5 << 20;

    /// Whether a file of this size goes in chunks.
    pub fn applies_to(&self, size: u64) -> bool {
        match self.which {
            Chunked::Large => size > Self::THRESHOLD,
            Chunked::Always => size > 0,
            Chunked::Never => false,
        }
    }
}

impl Upload {
    /// An upload of `path` as `name`, with nothing special about it.
    pub fn new(path: impl Into<PathBuf>, name: FileName) -> Self {
        let (retries, chunking) = (Retries::default(), Chunking::default());
        Self { path: path.into(), name, priority: None, encrypt: false, retries, chunking }
    }
}

/// An upload failed. The server has nothing of it, or a whole file, or chunks from which the next one goes on.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file on this machine cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device: nothing whose size is known beforehand.
    #[error("{} is no regular file", .0.display())]
    NotAFile(PathBuf),
    /// It has become shorter while it was sent.
    #[error("{} has become shorter while it was read", .0.display())]
    Shrunk(PathBuf),
    /// It was written to while it was sent in chunks.
    #[error("{} was changed while it was sent", .0.display())]
    Changed(PathBuf),
    /// The exchange with the server failed.
    #[error(transparent)]
    Exchange(#[from] Error),
    /// The server says yes to another content than was sent.
    #[error("the server has stored something else: SHA-256 {stored} instead of {sent}")]
    Mismatch {
        /// What was sent.
        sent: Digest,
        /// What the server says that it has.
        stored: Digest,
    },
    /// The server has taken every chunk, and has neither a file nor an upload to go on with.
    #[error("the server has taken all chunks, and has not made a file of them")]
    Incomplete,
    /// The server takes chunks only of a size of which it would need too many.
    #[error("the file would need more than {most} chunks: the server takes none of more than {limit} bytes")]
    TooManyChunks {
        /// How many there may be.
        most: u64,
        /// The largest that the server takes.
        limit: u64,
    },
}

impl UploadError {
    pub(super) fn of_reading(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Shrunk(path.to_owned()),
            _ => Self::Read { path: path.to_owned(), source },
        }
    }

    /// Whether the server says that what arrived is not what was announced: damaged on the way, or written to by another
    /// program between hashing and sending.
    pub(super) fn is_checksum_mismatch(&self) -> bool {
        matches!(self, Self::Exchange(Error::Refused(refusal))
            if refusal.status == StatusCode::UNPROCESSABLE_ENTITY && refusal.is("checksum_mismatch"))
    }
}

impl Retryable for UploadError {
    fn verdict(&self) -> Verdict {
        match self {
            // The next attempt hashes anew what has changed.
            error if error.is_checksum_mismatch() => Verdict::Again { after: None },
            Self::Exchange(error) => error.verdict(),
            Self::Shrunk(_) | Self::Changed(_) | Self::Incomplete => Verdict::Again { after: None },
            Self::Read { .. } | Self::NotAFile(_) | Self::Mismatch { .. } | Self::TooManyChunks { .. } => {
                Verdict::Final
            }
        }
    }
}

impl Client {
    /// Sends a file with its SHA-256, so that the server publishes it only if it arrived whole; tries again what can get better.
    ///
    /// The file is read at least twice (for its digest, then to be sent), in pieces: memory does not grow with it. A large one
    /// goes in chunks ([`Chunking`]). Dropping the future closes the connections; the server then keeps the chunks that it has
    /// taken, and nothing of a file that was sent in one request.
    ///
    /// # Errors
    /// [`UploadError`], of the last attempt.
    pub async fn upload(
        &self,
        upload: &Upload,
        observer: &Observer,
    ) -> Result<Answer<Uploaded>, UploadError> {
        let mut known = Known::default();
        // Its size now: if that changes, the file goes one way or the other, and both work.
        let size = std::fs::metadata(&upload.path).map_or(0, |metadata| metadata.len());
        if upload.chunking.applies_to(size) {
            match self.upload_chunked(upload, &mut known, observer).await? {
                Outcome::Stored(answer) => return Ok(answer),
                Outcome::NoChunks => (),
            }
        }
        self.upload_whole(upload, &mut known, observer).await
    }
}
