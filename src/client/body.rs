//! The body of an upload: a file or a part of one, read ahead on its own thread, a few pieces at most in memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::disk;
use super::progress::{Event, Observer};

/// Bytes that are read and handed on at once.
const PIECE: u64 = 256 << 10;
/// Pieces that are read ahead. The reader waits when they are all there: memory stays below 2 MiB.
const READ_AHEAD: usize = 4;

/// What a [`FileBody`] and the one who sends it share.
#[derive(Debug)]
pub(super) struct Flow {
    gate: AtomicU8,
    /// The task that polls the body, while the gate holds it back.
    waker: AtomicWaker,
    /// Never held across an `.await`.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    moved: Instant,
    complete: bool,
    failure: Option<io::Error>,
}

const OPEN: u8 = 0;
const HELD: u8 = 1;
const CUT: u8 = 2;

impl Flow {
    /// Lets no more bytes pass, and leaves the connection open: a server that has refused in the middle of a body can
    /// still be heard.
    pub(super) fn hold(&self) {
        self.set(HELD);
    }

    /// Ends the body with an error, by which the connection closes.
    pub(super) fn cut(&self) {
        self.set(CUT);
    }

    fn set(&self, gate: u8) {
        self.gate.fetch_max(gate, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Why the file could not be read to its end, if that is what ended the body.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.with(|state| state.failure.take())
    }

    /// Returns once nothing has moved for `idle`, or for `answer` after the last byte was handed on, with what was
    /// waited for, and for how long.
    pub(super) async fn stalled(&self, idle: Duration, answer: Duration) -> (&'static str, Duration) {
        loop {
            let (moved, complete) = self.with(|state| (state.moved, state.complete));
            let (awaited, limit) = if complete { ("answered", answer) } else { ("taken any data", idle) };
            if moved.elapsed() >= limit {
                return (awaited, limit);
            }
            // What moves in the meantime is seen when this time is over.
            tokio::time::sleep_until(moved + limit).await;
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // A panic while it was held cannot leave it half changed.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A part of a file as the body of a request, with its exact length.
pub(super) struct FileBody {
    /// What stands before it, until that is sent.
    before: Bytes,
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// Bytes of the file that are still to come.
    left: u64,
    /// What stands behind it, until that is sent.
    after: Bytes,
    flow: Arc<Flow>,
    observer: Observer,
}

impl FileBody {
    /// These bytes of `file`. Reading starts at once.
    pub(super) fn new(file: Arc<File>, range: Range<u64>, observer: Observer) -> (Self, Arc<Flow>) {
        Self::framed(file, range, [Bytes::new(), Bytes::new()], observer)
    }

    /// These bytes of `file`, with others before and behind them. Only those of the file are told to `observer`.
    pub(super) fn framed(
        file: Arc<File>,
        range: Range<u64>,
        [before, after]: [Bytes; 2],
        observer: Observer,
    ) -> (Self, Arc<Flow>) {
        let left = range.end - range.start;
        let (sender, pieces) = mpsc::channel(READ_AHEAD);
        // Ends with the range, or when the body is dropped.
        tokio::task::spawn_blocking(move || {
            let mut at = range.start;
            while at < range.end {
                let piece = read_piece(&file, at, PIECE.min(range.end - at));
                at = piece.as_ref().map_or(range.end, |piece| at + piece.len() as u64);
                if sender.blocking_send(piece).is_err() {
                    return;
                }
            }
        });
        let complete = left == 0 && before.is_empty() && after.is_empty();
        let state = State { moved: Instant::now(), complete, failure: None };
        let flow =
            Arc::new(Flow { gate: AtomicU8::new(OPEN), waker: AtomicWaker::new(), state: Mutex::new(state) });
        (Self { before, pieces, left, after, flow: Arc::clone(&flow), observer }, flow)
    }

    fn rest(&self) -> u64 {
        self.before.len() as u64 + self.left + self.after.len() as u64
    }

    /// A piece is handed on.
    fn passed(&mut self, piece: Bytes) -> Frame<Bytes> {
        let complete = self.rest() == 0;
        self.flow.with(|state| {
            state.moved = Instant::now();
            state.complete = complete;
        });
        Frame::data(piece)
    }
}

fn read_piece(file: &File, offset: u64, size: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; usize::try_from(size).unwrap_or_default()];
    read_exact_at(file, &mut piece, offset)?;
    Ok(piece.into())
}

/// Fills `bytes` from a position.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] if the file has become shorter: a length that was promised can't be kept.
pub(super) fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk::read_at(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        // First the waker, then the look at the gate: a change between the two is not missed.
        body.flow.waker.register(cx.waker());
        match body.flow.gate.load(Ordering::Acquire) {
            OPEN => (),
            HELD => return Poll::Pending,
            _ => return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
        }
        if !body.before.is_empty() {
            let before = std::mem::take(&mut body.before);
            return Poll::Ready(Some(Ok(body.passed(before))));
        }
        if body.left == 0 {
            let after = std::mem::take(&mut body.after);
            return Poll::Ready((!after.is_empty()).then(|| Ok(body.passed(after))));
        }
        let piece = ready!(body.pieces.poll_recv(cx)).unwrap_or(Err(io::ErrorKind::UnexpectedEof.into()));
        Poll::Ready(Some(match piece {
            Ok(piece) => {
                body.left -= piece.len() as u64;
                (body.observer)(Event::Advanced(piece.len() as u64));
                Ok(body.passed(piece))
            }
            Err(error) => {
                let kind = error.kind();
                body.flow.with(|state| state.failure = Some(error));
                Err(kind.into())
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest())
    }
}
