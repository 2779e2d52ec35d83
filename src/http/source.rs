//! Where the bytes of a body come from: a file, read or opened piece by piece.
//!
//! What is in the page cache is read on the async thread (`preadv2(2)` with `RWF_NOWAIT`: it never waits for a disk); the
//! rest by a blocking thread. Memory: pieces of [`PIECE`] bytes at most, from a pool, so that they stay in the
//! processor's cache. This is faster than `sendfile(2)` where the receiver reads what it gets (see `bench/`).
//!
//! A sealed file that is in the page cache is opened by two threads: the async one opens a piece while a blocking one opens the
//! one behind it. Two pieces by two blocking threads take an eighth longer, since each piece is waited for.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::crypto;
use crate::services::downloads::Content;
use crate::store::buffers::{Buffer, Pool};
use crate::store::files::OpenFile;
use crate::store::sealed::SealedFile;

/// Bytes read at once: small enough for the second-level cache, large enough to make few calls.
const PIECE: usize = 512 << 10;
/// Where many are sent at once: there is enough to do, and memory is dearer.
const CROWDED_PIECE: usize = 256 << 10;
static BUFFERS: Pool = Pool::new(PIECE, 16);
/// Pieces of a sealed file that are read and opened at the same time, where the disk has to be waited for.
const AHEAD: usize = 2;

/// A file that is read from one place after another. Dropped, it forgets what is being read.
pub(super) enum Source {
    Plain(Reader),
    Sealed(Opener),
}

impl Source {
    pub(super) fn new(content: Content) -> Self {
        match content {
            Content::Plain(file) => Self::Plain(Reader { file, reading: None }),
            Content::Sealed(file) => {
                let opens_here = crypto::is_fast();
                Self::Sealed(Opener { file, opening: VecDeque::new(), opens_here })
            }
        }
    }

    /// The content from `range.start` on, up to `range.end` or less. The range is not empty, and the same until it is ready.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        range: Range<u64>,
        is_crowded: bool,
    ) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Plain(reader) => reader.poll_next(cx, range, is_crowded),
            Self::Sealed(opener) => opener.poll_next(cx, range, is_crowded),
        }
    }

    /// What was read is being sent, and this range is next.
    pub(super) fn read_ahead(&mut self, range: Range<u64>) {
        if let Self::Sealed(opener) = self {
            opener.read_ahead(range);
        }
    }
}

type Reading = JoinHandle<io::Result<Bytes>>;

/// A file as it is.
pub(super) struct Reader {
    file: Arc<OpenFile>,
    reading: Option<Reading>,
}

impl Reader {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        range: Range<u64>,
        is_crowded: bool,
    ) -> Poll<io::Result<Bytes>> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            None => {
                let most = if is_crowded { CROWDED_PIECE } else { PIECE };
                let wanted = usize::try_from(range.end - range.start).unwrap_or(most).min(most);
                let mut buffer = BUFFERS.take(wanted);
                if let Some(read) = self.file.read_cached(buffer.as_mut(), range.start)? {
                    return Poll::Ready(into_bytes(buffer, read));
                }
                let file = Arc::clone(&self.file);
                self.reading.insert(spawn_blocking(move || {
                    let read = file.read_at(buffer.as_mut(), range.start)?;
                    into_bytes(buffer, read)
                }))
            }
        };
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        Poll::Ready(read.map_err(io::Error::other).flatten())
    }
}

/// The bytes that were read. None is an error: the file is shorter than it was, and the answer must not look whole.
fn into_bytes(buffer: Buffer, read: usize) -> io::Result<Bytes> {
    if read == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter"));
    }
    Ok(buffer.into_bytes(read))
}

/// What a container holds.
pub(super) struct Opener {
    file: Arc<SealedFile>,
    /// Pieces that are being opened by blocking threads, in their order.
    opening: VecDeque<(Range<u64>, Reading)>,
    /// Whether the async thread opens pieces, too: not where that takes long, and not once it would have had to wait for the disk.
    opens_here: bool,
}

impl Opener {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        range: Range<u64>,
        is_crowded: bool,
    ) -> Poll<io::Result<Bytes>> {
        let is_being_opened = self.opening.front().is_some_and(|(piece, _)| piece.start == range.start);
        if !is_being_opened {
            if !is_crowded && let Some(bytes) = self.open_here(range.clone())? {
                return Poll::Ready(Ok(bytes));
            }
            self.opening.clear();
            let (count, most) = if is_crowded { (1, CROWDED_PIECE as u64) } else { (AHEAD, u64::MAX) };
            self.open(range, count, most);
        }
        let Some((_, opening)) = self.opening.front_mut() else {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        let read = ready!(Pin::new(opening).poll(cx));
        self.opening.pop_front();
        Poll::Ready(read.map_err(io::Error::other).flatten())
    }

    /// The next piece, opened by this thread, and the one behind it by a blocking one at the same time: if it is in the page cache,
    /// and of the usual size. That takes a tenth of a millisecond (`benches/crypto.rs`), as long as to send it.
    fn open_here(&mut self, range: Range<u64>) -> io::Result<Option<Bytes>> {
        let piece = self.file.piece(range.clone());
        let read = if self.opens_here && piece.end - piece.start <= PIECE as u64 {
            self.file.read_cached(piece.clone())?
        } else {
            None
        };
        let Some(read) = read else {
            self.opens_here = false;
            return Ok(None);
        };
        if self.opening.front().is_some_and(|(ahead, _)| ahead.start != piece.end) {
            self.opening.clear();
        }
        self.open(piece.end..range.end, 1, u64::MAX);
        self.file.open_read(read).map(Some)
    }

    fn read_ahead(&mut self, range: Range<u64>) {
        if !self.opens_here {
            self.open(range, AHEAD, u64::MAX);
        } else if self.opening.is_empty() {
            // The piece between is opened by the thread that asks for it.
            let next = self.file.piece(range.clone());
            self.open(next.end..range.end, 1, u64::MAX);
        }
    }

    /// Has so many pieces, of at most so many bytes, opened by blocking threads: from the start of the range on, or behind those
    /// that are being opened.
    fn open(&mut self, range: Range<u64>, count: usize, most: u64) {
        while self.opening.len() < count {
            let start = self.opening.back().map_or(range.start, |(piece, _)| piece.end);
            if start >= range.end {
                return;
            }
            let piece = self.file.piece(start..range.end.min(start.saturating_add(most)));
            let (file, wanted) = (Arc::clone(&self.file), piece.clone());
            self.opening.push_back((piece, spawn_blocking(move || file.read(wanted))));
        }
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
