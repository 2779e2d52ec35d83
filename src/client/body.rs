//! The body of an upload: a file, read ahead on its own thread, a few pieces at most in memory.

use std::fs::File;
use std::io::{self, Read};
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

/// A file as the body of a request, with its exact length.
pub(super) struct FileBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    flow: Arc<Flow>,
    observer: Observer,
}

impl FileBody {
    /// The first `size` bytes of `file`. Reading starts at once.
    pub(super) fn new(mut file: File, size: u64, observer: Observer) -> (Self, Arc<Flow>) {
        let (sender, pieces) = mpsc::channel(READ_AHEAD);
        // Ends with the file, or when the body is dropped.
        tokio::task::spawn_blocking(move || {
            let mut left = size;
            while left > 0 {
                let piece = read_piece(&mut file, left.min(PIECE));
                left -= piece.as_ref().map_or(left, |piece| piece.len() as u64);
                if sender.blocking_send(piece).is_err() {
                    return;
                }
            }
        });
        let state = State { moved: Instant::now(), complete: size == 0, failure: None };
        let flow =
            Arc::new(Flow { gate: AtomicU8::new(OPEN), waker: AtomicWaker::new(), state: Mutex::new(state) });
        (Self { pieces, left: size, flow: Arc::clone(&flow), observer }, flow)
    }
}

fn read_piece(file: &mut File, size: u64) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    file.by_ref().take(size).read_to_end(&mut piece)?;
    // A file that has become shorter: the promised length can't be kept.
    if piece.len() as u64 == size { Ok(piece.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
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
        if body.left == 0 {
            return Poll::Ready(None);
        }
        let piece = ready!(body.pieces.poll_recv(cx)).unwrap_or(Err(io::ErrorKind::UnexpectedEof.into()));
        Poll::Ready(Some(match piece {
            Ok(piece) => {
                body.left -= piece.len() as u64;
                body.flow.with(|state| {
                    state.moved = Instant::now();
                    state.complete = body.left == 0;
                });
                (body.observer)(Event::Advanced(piece.len() as u64));
                Ok(Frame::data(piece))
            }
            Err(error) => {
                let kind = error.kind();
                body.flow.with(|state| state.failure = Some(error));
                Err(kind.into())
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
