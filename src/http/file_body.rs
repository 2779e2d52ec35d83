//! A response body that is read from a file as fast as the socket takes it.
//!
//! What is in the page cache is read on the async thread (`preadv2(2)` with `RWF_NOWAIT`: it never waits for a disk); the
//! rest by a blocking thread. Memory: one piece of [`PIECE`] bytes at a time, from a pool, so that it stays in the
//! processor's cache. This is faster than `sendfile(2)` where the receiver reads what it gets (see `bench/`).
//!
//! A sealed file is read and opened by blocking threads, [`AHEAD`] pieces ahead of what the socket has taken.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::services::downloads::Content;
use crate::store::buffers::{Buffer, Pool};

/// Bytes read at once: small enough for the second-level cache, large enough to make few calls.
const PIECE: usize = 512 << 10;
static BUFFERS: Pool = Pool::new(PIECE, 16);
/// Bodies that are being sent.
static SENDING: AtomicUsize = AtomicUsize::new(0);
/// Above so many, pieces are smaller and none is opened ahead.
const CROWD: usize = 16;
/// Bytes read at once then.
const CROWDED_PIECE: usize = 256 << 10;
/// Pieces of a sealed file that are opened at the same time.
const AHEAD: usize = 2;

/// A part of a body.
#[derive(Debug)]
pub(super) enum Segment {
    /// Bytes that are there: the heads of a multipart answer.
    Ready(Bytes),
    /// A range of the file.
    File(Range<u64>),
}

/// A body of segments of one file.
pub(super) struct FileBody<D> {
    content: Content,
    segments: VecDeque<Segment>,
    remaining: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// Pieces of the first range of a sealed file that are being opened, in their order.
    opening: VecDeque<JoinHandle<io::Result<Bytes>>>,
    /// Where the next piece behind them begins.
    ahead: u64,
    /// The beginning of the first range, where it has been read to see whether it can be.
    first: Option<Bytes>,
    /// Told of every piece; dropped when the body is.
    observer: D,
}

/// Sees how much of a body has been taken.
pub(super) trait Observer: Send + Unpin + 'static {
    /// So many bytes more were handed to the connection.
    fn sent(&mut self, bytes: u64);
    /// Reading failed: the body ends here, before its end.
    fn failed(&mut self, error: &io::Error);
}

fn is_crowded() -> bool {
    SENDING.load(Ordering::Relaxed) > CROWD
}

impl<D: Observer> FileBody<D> {
    pub(super) fn new(
        content: Content,
        segments: impl IntoIterator<Item = Segment>,
        first: Option<Bytes>,
        observer: D,
    ) -> Self {
        let segments: VecDeque<_> = segments.into_iter().filter(|segment| segment.length() > 0).collect();
        let remaining = segments.iter().map(Segment::length).sum();
        SENDING.fetch_add(1, Ordering::Relaxed);
        let (reading, opening) = (None, VecDeque::new());
        Self { content, segments, remaining, reading, opening, ahead: 0, first, observer }
    }

    /// Bytes that are still to come.
    pub(super) const fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(super) const fn observer_mut(&mut self) -> &mut D {
        &mut self.observer
    }

    /// Bytes of the file's range that is being read have come.
    fn take(&mut self, bytes: Bytes) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(Segment::File(range)) = self.segments.front_mut() {
            range.start += bytes.len() as u64;
            if range.is_empty() {
                self.segments.pop_front();
            }
        }
        self.hand_on(bytes)
    }

    fn hand_on(&mut self, bytes: Bytes) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let length = bytes.len() as u64;
        self.remaining -= length;
        self.observer.sent(length);
        self.read_ahead();
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn fail(&mut self, error: io::Error) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.observer.failed(&error);
        Poll::Ready(Some(Err(error)))
    }

    /// Has the next pieces of a sealed file opened while this one is sent. Where many are sent at once, there is enough to
    /// do, and memory is dearer.
    fn read_ahead(&mut self) {
        if !is_crowded() {
            self.open(AHEAD, u64::MAX);
        }
    }

    /// Sees to it that so many pieces, of at most so many bytes, are being opened.
    fn open(&mut self, count: usize, most: u64) {
        let Content::Sealed(sealed) = &self.content else { return };
        if self.first.is_some() {
            return;
        }
        while self.opening.len() < count
            && let Some(Segment::File(range)) = self.segments.front()
        {
            let start = if self.opening.is_empty() { range.start } else { self.ahead };
            if start >= range.end {
                return;
            }
            let piece = sealed.piece(start..range.end.min(start.saturating_add(most)));
            self.ahead = piece.end;
            let sealed = Arc::clone(sealed);
            self.opening.push_back(tokio::task::spawn_blocking(move || sealed.read(piece)));
        }
    }
}

impl<D> Drop for FileBody<D> {
    fn drop(&mut self) {
        SENDING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Segment {
    fn length(&self) -> u64 {
        match self {
            Self::Ready(bytes) => bytes.len() as u64,
            Self::File(range) => range.end - range.start,
        }
    }
}

impl<D: Observer> Body for FileBody<D> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Some(reading) = this.reading.as_mut().or(this.opening.front_mut()) {
            let read = ready!(Pin::new(reading).poll(cx)).map_err(io::Error::other);
            if this.reading.take().is_none() {
                this.opening.pop_front();
            }
            return match read.and_then(|read| read) {
                Ok(bytes) => this.take(bytes),
                Err(error) => this.fail(error),
            };
        }
        let (offset, wanted) = match this.segments.front_mut() {
            None => return Poll::Ready(None),
            Some(Segment::Ready(bytes)) => {
                let bytes = std::mem::take(bytes);
                this.segments.pop_front();
                return this.hand_on(bytes);
            }
            Some(Segment::File(range)) => {
                let most = if is_crowded() { CROWDED_PIECE } else { PIECE };
                let wanted = usize::try_from(range.end - range.start).unwrap_or(most).min(most);
                (range.start, wanted)
            }
        };
        if let Some(first) = this.first.take() {
            return this.take(first);
        }
        let file = match &this.content {
            Content::Plain(file) => Arc::clone(file),
            Content::Sealed(_) => {
                this.open(1, if is_crowded() { CROWDED_PIECE as u64 } else { u64::MAX });
                return self.poll_frame(cx);
            }
        };
        let mut buffer = BUFFERS.take(wanted);
        match file.read_cached(buffer.as_mut(), offset) {
            Ok(Some(read)) => match into_bytes(buffer, read) {
                Ok(bytes) => this.take(bytes),
                Err(error) => this.fail(error),
            },
            Ok(None) => {
                let reading = tokio::task::spawn_blocking(move || {
                    let read = file.read_at(buffer.as_mut(), offset)?;
                    into_bytes(buffer, read)
                });
                this.reading = Some(reading);
                self.poll_frame(cx)
            }
            Err(error) => this.fail(error),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// The bytes that were read. None is an error: the file is shorter than it was, and the answer must not look whole.
fn into_bytes(buffer: Buffer, read: usize) -> io::Result<Bytes> {
    if read == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter"));
    }
    Ok(buffer.into_bytes(read))
}
