//! A connection that does not wait forever.
//!
//! hyper limits the time for a request's header, and the upload handlers that for its body. What is left is guarded here, below
//! it: a peer that connects and says nothing, and a peer that stops reading what is sent to it.
//!
//! A connection that was upgraded (WebSocket) leaves hyper, but not this: the guard goes on, it can be cut from outside, and
//! it counts as a connection until the last who has it lets it go.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Bytes after which it is clear which protocol is spoken (the preface of HTTP/2, RFC 9113 §3.4).
const PREFACE: u64 = 24;

/// What a connection takes up, until its stream is dropped.
pub(super) type Place = (Option<OwnedSemaphorePermit>, TaskTrackerToken);

/// Bytes that the system keeps for a subscriber who does not read. Left alone it keeps up to some MiB for each: right for a
/// download, too much for thousands who only listen.
const SUBSCRIBER_BUFFER: usize = 128 << 10;

/// How a connection that was upgraded is cut.
#[derive(Clone)]
pub(super) struct Cut {
    upgraded: Arc<AtomicBool>,
    subscriber: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Cut {
    /// It is cut by this token.
    pub(super) fn by(token: CancellationToken) -> Self {
        Self { upgraded: Arc::default(), subscriber: Arc::default(), token }
    }

    /// The connection is to be upgraded. To be called before the peer is told so.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
        self.subscribe();
    }

    /// What is sent from now on is for somebody who listens for long.
    pub(super) fn subscribe(&self) {
        self.subscriber.store(true, Ordering::Release);
    }

    fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }
}

/// A stream whose buffer in the system can be limited.
pub(super) trait Buffered {
    /// The system is to keep at most so many bytes that the peer has not taken.
    fn limit_send_buffer(&self, bytes: usize);
}

impl Buffered for TcpStream {
    fn limit_send_buffer(&self, bytes: usize) {
        if let Err(error) = socket2::SockRef::from(self).set_send_buffer_size(bytes) {
            tracing::debug!(%error, "SO_SNDBUF");
        }
    }
}

/// Limits how long a stream may stand still.
pub(super) struct Guarded<S> {
    inner: S,
    /// For the first bytes.
    first: Option<Pin<Box<Sleep>>>,
    received: u64,
    /// Set while a write waits for the peer.
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Duration,
    cut: Cut,
    /// Both halves of an upgraded stream wait for the cut, each in its own task.
    read_cut: Waiting,
    write_cut: Waiting,
    limited: bool,
    _place: Option<Place>,
}

/// Waits for a cut, once it is asked for.
#[derive(Default)]
struct Waiting(Option<Pin<Box<WaitForCancellationFutureOwned>>>);

impl Waiting {
    /// An error once an upgraded connection is cut.
    fn check(&mut self, cut: &Cut, cx: &mut Context<'_>) -> io::Result<()> {
        if !cut.is_upgraded() {
            return Ok(());
        }
        let waiting = self.0.get_or_insert_with(|| Box::pin(cut.token.clone().cancelled_owned()));
        match waiting.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection is cut")),
        }
    }
}

impl<S> Guarded<S> {
    /// The first bytes must come within `first`; a write may wait for the peer as long as `patience`.
    pub(super) fn new(inner: S, first: Duration, patience: Duration, cut: Cut, place: Option<Place>) -> Self {
        let first = Some(Box::pin(tokio::time::sleep(first)));
        let (read_cut, write_cut) = (Waiting::default(), Waiting::default());
        Self {
            inner,
            first,
            received: 0,
            stalled: None,
            patience,
            cut,
            read_cut,
            write_cut,
            limited: false,
            _place: place,
        }
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
                // Who reads from an upgraded stream is another task, and must end too.
                self.cut.token.cancel();
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
        let this = &mut *self;
        this.read_cut.check(&this.cut, cx)?;
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

impl<S: Buffered> Guarded<S> {
    /// Looks at what the connection has become since the last write.
    fn before_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.limited && self.cut.subscriber.load(Ordering::Acquire) {
            self.limited = true;
            self.inner.limit_send_buffer(SUBSCRIBER_BUFFER);
        }
        self.write_cut.check(&self.cut, cx)
    }
}

impl<S: AsyncWrite + Buffered + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.before_write(cx)?;
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.before_write(cx)?;
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

    impl Buffered for tokio::io::DuplexStream {
        fn limit_send_buffer(&self, _: usize) {}
    }

    const FIRST: Duration = Duration::from_secs(30);
    const PATIENCE: Duration = Duration::from_secs(60);

    fn guarded<S>(stream: S) -> Guarded<S> {
        Guarded::new(stream, FIRST, PATIENCE, Cut::by(CancellationToken::new()), None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_cut() {
        let (near, _far) = duplex(64);
        let error = guarded(near).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_spoken_is_not() {
        let (near, mut far) = duplex(64);
        let mut near = guarded(near);
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
        let mut near = guarded(near);
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

    #[tokio::test(start_paused = true)]
    async fn an_upgraded_connection_is_cut_whatever_it_waits_for() {
        for upgraded in [true, false] {
            let (near, _far) = duplex(8);
            let token = CancellationToken::new();
            let cut = Cut::by(token.clone());
            if upgraded {
                cut.upgrade();
            }
            let near = Guarded::new(near, PATIENCE * 9, PATIENCE, cut, None);
            let (mut reader, mut writer) = tokio::io::split(near);
            let reading = tokio::spawn(async move { reader.read_u8().await });
            let writing = tokio::spawn(async move { writer.write_all(&[0; 24]).await });
            tokio::time::sleep(PATIENCE / 2).await;
            token.cancel();
            let expected = if upgraded { io::ErrorKind::ConnectionAborted } else { io::ErrorKind::TimedOut };
            assert_eq!(writing.await.unwrap().unwrap_err().kind(), expected);
            assert_eq!(reading.await.unwrap().unwrap_err().kind(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_reader_of_an_upgraded_connection_ends_with_its_writer() {
        let (near, _far) = duplex(8);
        let cut = Cut::by(CancellationToken::new());
        cut.upgrade();
        let (mut reader, mut writer) =
            tokio::io::split(Guarded::new(near, PATIENCE * 9, PATIENCE, cut, None));
        let reading = tokio::spawn(async move { reader.read_u8().await });
        let error = writer.write_all(&[0; 24]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
