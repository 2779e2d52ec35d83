//! A response body that is read from a file as fast as the socket takes it.
//!
//! What is in the page cache is read on the async thread (`preadv2(2)` with `RWF_NOWAIT`: it never waits for a disk); the
//! rest by a blocking thread. Memory: one piece of [`PIECE`] bytes at a time, from a pool, so that it stays in the
//! processor's cache. This is faster than `sendfile(2)` where the receiver reads what it gets (see `bench/`).

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::store::files::OpenFile;

/// Bytes read at once: small enough for the second-level cache, large enough to make few calls.
const PIECE: usize = 256 << 10;
/// Buffers that are kept for reuse: 8 MiB.
const KEPT: usize = 32;

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
    file: Arc<OpenFile>,
    segments: VecDeque<Segment>,
    remaining: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// Told of every piece; dropped when the body is.
    observer: D,
}

/// Sees how much of a body has been taken.
pub(super) trait Observer: Send + Unpin + 'static {
    /// So many bytes more were handed to the connection.
    fn sent(&mut self, bytes: u64);
}

impl<D: Observer> FileBody<D> {
    pub(super) fn new(file: Arc<OpenFile>, segments: impl IntoIterator<Item = Segment>, observer: D) -> Self {
        let segments: VecDeque<_> = segments.into_iter().filter(|segment| segment.length() > 0).collect();
        let remaining = segments.iter().map(Segment::length).sum();
        Self { file, segments, remaining, reading: None, observer }
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
        Poll::Ready(Some(Ok(Frame::data(bytes))))
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
        if let Some(reading) = &mut this.reading {
            let read = ready!(Pin::new(reading).poll(cx)).map_err(io::Error::other);
            this.reading = None;
            return match read.and_then(|read| read) {
                Ok(bytes) => this.take(bytes),
                Err(error) => Poll::Ready(Some(Err(error))),
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
                let wanted = usize::try_from(range.end - range.start).unwrap_or(PIECE).min(PIECE);
                (range.start, wanted)
            }
        };
        let mut buffer = Buffer::take(wanted);
        match this.file.read_cached(buffer.as_mut(), offset) {
            Ok(Some(read)) => match buffer.into_bytes(read) {
                Ok(bytes) => this.take(bytes),
                Err(error) => Poll::Ready(Some(Err(error))),
            },
            Ok(None) => {
                let file = Arc::clone(&this.file);
                let reading = tokio::task::spawn_blocking(move || {
                    let read = file.read_at(buffer.as_mut(), offset)?;
                    buffer.into_bytes(read)
                });
                this.reading = Some(reading);
                self.poll_frame(cx)
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0 && self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// A buffer, from the pool if it is a full-sized one.
struct Buffer {
    memory: Vec<u8>,
    length: usize,
}

/// Kept buffers, last in first out: the last one used is the one still in the processor's cache. Short locks.
static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

impl Buffer {
    fn take(length: usize) -> Self {
        if length <= PIECE / 4 {
            return Self { memory: vec![0; length], length };
        }
        let kept = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { memory: kept.unwrap_or_else(|| vec![0; PIECE]), length }
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }

    /// The bytes that were read. None is an error: the file is shorter than it was, and the answer must not look whole.
    fn into_bytes(mut self, read: usize) -> io::Result<Bytes> {
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter"));
        }
        self.length = read;
        Ok(Bytes::from_owner(self))
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.memory.len() == PIECE {
            let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
            if pool.len() < KEPT {
                pool.push(std::mem::take(&mut self.memory));
            }
        }
    }
}
