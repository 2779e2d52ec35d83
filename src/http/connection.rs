//! A connection that does not wait forever.
//!
//! hyper limits the time for a request's header, and the upload handlers that for its body. What is left is guarded here, below
//! it: a peer that connects and says nothing, and a peer that stops reading what is sent to it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bytes after which it is clear which protocol is spoken (the preface of HTTP/2, RFC 9113 §3.4).
const PREFACE: u64 = 24;

/// Limits how long a stream may stand still.
pub(super) struct Guarded<S> {
    inner: S,
    /// For the first bytes.
    first: Option<Pin<Box<Sleep>>>,
    received: u64,
    /// Set while a write waits for the peer.
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Duration,
}

impl<S> Guarded<S> {
    /// The first bytes must come within `first`; a write may wait for the peer as long as `patience`.
    pub(super) fn new(inner: S, first: Duration, patience: Duration) -> Self {
        let first = Some(Box::pin(tokio::time::sleep(first)));
        Self { inner, first, received: 0, stalled: None, patience }
    }

    /// Passes on the outcome of a write: one that waits sets the clock, one that goes through stops it.
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let deadline = Instant::now() + self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match stalled.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if self.first.is_none() {
            return outcome;
        }
        match outcome {
            Poll::Ready(_) => {
                self.received += (buffer.filled().len() - before) as u64;
                if self.received >= PREFACE {
                    self.first = None;
                }
                outcome
            }
            Poll::Pending => {
                let late = self.first.as_mut().is_some_and(|first| first.as_mut().poll(cx).is_ready());
                if late {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer says nothing")))
                } else {
                    Poll::Pending
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const FIRST: Duration = Duration::from_secs(30);
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_cut() {
        let (near, _far) = duplex(64);
        let error = Guarded::new(near, FIRST, PATIENCE).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_spoken_is_not() {
        let (near, mut far) = duplex(64);
        let mut near = Guarded::new(near, FIRST, PATIENCE);
        far.write_all(&[7; 24]).await.unwrap();
        near.read_exact(&mut [0; 24]).await.unwrap();
        let late = async {
            tokio::time::sleep(FIRST * 3).await;
            far.write_all(b"!").await.unwrap();
        };
        let (read, ()) = tokio::join!(near.read_u8(), late);
        assert_eq!(read.unwrap(), b'!');
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_reading_is_cut_and_one_that_reads_slowly_is_not() {
        let (near, mut far) = duplex(8);
        let mut near = Guarded::new(near, FIRST, PATIENCE);
        let slowly = async {
            for _ in 0..16 {
                tokio::time::sleep(PATIENCE / 2).await;
                far.read_exact(&mut [0; 1]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[0; 24]), slowly);
        written.unwrap();
        let error = near.write_all(&[0; 24]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
