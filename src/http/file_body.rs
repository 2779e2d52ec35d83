//! A response body that is read from a file as fast as the socket takes it.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::source::Source;
use crate::services::downloads::Content;

/// Bodies that are being sent.
static SENDING: AtomicUsize = AtomicUsize::new(0);
/// Above so many, pieces are smaller and none is opened ahead.
const CROWD: usize = 16;

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
    source: Source,
    segments: VecDeque<Segment>,
    remaining: u64,
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
        Self { source: Source::new(content), segments, remaining, first, observer }
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
        if !is_crowded()
            && let Some(Segment::File(range)) = self.segments.front()
        {
            self.source.read_ahead(range.clone());
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn fail(&mut self, error: io::Error) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.observer.failed(&error);
        Poll::Ready(Some(Err(error)))
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
        let range = match this.segments.front_mut() {
            None => return Poll::Ready(None),
            Some(Segment::Ready(bytes)) => {
                let bytes = std::mem::take(bytes);
                this.segments.pop_front();
                return this.hand_on(bytes);
            }
            Some(Segment::File(range)) => range.clone(),
        };
        if let Some(first) = this.first.take() {
            return this.take(first);
        }
        match ready!(this.source.poll_next(cx, range, is_crowded())) {
            Ok(bytes) => this.take(bytes),
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
